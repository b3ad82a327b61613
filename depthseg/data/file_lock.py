"""A lock between processes, so that what is kept in files is made once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


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
            os.ftruncate(descriptor, 0)
        except OSError as error:  # clusters often leave locks out
            if error.errno not in _WITHOUT_LOCKS:
                raise
            descriptor = None
        yield descriptor
