"""The numbers of a paper beside those of the study, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ...engine.robustness import TRAINED_ON
from ...metrics.blocks import mean_iou
from ..options import FULL_SCALE
from ..results import Setting, StudyResults
from .details import keys_of
from .tables import PLACE, Column, Table, caption, place_columns, runs_column
from .text import NOTHING, number

Row = Mapping[str, Any]

TEST = "test"
MEASURED, TOY, NOT_RUN, NOT_IN_TEXT = "measured here", "toy only", "not run", "not in the text"

MEANINGS = {
    MEASURED: "at full scale, with the options of study.yaml.",
    TOY: "of tiny networks on rendered scenes; no statement about the paper.",
    NOT_RUN: "no run of this cell is finished, or this study leaves it out.",
}
"""Status of a cell -> what it means."""

SCORES = {"mean_iou": "mIoU", "pixel_accuracy": "Pixel accuracy"}


def paper_numbers(results: StudyResults) -> dict[str, Any]:
    """The source of the numbers of a paper, what it does not say, and a row for each cell; nothing without cells."""
    paper = results.study.get("paper") or {}
    if not paper.get("cells"):
        return {}
    rows = [_row(results, cell) for cell in paper["cells"]]
    return {"paper": {"source": paper["source"], "not_in_text": paper["not_in_text"], "cells": rows}}


def _row(results: StudyResults, cell: Row) -> dict[str, Any]:
    setting = Setting(**{part.name: cell[part.name] for part in fields(Setting)})
    init = cell["initialisation"]
    runs = results.used_runs([init], setting)
    images = cell.get("images", TEST)
    counts = _counts(results, init, setting, images)
    status = NOT_RUN
    if counts is not None:
        status = MEASURED if results.study["scale"] == FULL_SCALE else TOY
    row: dict[str, Any] = {**asdict(setting), "initialisation": init, "status": status, "runs": len(runs)}
    row |= {"images": images, "records": keys_of(results.used_records([init], setting))}
    for name, of in (("mean_iou", mean_iou), ("pixel_accuracy", pixel_accuracy)):
        row[name] = _score(None if counts is None else 100 * of(counts), cell[name])
    return row


def _counts(results: StudyResults, init: str, setting: Setting, images: str) -> np.ndarray | None:
    """One matrix of all images for each used run, `(runs, K, K)`; None without a finished run that has one."""
    runs = results.used_runs([init], setting)
    if images == TEST:
        found = results.initialisation_results(init, setting, runs=runs)
        return None if found is None else found.confusion.sum(2).reshape(-1, *found.confusion.shape[3:])
    finished = results.runs(init, setting)
    found = [[record.counts("training_images").get(TRAINED_ON) for record in finished[run]] for run in runs]
    if not found or any(counts is None for folds in found for counts in folds):
        return None
    return np.stack([sum(counts.confusion.sum(0) for counts in folds) for folds in found])


def pixel_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of the labelled pixels that are predicted correctly, `(...)`, of a stack of matrices `(..., K, K)`."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))


def _score(here: np.ndarray | None, paper: float | None) -> dict[str, float | None]:
    """A score in points: mean and standard deviation over runs, the number of the paper, and ours minus this."""
    mean = None if here is None else float(here.mean())
    return {
        "mean": mean,
        "sd": None if here is None or len(here) < 2 else float(here.std(ddof=1)),
        "paper": paper,
        "difference": None if mean is None or paper is None else mean - paper,
    }


def paper_table(numbers: Row) -> Table:
    """A row for each number of the paper."""
    rows: Sequence[Row] = numbers["paper"]["cells"] if "paper" in numbers else ()
    shown = [name for name in SCORES if any(row[name]["paper"] is not None for row in rows)] or list(SCORES)[:1]
    # A cell may be of a number of labels that this study does not have.
    places = {**numbers, "settings": [{part: row[part] for part in PLACE} for row in rows]}
    notes = [f"{status.capitalize()}: {text}" for status, text in MEANINGS.items() if _has(rows, status)]
    return Table(
        caption(places, "Scores in points beside those of the paper"),
        (
            *place_columns(places),
            *([Column("Images", "images", str, words=True)] if any(row["images"] != TEST for row in rows) else ()),
            *(column for name in shown for column in _columns(name)),
            runs_column(numbers, "Runs"),
            Column("Status", "status", str, words=True),
        ),
        rows,
        (
            "Here: mean over runs of the score on all images, with the standard deviation over runs. Difference: here "
            "minus paper.",
            *notes,
        ),
    )


def _has(rows: Sequence[Row], status: str) -> bool:
    return any(row["status"] == status for row in rows)


def _columns(name: str) -> tuple[Column, ...]:
    return (
        Column(f"{SCORES[name]} here", name, _here),
        Column(f"{SCORES[name]} in the paper", (name, "paper"), _of_paper),
        Column("Difference", (name, "difference"), _difference),
    )


def _here(score: Row) -> str:
    sd = "" if score["sd"] is None else f" \N{PLUS-MINUS SIGN} {number(score['sd'], 2)}"
    return number(score["mean"], 2) + sd


def _of_paper(value: float | None) -> str:
    return NOT_IN_TEXT if value is None else number(value, 2)


def _difference(value: float | None) -> str:
    return NOTHING if value is None else ("+" if value >= 0 else "") + number(value, 2)
