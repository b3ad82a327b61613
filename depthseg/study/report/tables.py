"""The tables of a report, as text for both HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..results import Setting
from .findings import claim_rows, rows_of, verdict
from .text import NOTHING, between, number, p_value, signed

Row = Mapping[str, Any]

VERDICTS = {"better": "supported", "worse": "contradicted", "open": "undecided", "untested": "not tested"}


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: Its text.
        sort: Its value for sorting; None is last.
    """

    text: str
    sort: float | str | None


@dataclass(frozen=True)
class TableRow:
    """One row.

    Attributes:
        cells: One for each column.
        records: Keys of the run records of its numbers.
    """

    cells: tuple[Cell, ...]
    records: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Unique in the report, letters and digits.
        caption: Its caption.
        columns: Titles of the columns.
        words: Number of text columns on the left; the other columns contain numbers.
        rows: Its rows.
        notes: Notes below it.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    words: int
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()


class Words:
    """The left columns of a table: the parts of a setting that vary in this study, and the arm.

    Args:
        numbers: See `study_numbers`.
        names: The parts of a setting that the rows have.
    """

    def __init__(self, numbers: Row, names: Sequence[str] = ("architecture", "mode", "benchmark", "budget")) -> None:
        self.title = {arm: entry["title"] for arm, entry in numbers["arms"].items()}
        settings = numbers["settings"]
        self._varies = [name for name in names if len({setting[name] for setting in settings}) > 1]
        constant = [str(settings[0][name]) for name in names if name not in (*self._varies, "budget")]
        several = "budget" in self._varies or "budget" not in names
        self.everywhere = ", ".join([*constant, *([] if several else [f"{settings[0]['budget']} labels"])])
        self.places = tuple({"budget": "Labels"}.get(name, name.capitalize()) for name in self._varies)
        self.columns = (*self.places, "Arm")

    def place(self, row: Row) -> tuple[Cell, ...]:
        """The cells with the setting of a row."""
        return tuple(Cell(str(row[name]), row[name]) for name in self._varies)

    def cells(self, row: Row) -> tuple[Cell, ...]:
        """The left cells of a row: setting and arm."""
        return (*self.place(row), word(self.title[row["arm"]]))

    def caption(self, text: str) -> str:
        """A caption with the parts of the setting that do not vary."""
        return f"{text} ({self.everywhere})." if self.everywhere else f"{text}."


def word(text: str) -> Cell:
    """A cell with text."""
    return Cell(text, text)


def figure(value: float | None, digits: int = 1, write: Callable[[float, int], str] = number) -> Cell:
    """A cell with one number."""
    return Cell(NOTHING if value is None else write(value, digits), value)


def bounds(pair: Sequence[float] | None, digits: int = 1) -> Cell:
    """A cell with two numbers; sorted by the lower one."""
    return Cell(between(pair, digits), None if pair is None else pair[0])


def claim_tables(numbers: Row) -> Iterator[Table]:
    """Published findings and the result of this study; nothing if it has no claims."""
    words = Words(numbers)
    found = [(claim, row) for claim in numbers["claims"] for row in claim_rows(claim, numbers)]
    if found:
        yield Table(
            name="claims",
            caption=words.caption("Published findings, tested in this study"),
            columns=("Finding", *words.places, "Result", "Difference", "95 % interval", "Adjusted p"),
            words=2 + len(words.places),
            rows=tuple(_claim_row(claim, row, words) for claim, row in found),
            notes=(
                "Supported: the difference of mean IoU (in points, at the chosen learning rates) is significant in "
                "the direction of the finding. Contradicted: it is significant in the opposite direction. Undecided: "
                "it is not significant, which does not refute the finding. Not tested: too few runs for a p-value. "
                "The notes below the comparisons describe the intervals and their conditions.",
            ),
        )


def _claim_row(claim: Row, row: Row, words: Words) -> TableRow:
    cells = (
        word(claim["text"]),
        *words.place(row),
        word(VERDICTS[verdict(row)]),
        figure(row["difference"], 1, signed),
        bounds(row["interval"]),
        Cell(p_value(row["p_adjusted"]), row["p_adjusted"]),
    )
    return TableRow(cells, tuple(row["records"]))


def score_tables(numbers: Row, rows: str = "main") -> Iterator[Table]:
    """Mean IoU of the arms at their chosen rates (`main`) or at the fixed rate (`fixed`), a table for each setting."""
    columns = ("mIoU", "95 % interval", "Lowest to highest run", "Steps to 95 %", "Area under curve")
    for place, setting in enumerate(numbers["settings"]):
        found = rows_of(numbers[rows], setting)
        if found:
            baselines = rows_of(numbers["baselines"], setting)
            yield Table(
                name=f"{rows}{place}",
                caption=f"{Setting(**setting)}: mean IoU in points on the test images.",
                columns=("Arm", *columns, "Learning rate", "Runs"),
                words=1,
                rows=(
                    *(_score_row(row, numbers) for row in found),
                    *(line for row in baselines for line in _baseline_rows(row)),
                ),
                notes=(*_reasons(found, numbers), *_conditions(found, numbers)),
            )


def _score_row(row: Row, numbers: Row) -> TableRow:
    planned = numbers["planned_runs"]
    cells = (
        word(numbers["arms"][row["arm"]]["title"]),
        figure(row["mean_iou"]),
        bounds(row["interval"]),
        bounds(row["spread"]),
        figure(row["steps_to_95"], 0),
        figure(row["area_under_curve"]),
        Cell(", ".join(f"{rate:g}" for rate in row["rates"]), row["rates"][0]),
        Cell(f"{row['runs']} of {planned}", row["runs"]),
    )
    return TableRow(cells, tuple(row["records"]))


def _baseline_rows(row: Row) -> Iterator[TableRow]:
    for name, score in row["mean_iou"].items():
        title = word(f"Baseline: {name.replace('_', ' ')}")
        yield TableRow((title, figure(score), *[Cell(NOTHING, None)] * 6), tuple(row["records"]))


def comparison_tables(numbers: Row, rows: str = "comparisons") -> Iterator[Table]:
    """Comparisons at the chosen rates or at the fixed rate (`comparisons_fixed`), a table for each setting."""
    for place, setting in enumerate(numbers["settings"]):
        found = rows_of(numbers[rows], setting)
        if found:
            yield Table(
                name=f"{rows.replace('_', '')}{place}",
                caption=f"{Setting(**setting)}: difference of mean IoU in points, first arm minus second.",
                columns=(
                    "First arm",
                    "Second arm",
                    "Difference",
                    "95 % interval",
                    "Interval from two arms",
                    "p",
                    "Adjusted p",
                    "P(first better)",
                )
                + ("Lowest to highest", "Runs per arm"),
                words=2,
                rows=tuple(_comparison_row(row, numbers) for row in found),
                notes=(
                    *_family(numbers[rows]),
                    *_reasons(found, numbers),
                    *_conditions(found, numbers),
                ),
            )


def _comparison_row(row: Row, numbers: Row) -> TableRow:
    title = {arm: entry["title"] for arm, entry in numbers["arms"].items()}
    cells = (
        word(title[row["a"]]),
        word(title[row["b"]]),
        figure(row["difference"], 1, signed),
        bounds(row["interval"]),
        bounds(row["interval_alone"]),
        Cell(p_value(row["p_value"]), row["p_value"]),
        Cell(p_value(row["p_adjusted"]), row["p_adjusted"]),
        figure(row["probability_a_beats_b"], 2),
        bounds(row["spread"]),
        Cell(f"{row['runs']} of {numbers['planned_runs']}", row["runs"]),
    )
    return TableRow(cells, tuple(row["records"]))


def _family(rows: Iterable[Row]) -> list[str]:
    tested = sum(row["p_value"] is not None for row in rows)
    return [f"Adjusted p: Holm's adjustment for the {tested} p-values of all settings."] if tested else []


def _reasons(rows: Iterable[Row], numbers: Row) -> list[str]:
    return list(dict.fromkeys(row["reason"] for row in rows if row["reason"]))


def _conditions(rows: Sequence[Row], numbers: Row) -> list[str]:
    """Sources of variation and conditions of the intervals; with the names of the rows if they differ."""
    title = {arm: entry["title"] for arm, entry in numbers["arms"].items()}
    who: dict[str, list[str]] = {}
    for row in rows:
        name = title[row["arm"]] if "arm" in row else f"{title[row['a']]} {chr(0x2212)} {title[row['b']]}"
        who.setdefault(row["conditional_on"], []).append(name)
    if len(who) == 1:
        return [f"Intervals: {condition}." for condition in who]
    return [f"Intervals of {'; '.join(names)}: {condition}." for condition, names in who.items()]
