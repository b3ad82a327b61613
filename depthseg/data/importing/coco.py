"""COCO: one JSON of images, categories and annotations, with polygons or run-length encoded masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import AnnotatedImage, Annotations, Region
from .files import files_of, given_splits, read_json
from .raster import fill_polygon, polygon_points, runs_to_mask


def read_coco(sources: Sequence[Path], line_width: float = 0, crowd: str = "class") -> Annotations:
    """Read COCO files: `instances_train2017.json`, Roboflow's `train/_annotations.coco.json`, CVAT's "COCO 1.0".

    Categories get consecutive ids in the order of theirs. Several polygons of an object are joined, and each of them
    follows the even-odd rule. Objects have no order in COCO: the larger ones are painted first.

    Args:
        sources: The files, or folders that hold them.
        line_width: Not used: COCO has no lines.
        crowd: What `iscrowd` regions are: `class`, or `ignore` to leave their pixels out.
    """
    paths = files_of(sources, ".json")
    splits = given_splits(paths)
    result = Annotations([], [], "largest-first")
    names: dict[int, str] = {}
    for path in paths:
        content = read_json(path)
        categories = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        used = {annotation["category_id"] for annotation in content["annotations"]}
        for index in [entry["id"] for entry in content["categories"] if entry.get("supercategory") == "none"]:
            if index not in used and len(categories) > 1:  # Roboflow's name of the whole project
                del categories[index]
        for index, name in categories.items():
            if names.setdefault(index, name) != name:
                raise ValueError(f"{path} names the category {index} {name!r}, another file {names[index]!r}.")
        result.images += _images(path, content, categories, splits[path], crowd)
    result.labels = list(dict.fromkeys(names[index] for index in sorted(names)))
    return result


def _images(path: Path, content: Any, categories: dict[int, str], split: str | None, crowd: str) -> list[Any]:
    regions: dict[int, list[Region]] = {entry["id"]: [] for entry in content["images"]}
    for annotation in content["annotations"]:
        number, category = annotation.get("id"), annotation["category_id"]
        if category not in categories:
            raise ValueError(
                f"{path}: annotation {number} has the category {category}, which is not in its list of categories "
                f"({', '.join(map(str, sorted(categories)))}). Add it there, or remove the annotation."
            )
        if annotation["image_id"] not in regions:
            raise ValueError(
                f"{path}: annotation {number} belongs to the image {annotation['image_id']}, of which the "
                "file says nothing."
            )
        draw = partial(_draw, annotation.get("segmentation"), number)
        ignored = bool(annotation.get("iscrowd")) and crowd == "ignore"
        regions[annotation["image_id"]].append(Region(categories[category], draw, ignored))
    return [
        AnnotatedImage(
            file=entry["file_name"],
            source=path,
            folders=(path.parent, path.parent / "images", path.parent.parent / "images"),
            size=(int(entry["width"]), int(entry["height"])),
            regions=tuple(regions[entry["id"]]),
            split=split,
        )
        for entry in content["images"]
    ]


def _draw(segmentation: Any, number: Any, height: int, width: int) -> np.ndarray:
    try:
        if isinstance(segmentation, dict):
            return decode_rle(segmentation, height, width)
        if not segmentation:
            raise ValueError("it has no segmentation, only a box; export polygons or masks")
        covered = np.zeros((height, width), bool)
        for polygon in segmentation:
            covered |= fill_polygon(polygon_points(polygon), height, width)
        return covered
    except ValueError as error:
        raise ValueError(f"annotation {number}: {error}") from error


def decode_rle(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """The pixels of COCO's run-length encoded masks: runs down the columns, outside first.

    Args:
        segmentation: `size` (height and width) and `counts`: a list, or text that packs it.
        height: Of the image.
        width: Of the image.

    Returns:
        bool `(height, width)`.

    Raises:
        ValueError: Another size than the image, or runs that do not fill it.
    """
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"its mask has the size {segmentation['size']}, the image [{height}, {width}]")
    counts = segmentation["counts"]
    runs = unpack_counts(counts) if isinstance(counts, str) else counts
    return runs_to_mask(runs, height * width).reshape(width, height).T


def unpack_counts(text: str) -> list[int]:
    """Runs of COCO's packed text.

    Every character holds six bits above code 48: five of the number, the lowest first, and one that says whether more
    follow; the last has the sign in its fifth bit. From the fourth on, a number is the difference to the run two
    before it.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"a packed mask has the character {letter!r}, which has no meaning there")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("a packed mask ends in the middle of a number")
    return runs
