"""Which files a prediction is made for, what they are called, and which options make a difference to them."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from ..data.clips import natural_order
from ..data.decoding import VIDEO_SUFFIXES, VideoFrames
from ..data.faults import Fault, grouped
from ..data.image_folders import IMAGE_SUFFIXES, list_images, name_some, unread_files
from ..data.images import image_size
from .tiling import MapPredictor, Size, Tiling, trained_size

STANDARD_INPUT = "-"
_READ = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)


@dataclass(frozen=True)
class Inputs:
    """What was found under the paths that a user gave.

    Attributes:
        images: Image files in the order given; a file that is named twice counts once.
        videos: Video files, likewise.
        faults: What is wrong with each path that gives none.
        skipped: The files of folders that are neither.
    """

    images: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def find_inputs(paths: Sequence[str | Path]) -> Inputs:
    """List image and video files.

    Args:
        paths: Files; folders, whose images and videos are all taken; patterns such as `"drive/*.jpg"` or
            `"**/*.mp4"`; `"-"` for a list of all these, one a line, from standard input.

    Raises:
        ValueError: There is no file at all.
    """
    files: dict[Path, Path] = {}
    faults: list[Fault] = []
    skipped: dict[Path, None] = {}
    for path in _expanded(map(str, paths), faults):
        found = list_images(path, _READ) if path.is_dir() else [path] if path.is_file() else []
        if path.is_dir():
            skipped |= dict.fromkeys(unread_files(path, _READ))
        if path.is_dir() and not found:
            faults.append(Fault(path, _without_images(path), "no image"))
        elif not found:
            faults.append(Fault(path, f"There is no file {path}.", "no file"))
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files:
        raise ValueError(" ".join(["There is no image to predict.", *grouped(faults)]))
    videos = [file for file in files.values() if file.suffix.lower() in VIDEO_SUFFIXES]
    return Inputs([file for file in files.values() if file not in videos], videos, faults, list(skipped))


def _expanded(words: Iterable[str], faults: list[Fault], from_list: bool = False) -> Iterator[Path]:
    """Paths, with lists and patterns taken apart; what gives nothing goes to the faults."""
    for word in words:
        if word == STANDARD_INPUT and not from_list:
            lines = (line.rstrip("\r\n") for line in sys.stdin)
            yield from _expanded((line for line in lines if line.strip()), faults, from_list=True)
        elif glob.has_magic(word) and not Path(word).exists():
            matches = sorted(glob.glob(word, recursive=True), key=natural_order)
            if not matches:
                faults.append(Fault(Path(word), f"No file matches {word}.", "no match"))
            yield from map(Path, matches)
        else:
            yield Path(word)


def describe_skipped(skipped: Sequence[Path]) -> str:
    """A sentence on files that were skipped: how many, and the names of the first three."""
    names = name_some([path.name for path in skipped])
    if len(skipped) == 1:
        return f"1 file is not an image or video that is read and was skipped: {names}."
    return f"{len(skipped)} files are not images or videos that are read and were skipped: {names}."


def _without_images(folder: Path) -> str:
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and list_images(path, _READ)]
    hint = f" There are some in {name_some([str(path) for path in inner])}." if inner else ""
    return (
        f"{folder} holds no image and no video; images end in {', '.join(IMAGE_SUFFIXES)}, videos in "
        f"{', '.join(VIDEO_SUFFIXES)}.{hint}"
    )


def unique_names(files: Sequence[Path], taken: Iterable[str] = ()) -> list[str]:
    """Name each file by its stem; a stem that is taken gets the next free number, as in `street-2`.

    Args:
        files: The files.
        taken: Names that none of them may have.
    """
    used = {name.casefold() for name in taken}
    names = []
    for stem in (file.stem for file in files):
        name, number = stem, 1
        # Without regard to case, as on some file systems Street.png and street.png are one file.
        while name.casefold() in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def check_effect(inputs: Inputs, videos: Sequence[VideoFrames], smooth: float | None, network: MapPredictor) -> None:
    """Refuse options that are out of range or make no difference to any of the inputs.

    Args:
        inputs: What was found.
        videos: Those of its videos that can be read.
        smooth: Of `--smooth`; None = not given.
        network: With what `--native`, `--tile` and `--batch-size` say.

    Raises:
        ValueError: Names the option, and says why it makes no difference.
    """
    tiling, batch_size = network.tiling, network.batch_size
    if batch_size < 1:
        raise ValueError(f"--batch-size is {batch_size}; it is the number of images at once, 1 or more.")
    if smooth is not None:
        _check_smooth(smooth, videos, network)
    if tiling.tile is None and not tiling.native and batch_size == 1:
        return
    sizes = [size for path in inputs.images if (size := image_size(path)) is not None]
    every = [*sizes, *(video.size for video in videos)]
    if every:  # else each has a fault of its own
        _check_tiling(every, network)
        tiled = any(tiling.tile_size(network.processor, size) for size in every)
        if batch_size > 1 and not (videos or tiled or any(one == other for one, other in pairwise(sizes))):
            raise ValueError(
                f"--batch-size {batch_size} has no effect: no two images that follow each other have the same size, "
                "and images of different sizes go through the network one by one. Leave it out."
            )


def _check_smooth(smooth: float, videos: Sequence[VideoFrames], network: MapPredictor) -> None:
    if not 0 < smooth < 1:
        raise ValueError(f"--smooth is {smooth:g}; it is the weight of earlier frames, above 0 and below 1.")
    if not videos:
        raise ValueError("--smooth follows the motion of videos, and there is none to predict. Leave it out.")
    if not hasattr(network.model, "classifier"):
        raise ValueError("--smooth is for class scores, and this model predicts depth alone. Leave it out.")


def _check_tiling(sizes: Sequence[Size], network: MapPredictor) -> None:
    tiling = network.tiling
    trained = trained_size(network.processor)
    if tiling.native and trained is None:
        raise ValueError(
            "--native has no effect: the image processor of this model does not resize, so that all images keep their "
            "size. Leave it out; --tile HEIGHTxWIDTH chooses tiles."
        )
    if tiling.native and all(size == trained for size in sizes):
        raise ValueError(
            f"--native has no effect: all inputs have the size that the image processor resizes to, {trained[0]}x"
            f"{trained[1]} (height x width). Leave it out."
        )
    chosen = {each.tile_size(network.processor, size) for each in (tiling, Tiling(tiling.native)) for size in sizes}
    if tiling.tile is not None and chosen == {None}:
        largest = [
            max(side) for side in zip(*(tiling.seen_size(network.processor, size) for size in sizes), strict=True)
        ]
        advice = "" if tiling.native or trained is None else " With --native it sees them at their own size."
        raise ValueError(
            f"--tile {tiling.tile[0]}x{tiling.tile[1]} has no effect: the network sees at most {largest[0]}x"
            f"{largest[1]} pixels (height x width) of an input, which is not more than a tile. Leave it out.{advice}"
        )
