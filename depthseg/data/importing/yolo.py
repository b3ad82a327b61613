"""YOLO segmentation: a text file for each image, with a polygon a line, and data.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...reading import free_value, read_yaml
from ..folder_files import split_of_word
from ..image_folders import list_images
from .annotations import AnnotatedImage, Annotations, Region
from .raster import fill_polygon, polygon_points


def read_yolo(sources: Sequence[Path], line_width: float = 0, crowd: str = "class") -> Annotations:
    """Read a data set of YOLO segmentation: images/train with labels/train, or train/images with train/labels.

    Objects have no order there: the larger ones are painted first. An image without a text file has no object.

    Args:
        sources: Folders that hold data.yaml.
        line_width: Not used.
        crowd: Not used.
    """
    result = Annotations([], [], "largest-first")
    for root in sources:
        names = _class_names(root)
        result.labels = list(dict.fromkeys([*result.labels, *names.values()]))
        folders = [path for path in sorted(root.rglob("images")) if path.is_dir()]
        folders += [below for folder in folders for below in sorted(folder.iterdir()) if below.is_dir()]
        holding = {folder: files for folder in folders if (files := list_images(folder))}
        for folder, files in holding.items():
            parts = [*folder.relative_to(root).parts]
            split = next(filter(None, map(split_of_word, parts)), None) if len(holding) > 1 else None
            parts[max(place for place, part in enumerate(parts) if part == "images")] = "labels"
            for path in files:
                text = root.joinpath(*parts) / f"{path.stem}.txt"
                regions = _regions(text, names) if text.is_file() else ()
                result.images.append(AnnotatedImage(path.name, text, (folder,), regions=regions, split=split))
    return result


def _class_names(root: Path) -> dict[int, str]:
    files = [path for name in ("data.yaml", "data.yml", "dataset.yaml") if (path := root / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{root} has no data.yaml, which names the classes of a YOLO data set.")
    names = (free_value(read_yaml(files[0])) or {}).get("names")
    if isinstance(names, list):
        return dict(enumerate(map(str, names)))
    if not isinstance(names, dict):
        raise ValueError(f"{files[0]} has no list `names` of the classes.")
    return {int(index): str(name) for index, name in names.items()}


def _regions(path: Path, names: dict[int, str]) -> tuple[Region, ...]:
    regions = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if not words[0].isdecimal() or int(words[0]) not in names:
            raise ValueError(f"Line {number} of {path} has the class {words[0]}, which data.yaml does not name.")
        regions.append(Region(names[int(words[0])], partial(_draw, words[1:], number)))
    return tuple(regions)


def _draw(words: list[str], number: int, height: int, width: int) -> np.ndarray:
    if len(words) == 4:
        raise ValueError(f"line {number} is a box (4 numbers); export the data set for segmentation, with polygons")
    try:
        return fill_polygon(polygon_points(words) * (width, height), height, width)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
