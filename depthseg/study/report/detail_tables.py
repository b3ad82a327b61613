"""The tables of a report that explain the scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .tables import Cell, Table, TableRow, Words, bounds, figure, word
from .text import NOTHING, duration

Row = Mapping[str, Any]


@dataclass(frozen=True)
class MeasureText:
    """Title and unit of a measure in the report.

    Attributes:
        title: Its name.
        unit: Of its numbers.
        factor: Multiplier of its values.
        digits: Digits after the decimal point.
    """

    title: str
    unit: str
    factor: float = 100.0
    digits: int = 1


MEASURE_TEXTS = {
    "iou_by_depth": MeasureText("Mean IoU by depth", "points"),
    "recall_by_scale": MeasureText("Recall by object size", "points"),
    "boundary_iou": MeasureText("Boundary IoU", "points"),
    "boundary_iou_by_edge": MeasureText("Boundary IoU by edge type", "points"),
    "cam_boundary_alignment": MeasureText(
        "Alignment of Grad-CAM with class boundaries", "AUROC, 0.5 = no relation", 1, 3
    ),
    "code_length": MeasureText(
        "Code length of the labels given the features", "bits per pixel, lower is better", 1, 3
    ),
}


def measure_text(name: str) -> MeasureText:
    """Title and unit of a measure; an unknown one is shown under its own name."""
    return MEASURE_TEXTS.get(name) or MeasureText(name.replace("_", " ").capitalize(), "as measured", 1, 3)


def measure_names(numbers: Row) -> list[str]:
    """The measures that have a number."""
    names = dict.fromkeys(name for row in numbers["measures"] for name in row["values"])
    return [name for name in names if any(_has_number(row, name) for row in numbers["measures"])]


def groups_of(numbers: Row, name: str) -> list[str]:
    """The groups of a measure; an empty name for a measure without groups."""
    rows = numbers["measures"]
    groups = dict.fromkeys(group for row in rows if _has_number(row, name) for group in row["values"][name])
    return list(groups)


def rate_tables(numbers: Row) -> Iterator[Table]:
    """Learning-rate sensitivity and the chosen rate."""
    rows = numbers["rates"]
    if not rows:
        return
    words = Words(numbers, ("architecture", "mode"))
    grid = sorted({rate for row in rows for rate in row["scores"]}, key=float)
    seeds = sorted({count for row in rows for count in row["seeds"].values()})
    yield Table(
        name="rates",
        caption=words.caption(
            f"Mean IoU in points on validation images for each learning rate, with {rows[0]['budget']} labels"
        ),
        columns=(*words.columns, *grid, "Chosen", "At the end of the grid"),
        words=len(words.columns),
        rows=tuple(
            TableRow(
                (
                    *words.cells(row),
                    *(figure(row["scores"].get(rate)) for rate in grid),
                    Cell(f"{row['chosen']:g}", row["chosen"]),
                    word("yes" if row["at_edge"] else "no"),
                ),
                tuple(row["records"]),
            )
            for row in rows
        ),
        notes=(
            f"Runs per mean: {', '.join(map(str, seeds))}. They use the first pre-training and other seeds than the "
            "tables above. The chosen rate is used for all numbers of labels and all seeds. The intervals do not "
            "include the uncertainty of this choice.",
            *_rate_notes(rows, words),
        ),
    )


def _rate_notes(rows: Sequence[Row], words: Words) -> Iterator[str]:
    for row in rows:
        where = f"{words.title[row['arm']]}, {row['architecture']}, {row['mode']}"
        if row["at_edge"]:
            yield f"{where}: {row['sentence']}"
        if row["used"] and row["used"] != [row["chosen"]]:
            used = ", ".join(f"{rate:g}" for rate in row["used"])
            yield f"{where}: the runs used {used}, but the best rate of the grid is {row['chosen']:g}."


def fixed_rate_table(numbers: Row) -> Iterator[Table]:
    """Scores at the chosen rate and at the fixed rate, side by side."""
    fixed = {_place(row): row for row in numbers["fixed"]}
    pairs = [(row, fixed[_place(row)]) for row in numbers["main"] if _place(row) in fixed]
    if not pairs:
        return
    words = Words(numbers)
    yield Table(
        name="fixedrate",
        caption=words.caption("Mean IoU in points on the test images, at the chosen and at the fixed learning rate"),
        columns=(
            *words.columns,
            "Chosen rate",
            "mIoU",
            "Runs",
            "Fixed rate",
            "mIoU at fixed rate",
            "Runs at fixed rate",
        ),
        words=len(words.columns),
        rows=tuple(
            TableRow(
                (*words.cells(main), *_rate_cells(main), *_rate_cells(other)),
                tuple(dict.fromkeys([*main["records"], *other["records"]])),
            )
            for main, other in pairs
        ),
    )


def _rate_cells(row: Row) -> tuple[Cell, ...]:
    rates = Cell(", ".join(f"{rate:g}" for rate in row["rates"]), row["rates"][0])
    return rates, figure(row["mean_iou"]), figure(row["runs"], 0)


def class_tables(numbers: Row) -> Iterator[Table]:
    """IoU of each class."""
    rows = numbers["per_class"]
    if rows:
        words = Words(numbers)
        classes = list(dict.fromkeys(name for row in rows for name in row["iou"]))
        yield Table(
            name="classes",
            caption=words.caption("IoU of each class in points, mean over runs"),
            columns=(*words.columns, *classes),
            words=len(words.columns),
            rows=tuple(
                TableRow(
                    (*words.cells(row), *(figure(row["iou"].get(name)) for name in classes)), tuple(row["records"])
                )
                for row in rows
            ),
        )


def measure_table(numbers: Row, name: str) -> Table:
    """One measure: arms x groups."""
    words, text, groups = Words(numbers), measure_text(name), groups_of(numbers, name)
    rows = [row for row in numbers["measures"] if name in row["values"]]
    grouped = groups != [""]

    def cells(row: Row) -> tuple[Cell, ...]:
        found = [row["values"][name].get(group) for group in groups]
        means = [figure(entry and text.factor * entry["mean"], text.digits) for entry in found]
        spreads = [bounds(entry and [text.factor * end for end in entry["spread"]], text.digits) for entry in found]
        return tuple(means if grouped else [*means, *spreads])

    return Table(
        name=f"measure{measure_names(numbers).index(name)}",
        caption=words.caption(f"{text.title}: {text.unit}, mean over runs"),
        columns=(*words.columns, *(groups if grouped else ("Mean", "Lowest to highest run"))),
        words=len(words.columns),
        rows=tuple(TableRow((*words.cells(row), *cells(row)), tuple(row["records"])) for row in rows),
    )


STARTS = {"none": "random", "checkpoint": "a given checkpoint", "seeds": "not finished"}


def start_tables(numbers: Row) -> Iterator[Table]:
    """The initialisation of each arm."""
    rows = numbers["starts"]
    if not any(row.get("task") for row in rows):
        return
    brings = {row["decoder"] for row in rows if row.get("task")}
    yield Table(
        name="starts",
        caption="Initialisation of each arm before fine-tuning.",
        columns=("Arm", "Task", "Data and supervision", "After", "Decoder", "Samples", "Steps", "Batch size"),
        words=5,
        rows=tuple(
            TableRow(
                (
                    word(numbers["arms"][row["arm"]]["title"]),
                    word(row.get("task") or STARTS[row["start"]]),
                    word(", ".join(filter(None, (row.get("data"), row.get("supervision")))) or NOTHING),
                    word(numbers["arms"][row["after"]]["title"] if row["after"] else NOTHING),
                    word(("transferred" if row["decoder"] else "not transferred") if row.get("task") else NOTHING),
                    figure(row.get("samples"), 0),
                    figure(row.get("steps"), 0),
                    figure(row.get("batch_size"), 0),
                ),
                tuple(row["records"]),
            )
            for row in rows
        ),
        notes=(
            "A decoder is transferred if the mode has one of the same architecture; otherwise it is initialised "
            "randomly, as is the last layer.",
            *(
                [
                    "The decoder is transferred in some arms and not in others: a difference between such arms "
                    "includes the effect of the decoder."
                ]
                if len(brings) > 1
                else []
            ),
        ),
    )


def pretraining_tables(numbers: Row) -> Iterator[Table]:
    """Scores and time of each pre-training cell."""
    rows = numbers["pretraining"]
    if rows:
        names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
        yield Table(
            name="pretraining",
            caption="Pre-training: scores on the pre-training task, and time.",
            columns=("Arm", "Depth alignment", "Seed", *names, "Time"),
            words=2,
            rows=tuple(
                TableRow(
                    (
                        word(numbers["arms"][row["arm"]]["title"]),
                        word(row["alignment"] or NOTHING),
                        figure(row["pretrain_seed"], 0),
                        *(figure(row["scores"].get(name), 4) for name in names),
                        Cell(duration(row["seconds"]), row["seconds"]),
                    ),
                    tuple(row["records"]),
                )
                for row in rows
            ),
        )


def cost_table(numbers: Row) -> Table:
    """Cells and time by arm."""

    def cells(row: Row) -> Iterator[Cell]:
        yield word(numbers["arms"][row["arm"]]["title"])
        for kind in ("pretrain", "finetune"):
            yield figure(row[kind]["cells"], 0)
            yield Cell(duration(row[kind]["seconds"]), row[kind]["seconds"])

    return Table(
        name="cost",
        caption="Finished cells and their time; fine-tuning includes the runs of the learning-rate selection.",
        columns=("Arm", "Pre-training cells", "Pre-training time", "Fine-tuning cells", "Fine-tuning time"),
        words=1,
        rows=tuple(TableRow(tuple(cells(row)), ()) for row in numbers["cost"]["arms"]),
    )


def missing_tables(numbers: Row) -> Iterator[Table]:
    """Planned runs without a record."""
    rows = numbers["missing"]
    if rows:
        yield Table(
            name="missing",
            caption="Planned runs without a record (pre-training seed, or pre-training seed.fine-tuning seed).",
            columns=("Arm", "Architecture", "Mode", "Benchmark", "Labels", "Kind", "Missing"),
            words=7,
            rows=tuple(
                TableRow(
                    (
                        word(numbers["arms"][row["arm"]]["title"]),
                        *(
                            word(str(row.get(name, NOTHING)))
                            for name in ("architecture", "mode", "benchmark", "budget", "role")
                        ),
                        word(", ".join(row["runs"])),
                    ),
                    (),
                )
                for row in rows
            ),
        )


def _place(row: Row) -> tuple:
    return row["architecture"], row["mode"], row["benchmark"], row["budget"], row["arm"]


def _has_number(row: Row, name: str) -> bool:
    return any(row["values"].get(name, {}).values())
