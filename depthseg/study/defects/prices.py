"""What each defect is worth: the change of the mean IoU, paired over draws, and of the order of initialisations."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from ..comparison import interval_over_draws
from ..matrix import main_trials, pretraining_trials
from ..options import StudyOptions
from ..places import PLACE
from ..runner import keys_of
from ..stored import Run, TrialRecord
from .matrix import switches_of
from .scoring import PLAIN, scoring_name
from .switches import ALL, ROWS, Switched, applicable, is_alone, settings_of

Place = tuple[str, str, str, int]
"""Architecture, mode, benchmark and number of labelled images."""


@dataclass
class Cell:
    """One initialisation in one place: what is planned of it, and its finished runs.

    Attributes:
        combined: The switches that apply.
        runs: Planned runs -> their folds.
        found: Switches as text -> run -> fold -> record.
    """

    combined: Switched = field(default_factory=dict)
    runs: dict[Run, set[str]] = field(default_factory=dict)
    found: dict[str, dict[Run, dict[str, TrialRecord]]] = field(default_factory=dict)

    def scores(self, switch: str | None, as_reported: bool) -> dict[Run, float]:
        """Mean IoU in points of each finished run, mean over folds.

        Args:
            switch: A switch, `ALL`, or None for the runs without.
            as_reported: As the released code would have scored it; False = as without switches.
        """
        chosen = {} if switch is None else settings_of(switch, self.combined)
        trained = {} if set(_stages(chosen)) <= {"score"} else chosen
        name = scoring_name(chosen) if as_reported else ""
        scores = {}
        for run, folds in self.found.get(_text(trained), {}).items():
            values = [_mean_iou(record, name) for record in folds.values()]
            if run in self.runs and folds.keys() >= self.runs[run] and None not in values:
                scores[run] = 100 * math.fsum(values) / len(values)
        return scores


def prices(study: StudyOptions, records: Sequence[TrialRecord]) -> dict[str, Any]:
    """All numbers of the price list, as plain dictionaries and lists.

    Args:
        study: The study.
        records: Its records, those with switches and those without; there may be none yet.

    Raises:
        ValueError: Two records are of the same trial.
    """
    cells = _planned(study)
    for record in records:
        if record["kind"] == "finetune" and record["role"] == "main":
            _add(cells, record)
    places = dict.fromkeys(place for place, _ in cells)
    shown = [row for row in ROWS if row.name in study.defects]
    return {
        "name": study.name,
        "scale": study.scale,
        "initialisations": {name: init.title or name for name, init in study.initialisations.items()},
        "switches": [{"switch": row.name, "defect": row.defect, "correct": row.correct} for row in shown],
        "settings": [
            dict(zip(PLACE, place, strict=True)) | _priced(study, place[1], _cells_at(cells, place))
            for place in places
        ],
    }


def _planned(study: StudyOptions) -> dict[tuple[Place, str], Cell]:
    parents = {trial.key: trial for trial in pretraining_trials(study)}
    cells: dict[tuple[Place, str], Cell] = {}
    for trial in main_trials(study, keys_of(parents.values()), {}):
        labels = trial.labels
        if labels["role"] != "main":
            continue
        init, parent = labels["initialisation"], parents.get(trial.parent)
        cell = cells.setdefault((_place(labels), init), Cell())
        cell.combined = applicable(study, init, trial.config, None if parent is None else parent.config)
        cell.runs.setdefault(_run(labels), set()).add(labels["fold"])
    return cells


def _place(labels: Mapping[str, Any]) -> Place:
    return tuple(labels[name] for name in PLACE)


def _run(labels: Mapping[str, Any]) -> Run:
    return labels["pretrain_seed"], labels["finetune_seed"]


def _text(switched: Switched) -> str:
    return json.dumps(switched, sort_keys=True)


def _stages(switched: Switched) -> Iterator[str]:
    return (row.stage for row in ROWS if row.name in switched)


def _add(cells: dict[tuple[Place, str], Cell], record: TrialRecord) -> None:
    cell = cells.get((_place(record.content), record["initialisation"]))
    if cell is None:
        return
    folds = cell.found.setdefault(_text(switches_of(record.content)), {}).setdefault(record.run, {})
    other = folds.setdefault(record["fold"], record)
    if other is not record:
        raise ValueError(
            f"{other.path} and {record.path} are records of the same trial, with the same switches. Remove the older "
            "one."
        )


def _mean_iou(record: TrialRecord, name: str) -> float | None:
    """Mean IoU of a run by a scorer of the released code, or by that of depthseg; None if it was not computed."""
    reported = record.content.get("reported", {})
    if name:
        return reported.get(name, {}).get("mean_iou")
    return reported.get(PLAIN, record["scores"]).get("mean_iou")


def _cells_at(cells: Mapping[tuple[Place, str], Cell], place: Place) -> dict[str, Cell]:
    return {init: cell for (where, init), cell in cells.items() if where == place}


def _priced(study: StudyOptions, mode: str, cells: Mapping[str, Cell]) -> dict[str, Any]:
    """The numbers of one place."""
    bases = {init: cell.scores(None, False) for init, cell in cells.items()}
    combined = {name for cell in cells.values() for name in cell.combined}
    names = [row.name for row in ROWS if row.name in combined and is_alone(study, row.name, mode)]
    if len(combined) > 1:
        names.append(ALL)
    return {
        "base": {init: {"planned": len(cells[init].runs), **estimate(base)} for init, base in bases.items()},
        "rows": [
            {
                "switch": name,
                "cells": {init: _price(cell, name, bases[init]) for init, cell in cells.items()},
                "order": _order(cells, name, bases),
            }
            for name in names
        ],
    }


def _price(cell: Cell, name: str, base: Mapping[Run, float]) -> dict[str, Any]:
    """The change that a switch makes for one initialisation."""
    if not settings_of(name, cell.combined):
        return {"applies": False}
    reported, weights = (cell.scores(name, as_reported) for as_reported in (True, False))
    return {
        "applies": True,
        "planned": len(cell.runs),
        **estimate(_differences(reported, base)),
        "of_weights": estimate(_differences(weights, base)),
    }


def _differences(scores: Mapping[Run, float], base: Mapping[Run, float]) -> dict[Run, float]:
    return {run: score - base[run] for run, score in scores.items() if run in base}


def estimate(values: Mapping[Run, float]) -> dict[str, Any]:
    """Mean of one number of each draw, with the t interval of a mean.

    Returns:
        `runs`; `mean` and `spread` (smallest and largest), None without runs; `interval`, 95 %, None with fewer than
        six runs or where all are equal.
    """
    if not values:
        return {"runs": 0, "mean": None, "spread": None, "interval": None}
    mean, interval = interval_over_draws(values, pretrained=False)
    spread = [float(min(values.values())), float(max(values.values()))]
    return {"runs": len(values), "mean": mean, "spread": spread, "interval": interval and list(interval)}


def _order(cells: Mapping[str, Cell], name: str, bases: Mapping[str, Mapping[Run, float]]) -> dict[str, Any] | None:
    """The initialisations by their mean over common draws, without and with a switch; None without common draws.

    Those that the switch does not apply to keep their score.
    """
    applies = {init: bool(settings_of(name, cell.combined)) for init, cell in cells.items()}
    after = {init: cell.scores(name, True) if applies[init] else bases[init] for init, cell in cells.items()}
    runs = sorted(set.intersection(*(set(scores) for scores in (*bases.values(), *after.values()))))
    if not runs:
        return None
    means = [{init: float(np.mean([by[init][run] for run in runs])) for init in cells} for by in (bases, after)]
    before, now = (sorted(cells, key=lambda init, by=by: -by[init]) for by in means)
    return {
        "runs": len(runs),
        "before": before,
        "after": now,
        "swaps": list(_swaps(before, now, bases, after, runs)),
    }


def _swaps(
    before: Sequence[str],
    now: Sequence[str],
    bases: Mapping[str, Mapping[Run, float]],
    after: Mapping[str, Mapping[Run, float]],
    runs: Sequence[Run],
) -> Iterator[dict[str, Any]]:
    """Every pair whose order is the other one with the switch; decided if both intervals exclude no difference."""
    for better, worse in combinations(before, 2):
        if now.index(better) < now.index(worse):
            continue
        was, then = (estimate({run: by[better][run] - by[worse][run] for run in runs}) for by in (bases, after))
        decided = None not in (was["interval"], then["interval"]) and was["interval"][0] > 0 > then["interval"][1]
        yield {"better_before": better, "better_after": worse, "before": was, "after": then, "decided": decided}
