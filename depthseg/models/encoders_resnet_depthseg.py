"""ResNet as in Monodepth2: five maps, the first one from before the max-pool, at strides 2 to 32.

With dilation instead of the last strides the deeper maps have stride 8 or 16.

Shape letters: B batch, H and W image size, C channels.

Annotations are not postponed in this file: `@strict` checks types, and skips those that are strings.
"""

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .encoders_convolutional_depthseg import ConvolutionalBackbone, ConvolutionalEncoder

BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECK_EXPANSION = 4
OUTPUT_STRIDES = (8, 16, 32)


@strict
class DepthSegResNetConfig(PreTrainedConfig):
    """Architecture of [`DepthSegResNet`].

    Args:
        depth (`int`, *optional*, defaults to `18`): 18, 34, 50 or 101 layers.
        width_factor (`float`, *optional*, defaults to `1.0`):
            Multiplies the channels of every stage (64, 128, 256, 512); each is rounded to a multiple of 8.
        num_channels (`int`, *optional*, defaults to `3`): Channels of the input image.
        output_stride (`int`, *optional*, defaults to `32`):
            Input pixels per cell of the deepest map: 32, or 16 or 8 by dilation. The parameters and their meaning are
            the same: the denser maps contain those of stride 32 at every second or fourth cell.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type, another depth or a width without any channel.
    """

    model_type = "depthseg_resnet"

    depth: int = 18
    width_factor: float | int = 1.0
    num_channels: int = 3
    output_stride: int = 32

    def validate_architecture(self) -> None:
        """Check the values; called by `@strict` when the configuration is created and when it is saved."""
        if self.depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"encoder_config.depth is {self.depth}; allowed are {sorted(BLOCKS_PER_STAGE)}.")
        if not 0.125 <= self.width_factor <= 4:
            raise ValueError(
                f"encoder_config.width_factor is {self.width_factor}; it must be between 0.125 (8 channels in the "
                "first stage) and 4."
            )
        if self.output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"encoder_config.output_stride is {self.output_stride}; allowed are {OUTPUT_STRIDES}.")

    @property
    def stage_widths(self) -> list[int]:
        """Inner channels of the stem and first stage, then of stages 2 to 4."""
        return [max(8, round(base * self.width_factor / 8) * 8) for base in (64, 128, 256, 512)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34). Source: https://huggingface.co/papers/1512.03385.

    `dilations` are those before and after the stride; see [`stage_layout`].
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, dilations: tuple[int, int]):
        super().__init__()
        before, behind = dilations
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, before, before, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, behind, behind, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, width, ceil(H / stride), ceil(W / stride))`."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, the stride on the 3x3 (ResNet-50 and -101)."""

    expansion = BOTTLENECK_EXPANSION

    def __init__(self, in_channels: int, width: int, stride: int, dilations: tuple[int, int]):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilations[0], dilations[0], bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to `(B, 4 * width, ceil(H / stride), ceil(W / stride))`."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


def stage_layout(output_stride: int) -> list[tuple[int, tuple[int, int]]]:
    """Return the stride and the dilations of the first block of each of the four stages.

    If a stride is removed, the following convolutions run on a denser grid and keep their receptive field by dilation:
    their results on every second cell are those of the strided network. The preceding ones keep their dilation.

    Returns:
        `list[tuple[int, tuple[int, int]]]`: per stage the stride and the dilations before and after it.
    """
    layout, reached, dilation = [(1, (1, 1))], 4, 1
    for _ in range(3):
        before = dilation
        stride = 2 if reached < output_stride else 1
        reached, dilation = reached * stride, dilation * 2 // stride
        layout.append((stride, (before, dilation)))
    return layout


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the identity, or a strided 1x1 projection where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class DepthSegResNet(ConvolutionalBackbone):
    """ResNet without classifier that returns the stem's map and the four stages' maps.

    Parameter names are those of torchvision (`conv1`, `bn1`, `layer1.0.conv1`, ...), as in published weights.

    Source: He et al. 2016, https://huggingface.co/papers/1512.03385; the choice of maps is that of Godard et al.
    2019 (Monodepth2), https://huggingface.co/papers/1806.01260, section 4.
    """

    config: DepthSegResNetConfig
    config_class = DepthSegResNetConfig

    def __init__(self, config: DepthSegResNetConfig):
        super().__init__(config)
        block = BasicBlock if config.depth < 50 else Bottleneck
        widths = config.stage_widths
        self.conv1 = nn.Conv2d(config.num_channels, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        in_channels = widths[0]
        stages = zip(widths, BLOCKS_PER_STAGE[config.depth], stage_layout(config.output_stride), strict=True)
        for number, (width, blocks, (stride, dilations)) in enumerate(stages, start=1):
            layers = [block(in_channels, width, stride, dilations)]
            in_channels = width * block.expansion
            layers += [block(in_channels, width, 1, (dilations[1], dilations[1])) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.post_init()

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Encode an image.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The scaled image; any size from 1x1 up.

        Returns:
            `list[torch.Tensor]`: five maps, shallow to deep, the i-th of size `ceil(H / s)` by `ceil(W / s)` with
            the stride `s = min(2**(i+1), config.output_stride)`.
        """
        maps = [self.relu(self.bn1(self.conv1(pixel_values)))]
        maps.append(self.run_stage(self.layer1, self.maxpool(maps[-1])))
        for stage in (self.layer2, self.layer3, self.layer4):
            maps.append(self.run_stage(stage, maps[-1]))
        return maps


class ResNetEncoder(ConvolutionalEncoder):
    """The Monodepth2 ResNet."""

    def build_backbone(self, config: DepthSegResNetConfig) -> DepthSegResNet:
        """Return a new ResNet."""
        return DepthSegResNet(config)
