"""The training loop: from a stream of micro-batches to evaluated, resumable weights."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from .bad_steps import BadStep, LastGood, describe
from .checkpoint import save_checkpoint
from .evaluation import json_scores
from .optim import set_learning_rate
from .pending import Batch, PendingSteps, StepRecord
from .sharding import whole
from .skipping import Statistics, spoil_unless, step_if
from .small_memory import backward_in_pieces
from .state import generator_states, set_generator_states
from .stopping import EvaluationStopped, Stopped, StopRequest, StopVotes

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
        score: Scores the weights as they are now, unless the run is asked to stop, which raises `EvaluationStopped`;
            called by all processes together.
        selection: The score that selects the best weights.
        show: Draws what the weights do now, by name uint8 `(H, W, 3)`; called by the first process alone.
        save_model: Writes the weights as they are now to `model/`; called by the first process alone.
        collect: Brings the weights that `score`, `show` and `save_model` see up to date, where those that are trained
            are others; called by all processes together.
        source: Where the batches are from, for the bundles of bad steps; None = they have none.
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
    score: Callable[[StopVotes], dict[str, Any]]
    selection: Score
    show: Callable[[], dict[str, np.ndarray]]
    save_model: Callable[[], None]
    collect: Callable[[], None] = lambda: None
    source: BatchSource | None = None
    heartbeat: Heartbeat | None = None


def train_step(training: Training, micro_batches: Sequence[Batch]) -> tuple[dict[str, Tensor], Tensor]:
    """Do one optimiser step; the host does not wait for the device, unless a mask head matches its queries.

    The loss is the mean over the valid pixels of the whole batch: the micro-batches of all processes together. Each
    micro-batch contributes its sum over valid pixels, divided by the count of all of them.

    Args:
        training: What the loop works on; the learning rate is set already.
        micro_batches: The micro-batches of this process.

    Returns:
        Loss, its parts and `grad_norm` of the whole batch, scalars on the device that are equal in all processes; and
        bool `()`: whether loss and gradient were finite. If not, weights, statistics and the state of the optimiser
        are as before the step.

    Raises:
        RunFault: The memory of the device does not suffice.
    """
    accelerator = training.accelerator
    statistics = Statistics(training.objective)
    num_valid = torch.stack([training.count_valid(batch) for batch in micro_batches]).sum(0)
    num_valid = accelerator.reduce(num_valid.to(accelerator.device), reduction="sum")
    # Ignored pixels alone: a sum of nothing over 1 is a zero loss with a gradient path, over 0 it would be NaN.
    num_valid = num_valid.clamp(min=1)
    totals = backward_in_pieces(
        training, micro_batches, statistics, lambda parts: _backward(training, parts, num_valid)
    )
    # One exchange for all numbers of the step.
    packed = accelerator.reduce(torch.stack([*totals.values()]), reduction="sum")
    values = dict(zip(totals, packed.unbind(), strict=True))
    values["grad_norm"], is_finite = _update(training, values["loss"])
    statistics.restore_unless(is_finite)
    return values, is_finite


def _backward(training: Training, micro_batches: Sequence[Batch], num_valid: Tensor) -> dict[str, Tensor]:
    """Add to the gradients; returns the sums of loss and parts over the micro-batches of this process."""
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


def _update(training: Training, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Change the weights if loss and gradient are finite; returns the norm of the gradient, and whether they were."""
    accelerator, is_finite = training.accelerator, loss.isfinite()
    max_norm = training.config.optim.max_grad_norm or math.inf
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    if accelerator.is_fsdp2:  # Accelerate compares them with those of the network, one by one
        parameters = [parameter for parameter in training.objective.parameters() if parameter.requires_grad]
    if accelerator.scaler is None:
        norm = whole(accelerator.clip_grad_norm_(parameters, max_norm))
        is_finite = is_finite & norm.isfinite()
        step_if(training.optimizer, is_finite)
    else:
        # With float16 an overflow now and then is how the gradient scaler finds its scale; it skips the step itself.
        spoil_unless(is_finite, parameters)
        norm = whole(accelerator.clip_grad_norm_(parameters, max_norm))
        training.optimizer.step()
    training.optimizer.zero_grad()
    return norm, is_finite


def fit(training: Training, batches: Iterator[Batch]) -> None:
    """Train from `progress.step` to the last step; called by all processes together.

    The numbers of the steps stay on the device until something is to be written: a line of progress, scores or a
    checkpoint. Only then the host waits for the device; mask heads make it wait in every step, too, because their
    queries are matched on the CPU.

    Args:
        training: What the loop works on; the objective is in train mode already.
        batches: The micro-batches of this process, from step `progress.step` on.

    Raises:
        Stopped: The run was asked to stop by SIGTERM, SIGUSR1 or Ctrl-C; a checkpoint was saved.
        FloatingPointError: Loss or gradient were not finite in `optim.max_bad_steps` steps in a row; a checkpoint of
            the last good state was saved.
        RunFault: Something outside the run broke.
    """
    config, progress, accelerator = training.config, training.progress, training.accelerator
    pending, good = PendingSteps(), LastGood(progress.step, generator_states(accelerator.device))
    when = "this step" if accelerator.num_processes == 1 else "the next step"
    request = StopRequest(f"The run stops after {when}")
    with request, StopVotes(request, accelerator.num_processes, config.run.timeout) as votes:
        if progress.evaluation_is_due:
            _end_step(training, votes, scoring=True, saving=True)
        while progress.step < config.schedule.steps:
            lr = set_learning_rate(training.optimizer, progress.step, config.schedule)
            with training.log.waiting():
                micro_batches = [next(batches) for _ in range(config.optim.accumulation_steps)]
            if training.heartbeat is not None:
                training.heartbeat.at(progress.step + 1)
            random_states = generator_states(accelerator.device)
            values, is_finite = train_step(training, micro_batches)
            progress.step += 1
            training.log.advance()
            pending.add(progress.step, lr, values, is_finite, random_states, micro_batches)
            stopping = votes.cast()
            scoring = _due(progress.step, config.run.eval_every, config)
            saving = stopping or _due(progress.step, config.run.checkpoint_every, config)
            if scoring or saving or _due(progress.step, config.run.log_every, config):
                _take_up(training, pending.read(), good)
            if scoring or saving:
                _end_step(training, votes, scoring, saving, stopping)
        # What comes next, such as a report, is made when the run is resumed.
        if votes.agreed():
            _stop(training)


def _end_step(training: Training, votes: StopVotes, scoring: bool, saving: bool, stopping: bool = False) -> None:
    """Evaluate and save after a step, as due; what stops is saved at once, and evaluated when it resumes.

    Raises:
        Stopped: The run was asked to stop.
    """
    progress, device = training.progress, training.accelerator.device
    if scoring and not stopping:
        random_states = generator_states(device)
        try:
            _score(training, votes)
        except EvaluationStopped:
            set_generator_states(random_states, device)
            stopping = True
    progress.evaluation_is_due = scoring and stopping
    if saving or stopping:
        _save_checkpoint(training)
    if stopping:
        _stop(training)


def _stop(training: Training) -> NoReturn:
    sentence = (
        f"Stopped on request after step {training.progress.step} of {training.config.schedule.steps}; everything is "
        f"saved. To resume: the same command with run.resume=true (run.output_dir={training.run_dir})."
    )
    if training.accelerator.is_main_process:
        logger.warning("%s", sentence)
    raise Stopped(sentence)


def _take_up(training: Training, records: list[StepRecord], good: LastGood) -> None:
    """Count and write down what was read of the steps since the last time, and see to those that were not finite."""
    progress = training.progress
    bad: list[BadStep] = []
    for record in records:
        if record.is_finite:
            progress.loss_sum += record.values["loss"]
            progress.loss_steps += 1
            progress.bad_steps_in_a_row = 0
            continue
        if not progress.bad_steps_in_a_row:
            good.step, good.random_states = record.step - 1, record.random_states
        progress.bad_steps_in_a_row += 1
        bad.append(BadStep(record, progress.bad_steps_in_a_row))
    progress.seconds = training.log.seconds
    if bad:
        _report_bad_steps(training, bad, good)
    training.log.step(records[-1].step, records[-1].values, records[-1].lr)


def _report_bad_steps(training: Training, bad: list[BadStep], good: LastGood) -> None:
    """Say which steps were not finite; stop where too many came in a row, with a checkpoint of the last good state."""
    config, progress = training.config, training.progress
    said = describe(training, bad)
    most = max(range(len(bad)), key=lambda number: bad[number].steps_in_a_row)
    has_ended_well = progress.step == config.schedule.steps and not progress.bad_steps_in_a_row
    if bad[most].steps_in_a_row < config.optim.max_bad_steps or has_ended_well:
        if training.accelerator.is_main_process:
            for sentence in said:
                logger.warning("%s The step is left out; the weights are as before it.", sentence)
        return
    if progress.bad_steps_in_a_row:
        progress.step, progress.bad_steps_in_a_row = good.step, 0
        set_generator_states(good.random_states, training.accelerator.device)
    if progress.step:
        _save_checkpoint(training)
    kept = f"The state after step {progress.step} is saved. " if progress.step else ""
    raise FloatingPointError(
        f"{said[most]} Training stopped, and none of these steps changed the weights. {kept}Start again with a lower "
        "optim.lr or with optim.max_grad_norm=1; or, to leave such steps out, resume with run.resume=true "
        f"optim.max_bad_steps={bad[most].steps_in_a_row + 9}."
    )


def _save_checkpoint(training: Training) -> None:
    objective = training.accelerator.unwrap_model(training.objective)
    save_checkpoint(
        *(training.accelerator, objective, training.optimizer, training.progress, training.run_dir),
        keep_last=training.config.run.keep_last,
    )


def _due(step: int, every: int, config: RunConfig) -> bool:
    return step == config.schedule.steps or (every > 0 and step % every == 0)


def _score(training: Training, votes: StopVotes) -> None:
    """Score, write the line, and keep the weights where they are the ones to keep.

    Raises:
        EvaluationStopped: The run was asked to stop; nothing has changed.
    """
    config, progress = training.config, training.progress
    training.collect()
    line = {
        "step": progress.step,
        # Steps that were not finite are not in it; None = there were no others.
        "train_loss": progress.loss_sum / progress.loss_steps if progress.loss_steps else None,
        "lr": set_learning_rate(training.optimizer, progress.step - 1, config.schedule),
        **json_scores(training.score(votes)),
    }
    progress.loss_sum, progress.loss_steps = 0.0, 0
    training.log.scores(line)
    if training.log.shows_images:
        training.log.images(progress.step, training.show())
    name, better = training.selection.name, training.selection.better
    best_before = progress.selected.get(name, line[name])
    if config.run.select == "last" or line[name] == better(line[name], best_before):
        progress.selected = line
        # Before the checkpoint that says so: a run killed in between repeats the step and writes the same weights.
        if training.accelerator.is_main_process:
            training.save_model()
    training.accelerator.wait_for_everyone()
