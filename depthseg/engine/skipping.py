"""Steps that leave everything as it was where their numbers are not finite, decided on the device.

The host does not wait to know: it would have to after every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable


class Statistics:
    """The running statistics of a network (its stored buffers in train mode) as they are at this moment.

    Args:
        network: Whose forward pass will change them.
    """

    def __init__(self, network: nn.Module) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for module in [each for each in network.modules() if each.training]:
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._non_persistent_buffers_set:
                    self._buffers.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        self._before = {kind: _flat(buffers) for kind, buffers in self._buffers.items()}

    def restore_unless(self, is_finite: Tensor) -> None:
        """Bring them back, unless a step was finite: bool `()`."""
        for kind, buffers in self._buffers.items():
            _fill(buffers, torch.where(is_finite, _flat(buffers), self._before[kind]))

    def restore(self) -> None:
        """Bring them back."""
        for kind, buffers in self._buffers.items():
            _fill(buffers, self._before[kind])


@torch.no_grad()
def _fill(buffers: list[Tensor], values: Tensor) -> None:
    parts = zip(buffers, values.split([buffer.numel() for buffer in buffers]), strict=True)
    # All in one call: their number, not their size, is what takes time on a GPU.
    torch._foreach_copy_(buffers, [part.view(buffer.shape) for buffer, part in parts])


def _flat(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.flatten() for buffer in buffers])


def step_if(optimizer: torch.optim.Optimizer, is_finite: Tensor) -> None:
    """Do one step of an optimiser, or none: then weights and state stay as they are, bit by bit.

    The host waits for the device where the optimiser is not a fused one, as SGD on weights that are shared out.

    Args:
        optimizer: The optimiser, or Accelerate's wrapper of it.
        is_finite: bool `()`, on the device of the weights.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if not all(group["fused"] for group in inner.param_groups):
        if is_finite.item():
            optimizer.step()
        return
    _begin_momentum(inner)
    # What gradient scalers set: fused kernels look at it before they write anything.
    inner.found_inf = (~is_finite).float()
    try:
        optimizer.step()
    finally:
        del inner.found_inf


def _begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Give SGD its first momentum, 0: where it makes it itself, a skipped first step leaves it uninitialised."""
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for parameter in group["params"]:
                if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)


@torch.no_grad()
def spoil_unless(is_finite: Tensor, parameters: Iterable[nn.Parameter]) -> None:
    """Make gradients NaN unless a loss was finite, bool `()`: a gradient scaler sees by them what to skip."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, torch.where(is_finite, 1.0, torch.nan))
