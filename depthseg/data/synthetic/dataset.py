"""The world as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..label_spaces import LabelSpace
from ..sample import Sample
from .cache import ShardCache
from .rendering import OUTPUTS, check_outputs, check_size, render
from .variants import VARIANTS


class SyntheticWorld:
    """The first `count` scenes of a split of a procedural world.

    Rendered once into `root/SPLIT_HEIGHTxWIDTH/` (the second world into `root/second_SPLIT_...`), see `ShardCache`.

    Attributes:
        names: One name for each frame, `train_00000` and so on.
        label_space: The eleven classes of CamVid; of the second world, seven coarse ones.
        outputs: What the cache holds.
        folder: Where it lies.
    """

    splits = tuple(VARIANTS["first"].seeds)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        count: int,
        size: Sequence[int],
        outputs: Sequence[str] = ("image", "depth", "labels"),
        frames: Sequence[int] = (),
        stereo: bool = False,
        flow: bool = False,
        intrinsics: bool = False,
        variant: str = "first",
        workers: int | None = None,
    ) -> None:
        """Open the cache, rendering first what it lacks.

        Args:
            root: Cache folder, made when missing.
            split: "train", "val" or "test"; they share no scene.
            count: Number of frames.
            size: Height and width in pixels.
            outputs: Which outputs of `render` to keep; "image" is always among them.
            frames: Offsets of the neighbours in time that samples bring along, such as -1 and 1.
            stereo: Whether samples bring along the camera to the right, and its distance in metres.
            flow: Whether samples bring along the true flow to the frame before.
            intrinsics: Whether samples have intrinsics; with frames, stereo or flow they always do.
            variant: "first", or "second" for a world of other streets, cameras, colours and classes.
            workers: Rendering processes; None for one per core, at most 8.

        Raises:
            ValueError: An unknown split, variant or output, a count below 1, an offset of 0, or a folder that another
                world was rendered into.
        """
        if variant not in VARIANTS:
            raise ValueError(f"variant is {variant!r}; the procedural worlds are {', '.join(VARIANTS)}.")
        world = VARIANTS[variant]
        check_split_and_count(split, count)
        check_size(size)
        check_outputs(outputs, OUTPUTS)
        self.frames = _check_offsets(frames)
        self.stereo, self.flow = stereo, flow
        self.intrinsics = bool(intrinsics or stereo or flow or self.frames)
        self.split, self.size, self.variant = split, (size[0], size[1]), variant
        self.outputs = tuple(dict.fromkeys(("image", *outputs, *self._views())))
        self.names = [f"{world.prefix}{split}_{index:05d}" for index in range(count)]
        self.label_space: LabelSpace | None = world.label_space
        self._label_ids = world.ids
        self.folder = Path(root) / f"{world.prefix}{split}_{size[0]}x{size[1]}"
        self._cache = ShardCache(
            self.folder,
            world.version,
            partial(_render_outputs, variant, split, self.size),
            count=count,
            outputs=self.outputs,
            workers=workers,
        )

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Frame number `index`; depth 0 = sky, labels and depth None where they are not among the outputs."""
        number = range(len(self))[index]

        def found(output: str, wanted: bool) -> np.ndarray | None:
            return self.read(output, number) if wanted else None

        labels = found("labels", "labels" in self.outputs)
        return Sample(
            self.names[number],
            self.read("image", number),
            labels=None if labels is None else self._label_ids[labels],
            depth=found("depth", "depth" in self.outputs),
            frames={offset: self.read(_frame_output(offset), number) for offset in self.frames},
            stereo=found("stereo", self.stereo),
            stereo_x=float(self.read("baseline", number)) if self.stereo else None,
            intrinsics=found("intrinsics", self.intrinsics),
            flow=self._flow(number) if self.flow else None,
        )

    def has_depth(self, index: int) -> bool:
        """Whether depth is among the outputs."""
        return "depth" in self.outputs

    def read(self, output: str, index: int) -> np.ndarray:
        """A copy of one output of frame `index`, as `render` returns it, such as depth `(H, W)` in metres."""
        check_outputs([output], self.outputs)
        return self._cache.read(output, range(len(self))[index])

    def _views(self) -> list[str]:
        """Outputs that the cache needs for views, flow and intrinsics."""
        needed = [_frame_output(offset) for offset in self.frames]
        needed += ["stereo", "baseline"] * self.stereo
        needed += ["flow_previous", "visible_previous"] * self.flow
        return needed + ["intrinsics"] * self.intrinsics

    def _flow(self, number: int) -> np.ndarray:
        visible = self.read("visible_previous", number)
        return np.where(visible[..., None], self.read("flow_previous", number), np.float32(np.nan))


def check_split_and_count(split: str, count: int) -> None:
    """Raise a ValueError for a split that does not exist or a count that is no number of frames."""
    if split not in SyntheticWorld.splits:
        raise ValueError(f"split is {split!r}; the procedural world has {', '.join(SyntheticWorld.splits)}.")
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"count is {count!r}; give the number of frames, 1 or more.")


def _check_offsets(frames: Sequence[int]) -> tuple[int, ...]:
    listed = isinstance(frames, Sequence) and not isinstance(frames, str)
    if not listed or any(not isinstance(offset, int) or offset == 0 for offset in frames):
        raise ValueError(f"frames is {frames!r}; give a list of offsets in time, whole and not 0, such as [-1, 1].")
    return tuple(dict.fromkeys(frames))


def _frame_output(offset: int) -> str:
    """Name in the cache of the image `offset` frames later."""
    return f"frame{offset:+d}"


def _render_outputs(
    variant: str, split: str, size: tuple[int, int], index: int, outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """Outputs of one scene, those of `render` and images from other moments and places."""
    world = VARIANTS[variant]
    own = [name for name in outputs if name in OUTPUTS]
    draw = partial(render, world.seeds[split], index, size, world=world.parameters)
    found = draw(outputs=own) if own else {}
    for name in outputs:
        if name not in own:
            where = {"view": "right"} if name == "stereo" else {"time": int(name.removeprefix("frame"))}
            found[name] = draw(**where, outputs=("image",))["image"]
    return found
