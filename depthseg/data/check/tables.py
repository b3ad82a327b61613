"""How a data set of the Hugging Face Hub is looked through, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..tables.dataset import HubDataset, splits_of
from .labels import examine_classes
from .official import look
from .report import DatasetReport
from .scan import Finding, count


def check_tables(report: DatasetReport, root: str, **options: Any) -> None:
    """Read every row of every split.

    Args:
        report: Takes the counts and what is wrong.
        root: As of `HubDataset`.
        **options: Those of `HubDataset`.
    """
    findings: list[Finding] = []
    try:
        splits = splits_of(root, options.get("config"), options.get("revision"))
    except (ValueError, OSError) as error:
        report.problem(str(error))
        return
    for split in splits:
        try:
            dataset = HubDataset(root, split, **{"missing": "skip"} | options)
        except (ValueError, OSError) as error:
            report.problem(str(error))
            continue
        report.label_space = dataset.label_space or report.label_space
        report.faults += dataset.missing
        num_ids = len(dataset.label_space.classes) if dataset.label_space else 0
        rows = range(len(dataset))
        found = [look(report, dataset, index, list(map(Path, dataset.places_of(index))), num_ids) for index in rows]
        report.splits[split] = count(found, num_ids)
        findings += found
    if report.label_space is not None:
        examine_classes(report, report.label_space, count(findings, len(report.label_space.classes)))
