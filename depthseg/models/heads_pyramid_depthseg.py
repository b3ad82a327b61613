"""A feature pyramid for encoders whose maps all have one stride."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

FACTORS = (4.0, 2.0, 1.0, 0.5)


class FeaturePyramid(nn.Module):
    """Builds a feature pyramid from the maps of a plain ViT; maps of hierarchical encoders are not changed.

    The four deepest maps are resized by 4, 2, 1 and 0.5, shallow to deep, and keep their channels. With fewer maps,
    some are used for several levels, a single one for all four (ViTDet's simple feature pyramid). The coarsest level
    rounds odd sizes up, so that no row or column is dropped. Prefix tokens are not used.

    Args:
        channels (`list[int]`): Channels of the encoder's maps, shallow to deep.
        strides (`tuple[float, ...]`): Input pixels per cell of those maps.
        max_levels (`int`, *optional*): Number of deepest maps of a hierarchical encoder that are returned; by default
            all.

    Attributes:
        channels (`list[int]`), strides (`tuple[float, ...]`): One entry per level, shallow to deep.
        maps_read (`slice`): Which of the encoder's maps it reads.

    Source: the neck of Bao et al. 2022 (BEiT), https://huggingface.co/papers/2106.08254, as in its segmentation
    model; Li et al. 2022 (ViTDet), https://huggingface.co/papers/2203.16527, section 3.
    """

    def __init__(self, channels: list[int], strides: tuple[float, ...], max_levels: int | None = None):
        super().__init__()
        self.is_plain = len(set(strides)) == 1
        self.maps_read = slice(-len(FACTORS) if self.is_plain else -(max_levels or len(channels)), None)
        if not self.is_plain:
            self.channels, self.strides = list(channels[self.maps_read]), tuple(strides[self.maps_read])
            return
        self.channels = spread(channels[self.maps_read])
        self.strides = tuple(strides[-1] / factor for factor in FACTORS)
        finest, finer = self.channels[:2]
        self.levels = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(finest, finest, 2, stride=2),
                    nn.BatchNorm2d(finest),
                    nn.GELU(),
                    nn.ConvTranspose2d(finest, finest, 2, stride=2),
                ),
                nn.ConvTranspose2d(finer, finer, 2, stride=2),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map `(B, C_i, h_i, w_i)`, shallow to deep, to `(B, channels[i], h, w)`, shallow to deep."""
        if not self.is_plain:
            return list(maps[self.maps_read])
        return [level(source) for level, source in zip(self.levels, spread(maps[self.maps_read]), strict=True)]


def spread(items: list[Any]) -> list[Any]:
    """Return a list of four items unchanged; repeat the items of a shorter one to get four."""
    return [items[level * len(items) // len(FACTORS)] for level in range(len(FACTORS))]
