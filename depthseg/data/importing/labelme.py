"""LabelMe: a JSON for each image, with its shapes."""

from __future__ import annotations

import base64
import binascii
import io
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..clips import natural_order
from .annotations import AnnotatedImage, Annotations, Region
from .files import files_of, given_splits, read_json
from .raster import box_points, draw_line, fill_ellipse, fill_polygon, polygon_points

_WITHOUT_AREA = ("point", "points")


def read_labelme(sources: Sequence[Path], line_width: float = 10, crowd: str = "class") -> Annotations:
    """Read LabelMe's JSON files; shapes are painted in their order, as LabelMe's own export does.

    Classes are in the order of labels.txt beside the files, or of their names. Points have no area and are left out;
    flags and group ids say nothing about pixels.

    Args:
        sources: The files, or folders that hold them.
        line_width: Width of lines, pixels.
        crowd: Not used: LabelMe has no crowds.
    """
    paths = [path for path in files_of(sources, ".json") if path.name != "IMPORTED.json"]
    splits = given_splits(paths)
    result = Annotations([], [])
    skipped: Counter[str] = Counter()
    found: set[str] = set()
    for path in paths:
        content = read_json(path)
        kinds = [shape.get("shape_type") or "polygon" for shape in content["shapes"]]
        skipped.update(kind for kind in kinds if kind in _WITHOUT_AREA)
        regions = [
            Region(shape["label"], partial(_draw, shape, kind, number, line_width))
            for number, (shape, kind) in enumerate(zip(content["shapes"], kinds, strict=True))
            if kind not in _WITHOUT_AREA
        ]
        found |= {region.label for region in regions}
        size = (content.get("imageWidth"), content.get("imageHeight"))
        result.images.append(
            AnnotatedImage(
                file=content.get("imagePath") or path.stem,
                source=path,
                folders=(path.parent, *(source for source in sources if source in path.parents)),
                size=None if None in size else size,
                regions=tuple(regions),
                data=_embedded(path, content.get("imageData")),
                split=splits[path],
            )
        )
    result.labels = _ordered(found, paths[0].parent / "labels.txt")
    result.notes += [
        f"{count} shapes of type {kind} have no area and were left out." for kind, count in skipped.items()
    ]
    return result


def _ordered(found: set[str], file: Path) -> list[str]:
    listed = [line.strip() for line in file.read_text("utf-8-sig").splitlines()] if file.is_file() else []
    return [*filter(None, listed), *sorted(found - set(listed), key=natural_order)]


def _embedded(path: Path, text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) if text else None
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{path}: its imageData is no base64 text, or is truncated: {error}.") from error


def _draw(shape: Any, kind: str, number: int, line_width: float, height: int, width: int) -> np.ndarray:
    try:
        if kind == "mask":
            return _place_mask(shape, height, width)
        if kind == "polygon":
            return fill_polygon(polygon_points(shape["points"]), height, width)
        points = np.asarray(shape["points"], np.float64).reshape(-1, 2)
        if kind == "rectangle" and len(points) == 2:
            return fill_polygon(box_points(*points.min(axis=0), *points.max(axis=0)), height, width)
        if kind in ("rectangle", "oriented_rectangle") and len(points) == 4:
            return fill_polygon(points, height, width)
        if kind == "circle" and len(points) == 2:
            radius = float(np.hypot(*(points[1] - points[0])))
            return fill_ellipse(points[0], (radius, radius), height, width)
        if kind in ("line", "linestrip") and len(points) >= 2:
            return draw_line(points, line_width, height, width)
    except ValueError as error:
        raise ValueError(f"shape {number} ({shape['label']!r}): {error}") from error
    raise ValueError(f"shape {number} ({shape['label']!r}): a {kind} with {len(points)} points is not known")


def _place_mask(shape: Any, height: int, width: int) -> np.ndarray:
    """A mask that is cut out: its box has both corners inside."""
    (left, top), (right, bottom) = np.asarray(shape["points"], np.float64).astype(int)
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"], validate=True)), formats=("PNG",)) as image:
            cut = np.array(image) > 0
    except (UnidentifiedImageError, OSError, binascii.Error) as error:
        raise ValueError(f"its mask is no PNG in base64, or is truncated: {error}") from error
    if cut.shape != (bottom - top + 1, right - left + 1):
        raise ValueError(
            f"its mask is {cut.shape[1]}x{cut.shape[0]} pixels, its box {right - left + 1}x{bottom - top + 1}"
        )
    if min(left, top) < 0 or right >= width or bottom >= height:
        raise ValueError("its mask reaches beyond the image")
    covered = np.zeros((height, width), bool)
    covered[top : bottom + 1, left : right + 1] = cut
    return covered
