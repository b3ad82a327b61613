"""Pascal VOC, and what tools export in its form: JPEGImages, SegmentationClass, ImageSets, labelmap.txt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..colour_maps import ColourMap, decode_colours, names_of_colours, read_colour_map
from ..folder_files import split_of_word
from ..image_folders import LABEL_SUFFIXES, list_images
from ..images import read_colours, read_labels
from .annotations import BACKGROUNDS, AnnotatedImage, Annotations, MaskFile

_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_BORDER = 255


def is_voc(source: Path) -> bool:
    """Whether a folder has the form of VOC."""
    return (source / "SegmentationClass").is_dir()


def read_voc(sources: Sequence[Path], line_width: float = 0, crowd: str = "class") -> Annotations:
    """Read a folder in the form of VOC.

    With labelmap.txt (CVAT) the colours of the masks name the classes; with class_names.txt (LabelMe) the values do;
    without them they are the 21 classes of VOC. 255 is ignored.

    Args:
        sources: Folders that hold SegmentationClass/.
        line_width: Not used.
        crowd: Not used.
    """
    result = Annotations([], [])
    for root in sources:
        if not is_voc(root):
            raise FileNotFoundError(f"{root} has no folder SegmentationClass, which holds the masks of VOC exports.")
        colours = read_colour_map(root / "labelmap.txt") if (root / "labelmap.txt").is_file() else None
        labels = list(colours) if colours else _class_names(root)
        result.labels = list(dict.fromkeys([*result.labels, *labels]))
        splits = _splits(root)
        for path in list_images(root / "SegmentationClass", LABEL_SUFFIXES):
            read = partial(_read_colours, path, colours) if colours else partial(read_labels, path)
            known: dict[int, str | None] = dict(enumerate(labels))
            result.images.append(
                AnnotatedImage(
                    file=f"{path.stem}.jpg",
                    source=path,
                    folders=(root / "JPEGImages", root / "images"),
                    mask=MaskFile(read, known if colours else {_BORDER: None} | known),
                    split=splits.get(path.stem),
                    other_names=tuple(f"{path.stem}{suffix}" for suffix in (".png", ".jpeg", ".JPG", ".bmp", ".tif")),
                )
            )
    return result


def _class_names(root: Path) -> list[str]:
    file = root / "class_names.txt"
    if not file.is_file():
        return list(_CLASSES)
    names = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    return ["background" if name in BACKGROUNDS else name for name in names if name != "__ignore__"]


def _read_colours(path: Path, colours: ColourMap) -> np.ndarray:
    ids = {colour: place for place, several in enumerate(colours.values()) for colour in several}
    return decode_colours(path, read_colours(path), ids, names_of_colours(colours), "labelmap.txt")


def _splits(root: Path) -> dict[str, str]:
    """Split of each name; none where the lists are all of one."""
    splits: dict[str, str] = {}
    lists = (root / "ImageSets" / "Segmentation").glob("*.txt")
    known = {split: path for path in sorted(lists) if (split := split_of_word(path.stem))}
    for split, path in known.items() if len(known) > 1 else ():
        for line in path.read_text("utf-8-sig").splitlines():
            if line.strip():
                splits.setdefault(line.strip(), split)
    return splits
