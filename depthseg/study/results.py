"""The results of a study so far, from its records."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..metrics.stamp import check_same_stamps
from .defects.matrix import switches_of
from .options import read_stored_study
from .places import PLACE, given_rate, in_cells, origin_of, settings_of
from .runner import PLAN_FILE
from .statistics import InitialisationResults, plural
from .stored import STUDY_FILE, Run, TrialRecord, check_fields, planned_runs, read_records, trials_folder

STUDY_FIELDS = ("name", "initialisations", "modes", "architectures", "benchmarks", "seeds", "rates", "reference")


@dataclass(frozen=True)
class Setting:
    """The options that the initialisations of one comparison have in common."""

    architecture: str
    mode: str
    benchmark: str
    num_labelled: int

    def __str__(self) -> str:
        return f"{self.architecture}, {self.mode}, {self.benchmark}, {plural(self.num_labelled, 'label')}"


@dataclass(frozen=True, eq=False)
class StudyResults:
    """All records of a study.

    Args:
        out: Output directory of the study.
        study: The resolved `study.yaml`.
        records: Records of the study's initialisations.
        unused: A sentence for each record that does not belong to `study.yaml`.
    """

    out: Path
    study: Mapping[str, Any]
    records: Sequence[TrialRecord]
    unused: Sequence[str] = ()
    _index: dict[tuple, dict[Run, dict[str, TrialRecord]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for record in self.records:
            if record["kind"] != "finetune" or is_rate(record):
                continue
            place = (record["initialisation"], Setting(**{part: record[part] for part in PLACE}), record["role"])
            folds = self._index.setdefault(place, {}).setdefault(record.run, {})
            other = folds.setdefault(record["fold"], record)
            if other is not record:
                raise ValueError(
                    f"{other.path} and {record.path} are records of the same trial (initialisation {place[0]}, "
                    f"{place[1]}, seeds {record.run}, fold {record['fold']}). Remove the older one."
                )

    @property
    def initialisations(self) -> Mapping[str, Mapping[str, Any]]:
        """The initialisations in the order of display."""
        return self.study["initialisations"]

    @property
    def cells(self) -> Sequence[Mapping[str, Any]]:
        """The cells that are run; empty = all. An earlier version had none."""
        return self.study.get("cells") or ()

    @property
    def settings(self) -> list[Setting]:
        """Architecture x mode x benchmark x number of labelled images, in the order of `study.yaml`."""
        return [Setting(**place) for place in settings_of(self.study)]

    @property
    def planned_runs(self) -> list[Run]:
        """Seeds of every initialisation in every setting."""
        return planned_runs(**self.study["seeds"])

    @property
    def has_draws(self) -> bool:
        """Whether all initialisations are fine-tuned with the same draws of the labelled images."""
        return bool(self.study["seeds"].get("draws"))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs (a, b) that are compared, each once: those with the reference, listed ones and those of claims."""
        reference = self.study["reference"]
        listed = [tuple(pair) for pair in self.study.get("comparisons") or []]
        claimed = [(claim["better"], claim["than"]) for claim in self.study.get("claims") or []]
        found: dict[frozenset[str], tuple[str, str]] = {}
        for pair in (*((init, reference) for init in self.initialisations if init != reference), *listed, *claimed):
            found.setdefault(frozenset(pair), pair)
        return list(found.values())

    def origin(self, init: str) -> str:
        """The origin of the weights: `seeds`, `checkpoint` or `none`, as in `InitialisationResults`."""
        return origin_of(self.initialisations, init)

    def runs(self, init: str, setting: Setting, role: str = "main") -> dict[Run, list[TrialRecord]]:
        """Finished runs, each with the records of all folds in order; a run that lacks a fold is not finished.

        The role is `main` or `fixed`; a main run at the study's fixed rate counts as both.
        """
        found = dict(self._index.get((init, setting, role), {}))
        if role == "fixed":
            fixed = self.study["rates"].get("fixed")
            for run, folds in self._index.get((init, setting, "main"), {}).items():
                same = {fold: record for fold, record in folds.items() if record["lr"] == fixed}
                found[run] = same | found.get(run, {})
        order = self.study["benchmarks"][setting.benchmark]["folds"]
        return {
            run: [folds[fold] for fold in order] for run, folds in sorted(found.items()) if set(folds) >= set(order)
        }

    def used_runs(self, inits: Sequence[str], setting: Setting, role: str = "main") -> list[Run]:
        """The runs that all these initialisations have finished, with the same number under each pre-training seed.

        If some are missing, the largest such subset is used; of equal ones the one with more pre-training seeds. If
        no initialisation has a pre-training, or the study has draws, all common runs are used.
        """
        common = set.intersection(*(set(self.runs(init, setting, role)) for init in inits))
        if self.has_draws or all(self.origin(init) != "seeds" for init in inits):
            return sorted(common)
        return _largest_rectangle(common)

    def initialisation_results(
        self, init: str, setting: Setting, role: str = "main", runs: Sequence[Run] | None = None
    ) -> InitialisationResults | None:
        """Confusion matrices of an initialisation, with the test images of all folds concatenated; None without runs.

        The runs are the given finished ones, see `used_runs`, or as many as possible.

        Raises:
            ValueError: An npz file cannot be read, or two runs were evaluated on different images.
        """
        runs = self.used_runs([init], setting, role) if runs is None else runs
        if not runs:
            return None
        finished = self.runs(init, setting, role)
        _check_same_names([finished[run] for run in runs])
        confusion = np.stack([np.concatenate([part.arrays["confusion"] for part in finished[run]]) for run in runs])
        origin = self.origin(init)
        outer = len({run[0] for run in runs}) if origin == "seeds" and not self.has_draws else 1
        shape = (outer, len(runs) // outer, *confusion.shape[1:])
        blocks = _blocks(finished[runs[0]])
        title = str(self.initialisations[init].get("title") or init)
        draws = runs if self.has_draws else ()
        return InitialisationResults(confusion.reshape(shape), blocks, origin, title, draws)

    def curves(self, init: str, setting: Setting, role: str = "main") -> list[list[Mapping[str, float]]]:
        """Curves of the used runs, one per record; a run that was evaluated only at its end has none."""
        return [curve for record in self.used_records([init], setting, role) if len(curve := record["curve"]) > 1]

    def used_records(self, inits: Sequence[str], setting: Setting, role: str = "main") -> list[TrialRecord]:
        """Records of the used runs of these initialisations, initialisation by initialisation."""
        runs = self.used_runs(inits, setting, role)
        return [record for init in inits for run in runs for record in self.runs(init, setting, role)[run]]

    def missing(self, init: str, setting: Setting, role: str = "main") -> list[Run]:
        """Planned runs that are not finished; for `fixed` only those whose main run is finished at another rate."""
        planned = self.planned_runs
        if not in_cells(self.cells, initialisation=init, **asdict(setting)):
            return []
        if role == "fixed":
            if self.study["rates"].get("fixed") is None or self.given_rate(init, setting):
                return []
            planned = [run for run in planned if run in self.runs(init, setting)]
        finished = self.runs(init, setting, role)
        return [run for run in planned if run not in finished]

    def given_rate(self, init: str, setting: Setting) -> float | None:
        """The learning rate that the study gives for a cell; None = it is chosen, or the fixed one."""
        rates = self.study["rates"].get("given") or ()
        return given_rate(rates, setting.architecture, init, setting.mode)

    def pretraining(self, init: str) -> list[TrialRecord]:
        """Pre-training trials of an initialisation, by seed."""
        found = [r for r in self.records if (r["kind"], r["initialisation"]) == ("pretrain", init)]
        return sorted(found, key=lambda record: record["pretrain_seed"])

    def rate_records(self, init: str, setting: Setting) -> dict[float, list[TrialRecord]]:
        """Records of the learning-rate selection, by rate."""
        found: dict[float, list[TrialRecord]] = {}
        for record in self.records:
            place = [record[name] for name in ("initialisation", "architecture", "mode")] if is_rate(record) else None
            if place == [init, setting.architecture, setting.mode]:
                found.setdefault(record["lr"], []).append(record)
        return dict(sorted(found.items()))

    def rate_table(self, init: str, setting: Setting) -> dict[float, list[float]]:
        """Rate -> mean IoU on validation images of each seed, mean over folds; 0 for a run that diverged."""
        table: dict[float, list[float]] = {}
        for rate, records in self.rate_records(init, setting).items():
            seeds: dict[Run, list[float]] = {}
            for record in records:
                score = record["scores"].get("mean_iou")
                finite = score is not None and math.isfinite(score)
                seeds.setdefault(record.run, []).append(score if finite else 0.0)
            table[rate] = [sum(scores) / len(scores) for scores in seeds.values()]
        return table


def read_study(out: Path) -> dict[str, Any]:
    """The options in the output directory of a study, under their present names.

    Raises:
        FileNotFoundError: There is no `study.yaml`.
        ValueError: It lacks options.
    """
    path = out / STUDY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}; give the output directory of a study.")
    study = read_stored_study(path)
    check_fields(path, study, STUDY_FIELDS)
    return study


def planned_keys(out: Path) -> set[str] | None:
    """The keys of the trials of a study that was run to completion; None before."""
    path = out / PLAN_FILE
    return set(json.loads(path.read_text(encoding="utf-8"))["keys"]) if path.is_file() else None


def load_results(out: str | Path) -> StudyResults:
    """Read the output directory of a study, finished or not, of this version or an earlier one.

    Raises:
        FileNotFoundError: There is no `study.yaml`.
        ValueError: A file cannot be read, lacks fields, or two records belong to the same run.
    """
    out = Path(out)
    study, records, unused, planned = read_study(out), [], [], planned_keys(out)
    for record in read_records(trials_folder(out)):
        if switches_of(record.content):
            continue  # `depthseg.study.defects.prices` reads these
        reason = _reason_against(record, study, planned)
        if reason is None:
            records.append(record)
        else:
            unused.append(f"{record.path.parent.name}/{record.path.name} is not used: {reason}.")
    _check_stamps(records)
    return StudyResults(out, study, records, unused)


def _check_stamps(records: Sequence[TrialRecord]) -> None:
    """Refuse fine-tunings of one benchmark whose scores were computed in different ways: they would be ranked."""
    by_benchmark: dict[str, dict[str, Any]] = {}
    for record in records:
        if record["kind"] == "finetune":
            place = "the selection of rates" if is_rate(record) else record["benchmark"]
            by_benchmark.setdefault(place, {})[str(record.path)] = record["scores"].get("stamp")
    for stamps in by_benchmark.values():
        check_same_stamps(stamps)


def is_rate(record: TrialRecord) -> bool:
    """Whether a record belongs to the learning-rate selection."""
    return record["kind"] == "finetune" and record["role"] == "rate"


def _reason_against(record: TrialRecord, study: Mapping[str, Any], planned: Collection[str] | None) -> str | None:
    """Why a record does not belong to the study, whose planned keys are known if it was run to completion."""
    names = ["initialisation"]
    if record["kind"] == "finetune":
        names += ["architecture", "mode"] if is_rate(record) else ["architecture", "mode", "benchmark"]
    for name in names:
        if record[name] not in study[f"{name}s"]:
            return f"study.yaml has no {name} {record[name]!r}"
    if planned is not None and record["key"] not in planned:
        return "its options differ from those of study.yaml"
    return None


def _blocks(records: Sequence[TrialRecord]) -> np.ndarray:
    """Blocks of the test images of all folds, concatenated; no block spans two folds."""
    several = len(records) > 1
    return np.array([f"{r['fold']}/{b}" if several else str(b) for r in records for b in r.arrays["blocks"]])


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


def _check_same_names(runs: Sequence[Sequence[TrialRecord]]) -> None:
    for records in runs[1:]:
        for first, other in zip(runs[0], records, strict=True):
            if not np.array_equal(first.arrays["names"], other.arrays["names"]):
                raise ValueError(
                    f"{first.path} and {other.path} are trials of one initialisation, but were evaluated on different "
                    "images or in a different order. Remove the older one."
                )
