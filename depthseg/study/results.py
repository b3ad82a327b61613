"""The results of a study so far, from its records."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..reading import free_value, read_yaml
from .cells import CELLS
from .runner import PLAN_FILE, STUDY_FILE
from .statistics import ArmResults
from .stored import CellRecord, Run, check_fields, read_records

STUDY_FIELDS = ("name", "arms", "modes", "architectures", "benchmarks", "seeds", "rates", "reference_arm")


@dataclass(frozen=True)
class Setting:
    """The options that the arms of one comparison have in common."""

    architecture: str
    mode: str
    benchmark: str
    budget: int

    def __str__(self) -> str:
        labels = f"{self.budget} label{'' if self.budget == 1 else 's'}"
        return f"{self.architecture}, {self.mode}, {self.benchmark}, {labels}"


@dataclass(frozen=True, eq=False)
class StudyResults:
    """All records of a study.

    Args:
        out: Run directory of the study.
        study: The resolved `study.yaml`.
        records: Records of the study's arms.
        strangers: A sentence for each record that does not belong to `study.yaml`.
    """

    out: Path
    study: Mapping[str, Any]
    records: Sequence[CellRecord]
    strangers: Sequence[str] = ()
    _index: dict[tuple, dict[Run, dict[str, CellRecord]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for record in self.records:
            if record["kind"] == "finetune":
                self._add(record)

    @property
    def arms(self) -> Mapping[str, Mapping[str, Any]]:
        """The arms in the order of display."""
        return self.study["arms"]

    @property
    def settings(self) -> list[Setting]:
        """Architecture x mode x benchmark x budget, in the order of `study.yaml`."""
        study = self.study
        return [
            Setting(architecture, mode, name, budget)
            for architecture, mode in itertools.product(study["architectures"], study["modes"])
            for name, benchmark in study["benchmarks"].items()
            for budget in benchmark["budgets"]
        ]

    def folds(self, setting: Setting) -> list[str]:
        """The folds of a benchmark, in order."""
        return list(self.study["benchmarks"][setting.benchmark]["folds"])

    @property
    def planned_runs(self) -> list[Run]:
        """Seeds of every arm in every setting."""
        seeds = self.study["seeds"]
        return list(itertools.product(range(seeds["pretrain"]), range(seeds["finetune"])))

    def start(self, arm: str) -> str:
        """The initialisation of an arm: `seeds`, `checkpoint` or `none`, as in `ArmResults`."""
        entry = self.arms[arm]
        return "seeds" if entry.get("pretrain") else "checkpoint" if entry.get("checkpoint") else "none"

    def runs(self, arm: str, setting: Setting, role: str = "main") -> dict[Run, list[CellRecord]]:
        """Finished runs, each with the records of all folds in order; a run that lacks a fold is not finished.

        Args:
            arm: Its id.
            setting: The setting.
            role: `main` or `fixed`; a main run at the study's fixed rate counts as both.
        """
        found = dict(self._index.get((arm, setting, role), {}))
        if role == "fixed":
            fixed = self.study["rates"].get("fixed")
            for run, folds in self._index.get((arm, setting, "main"), {}).items():
                same = {fold: record for fold, record in folds.items() if record["lr"] == fixed}
                found[run] = same | found.get(run, {})
        order = self.folds(setting)
        return {
            run: [folds[fold] for fold in order] for run, folds in sorted(found.items()) if set(folds) >= set(order)
        }

    def used_runs(self, arms: Sequence[str], setting: Setting, role: str = "main") -> list[Run]:
        """The runs that all these arms have finished, with the same number under each pre-training seed.

        If some are missing, the largest such subset is used; of equal ones the one with more pre-training seeds. If
        no arm has a pre-training, all common runs are used.
        """
        common = set.intersection(*(set(self.runs(arm, setting, role)) for arm in arms))
        if all(self.start(arm) != "seeds" for arm in arms):
            return sorted(common)
        return _largest_rectangle(common)

    def arm_results(
        self, arm: str, setting: Setting, role: str = "main", runs: Sequence[Run] | None = None
    ) -> ArmResults | None:
        """Confusion matrices of an arm, with the test images of all folds concatenated.

        Args:
            arm: Its id.
            setting: The setting.
            role: `main` or `fixed`.
            runs: Finished runs to use, see `used_runs`; None = as many as possible.

        Returns:
            None if no run is finished.

        Raises:
            ValueError: An npz file cannot be read, or two runs were evaluated on different images.
        """
        runs = self.used_runs([arm], setting, role) if runs is None else runs
        if not runs:
            return None
        finished = self.runs(arm, setting, role)
        _check_same_names([finished[run] for run in runs])
        confusion = np.stack([np.concatenate([part.arrays["confusion"] for part in finished[run]]) for run in runs])
        start = self.start(arm)
        outer = len({run[0] for run in runs}) if start == "seeds" else 1
        shape = (outer, len(runs) // outer, *confusion.shape[1:])
        blocks = _blocks(finished[runs[0]])
        return ArmResults(confusion.reshape(shape), blocks, start, str(self.arms[arm].get("title") or arm))

    def curves(self, arm: str, setting: Setting, role: str = "main") -> list[list[Mapping[str, float]]]:
        """Curves of the used runs, one per record; a run that was evaluated only at its end has none."""
        return [curve for record in self.used_records([arm], setting, role) if len(curve := record["curve"]) > 1]

    def measures(self, arm: str, setting: Setting, role: str = "main") -> list[Mapping[str, Any]]:
        """Measures of the used runs, one per record."""
        return [record["measures"] for record in self.used_records([arm], setting, role)]

    def used_records(self, arms: Sequence[str], setting: Setting, role: str = "main") -> list[CellRecord]:
        """Records of the used runs of these arms, arm by arm."""
        runs = self.used_runs(arms, setting, role)
        return [record for arm in arms for run in runs for record in self.runs(arm, setting, role)[run]]

    def missing(self, arm: str, setting: Setting, role: str = "main") -> list[Run]:
        """Planned runs that are not finished; for `fixed` only those whose main run is finished at another rate."""
        planned = self.planned_runs
        if role == "fixed":
            planned = [run for run in planned if run in self.runs(arm, setting)]
        finished = self.runs(arm, setting, role)
        return [run for run in planned if run not in finished]

    def pretraining(self, arm: str) -> list[CellRecord]:
        """Pre-training cells of an arm, by seed."""
        found = (record for record in self.records if record["kind"] == "pretrain" and record["arm"] == arm)
        return sorted(found, key=lambda record: record["pretrain_seed"])

    def rate_records(self, arm: str, setting: Setting) -> dict[float, list[CellRecord]]:
        """Records of the learning-rate selection, by rate."""
        found: dict[float, list[CellRecord]] = {}
        for record in self.records:
            place = [record[name] for name in ("arm", "architecture", "mode")] if is_rate(record) else None
            if place == [arm, setting.architecture, setting.mode]:
                found.setdefault(record["lr"], []).append(record)
        return dict(sorted(found.items()))

    def rate_table(self, arm: str, setting: Setting) -> dict[float, list[float]]:
        """Rate -> mean IoU on validation images of each seed, mean over folds; 0 for a run that diverged."""
        table: dict[float, list[float]] = {}
        for rate, records in self.rate_records(arm, setting).items():
            seeds: dict[Run, list[float]] = {}
            for record in records:
                score = record["scores"].get("mean_iou")
                finite = score is not None and math.isfinite(score)
                seeds.setdefault(record.run, []).append(score if finite else 0.0)
            table[rate] = [sum(scores) / len(scores) for scores in seeds.values()]
        return table

    def _add(self, record: CellRecord) -> None:
        place = (record["arm"], _setting_of(record), record["role"])
        if record["role"] == "rate":
            return
        folds = self._index.setdefault(place, {}).setdefault(record.run, {})
        if record["fold"] in folds:
            raise ValueError(
                f"{folds[record['fold']].path} and {record.path} are records of the same run ({record['arm']}, "
                f"{_setting_of(record)}, seeds {record.run}, fold {record['fold']}). Remove the older one."
            )
        folds[record["fold"]] = record


def load_results(out: str | Path) -> StudyResults:
    """Read the run directory of a study, finished or not.

    Raises:
        FileNotFoundError: There is no `study.yaml`.
        ValueError: A file cannot be read, lacks fields, or two records belong to the same run.
    """
    out = Path(out)
    path = out / STUDY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}; give the run directory of a study.")
    study = free_value(read_yaml(path))
    check_fields(path, study, STUDY_FIELDS)
    records, strangers = [], []
    planned = planned_keys(out)
    for record in read_records(out / CELLS):
        stranger = _stranger(record, study, planned)
        if stranger is None:
            records.append(record)
        else:
            strangers.append(f"{CELLS}/{record.path.name} is not used: {stranger}.")
    return StudyResults(out, study, records, strangers)


def planned_keys(out: Path) -> Collection[str] | None:
    """Keys of the cells of the study as last run; None if it was never run to completion."""
    path = out / PLAN_FILE
    return set(json.loads(path.read_text(encoding="utf-8"))["keys"]) if path.is_file() else None


def is_rate(record: CellRecord) -> bool:
    """Whether a record belongs to the learning-rate selection."""
    return record["kind"] == "finetune" and record["role"] == "rate"


def _stranger(record: CellRecord, study: Mapping[str, Any], planned: Collection[str] | None) -> str | None:
    """Why a record does not belong to the study."""
    owners = {"arm": "arms"}
    if record["kind"] == "finetune":
        owners |= {"architecture": "architectures", "mode": "modes"} | ({} if is_rate(record) else _BENCHMARK)
    for name, owner in owners.items():
        if record[name] not in study[owner]:
            return f"study.yaml has no {name} {record[name]!r}"
    if planned is not None and record["key"] not in planned:
        return "its options differ from those of study.yaml"
    return None


_BENCHMARK = {"benchmark": "benchmarks"}


def _blocks(records: Sequence[CellRecord]) -> np.ndarray:
    """Blocks of the test images of all folds, concatenated; no block spans two folds."""
    labels = [
        f"{record['fold']}/{block}" if len(records) > 1 else str(block)
        for record in records
        for block in record.arrays["blocks"]
    ]
    return np.array(labels)


def _setting_of(record: CellRecord) -> Setting:
    return Setting(record["architecture"], record["mode"], record["benchmark"], record["budget"])


def _largest_rectangle(runs: Collection[Run]) -> list[Run]:
    under: dict[int, set[int]] = {}
    for outer, inner in runs:
        under.setdefault(outer, set()).add(inner)
    best: list[Run] = []
    for size in range(len(under), 0, -1):
        for chosen in itertools.combinations(sorted(under), size):
            inner = set.intersection(*(under[outer] for outer in chosen))
            if size * len(inner) > len(best):
                best = sorted(itertools.product(chosen, inner))
    return best


def _check_same_names(runs: Sequence[Sequence[CellRecord]]) -> None:
    for records in runs[1:]:
        for first, other in zip(runs[0], records, strict=True):
            if not np.array_equal(first.arrays["names"], other.arrays["names"]):
                raise ValueError(
                    f"{first.path} and {other.path} are runs of one arm, but were evaluated on different images or in "
                    "a different order. Remove the older one."
                )
