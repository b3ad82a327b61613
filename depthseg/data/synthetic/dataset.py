"""The world as a data set: rendered once into memory-mapped files, opened at once ever after."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..label_spaces import LABEL_SPACES, LabelSpace
from ..sample import Sample
from .rendering import OUTPUTS, check_outputs, check_size, render
from .world import WORLD_VERSION

logger = logging.getLogger(__name__)

SPLIT_SEEDS = {"train": 0, "val": 1, "test": 2}
SHARD_FRAMES = 16
_FACTS = "world.json"


class SyntheticWorld:
    """The first `count` scenes of a split of the procedural world.

    Frames lie in `root/SPLIT_HEIGHTxWIDTH/` in files of 16 frames for each output. Missing files are rendered when the
    data set is made, by worker processes where the system can fork; a cache that was cut off goes on where it stopped,
    a longer one serves a shorter count, and processes that start together wait for each other.

    Attributes:
        names: One name for each frame, `train_00000` and so on.
        label_space: The eleven classes of CamVid.
        outputs: What the cache holds.
    """

    splits = tuple(SPLIT_SEEDS)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        count: int,
        size: tuple[int, int],
        outputs: Sequence[str] = ("image", "depth", "labels"),
        workers: int | None = None,
    ) -> None:
        """Open the cache, rendering first what it lacks.

        Args:
            root: Cache folder, made when missing.
            split: "train", "val" or "test"; they share no scene.
            count: Number of frames.
            size: Height and width in pixels.
            outputs: Which outputs of `render` to keep; "image" is always among them.
            workers: Rendering processes; None for one per core, at most 8.

        Raises:
            ValueError: An unknown split or output, a count below 1, or a folder that another world was rendered into.
        """
        if split not in SPLIT_SEEDS:
            raise ValueError(f"split is {split!r}; the procedural world has {', '.join(SPLIT_SEEDS)}.")
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"count is {count!r}; give the number of frames, 1 or more.")
        check_size(size)
        check_outputs(outputs, OUTPUTS)
        self.split, self.size = split, tuple(size)
        self.outputs = tuple(dict.fromkeys(("image", *outputs)))
        self.names = [f"{split}_{index:05d}" for index in range(count)]
        self.label_space: LabelSpace | None = LABEL_SPACES["camvid11"]
        self.folder = Path(root) / f"{split}_{size[0]}x{size[1]}"
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        self._prepare(workers)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Frame number `index`; depth 0 = sky, labels and depth None where they are not among the outputs."""
        number = range(len(self))[index]
        found = {name: self.read(name, number) if name in self.outputs else None for name in ("labels", "depth")}
        return Sample(self.names[number], self.read("image", number), **found)

    def __getstate__(self) -> dict:
        """Leave the maps behind: a worker process opens its own instead of receiving every frame."""
        return {**self.__dict__, "_maps": {}}

    def read(self, output: str, index: int) -> np.ndarray:
        """A copy of one output of frame `index`, as `render` returns it."""
        check_outputs([output], self.outputs)
        shard, row = divmod(range(len(self))[index], SHARD_FRAMES)
        key = (output, shard)
        if key not in self._maps:
            self._maps[key] = _open_shard(_shard_path(self.folder, *key))
        return np.array(self._maps[key][row])

    def _prepare(self, workers: int | None) -> None:
        shards = range(-(-len(self) // SHARD_FRAMES))
        if _missing(self.folder, shards, self.outputs) or not (self.folder / _FACTS).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / ".lock"):
                _claim(self.folder)
                jobs = [
                    (self.folder, self.split, self.size, shard, names)
                    for shard, names in _missing(self.folder, shards, self.outputs).items()
                ]
                _render_all(jobs, workers)
        _claim(self.folder)


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


def _claim(folder: Path) -> None:
    """Write this world's version into a new cache folder, compare it in an old one."""
    path = folder / _FACTS
    if not path.is_file():
        _write(path, lambda file: file.write(json.dumps({"world_version": WORLD_VERSION}).encode()))
    found = json.loads(path.read_text()).get("world_version")
    if found != WORLD_VERSION:
        raise ValueError(
            f"{folder} holds frames of world version {found}, this is version {WORLD_VERSION}; "
            "give another cache folder, or delete this one."
        )


def _write(path: Path, fill) -> None:
    """Write a file under a temporary name and rename it: other processes see all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            fill(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that the system drops when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: renaming keeps the files whole, work may be done twice
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _render_all(jobs: list[tuple], workers: int | None) -> None:
    """Render shards, in worker processes where that is worth while and possible without importing the caller again."""
    workers = min(workers or min(os.cpu_count() or 1, 8), len(jobs))
    if not jobs:
        return
    logger.info("Rendering %d frames of the procedural world into %s", len(jobs) * SHARD_FRAMES, jobs[0][0])
    if workers > 1 and sys.platform == "linux":
        with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
            for _ in pool.map(_render_shard, jobs):
                pass
        return
    for job in jobs:
        _render_shard(job)


def _render_shard(job: tuple[Path, str, tuple[int, int], int, list[str]]) -> None:
    """Render the frames of one shard and write one file for each output."""
    folder, split, size, shard, names = job
    first = shard * SHARD_FRAMES
    frames = [render(SPLIT_SEEDS[split], first + k, size, outputs=names) for k in range(SHARD_FRAMES)]
    for name in names:
        stack = np.stack([frame[name] for frame in frames])
        _write(_shard_path(folder, name, shard), lambda file, stack=stack: np.save(file, stack))
