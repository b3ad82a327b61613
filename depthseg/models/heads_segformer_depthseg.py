"""SegFormer's head: one linear layer per map, then fusion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import ConvNormReLU, PixelHead, check_counts, check_shares, resize_like
from .heads_pyramid_depthseg import FeaturePyramid


@dataclass(frozen=True)
class SegFormerHeadConfig:
    """Options of [`SegFormerHead`].

    Args:
        channels (`int`, *optional*, defaults to `256`): Channels of every level and of the fused map; the paper uses
            256 for its small encoders (B0, B1), 768 for the others.
        classifier_dropout (`float`, *optional*, defaults to `0.1`): Dropout before the classifier.
    """

    channels: int = 256
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_counts(channels=self.channels)
        check_shares(classifier_dropout=self.classifier_dropout)


class SegFormerHead(PixelHead):
    """A linear layer for each of the last four maps, resized to the finest and fused by another linear layer.

    For plain ViTs a [`FeaturePyramid`] provides the maps.

    Source: Xie et al. 2021, https://huggingface.co/papers/2105.15203, section 3.2.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: SegFormerHeadConfig
    ):
        pyramid = FeaturePyramid(channels, strides, max_levels=4)
        super().__init__(pyramid.maps_read, config.channels, pyramid.strides[0], config.classifier_dropout)
        self.pyramid = pyramid
        self.projections = nn.ModuleList(nn.Conv2d(given, config.channels, 1) for given in pyramid.channels)
        self.join = ConvNormReLU(len(pyramid.channels) * config.channels, config.channels, 1)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the size of the finest map that is used."""
        maps = self.pyramid(features.maps)
        levels = [projection(level) for projection, level in zip(self.projections, maps, strict=True)]
        # Deepest first, as in the published weights.
        return [self.join(torch.cat([resize_like(level, levels[0]) for level in reversed(levels)], dim=1))]
