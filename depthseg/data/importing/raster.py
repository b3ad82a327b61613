"""Which pixels a shape covers.

One rule for all tools: a pixel belongs to a shape if its centre does, with the pixel in column x and row y reaching
from (x, y) to (x + 1, y + 1). Polygons follow the even-odd rule; a centre exactly on an edge belongs to the side below
or to the right of it, so that neighbours that share an edge share no pixel and leave none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def polygon_points(values: Any) -> np.ndarray:
    """The corners `(N, 2)` of a polygon, of `[x, y, x, y, ...]` or `[[x, y], ...]`.

    Raises:
        ValueError: An odd number of coordinates, fewer than three points, or what is no finite number.
    """
    try:
        flat = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError):
        raise ValueError("a polygon has coordinates that are no numbers") from None
    if flat.size % 2:
        raise ValueError(f"a polygon has an odd number of coordinates, {flat.size}; they are x and y in turn")
    if flat.size < 6:
        raise ValueError(f"a polygon has {flat.size // 2} points; an area needs three")
    if not np.isfinite(flat).all():
        raise ValueError("a polygon has coordinates that are not finite")
    return flat.reshape(-1, 2)


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels of a polygon `(N, 2)` of x and y, by the even-odd rule.

    Returns:
        bool `(height, width)`.
    """
    first, second = points, np.roll(points, -1, axis=0)
    # From top to bottom, so that an edge is computed alike whichever polygon it belongs to.
    upper = np.where((first[:, 1] <= second[:, 1])[:, None], first, second)
    lower = np.where((first[:, 1] <= second[:, 1])[:, None], second, first)
    start = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    counts = np.maximum(stop - start, 0)
    edge = np.repeat(np.arange(len(points)), counts)
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + start[edge]
    top, bottom = upper[edge], lower[edge]
    share = (rows + 0.5 - top[:, 1]) / (bottom[:, 1] - top[:, 1])
    crossing = top[:, 0] + share * (bottom[:, 0] - top[:, 0])
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    toggles = np.zeros((height, width + 1), np.int32)
    np.add.at(toggles, (rows, columns), 1)
    return (np.cumsum(toggles[:, :-1], axis=1) & 1).astype(bool)


def fill_ellipse(
    centre: Sequence[float], radii: Sequence[float], height: int, width: int, degrees: float = 0
) -> np.ndarray:
    """The pixels of an ellipse that is turned clockwise, its border included; bool `(height, width)`."""
    x, y = np.arange(width) + 0.5 - centre[0], (np.arange(height) + 0.5 - centre[1])[:, None]
    angle = np.deg2rad(degrees)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if min(radii) <= 0:
        return np.zeros((height, width), bool)
    return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1


def draw_line(points: np.ndarray, thickness: float, height: int, width: int) -> np.ndarray:
    """The pixels within half a thickness of a line through points `(N, 2)`; bool `(height, width)`."""
    covered = np.zeros((height, width), bool)
    for start, end in zip(points[:-1], points[1:], strict=True):
        low, high = np.minimum(start, end) - thickness / 2, np.maximum(start, end) + thickness / 2
        x0, y0 = np.clip(np.floor(low), 0, (width, height)).astype(int)
        x1, y1 = np.clip(np.ceil(high), 0, (width, height)).astype(int)
        x, y = np.arange(x0, x1) + 0.5, (np.arange(y0, y1) + 0.5)[:, None]
        step = end - start
        share = ((x - start[0]) * step[0] + (y - start[1]) * step[1]) / max(float(step @ step), 1e-12)
        share = np.clip(share, 0, 1)
        distance = np.hypot(x - start[0] - share * step[0], y - start[1] - share * step[1])
        covered[y0:y1, x0:x1] |= distance <= thickness / 2
    return covered


def box_points(left: float, top: float, right: float, bottom: float, degrees: float = 0) -> np.ndarray:
    """The corners `(4, 2)` of a box that is turned clockwise about its left upper corner."""
    corners = np.array([[0, 0], [right - left, 0], [right - left, bottom - top], [0, bottom - top]], np.float64)
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return corners @ turn + (left, top)


def runs_to_mask(counts: Sequence[int], size: int) -> np.ndarray:
    """Pixels in turn outside and inside, outside first; bool `(size,)`.

    Raises:
        ValueError: The runs are not of that size together, or one is negative.
    """
    runs = np.asarray(counts, np.int64)
    if (runs < 0).any():
        raise ValueError("a run-length encoded mask has a negative run")
    if runs.sum() != size:
        raise ValueError(f"a run-length encoded mask has {runs.sum()} pixels, but its size is {size}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)
