"""Roboflow: "Semantic Segmentation Masks", or COCO, in the folders train, valid and test."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..folder_files import split_of_word
from ..image_folders import LABEL_SUFFIXES, list_images
from ..images import read_labels
from .annotations import AnnotatedImage, Annotations, MaskFile
from .coco import read_coco

_END = "_mask"


def read_roboflow(sources: Sequence[Path], line_width: float = 0, crowd: str = "class") -> Annotations:
    """Read an export of Roboflow: NAME.jpg beside NAME_mask.png with _classes.csv, or _annotations.coco.json.

    Args:
        sources: Folders that hold train/, valid/ and test/, or one of these.
        line_width: Not used.
        crowd: As for `read_coco`.
    """
    if jsons := [path for source in sources for path in sorted(source.rglob("_annotations.coco.json"))]:
        return read_coco(jsons, line_width, crowd)
    result = Annotations([], [])
    files = [path for source in sources for path in sorted(source.rglob("_classes.csv"))]
    if not files:
        raise FileNotFoundError(
            f"{sources[0]} holds neither _classes.csv nor _annotations.coco.json; export 'Semantic Segmentation "
            "Masks' or 'COCO Segmentation' from Roboflow."
        )
    for file in files:
        labels = _read_classes(file)
        result.labels = list(dict.fromkeys([*result.labels, *labels.values()]))
        for path in list_images(file.parent, LABEL_SUFFIXES):
            if not path.stem.endswith(_END):
                continue
            stem = path.stem.removesuffix(_END)
            result.images.append(
                AnnotatedImage(
                    file=f"{stem}.jpg",
                    source=path,
                    folders=(file.parent,),
                    mask=MaskFile(partial(read_labels, path), labels),
                    split=split_of_word(file.parent.name) if len(files) > 1 else None,
                    other_names=(f"{stem}.png", f"{stem}.jpeg"),
                )
            )
    return result


def _read_classes(path: Path) -> dict[int, str]:
    """Label of each value, of lines `value, name` under a header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [[part.strip() for part in row] for row in csv.reader(file) if row]
    if not all(len(row) >= 2 and row[0].isdecimal() for row in rows[1:]) or len(rows) < 2:
        raise ValueError(f"{path} must hold a header and lines `pixel value, class`; export it again.")
    return {int(row[0]): row[1] for row in rows[1:]}
