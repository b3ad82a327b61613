"""A head to copy from: one convolution on the deepest map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import ConvNormReLU, PixelHead, check_counts


@dataclass(frozen=True)
class ExampleHeadConfig:
    """Options of [`ExampleHead`].

    Args:
        width (`int`, *optional*, defaults to `16`): Channels of the convolution.
    """

    width: int = 16

    def __post_init__(self) -> None:
        check_counts(width=self.width)


class ExampleHead(PixelHead):
    """A 3x3 convolution with BatchNorm and ReLU; a 1x1 convolution predicts labels or depth from it."""

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: ExampleHeadConfig
    ):
        super().__init__(slice(-1, None), config.width, strides[-1])
        self.conv = ConvNormReLU(channels[-1], config.width)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the stride of the deepest map."""
        (deepest,) = features.maps[self.maps_read]
        return [self.conv(deepest)]
