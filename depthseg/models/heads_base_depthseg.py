"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, fields
from typing import Any

from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures

ENDINGS = ("last_layer", "segmentation_block")


class DepthSegHead(nn.Module, ABC):
    """A decoder body and the factories of its possible last layers.

    Attributes:
        channels (`list[int]`): Channels of the decoder maps, finest first.
        strides (`tuple[float, ...]`): Input pixels per cell of the decoder maps, finest first.
        maps_read (`slice`): Which of the encoder's maps the head reads.
        classifier_map (`int`): Which decoder map the classifier reads.
        activates_depth (`bool`): Whether the depth predictors include their own activation, with values from 0 to 1 as
            fractions of `config.max_depth`; otherwise the model applies that of `config.depth_type`.
    """

    channels: list[int]
    strides: tuple[float, ...]
    maps_read = slice(None)
    classifier_map = 0
    activates_depth = False

    @abstractmethod
    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """Decode an image's features.

        Args:
            features ([`EncoderFeatures`]): Maps `(B, C_i, h_i, w_i)`, shallow to deep.

        Returns:
            `list[torch.Tensor]`: decoder maps `(B, channels[i], h, w)`, finest first; they cover the padded image.
        """

    @abstractmethod
    def make_predictor(self, channels: int) -> nn.ModuleList:
        """Return one module per trained scale, finest first, each from its decoder map to `channels` channels."""

    def make_depth_predictor(self) -> nn.ModuleList:
        """Return the predictors of depth: one channel per scale."""
        return self.make_predictor(1)

    @abstractmethod
    def make_classifier(self, num_labels: int) -> nn.Module:
        """Return the module from decoder map `classifier_map` to `num_labels` channels."""

    def predict_labels(
        self, classifier: nn.Module, maps: list[Tensor], are_compared: bool = False
    ) -> tuple[Tensor, Any]:
        """Apply the classifier to the decoder maps.

        Args:
            classifier (`nn.Module`): The classifier.
            maps (`list[torch.Tensor]`): The decoder maps.
            are_compared (`bool`, *optional*, defaults to `False`): Whether labels are there to compare with, so that
                no gradient is needed of logits that [`compute_mask_loss`] does not read.

        Returns:
            `tuple[torch.Tensor, Any]`: logits `(B, K, h, w)`, and the masks that [`compute_mask_loss`] compares with
            the labels; `None` for a head that predicts each pixel, whose logits are compared.
        """
        return classifier(maps[self.classifier_map]), None

    def compute_mask_loss(
        self, features: EncoderFeatures, masks: Any, labels: Tensor, ignore_index: int, num_valid: Tensor | int | None
    ) -> Tensor:
        """Compare predicted masks with class ids `(B, H', W')`; see [`segmentation_loss`] for the arguments."""
        raise NotImplementedError(f"{type(self).__name__} predicts no masks.")

    def predict_depth(self, predictors: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
        """Apply the depth predictors to the decoder maps; one `(B, 1, h, w)` per trained scale, finest first."""
        return [predictor(level) for predictor, level in zip(predictors, maps, strict=False)]

    def serve(self, depth: bool, labels: bool) -> None:
        """Register, once, the last layers that read this head; modules that none of them needs can be skipped."""

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters that no output depends on; distributed training would wait for their gradients."""
        return []


class SegmentationBlock(nn.Sequential):
    """DPT's own classifier on the fused features `(B, C, h, w)`: logits `(B, K, 2h, 2w)`.

    Source: Ranftl et al. 2021, https://huggingface.co/papers/2103.13413, supplementary material.
    """

    def __init__(self, channels: int, num_labels: int, dropout: float = 0.1):
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(channels, num_labels, 1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        )


def check_ending(ending: str) -> None:
    """Refuse an ending that is not in [`ENDINGS`]."""
    if ending not in ENDINGS:
        raise ValueError(f"head_config.ending is {ending!r}; allowed are {', '.join(ENDINGS)}.")


def complete_options(config_class: type, options: dict[str, Any] | None, where: str) -> dict[str, Any]:
    """Check options against a dataclass and fill in its defaults.

    Args:
        config_class (`type`): Frozen dataclass whose constructor checks values.
        options (`dict`, *optional*): Some or all of its fields.
        where (`str`): Owner of the options, for the error message.

    Returns:
        `dict`: every option, as plain JSON types.

    Raises:
        ValueError: For an unknown option, or a value that the dataclass refuses.
    """
    known = [field.name for field in fields(config_class)]
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        raise ValueError(f"head_config has no option {', '.join(unknown)} for {where}; it has {', '.join(known)}.")
    config = config_class(**(options or {}))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
