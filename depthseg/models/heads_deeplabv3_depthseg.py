"""DeepLabV3: atrous spatial pyramid pooling on the deepest map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .encoders_base_depthseg import EncoderFeatures
from .heads_blocks_depthseg import (
    ConvNormReLU,
    ImageLevel,
    PixelHead,
    check_count_lists,
    check_counts,
    check_shares,
    resize_like,
)

IMAGE_NORMS = ("layer", "batch")


@dataclass(frozen=True)
class DeepLabV3HeadConfig:
    """Options of [`DeepLabV3Head`].

    Args:
        channels (`int`, *optional*, defaults to `256`): Channels of every branch and of their projection.
        rates (`tuple[int, ...]`, *optional*, defaults to `(6, 12, 18)`):
            Dilations of the 3x3 branches, in cells of the map; for stride 16, use twice these values at stride 8.
        image_norm (`str`, *optional*, defaults to `"layer"`):
            Norm of the image-level branch: `"layer"` (over the channels of each image, any batch size), or the papers'
            `"batch"`, which requires at least two images in training.
        norm_momentum (`float`, *optional*, defaults to `0.1`):
            Momentum of BatchNorm's statistics. The code of Lao et al. 2024 uses 0.0003, with which the statistics
            require about ten thousand steps before evaluation is meaningful.
        classifier_dropout (`float`, *optional*, defaults to `0.0`): Dropout before the classifier.
    """

    channels: int = 256
    rates: tuple[int, ...] = (6, 12, 18)
    image_norm: str = "layer"
    norm_momentum: float = 0.1
    classifier_dropout: float = 0.0

    def __post_init__(self) -> None:
        check_counts(channels=self.channels)
        check_count_lists(rates=self.rates)
        check_shares(norm_momentum=self.norm_momentum, classifier_dropout=self.classifier_dropout)
        if self.image_norm not in IMAGE_NORMS:
            raise ValueError(f"head_config.image_norm is {self.image_norm!r}; allowed are {', '.join(IMAGE_NORMS)}.")


class DeepLabV3Head(PixelHead):
    """A 1x1 convolution, dilated 3x3 convolutions and the mean of the deepest map, in parallel, then projected.

    It is designed for maps of stride 8 or 16, which plain ViTs have, and `depthseg_resnet` with
    `encoder_config.output_stride`.

    Source: Chen et al. 2017, https://huggingface.co/papers/1706.05587, section 3.3. No convolution between projection
    and classifier, and no skip from shallow maps: the variant of Lao et al. 2024,
    https://huggingface.co/papers/2203.13987.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: DeepLabV3HeadConfig
    ):
        super().__init__(slice(-1, None), config.channels, strides[-1], config.classifier_dropout)
        given, width, momentum = channels[-1], config.channels, config.norm_momentum
        self.pointwise = ConvNormReLU(given, width, 1, momentum=momentum)
        self.dilated = nn.ModuleList(ConvNormReLU(given, width, 3, rate, momentum) for rate in config.rates)
        self.needs_two_images = config.image_norm == "batch"
        norm = nn.BatchNorm2d(width, momentum=momentum) if self.needs_two_images else None
        self.image_level = ImageLevel(given, width, norm)
        self.projection = ConvNormReLU((2 + len(config.rates)) * width, width, 1, momentum=momentum)

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, at the stride of the deepest encoder map.

        Raises:
            ValueError: For a single image in training with `image_norm="batch"`.
        """
        (given,) = features.maps[self.maps_read]
        if self.needs_two_images and self.training and len(given) == 1:
            raise ValueError(
                "head_config.image_norm is 'batch' and the batch has one image, which is too few for batch "
                "statistics; use a batch size of 2 or more, or image_norm 'layer'."
            )
        branches = [self.pointwise(given), *(branch(given) for branch in self.dilated)]
        branches.append(resize_like(self.image_level(given), given))
        return [self.projection(torch.cat(branches, dim=1))]
