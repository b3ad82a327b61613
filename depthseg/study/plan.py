"""The remaining trials of a study and their estimated time, measured with a few steps of each stage."""

from __future__ import annotations

import logging
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers.utils import logging as transformers_logging

from ..data.subsets import evenly_spaced
from ..engine.build import build_datasets, source_of
from ..engine.config import RunConfig
from ..engine.decoded_cache import decoded_cache
from ..engine.run import train
from .defects.matrix import switches_of
from .defects.runs import run_arguments
from .matrix import Trial, shard_of
from .miniatures import prepare_data
from .options import StudyOptions
from .runner import trials_in_order
from .stored import record_path, require_present_keys
from .trials import baselines_of, examine, films_of, is_examined

logger = logging.getLogger(__name__)

STEPS, EVALUATE_AT = 12, 6
"""Measured steps per stage, and the step that an evaluation follows where a run has more than the one at its end."""

READ = 500
"""Most images of each split that are read beforehand; the time for more is estimated from these."""


@dataclass(frozen=True)
class Cost:
    """Time and memory of one trial on this machine.

    Attributes:
        step: Seconds per optimiser step.
        evaluation: Seconds per evaluation before the last step.
        rest: Seconds for everything else: set-up, the evaluation after the last step, and what is measured then.
        reading: Seconds to read all images once, before the first trial. If they were never read before, they are
            decoded; what was decoded is kept, see `data.cache`.
        memory: Peak memory of the process, GiB.
    """

    step: float
    evaluation: float
    rest: float
    reading: float
    memory: float

    def seconds(self, config: RunConfig) -> float:
        """Estimated time of a run."""
        steps, every = config.schedule.steps, config.run.eval_every
        evaluations = (steps - 1) // every if every else 0
        return self.step * steps + self.evaluation * evaluations + self.rest


@dataclass(frozen=True)
class PlanRow:
    """The trials of one stage.

    Attributes:
        what: The stage in words.
        trials: Number of trials.
        done: Number of trials with a record.
        cost: Time and memory of one trial.
        seconds: Estimated time of the remaining trials, with that of reading their images once.
    """

    what: str
    trials: int
    done: int
    cost: Cost
    seconds: float


def plan_study(
    study: StudyOptions, out: Path, shard: tuple[int, int] = (1, 1), costs: Mapping[str, Cost] | None = None
) -> list[PlanRow]:
    """Count the trials of a shard and estimate their time and memory from a few steps of each stage.

    Nothing is written to the output directory of the study; trials with a record there are done. The shard is its
    number, from 1, and that of all. Given costs, by stage, are not measured.

    Raises:
        ValueError: There is no such shard, or the directory has records of an earlier version.
    """
    require_present_keys(out)
    prepare_data(study)
    mine = shard_of(study, *shard)
    stages: dict[str, list[Trial]] = {}
    planned = list(trials_in_order(study, out))
    images = {(source_of(trial.config.data), *trial.config.data.size) for trial in planned if trial.kind == "finetune"}
    for trial in planned:
        if (trial.labels["architecture"], trial.labels["initialisation"]) in mine:
            stages.setdefault(stage_of(trial, len(images) > 1), []).append(trial)
    if costs is None:
        logger.info("%s has %d trials in %d stages", study.name, sum(map(len, stages.values())), len(stages))
    rows = []
    for what, trials in stages.items():
        left = [trial for trial in trials if not record_path(out, trial.key).is_file()]
        cost = Cost(0.0, 0.0, 0.0, 0.0, 0.0)
        if left and costs is not None:
            cost = costs[what]
        elif left:
            logger.info("measuring %d steps of one of %d remaining trials: %s", STEPS, len(left), what)
            cost = measure_cost(study, left[0])
        seconds = cost.reading + sum(cost.seconds(trial.config) for trial in left)
        rows.append(PlanRow(what, len(trials), len(trials) - len(left), cost, seconds))
    return rows


def stage_of(trial: Trial, by_benchmark: bool = False) -> str:
    """The stage of a trial; trials of one stage have the same cost.

    Each benchmark has a stage of its own where they have other data sets or image sizes (`by_benchmark`).
    """
    labels, switches = trial.labels, ", with switches" * bool(switches_of(trial.labels))
    if trial.kind == "pretrain":
        return f"pre-training, {labels['initialisation']}, {labels['architecture']}{switches}"
    role = "learning-rate selection" if labels["role"] == "rate" else "fine-tuning"
    benchmark = f", {labels['benchmark']}" if by_benchmark and labels["benchmark"] else ""
    return f"{role}, {labels['mode']}, {labels['architecture']}{benchmark}{switches}"


def measure_cost(study: StudyOptions, trial: Trial) -> Cost:
    """Train for a few steps in a process of its own, which ends with this one, to measure its memory alone."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                return pool.submit(_measure, study, trial).result()
            except BaseException:
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _measure(study: StudyOptions, trial: Trial) -> Cost:
    transformers_logging.disable_progress_bar()
    config, ends = trial.config, []
    reading = _read_images(config)
    if is_examined(trial):
        baselines_of(config.data)  # once for all initialisations
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    with tempfile.TemporaryDirectory() as folder:
        run = replace(config.run, output_dir=folder, overwrite=True, resume=False, checkpoint_every=0, trackers=[])
        run = replace(run, eval_every=EVALUATE_AT if config.run.eval_every else 0)
        schedule = replace(config.schedule, steps=STEPS, warmup_steps=0)
        start = time.perf_counter()
        result = train(replace(config, run=run, schedule=schedule), **run_arguments(trial))
        if is_examined(trial):
            examine(study, trial, result, Path(folder, "trial.json"), films_of(study, trial))
        whole = time.perf_counter() - start
    hook.remove()
    gaps = [after - before for before, after in pairwise(ends)]
    evaluated = gaps.pop(EVALUATE_AT - 1)
    # The first step allocates memory, so time is measured from the end of the second.
    step = fmean(gaps[1:])
    evaluation = max(0.0, evaluated - step) if config.run.eval_every else 0.0
    rest = max(0.0, whole - STEPS * step - evaluation)
    # Linux counts in KiB, macOS in bytes.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return Cost(step, evaluation, rest, reading, memory)


def _read_images(config: RunConfig) -> float:
    """Read the images of a run as training does, and return the seconds that all of them take."""
    with decoded_cache(config.data):
        start = time.perf_counter()
        datasets = build_datasets(config.data)  # renders what is rendered
        seconds = time.perf_counter() - start
        for dataset in datasets:
            chosen = evenly_spaced(len(dataset), READ)
            start = time.perf_counter()
            for index in chosen:
                dataset[index]
            seconds += (time.perf_counter() - start) * len(dataset) / max(1, len(chosen))
    return seconds


def plan_text(rows: Sequence[PlanRow]) -> str:
    """The plan as a Markdown table, and its total."""
    lines = ["| trials | done | per trial | memory | remaining | stage |", "|---|---|---|---|---|---|"]
    for row in rows:
        each = row.seconds / max(1, row.trials - row.done)
        lines.append(
            f"| {row.trials} | {row.done} | {_clock(each)} | {row.cost.memory:.1f} GiB | {_clock(row.seconds)} | "
            f"{row.what} |"
        )
    left = sum(row.seconds for row in rows)
    trials = sum(row.trials - row.done for row in rows)
    lines += ["", f"{trials} trials remain, about {_clock(left)} on this machine if run one after another."]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
