"""The training loop: from a stream of micro-batches to evaluated, resumable weights."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .bad_steps import BadStepError, require_finite, sentence, write_bundle
from .checkpoint import save_checkpoint
from .evaluation import json_scores
from .optim import set_learning_rate
from .small_memory import backward_in_pieces
from .step_start import StepStart

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator

    from .bad_steps import BatchSource
    from .heartbeat import Heartbeat
    from .options import RunConfig
    from .records import RunLog
    from .state import Progress
    from .tasks import Score

logger = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]


@dataclass
class Training:
    """What the loop works on.

    Attributes:
        config: The options.
        run_dir: Run directory.
        accelerator: Device, precision and processes.
        objective: Prepared objective: `objective(batch, num_valid) -> {"loss": ..., parts}`.
        count_valid: `count_valid(batch)`, of the bare objective: an int64 tensor of counts that add up.
        optimizer: Prepared optimiser.
        progress: How far the run is.
        log: Where numbers go.
        score: Scores the weights as they are now; called by all processes together.
        selection: The score that selects the best weights.
        show: Draws what the weights do now, by name uint8 `(H, W, 3)`; called by the first process alone.
        save_model: Writes the weights as they are now to `model/`; called by the first process alone.
        source: Where the batches are from, for the bundle of a bad step; None = it has none.
        heartbeat: Knows which process the others wait for; None = this is the only one.
    """

    config: RunConfig
    run_dir: Path
    accelerator: Accelerator
    objective: nn.Module
    count_valid: Callable[[Batch], Tensor]
    optimizer: torch.optim.Optimizer
    progress: Progress
    log: RunLog
    score: Callable[[], dict[str, Any]]
    selection: Score
    show: Callable[[], dict[str, np.ndarray]]
    save_model: Callable[[], None]
    source: BatchSource | None = None
    heartbeat: Heartbeat | None = None


class StopRequest:
    """Turns SIGTERM and Ctrl-C into a flag that is read between two steps; the second signal ends at once.

    One within another, such as a run within a study, hands the signal on.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread handle signals; in another one a run simply cannot be asked to stop.
        with contextlib.suppress(ValueError):
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: object) -> None:
        self.received = True
        before = self._before.get(number)
        self._restore()
        outer = getattr(before, "__self__", None)
        if isinstance(outer, StopRequest):
            outer._receive(number, frame)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())


def train_step(
    training: Training, micro_batches: Sequence[Batch], stop: bool = False
) -> tuple[dict[str, float], bool]:
    """Do one optimiser step.

    The loss is the mean over the valid pixels of the whole batch: the micro-batches of all processes together. Each
    micro-batch contributes its sum over valid pixels, divided by the count of all of them.

    Args:
        training: What the loop works on; the learning rate is set already.
        micro_batches: The micro-batches of this process.
        stop: This process was asked to stop.

    Returns:
        Loss, its parts and `grad_norm` of the whole batch (equal on all processes), and whether any process was
        asked to stop.

    Raises:
        BadStepError: The loss or the gradient is not a finite number; weights, buffers and random states are as before
            the step.
        RunFault: The memory of the device does not suffice.
    """
    accelerator = training.accelerator
    start = StepStart(training.objective, accelerator.device)
    num_valid = torch.stack([training.count_valid(batch) for batch in micro_batches]).sum(0)
    num_valid = accelerator.reduce(num_valid.to(accelerator.device), reduction="sum")
    # Ignored pixels alone: a sum of nothing over 1 is a zero loss with a gradient path, over 0 it would be NaN.
    num_valid = num_valid.clamp(min=1)
    totals = backward_in_pieces(training, micro_batches, start, lambda parts: _backward(training, parts, num_valid))
    # One exchange for all numbers of the step, the request to stop among them: everybody stops at the same step.
    packed = torch.stack([*totals.values(), torch.tensor(float(stop), device=accelerator.device)])
    *values, stop_votes = accelerator.reduce(packed, reduction="sum").tolist()
    values = dict(zip(totals, values, strict=True))
    about = training.progress.step + 1, training.optimizer.param_groups[-1]["lr"], stop_votes > 0
    try:
        require_finite("loss", values["loss"], *about)
        values["grad_norm"] = _update(training, *about)
    except BadStepError as problem:
        start.restore()
        problem.random_states = start.random_states
        raise
    return values, stop_votes > 0


def _backward(training: Training, micro_batches: Sequence[Batch], num_valid: Tensor) -> dict[str, Tensor]:
    accelerator = training.accelerator
    totals: dict[str, Tensor] = {}
    for number, batch in enumerate(micro_batches, start=1):
        last = number == len(micro_batches)
        with contextlib.nullcontext() if last else accelerator.no_sync(training.objective):
            parts = training.objective(batch, num_valid)
            # Processes average their gradients, but the loss is a sum over processes.
            accelerator.backward(parts["loss"] * accelerator.num_processes)
        for name, value in parts.items():
            totals[name] = totals.get(name, 0) + value.detach().float()
    return totals


def _update(training: Training, step: int, lr: float, stopping: bool) -> float:
    max_norm = training.config.optim.max_grad_norm or math.inf
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    norm = float(training.accelerator.clip_grad_norm_(parameters, max_norm))
    # With float16 an overflow now and then is how the gradient scaler finds its scale; it skips the step by itself.
    if training.accelerator.mixed_precision != "fp16":
        require_finite("gradient", norm, step, lr, stopping)
    training.optimizer.step()
    training.optimizer.zero_grad()
    return norm


def _leave_out(training: Training, micro_batches: Sequence[Batch], problem: BadStepError) -> dict[str, float]:
    """Keep the batch of a bad step; stop after too many in a row, with a checkpoint of the last good state.

    Raises:
        FloatingPointError: There were too many.
    """
    config, progress, run_dir = training.config, training.progress, training.run_dir
    progress.bad_steps += 1
    bundle = None
    if training.source is not None:
        objective = training.accelerator.unwrap_model(training.objective)
        about = run_dir, training.accelerator, config, objective, training.source
        bundle = write_bundle(*about, problem, micro_batches, problem.random_states)
    said = sentence(problem, bundle, progress.bad_steps)
    if progress.bad_steps < config.optim.max_bad_steps:
        logger.warning("%s The step is left out; the weights are as before it.", said)
        return {"loss": math.nan}
    progress.step -= progress.bad_steps - 1
    progress.bad_steps = 0
    if progress.step:
        _save_checkpoint(training)
    kept = f"The state after step {progress.step} is saved. " if progress.step else ""
    raise FloatingPointError(
        f"{said} Training stopped before the update. {kept}Start again with a lower optim.lr or with "
        f"optim.max_grad_norm=1; or, to leave such steps out, resume with run.resume=true optim.max_bad_steps="
        f"{config.optim.max_bad_steps + 9}."
    ) from problem


def fit(training: Training, batches: Iterator[Batch]) -> None:
    """Train from `progress.step` to the last step; called by all processes together.

    Args:
        training: What the loop works on; the objective is in train mode already.
        batches: The micro-batches of this process, from step `progress.step` on.

    Raises:
        SystemExit: The run was asked to stop by SIGTERM or Ctrl-C; a checkpoint was saved.
        FloatingPointError: The loss or the gradient was not a finite number, `optim.max_bad_steps` times in a row; a
            checkpoint of the last good state was saved.
        RunFault: Something outside the run broke.
    """
    config, progress = training.config, training.progress
    with StopRequest() as stop:
        while progress.step < config.schedule.steps:
            lr = set_learning_rate(training.optimizer, progress.step, config.schedule)
            micro_batches = [next(batches) for _ in range(config.optim.accumulation_steps)]
            if training.heartbeat is not None:
                training.heartbeat.at(progress.step + 1)
            try:
                values, stopping = train_step(training, micro_batches, stop.received)
            except BadStepError as problem:
                values, stopping = _leave_out(training, micro_batches, problem), problem.stopping
            else:
                progress.bad_steps = 0
                progress.loss_sum += values["loss"]
                progress.loss_steps += 1
            progress.step += 1
            progress.seconds = training.log.seconds
            training.log.step(progress.step, values, lr)
            if _due(progress.step, config.run.eval_every, config):
                _score(training, lr)
            if stopping or _due(progress.step, config.run.checkpoint_every, config):
                _save_checkpoint(training)
            if stopping and progress.step < config.schedule.steps:
                raise SystemExit(_stop_sentence(training) if training.accelerator.is_main_process else 1)


def _save_checkpoint(training: Training) -> None:
    objective = training.accelerator.unwrap_model(training.objective)
    save_checkpoint(
        *(training.accelerator, objective, training.optimizer, training.progress, training.run_dir),
        keep_last=training.config.run.keep_last,
    )


def _due(step: int, every: int, config: RunConfig) -> bool:
    return step == config.schedule.steps or (every > 0 and step % every == 0)


def _score(training: Training, lr: float) -> None:
    """Score, write the line, and keep the weights where they are the ones to keep."""
    config, progress = training.config, training.progress
    line = {
        "step": progress.step,
        "train_loss": progress.loss_sum / progress.loss_steps if progress.loss_steps else None,
        "lr": lr,
        **json_scores(training.score()),
    }
    progress.loss_sum, progress.loss_steps = 0.0, 0
    training.log.scores(line)
    if training.accelerator.is_main_process and config.run.tensorboard:
        training.log.images(progress.step, training.show())
    name, better = training.selection.name, training.selection.better
    best_before = progress.selected.get(name, line[name])
    if config.run.select == "last" or line[name] == better(line[name], best_before):
        progress.selected = line
        # Before the checkpoint that says so: a run killed in between repeats the step and writes the same weights.
        if training.accelerator.is_main_process:
            training.save_model()
    training.accelerator.wait_for_everyone()


def _stop_sentence(training: Training) -> str:
    return (
        f"Stopped on request after step {training.progress.step} of {training.config.schedule.steps}; everything is "
        f"saved. To resume: the same command with run.resume=true (run.output_dir={training.run_dir})."
    )
