"""Encoder and decoder in bf16 throughout, on a bf16 copy of float32 weights.

Autocast computes norms and the sums of residual branches in float32 and converts back and forth between both types;
on a GPU these conversions are memory traffic. Here weights are converted once a forward pass, and everything between
image and decoder maps is bf16. The float32 weights are those that the optimiser updates, so small updates are not
lost.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

FLOAT32_INSIDE = ("swinv2",)
"""Encoders that make float32 inputs of their layers themselves."""


def compute_in_bf16(model: nn.Module) -> None:
    """Let encoder and decoder of a model compute in bf16 wherever autocast to bf16 is on; names and weights stay.

    Last layers and losses stay as autocast has them. Without autocast, as in evaluation, nothing changes.

    Args:
        model: Any model of depthseg, changed in place.

    Raises:
        ValueError: The encoder cannot.
    """
    model_type = model.config.encoder_config.model_type
    if model_type in FLOAT32_INSIDE:
        raise ValueError(
            f"run.pure_bf16=true: the encoder {model_type} computes its position biases in float32. Set "
            "run.pure_bf16=false; run.precision=bf16 stays."
        )
    for part in (model.encoder, model.body):
        part.forward = _in_bf16(part)


class _Holder(nn.Module):
    """The weights of a part, and its forward pass as it was."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self._forward_before = part.forward

    def forward(self, inputs: Any) -> Any:
        return self._forward_before(inputs)


def _in_bf16(part: nn.Module) -> Callable[[Any], Any]:
    holder = _Holder(part)

    @functools.wraps(part.forward)
    def forward(inputs: Any) -> Any:
        device_type = next(part.parameters()).device.type
        if not torch.is_autocast_enabled(device_type):
            return holder(inputs)
        with torch.autocast(device_type, enabled=False):
            return functional_call(holder, _bf16_weights(holder), (inputs.to(torch.bfloat16),))

    return forward


def _bf16_weights(holder: nn.Module) -> dict[str, Tensor]:
    """The weights in bf16, but for those of batch norms, whose statistics are float32."""
    return {
        f"{name}.{key}" if name else key: parameter.to(torch.bfloat16)
        for name, module in holder.named_modules()
        if not isinstance(module, _BatchNorm)
        for key, parameter in module.named_parameters(recurse=False)
    }
