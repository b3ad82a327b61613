"""UPerNet: pyramid pooling on the deepest map and a feature pyramid network on the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import (
    ConvNormReLU,
    ImageLevel,
    PixelHead,
    check_count_lists,
    check_counts,
    check_shares,
    resize_like,
)
from .heads_pyramid_depthseg import FeaturePyramid


@dataclass(frozen=True)
class UPerNetHeadConfig:
    """Options of [`UPerNetHead`].

    Args:
        channels (`int`, *optional*, defaults to `512`): Channels of every level.
        pool_scales (`tuple[int, ...]`, *optional*, defaults to `(1, 2, 3, 6)`):
            Side lengths of the grids to which the deepest map is pooled.
        classifier_dropout (`float`, *optional*, defaults to `0.1`): Dropout before the classifier.
    """

    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        check_counts(channels=self.channels)
        check_count_lists(pool_scales=self.pool_scales)
        check_shares(classifier_dropout=self.classifier_dropout)


class GridPooling(nn.AdaptiveAvgPool2d):
    """Means over the cells of a square grid, which also an exported program computes for maps of any size.

    PyTorch writes the cells of its own pooling into the program as they are for the size of the traced image.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to `(B, C, k, k)`."""
        if not torch.compiler.is_exporting():
            return super().forward(x)
        rows, columns = (self.shares(side, x) for side in x.shape[-2:])
        return rows @ x @ columns.T

    def shares(self, side: int, like: Tensor) -> Tensor:
        """Return the share of each pixel of a side in the mean of each cell, `(k, side)`; cells may overlap."""
        cells: Any = self.output_size
        cell, pixel = (torch.arange(count, device=like.device) for count in (cells, side))
        first = (cell * side).div(cells, rounding_mode="floor")[:, None]
        end = ((cell + 1) * side + cells - 1).div(cells, rounding_mode="floor")[:, None]
        inside = (pixel >= first) & (pixel < end)
        return inside.to(like.dtype) / (end - first).to(like.dtype)


class PyramidPooling(nn.Module):
    """A map concatenated with its means over grids of several sizes, fused by a 3x3 convolution.

    Source: Zhao et al. 2017 (PSPNet), https://huggingface.co/papers/1612.01105.
    """

    def __init__(self, in_channels: int, channels: int, pool_scales: tuple[int, ...]):
        super().__init__()
        self.branches = nn.ModuleList(
            ImageLevel(in_channels, channels)
            if scale == 1
            else nn.Sequential(GridPooling(scale), ConvNormReLU(in_channels, channels, 1))
            for scale in pool_scales
        )
        self.join = ConvNormReLU(in_channels + len(pool_scales) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, h, w)` to `(B, channels, h, w)`."""
        return self.join(torch.cat([x, *(resize_like(branch(x), x) for branch in self.branches)], dim=1))


class UPerNetHead(PixelHead):
    """Pyramid pooling on the deepest of four maps, top-down addition, and fusion at the size of the finest map.

    For plain ViTs a [`FeaturePyramid`] provides the maps. Each map is resized to the size of the *next map*.

    Source: Xiao et al. 2018, https://huggingface.co/papers/1807.10221.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: UPerNetHeadConfig
    ):
        pyramid = FeaturePyramid(channels, strides, max_levels=4)
        super().__init__(pyramid.maps_read, config.channels, pyramid.strides[0], config.classifier_dropout)
        self.pyramid = pyramid
        *shallower, deepest = pyramid.channels
        width = config.channels
        self.pooling = PyramidPooling(deepest, width, config.pool_scales)
        self.laterals = nn.ModuleList(ConvNormReLU(given, width, 1) for given in shallower)
        self.smooth = nn.ModuleList(ConvNormReLU(width, width) for _ in shallower)
        self.join = ConvNormReLU(len(pyramid.channels) * width, width)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the size of the finest map that is used."""
        *shallower, deepest = self.pyramid(features.maps)
        x = self.pooling(deepest)
        levels = [x]
        for level in range(len(shallower) - 1, -1, -1):
            lateral = self.laterals[level](shallower[level])
            x = lateral + resize_like(x, lateral)
            levels.insert(0, self.smooth[level](x))
        return [self.join(torch.cat([resize_like(level, levels[0]) for level in levels], dim=1))]
