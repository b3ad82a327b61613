"""Label Studio: its JSON export (brush, polygon, rectangle, ellipse), and its PNG export, one mask for each label."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ..clips import natural_order
from ..images import read_labels
from .annotations import AnnotatedImage, Annotations, Region
from .files import read_json
from .raster import box_points, fill_ellipse, fill_polygon, polygon_points

_KINDS = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)")
_PNG = re.compile(r"task-(\d+)-annotation-(\d+)-by-.*?-tag-(.+)-(\d+)")


def read_label_studio(sources: Sequence[Path], line_width: float = 0, crowd: str = "class") -> Annotations:
    """Read Label Studio's JSON export, or its PNG export with the JSON export beside it, which names the images.

    Of several annotations of a task, the first that was not cancelled counts. Regions are painted in their order.

    Args:
        sources: Files, or folders that hold them.
        line_width: Not used.
        crowd: Not used.
    """
    files = [path for source in sources for path in ([source] if source.is_file() else sorted(source.rglob("*")))]
    tasks = [(path, task) for path in files if path.suffix.lower() == ".json" for task in read_json(path)]
    masks = defaultdict(list)
    for path in files:
        if match := _PNG.fullmatch(path.stem):
            masks[int(match[1])].append((match[2], int(match[4]), match[3], path))
    result, several = Annotations([], []), 0
    skipped: Counter[str] = Counter()
    for path, task in tasks:
        finished = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
        several += len(finished) > 1
        if masks:
            regions, size = _png_regions(masks.get(task["id"], [])), None
        else:
            regions, size = _regions(path, task, finished[0]["result"] if finished else [], skipped)
        file, others = _image_names(path, task)
        result.images.append(
            AnnotatedImage(file, path, (path.parent, path.parent / "images"), size, regions, other_names=others)
        )
    if masks and not tasks:
        result.images = [_lone_task(number, found) for number, found in sorted(masks.items())]
    labels = {region.label for image in result.images for region in image.regions}
    result.labels = sorted(labels, key=natural_order)
    if several:
        result.notes.append(f"{several} tasks have several annotations; the first of each was used.")
    result.notes += [
        f"{count} results of type {kind} have no area and were left out." for kind, count in skipped.items()
    ]
    return result


def _image_names(path: Path, task: Any) -> tuple[str, tuple[str, ...]]:
    """The file name of the image of a task, and what it was called before it was uploaded."""
    texts = [value for value in task["data"].values() if isinstance(value, str)]
    given = task["data"].get("image") or next((text for text in texts if "." in text), None)
    if given is None:
        raise ValueError(f"{path}: task {task.get('id')} names no image.")
    parts = urlsplit(given)
    local = parse_qs(parts.query).get("d", [parts.path])[0]
    base = unquote(local).replace("\\", "/").rpartition("/")[2]
    before = _UPLOAD.fullmatch(base)
    return base, (before[1],) if before else ()


def _regions(
    path: Path, task: Any, results: list[Any], skipped: Counter[str]
) -> tuple[tuple[Region, ...], tuple[int, int] | None]:
    regions, size = [], None
    for result in results:
        kind = result["type"]
        if kind not in _KINDS:
            skipped[kind] += 1
            continue
        if result.get("image_rotation"):
            raise ValueError(f"{path}: the image of task {task['id']} was turned in Label Studio; turn it back there.")
        size = (int(result["original_width"]), int(result["original_height"]))
        draw = partial(_draw, result["value"], kind, task["id"])
        regions += [Region(label, draw) for label in result["value"].get(kind, [])]
    return tuple(regions), size


def _draw(value: Any, kind: str, task: int, height: int, width: int) -> np.ndarray:
    scale = np.array([width, height]) / 100  # coordinates are percent of the image
    try:
        if kind == "brushlabels":
            values = decode_brush(value["rle"])
            if values.size != 4 * height * width:
                raise ValueError(f"a brush mask has {values.size} values, the image 4 x {height * width}")
            return values.reshape(height, width, 4)[..., 3] > 0
        if kind == "polygonlabels":
            return fill_polygon(polygon_points(value["points"]) * scale, height, width)
        origin, turn = np.array([value["x"], value["y"]]) * scale, value.get("rotation") or 0
        if kind == "ellipselabels":
            radii = np.array([value["radiusX"], value["radiusY"]]) * scale
            return fill_ellipse(origin.tolist(), radii.tolist(), height, width, turn)
        extent = np.array([value["width"], value["height"]]) * scale
        (left, top), (right, bottom) = origin, origin + extent
        return fill_polygon(box_points(left, top, right, bottom, turn), height, width)
    except ValueError as error:
        raise ValueError(f"task {task}: {error}") from error


def decode_brush(data: Sequence[int]) -> np.ndarray:
    """The values of Label Studio's run-length encoded masks.

    A stream of bits: 32 for the number of values, 5 for the bits of a value less one, four times 4 for the bits of a
    run's length less one. Then runs: one bit whether all values of the run are equal, 2 bits for which of the four
    sizes its length has, the length less one, and the value, or every value.

    Returns:
        uint8 `(N,)`, red, green, blue and alpha of each pixel in turn.

    Raises:
        ValueError: It is truncated.
    """
    bits = _Bits(data)
    count, word = bits.read(32), bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    if word > 8 or count > 1 << 31:
        raise ValueError("a brush mask has a header that makes no sense")
    values, place = np.zeros(count, np.uint8), 0
    while place < count:
        equal = bits.read(1)
        length = bits.read(sizes[bits.read(2)]) + 1
        if place + length > count:
            raise ValueError(f"a brush mask has more than the {count} values that it says")
        values[place : place + length] = bits.read(word) if equal else bits.words(length, word)
        place += length
    return values


class _Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: Sequence[int]) -> None:
        self._data, self._place = bytes(data), 0

    def read(self, count: int) -> int:
        first, self._place = self._place, self._place + count
        if self._place > 8 * len(self._data):
            raise ValueError("a brush mask is truncated")
        last = (self._place + 7) // 8
        word = int.from_bytes(self._data[first // 8 : last])
        return word >> (8 * last - self._place) & ((1 << count) - 1)

    def words(self, count: int, size: int) -> np.ndarray:
        """`count` numbers of `size` bits, at most 8."""
        first, self._place = self._place, self._place + count * size
        if self._place > 8 * len(self._data):
            raise ValueError("a brush mask is truncated")
        part = np.frombuffer(self._data[first // 8 : (self._place + 7) // 8], np.uint8)
        bits = np.unpackbits(part)[first % 8 : first % 8 + count * size].reshape(count, size)
        return bits @ (1 << np.arange(size)[::-1])


def _png_regions(found: list[tuple[str, int, str, Path]]) -> tuple[Region, ...]:
    """The masks of the first annotation of a task, in their order."""
    first = min((annotation for annotation, *_ in found), key=int, default=None)
    return tuple(
        Region(label, partial(_read_mask, path)) for annotation, _, label, path in sorted(found) if annotation == first
    )


def _read_mask(path: Path, height: int, width: int) -> np.ndarray:
    mask = read_labels(path) > 0
    if mask.shape != (height, width):
        raise ValueError(f"{path} is {mask.shape[1]}x{mask.shape[0]} pixels, its image {width}x{height}.")
    return mask


def _lone_task(number: int, found: list[tuple[str, int, str, Path]]) -> AnnotatedImage:
    """A task of which only the masks are there: its image may be called after its number."""
    path = found[0][3]
    others = tuple(f"{start}{number}{end}" for start in ("task-", "") for end in (".jpg", ".png", ".jpeg"))
    return AnnotatedImage(
        file=others[0],
        source=path,
        folders=(path.parent,),
        regions=_png_regions(found),
        other_names=others[1:],
    )
