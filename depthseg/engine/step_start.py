"""What a step changes before its update: it can be given up as if it had never begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


class StepStart:
    """Buffers, such as the statistics of norms, and random states at the beginning of a step.

    Weights and optimiser need no copy: nothing but the update changes them.

    Args:
        objective: What is trained.
        device: Of the training.

    Attributes:
        random_states: State of torch's generators, uint8 `(N,)`, by the type of their device.
    """

    def __init__(self, objective: nn.Module, device: torch.device) -> None:
        self._objective = objective
        self._device = device
        self._buffers = [buffer.detach().clone() for buffer in objective.buffers()]
        self.random_states: dict[str, Tensor] = {"cpu": torch.get_rng_state()}
        if device.type != "cpu":
            self.random_states[device.type] = torch.get_device_module(device).get_rng_state()

    @torch.no_grad()
    def restore(self) -> None:
        """Bring back buffers and random states, and forget the gradients of the step."""
        for buffer, before in zip(self._objective.buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        self._objective.zero_grad()
        draw_from(self.random_states, self._device)


def draw_from(random_states: Mapping[str, Tensor], device: torch.device) -> None:
    """Set those of torch's generators whose state is given."""
    if "cpu" in random_states:
        torch.set_rng_state(random_states["cpu"])
    if device.type != "cpu" and device.type in random_states:
        torch.get_device_module(device).set_rng_state(random_states[device.type])
