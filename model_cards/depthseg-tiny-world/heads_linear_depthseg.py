"""The linear probe: BatchNorm and a 1x1 convolution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead


@dataclass(frozen=True)
class LinearHeadConfig:
    """Options of [`LinearHead`].

    Args:
        num_layers (`int`, *optional*, defaults to `1`): How many of the deepest encoder maps are read.
    """

    num_layers: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.num_layers, int) or self.num_layers < 1:
            raise ValueError(f"head_config.num_layers is {self.num_layers!r}; it must be a whole number from 1 up.")


class LinearHead(DepthSegHead):
    """Normalise the deepest maps, resized to the finest of them and concatenated; the last layer is a 1x1 convolution.

    Source: the linear evaluation of Oquab et al. 2023 (DINOv2), https://huggingface.co/papers/2304.07193, section 7.4.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: LinearHeadConfig
    ):
        super().__init__()
        if config.num_layers > len(channels):
            raise ValueError(
                f"head_config.num_layers is {config.num_layers} but the encoder gives {len(channels)} maps; lower it "
                "or choose more layers in encoder_config.out_indices."
            )
        self.num_layers = config.num_layers
        self.channels = [sum(channels[-config.num_layers :])]
        self.strides = (strides[-config.num_layers],)
        self.norm = nn.BatchNorm2d(self.channels[0])

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the stride of the finest map that is read."""
        maps = features.maps[-self.num_layers :]
        size = maps[0].shape[-2:]
        resized = [F.interpolate(deep, size=size, mode="bilinear", align_corners=False) for deep in maps[1:]]
        return [self.norm(torch.cat([maps[0], *resized], dim=1))]

    def make_depth_predictor(self) -> nn.ModuleList:
        """One 1x1 convolution to one channel."""
        return nn.ModuleList([nn.Conv2d(self.channels[0], 1, 1)])

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 1x1 convolution to `num_labels` channels."""
        return nn.Conv2d(self.channels[0], num_labels, 1)
