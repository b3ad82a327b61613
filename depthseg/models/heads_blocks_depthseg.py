"""Building blocks of dense heads.

Shape letters: B batch, C channels, K classes, h and w map size.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .heads_base_depthseg import DepthSegHead


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, BatchNorm and ReLU; the size of the map is kept."""

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int = 3, dilation: int = 1, momentum: float = 0.1
    ):
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, channels, kernel_size, padding=padding, dilation=dilation, bias=False),
            nn.BatchNorm2d(channels, momentum=momentum),
            nn.ReLU(),
        )


class ImageLevel(nn.Sequential):
    """Image-level features: the mean over a map, `(B, C, h, w)` to `(B, channels, 1, 1)`, convolved, normalised, ReLU.

    Papers normalise this vector with BatchNorm, which has only one value per image and channel: statistics of one
    image are undefined, with two images only signs remain, and evaluation differs from training. The norm here is over
    the channels of each image (GroupNorm with one group), independent of batch and mode; its parameters have the
    shapes of BatchNorm's.
    """

    def __init__(self, in_channels: int, channels: int, norm: nn.Module | None = None):
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.GroupNorm(1, channels) if norm is None else norm,
            nn.ReLU(),
        )


class PixelClassifier(nn.Conv2d):
    """Dropout and a 1x1 convolution: `(B, C, h, w)` to logits `(B, K, h, w)`."""

    def __init__(self, channels: int, num_labels: int, dropout: float):
        super().__init__(channels, num_labels, 1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return super().forward(F.dropout(x, self.dropout, self.training))


class PixelHead(DepthSegHead):
    """A head with one decoder map that a 1x1 convolution reads, for either task.

    Args:
        maps_read (`slice`): Which of the encoder's maps the head reads.
        channels (`int`): Channels of the decoder map.
        stride (`float`): Input pixels per cell of the decoder map.
        classifier_dropout (`float`, *optional*, defaults to `0.0`): Dropout before the classifier. Depth has none,
            because dropout biases a regression.
    """

    def __init__(self, maps_read: slice, channels: int, stride: float, classifier_dropout: float = 0.0):
        super().__init__()
        self.maps_read = maps_read
        self.channels = [channels]
        self.strides = (stride,)
        self.classifier_dropout = classifier_dropout

    def make_predictor(self, channels: int) -> nn.ModuleList:
        """One 1x1 convolution."""
        return nn.ModuleList([nn.Conv2d(self.channels[0], channels, 1)])

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 1x1 convolution to `num_labels` channels."""
        return PixelClassifier(self.channels[0], num_labels, self.classifier_dropout)


def resize_like(x: Tensor, reference: Tensor) -> Tensor:
    """Resize `(B, C, h, w)` bilinearly to the size of another map."""
    return F.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)


def check_counts(**options: Any) -> None:
    """Refuse head options, given by name, that are not integers of at least 1."""
    for name, value in options.items():
        if not is_count(value):
            raise ValueError(f"head_config.{name} is {value!r}; it must be an integer of at least 1.")


def check_count_lists(**options: Any) -> None:
    """Refuse head options, given by name, that are not lists of integers of at least 1."""
    for name, value in options.items():
        if not isinstance(value, (list, tuple)) or not value or not all(is_count(number) for number in value):
            raise ValueError(
                f"head_config.{name} is {value!r}; it must be a list of one or more integers, each at least 1."
            )


def is_count(value: Any) -> bool:
    """Whether a value is an integer of at least 1; True, which is an int in Python, does not count."""
    return type(value) is int and value >= 1


def check_shares(**options: Any) -> None:
    """Refuse head options, given by name, that are not numbers of at least 0 and below 1."""
    for name, value in options.items():
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise ValueError(f"head_config.{name} is {value!r}; it must be a number of at least 0 and below 1.")
