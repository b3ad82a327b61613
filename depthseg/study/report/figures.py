"""The figures of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..results import Setting
from .findings import rows_of
from .hero import hero, what_whiskers_are
from .style import QUIET, SETTINGS, Styles, panels, styles_of, tidy, write_figure
from .tables import measure_groups, measure_of

Row = Mapping[str, Any]

FRAME = (3.3, 2.5)
"""Width and height of one panel in inches."""

COLUMNS = 3
LEGEND_INCHES = 0.3
"""Height of one line of the legend."""

HANDLE_INCHES = 0.5
LETTER_INCHES = 0.06
"""Widths in a legend: of the line beside a name, and of a letter of the name."""


@dataclass(frozen=True)
class FigureText:
    """The texts of one figure.

    Attributes:
        name: Its files are `figures/NAME.png` and `figures/NAME.pdf`.
        caption: Its caption.
        alt: Its alternative text.
    """

    name: str
    caption: str
    alt: str


def write_figures(numbers: Row, folder: Path) -> dict[str, FigureText]:
    """Draw all figures that have data.

    Args:
        numbers: See `study_numbers`.
        folder: Folder for a PNG and a PDF of each.

    Returns:
        The texts of each figure, by name.
    """
    texts = {}
    with matplotlib.rc_context(SETTINGS):
        for text, figure in _figures(numbers, styles_of(numbers["initialisations"])):
            texts[text.name] = text
            write_figure(figure, folder, text.name)
    return texts


def _figures(numbers: Row, styles: Styles) -> Iterator[tuple[FigureText, Figure]]:
    names = "; ".join(entry["title"] for entry in numbers["initialisations"].values())
    if numbers["main"]:
        yield _hero_text(numbers, names), hero(numbers, styles)
    if numbers["curves"]:
        caption = "Learning curves: mean IoU on the test images; bands span the lowest to the highest run."
        text = FigureText("curves", caption, f"Learning curves of {names}. The table of scores contains the numbers.")
        yield text, _grid(numbers["curves"], numbers, styles, _learning_curves)
    if numbers["rates"]:
        caption = "Learning-rate sensitivity: mean IoU on validation images; circles: chosen rate"
        caption += "; dashed line: fixed rate." if numbers["fixed_rate"] else "."
        alt = f"Mean IoU over learning rate of {names}. The table below contains the numbers."
        places = {
            f"{row['architecture']}, {row['mode']}, {row['num_labelled']} labels": {
                name: row[name] for name in ("architecture", "mode")
            }
            for row in numbers["rates"]
        }
        draw = partial(_rate_curves, fixed_rate=numbers["fixed_rate"])
        yield FigureText("rates", caption, alt), _grid(numbers["rates"], numbers, styles, draw, places)
    for place, (name, groups) in enumerate(measure_groups(numbers).items()):
        measure = measure_of(name)
        caption = f"{measure.title} ({measure.unit}); bars span the lowest to the highest run."
        rows = [row for row in numbers["measures"] if any(row["values"].get(name, {}).values())]
        alt = f"{measure.title} of {names}. The table below contains the numbers."
        draw = partial(_measured, name=name, groups=groups)
        yield FigureText(f"measure{place}", caption, alt), _grid(rows, numbers, styles, draw)


def _hero_text(numbers: Row, names: str) -> FigureText:
    rows, what = numbers["main"], "Mean IoU over the number of labelled images"
    caption = f"{what}. {what_whiskers_are(rows)}."
    if any(row["steps_to_95"] is not None for row in rows):
        caption += " Inset, for the largest number of labels: steps to 95 % of the final score of a run, mean, lowest "
        caption += "and highest run."
    best = max(rows, key=lambda row: row["mean_iou"])
    place = Setting(**{name: best[name] for name in numbers["settings"][0]})
    title = numbers["initialisations"][best["initialisation"]]["title"]
    alt = f"{what}, for {names}. Highest: {title} ({place}), {best['mean_iou']:.1f}."
    return FigureText("hero", caption, alt)


def _grid(
    rows: Sequence[Row],
    numbers: Row,
    styles: Styles,
    draw: Callable[[Axes, Sequence[Row], Styles], None],
    places: Mapping[str, Row] | None = None,
) -> Figure:
    """One panel for each place that has rows, one legend below; places are settings unless others are given."""
    places = places or {str(Setting(**entry)): entry for entry in numbers["settings"] if rows_of(rows, entry)}
    columns = min(len(places), COLUMNS)
    width = max(FRAME[0] * columns, 4.6)
    inits = [init for init in numbers["initialisations"] if any(row["initialisation"] == init for row in rows)]
    longest = max(len(numbers["initialisations"][init]["title"]) for init in inits)
    per_line = max(1, int(width / (HANDLE_INCHES + LETTER_INCHES * longest)))
    legend_inches = LEGEND_INCHES * -(-len(inits) // per_line)
    figure, frames = panels(len(places), columns, (width / columns, FRAME[1]), legend_inches)
    for axes, (title, entry) in zip(frames, places.items(), strict=True):
        draw(axes, rows_of(rows, entry), styles)
        axes.set_title(title, loc="left", fontweight="bold")
        tidy(axes)
    handles = [axes.plot([], [], label=numbers["initialisations"][init]["title"], **styles[init])[0] for init in inits]
    figure.legend(handles=handles, loc="outside lower center", ncols=per_line, frameon=False)
    return figure


def _learning_curves(axes: Axes, rows: Sequence[Row], styles: Styles) -> None:
    for row in rows:
        style = styles[row["initialisation"]]
        axes.plot(row["steps"], row["mean"], **style | ({} if len(row["steps"]) <= 15 else {"marker": ""}))
        axes.fill_between(row["steps"], row["lowest"], row["highest"], color=style["color"], alpha=0.12, linewidth=0)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("mean IoU, points")
    axes.set_xlim(left=0)


def _rate_curves(axes: Axes, rows: Sequence[Row], styles: Styles, fixed_rate: float | None) -> None:
    if fixed_rate is not None:
        axes.axvline(fixed_rate, color=QUIET, linewidth=0.8, linestyle="--", zorder=0)
    ring = {"markersize": 9, "markerfacecolor": "none", "linestyle": "", "marker": "o"}
    for row in rows:
        style = styles[row["initialisation"]]
        axes.plot([float(rate) for rate in row["scores"]], list(row["scores"].values()), **style)
        axes.plot(row["chosen"], row["scores"][f"{row['chosen']:g}"], **style | ring)
    rates = sorted({rate for row in rows for rate in row["scores"]}, key=float)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([float(rate) for rate in rates], rates)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("mean IoU, points")


def _measured(axes: Axes, rows: Sequence[Row], styles: Styles, name: str, groups: Sequence[str]) -> None:
    measure = measure_of(name)
    for place, row in enumerate(rows):
        found = [(at, entry) for at, group in enumerate(groups) if (entry := row["values"][name].get(group))]
        beside = (place - (len(rows) - 1) / 2) * 0.7 / max(len(rows), 1)
        places = [at + beside for at, _ in found]
        for at, (_, entry) in zip(places, found, strict=True):
            ends = [measure.factor * end for end in entry["spread"]]
            axes.plot((at, at), ends, color=styles[row["initialisation"]]["color"], linewidth=1.0, alpha=0.75)
        means = [measure.factor * entry["mean"] for _, entry in found]
        axes.plot(places, means, **styles[row["initialisation"]] | {"linestyle": ""})
    axes.set_xticks(range(len(groups)), [group.replace("_", "\n") for group in groups])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel(measure.unit.split(",")[0])
