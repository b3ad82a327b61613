"""The main figure: mean IoU of each initialisation over the number of labels, and its convergence speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from .findings import rows_of
from .style import QUIET, Styles, panels, spread_apart, tidy

Row = Mapping[str, Any]

PANEL = (4.6, 4.2)
"""Width and height of one panel in inches."""

INSET_SHARE = 0.36
"""Fraction of a panel's height, at its bottom, that is reserved for the inset."""

PANEL_OF = ("architecture", "mode", "benchmark")
"""Rows that are equal in these are in one panel."""


def hero(numbers: Row, styles: Styles) -> Figure:
    """Label-efficiency curves, a panel for each architecture, mode and benchmark."""
    places = dict.fromkeys(tuple(entry[name] for name in PANEL_OF) for entry in numbers["settings"])
    groups = [rows_of(numbers["main"], dict(zip(PANEL_OF, place, strict=True))) for place in places]
    groups = [rows for rows in groups if rows]
    figure, frames = panels(len(groups), min(len(groups), 2), PANEL)
    for axes, rows in zip(frames, groups, strict=True):
        _label_curves(axes, rows, numbers, styles)
    return figure


def what_whiskers_are(rows: Sequence[Row]) -> str:
    """The meaning of the bars, for a caption."""
    kinds = {row["interval"] is not None for row in rows}
    if kinds == {True}:
        return "Bars are 95 % intervals"
    if kinds == {False}:
        return "Bars span the lowest to the highest run"
    return "Bars are 95 % intervals; for open markers, which have no interval, they span the lowest to the highest run"


def _label_curves(axes: Axes, rows: Sequence[Row], numbers: Row, styles: Styles) -> None:
    inits = [init for init in numbers["initialisations"] if any(row["initialisation"] == init for row in rows)]
    for place, init in enumerate(inits):
        own = [row for row in rows if row["initialisation"] == init]
        # Shifted slightly, so that bars do not overlap.
        places = [row["num_labelled"] * 1.025 ** (place - (len(inits) - 1) / 2) for row in own]
        axes.plot(places, [row["mean_iou"] for row in own], **styles[init])
        for at, row in zip(places, own, strict=True):
            _bar(axes, (at, at), row["interval"] or row["spread"], styles[init]["color"])
            if row["interval"] is None:
                axes.plot(at, row["mean_iou"], **styles[init] | {"markerfacecolor": "white", "linestyle": ""})
    labelled = sorted({row["num_labelled"] for row in rows})
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(labelled))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(labelled, list(map(str, labelled)))
    if len(labelled) == 1:  # the names are next to the markers, in units of the axis
        axes.set_xlim(labelled[0] / 1.5, labelled[0] * 1.15)
    axes.set_xlabel("labelled images")
    axes.set_ylabel("mean IoU, points")
    axes.set_title(", ".join(rows[0][name] for name in PANEL_OF), loc="left", fontweight="bold")
    tidy(axes)
    timed = [row for row in rows if row["num_labelled"] == labelled[-1] and row["steps_to_95"] is not None]
    if timed:
        low, high = axes.get_ylim()
        axes.set_ylim(high - (high - low) / (1 - INSET_SHARE), high)
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
        _inset(axes, timed, styles)
    _name_lines(axes, rows, inits, numbers, styles)


def _name_lines(axes: Axes, rows: Sequence[Row], inits: Sequence[str], numbers: Row, styles: Styles) -> None:
    """The name of each initialisation at the right end of its line."""
    last = {row["initialisation"]: row for row in sorted(rows, key=lambda row: row["num_labelled"])}
    ends = [last[init] for init in inits]
    low, high = axes.get_ylim()
    heights = spread_apart([row["mean_iou"] for row in ends], (high - low) / 22)
    right = max(row["num_labelled"] for row in rows) * 1.12
    for init, row, height in zip(inits, ends, heights, strict=True):
        axes.annotate(
            numbers["initialisations"][init]["title"],
            (row["num_labelled"] * 1.1, row["mean_iou"]),
            (right * 1.05, height),
            color=styles[init]["color"],
            fontsize=7.5,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": styles[init]["color"], "linewidth": 0.5, "alpha": 0.6},
        )


def _inset(axes: Axes, rows: Sequence[Row], styles: Styles) -> None:
    """Steps to 95 % of the final score, an initialisation below the other."""
    inset = axes.inset_axes((0.1, 0.09, 0.86, INSET_SHARE - 0.15))
    for place, row in enumerate(rows):
        _bar(inset, row["steps_spread"], (-place, -place), styles[row["initialisation"]]["color"])
        inset.plot(row["steps_to_95"], -place, **styles[row["initialisation"]] | {"linestyle": ""})
    inset.set_ylim(-len(rows) + 0.4, 0.6)
    inset.set_xlim(left=0)
    tidy(inset)
    inset.set_yticks([])
    inset.spines["left"].set_visible(False)
    inset.tick_params(labelsize=6.5)
    title = f"steps to 95 % of the final score, {rows[0]['num_labelled']} labels"
    inset.set_title(title, fontsize=7, loc="left", color=QUIET)
    inset.patch.set_alpha(0)


def _bar(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    axes.plot(x, y, color=colour, linewidth=1.0, alpha=0.75, solid_capstyle="butt")
