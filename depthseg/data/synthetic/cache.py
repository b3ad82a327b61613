"""What is rendered once into memory-mapped files, and opened at once ever after."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..file_lock import locked

logger = logging.getLogger(__name__)

SHARD_FRAMES = 16
_FACTS = "world.json"
_Make = Callable[[int, Sequence[str]], dict[str, np.ndarray]]


class ShardCache:
    """Files of 16 frames for each output, in one folder.

    Missing files are rendered when the cache is opened, by worker processes where the system can fork; a cache that
    was cut off goes on where it stopped, a longer one serves a shorter count, one that lacks an output is given that
    one, and processes that start together wait for each other.
    """

    def __init__(
        self,
        folder: Path,
        version: str,
        make: _Make,
        *,
        count: int,
        outputs: Sequence[str],
        workers: int | None = None,
    ) -> None:
        """Open the cache, rendering first what it lacks.

        Args:
            folder: Where the files lie; made when missing.
            version: Of the world that is rendered; kept in the folder.
            make: `make(index, outputs)` renders those outputs of a frame; worker processes receive it pickled.
            count: Number of frames.
            outputs: What to keep.
            workers: Rendering processes; None for one per core, at most 8.

        Raises:
            ValueError: The folder holds frames of another version.
        """
        self._folder = folder
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        shards = range(-(-count // SHARD_FRAMES))
        if _missing(folder, shards, outputs) or not (folder / _FACTS).is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / ".lock") as lock:
                _claim(folder, version)
                missing = _missing(folder, shards, outputs)
                _render_all([(folder, make, shard, names) for shard, names in missing.items()], workers, lock)
        _claim(folder, version)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps behind: a worker process opens its own instead of receiving every frame."""
        return {**self.__dict__, "_maps": {}}

    def read(self, output: str, index: int) -> np.ndarray:
        """A copy of one output of a frame.

        Raises:
            ValueError: A file with another number of frames.
        """
        shard, row = divmod(index, SHARD_FRAMES)
        key = (output, shard)
        if key not in self._maps:
            self._maps[key] = _open_shard(_shard_path(self._folder, *key))
        return np.array(self._maps[key][row])


def _shard_path(folder: Path, output: str, shard: int) -> Path:
    return folder / f"{output}_{shard:05d}.npy"


def _open_shard(path: Path) -> np.ndarray:
    frames = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(frames) != SHARD_FRAMES:
        raise ValueError(
            f"{path} holds {len(frames)} frames where files of {SHARD_FRAMES} are expected: another release rendered "
            "it. Give another cache folder, or delete this one."
        )
    return frames


def _missing(folder: Path, shards: Sequence[int], outputs: Sequence[str]) -> dict[int, list[str]]:
    """Outputs that each shard lacks; shards that lack none are left out."""
    lacking = {s: [name for name in outputs if not _shard_path(folder, name, s).is_file()] for s in shards}
    return {shard: names for shard, names in lacking.items() if names}


def _claim(folder: Path, version: str) -> None:
    """Write the world's version into a new cache folder, compare it in an old one."""
    path = folder / _FACTS
    if not path.is_file():
        _write(path, lambda file: file.write(json.dumps({"world_version": version}).encode()))
    found = json.loads(path.read_text()).get("world_version")
    if found != version:
        raise ValueError(
            f"{folder} holds frames of world version {found}, this is version {version}; "
            "give another cache folder, or delete this one."
        )


def _write(path: Path, fill: Callable[[Any], object]) -> None:
    """Write a file under a temporary name and rename it: other processes see all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _render_all(jobs: list[tuple[Any, ...]], workers: int | None, lock: int | None) -> None:
    """Render shards, in worker processes where that is worth while and possible without importing the caller again."""
    workers = min(workers or min(os.cpu_count() or 1, 8), len(jobs))
    if not jobs:
        return
    logger.info("Rendering %d frames of the procedural world into %s", len(jobs) * SHARD_FRAMES, jobs[0][0])
    if workers > 1 and sys.platform == "linux":
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(), lock)) as pool:
            for _ in pool.map(_render_shard, jobs):
                pass
        return
    for job in jobs:
        _render_shard(job)


def _start_worker(parent: int, lock: int | None) -> None:
    """Make sure that nothing is left of a process that was killed: no worker that waits for it, and no lock."""
    if lock is not None:
        # A lock lasts as long as anyone has it open, and a worker gets all that is open.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, lock)
        os.close(nothing)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _render_shard(job: tuple[Path, _Make, int, list[str]]) -> None:
    """Render the frames of one shard and write one file for each output."""
    folder, make, shard, names = job
    first = shard * SHARD_FRAMES
    frames = [make(first + k, names) for k in range(SHARD_FRAMES)]
    for name in names:
        stack = np.stack([frame[name] for frame in frames])
        _write(_shard_path(folder, name, shard), partial(np.save, arr=stack))
