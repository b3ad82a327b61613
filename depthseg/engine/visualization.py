"""Label maps, depth maps and what self-supervised training compares, as images that people can look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.label_encoding import IGNORED
from ..data.label_spaces import LabelSpace
from .atomic import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

Colour = tuple[int, int, int]

# Ends well above black, so that far away and unknown (black) cannot be taken for one another.
DEPTH_COLOURMAP = "plasma"
ERROR_COLOURMAP = "inferno"
ERROR_LIMIT = 0.25
"""Error that gets the brightest colour, as does all above: a fixed scale lets the images of a run be compared."""
OVERLAY_WEIGHT = 0.55
"""Weight of the colours of the labels against the image, 0 to 1."""
STRIP = 256
"""Rows of an image that are blended at once."""
# Narrower overlays are enlarged by a whole factor: a legend needs room for its words.
LEGEND_WIDTH = 480


def colourise_labels(labels: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """Paint a map of class ids.

    Args:
        labels: Class ids `(H, W)`; 255 is ignored and painted black.
        palette: One RGB colour (0..255) per class id.

    Returns:
        A uint8 image `(H, W, 3)`.

    Raises:
        ValueError: An id has no colour.
    """
    _check_ids(labels, len(palette))
    return _colour_table(palette)[np.asarray(labels).astype(np.uint8)]


def colourise_depth(depth: np.ndarray) -> np.ndarray:
    """Paint a depth map by its inverse: near is bright, far is dark, unknown is black.

    Args:
        depth: Depth `(H, W)`, metres or up to scale; 0, negative and non-finite pixels are unknown.

    Returns:
        A uint8 image `(H, W, 3)`; the colour scale is that of `colourise_inverse_depth`.
    """
    depth = np.asarray(depth, dtype=np.float64)
    known = np.isfinite(depth) & (depth > 0)
    inverse = np.divide(1.0, depth, out=np.zeros_like(depth), where=known)
    return colourise_inverse_depth(inverse, known)


def colourise_inverse_depth(inverse: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Paint an inverse depth map (relative models predict it directly): near is bright, far is dark.

    Args:
        inverse: Inverse depth `(H, W)` in any affine scale.
        known: bool `(H, W)`; False is painted black. By default every finite pixel is known.

    Returns:
        A uint8 image `(H, W, 3)`; the colour scale is from the 2nd to the 98th percentile of the map.
    """
    inverse = np.asarray(inverse, dtype=np.float64)
    known = np.isfinite(inverse) if known is None else known
    image = np.zeros((*inverse.shape, 3), np.uint8)
    if known.any():
        low, high = np.percentile(inverse[known], (2, 98))
        # A map of one depth has no range; the middle of the colours says "known, no structure".
        share = (inverse[known] - low) / (high - low) if high > low else np.full(known.sum(), 0.5)
        image[known] = colours_of(DEPTH_COLOURMAP, share)
    return image


def colours_of(colourmap: str, shares: np.ndarray) -> np.ndarray:
    """Colours uint8 `(..., 3)` of a colour map of matplotlib at `shares` `(...)` of its range, clipped to 0..1."""
    import matplotlib

    return matplotlib.colormaps[colourmap](np.clip(shares, 0.0, 1.0), bytes=True)[..., :3]


def colourise_predicted_depth(depth: np.ndarray, depth_type: str) -> np.ndarray:
    """Paint a model's depth map by what its numbers mean: near is bright, far is dark.

    Args:
        depth: Prediction `(H, W)`.
        depth_type: `depth_type` of the model.

    Returns:
        A uint8 image `(H, W, 3)`.
    """
    if depth_type == "relative_inverse":
        return colourise_inverse_depth(depth)
    # Without a known shift there is nothing to invert: the depth itself is painted, the nearest brightest.
    return colourise_inverse_depth(-depth) if depth_type == "relative" else colourise_depth(depth)


def colourise_error(error: np.ndarray) -> np.ndarray:
    """Paint an error map `(H, W)`: black is 0 (or no number), bright is 0.25 and above; uint8 `(H, W, 3)`."""
    return colours_of(ERROR_COLOURMAP, np.nan_to_num(error / ERROR_LIMIT, posinf=1.0))


def image_of(image: Tensor) -> np.ndarray:
    """An image `(3, H, W)` in [0, 1] as uint8 `(H, W, 3)`."""
    return _to_bytes(image.detach().float().cpu().numpy())


def colourise_monitor(maps: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Paint the maps of one image that a self-supervised objective returns from `monitor`.

    Args:
        maps: Name -> tensor: `target` and `warped`, images `(3, H, W)` in [0, 1]; `disparity` `(H, W)`, in any unit;
            `error` `(H, W)`, from 0 to 1; `auto_mask` bool `(H, W)`.

    Returns:
        Name -> uint8 image `(H, W, 3)`. Disparity: near is bright, on its own scale. Error: black = 0, bright = 0.25
        and above. Mask: white = has a gradient. Where a map has no finite number its image is black.
    """
    return {name: PAINTERS[name](values.detach().float().cpu().numpy()) for name, values in maps.items()}


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(np.nan_to_num(image), 0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)


PAINTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "target": _to_bytes,
    "warped": _to_bytes,
    "disparity": colourise_inverse_depth,
    "error": colourise_error,
    "auto_mask": lambda mask: np.repeat(np.uint8(255) * (mask > 0)[..., None], 3, axis=2),
}


def blend_labels(image: np.ndarray, labels: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """Blend the colours of a label map with its image; ignored pixels show the image alone.

    Args:
        image: uint8 RGB `(H, W, 3)`.
        labels: Class ids `(H, W)`, 255 = ignored.
        palette: One RGB colour per class id.

    Returns:
        A uint8 image `(H, W, 3)`.

    Raises:
        ValueError: Image and labels differ in size, or an id has no colour.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(
            f"An overlay needs image and labels of one size; got image {image.shape[:2]} and labels {labels.shape}."
        )
    mixed = np.empty(image.shape, np.uint8)
    # A few rows at a time: the float64 of a large image would fill the memory.
    for start in range(0, len(image), STRIP):
        rows = slice(start, start + STRIP)
        weight = np.where(np.asarray(labels[rows]) == IGNORED, 0.0, OVERLAY_WEIGHT)[..., None]
        mixed[rows] = np.rint((1 - weight) * image[rows] + weight * colourise_labels(labels[rows], palette))
    return mixed


def class_shares(labels: np.ndarray, label_space: LabelSpace) -> dict[str, float]:
    """Share of each class that is present, by falling share.

    Args:
        labels: Class ids `(H, W)`, 255 = ignored.
        label_space: Names of the ids.

    Returns:
        Class name -> share of the pixels that are not ignored, 0..1; empty when all are ignored.

    Raises:
        ValueError: An id is outside the label space.
    """
    count = len(label_space.classes)
    _check_ids(labels, count)
    counts = np.bincount(np.ravel(labels).astype(np.int64), minlength=256)[:count]
    order = sorted(np.flatnonzero(counts), key=lambda i: (-counts[i], i))
    return {label_space.classes[i]: float(counts[i] / counts.sum()) for i in order}


def legend_of(label_maps: Iterable[np.ndarray], label_space: LabelSpace) -> dict[str, Colour]:
    """Names and colours, in id order, of the classes that occur in at least one of the label maps."""
    present = set().union(*(class_shares(labels, label_space) for labels in label_maps))
    colours = zip(label_space.classes, label_space.palette, strict=True)
    return {name: colour for name, colour in colours if name in present}


def overlay(image: np.ndarray, labels: np.ndarray, label_space: LabelSpace) -> np.ndarray:
    """Blend a label map with its image, with a legend of the classes present and their shares underneath.

    Args:
        image: uint8 RGB `(H, W, 3)`; narrower ones than 480 pixels are enlarged by a whole factor.
        labels: Class ids `(H, W)`, 255 = ignored.
        label_space: Names and colours of the ids.

    Returns:
        A uint8 image of the (enlarged) image's width; the legend adds height.

    Raises:
        ValueError: Sizes differ, or an id is outside the label space.
    """
    zoom = math.ceil(LEGEND_WIDTH / image.shape[1])
    blended = blend_labels(image, labels, label_space.palette).repeat(zoom, axis=0).repeat(zoom, axis=1)
    colours = legend_of([labels], label_space)
    entries = {}
    for name, share in class_shares(labels, label_space).items():
        percent = "<1" if share < 0.01 else f"{100 * share:.0f}"
        entries[f"{name} {percent} %"] = colours[name]
    return np.concatenate([blended, legend_strip(entries, blended.shape[1])])


def write_labels(path: str | Path, labels: np.ndarray, palette: Sequence[Colour]) -> None:
    """Write a label map as a palette PNG: the pixel values are the ids, 255 is shown black.

    Args:
        path: The PNG file.
        labels: Class ids `(H, W)`, 255 = ignored.
        palette: One RGB colour per class id.

    Raises:
        ValueError: An id has no colour.
    """
    _check_ids(labels, len(palette))
    image = Image.fromarray(np.asarray(labels).astype(np.uint8)).convert("P")
    image.putpalette(_colour_table(palette).tobytes())
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image as PNG: uint8 `(H, W, 3)`, or uint16 `(H, W)` for 16-bit depth."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _check_ids(labels: np.ndarray, num_labels: int) -> None:
    found = np.unique(labels)
    wrong = found[(found != IGNORED) & ((found < 0) | (found >= num_labels))]
    if wrong.size:
        raise ValueError(
            f"The label map has ids {wrong.tolist()}, but the label space has the ids 0..{num_labels - 1} "
            f"({IGNORED} = ignored)."
        )


def _colour_table(palette: Sequence[Colour]) -> np.ndarray:
    """uint8 `(256, 3)`: ignored pixels, and ids without a colour, are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    table[IGNORED] = 0
    return table


def legend_strip(entries: dict[str, Colour], width: int) -> np.ndarray:
    """A white strip `(h, width, 3)` with one colour patch and text per entry, flowing over as many lines as needed."""
    size = round(min(max(width / 56, 12), 28))
    font = ImageFont.load_default(size)
    gap, line = size // 2, round(1.7 * size)
    places, x, y = [], gap, gap
    for text in entries:
        advance = round(1.5 * size + font.getlength(text)) + 2 * gap
        if x > gap and x + advance - gap > width:
            x, y = gap, y + line
        places.append((x, y))
        x += advance
    strip = Image.new("RGB", (width, y + line if entries else 0), "white")
    draw = ImageDraw.Draw(strip)
    for (text, colour), (left, top) in zip(entries.items(), places, strict=True):
        draw.rectangle((left, top, left + size, top + size), fill=colour, outline=(90, 90, 90))
        draw.text((left + round(1.5 * size), top + size / 2), text, fill="black", font=font, anchor="lm")
    return np.asarray(strip)
