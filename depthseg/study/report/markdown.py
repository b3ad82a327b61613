"""The report as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .sections import Section
from .tables import Table, TableRow

Row = Mapping[str, Any]

SPECIAL = re.compile(r"([\\`*_{}\[\]#|~])")
"""Characters with a meaning in Markdown."""


def to_markdown(numbers: Row, sections: Sequence[Section]) -> str:
    """The whole report; figures are in `figures/`, records in `../cells/`."""
    blocks = [f"# {escape(numbers['name'])}"]
    blocks += [escape(text) for text in (numbers["summary"], _scale(numbers)) if text]
    for section in sections:
        blocks += _section(section, numbers["labels"])
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Text with special characters escaped, on one line."""
    return SPECIAL.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _scale(numbers: Row) -> str:
    return f"Scale: {numbers['scale']}." if numbers["scale"] else ""


def _section(section: Section, labels: Mapping[str, str]) -> Iterator[str]:
    yield f"## {escape(section.title)}"
    yield from map(escape, section.paragraphs)
    for picture in section.pictures:
        pdf = f"figures/{picture.name}.pdf"
        yield f"![{escape(picture.alt)}](figures/{picture.name}.png)"
        yield f"{escape(picture.caption)} ([PDF]({pdf}))"
    for heading, items in section.lists:
        yield f"**{escape(heading)}**"
        yield "\n".join(f"- {escape(item)}" for item in items)
    for table in section.tables:
        yield f"**{escape(table.caption)}**"
        yield _table(table, labels)
        if table.notes:
            yield "\n".join(f"- {escape(note)}" for note in table.notes)


def _table(table: Table, labels: Mapping[str, str]) -> str:
    linked = any(row.records for row in table.rows)
    columns = [*map(escape, table.columns), *(["Records"] if linked else [])]
    rule = ["---" if place < table.words or place >= len(table.columns) else "---:" for place in range(len(columns))]
    lines = [columns, rule]
    for row in table.rows:
        lines.append([*(escape(cell.text) for cell in row.cells), *([_links(row, labels)] if linked else [])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _links(row: TableRow, labels: Mapping[str, str]) -> str:
    return ", ".join(f"[{escape(labels[key])}](../cells/{key}.json)" for key in row.records)
