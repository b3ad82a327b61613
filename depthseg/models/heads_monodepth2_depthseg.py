"""The decoder of Monodepth2, for encoders with any number of maps at any strides."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders_base_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead
from .heads_blocks_depthseg import check_count_lists, check_counts
from .heads_pyramid_depthseg import FeaturePyramid


@dataclass(frozen=True)
class Monodepth2HeadConfig:
    """Options of [`Monodepth2Head`].

    Args:
        decoder_channels (`tuple[int, ...]`, *optional*, defaults to `(16, 32, 64, 128, 256)`):
            Channels of the decoder's levels, finest first; an encoder with n maps uses the first n.
        num_scales (`int`, *optional*, defaults to `4`): Number of finest levels at which depth is predicted.
    """

    decoder_channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    num_scales: int = 4

    def __post_init__(self) -> None:
        check_count_lists(decoder_channels=self.decoder_channels)
        check_counts(num_scales=self.num_scales)


class ReflectConv(nn.Module):
    """Reflection padding of 1 and a 3x3 convolution; maps of one pixel in a direction are padded by replication."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, in_channels, h, w)` to `(B, out_channels, h, w)`."""
        mode = "reflect" if min(x.shape[-2:]) > 1 else "replicate"
        return self.conv(F.pad(x, (1, 1, 1, 1), mode=mode))


class UpLevel(nn.Module):
    """One level: convolve, upsample to the size of the next finer map, concatenate that map, convolve."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int):
        super().__init__()
        self.conv0 = ReflectConv(in_channels, out_channels)
        self.conv1 = ReflectConv(out_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Map `(B, in_channels, h, w)` and the skip `(B, skip_channels, *size)` to `(B, out_channels, *size)`."""
        x = F.interpolate(F.elu(self.conv0(x)), size=size, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return F.elu(self.conv1(x))


class Monodepth2Head(DepthSegHead):
    """Up-convolutions with skip connections, from the deepest map to the resolution of the image.

    Level i concatenates encoder map i - 1 and its output has the size of that map; level 0 has that of the image. The
    depth predictors and the classifier are 3x3 convolutions with reflection padding. For plain ViTs a
    [`FeaturePyramid`] provides the four maps.

    Source: Godard et al. 2019, https://huggingface.co/papers/1806.01260, supplementary material; with the classifier
    in place of the finest predictor it is the segmentation network of Lao et al. 2024,
    https://huggingface.co/papers/2203.13987.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: Monodepth2HeadConfig
    ):
        super().__init__()
        self.pyramid = FeaturePyramid(channels, strides)
        self.maps_read = self.pyramid.maps_read
        channels, strides = self.pyramid.channels, self.pyramid.strides
        depth = len(channels)
        if depth > len(config.decoder_channels) or config.num_scales > depth:
            raise ValueError(
                f"head_config.decoder_channels has {len(config.decoder_channels)} entries and num_scales is "
                f"{config.num_scales}, but the encoder returns {depth} maps: decoder_channels requires at least "
                "as many entries as there are maps, num_scales must be at most their number."
            )
        self.num_scales = config.num_scales
        self.channels = list(config.decoder_channels[:depth])
        self.strides = (1.0, *strides[:-1])
        self.levels = nn.ModuleList(
            UpLevel(
                in_channels=channels[-1] if i == depth - 1 else self.channels[i + 1],
                skip_channels=channels[i - 1] if i > 0 else 0,
                out_channels=self.channels[i],
            )
            for i in range(depth)
        )

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; map 0 has the size of the (padded) image, map i that of encoder map i - 1."""
        decoded: list[Tensor] = []
        maps = self.pyramid(features.maps)
        x = maps[-1]
        for i in range(len(self.levels) - 1, -1, -1):
            skip = maps[i - 1] if i > 0 else None
            x = self.levels[i](x, skip, features.padded_size if skip is None else skip.shape[-2:])
            decoded.insert(0, x)
        return decoded

    def make_predictor(self, channels: int) -> nn.ModuleList:
        """One 3x3 convolution for each of the `num_scales` finest maps."""
        return nn.ModuleList(ReflectConv(given, channels) for given in self.channels[: self.num_scales])

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 3x3 convolution to `num_labels` channels at the resolution of the image."""
        return ReflectConv(self.channels[0], num_labels)
