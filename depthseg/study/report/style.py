"""Style of the figures, and writing them to files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...engine.atomic import atomic_path

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Colour-blind safe palette of Okabe and Ito (2008), with grey instead of yellow, which is illegible as text."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 200
QUIET = "0.45"

SETTINGS = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "pdf.fonttype": 42,  # text stays text in the PDF
    "text.parse_math": False,  # a "$" in a title is shown as "$"
}


Styles = Mapping[str, dict[str, Any]]
"""Initialisation -> keywords of `Axes.plot`: its colour, marker and line style, the same in all figures."""


def styles_of(inits: Iterable[str]) -> Styles:
    """The styles of initialisations, given in the order of display."""
    return {
        init: {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": LINES[place // len(COLOURS) % len(LINES)],
            "markersize": 4,
            "linewidth": 1.4,
        }
        for place, init in enumerate(inits)
    }


def tidy(axes: Axes) -> None:
    """Remove the upper and right spine and add a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def spread_apart(heights: Sequence[float], distance: float) -> list[float]:
    """Move labels up and down, as little as needed, until they are at least this far apart.

    The order is kept. Less their distances, the places are the isotonic regression of the heights, by its min-max
    formula (Robertson, Wright and Dykstra 1988).
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    free = np.array([heights[place] - rank * distance for rank, place in enumerate(order)])
    placed = list(heights)
    for rank, place in enumerate(order):
        means = [[free[first : last + 1].mean() for last in range(rank, len(free))] for first in range(rank + 1)]
        placed[place] = float(max(map(min, means))) + rank * distance
    return placed


def panels(count: int, columns: int, size: tuple[float, float], below: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure of empty panels, row by row.

    Args:
        count: Number of panels.
        columns: Panels of a row.
        size: Width and height of a panel in inches.
        below: Height of what is below them in inches.
    """
    lines = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * lines + below), layout="constrained")
    FigureCanvasAgg(figure)
    frames = figure.subplots(lines, columns, squeeze=False).ravel()
    for frame in frames[count:]:
        frame.set_visible(False)
    return figure, list(frames[:count])


def write_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write `NAME.png` and `NAME.pdf`."""
    for options in ({"format": "png", "dpi": DOTS_PER_INCH}, {"format": "pdf", "metadata": {"CreationDate": None}}):
        with matplotlib.rc_context(SETTINGS), atomic_path(folder / f"{name}.{options['format']}") as temporary:
            figure.savefig(temporary, facecolor="white", **options)
