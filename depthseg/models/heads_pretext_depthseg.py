"""The decoders of pretext tasks, which are none of depth or labels and so never pass for one of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_depthseg import build_head_on


class PretextHead(nn.Module):
    """A decoder body as depth has it, and a predictor of any number of channels for each scale that depth trains.

    Args:
        encoder ([`DepthSegEncoder`]): Whose maps the body reads.
        config ([`DepthSegConfig`]): Its `head_type` and `head_config`.
        pictures (`int`): Of how many pictures the maps lie side by side.
        channels (`int`): What is predicted for each pixel.

    Raises:
        ValueError: For the head `native`, and as [`build_head`].
    """

    def __init__(self, encoder: Any, config: Any, pictures: int, channels: int):
        super().__init__()
        if config.head_type == "native":
            raise ValueError(
                "head_type is 'native', the decoder of a depth model of transformers, which predicts depth and labels "
                "only; choose another head_type, such as 'dpt'."
            )
        self.body = build_head_on(encoder, config, pictures)
        self.body.serve(depth=True, labels=False)
        self.predictor = self.body.make_predictor(channels)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """Predict `(B, channels, h, w)` for each scale, finest first; they cover the image as given."""
        decoded = self.body(features)
        predicted = [predictor(level) for predictor, level in zip(self.predictor, decoded, strict=False)]
        if features.input_size == features.padded_size:
            return predicted
        return [features.to_input(scale) for scale in predicted]


def flow_head(encoder: Any, config: Any) -> nn.Module:
    """From the maps of two pictures to steps to the right and down."""
    return PretextHead(encoder, config, pictures=2, channels=2)


def reconstruction_head(encoder: Any, config: Any) -> nn.Module:
    """From the maps of a picture to colours."""
    return PretextHead(encoder, config, pictures=1, channels=3)


def classification_head(encoder: Any, config: Any) -> nn.Module:
    """From the mean of the deepest map to class scores."""
    return nn.Linear(encoder.channels[-1], config.num_labels)


PRETEXT_HEADS: dict[str, Callable[[Any, Any], nn.Module]] = {
    "DepthSegForOpticalFlow": flow_head,
    "DepthSegForImageReconstruction": reconstruction_head,
    "DepthSegForImageClassification": classification_head,
}
"""Class -> what builds its `pretext_head` for an encoder and a configuration."""
