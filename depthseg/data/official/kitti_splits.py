"""Frames of KITTI raw by drive, number and side, lists of them, and their division by drives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..subsets import shuffled_names

DRIVE = re.compile(r"\d{4}_\d\d_\d\d_drive_\d{4}_sync")
"""Name of a synchronised drive; its first ten characters are its date."""

_DATE_LENGTH = len("2011_09_26")
_IMAGE = re.compile(rf"({DRIVE.pattern})/(?:\w+/)*image_0([0-3])/(?:data/)?(\d+)\.\w+$")
_FORM = "`2011_09_26/2011_09_26_drive_0001_sync 5 l`: folder, number, and l or r for left or right"


class KittiFrame(NamedTuple):
    """A frame of one camera.

    Attributes:
        drive: Such as `2011_09_26_drive_0001_sync`.
        number: From 0 on; the same for all sensors.
        right: Whether it is of the right camera of the pair.
    """

    drive: str
    number: int
    right: bool

    @property
    def date(self) -> str:
        """Date of the drive, which is the name of its folder."""
        return self.drive[:_DATE_LENGTH]


def read_split_file(path: str | Path, root: str | Path) -> list[KittiFrame]:
    """Read a list of frames in the form of Monodepth2's split files, or of paths of images.

    Args:
        path: The list, looked for in `root` first. A line is `FOLDER NUMBER SIDE`, or begins with the path of an
            image, `2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png`; empty lines do not count.
        root: The folder of the data.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line of another form, or one that is there twice.
    """
    path = find_list(path, root)
    frames: dict[KittiFrame, int] = {}
    for number, line in enumerated_lines(path):
        frame = _frame_of(path, number, line)
        if frame in frames:
            raise ValueError(f"Line {number} of {path} repeats line {frames[frame]}, {line!r}; remove one of them.")
        frames[frame] = number
    if not frames:
        raise ValueError(f"{path} lists no frame; a line is {_FORM}.")
    return list(frames)


def read_numbered_list(path: str | Path, root: str | Path) -> list[int]:
    """Read a list of test images, a line each of the form `image NUMBER`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line of another form.
    """
    path, numbers = find_list(path, root), []
    for number, line in enumerated_lines(path):
        words = line.split()
        if len(words) < 2 or words[0] != "image" or not words[1].isdecimal():
            raise ValueError(f"Line {number} of {path} is {line!r}; a list of test images has lines `image NUMBER`.")
        numbers.append(int(words[1]))
    return numbers


def find_list(path: str | Path, root: str | Path) -> Path:
    """The file of a list: below `root`, or where its path says."""
    found = next((place for place in (Path(root) / path, Path(path)) if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"There is no list {path}, neither in {root} nor as a path of its own: check split_file."
        )
    return found


def enumerated_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a text that are not empty, with their numbers from 1 on."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def _frame_of(path: Path, number: int, line: str) -> KittiFrame:
    words = line.split()
    if image := _IMAGE.search(words[0]):
        return KittiFrame(image[1], int(image[3]), image[2] in "13")
    if words[0] == "image":
        raise ValueError(
            f"Line {number} of {path} is {line!r}, the number of a test image of the depth benchmark without its "
            "drive: read such a list with the data set kitti_depth and its split test_prediction."
        )
    drive = Path(words[0]).name
    if len(words) != 3 or not DRIVE.fullmatch(drive) or not words[1].isdecimal() or words[2] not in ("l", "r"):
        raise ValueError(f"Line {number} of {path} is {line!r}; a line is {_FORM}. Complete or remove it.")
    return KittiFrame(drive, int(words[1]), words[2] == "r")


def divide_names(names: Sequence[str], split: str, val_fraction: float, seed: int) -> list[str]:
    """The names of a split, in their order: `val` are the first of `shuffled_names`, rounded, at least one, never all.

    Args:
        names: All names, in order.
        split: `train`, `val` or `all`.
        val_fraction: Share of `val`, 0 <= f < 1; 0 = everything is `train`.
        seed: Of the division.

    Raises:
        ValueError: A share out of range.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} is out of range; it is a share from 0 to below 1.")
    count = min(max(1, round(val_fraction * len(names))), len(names) - 1) if val_fraction else 0
    held_out = set(shuffled_names(names, seed)[:count])
    return [name for name in names if split == "all" or (name in held_out) == (split == "val")]


def divide_drives(drives: Sequence[str], split: str, val_fraction: float, seed: int) -> list[str]:
    """The drives of a split.

    Whole drives are divided, so that no frame of `val` has a neighbour in `train`.

    Args:
        drives: Names, in order.
        split: `train`, `val` or `all`.
        val_fraction: As in `divide_names`.
        seed: As there.

    Raises:
        ValueError: A share out of range, or a split without a drive.
    """
    chosen = divide_names(drives, split, val_fraction, seed)
    if not chosen:
        raise ValueError(
            f"The split {split!r} has no drive: val_fraction={val_fraction:g} of {len(drives)} whole drives leaves "
            "nothing for it. Unpack more drives, give a split_file, or take the split all."
        )
    return chosen
