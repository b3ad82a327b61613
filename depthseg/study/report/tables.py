"""The tables of a report: each is a list of columns over rows of its numbers.

A number that a row of `study_numbers` has is shown by one more `Column`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...engine.analysis import MEASURES, Measure
from ..results import Setting
from ..statistics import plural
from .findings import LEVEL, VERDICTS, claim_rows, rows_of, titles_of, verdict
from .text import NOTHING, between, duration, labels, number, p_value, rates, signed, time, whole

Row = Mapping[str, Any]

PLACE = {"architecture": "Architecture", "mode": "Mode", "benchmark": "Benchmark", "num_labelled": "Labels"}
"""Parts of a setting and the titles of their columns."""

MOST_CLASS_COLUMNS = 20

ORIGINS = {"none": "random", "checkpoint": "a given checkpoint", "seeds": "not finished"}

DECODER_NOTES = (
    "A decoder is transferred if the mode has one of the same architecture; otherwise it is initialised randomly, as "
    "is the last layer.",
    "The decoder is transferred in some initialisations and not in others: a difference between such initialisations "
    "includes the effect of the decoder.",
)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading, with the unit where the caption does not give it.
        key: Key of its value in a row; several for a value within maps. A row without it has a dash.
        show: Writes a value.
        words: Whether it contains words, which are aligned to the left, and not numbers.
    """

    title: str
    key: str | tuple[str, ...]
    show: Callable[[Any], str] = number
    words: bool = False

    def text(self, row: Row) -> str:
        """The text of a row in this column."""
        value: Any = row
        for key in (self.key,) if isinstance(self.key, str) else self.key:
            if value is None or key not in value:
                return NOTHING
            value = value[key]
        return self.show(value)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        caption: Its caption.
        columns: Its columns.
        rows: The numbers of each row; `records` are the keys of the run records that they are from. A table without
            rows is left out.
        notes: Notes below it.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


SCORE_COLUMNS = (
    Column("mIoU", "mean_iou"),
    Column("95 % interval", "interval", between),
    Column("Lowest to highest run", "spread", between),
    Column("Steps to 95 %", "steps_to_95", whole),
    Column("Area under curve", "area_under_curve"),
    Column("Learning rate", "rates", rates),
)

COMPARISON_COLUMNS = (
    Column("Difference", "difference", signed),
    Column("95 % interval", "interval", between),
    Column("Interval from these two", "interval_alone", between),
    Column("p", "p_value", p_value),
    Column("Adjusted p", "p_adjusted", p_value),
    Column("P(first better)", "probability_a_beats_b", partial(number, digits=2)),
    Column("Lowest to highest", "spread", between),
)

CLAIM_COLUMNS = (
    Column("Result", "verdict", VERDICTS.__getitem__, words=True),
    Column("Difference", "difference", signed),
    Column("95 % interval", "interval", between),
    Column("Adjusted p", "p_adjusted", p_value),
)

KIND_COLUMN = Column("Kind", "primary", {True: "primary", False: "exploratory"}.get, words=True)
Q_COLUMN = Column("q", "q_value", p_value)
"""Columns of comparisons if the study has primary claims."""

TASK_COLUMNS = (
    Column("Task", "task", str, words=True),
    Column("Data and supervision", "source", str, words=True),
)

DECODER_COLUMNS = (
    Column("Decoder", "decoder", {True: "transferred", False: "not transferred"}.get, words=True),
    Column("Samples", "samples", whole),
    Column("Steps", "steps", whole),
    Column("Batch size", "batch_size", whole),
)

BOTH_RATES_COLUMNS = (
    Column("Chosen rate", "rates", rates),
    Column("mIoU", "mean_iou"),
    Column("Runs", "runs", whole),
    Column("Fixed rate", ("fixed", "rates"), rates),
    Column("mIoU at fixed rate", ("fixed", "mean_iou")),
    Column("Runs at fixed rate", ("fixed", "runs"), whole),
)

COST_COLUMNS = (
    Column("Pre-training trials", ("pretrain", "trials"), whole),
    Column("Pre-training time", ("pretrain", "seconds"), duration),
    Column("Fine-tuning trials", ("finetune", "trials"), whole),
    Column("Fine-tuning time", ("finetune", "seconds"), duration),
)

CONVERGENCE_COLUMNS = (
    Column("Steps to 95 %", "steps_to_95", whole),
    Column("95 % interval", "interval", partial(between, digits=0)),
    Column("Lowest to highest draw", "spread", partial(between, digits=0)),
    Column("Minus reference", "difference", whole),
    Column("95 % interval", "interval_of_difference", partial(between, digits=0)),
)

SPENT_COLUMNS = (
    Column("Pre-trainings before it", "before", time),
    Column("Its pre-training", "pretraining", time),
    Column("A fine-tuning", "finetuning", time),
    Column("Together", "total", time),
)

VALUE_COLUMNS = (
    Column("Labels of the reference with the same score", "value", labels),
    Column("95 % interval", "interval", lambda ends: " to ".join(map(labels, ends)) if ends else "none"),
)

MISSING_COLUMNS = (
    *(Column(title, name, str, words=True) for name, title in PLACE.items()),
    Column("Kind", "role", str, words=True),
    Column("Missing", "runs", ", ".join, words=True),
)


def title_column(numbers: Row, title: str = "Initialisation", key: str = "initialisation") -> Column:
    """The title of an initialisation."""
    titles = titles_of(numbers)
    return Column(title, key, lambda init: titles.get(init, init or NOTHING), words=True)


def runs_column(numbers: Row, title: str) -> Column:
    """The finished runs and the planned ones."""
    return Column(title, "runs", lambda runs: f"{runs} of {numbers['planned_runs']}")


def place_columns(numbers: Row, names: Iterable[str] = PLACE, *, named: bool = True) -> tuple[Column, ...]:
    """The parts of a setting that vary in this study, and the title of the initialisation if `named`."""
    varying = [name for name in names if len({setting[name] for setting in numbers["settings"]}) > 1]
    columns = [Column(PLACE[name], name, str, words=True) for name in varying]
    return (*columns, title_column(numbers)) if named else tuple(columns)


def caption(numbers: Row, text: str, names: Iterable[str] = PLACE) -> str:
    """A caption with the parts of the setting that do not vary."""
    constant = [name for name in names if len({setting[name] for setting in numbers["settings"]}) == 1]
    values = [f"{numbers['settings'][0][name]}{' labels' if name == 'num_labelled' else ''}" for name in constant]
    return f"{text} ({', '.join(values)})." if values else f"{text}."


def claim_table(numbers: Row) -> Table:
    """Published findings and the result of this study."""
    return Table(
        caption(numbers, "Published findings, tested in this study"),
        (
            Column("Finding", "text", str, words=True),
            *place_columns(numbers, named=False),
            *with_kinds(numbers, CLAIM_COLUMNS),
        ),
        [
            row | {"text": claim["text"], "verdict": verdict(row)}
            for claim in numbers["claims"]
            for row in claim_rows(claim, numbers)
        ],
        (
            "Supported: the difference of mean IoU (in points, at the chosen learning rates) is significant in the "
            "direction of the finding. Contradicted: it is significant in the opposite direction. Undecided: it is "
            "not significant, which does not refute the finding. Not tested: too few runs for a p-value. The notes "
            "below the comparisons describe the intervals and their conditions.",
            *(
                [f"For exploratory findings, significant means a q-value below {LEVEL}."]
                if "primary" in numbers
                else ()
            ),
        ),
    )


def with_kinds(numbers: Row, columns: Sequence[Column]) -> list[Column]:
    """Columns of comparisons, with those of primary and exploratory ones if the study has primary claims."""
    if "primary" not in numbers:
        return list(columns)
    place = [column.key for column in columns].index("p_adjusted") + 1
    return [KIND_COLUMN, *columns[:place], Q_COLUMN, *columns[place:]]


def origin_table(numbers: Row) -> Table:
    """The origin of the weights of each initialisation; nothing before the first pre-training."""
    transferred = {row["decoder"] for row in numbers["origins"] if "decoder" in row}
    return Table(
        "Origin of the weights of each initialisation.",
        (title_column(numbers), *TASK_COLUMNS, title_column(numbers, "After", "after"), *DECODER_COLUMNS),
        [
            row
            | {
                "task": row.get("task") or ORIGINS[row["origin"]],
                "source": ", ".join(filter(None, (row.get("data"), row.get("supervision")))) or NOTHING,
            }
            for row in numbers["origins"]
            if transferred
        ],
        DECODER_NOTES if len(transferred) > 1 else DECODER_NOTES[:1],
    )


def score_tables(numbers: Row) -> Iterator[Table]:
    """Mean IoU of the initialisations at their chosen rates, and of the baselines, a table for each setting."""
    columns = (title_column(numbers), *SCORE_COLUMNS, runs_column(numbers, "Runs"))
    for setting in numbers["settings"]:
        if found := rows_of(numbers["main"], setting):
            baselines = [
                {"initialisation": f"Baseline: {name.replace('_', ' ')}", "mean_iou": score, "records": row["records"]}
                for row in rows_of(numbers["baselines"], setting)
                for name, score in row["mean_iou"].items()
            ]
            text = f"{Setting(**setting)}: mean IoU in points on the test images."
            yield Table(text, columns, [*found, *baselines], _interval_notes(found, numbers))


def comparison_tables(numbers: Row, rows: str = "comparisons") -> Iterator[Table]:
    """Comparisons at the chosen rates or at the fixed rate (`comparisons_fixed`), a table for each setting."""
    pair = title_column(numbers, "First", "a"), title_column(numbers, "Second", "b")
    columns = (*pair, *with_kinds(numbers, COMPARISON_COLUMNS), runs_column(numbers, "Runs per initialisation"))
    tested = sum(row["p_value"] is not None for row in numbers[rows])
    family = [f"Adjusted p: Holm's adjustment for the {tested} p-values of all settings."] if tested else []
    if "primary" in numbers:
        explored = sum(row["q_value"] is not None for row in numbers[rows])
        family = [
            f"Adjusted p: Holm's adjustment for the {plural(numbers['primary'], 'primary comparison')}. q: false-"
            f"discovery rate (Benjamini and Hochberg) among the {plural(explored, 'exploratory comparison')} of all "
            "settings."
        ]
    for setting in numbers["settings"]:
        found = rows_of(numbers[rows], setting)
        text = f"{Setting(**setting)}: difference of mean IoU in points, first initialisation minus second."
        yield Table(text, columns, found, [*family, *_interval_notes(found, numbers)])


def _interval_notes(rows: Sequence[Row], numbers: Row) -> list[str]:
    """Why intervals are absent, and their conditions; with the names of the rows if these differ."""
    title = titles_of(numbers)
    who: dict[str, list[str]] = {}
    for row in rows:
        names = [title[row[key]] for key in ("initialisation", "a", "b") if key in row]
        who.setdefault(row["conditional_on"], []).append(" \N{MINUS SIGN} ".join(names))
    return [
        *dict.fromkeys(row["reason"] for row in rows if row["reason"]),
        *(f"Intervals{' of ' + '; '.join(names) if len(who) > 1 else ''}: {text}." for text, names in who.items()),
    ]


def rate_table(numbers: Row) -> Table:
    """Learning-rate sensitivity and the chosen rate."""
    rows, names = numbers["rates"], ("architecture", "mode")
    grid = sorted({rate for row in rows for rate in row["scores"]}, key=float)
    labelled = ", ".join(map(str, {row["num_labelled"] for row in rows}))
    seeds = {count for row in rows for count in row["seeds"].values()}
    text = "Mean IoU in points on validation images for each learning rate, with "
    return Table(
        caption(numbers, f"{text}{labelled} labels", names),
        (
            *place_columns(numbers, names),
            *(Column(rate, ("scores", rate)) for rate in grid),
            Column("Chosen", "chosen", "{:g}".format),
            Column("At the end of the grid", "at_edge", {True: "yes", False: "no"}.get),
        ),
        rows,
        (
            f"Runs per mean: {', '.join(map(str, sorted(seeds)))}. They use the first pre-training and other seeds "
            "than the tables above. The chosen rate is used for all numbers of labels and all seeds. The intervals do "
            "not include the uncertainty of this choice.",
            *_rate_notes(rows, numbers),
        ),
    )


def _rate_notes(rows: Sequence[Row], numbers: Row) -> Iterator[str]:
    for row in rows:
        where = f"{numbers['initialisations'][row['initialisation']]['title']}, {row['architecture']}, {row['mode']}"
        if row["at_edge"]:
            yield f"{where}: {row['sentence']}"
        if row["used"] and row["used"] != [row["chosen"]]:
            yield (f"{where}: the runs used {rates(row['used'])}, but the best rate of the grid is {row['chosen']:g}.")


def fixed_rate_table(numbers: Row) -> Table:
    """Scores at the chosen rate and at the fixed rate, side by side."""

    def place(row: Row) -> list[Any]:
        return [row[name] for name in (*PLACE, "initialisation")]

    return Table(
        caption(numbers, "Mean IoU in points on the test images, at the chosen and at the fixed learning rate"),
        (*place_columns(numbers), *BOTH_RATES_COLUMNS),
        [
            row | {"fixed": other, "records": list(dict.fromkeys([*row["records"], *other["records"]]))}
            for row in numbers["main"]
            for other in numbers["fixed"]
            if place(row) == place(other)
        ],
    )


def class_tables(numbers: Row) -> list[Table]:
    """IoU of each class, a table for each set of classes; many classes are rows, as no page is so wide."""
    by_classes: dict[tuple[str, ...], list[Row]] = {}
    for row in numbers["per_class"]:
        by_classes.setdefault(tuple(row["iou"]), []).append(row)
    text = caption(numbers, "IoU of each class in points, mean over runs")
    places, tables = place_columns(numbers), []
    for classes, rows in by_classes.items():
        if len(classes) > MOST_CLASS_COLUMNS:
            titles = [", ".join(column.text(row) for column in places) for row in rows]
            columns = [Column(title, ("iou", place)) for place, title in enumerate(titles)]
            rows = [{"class": name, "iou": dict(enumerate(row["iou"][name] for row in rows))} for name in classes]
            tables.append(Table(text, (Column("Class", "class", str, words=True), *columns), rows))
        else:
            tables.append(Table(text, (*places, *(Column(name, ("iou", name)) for name in classes)), rows))
    return tables


def measure_of(name: str) -> Measure:
    """A measure; one of another version is shown under its own name."""
    return MEASURES.get(name) or Measure(name.replace("_", " ").capitalize(), "as measured", 1, 3)


def measure_groups(numbers: Row) -> dict[str, list[str]]:
    """The measures that have a number, and the groups of each; an empty name for a measure without groups."""
    groups: dict[str, dict[str, None]] = {}
    for row in numbers["measures"]:
        for name, values in row["values"].items():
            if any(values.values()):
                groups.setdefault(name, {}).update(dict.fromkeys(values))
    return {name: list(found) for name, found in groups.items()}


def measure_table(numbers: Row, name: str, groups: Sequence[str]) -> Table:
    """One measure: initialisations x groups."""
    measure = measure_of(name)

    def mean(value: float) -> str:
        return number(measure.factor * value, measure.digits)

    def spread(bounds: Sequence[float]) -> str:
        return between([measure.factor * bound for bound in bounds], measure.digits)

    columns = [Column(group or "Mean", ("values", name, group, "mean"), mean) for group in groups]
    if groups == [""]:
        columns.append(Column("Lowest to highest run", ("values", name, "", "spread"), spread))
    return Table(
        caption(numbers, f"{measure.title}: {measure.unit}, mean over runs"),
        (*place_columns(numbers), *columns),
        [row for row in numbers["measures"] if name in row["values"]],
    )


def pretraining_table(numbers: Row) -> Table:
    """Scores and time of each pre-training trial."""
    rows = numbers["pretraining"]
    names = dict.fromkeys(name for row in rows for name in row["scores"])
    return Table(
        "Pre-training: scores on the pre-training task, and time.",
        (
            title_column(numbers),
            Column("Depth alignment", "alignment", lambda text: text or NOTHING, words=True),
            Column("Seed", "pretrain_seed", whole),
            *(Column(name, ("scores", name), partial(number, digits=4)) for name in names),
            Column("Time", "seconds", duration),
        ),
        rows,
    )


def cost_table(numbers: Row) -> Table:
    """Trials and time by initialisation."""
    text = "Finished trials and their time; fine-tuning includes the runs of the learning-rate selection."
    return Table(text, (title_column(numbers), *COST_COLUMNS), numbers["cost"]["initialisations"])


def convergence_table(numbers: Row) -> Table:
    """Steps to 95 % of the final score of each initialisation, and against the reference, of studies with draws."""
    reference = titles_of(numbers)[numbers["reference"]]
    return Table(
        caption(numbers, "Steps to 95 % of the final score of a run, mean over draws"),
        (*place_columns(numbers), *CONVERGENCE_COLUMNS),
        numbers.get("convergence", ()),
        (
            f"Minus reference: paired over the draws with {reference}. Intervals: over draws and pre-trainings, on "
            "these test images, not adjusted; none with fewer than 6 draws or a single pre-training.",
        ),
    )


def spent_table(numbers: Row) -> Table:
    """Time of one model of each initialisation, of studies with draws."""
    text, rows = "Time for one model, mean over trials, without the selection of rates", numbers.get("spent", ())
    cpu = {row["clock"] for row in rows} == {"cpu_seconds"}
    return Table(
        caption(numbers, text, ("architecture", "mode")),
        (*place_columns(numbers, ("architecture", "mode")), *SPENT_COLUMNS),
        rows,
        (
            "A given checkpoint counts nothing here: its pre-training took place elsewhere.",
            "CPU time, which other work on the machine does not change, of trials that were not interrupted."
            if cpu
            else "Time on the clock.",
        ),
    )


def value_table(numbers: Row) -> Table:
    """How many labels each initialisation is worth, of studies with draws."""
    found = numbers.get("label_values", ())
    rows = [row for row in found if row["value"]] or [row for row in found if row["reference"] == numbers["reference"]]
    reasons = dict.fromkeys(row["reason"] for row in found if row["reason"])
    return Table(
        caption(numbers, "Number of labels with which the reference has the same score"),
        (*place_columns(numbers), title_column(numbers, "Reference", "reference"), *VALUE_COLUMNS),
        rows,
        (
            "The mean scores of the reference over the number of labels are made monotone and interpolated in the "
            "logarithm of that number. Intervals: draws and blocks of test images resampled, the same for both; the "
            "given pre-trainings.",
            *reasons,
        ),
    )


def missing_table(numbers: Row) -> Table:
    """Planned runs without a record."""
    text = "Planned runs without a record (pre-training seed, or pre-training seed.fine-tuning seed)."
    return Table(text, (title_column(numbers), *MISSING_COLUMNS), numbers["missing"])
