"""A light mask head: learned queries beside the tokens of an encoder that may be frozen.

Shape letters: B batch, Q queries, N cells of a map, C channels, h and w map size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import check_counts, resize_like
from .heads_masks_depthseg import MaskHead, MaskHeadConfig

MAX_MAPS = 4
TOKEN_STRIDE = 16
MASK_STRIDE = 4


@dataclass(frozen=True)
class MaskQueriesHeadConfig(MaskHeadConfig):
    """Options of [`MaskQueriesHead`], beside those of every mask head.

    Args:
        channels (`int`, *optional*, defaults to `256`): Channels of queries and tokens.
        num_attention_heads (`int`, *optional*, defaults to `8`): Attention heads; a divisor of `channels`.
        num_layers (`int`, *optional*, defaults to `3`): Transformer layers over queries and tokens.
    """

    channels: int = 256
    num_attention_heads: int = 8
    num_layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(channels=self.channels, num_attention_heads=self.num_attention_heads, num_layers=self.num_layers)
        if self.channels % self.num_attention_heads:
            raise ValueError(
                f"head_config.channels is {self.channels}; it must be a multiple of num_attention_heads, which is "
                f"{self.num_attention_heads}."
            )


class ChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of maps `(B, C, h, w)`.

    By `LayerNorm` in the name of a class, transformers knows which module to initialise as a norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each cell."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class JointLayer(nn.Module):
    """Self-attention over queries and tokens together, and a feed-forward network; norms come first."""

    def __init__(self, channels: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(channels)
        self.inputs = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, Q + N, C)` to the same shape."""
        heads = self.inputs(self.attention_norm(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
        x = x + self.output(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.feedforward(x)


class MaskQueriesHead(MaskHead):
    """Learned queries join the tokens in a few transformer layers; there is no pixel decoder.

    The last four maps are normalised, projected and added up (lateral connections), so that an encoder whose weights
    stay fixed still gives what its deepest layer has dropped. Of maps with several strides, the one of stride nearest
    to 16 gives the grid of the tokens, and the others are resized to it. Tokens are upsampled to a stride of at most
    4, and a mask is the product of a query with each cell.

    Source: Kerssies et al. 2025 (EoMT), https://huggingface.co/papers/2503.19108, where the queries join the last
    layers of the encoder itself. Here they have layers of their own, and the encoder's output does not depend on them.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: MaskQueriesHeadConfig
    ):
        maps_read = slice(-MAX_MAPS, None)
        strides = strides[maps_read]
        nearest = min(range(len(strides)), key=lambda index: abs(math.log2(strides[index] / TOKEN_STRIDE)))
        num_upscalings = max(0, math.ceil(math.log2(strides[nearest] / MASK_STRIDE)))
        super().__init__(config.channels, strides[nearest] / 2**num_upscalings, config)
        self.maps_read = maps_read
        self.grid = nearest
        # Maps of a hierarchical encoder round odd sizes up: what is upsampled from a coarser one may be too large.
        self.like = strides.index(self.strides[0]) if self.strides[0] in strides else None
        width = config.channels
        self.laterals = nn.ModuleList(
            nn.Sequential(ChannelLayerNorm(given), nn.Conv2d(given, width, 1)) for given in channels[maps_read]
        )
        self.queries = nn.Embedding(config.num_queries, width)
        self.layers = nn.ModuleList(JointLayer(width, config.num_attention_heads) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(width)
        self.upscale = nn.Sequential(
            *(
                nn.Sequential(
                    nn.ConvTranspose2d(width, width, 2, stride=2),
                    nn.GELU(),
                    nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                    ChannelLayerNorm(width),
                )
                for _ in range(num_upscalings)
            )
        )
        self.mask_embedding = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`MaskHead`]; the masks and queries after the last layer alone."""
        maps = features.maps[self.maps_read]
        grid = maps[self.grid]
        tokens: Any = sum(
            resize_like(lateral(level), grid) for lateral, level in zip(self.laterals, maps, strict=True)
        )
        queries = self.queries.weight.expand(grid.shape[0], -1, -1)
        x = torch.cat([queries, tokens.flatten(2).transpose(1, 2)], dim=1)
        for layer in self.layers:
            x = layer(x)
        queries, tokens = self.norm(x).split([queries.shape[1], x.shape[1] - queries.shape[1]], dim=1)
        pixels = self.upscale(tokens.transpose(1, 2).unflatten(2, grid.shape[-2:]))
        if self.like is not None:
            pixels = resize_like(pixels, maps[self.like])
        return [torch.einsum("bqc,bchw->bqhw", self.mask_embedding(queries), pixels), queries]
