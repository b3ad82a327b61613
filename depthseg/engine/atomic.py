"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary name beside `path` that becomes `path` when the block ends well.

    The parent directory is made where it is missing. When the block raises, the temporary file is removed and an
    older `path` stays as it was.

    Args:
        path: The file to write.

    Yields:
        The temporary path, in the same directory and with the same suffix (writers that choose a format by suffix
        keep working).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
