"""CVAT: "CVAT for images 1.1", one XML of all images; "Segmentation mask 1.1" is read as VOC."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from .annotations import AnnotatedImage, Annotations, Region
from .files import files_of, given_splits, read_xml, split_of_path
from .raster import box_points, draw_line, fill_ellipse, fill_polygon, polygon_points, runs_to_mask
from .voc import is_voc, read_voc

_SHAPES = ("polygon", "box", "mask", "polyline", "ellipse")


def read_cvat(sources: Sequence[Path], line_width: float = 10, crowd: str = "class") -> Annotations:
    """Read what CVAT exports; objects are painted by their z-order, then in the order of the file.

    Args:
        sources: `annotations.xml`, or folders that hold it or a "Segmentation mask 1.1" export.
        line_width: Width of polylines, pixels.
        crowd: Not used: CVAT has no crowds.
    """
    if any(is_voc(source) for source in sources):
        return read_voc(sources)
    paths = files_of(sources, ".xml")
    splits = given_splits(paths)
    result = Annotations([], [])
    skipped: Counter[str] = Counter()
    for path in paths:
        root = read_xml(path)
        if root.tag != "annotations" or root.find("track") is not None:
            raise ValueError(f"{path} is no 'CVAT for images 1.1' file; export the task in that format.")
        result.labels += [name.text for name in root.iterfind("./meta//labels/label/name") if name.text]
        for image in root.iterfind("image"):
            shapes = [shape for shape in image if shape.tag in _SHAPES]
            skipped.update(shape.tag for shape in image if shape.tag not in (*_SHAPES, "tag"))
            shapes.sort(key=lambda shape: int(shape.get("z_order", 0)))
            regions = [Region(shape.attrib["label"], partial(_draw, shape, line_width)) for shape in shapes]
            result.labels += [region.label for region in regions]
            result.images.append(
                AnnotatedImage(
                    file=image.attrib["name"],
                    source=path,
                    folders=(path.parent, path.parent / "images"),
                    size=(int(image.attrib["width"]), int(image.attrib["height"])),
                    regions=tuple(regions),
                    split=splits[path] or split_of_path(Path(image.get("subset", ""))),
                )
            )
    result.labels = list(dict.fromkeys(result.labels))
    result.notes += [
        f"{count} shapes of type {kind} have no area and were left out." for kind, count in skipped.items()
    ]
    return result


def _draw(shape: ElementTree.Element, line_width: float, height: int, width: int) -> np.ndarray:
    given = shape.attrib
    try:
        if shape.tag == "box":
            left, top, right, bottom = (float(given[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
            return fill_polygon(_turned_box(left, top, right, bottom, float(given.get("rotation", 0))), height, width)
        if shape.tag == "ellipse":
            centre, radii = ([float(given[name]) for name in names] for names in (("cx", "cy"), ("rx", "ry")))
            return fill_ellipse(centre, radii, height, width, float(given.get("rotation", 0)))
        if shape.tag == "mask":
            return _place_mask(given, height, width)
        points = [[float(part) for part in pair.split(",")] for pair in given["points"].split(";")]
        if shape.tag == "polygon":
            return fill_polygon(polygon_points(points), height, width)
        return draw_line(np.array(points).reshape(-1, 2), line_width, height, width)
    except (ValueError, KeyError) as error:
        raise ValueError(f"a {shape.tag} of {given.get('label')!r}: {error}") from error


def _turned_box(left: float, top: float, right: float, bottom: float, degrees: float) -> np.ndarray:
    """CVAT turns boxes about their middle."""
    middle = np.array([(left + right) / 2, (top + bottom) / 2])
    turned = box_points(0, 0, right - left, bottom - top, degrees)
    return turned - turned.mean(axis=0) + middle


def _place_mask(given: dict[str, str], height: int, width: int) -> np.ndarray:
    """A mask that is cut out: runs along the rows of its box, outside first."""
    left, top, wide, high = (int(float(given[name])) for name in ("left", "top", "width", "height"))
    cut = runs_to_mask([int(run) for run in given["rle"].split(",")], wide * high).reshape(high, wide)
    if min(left, top) < 0 or left + wide > width or top + high > height:
        raise ValueError("its mask reaches beyond the image")
    covered = np.zeros((height, width), bool)
    covered[top : top + high, left : left + wide] = cut
    return covered
