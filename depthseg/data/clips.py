"""Clips: video files and folders of frames under one form, and where to find them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .decoded import once
from .decoding import VIDEO_SUFFIXES, VideoFrames
from .image_folders import IMAGE_SUFFIXES, list_images
from .images import read_image

CACHE_BYTES = 256 * 2**20
"""How much memory each process spends on decoded frames."""


class Frames(Protocol):
    """Frames in the order of time."""

    @property
    def frame_rate(self) -> float | None:
        """Frames per second; None = unknown."""

    def __len__(self) -> int:
        """Number of frames."""

    def up_to(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers and frames, the last of which is the one asked for."""

    def describe(self, number: int) -> str:
        """The frame in words, for messages."""


class ImageFrames:
    """The image files of a folder in natural order: `frame2` before `frame10`."""

    frame_rate = None

    def __init__(self, folder: Path) -> None:
        self.files = sorted(list_images(folder), key=lambda path: natural_order(path.name))

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.files)

    def up_to(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """The number of a frame, and the frame."""
        yield number, read_image(self.files[number])

    def describe(self, number: int) -> str:
        """The frame in words, for messages."""
        return f"Frame {self.files[number]}"


@dataclass(frozen=True)
class Clip:
    """One recording without a cut.

    Attributes:
        name: The path of its file or folder below the root, without ending.
        path: The file or folder.
        frames: Its frames.
    """

    name: str
    path: Path
    frames: Frames

    def frame_name(self, number: int) -> str:
        """The file name of a frame without ending; in a video file its number, `000012`."""
        return self.frames.files[number].stem if isinstance(self.frames, ImageFrames) else f"{number:06d}"

    def nearest(self, file_name: str, root: Path) -> Path | None:
        """A file that goes with the clip: beside its frames or in a folder above, up to `root` or the folder of it."""
        inside = [self.path, *self.path.parents]
        for folder in inside[: inside.index(root.parent if root.is_file() else root) + 1]:
            if (folder / file_name).is_file():
                return folder / file_name
        return None


class FrameCache:
    """Decoded frames of clips, all of one size per clip; those that were not used for long are dropped.

    Args:
        clips: The clips.
        size: Height and width that frames are resized to, antialiased; None = as they are.
    """

    def __init__(self, clips: Sequence[Clip], size: tuple[int, int] | None = None) -> None:
        self._clips = clips
        self._size = size
        self._kept: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._full_sizes: dict[int, tuple[int, int]] = {}
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leave the frames behind: a worker process reads its own."""
        return {**self.__dict__, "_kept": OrderedDict(), "_bytes": 0}

    def read(self, clip: int, number: int) -> np.ndarray:
        """A copy of a frame, uint8 `(H, W, 3)` RGB, or as `read_image` returns grey frames of more than 8 bits.

        Raises:
            ValueError: The frame cannot be decoded, or has another size than the first one of its clip.
        """
        if (clip, number) not in self._kept:
            path = self._clips[clip].path
            if path.is_file():
                image, _ = once(FrameCache.read, path, (number, self._size), lambda: (self._decode(clip, number), 0))
                self._remember(clip, number, image)
            else:  # of image files, each of which is kept by itself
                self._decode(clip, number)
        self._kept.move_to_end((clip, number))
        return self._kept[clip, number].copy()

    def full_size(self, clip: int) -> tuple[int, int]:
        """Height and width of the frames of a clip before they are resized."""
        if clip not in self._full_sizes:
            *_, (_, image) = self._clips[clip].frames.up_to(0)
            self._full_sizes[clip] = image.shape[:2]
        return self._full_sizes[clip]

    def _decode(self, clip: int, number: int) -> np.ndarray:
        """A frame at the size of the clip; frames on the way to it are remembered, too."""
        self.full_size(clip)  # first of all: a decoder cannot go on from two places
        for passed, image in self._clips[clip].frames.up_to(number):
            self._keep(clip, passed, image)
        return self._kept[clip, number]

    def _keep(self, clip: int, number: int, image: np.ndarray) -> None:
        first = self._full_sizes[clip]
        if image.shape[:2] != first:
            raise ValueError(
                f"{self._clips[clip].frames.describe(number)} is {image.shape[1]}x{image.shape[0]} pixels, but "
                f"its clip begins with {first[1]}x{first[0]}; all frames of a clip must have one size."
            )
        if self._size is not None:
            resized = Image.fromarray(image).resize(self._size[::-1], Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        self._remember(clip, number, image)

    def _remember(self, clip: int, number: int, image: np.ndarray) -> None:
        if (clip, number) not in self._kept:
            self._bytes += image.nbytes
        self._kept[clip, number] = image
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


def find_clips(root: str | Path, leave_out: Sequence[Path] = (), only: Sequence[str] | None = None) -> list[Clip]:
    """All clips of a path in natural order.

    Args:
        root: A video file, a folder of frames, or a folder with clips, at any depth. A folder that holds images is a
            clip; what lies below it is not looked at.
        leave_out: Folders that hold no clips, such as depth maps.
        only: Files or folders below `root` to look in; None = all.

    Raises:
        FileNotFoundError: There is no such path, or nothing in it.
        ValueError: A video file cannot be read.
    """
    root = Path(root)
    places = [root] if only is None else [root / name for name in only]
    for place in places:
        if not place.exists():
            raise FileNotFoundError(f"There is no video file or folder {place}.")
    paths = [path for place in places for path in _clip_paths(place, [folder.resolve() for folder in leave_out])]
    if not paths:
        raise FileNotFoundError(
            f"{root} holds neither frames ({', '.join(IMAGE_SUFFIXES)}) nor video files "
            f"({', '.join(VIDEO_SUFFIXES)}), nor folders of them."
        )
    clips = []
    for path in paths:
        name = path.name if path == root else path.relative_to(root).as_posix()
        if path.is_file():
            name = name.removesuffix(path.suffix)
        clips.append(Clip(name, path, VideoFrames(path) if path.is_file() else ImageFrames(path)))
    twice = {clip.name for clip in clips if [other.name for other in clips].count(clip.name) > 1}
    if twice:
        raise ValueError(f"{root} has more than one clip named {min(twice)}; rename one.")
    return clips


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Key that sorts numbers in names by their value."""
    words = re.findall(r"\d+|\D+", name)
    return [(0, int(word), word) if word.isdecimal() else (1, 0, word) for word in words]


def _clip_paths(path: Path, leave_out: Sequence[Path]) -> Iterator[Path]:
    """The path itself if it is a clip, else those of its clips."""
    if path.is_file() or list_images(path):
        yield path
        return
    for child in sorted(path.iterdir(), key=lambda child: natural_order(child.name)):
        if child.name.startswith(".") or child.resolve() in leave_out:
            continue
        if child.is_dir() or child.suffix.lower() in VIDEO_SUFFIXES:
            yield from _clip_paths(child, leave_out)
