"""The linear probe: BatchNorm and a 1x1 convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import PixelHead, check_counts, resize_like


@dataclass(frozen=True)
class LinearHeadConfig:
    """Options of [`LinearHead`].

    Args:
        num_layers (`int`, *optional*, defaults to `1`): Number of deepest encoder maps that are used.
    """

    num_layers: int = 1

    def __post_init__(self) -> None:
        check_counts(num_layers=self.num_layers)


class LinearHead(PixelHead):
    """Normalise the deepest maps, resized to the finest of them and concatenated; the last layer is a 1x1 convolution.

    Source: the linear evaluation of Oquab et al. 2023 (DINOv2), https://huggingface.co/papers/2304.07193, section 7.4.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: LinearHeadConfig
    ):
        if config.num_layers > len(channels):
            raise ValueError(
                f"head_config.num_layers is {config.num_layers}, but the encoder returns {len(channels)} maps; lower "
                "it, or select more layers in encoder_config.out_indices."
            )
        deepest = slice(-config.num_layers, None)
        super().__init__(deepest, sum(channels[deepest]), strides[deepest][0])
        self.norm = nn.BatchNorm2d(self.channels[0])

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the stride of the finest map that is used."""
        maps = features.maps[self.maps_read]
        return [self.norm(torch.cat([resize_like(level, maps[0]) for level in maps], dim=1))]
