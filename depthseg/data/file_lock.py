"""A lock between processes, so that what is kept in files is made once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What network file systems that are mounted without locks answer."""

_HELD: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _hold_nothing() -> None:
    """Let go, in a forked process, of what the one it comes from holds.

    A lock would otherwise outlive a killed run for as long as its reading processes do, which look for it every five
    seconds. The descriptors stay open, on nothing, for whoever closes them.
    """
    nothing = os.open(os.devnull, os.O_WRONLY)
    while _HELD:
        os.dup2(nothing, _HELD.pop())
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_hold_nothing)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[int | None]:
    """Hold an exclusive lock that the system drops when the process ends, however it ends.

    Args:
        path: The file that is locked; made where it is missing, in a folder that exists.
        wait: Wait for another process that holds it.

    Yields:
        Its descriptor; None on a system or file system without such locks, where nothing is locked.

    Raises:
        BlockingIOError: Another process holds it, and waiting was not asked for.
    """
    try:
        import fcntl
    except ImportError:  # renaming keeps the files whole there, work may be done twice
        yield None
        return
    # Appending, so that who may only look leaves what the holder wrote.
    with path.open("a") as file:
        descriptor = file.fileno()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield None
            return
        _HELD.add(descriptor)
        try:
            os.ftruncate(descriptor, 0)
            yield descriptor
        finally:
            _HELD.discard(descriptor)
