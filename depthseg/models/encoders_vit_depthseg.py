"""Plain vision transformers that transformers does not provide as backbones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, ViTMAEModel, ViTModel

from .encoders_base_depthseg import DepthSegEncoder, unfold_tokens


class ViTEncoder(DepthSegEncoder):
    """A plain ViT, as in DPT: hidden states after the selected layers, before the final norm.

    Transformers does not provide `ViTModel` as a backbone. `encoder_config.out_indices` are the numbers of layers (1 =
    after the first); by default four evenly spaced ones, (3, 6, 9, 12) of 12, as in DPT.
    """

    def __init__(self, config: PreTrainedConfig):
        self.multiple = int(config.patch_size)
        super().__init__(config)

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Set the default layers, or check the selected ones."""
        layers = config.num_hidden_layers
        if getattr(config, "out_indices", None) is None:
            config.out_indices = [layers * (i + 1) // 4 for i in range(4)]
        if not all(1 <= index <= layers for index in config.out_indices):
            raise ValueError(
                f"encoder_config.out_indices is {config.out_indices}; a ViT of {layers} layers allows 1 to {layers}."
            )

    def build_backbone(self, config: PreTrainedConfig) -> nn.Module:
        """Return a new ViT without pooler."""
        return ViTModel(config, add_pooling_layer=False)

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map per selected layer, each at the stride of the patches, and the CLS tokens."""
        output = backbone(pixel_values, interpolate_pos_encoding=True, output_hidden_states=True)
        return unfold_layers(backbone, output.hidden_states, pixel_values)


class ViTMAEEncoder(ViTEncoder):
    """The ViT of a masked autoencoder, without masking and with the patches in their original order.

    Its position embeddings are not trained, as in transformers.
    """

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Set the default layers, or check the selected ones, and disable masking."""
        config.mask_ratio = 0.0
        ViTEncoder.complete_config(config)

    def build_backbone(self, config: PreTrainedConfig) -> nn.Module:
        """Return a new ViT-MAE without decoder."""
        return ViTMAEModel(config)

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map per selected layer, each at the stride of the patches, and the CLS tokens."""
        batch, _, height, width = pixel_values.shape
        patch = backbone.config.patch_size
        # The backbone sorts patches by this noise; increasing values keep their order.
        noise = torch.arange((height // patch) * (width // patch), device=pixel_values.device).expand(batch, -1)
        output = backbone(pixel_values, noise=noise, interpolate_pos_encoding=True, output_hidden_states=True)
        return unfold_layers(backbone, output.hidden_states, pixel_values)


def unfold_layers(
    backbone: Any, hidden_states: tuple[Tensor, ...], pixel_values: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the maps and prefix tokens of the layers that the configuration selects."""
    tokens = [hidden_states[index] for index in backbone.config.out_indices]
    return unfold_tokens(tokens, pixel_values.shape[-2:], backbone.config.patch_size)
