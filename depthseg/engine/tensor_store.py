"""Tensors in a folder of memory-mapped files that several runs write and read at the same time."""

from __future__ import annotations

import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..data.file_lock import locked
from .atomic import atomic_path

if TYPE_CHECKING:
    from .options import DataOptions

GIB = 1024**3
DISK_RESERVE = GIB // 2
"""Bytes that stay free on the disk, for checkpoints and for others."""

MAPPED_FILES = 16384
"""Files that a process keeps mapped; Linux allows four times as many mappings."""

WRITES_BETWEEN_COUNTS = 64
"""Least writes of a process after which it looks again at what the folder holds, which others may have emptied; where
it holds more files than that, as many writes as files, so that looking stays cheap beside writing."""

COUNT_FILE = "used"
"""Holds the bytes of all files as of the last write: processes that write at the same time know of each other."""

LOCKS = 3
"""Hexadecimal digits of a key that name its lock: few lock files, none ever removed while another waits for it."""

LONGEST_WRITE = 3600
"""Seconds after which a file that is still being written is one of a process that was killed."""

LESS_FEATURES = "lower data.augmented_copies or data.size, or set data.cache_features=false"

Entry = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and texts of a file."""


class TensorStore:
    """Files of tensors, each named by the hash of all that its content depends on.

    So a file never changes once it is there: who finds it reads it, and it does not matter which of two processes
    that write the same file is the last. Each is written under another name and renamed when it is complete.

    Args:
        folder: Where the files are; made where it is missing.
        limit: Most bytes that the folder may hold.
        way_out: What else to do where they do not fit, the end of a sentence.
    """

    def __init__(self, folder: Path, limit: int, way_out: str = LESS_FEATURES) -> None:
        self.folder = folder
        self.limit = limit
        self._way_out = way_out
        self._mapped: OrderedDict[str, Entry] = OrderedDict()
        self._writes_to_count = 0
        self._remove_leftovers()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: a worker process opens its own."""
        return {**self.__dict__, "_mapped": OrderedDict()}

    def __contains__(self, key: str) -> bool:
        return os.path.isfile(self._path(key))  # False where this user may not look, too

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def read(self, key: str) -> Entry:
        """The tensors of a file, mapped into memory and not to be written to, and its texts.

        Raises:
            ValueError: The file is not there, or damaged.
        """
        entry = self._mapped.pop(key, None)
        if entry is None:
            path = self._path(key)
            try:
                with safe_open(path, framework="pt") as file:
                    entry = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{path} cannot be read ({error}). Delete it and set run.resume=true: it is computed again."
                ) from error
        self._mapped[key] = entry
        if len(self._mapped) > MAPPED_FILES:
            self._mapped.popitem(last=False)
        return entry

    def write(self, key: str, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
        """Write a file, unless that would pass the limit.

        Raises:
            OSError: The limit is reached, or the disk is nearly full, became full or fails.
        """
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(texts))
        size = len(content)
        with atomic_path(self._path(key)) as temporary:
            with self._lock("count"):  # no other process claims room meanwhile
                used = self._last_count() if self._writes_to_count else self.used()
                used = self._require_room(size, "the next file needs", used)
                # At its full size from now on, so that whoever counts counts what is still to be written.
                with temporary.open("wb") as file:
                    file.truncate(size)
                (self.folder / COUNT_FILE).write_text(str(used + size))
            with temporary.open("r+b") as file:
                file.write(content)
        self._writes_to_count -= 1

    def require_room(self, needed: int, what: str) -> None:
        """Refuse what does not fit below the limit or on the disk.

        Args:
            needed: Bytes to write.
            what: Subject and verb of the sentence, such as "the features need".

        Raises:
            OSError: It does not fit.
        """
        with self._lock("count"):
            self._require_room(needed, what, self.used())

    def _require_room(self, needed: int, what: str, used: int) -> int:
        """Bytes of all files if that many more fit; those given are counted again before anything is refused."""
        free = shutil.disk_usage(self.folder).free - DISK_RESERVE
        used = self.used() if used + needed > self.limit else used
        if used + needed > self.limit:
            raise OSError(
                f"The cache {self.folder} holds {gib(used)}, {what} {gib(needed)}, and data.cache_limit is "
                f"{gib(self.limit)}. Raise data.cache_limit, delete {self.folder} if no run uses it, {self._way_out}."
            )
        if needed > free:
            raise OSError(
                f"The disk of the cache {self.folder} has {gib(max(free, 0))} left beside the {gib(DISK_RESERVE)} "
                f"that stay free, and {what} {gib(needed)}. Free some space, name a folder on another disk with "
                f"data.cache_dir, {self._way_out}."
            )
        return used

    def _last_count(self) -> int:
        """Bytes of all files as the process that wrote last has noted."""
        try:
            return int((self.folder / COUNT_FILE).read_text())
        except (OSError, ValueError):  # removed, or its writer was killed
            return self.used()

    def _lock(self, name: str) -> AbstractContextManager[int | None]:
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return locked(folder / name)

    def used(self) -> int:
        """Bytes of all files, those of processes that are writing included."""
        sizes = []
        for entry in self._files():
            with suppress(FileNotFoundError):  # another process has renamed it
                sizes.append(entry.stat().st_size)
        self._writes_to_count = max(WRITES_BETWEEN_COUNTS, len(sizes))
        return sum(sizes)

    def _files(self) -> Iterator[os.DirEntry]:
        for part in _entries(self.folder):
            yield from _entries(part.path) if part.is_dir() else ()

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed had not written to the end, as far as this user may."""
        for entry in self._files():
            if entry.name.startswith("."):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - LONGEST_WRITE:
                        os.unlink(entry.path)

    def owned(self, key: str) -> AbstractContextManager[int | None]:
        """Hold what this key names: another process that asks for the same waits until the block ends."""
        return self._lock(key[:LOCKS])


def default_folder(name: str) -> Path:
    """Where files of a kind, such as `features`, are kept unless `data.cache_dir` says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "depthseg", name)


def open_store(data: DataOptions, name: str, way_out: str = LESS_FEATURES) -> TensorStore:
    """The store of a kind of files in the folder and within the limit that the options of a run name."""
    folder = Path(data.cache_dir) if data.cache_dir else default_folder(name)
    return TensorStore(folder, int(data.cache_limit * GIB), way_out)


def _entries(folder: Path | str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(tensor.nbytes for tensor in tensors.values())


def gib(size: int) -> str:
    """A number of bytes as text."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size / 1024**2:.2f} MiB"
