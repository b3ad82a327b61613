"""What the convolutional networks written here have in common: initialisation, and checkpointing of whole stages.

Shape letters: B batch, H and W image size, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from .encoders_base_depthseg import DepthSegEncoder


class ConvolutionalBackbone(PreTrainedModel):
    """A network of stages, each of which halves the map; `forward` maps an image `(B, 3, H, W)` to a list of maps.

    Attributes:
        stage_ends (`list[int]`): Of a network in one sequence of layers, the number of layers up to each stage's end.
    """

    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        # Set by transformers, together with `_gradient_checkpointing_func`, when checkpointing is enabled.
        self.gradient_checkpointing = False

    @classmethod
    def is_custom_code(cls) -> bool:
        """Let transformers run `_init_weights` on every module, as it does for its own models."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def run_stages(self, layers: nn.Sequential, x: Tensor) -> list[Tensor]:
        """Run a sequence of layers; the map at the end of each stage, shallow to deep."""
        maps = []
        for begin, end in zip([0, *self.stage_ends], self.stage_ends, strict=False):
            x = self.run_stage(layers[begin:end], x)
            maps.append(x)
        return maps

    def run_stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """Run a stage; with gradient checkpointing it is run again in the backward pass, on the same statistics."""
        if not (self.gradient_checkpointing and self.training):
            return stage(x)
        return self._gradient_checkpointing_func(
            stage, x, context_fn=lambda: (nullcontext(), statistics_not_counted(stage))
        )


class ConvolutionalEncoder(DepthSegEncoder):
    """An encoder around a [`ConvolutionalBackbone`]; strided convolutions round up, so no padding is needed."""

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], None]:
        """Return the maps of the backbone; there are no prefix tokens."""
        return backbone(pixel_values), None


@contextmanager
def statistics_not_counted(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch without updating running statistics, which a repeated forward pass must not do twice."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    counted = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, counted, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked


def scaled_channels(channels: int, width_factor: float) -> int:
    """Return a multiple of 8 near `channels * width_factor`, at least 8 and at most a tenth below it.

    Source: the rule of MobileNetV2's and EfficientNet's published networks, https://huggingface.co/papers/1801.04381.
    """
    exact = channels * width_factor
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * exact else rounded + 8
