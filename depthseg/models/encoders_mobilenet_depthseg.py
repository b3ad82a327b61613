"""MobileNetV2: five maps at strides 2 to 32, with torchvision's parameter names.

Shape letters: B batch, H and W image size, C channels.

Annotations are not postponed in this file: `@strict` checks types, and skips those that are strings.
"""

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .encoders_convolutional_depthseg import ConvolutionalBackbone, ConvolutionalEncoder, scaled_channels

# Table 2 of the paper: expansion, channels, number of blocks, stride of the first block.
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEM_CHANNELS = 32
LAST_CHANNELS = 1280


@strict
class DepthSegMobileNetV2Config(PreTrainedConfig):
    """Architecture of [`DepthSegMobileNetV2`].

    Args:
        width_factor (`float`, *optional*, defaults to `1.0`):
            Multiplies the channels of every layer; each is rounded to a multiple of 8. The last 1x1 convolution, which
            only a classifier of whole images has, does not become narrower than 1280 channels.
        num_channels (`int`, *optional*, defaults to `3`): Channels of the input image.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type, or a width outside 0.1 to 4.
    """

    model_type = "depthseg_mobilenet_v2"

    width_factor: float | int = 1.0
    num_channels: int = 3

    def validate_architecture(self) -> None:
        """Check the values; called by `@strict` when the configuration is created and when it is saved."""
        if not 0.1 <= self.width_factor <= 4:
            raise ValueError(f"encoder_config.width_factor is {self.width_factor}; it must be between 0.1 and 4.")

    @property
    def last_channels(self) -> int:
        """Channels of the last 1x1 convolution of a classifier."""
        return scaled_channels(LAST_CHANNELS, max(1.0, self.width_factor))


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Return a convolution, its norm and a ReLU that ends at 6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """A 1x1 convolution to more channels, a 3x3 one per channel, and a linear 1x1 one to few channels.

    Source: Sandler et al. 2018, https://huggingface.co/papers/1801.04381, table 1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int):
        super().__init__()
        width = in_channels * expansion
        self.adds_input = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *([] if expansion == 1 else [convolution(in_channels, width, 1)]),
            convolution(width, width, 3, stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, out_channels, ceil(H / stride), ceil(W / stride))`."""
        return x + self.conv(x) if self.adds_input else self.conv(x)


class DepthSegMobileNetV2(ConvolutionalBackbone):
    """MobileNetV2 up to its last block, which returns the last map of each stride.

    Parameter names are those of torchvision (`features.0.0`, `features.1.conv.0.0`, ...), as in published weights. The
    last 1x1 convolution (torchvision's `features.18`) belongs to classifiers: see [`MobileNetV2Encoder.last_stage`].

    Source: Sandler et al. 2018, https://huggingface.co/papers/1801.04381, table 2; dense prediction reads the map
    before the last convolution, section 6.3.
    """

    config: DepthSegMobileNetV2Config
    config_class = DepthSegMobileNetV2Config

    def __init__(self, config: DepthSegMobileNetV2Config):
        super().__init__(config)
        channels = scaled_channels(STEM_CHANNELS, config.width_factor)
        features = [convolution(config.num_channels, channels, 3, 2)]
        # The number of modules of `features` up to the end of each stage.
        self.stage_ends = []
        for expansion, base, blocks, stride in BLOCKS:
            if stride == 2:
                self.stage_ends.append(len(features))
            width = scaled_channels(base, config.width_factor)
            for index in range(blocks):
                features.append(InvertedResidual(channels, width, stride if index == 0 else 1, expansion))
                channels = width
        self.stage_ends.append(len(features))
        self.features = nn.Sequential(*features)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Encode an image.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The scaled image; any size from 1x1 up.

        Returns:
            `list[torch.Tensor]`: five maps, shallow to deep, the i-th of size `ceil(H / s)` by `ceil(W / s)` with
            the stride `s = 2**(i+1)`.
        """
        return self.run_stages(self.features, pixel_values)


class MobileNetV2Encoder(ConvolutionalEncoder):
    """MobileNetV2 at strides 2 to 32."""

    def build_backbone(self, config: DepthSegMobileNetV2Config) -> DepthSegMobileNetV2:
        """Return a new MobileNetV2."""
        return DepthSegMobileNetV2(config)

    def last_stage(self) -> tuple[nn.Module, int]:
        """Return the last 1x1 convolution, and its channels."""
        channels = self.backbone.config.last_channels
        return convolution(self.channels[-1], channels, 1), channels
