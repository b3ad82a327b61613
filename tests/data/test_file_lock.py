"""Locks between processes, also where a file system has none."""

import errno
import fcntl
import os
import signal
from contextlib import ExitStack

import pytest

from depthseg.data.file_lock import locked


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.parametrize("wait", [True, False])
def test_a_network_file_system_without_locks_locks_nothing_and_ends_nothing(tmp_path, monkeypatch, number, wait):
    def refuse(*args):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / "lock").write_text("held by another")
    with locked(tmp_path / "lock", wait) as descriptor:
        assert descriptor is None
    assert (tmp_path / "lock").read_text() == "held by another"


def test_a_held_lock_and_a_broken_disk_are_still_errors(tmp_path, monkeypatch):
    with locked(tmp_path / "lock"), pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
        pass

    def fail(*args):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "lock"):
        pass


def test_an_error_without_a_lock_is_that_of_the_block(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="the disk is full"), locked(tmp_path / "lock"):
        raise OSError(errno.ENOLCK, "the disk is full")


def test_a_forked_process_does_not_hold_the_lock(tmp_path):
    """Reading processes live on for seconds when their run is killed, and a scheduler starts it anew at once."""
    begun, begins = os.pipe()
    with ExitStack() as held:
        held.enter_context(locked(tmp_path / "lock"))
        child = os.fork()
        if not child:
            os.write(begins, b"x")
            signal.pause()
        try:
            assert os.read(begun, 1) == b"x"
            with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
                pass
            held.close()
            # The file was closed in this process: the lock is gone only where the other one let go of it.
            with locked(tmp_path / "lock", wait=False) as descriptor:
                assert descriptor is not None
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
