"""The report as Markdown: its sections in order, with texts, figures and tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..statistics import plural
from . import tables as made
from .figures import FigureText
from .findings import findings, overview
from .paper import paper_table
from .robustness import robustness_tables
from .tables import Table, measure_groups, measure_of
from .text import duration

Row = Mapping[str, Any]

SPECIAL = re.compile(r"([\\`*_{}\[\]#|~])")
"""Characters with a meaning in Markdown."""

HOW_TO_READ_SCORES = (
    "Steps to 95 %: the step at which a run reaches 95 % of its own final score, from its evaluations on the test "
    "images; a run with a low final score may reach it early. Area under curve: mean of the learning curve over all "
    "steps, in points."
)

HOW_TO_READ_COMPARISONS = (
    "95 % interval: the variance over seeds is pooled over all initialisations. Interval from these two: only their "
    "seeds are used; with two pre-training seeds it is very wide. P(first better): the fraction of bootstrap "
    "differences above 0, with the differences scaled to the 95 % interval. Intervals and P(first better) are not "
    "adjusted for the number of comparisons."
)


HOW_TO_READ_DRAWS = (
    "Differences are taken draw by draw: both initialisations have the same labelled images and seeds. 95 % interval: "
    "over draws, pre-trainings and blocks of test images; if at least three initialisations are pre-trained, the "
    "variance over pre-trainings is that of all of them. Interval from these two: only their pre-trainings are used. "
    "P(first better): the fraction of bootstrap differences above 0, with the differences scaled to the 95 % "
    "interval. Intervals and P(first better) are not adjusted for the number of comparisons."
)


def to_markdown(numbers: Row, texts: Mapping[str, FigureText]) -> str:
    """The whole report; figures are in `figures/`.

    Args:
        numbers: See `study_numbers`.
        texts: The texts of the figures, by name.
    """
    parts = [(title, found) for title, found in _sections(numbers, texts) if found]
    scale = f"Scale: {numbers['scale']}." if numbers["scale"] else ""
    contents = " · ".join(f"[{escape(title)}](#{anchor(title)})" for title, _ in parts)
    blocks = [f"# {escape(numbers['name'])}", *map(escape, filter(None, (numbers["summary"], scale))), contents]
    for title, found in parts:
        blocks += [f"## {escape(title)}", *found]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Text with special characters escaped, on one line."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def anchor(title: str) -> str:
    """The target of a link to a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _sections(numbers: Row, texts: Mapping[str, FigureText]) -> Iterator[tuple[str, list[str]]]:
    """Title and blocks of each section; one without blocks is left out."""

    def drawn(name: str) -> Iterator[str]:
        if name in texts:
            yield f"![{escape(texts[name].alt)}](figures/{name}.png)"
            yield f"{escape(texts[name].caption)} ([PDF](figures/{name}.pdf))"

    def shown(*tables: Table, before: str = "") -> Iterator[str]:
        filled = [table for table in tables if table.rows]
        yield from [before] if filled and before else []
        for table in filled:
            yield from table_blocks(table, numbers["labels"], numbers["folder"])

    statements = [block for item in findings(numbers).items() for block in _list(*item)]
    claims = shown(made.claim_table(numbers))
    yield "Findings", [*map(escape, overview(numbers)), *drawn("hero"), *statements, *claims]
    yield "Beside the paper", [*_paper(numbers.get("paper")), *shown(paper_table(numbers))]
    yield "Set-up", [*_setup(numbers["finetuning"]), *shown(made.origin_table(numbers))]
    yield "Scores", [*shown(*made.score_tables(numbers), before=HOW_TO_READ_SCORES)]
    how_to_read = HOW_TO_READ_DRAWS if "draws" in numbers else HOW_TO_READ_COMPARISONS
    yield "Comparisons", [*shown(*made.comparison_tables(numbers), before=how_to_read)]
    yield "Learning curves", [*drawn("curves"), *shown(made.convergence_table(numbers))]
    at_fixed_rate = (made.fixed_rate_table(numbers), *made.comparison_tables(numbers, "comparisons_fixed"))
    yield "Learning rates", [*drawn("rates"), *shown(made.rate_table(numbers), *at_fixed_rate)]
    yield "Classes", [*shown(*made.class_tables(numbers))]
    for place, (name, groups) in enumerate(measure_groups(numbers).items()):
        table = made.measure_table(numbers, name, groups)
        yield measure_of(name).title, [*drawn(f"measure{place}"), *shown(table)]
    yield "Grad-CAM", [block for name in texts if name.startswith("grad_cam") for block in drawn(name)]
    yield "Robustness", [*shown(*robustness_tables(numbers))]
    yield "Where the cost goes", [*shown(made.value_table(numbers), made.spent_table(numbers))]
    yield "Pre-training", [*shown(made.pretraining_table(numbers))]
    yield "Cost", [*map(escape, _cost(numbers["cost"])), *shown(made.cost_table(numbers))]
    unused = _list("Records that are not used", numbers["unused"])
    yield "Missing runs", [*unused, *shown(made.missing_table(numbers))]


def _list(heading: str, items: Sequence[str]) -> list[str]:
    return [f"**{escape(heading)}**", _points(items)] if items else []


def _points(items: Iterable[str]) -> str:
    return "\n".join(f"- {escape(item)}" for item in items)


def _paper(paper: Row | None) -> list[str]:
    if paper is None:
        return []
    source = [f"Source: {escape(paper['source'])}."] if paper["source"] else []
    return [*source, *_list("Not in the text", paper["not_in_text"])]


def _setup(finetuning: Sequence[Row]) -> list[str]:
    kinds = [
        f"{row['steps']} steps of {plural(row['batch_size'], 'image')} of {'x'.join(map(str, row['size']))} pixels"
        for row in finetuning
    ]
    return [f"Fine-tuning: {'; '.join(kinds)}."] if kinds else []


def _cost(cost: Row) -> Iterator[str]:
    yield f"{plural(cost['trials'], 'finished trial')}, {duration(cost['seconds'])} in total."
    if cost["hardware"]:
        yield f"Hardware: {'; '.join(cost['hardware'])}."
    if cost["versions"]:
        versions = (f"{name} {' and '.join(found)}" for name, found in cost["versions"].items())
        yield f"Versions: {', '.join(versions)}."
    if cost["command"]:
        yield f"Command: {cost['command']}"


def table_blocks(table: Table, labels: Mapping[str, str], folder: str) -> Iterator[str]:
    """Caption, table and notes.

    Args:
        table: The table. Rows with records have them in a last column, several folded up.
        labels: Record key -> its name.
        folder: Folder of the records, beside that of the report.
    """
    linked = any(row.get("records") for row in table.rows)
    lines = [
        [*(escape(column.title) for column in table.columns), *["Records"][:linked]],
        [*("---" if column.words else "---:" for column in table.columns), *["---"][:linked]],
    ]
    for row in table.rows:
        cells = [escape(column.text(row)) for column in table.columns]
        lines.append([*cells, _links(row["records"], labels, folder)] if linked else cells)
    yield f"**{escape(table.caption)}**"
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if table.notes:
        yield _points(table.notes)


def _links(keys: Sequence[str], labels: Mapping[str, str], folder: str) -> str:
    links = ", ".join(f"[{escape(labels[key])}](../{folder}/{key}.json)" for key in keys)
    return f"<details><summary>{len(keys)} records</summary>{links}</details>" if len(keys) > 1 else links
