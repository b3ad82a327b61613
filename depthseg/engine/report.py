"""Figures of a run: a panel of predictions and the curves of its training.

matplotlib is imported when a figure is drawn, so that a run does not wait for it before its first step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .atomic import atomic_path
from .records import read_lines
from .visualization import Colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = dict[str, list[tuple[float, float]]]

COLUMN_INCHES = 3.2
DOTS_PER_INCH = 150
# One frame of the figure per line: title, and the ends of the key names it shows (a prefix such as "val_" is fine).
FRAMES = (
    ("loss", ("loss",)),
    ("segmentation, higher is better", ("mean_iou", "pixel_accuracy", "mean_accuracy")),
    ("depth error, lower is better", ("abs_rel", "rmse_log")),
    ("depth error in metres", ("rmse",)),
    ("depth within 1.25, 1.25², 1.25³", ("delta1", "delta2", "delta3")),
    ("learning rate", ("lr",)),
)


def write_panel(
    path: str | Path,
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str],
    names: Sequence[str] | None = None,
    legend: Mapping[str, Colour] | None = None,
) -> None:
    """Write a grid of images as PNG, such as input | depth | prediction | truth.

    Args:
        path: The PNG file.
        rows: Images uint8 `(H, W, 3)`, one row per sample; None leaves a place empty.
        titles: One title per column.
        names: One caption per row.
        legend: Class name -> colour, drawn below the grid.

    Raises:
        ValueError: A row has not one place per title, or `names` has not one name per row.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shapes = [image.shape for row in rows for image in row if image is not None]
    aspect = max((height / width for height, width, _ in shapes), default=0.5)
    width = COLUMN_INCHES * len(titles)
    figure = Figure(figsize=(width, COLUMN_INCHES * aspect * len(rows) + 1.0), layout="compressed")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for row_axes, row, name in zip(axes, rows, names or [""] * len(rows), strict=True):
        for frame, image in zip(row_axes, row, strict=True):
            frame.set(xticks=[], yticks=[])
            frame.spines[:].set_visible(False)
            if image is not None:
                frame.imshow(image, interpolation="nearest" if image.shape[1] < 300 else "antialiased")
        row_axes[0].set_xlabel(name, fontsize=8, loc="left", labelpad=2, color="0.35")
    for frame, title in zip(axes[0], titles, strict=True):
        frame.set_title(title, fontsize=11, pad=4)
    if legend:
        patches = [Patch(facecolor=np.divide(rgb, 255), edgecolor="0.4", label=name) for name, rgb in legend.items()]
        columns = min(len(patches), max(1, int(width / 1.6)))
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)
    _save(figure, path)


def write_curves(path: str | Path, metrics_path: str | Path) -> None:
    """Write the curves of a run as PNG: its loss and its scores over the optimiser steps.

    Args:
        path: The PNG file.
        metrics_path: The run's `metrics.jsonl`; values that are not numbers are skipped, and so is a last line that an
            interrupted run left incomplete.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no number that can be drawn.
    """
    from matplotlib.figure import Figure

    curves = read_curves(metrics_path)
    frames = [(title, _matching(curves, ends)) for title, ends in FRAMES]
    frames = [(title, names) for title, names in frames if names]
    if not frames:
        raise ValueError(
            f"{metrics_path} has no curve to draw; it needs lines with 'step' and one of: "
            f"{', '.join(end for _, ends in FRAMES for end in ends)}."
        )
    figure = Figure(figsize=(4.6 * len(frames), 3.4), layout="constrained")
    for frame, (title, names) in zip(figure.subplots(1, len(frames), squeeze=False)[0], frames, strict=True):
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            frame.plot(steps, values, label=name, linewidth=1.4, marker="o" if len(steps) <= 40 else "", markersize=3)
        frame.set_title(title, fontsize=10)
        frame.set_xlabel("optimiser step", fontsize=9)
        frame.tick_params(labelsize=8)
        frame.ticklabel_format(axis="y", scilimits=(-3, 4))
        frame.grid(color="0.9")
        frame.spines[["top", "right"]].set_visible(False)
        frame.legend(fontsize=8, frameon=False)
    _save(figure, path)


def read_curves(metrics_path: str | Path) -> Curves:
    """Read the numbers of a `metrics.jsonl` as curves.

    Args:
        metrics_path: One JSON object a line.

    Returns:
        Key -> [(step, value), ...] by step; a step that a resumed run wrote again counts once, with its last value.

    Raises:
        FileNotFoundError: There is no such file.
    """
    metrics_path = Path(metrics_path)
    if not metrics_path.is_file():
        raise FileNotFoundError(f"There is no file {metrics_path}; a run writes its metrics.jsonl at each evaluation.")
    curves: dict[str, dict[float, float]] = {}
    for line in read_lines(metrics_path):
        for key, value in line.items():
            if key != "step" and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(key, {})[line["step"]] = value
    return {key: sorted(points.items()) for key, points in curves.items()}


def _matching(curves: Curves, ends: tuple[str, ...]) -> list[str]:
    return [name for name in curves if any(name == end or name.endswith(("_" + end, "/" + end)) for end in ends)]


def _save(figure: Figure, path: str | Path) -> None:
    options = {"dpi": DOTS_PER_INCH, "facecolor": "white", "bbox_inches": "tight", "pad_inches": 0.06}
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", **options)
