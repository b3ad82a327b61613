"""Run directories that are moved, copied, damaged, or wanted by two runs; clocks that go backwards."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time

import pytest

from depthseg.engine.command import one_sentence_errors
from depthseg.engine.run_lock import only_run

STOPPED = ("schedule.steps=4", "run.checkpoint_every=1")


class Killed(BaseException):
    pass


@pytest.fixture
def stopped(run_tiny, tiny, faulty):
    """A run that was killed in its third step."""

    def stop(*options):
        left = [11]

        def look(index):
            left[0] -= 1
            if left[0] < 0:
                raise Killed

        with pytest.raises(Killed):
            run_tiny(*options, data=faulty(tiny.Blocks(10), when=look))

    return stop


def _said(run):
    with pytest.raises(SystemExit) as ended, one_sentence_errors():
        run()
    return ended.value.code


def _messages(caplog, text):
    return next(r.getMessage() for r in caplog.records if text in r.getMessage())


@pytest.mark.heavy
def test_a_moved_run_resumes(stopped, run_tiny, tmp_path, ends_like, row, caplog):
    caplog.set_level("INFO", "depthseg")
    stopped()
    (tmp_path / "run").rename(tmp_path / "moved")
    run_tiny("run.resume=true", folder="moved")
    assert ends_like("moved")
    row("The run directory was moved", _messages(caplog, "resumed after"), "All; the run resumes in the new place.")


@pytest.mark.heavy
def test_a_copied_run_resumes_and_the_first_one_too(stopped, run_tiny, tmp_path, ends_like, row, caplog):
    caplog.set_level("INFO", "depthseg")
    stopped()
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    for folder in ("copy", "run"):
        run_tiny("run.resume=true", folder=folder)
        assert ends_like(folder)
    row("The run directory was copied", _messages(caplog, "resumed after"), "Both; each resumes by itself.")


def test_of_two_runs_in_one_directory_the_second_is_refused(stopped, run_tiny, tmp_path, ends_like, row):
    stopped()
    with only_run(tmp_path / "run"):
        for option in ("run.resume=true", "run.overwrite=true"):
            said = _said(lambda option=option: run_tiny(option))
            assert f"is being trained in by process {os.getpid()} on" in said
    assert (tmp_path / "run" / "checkpoints" / "step_2").is_dir()
    row("Two runs into one directory", said, "The first run, which does not notice.")
    run_tiny("run.resume=true")
    assert ends_like()
    assert not (tmp_path / "run" / ".lock").exists()
    row("A second run into the directory of a finished one", _said(run_tiny), "The finished run.")


def test_a_lock_of_a_killed_run_is_no_lock(tmp_path):
    child = os.fork()
    if not child:
        with only_run(tmp_path):
            os._exit(9)
    os.waitpid(child, 0)
    assert (tmp_path / ".lock").exists()
    with only_run(tmp_path):
        pass


def test_a_lock_on_a_removed_file_is_no_lock(tmp_path, monkeypatch):
    """Its holder ended between the moments at which this process opens and locks the file."""
    flock = fcntl.flock

    def late(descriptor, how):
        (tmp_path / ".lock").unlink()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(FileExistsError, match="is being trained in by another process"), only_run(tmp_path):
        pass


def test_an_error_of_the_run_is_not_one_of_the_lock(tmp_path):
    with pytest.raises(BlockingIOError, match="the terminal is busy"), only_run(tmp_path):
        raise BlockingIOError("the terminal is busy")
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK], ids=errno.errorcode.get)
def test_a_file_system_without_locks_trains_without(tmp_path, monkeypatch, number):
    def without(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    with only_run(tmp_path):
        assert (tmp_path / ".lock").exists()
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"), only_run(tmp_path):
        pass


@pytest.mark.heavy
def test_a_clock_that_goes_backwards_changes_nothing(run_tiny, stopped, monkeypatch, tmp_path, ends_like, row, caplog):
    caplog.set_level("INFO", "depthseg")
    stopped()
    now = [time.time() - 10 * 365 * 86400]

    def back():
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", back)
    monkeypatch.setattr(time, "time_ns", lambda: int(back() * 1e9))
    run_tiny("run.resume=true")
    assert ends_like()
    said = _messages(caplog, "resumed after")
    row("The clock goes backwards by years, and by an hour at every look", said, "All; nothing depends on the clock.")


@pytest.mark.heavy
def test_a_truncated_checkpoint_gives_way_to_the_one_before(stopped, run_tiny, tmp_path, ends_like, row, caplog):
    stopped()
    os.truncate(tmp_path / "run" / "checkpoints" / "step_2" / "model.safetensors", 1000)
    run_tiny("run.resume=true")
    assert ends_like()
    said = _messages(caplog, "cannot be resumed")
    row("The newest checkpoint is truncated", said, "The checkpoint before, from which the run resumes.")


@pytest.mark.heavy
def test_where_all_checkpoints_are_damaged_nothing_is_touched(stopped, run_tiny, tmp_path, row):
    stopped()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        content = bytearray((path / "optimizer.safetensors").read_bytes())
        content[len(content) // 2] ^= 1
        (path / "optimizer.safetensors").write_bytes(content)
    said = _said(lambda: run_tiny("run.resume=true"))
    row(
        "A bit of every checkpoint is wrong", said, "The selected weights in model/, the records, and what is damaged."
    )


@pytest.mark.heavy
def test_a_damaged_record_is_named(stopped, run_tiny, tmp_path, ends_like, row):
    stopped()
    os.truncate(tmp_path / "run" / "run.json", 20)
    said = _said(lambda: run_tiny("run.resume=true"))
    row("run.json is truncated", said, "The checkpoints.")
    (tmp_path / "run" / "run.json").unlink()
    run_tiny("run.resume=true")
    assert ends_like()


@pytest.mark.heavy
def test_other_options_are_refused(stopped, run_tiny, row):
    stopped()
    said = _said(lambda: run_tiny("run.resume=true", "optim.lr=1"))
    row("Other options when a run resumes", said, "All.")


def test_so_many_checkpoints_are_kept(run_tiny, tmp_path):
    for count in (1, 3):
        run_tiny(f"run.keep_last={count}", "run.overwrite=true")
        steps = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
        assert steps == [f"step_{step}" for step in range(5 - count, 5)]
