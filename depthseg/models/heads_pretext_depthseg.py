"""The decoders of pre-training tasks other than depth and segmentation, kept separate from the decoders of these."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_depthseg import build_head_on


class ImageClassifier(nn.Linear):
    """The mean of the encoder's deepest map, and one linear layer; before them what the encoder's network has there.

    Args:
        encoder ([`DepthSegEncoder`]): The encoder whose deepest map it reads.
        num_labels (`int`): Number of classes.
    """

    def __init__(self, encoder: Any, num_labels: int):
        last_stage, channels = encoder.last_stage()
        super().__init__(channels, num_labels)
        self.last_stage = last_stage

    def forward(self, deepest_map: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to class logits `(B, num_labels)`."""
        return super().forward(self.last_stage(deepest_map).mean((2, 3)))


class PretextHead(nn.Module):
    """The decoder body of depth models, with a predictor of any number of channels at each trained scale.

    Args:
        encoder ([`DepthSegEncoder`]): The encoder whose maps the body reads.
        config ([`DepthSegConfig`]): Its `head_type` and `head_config` are used.
        num_images (`int`): Number of images whose maps are concatenated.
        channels (`int`): Number of predicted channels per pixel.

    Raises:
        ValueError: For the head `native`, and as [`build_head`].
    """

    def __init__(self, encoder: Any, config: Any, num_images: int, channels: int):
        super().__init__()
        if config.head_type == "native":
            raise ValueError(
                "head_type is 'native', the decoder of a depth model of transformers, which supports only depth and "
                "segmentation; choose another head_type, such as 'dpt'."
            )
        self.body = build_head_on(encoder, config, num_images)
        self.body.serve(depth=True, labels=False)
        self.predictor = self.body.make_predictor(channels)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """Predict `(B, channels, h, w)` for each scale, finest first; they cover the input image."""
        decoded = self.body(features)
        predicted = [predictor(level) for predictor, level in zip(self.predictor, decoded, strict=False)]
        if features.input_size == features.padded_size:
            return predicted
        return [features.to_input(scale) for scale in predicted]
