"""The report of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...engine.atomic import atomic_path
from ...engine.records import write_json
from ..results import load_results
from .figures import write_figures
from .html import to_html
from .markdown import to_markdown
from .numbers import study_numbers
from .sections import sections

FOLDER = "report"
DIGITS = 10
"""Significant digits in `results.json`."""


def write_report(out: str | Path) -> Path:
    """Write the report of a study, finished or not, from its records.

    Args:
        out: Run directory of the study. The folder `report/` contains `index.html`, a self-contained page, the same
            text as `report.md`, `figures/` with PNG and PDF, and `results.json` with every number.

    Returns:
        The HTML file.

    Raises:
        FileNotFoundError: There is no `study.yaml`.
        ValueError: A record cannot be read, or no cell is finished.
    """
    results = load_results(out)
    if not results.records:
        raise ValueError(
            f"{Path(out) / 'cells'} contains no record of this study. Run the study first, then write its report."
        )
    folder = Path(out) / FOLDER
    numbers = study_numbers(results)
    write_json(folder / "results.json", rounded(numbers))
    pictures, images = write_figures(numbers, folder / "figures")
    shown = sections(numbers, pictures)
    for name, text in (("report.md", to_markdown(numbers, shown)), ("index.html", to_html(numbers, shown, images))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "index.html"


def rounded(value: Any) -> Any:
    """Numbers to `DIGITS` significant digits: further ones depend on the processor and on the order of records."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
