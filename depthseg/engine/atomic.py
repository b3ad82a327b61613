"""Writing files and folders so that a reader never meets half of one, and a loss of power costs none."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary name beside `path` that becomes `path` when the block ends well.

    The parent directory is made where it is missing. When the block raises, the temporary file is removed and an
    older `path` stays as it was.

    Yields:
        The temporary path, in the same directory and with the same suffix (writers that choose a format by suffix
        keep working).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by the number of the process: threads share it, and so do containers that share a folder.
    temporary = path.with_name(f".{path.stem}.{os.urandom(4).hex()}.part{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield the name of a new folder beside `target` that replaces it if the block succeeds.

    No system replaces a folder in one move. A process that is killed between the two moves leaves no `target`, but
    both folders, complete and under hidden names. The parent directory is made where it is missing.

    Yields:
        The temporary path, `.NAME.partial`; nothing of this name exists. It is removed if the block raises an error.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _replace_folder(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(new: Path, target: Path) -> None:
    for path in (*new.rglob("*"), new):
        sync(path)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the list of files of a folder, is on the disk itself."""
    windows = os.name == "nt"
    folder = path.is_dir()
    if windows and folder:  # it cannot be opened there
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems keep folders safe by themselves and refuse to be asked.
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
