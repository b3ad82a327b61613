"""Running a study: a trial with a record is never run again, so a study can be interrupted and resumed at any time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..engine.atomic import atomic_path
from ..engine.records import write_json
from ..engine.stopping import Stopped, StopRequest
from ..metrics.stamp import check_same_stamps
from ..reading import write_yaml
from .defects.matrix import defect_trials
from .matrix import Trial, main_trials, pretraining_trials, rate_trials, shard_of
from .miniatures import prepare_data
from .options import StudyOptions
from .statistics import select_rate
from .stored import STUDY_FILE, read_record, record_path, require_present_keys
from .trials import has_weights, repeat_pretraining, run_trial

logger = logging.getLogger(__name__)

PLAN_FILE = "plan.json"


def run_study(study: StudyOptions, out: Path, shard: tuple[int, int] = (1, 1)) -> None:
    """Run all trials that have no record yet, of a shard: its number, from 1, and that of all.

    Several shards can run in one directory at the same time. If the directory contains records but no weights, such
    as in another checkout, a pre-training is repeated when a fine-tuning without a record requires its weights.

    Raises:
        Stopped: The study was stopped by SIGTERM, SIGUSR1 or Ctrl-C; the finished trials are saved.
        ValueError: There is no such shard, or the directory has records of an earlier version.
    """
    require_present_keys(out)
    prepare_data(study)
    mine = shard_of(study, *shard)
    save_study(study, out)
    trials: dict[str, Trial] = {}
    with StopRequest("The study stops after this trial at the latest") as stop:
        for trial in trials_in_order(study, out):
            trials[trial.key] = trial
            if (trial.labels["architecture"], trial.labels["initialisation"]) not in mine:
                continue
            if not record_path(out, trial.key).is_file():
                _ensure_weights(trials, trial, out)
                logger.info("trial %s: %s", trial.key, describe(trial))
                run_trial(study, trial, out)
            if stop.received:
                # The signal came after training, so no run handled it.
                sentence = f"Stopped after trial {trial.key}, which is finished; the same command resumes."
                logger.warning("%s", sentence)
                raise Stopped(sentence)
    # Other shards have chosen rates in the meantime.
    write_json(out / PLAN_FILE, {"keys": [trial.key for trial in trials_in_order(study, out)]})


def _ensure_weights(trials: Mapping[str, Trial], trial: Trial, out: Path) -> None:
    """Repeat the pre-trainings that a trial depends on and whose weights are missing."""
    if trial.parent is None or has_weights(out, trial.parent):
        return
    parent = trials[trial.parent]
    _ensure_weights(trials, parent, out)
    logger.info("trial %s: repeated because its weights are missing: %s", parent.key, describe(parent))
    repeat_pretraining(parent, out)


def save_study(study: StudyOptions, out: Path) -> None:
    """Save the options. Trials of an earlier version of the study are kept but not used."""
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / STUDY_FILE) as temporary:
        write_yaml(temporary, study.to_dict())


def trials_in_order(study: StudyOptions, out: Path) -> Iterator[Trial]:
    """Every trial, after those it depends on, by pre-training seed: an interrupted study is a smaller study.

    Learning rates are chosen when the runs of their selection are finished; until then the fixed rate is used. Trials
    with switches come last.
    """
    pretraining = pretraining_trials(study)
    pretrained = keys_of(pretraining)
    choosing = rate_trials(study, pretrained)
    for seed in range(study.seeds.pretrain):
        yield from (trial for trial in pretraining if trial.labels["pretrain_seed"] == seed)
        if seed == 0:
            yield from choosing
            main = main_trials(study, pretrained, chosen_rates(choosing, out))
        yield from (trial for trial in main if trial.labels["pretrain_seed"] == seed)
    yield from defect_trials(study, pretraining, main)


def keys_of(trials: Iterable[Trial]) -> dict[tuple[str, str, int], str]:
    """Architecture, initialisation and seed -> key, of pre-trainings."""
    return {(c.labels["architecture"], c.labels["initialisation"], c.labels["pretrain_seed"]): c.key for c in trials}


def chosen_rates(trials: Iterable[Trial], out: Path) -> dict[tuple[str, str, str], float]:
    """The best rate of each architecture, initialisation and mode whose runs, of `rate_trials`, are all finished."""
    scores: dict[tuple[str, str, str], dict[float, list[float]]] = {}
    stamps: dict[str, Any] = {}
    unfinished = set()
    for trial in trials:
        place = trial.labels["architecture"], trial.labels["initialisation"], trial.labels["mode"]
        path = record_path(out, trial.key)
        if path.is_file():
            found = read_record(path)["scores"]
            stamps[trial.key] = found.get("stamp")
            scores.setdefault(place, {}).setdefault(trial.labels["lr"], []).append(found["mean_iou"])
        else:
            unfinished.add(place)
    check_same_stamps(stamps)
    return {place: select_rate(table).rate for place, table in scores.items() if place not in unfinished}


def describe(trial: Trial) -> str:
    """A trial in words, for the log."""
    labels = ", ".join(f"{name} {value}" for name, value in trial.labels.items())
    return f"{trial.kind}, {labels}, {trial.config.schedule.steps} steps"
