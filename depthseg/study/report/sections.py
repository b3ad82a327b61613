"""The sections of the report in order: texts, figures and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .detail_tables import (
    class_tables,
    cost_table,
    fixed_rate_table,
    measure_names,
    measure_table,
    missing_tables,
    pretraining_tables,
    rate_tables,
    start_tables,
)
from .findings import findings, overview
from .tables import Table, claim_tables, comparison_tables, score_tables
from .text import duration, plural

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Picture:
    """One figure.

    Attributes:
        name: Its files are `figures/NAME.png` and `figures/NAME.pdf`.
        caption: Its caption.
        alt: Its alternative text.
    """

    name: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: Unique in the report.
        title: Its heading.
        paragraphs: Its first paragraphs.
        pictures: Figures.
        lists: Heading -> items.
        tables: Its tables.
    """

    name: str
    title: str
    paragraphs: tuple[str, ...] = ()
    lists: tuple[tuple[str, tuple[str, ...]], ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


def sections(numbers: Row, pictures: Mapping[str, Picture]) -> list[Section]:
    """All sections that have content.

    Args:
        numbers: See `study_numbers`.
        pictures: The figures, by name.
    """
    return [
        section
        for section in _sections(numbers, pictures)
        if section.paragraphs or section.lists or section.tables or section.pictures
    ]


def _sections(numbers: Row, pictures: Mapping[str, Picture]) -> Iterator[Section]:
    def drawn(*names: str) -> tuple[Picture, ...]:
        return tuple(pictures[name] for name in names if name in pictures)

    yield _statements(numbers, drawn("hero"))
    yield Section("starts", "Set-up", _setup(numbers), tables=tuple(start_tables(numbers)))
    yield Section("scores", "Scores", HOW_TO_READ_SCORES, tables=tuple(score_tables(numbers)))
    found = tuple(comparison_tables(numbers))
    yield Section("comparisons", "Comparisons", HOW_TO_READ_COMPARISONS if found else (), tables=found)
    yield Section("curves", "Learning curves", pictures=drawn("curves"))
    yield Section(
        "rates",
        "Learning rates",
        pictures=drawn("rates"),
        tables=(*rate_tables(numbers), *fixed_rate_table(numbers), *comparison_tables(numbers, "comparisons_fixed")),
    )
    yield Section("classes", "Classes", tables=tuple(class_tables(numbers)))
    for name in measure_names(numbers):
        table = measure_table(numbers, name)
        yield Section(table.name, table.caption.split(":")[0], pictures=drawn(table.name), tables=(table,))
    yield Section("pretraining", "Pre-training", tables=tuple(pretraining_tables(numbers)))
    yield _cost(numbers)
    left_out = (("Records that are not used", tuple(numbers["left_out"])),) if numbers["left_out"] else ()
    yield Section("missing", "Missing runs", lists=left_out, tables=tuple(missing_tables(numbers)))


HOW_TO_READ_SCORES = (
    "Steps to 95 %: the step at which a run reaches 95 % of its own final score, from its evaluations on the test "
    "images; a run with a low final score may reach it early. Area under curve: mean of the learning curve over all "
    "steps, in points.",
)

HOW_TO_READ_COMPARISONS = (
    "95 % interval: the variance over seeds is pooled over all arms. Interval from two arms: only the seeds of these "
    "two arms are used; with two pre-training seeds it is very wide. P(first better): the fraction of bootstrap "
    "differences above 0, with the differences scaled to the 95 % interval. Intervals and P(first better) are not "
    "adjusted for the number of comparisons.",
)


def _setup(numbers: Row) -> tuple[str, ...]:
    kinds = [
        f"{row['steps']} steps of {plural(row['batch_size'], 'image')} of {'x'.join(map(str, row['size']))} pixels"
        for row in numbers["finetuning"]
    ]
    return (f"Fine-tuning: {'; '.join(kinds)}.",) if kinds else ()


def _statements(numbers: Row, pictures: tuple[Picture, ...]) -> Section:
    lists = tuple((found.setting, found.sentences) for found in findings(numbers))
    tables = tuple(claim_tables(numbers))
    return Section("findings", "Findings", tuple(overview(numbers)), lists, pictures, tables)


def _cost(numbers: Row) -> Section:
    cost = numbers["cost"]
    versions = ", ".join(f"{name} {' and '.join(found)}" for name, found in cost["versions"].items())
    lines = [f"{plural(cost['cells'], 'finished cell')}, {duration(cost['seconds'])} in total."]
    lines += [f"Hardware: {'; '.join(cost['hardware'])}."] if cost["hardware"] else []
    lines += [f"Versions: {versions}."] if versions else []
    lines += [f"Command: {cost['command']}"] if cost["command"] else []
    return Section("cost", "Cost", tuple(lines), tables=(cost_table(numbers),))
