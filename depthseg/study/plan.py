"""The remaining cells of a study and their estimated time, measured with a few steps of each stage."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers.utils import logging as transformers_logging

from ..engine.build import build_datasets
from ..engine.config import RunConfig
from ..engine.run import train
from .cells import record_path
from .matrix import Cell, shard_of
from .options import StudyOptions
from .runner import cells_in_order

STEPS = 8
"""Measured steps per stage."""


@dataclass(frozen=True)
class Cost:
    """Time and memory of one cell on this machine.

    Attributes:
        step: Seconds per optimiser step.
        rest: Seconds for set-up, one evaluation and the figures.
        memory: Peak memory of the process, GiB.
    """

    step: float
    rest: float
    memory: float

    def seconds(self, config: RunConfig) -> float:
        """Estimated time of a run; every evaluation is assumed to take as long as the set-up."""
        scorings = config.schedule.steps // config.run.eval_every if config.run.eval_every else 1
        return self.step * config.schedule.steps + self.rest * max(1, scorings)


@dataclass(frozen=True)
class PlanRow:
    """The cells of one stage.

    Attributes:
        what: The stage in words.
        cells: Number of cells.
        done: Number of cells with a record.
        cost: Time and memory of one cell.
        seconds: Estimated time of the remaining cells.
    """

    what: str
    cells: int
    done: int
    cost: Cost
    seconds: float


def plan_study(study: StudyOptions, out: Path, shard: tuple[int, int] = (1, 1)) -> list[PlanRow]:
    """Count the cells of a shard and estimate their time and memory from a few steps of each stage.

    Nothing is written to the output directory of the study.

    Args:
        study: The study.
        out: Its output directory; cells with a record there are done.
        shard: Number of the shard, from 1, and of all.
    """
    mine = shard_of(study, *shard)
    kinds: dict[str, list[Cell]] = {}
    for cell in cells_in_order(study, out):
        if (cell.labels["architecture"], cell.labels["arm"]) in mine:
            kinds.setdefault(kind_of(cell), []).append(cell)
    rows = []
    for what, cells in kinds.items():
        left = [cell for cell in cells if not record_path(out, cell.key).is_file()]
        cost = measure_cost(left[0].config) if left else Cost(0.0, 0.0, 0.0)
        rows.append(PlanRow(what, len(cells), len(cells) - len(left), cost, sum(cost.seconds(c.config) for c in left)))
    return rows


def kind_of(cell: Cell) -> str:
    """The stage of a cell; cells of one stage have the same cost."""
    labels = cell.labels
    if cell.kind == "pretrain":
        return f"pre-training, {labels['arm']}, {labels['architecture']}"
    role = "learning-rate selection" if labels["role"] == "rate" else "fine-tuning"
    return f"{role}, {labels['mode']}, {labels['architecture']}"


def measure_cost(config: RunConfig) -> Cost:
    """Train for a few steps in a separate process, so that its memory is measured separately."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, config).result()


def _measure(config: RunConfig) -> Cost:
    transformers_logging.disable_progress_bar()
    build_datasets(config.data)  # rendering happens once, not in every run
    ends = []
    hook = register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    with tempfile.TemporaryDirectory() as folder:
        run = replace(config.run, output_dir=folder, overwrite=True, resume=False, eval_every=0, checkpoint_every=0)
        schedule = replace(config.schedule, steps=STEPS, warmup_steps=0)
        start = time.perf_counter()
        train(replace(config, run=replace(run, tensorboard=False), schedule=schedule))
        whole = time.perf_counter() - start
    hook.remove()
    # The first step allocates memory, so time is measured from the end of the second.
    step = (ends[-1] - ends[1]) / (STEPS - 2)
    # Linux counts in KiB, macOS in bytes.
    unit = 2**30 if sys.platform == "darwin" else 2**20
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return Cost(step, max(0.0, whole - STEPS * step), memory)


def plan_text(rows: Sequence[PlanRow]) -> str:
    """The plan as a Markdown table, and its total."""
    lines = ["| cells | done | per cell | memory | remaining | stage |", "|---|---|---|---|---|---|"]
    for row in rows:
        each = row.seconds / max(1, row.cells - row.done)
        lines.append(
            f"| {row.cells} | {row.done} | {_clock(each)} | {row.cost.memory:.1f} GiB | {_clock(row.seconds)} | "
            f"{row.what} |"
        )
    left = sum(row.seconds for row in rows)
    cells = sum(row.cells - row.done for row in rows)
    lines += ["", f"{cells} cells remain, about {_clock(left)} on this machine if run one after another."]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
