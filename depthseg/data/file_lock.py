"""A lock between processes, so that what is kept in files is made once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Hold an exclusive lock that the system drops when the process ends, however it ends.

    Args:
        path: The file that is locked; made where it is missing, in a folder that exists.

    Yields:
        Its descriptor; None on a system without such locks, where nothing is locked.
    """
    try:
        import fcntl
    except ImportError:  # renaming keeps the files whole there, work may be done twice
        yield None
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
