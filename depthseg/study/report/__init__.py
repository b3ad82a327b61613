"""The report of a study."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ...engine.atomic import atomic_path
from ...engine.records import write_json
from ..results import load_results
from ..stored import trials_folder
from .cam import write_cam_figures
from .figures import write_figures
from .markdown import to_markdown
from .numbers import study_numbers
from .prices import write_prices

FOLDER = "report"
DIGITS = 10
"""Significant digits in `results.json`."""

logger = logging.getLogger(__name__)


def write_report(out: str | Path) -> Path:
    """Write the report of a study, finished or not, from its records.

    Args:
        out: Output directory of the study. The folder `report/` contains `report.md`, `figures/` with PNG and PDF, and
            `results.json` with every number; `depthseg.study.report.html` makes a page of it. A study with defects
            also has `price_of_defects.md` and its numbers.

    Returns:
        The Markdown file.

    Raises:
        FileNotFoundError: There is no `study.yaml`.
        ValueError: A record cannot be read, or no trial is finished.
    """
    results = load_results(out)
    if not results.records:
        raise ValueError(
            f"{trials_folder(Path(out))} contains no record of this study. Run the study first, then write its report."
        )
    folder = Path(out) / FOLDER
    report = folder / "report.md"
    logger.info("writing report.md, results.json and figures of %d records to %s", len(results.records), folder)
    numbers = rounded(study_numbers(results))  # what is written is what `results.json` says
    write_json(folder / "results.json", numbers)
    texts = write_figures(numbers, folder / "figures") | write_cam_figures(results, folder / "figures")
    with atomic_path(report) as temporary:
        temporary.write_text(to_markdown(numbers, texts), encoding="utf-8")
    if results.study.get("defects"):
        logger.info("%s lists what each defect is worth", write_prices(Path(out), folder))
    return report


def rounded(value: Any) -> Any:
    """Numbers to `DIGITS` significant digits: further ones depend on the processor and on the order of records."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
