"""Steps whose numbers are still on the device, and their batches: read all at once, every few steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.encoders_base_depthseg import EncoderFeatures

Batch = Mapping[str, Tensor | EncoderFeatures]

LARGEST_KEPT = 1 << 30
"""Bytes of batches that are kept at most; beyond them the oldest are let go."""


@dataclass(frozen=True)
class StepRecord:
    """The numbers of one step, on the host.

    Attributes:
        step: Number of the step, from 1.
        lr: Its learning rate.
        values: Loss, its parts and `grad_norm` of the whole batch; equal in all processes.
        is_finite: Whether loss and gradient were finite; if not, the step changed nothing.
        random_states: States of torch's generators before the step, uint8 `(N,)`, by the type of their device.
        micro_batches: What this process trained on, on its device; empty where it was let go to save memory.
    """

    step: int
    lr: float
    values: dict[str, float]
    is_finite: bool
    random_states: dict[str, Tensor]
    micro_batches: tuple[Batch, ...]


class PendingSteps:
    """The steps since numbers were last read, with their batches by reference.

    Args:
        largest_kept: Bytes of batches that are kept at most. The batches of the newest step are kept in any case.
    """

    def __init__(self, largest_kept: int = LARGEST_KEPT) -> None:
        self._steps: list[tuple[int, float, dict[str, Tensor], Tensor, dict[str, Tensor]]] = []
        self._batches: dict[int, tuple[Batch, ...]] = {}
        self._largest_kept = largest_kept

    def add(
        self,
        step: int,
        lr: float,
        values: dict[str, Tensor],
        is_finite: Tensor,
        random_states: dict[str, Tensor],
        micro_batches: Sequence[Batch],
    ) -> None:
        """Take up a step; nothing is read from the device.

        Args:
            step: Number of the step, from 1.
            lr: Its learning rate.
            values: Scalars `()`.
            is_finite: bool `()`.
            random_states: As in `StepRecord`.
            micro_batches: What this process trained on.
        """
        self._steps.append((step, lr, values, is_finite, random_states))
        self._batches[step] = tuple(micro_batches)
        while len(self._batches) > 1 and sum(map(_size, self._batches.values())) > self._largest_kept:
            del self._batches[min(self._batches)]

    def read(self) -> list[StepRecord]:
        """Hand over all steps in their order and begin anew: the host waits for the device once."""
        if not self._steps:
            return []
        tensors = [tensor for _, _, values, is_finite, _ in self._steps for tensor in (*values.values(), is_finite)]
        numbers = iter(torch.stack([tensor.float() for tensor in tensors]).tolist())
        records = []
        for step, lr, values, _, random_states in self._steps:
            read = {name: next(numbers) for name in values}
            records.append(StepRecord(step, lr, read, next(numbers) > 0, random_states, self._batches.get(step, ())))
        self._steps, self._batches = [], {}
        return records


def _size(value: Any) -> int:
    """Bytes of the tensors in a batch, which may hold the features of an encoder instead of images."""
    if isinstance(value, Tensor):
        return value.nbytes
    if is_dataclass(value):
        return _size(list(vars(value).values()))
    if isinstance(value, Mapping):
        return _size(list(value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 0
