"""EfficientNet-Lite: five maps at strides 2 to 32, with TensorFlow's padding.

EfficientNet without squeeze and excitation, with ReLU6, and with a stem and a last layer of one width in all variants.

Shape letters: B batch, H and W image size, C channels.

Annotations are not postponed in this file: `@strict` checks types, and skips those that are strings.
"""

import math

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig

from .encoders_convolutional_depthseg import ConvolutionalBackbone, ConvolutionalEncoder, scaled_channels

# Table 1 of the paper: expansion, channels, number of blocks, stride of the first block, kernel size.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM_CHANNELS = 32
LAST_CHANNELS = 1280
# Per variant the factors of width and of depth.
VARIANTS = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01


@strict
class DepthSegEfficientNetLiteConfig(PreTrainedConfig):
    """Architecture of [`DepthSegEfficientNetLite`].

    Args:
        variant (`int`, *optional*, defaults to `0`): 0 to 4, from small to large.
        width_factor (`float`, *optional*, defaults to `1.0`):
            Multiplies the channels of the variant's blocks; each is rounded to a multiple of 8. 1 is the published
            network. Stem (32) and last 1x1 convolution (1280) keep their width.
        num_channels (`int`, *optional*, defaults to `3`): Channels of the input image.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type, another variant or a width outside 0.1 to 4.
    """

    model_type = "depthseg_efficientnet_lite"

    variant: int = 0
    width_factor: float | int = 1.0
    num_channels: int = 3

    def validate_architecture(self) -> None:
        """Check the values; called by `@strict` when the configuration is created and when it is saved."""
        if self.variant not in VARIANTS:
            raise ValueError(f"encoder_config.variant is {self.variant}; allowed are {sorted(VARIANTS)}.")
        if not 0.1 <= self.width_factor <= 4:
            raise ValueError(f"encoder_config.width_factor is {self.width_factor}; it must be between 0.1 and 4.")

    @property
    def stages(self) -> list[tuple[int, int, int, int, int]]:
        """Expansion, channels, number of blocks, stride and kernel size of each of the seven stages."""
        width, depth = VARIANTS[self.variant]
        last = len(STAGES) - 1
        return [
            (
                expansion,
                scaled_channels(channels, width * self.width_factor),
                blocks if index in (0, last) else math.ceil(blocks * depth),
                stride,
                kernel_size,
            )
            for index, (expansion, channels, blocks, stride, kernel_size) in enumerate(STAGES)
        ]


class SamePaddedConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow does: as little as gives `ceil(size / stride)`, the odd pixel at the end.

    With stride 2 an even image is padded at the right and bottom only, where PyTorch pads at the left and top too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, out_channels, ceil(H / stride), ceil(W / stride))`."""
        # The kernel is no smaller than the stride, so neither difference is negative.
        below, beside = (
            kernel_size - 1 - (side - 1) % stride
            for side, kernel_size, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True)
        )
        padding = (beside // 2, beside - beside // 2, below // 2, below - below // 2)
        return super().forward(F.pad(x, padding))


def norm(channels: int) -> nn.BatchNorm2d:
    """Return a norm with the constants of the published networks."""
    return nn.BatchNorm2d(channels, NORM_EPSILON, NORM_MOMENTUM)


class EfficientNetBlock(nn.Module):
    """A 1x1 convolution to more channels, one per channel, and a linear 1x1 one to few channels.

    Source: Tan and Le 2019, https://huggingface.co/papers/1905.11946.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel_size: int, expansion: int):
        super().__init__()
        width = in_channels * expansion
        self.adds_input = stride == 1 and in_channels == out_channels
        self.expand_conv: nn.Module | None = None
        self.bn0: nn.Module | None = None
        if expansion != 1:
            self.expand_conv = nn.Conv2d(in_channels, width, 1, bias=False)
            self.bn0 = norm(width)
        self.depthwise_conv = SamePaddedConv2d(width, width, kernel_size, stride, groups=width, bias=False)
        self.bn1 = norm(width)
        self.project_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn2 = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, out_channels, ceil(H / stride), ceil(W / stride))`."""
        out = x if self.expand_conv is None or self.bn0 is None else F.relu6(self.bn0(self.expand_conv(x)))
        out = F.relu6(self.bn1(self.depthwise_conv(out)))
        out = self.bn2(self.project_conv(out))
        return x + out if self.adds_input else out


class DepthSegEfficientNetLite(ConvolutionalBackbone):
    """EfficientNet-Lite up to its last block, which returns the last map of each stride.

    Parameter names are those of published PyTorch weights without their leading underscores (`conv_stem`, `bn0`,
    `blocks.0.depthwise_conv`, ...). The last 1x1 convolution belongs to classifiers: see
    [`EfficientNetLiteEncoder.last_stage`].

    Source: Tan and Le 2019, https://huggingface.co/papers/1905.11946, table 1; what "Lite" changes:
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """

    config: DepthSegEfficientNetLiteConfig
    config_class = DepthSegEfficientNetLiteConfig

    def __init__(self, config: DepthSegEfficientNetLiteConfig):
        super().__init__(config)
        self.conv_stem = SamePaddedConv2d(config.num_channels, STEM_CHANNELS, 3, 2, bias=False)
        self.bn0 = norm(STEM_CHANNELS)
        channels = STEM_CHANNELS
        blocks: list[nn.Module] = []
        # The number of blocks up to the end of each stride.
        self.stage_ends = []
        for expansion, width, count, stride, kernel_size in config.stages:
            if stride == 2:
                self.stage_ends.append(len(blocks))
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(EfficientNetBlock(channels, width, step, kernel_size, expansion))
                channels = width
        self.stage_ends.append(len(blocks))
        self.blocks = nn.Sequential(*blocks)
        self.post_init()

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Encode an image.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The scaled image; any size from 1x1 up.

        Returns:
            `list[torch.Tensor]`: five maps, shallow to deep, the i-th of size `ceil(H / s)` by `ceil(W / s)` with
            the stride `s = 2**(i+1)`.
        """
        return self.run_stages(self.blocks, F.relu6(self.bn0(self.conv_stem(pixel_values))))


class EfficientNetLiteEncoder(ConvolutionalEncoder):
    """EfficientNet-Lite at strides 2 to 32."""

    def build_backbone(self, config: DepthSegEfficientNetLiteConfig) -> DepthSegEfficientNetLite:
        """Return a new EfficientNet-Lite."""
        return DepthSegEfficientNetLite(config)

    def last_stage(self) -> tuple[nn.Module, int]:
        """Return the last 1x1 convolution, and its channels."""
        convolution = nn.Conv2d(self.channels[-1], LAST_CHANNELS, 1, bias=False)
        return nn.Sequential(convolution, norm(LAST_CHANNELS), nn.ReLU6(inplace=True)), LAST_CHANNELS
