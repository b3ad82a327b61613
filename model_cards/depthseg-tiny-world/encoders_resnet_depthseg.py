"""ResNet in the Monodepth2 form: five maps at strides 2 to 32, the first one taken before the max-pool.

Shape letters: B batch, H and W image size, C channels.

Annotations are not postponed in this file: `@strict` checks types, and skips those that are strings.
"""

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECK_EXPANSION = 4


@strict
class DepthSegResNetConfig(PreTrainedConfig):
    """Architecture of [`DepthSegResNet`].

    Args:
        depth (`int`, *optional*, defaults to `18`): 18, 34, 50 or 101 layers.
        width_factor (`float`, *optional*, defaults to `1.0`):
            Multiplies the channels of every stage (64, 128, 256, 512); each is rounded to a multiple of 8.
        num_channels (`int`, *optional*, defaults to `3`): Channels of the input image.

    Raises:
        huggingface_hub.errors.StrictDataclassError: For a wrong type, another depth or a width that leaves no channel.
    """

    model_type = "depthseg_resnet"

    depth: int = 18
    width_factor: float | int = 1.0
    num_channels: int = 3

    def validate_architecture(self) -> None:
        """Check the values; called by `@strict` when the configuration is made and when it is saved."""
        if self.depth not in BLOCKS_PER_STAGE:
            raise ValueError(f"encoder_config.depth is {self.depth}; allowed are {sorted(BLOCKS_PER_STAGE)}.")
        if not 0.125 <= self.width_factor <= 4:
            raise ValueError(
                f"encoder_config.width_factor is {self.width_factor}; it must lie between 0.125 (8 channels in the "
                "first stage) and 4."
            )

    @property
    def stage_widths(self) -> list[int]:
        """Inner channels of the stem and first stage, then of stages 2 to 4."""
        return [max(8, round(base * self.width_factor / 8) * 8) for base in (64, 128, 256, 512)]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34). Source: https://huggingface.co/papers/1512.03385."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
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

    def __init__(self, in_channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
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


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the identity, or a strided 1x1 projection where the shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class DepthSegResNet(PreTrainedModel):
    """ResNet without classifier that returns the stem's map and the four stages' maps.

    Parameter names are those of torchvision (`conv1`, `bn1`, `layer1.0.conv1`, ...), so that published weights fit.

    Source: He et al. 2016, https://huggingface.co/papers/1512.03385; the choice of maps is that of Godard et al.
    2019 (Monodepth2), https://huggingface.co/papers/1806.01260, section 4.
    """

    config: DepthSegResNetConfig
    config_class = DepthSegResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: DepthSegResNetConfig):
        super().__init__(config)
        block = BasicBlock if config.depth < 50 else Bottleneck
        widths = config.stage_widths
        self.conv1 = nn.Conv2d(config.num_channels, widths[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        in_channels = widths[0]
        for stage, (width, blocks) in enumerate(zip(widths, BLOCKS_PER_STAGE[config.depth], strict=True), start=1):
            layers = []
            for index in range(blocks):
                layers.append(block(in_channels, width, stride=2 if stage > 1 and index == 0 else 1))
                in_channels = width * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        """Let transformers run `_init_weights` on every module, as it does for its own models."""
        return False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        else:
            super()._init_weights(module)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Encode an image.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The scaled image; any size from 1x1 up.

        Returns:
            `list[torch.Tensor]`: five maps, shallow to deep, the i-th of size `ceil(H / 2**(i+1))` by
            `ceil(W / 2**(i+1))`.
        """
        maps = [self.relu(self.bn1(self.conv1(pixel_values)))]
        maps.append(self.layer1(self.maxpool(maps[-1])))
        for stage in (self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps
