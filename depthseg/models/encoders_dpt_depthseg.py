"""The encoder of DPT as in transformers: a plain ViT, or the hybrid of a BiT ResNet and a ViT."""

from __future__ import annotations

from torch import Tensor
from transformers import DPTModel, PreTrainedConfig

from .encoders_base_depthseg import DepthSegEncoder, unfold_tokens


class DPTEncoder(DepthSegEncoder):
    """DPT's own ViT; `encoder_config.backbone_out_indices` are the selected layers, counted from 0.

    The hybrid returns the first two stages of its ResNet, at strides 4 and 8, and then the layers of its ViT. Position
    embeddings are interpolated for any size; transformers itself supports the hybrid at one size only.

    Source: Ranftl et al. 2021, https://huggingface.co/papers/2103.13413.
    """

    def __init__(self, config: PreTrainedConfig):
        self.multiple = int(config.patch_size)
        super().__init__(config)

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Check that this is a DPT with its own encoder, and the selected layers."""
        if config.backbone_config is not None and not config.is_hybrid:
            raise ValueError(
                "encoder_config of model type 'dpt' has a backbone_config without is_hybrid=True. The backbone is "
                f"then the encoder; give encoder_config={{'model_type': {config.backbone_config.model_type!r}, ...}}."
            )
        layers = config.num_hidden_layers
        if len(config.backbone_out_indices) != 4 or not all(0 <= i < layers for i in config.backbone_out_indices):
            raise ValueError(
                f"encoder_config.backbone_out_indices is {config.backbone_out_indices}; a DPT with {layers} layers "
                f"requires four entries from 0 to {layers - 1}."
            )

    def build_backbone(self, config: PreTrainedConfig) -> DPTModel:
        """Return a new DPT without neck, head and pooler."""
        return DPTModel(config, add_pooling_layer=False)

    @staticmethod
    def read_layers(config: PreTrainedConfig) -> list[int]:
        """Return the layers of the ViT that are read."""
        return sorted(config.backbone_out_indices)[2 if config.is_hybrid else 0 :]

    @staticmethod
    def extract(backbone: DPTModel, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return four maps and their CLS tokens; the stages of a ResNet have none."""
        config = backbone.config
        options = {"interpolate_pos_encoding": True} if config.is_hybrid else {}
        embedded = backbone.embeddings(pixel_values, **options)
        layers = DPTEncoder.read_layers(config)
        hidden, tokens = embedded.last_hidden_states, []
        for index, layer in enumerate(backbone.encoder.layer[: layers[-1] + 1]):
            hidden = layer(hidden)
            if index in layers:
                tokens.append(hidden)
        maps, prefixes = unfold_tokens(tokens, pixel_values.shape[-2:], config.patch_size)
        stages = list(embedded.intermediate_activations or [])
        return [*stages, *maps], [None] * len(stages) + prefixes
