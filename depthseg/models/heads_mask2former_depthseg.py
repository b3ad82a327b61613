"""Mask2Former's pixel decoder and transformer decoder, on the maps of any encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers import initialization as init
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerMLPPredictionHead,
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import check_counts
from .heads_masks_depthseg import MaskHead, MaskHeadConfig
from .heads_pyramid_depthseg import FeaturePyramid

NORM_GROUPS = 32
FEATURE_STRIDES = (4, 8, 16, 32)
# The transformer decoder reads three levels; a fourth, finer one makes the masks finer.
MIN_LEVELS = 3


@dataclass(frozen=True)
class Mask2FormerHeadConfig(MaskHeadConfig):
    """Options of [`Mask2FormerHead`], beside those of every mask head.

    Args:
        channels (`int`, *optional*, defaults to `256`): Channels of both decoders; a multiple of 32.
        num_attention_heads (`int`, *optional*, defaults to `8`): Attention heads of both; a divisor of `channels`.
        pixel_layers (`int`, *optional*, defaults to `6`): Layers of the pixel decoder.
        pixel_feedforward (`int`, *optional*, defaults to `1024`): Channels inside each of them.
        decoder_layers (`int`, *optional*, defaults to `9`): Layers of the transformer decoder.
        decoder_feedforward (`int`, *optional*, defaults to `2048`): Channels inside each of them.
    """

    channels: int = 256
    num_attention_heads: int = 8
    pixel_layers: int = 6
    pixel_feedforward: int = 1024
    decoder_layers: int = 9
    decoder_feedforward: int = 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("channels", "num_attention_heads", "pixel_layers", "pixel_feedforward", "decoder_layers")
        check_counts(**{name: getattr(self, name) for name in (*names, "decoder_feedforward")})
        if self.channels % NORM_GROUPS or self.channels % self.num_attention_heads:
            raise ValueError(
                f"head_config.channels is {self.channels}; it must be a multiple of {NORM_GROUPS} and of "
                f"num_attention_heads, which is {self.num_attention_heads}."
            )


class Mask2FormerDecoders(Mask2FormerPreTrainedModel):
    """Both decoders of transformers, within a model of its family, whose rules initialise them."""

    # A choice of attention is for the encoder; these decoders keep their own and are not to refuse it.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: Mask2FormerConfig, channels: list[int]):
        super().__init__(config)
        self.pixel_decoder = Mask2FormerPixelDecoder(config, channels)
        self.transformer_module = Mask2FormerTransformerModule(config.feature_size, config)
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Let transformers run `_init_weights` on every module, as it does for its own models."""
        return False

    def _init_weights(self, module: nn.Module) -> None:
        # As in the authors' code. Older transformers has its own rules here, and zeros for the embedding of levels.
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, Mask2FormerPixelDecoder):
            init.normal_(module.level_embed)
        elif isinstance(module, Mask2FormerMLPPredictionHead):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
                    bound = 1 / math.sqrt(layer.in_features)
                    init.uniform_(layer.bias, -bound, bound)

    def forward(self, maps: list[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the masks `(B, Q, h, w)` and queries `(Q, B, C)` before and after every layer, first to last."""
        pixels = self.pixel_decoder(maps, return_dict=True)
        decoded = self.transformer_module(list(pixels.multi_scale_features), pixels.mask_features)
        return decoded.masks_queries_logits, decoded.intermediate_hidden_states


class Mask2FormerHead(MaskHead):
    """Multi-scale deformable attention over three maps, then queries with masked attention; masks at the finest map.

    For plain ViTs a [`FeaturePyramid`] provides the maps; of hierarchical encoders the last four are read.

    Source: Cheng et al. 2022, https://huggingface.co/papers/2112.01527.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: Mask2FormerHeadConfig
    ):
        pyramid = FeaturePyramid(channels, strides, max_levels=len(FEATURE_STRIDES))
        if len(pyramid.channels) < MIN_LEVELS:
            raise ValueError(
                f"head_type 'mask2former' requires at least {MIN_LEVELS} maps of a hierarchical encoder, but the "
                f"encoder returns {len(pyramid.channels)}; select more layers in encoder_config.out_indices."
            )
        super().__init__(config.channels, pyramid.strides[0], config)
        self.maps_read = pyramid.maps_read
        self.pyramid = pyramid
        self.decoders = Mask2FormerDecoders(decoder_config(config, len(pyramid.channels)), pyramid.channels)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`MaskHead`]; n is one more than the decoder layers, because the learned queries predict masks too."""
        masks, queries = self.decoders(self.pyramid(features.maps))
        return [*reversed(masks), *(layer.transpose(0, 1) for layer in reversed(queries))]


def decoder_config(config: Mask2FormerHeadConfig, num_levels: int) -> Mask2FormerConfig:
    """Return the options of both decoders under transformers' names."""
    # Strides are read only for their ratio: the number of levels above the three of the transformer decoder.
    strides = FEATURE_STRIDES[-num_levels:]
    return Mask2FormerConfig(
        feature_size=config.channels,
        mask_feature_size=config.channels,
        hidden_dim=config.channels,
        num_attention_heads=config.num_attention_heads,
        encoder_layers=config.pixel_layers,
        encoder_feedforward_dim=config.pixel_feedforward,
        # transformers counts the prediction before the first layer as one.
        decoder_layers=config.decoder_layers + 1,
        dim_feedforward=config.decoder_feedforward,
        num_queries=config.num_queries,
        feature_strides=list(strides),
        common_stride=strides[0],
    )
