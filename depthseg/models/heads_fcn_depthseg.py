"""The fully convolutional head: 3x3 convolutions on one map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import ConvNormReLU, PixelHead, check_counts, check_shares


@dataclass(frozen=True)
class FCNHeadConfig:
    """Options of [`FCNHead`].

    Args:
        channels (`int`, *optional*, defaults to `512`): Channels of the convolutions.
        num_convs (`int`, *optional*, defaults to `2`): Number of consecutive convolutions.
        concat_input (`bool`, *optional*, defaults to `True`):
            Whether their result is concatenated with the encoder's map and passed through one more convolution.
        level (`int`, *optional*, defaults to `-1`): The encoder map that is used: 0 is the shallowest, -1 the deepest.
        classifier_dropout (`float`, *optional*, defaults to `0.1`): Dropout before the classifier.
    """

    channels: int = 512
    num_convs: int = 2
    concat_input: bool = True
    level: int = -1
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_counts(channels=self.channels, num_convs=self.num_convs)
        check_shares(classifier_dropout=self.classifier_dropout)
        if type(self.concat_input) is not bool:
            raise ValueError(f"head_config.concat_input is {self.concat_input!r}; it must be True or False.")
        if type(self.level) is not int:
            raise ValueError(f"head_config.level is {self.level!r}; it must be an integer, -1 for the deepest map.")


class FCNHead(PixelHead):
    """3x3 convolutions with BatchNorm and ReLU on one encoder map, at that map's size.

    Source: Long et al. 2015, https://huggingface.co/papers/1411.4038, in the common form of MMSegmentation.
    """

    def __init__(self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: FCNHeadConfig):
        if not -len(channels) <= config.level < len(channels):
            raise ValueError(
                f"head_config.level is {config.level}, but the encoder returns {len(channels)} maps; choose from "
                f"{-len(channels)} (the shallowest) to -1 (the deepest)."
            )
        level = config.level % len(channels)
        super().__init__(slice(level, level + 1), config.channels, strides[level], config.classifier_dropout)
        given, width = channels[level], config.channels
        inputs = [given] + [width] * (config.num_convs - 1)
        self.convs = nn.Sequential(*(ConvNormReLU(size, width) for size in inputs))
        self.join = ConvNormReLU(given + width, width) if config.concat_input else None

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the stride of the selected encoder map."""
        (given,) = features.maps[self.maps_read]
        decoded = self.convs(given)
        return [decoded if self.join is None else self.join(torch.cat([given, decoded], dim=1))]
