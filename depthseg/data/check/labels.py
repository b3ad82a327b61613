"""Label maps: classes that cannot be trained, and ids that mean something else than they seem."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ..image_folders import name_some
from ..label_encoding import IGNORE

if TYPE_CHECKING:
    from ..label_spaces import LabelSpace
    from .report import DatasetReport, SplitCount

Size = tuple[int, int]
"""Height and width."""

_MANY_IGNORED = 0.5
_SHOWN_CLASSES = 8


def examine_classes(report: DatasetReport, space: LabelSpace, whole: SplitCount, is_translated: bool = False) -> None:
    """Report classes without pixels and many ignored pixels.

    Args:
        report: Has the counts of the splits, and takes the problems and notes.
        space: The classes.
        whole: Counts of all labelled images together.
        is_translated: Whether the ids are not those of the files.
    """
    if not whole.labelled:
        return
    if not is_translated and _is_binary(whole.pixels, space):
        report.problem(_BINARY.format(ignored=space.ignore_index, name=space.classes[1]))
    absent = {split: _absent(count.pixels) for split, count in report.splits.items() if count.labelled}
    never = _absent(whole.pixels)
    if never:
        report.note(
            f"{_classes(never, space)} no pixel in any label map, so nothing can be learned about {_them(never)}."
        )
    in_train, in_val = (absent.get(split, set()) - never for split in ("train", "val"))
    if in_train and "train" in absent:
        report.note(
            f"{_classes(in_train, space)} no pixel in train but some elsewhere, so nothing can be learned about "
            f"{_them(in_train)}."
        )
    if in_val:
        report.note(
            f"{_classes(in_val, space)} no pixel in val, so the mean IoU on val says nothing about {_them(in_val)}."
        )
    share = whole.pixels[-1] / whole.pixels.sum()
    if share > _MANY_IGNORED:
        report.note(
            f"{share:.0%} of all labelled pixels are ignored (id {space.ignore_index}): they neither train nor count."
        )


_BINARY = (
    "The label maps hold only the ids 0 and {ignored}, and {ignored} means ignored: class 1 {name!r} never occurs. "
    "Binary masks are often saved as 0 and {ignored}: read {ignored} as class 1 with "
    "data.options.label_map={{{ignored}: 1}}."
)


def _is_binary(pixels: np.ndarray, space: LabelSpace) -> bool:
    return bool(pixels[0] and pixels[-1] and not pixels[1:-1].any() and space.ignore_index == 255)


def _absent(pixels: np.ndarray) -> set[int]:
    return set(np.flatnonzero(pixels[:-1] == 0).tolist())


def _classes(ids: Collection[int], space: LabelSpace) -> str:
    """The subject of a sentence and its verb: `Class 2 'tree' has`."""
    names = space.classes
    shown = name_some([f"{index} {names[index]!r}" for index in sorted(ids)], _SHOWN_CLASSES)
    return f"Class {shown} has" if len(ids) == 1 else f"{len(ids)} classes ({shown}) have"


def _them(ids: Collection[int]) -> str:
    return "it" if len(ids) == 1 else "them"


def explain_ids(found: Collection[int], space: LabelSpace) -> str | None:
    """Why label maps hold ids beyond the class names, if the ids say so.

    Args:
        found: All ids of all label maps.
        space: The classes.

    Returns:
        A sentence on the likely reason and what to do; None if there is no likely one.
    """
    count, names = len(space.classes), f"{space.num_labels} class names"
    ids = sorted(set(found) - {space.ignore_index})
    if not ids or ids[-1] < count:
        return None
    if ids[0] == 1 and ids[-1] == count:
        return (
            f"The ids run from 1 to {count}, and there are {names}: ids count from 0, so subtract 1 from all, with "
            f"data.options.label_map={{{_span(1, count)}: {_span(0, count - 1)}}}."
        )
    if ids[0] == 0 and ids[-1] == count:
        return (
            f"The ids run from 0 to {count}, but there are {names}. If {count} means unlabelled, leave it out with "
            f"data.options.label_map={{{count}: {IGNORE}}}. If 0 is a background without a name, put a name for it "
            f"first, or leave it out with data.options.label_map={{0: {IGNORE}, {_span(1, count)}: "
            f"{_span(0, count - 1)}}}."
        )
    if ids[-1] >= 1000:
        return (
            "Ids of 1000 and more look like instance maps, class x 1000 + instance as Cityscapes has them or class x "
            "256 + instance as KITTI: write the classes alone."
        )
    if len(ids) <= count + 1 and ids[-1] > 2 * count:
        return (
            f"The ids are {', '.join(map(str, ids[:8]))}{', ...' * (len(ids) > 8)}, {len(ids)} different values far "
            f"beyond {names}: they look like grey levels of a coloured mask. Say which class each of them is, such as "
            f"data.options.label_map={{{', '.join(f'{value}: {place}' for place, value in enumerate(ids[:3]))}, ...}}."
        )
    return None


def _span(first: int, last: int) -> str:
    return f"{first}-{last}" if last > first else str(first)


def explain_sizes(sizes: Collection[tuple[Size, Size]], total: int) -> str | None:
    """What maps of other sizes than their images have in common.

    Args:
        sizes: (height, width) of the image and of the map, for those that differ.
        total: Number of all maps.

    Returns:
        A sentence on what to do, where most maps differ in the same way; None otherwise.
    """
    if not sizes or 2 * len(sizes) < total:
        return None
    if all(image == other[::-1] for image, other in sizes):
        return (
            "The maps are turned by 90 degrees against their images. Images are read upright, as their EXIF "
            "orientation says: data.options.exif=ignore reads them as stored, as the maps were drawn."
        )
    factors = {round(other[axis] / image[axis], 2) for image, other in sizes for axis in (0, 1)}
    if max(factors) - min(factors) > 0.02:
        return None
    return (
        f"The maps are {min(factors):g} times the size of their images. Resize them with nearest neighbour, which "
        "keeps ids: Image.open(PATH).resize(IMAGE_SIZE, Image.Resampling.NEAREST)."
    )
