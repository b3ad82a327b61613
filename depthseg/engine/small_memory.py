"""A batch that the memory of the device does not hold is cut into parts that it does; the step stays the same one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.encoders_base_depthseg import EncoderFeatures
from .run_fault import RunFault
from .state import generator_states, set_generator_states

if TYPE_CHECKING:
    from .loop import Training
    from .pending import Batch
    from .skipping import Statistics

logger = logging.getLogger(__name__)


def backward_in_pieces(
    training: Training,
    micro_batches: Sequence[Batch],
    statistics: Statistics,
    backward: Callable[[Sequence[Batch]], dict[str, Tensor]],
) -> dict[str, Tensor]:
    """Run forward and backward over the micro-batches, each cut into `progress.pieces` parts.

    With `optim.auto_batch_size` the number of parts is doubled until the memory suffices, and stays for the steps
    that follow. Gradients are summed over parts as over micro-batches, so the batch of the optimiser is the same;
    norms over the batch see the parts. `statistics` are those of the network at the beginning of the step; `backward`
    adds to the gradients and returns the sums of loss and parts.

    Raises:
        RunFault: The memory does not suffice, and it is not allowed, possible or safe to cut.
    """
    progress, device = training.progress, training.accelerator.device
    random_states = generator_states(device)
    while True:
        try:
            return backward(micro_batches if progress.pieces == 1 else list(_cut(micro_batches, progress.pieces)))
        except torch.OutOfMemoryError as error:
            # The frames of the error hold the tensors that fill the memory.
            said = str(error).split("\n")[0]
        statistics.restore()
        training.objective.zero_grad()
        set_generator_states(random_states, device)
        progress.pieces = _more_pieces(training, micro_batches, said)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _more_pieces(training: Training, micro_batches: Sequence[Batch], said: str) -> int:
    optim, progress, accelerator = training.config.optim, training.progress, training.accelerator
    rows = min(map(_rows, micro_batches))
    size, step = -(-rows // progress.pieces), progress.step + 1
    opening = (
        f"The memory of {accelerator.device} does not hold a batch of {size} in step {step} ({said.rstrip('.')})."
    )
    pieces = 2 * progress.pieces
    if accelerator.num_processes > 1:
        # The others wait in an exchange that this process has left half done: a new launch is the safe way.
        raise RunFault(
            f"{opening} Of several processes none can cut its batch alone: set optim.accumulation_steps="
            f"{2 * optim.accumulation_steps}, which keeps optim.batch_size={optim.batch_size}, and launch anew."
        )
    if rows < pieces:
        raise RunFault(
            f"{opening} It cannot be cut: take a smaller data.size or network, run.precision=bf16, or "
            "model.gradient_checkpointing=true."
        )
    if not optim.auto_batch_size:
        raise RunFault(
            f"{opening} Resume with optim.auto_batch_size=true run.resume=true, which cuts batches into parts and "
            f"keeps optim.batch_size={optim.batch_size}; or start anew with optim.accumulation_steps="
            f"{2 * optim.accumulation_steps}."
        )
    logger.warning(
        "%s Each batch is cut into %d parts from here on; optim.batch_size=%d stays.",
        *(opening, pieces * len(micro_batches), optim.batch_size),
    )
    return pieces


def _rows(batch: Batch) -> int:
    values = next(iter(batch.values()))
    return len(values) if isinstance(values, Tensor) else len(values.maps[-1])


def single_rows(batch: Batch) -> Iterator[Batch]:
    """The samples of a micro-batch, each as a batch of its own."""
    return _cut([batch], _rows(batch))


def _cut(micro_batches: Sequence[Batch], pieces: int) -> Iterator[Batch]:
    for batch in micro_batches:
        rows = _rows(batch)
        for number in range(pieces):
            part = slice(rows * number // pieces, rows * (number + 1) // pieces)
            yield {name: _rows_of(values, part) for name, values in batch.items()}


def _rows_of(values: Tensor | EncoderFeatures, part: slice) -> Tensor | EncoderFeatures:
    if isinstance(values, Tensor):
        return values[part]
    maps, prefix_tokens = (
        tensors and [None if tensor is None else tensor[part] for tensor in tensors]
        for tensors in (values.maps, values.prefix_tokens)
    )
    return replace(values, maps=maps, prefix_tokens=prefix_tokens)
