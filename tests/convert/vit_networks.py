"""Small vision transformers and DPT heads in plain PyTorch, with the module names of the published code.

Each forward is written from the papers: Dosovitskiy et al. 2021 (blocks with norms first), Touvron et al. 2021 (layer
scales), Darcet et al. 2024 (registers), Su et al. 2021 (rotary positions), Ranftl et al. 2021 (DPT).
"""

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS = 128, 2


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x, rotate=None):
        b, n, c = x.shape
        q, k, v = (part.reshape(b, n, HEADS, c // HEADS).transpose(1, 2) for part in self.qkv(x).split(c, dim=-1))
        if rotate is not None:
            q, k = rotate(q), rotate(k)
        weights = (q @ k.transpose(-1, -2) / (c // HEADS) ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))


class MaskedKeyBias(nn.Linear):
    """DINOv3's linear layer, whose bias of the keys is stored and masked."""

    def __init__(self, width):
        super().__init__(width, 3 * width)
        mask = torch.ones(3 * width)
        mask[width : 2 * width] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, x):
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """DINOv2's gated layers of ViT-g: the hidden size is 2/3 of four widths, rounded up to a multiple of 8."""

    def __init__(self, width):
        super().__init__()
        hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width, scaled, mlp, eps):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = mlp(width)
        if scaled:
            self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x, rotate=None):
        scale1, scale2 = (self.ls1, self.ls2) if hasattr(self, "ls1") else (nn.Identity(), nn.Identity())
        x = x + scale1(self.attn(self.norm1(x), rotate))
        return x + scale2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    """DINO (plain), MAE (plain) and DINOv2 (layer scales, perhaps registers); images have their trained size."""

    def __init__(self, depth=4, patch=14, side=4, scaled=True, registers=0, mlp=Mlp, mask_token=True):
        super().__init__()
        self.patch_embed = PatchEmbed(WIDTH, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + side * side, WIDTH))
        if scaled and mask_token:
            self.mask_token = nn.Parameter(torch.randn(1, WIDTH))
        if registers:
            self.register_tokens = nn.Parameter(torch.randn(1, registers, WIDTH))
        self.blocks = nn.ModuleList(Block(WIDTH, scaled, mlp, 1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.image = side * patch

    def forward(self, image):
        """The tokens after every block, before the last norm."""
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        if hasattr(self, "register_tokens"):
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)
        after = []
        for block in self.blocks:
            x = block(x)
            after.append(x)
        return after


class Rope(nn.Module):
    """DINOv3's rotary positions: centres of patches from -1 to 1, height first, periods from 1 to 100."""

    def __init__(self, head):
        super().__init__()
        self.register_buffer("periods", 100 ** (2 * torch.arange(head // 4) / (head // 2)))

    def forward(self, rows, columns, prefix):
        y = 2 * (torch.arange(rows) + 0.5) / rows - 1
        x = 2 * (torch.arange(columns) + 0.5) / columns - 1
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2, 1)
        angles = (2 * torch.pi * centres / self.periods).flatten(1).repeat(1, 2)

        def rotate(q):
            tokens, rest = q[:, :, :prefix], q[:, :, prefix:]
            first, second = rest.chunk(2, dim=-1)
            turned = torch.cat([-second, first], -1)
            return torch.cat([tokens, rest * angles.cos() + turned * angles.sin()], 2)

        return rotate


class DinoV3(nn.Module):
    def __init__(self, depth=4, patch=16, registers=4):
        super().__init__()
        self.patch_embed = PatchEmbed(WIDTH, patch)
        self.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.storage_tokens = nn.Parameter(torch.randn(1, registers, WIDTH))
        self.mask_token = nn.Parameter(torch.randn(1, WIDTH))
        self.rope_embed = Rope(WIDTH // HEADS)
        self.blocks = nn.ModuleList(Block(WIDTH, True, Mlp, 1e-5) for _ in range(depth))
        for block in self.blocks:
            block.attn.qkv = MaskedKeyBias(WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-5)
        self.image, self.prefix, self.patch = 4 * patch, 1 + registers, patch

    def forward(self, image):
        x = self.patch_embed(image)
        tokens = torch.cat([self.cls_token, self.storage_tokens], 1).expand(len(x), -1, -1)
        x = torch.cat([tokens, x], 1)
        rotate = self.rope_embed(image.shape[-2] // self.patch, image.shape[-1] // self.patch, self.prefix)
        after = []
        for block in self.blocks:
            x = block(x, rotate)
            after.append(x)
        return after


class ResidualConvUnit(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    def __init__(self, width, has_residual=True):
        super().__init__()
        if has_residual:
            self.resConfUnit1 = ResidualConvUnit(width)
        self.resConfUnit2 = ResidualConvUnit(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, deeper, finer=None, size=None):
        x = deeper if finer is None else deeper + self.resConfUnit1(finer)
        x = self.resConfUnit2(x)
        size = size or (2 * x.shape[-2], 2 * x.shape[-1])
        return self.out_conv(F.interpolate(x, size=size, mode="bilinear", align_corners=True))


def scratch(necks, width, has_residual=True):
    part = nn.Module()
    for level, channels in enumerate(necks, 1):
        setattr(part, f"layer{level}_rn", nn.Conv2d(channels, width, 3, padding=1, bias=False))
        setattr(part, f"refinenet{level}", Fusion(width, has_residual or level < 4))
    return part


def fuse(part, maps):
    one, two, three, four = (getattr(part, f"layer{level}_rn")(maps[level - 1]) for level in range(1, 5))
    x = part.refinenet4(four, size=three.shape[-2:])
    x = part.refinenet3(x, three, size=two.shape[-2:])
    x = part.refinenet2(x, two, size=one.shape[-2:])
    return part.refinenet1(x, one)


class DepthAnythingHead(nn.Module):
    def __init__(self, necks=(24, 32, 40, 48), width=32, sky=False, has_residual=True):
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(WIDTH, neck, 1) for neck in necks)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(necks[0], necks[0], 4, 4),
                nn.ConvTranspose2d(necks[1], necks[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(necks[3], necks[3], 3, 2, 1),
            ]
        )
        self.scratch = scratch(necks, width, has_residual)
        self.scratch.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.scratch.output_conv2 = self.ending(width)
        if sky:
            self.scratch.sky_output_conv2 = self.ending(width)

    @staticmethod
    def ending(width):
        return nn.Sequential(nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1))

    def forward(self, maps, size):
        pyramid = [resize(conv(x)) for x, conv, resize in zip(maps, self.projects, self.resize_layers, strict=True)]
        x = self.scratch.output_conv1(fuse(self.scratch, pyramid))
        return self.scratch.output_conv2(F.interpolate(x, size=size, mode="bilinear", align_corners=True))[:, 0]


class DepthAnything(nn.Module):
    """Depth Anything 1 and 2; `layers` are counted from 0 as in the published code."""

    def __init__(self, layers, depth=12):
        super().__init__()
        self.pretrained = Vit(depth)
        self.depth_head = DepthAnythingHead()
        self.layers = layers

    def forward(self, image):
        """The output of the last convolution, before ReLU or sigmoid."""
        after = self.pretrained(image)
        side = image.shape[-1] // 14
        maps = [self.pretrained.norm(after[i])[:, 1:].transpose(1, 2).unflatten(2, (side, side)) for i in self.layers]
        return self.depth_head(maps, image.shape[-2:])


class DinoV2(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.pretrained = Vit(depth, mask_token=False)


class DepthAnything3(nn.Module):
    """Mono-L and Metric-L in small: exponential depth, a mask of the sky, no residual unit at the coarsest map."""

    def __init__(self, depth=12, layers=(2, 5, 8, 11)):
        super().__init__()
        self.backbone = DinoV2(depth)
        self.head = DepthAnythingHead(sky=True, has_residual=False)
        self.layers = layers

    def forward(self, image):
        vit = self.backbone.pretrained
        after, side = vit(image), image.shape[-1] // 14
        maps = [vit.norm(after[i])[:, 1:].transpose(1, 2).unflatten(2, (side, side)) for i in self.layers]
        return self.head(maps, image.shape[-2:]).exp()


class Readout(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.GELU())

    def forward(self, x):
        patches = x[:, 1:]
        return self.project(torch.cat([patches, x[:, :1].expand_as(patches)], -1))


class Grid(nn.Module):
    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, x):
        return x.transpose(1, 2).unflatten(2, (self.side, self.side))


class DptLarge(nn.Module):
    """MiDaS's DPT with a plain ViT of 16-pixel patches, in small: 12 blocks."""

    def __init__(self, depth=12, layers=(2, 5, 8, 11), necks=(24, 32, 40, 48), width=32, side=4):
        super().__init__()
        self.pretrained = nn.Module()
        self.pretrained.model = Vit(depth, 16, side, scaled=False)
        self.pretrained.model.head = nn.Linear(WIDTH, 10)
        resizes = (
            [nn.ConvTranspose2d(necks[0], necks[0], 4, 4)],
            [nn.ConvTranspose2d(necks[1], necks[1], 2, 2)],
            [],
            [nn.Conv2d(necks[3], necks[3], 3, 2, 1)],
        )
        for level, (neck, resize) in enumerate(zip(necks, resizes, strict=True), 1):
            steps = nn.Sequential(Readout(), nn.Identity(), Grid(side), nn.Conv2d(WIDTH, neck, 1), *resize)
            setattr(self.pretrained, f"act_postprocess{level}", steps)
        self.scratch = scratch(necks, width)
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(width // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
        )
        self.layers = layers

    def forward(self, image):
        """The output of the last convolution, before its ReLU."""
        after = self.pretrained.model(image)
        steps = [getattr(self.pretrained, f"act_postprocess{level}") for level in range(1, 5)]
        maps = [step(after[i]) for step, i in zip(steps, self.layers, strict=True)]
        return self.scratch.output_conv(fuse(self.scratch, maps))[:, 0]


def padded(x, size, stride):
    """Padding "SAME" of TensorFlow: the odd row or column is behind."""
    needed = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[-2:]]
    (top, bottom), (left, right) = ((side // 2, side - side // 2) for side in needed)
    return F.pad(x, (left, right, top, bottom))


class StandardisedConv(nn.Conv2d):
    """Kolesnikov et al. 2020 (BiT): each filter has mean 0 and variance 1."""

    def __init__(self, given, channels, size, stride=1):
        super().__init__(given, channels, size, stride, bias=False)

    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, unbiased=False)
        filters = (self.weight - mean) / (variance + 1e-8).sqrt()
        return F.conv2d(padded(x, self.kernel_size[0], self.stride[0]), filters, stride=self.stride)


class BitBlock(nn.Module):
    """A bottleneck with group norms after the convolutions."""

    def __init__(self, given, channels, stride, first):
        super().__init__()
        inner = channels // 4
        shapes = [(given, inner, 1, 1), (inner, inner, 3, stride), (inner, channels, 1, 1)]
        for number, shape in enumerate(shapes, 1):
            setattr(self, f"conv{number}", StandardisedConv(*shape))
            setattr(self, f"norm{number}", nn.GroupNorm(32, shape[1]))
        self.downsample = None
        if first:
            self.downsample = nn.Module()
            self.downsample.conv = StandardisedConv(given, channels, 1, stride)
            self.downsample.norm = nn.GroupNorm(32, channels)

    def forward(self, x):
        kept = x if self.downsample is None else self.downsample.norm(self.downsample.conv(x))
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return F.relu(self.norm3(self.conv3(x)) + kept)


class HybridEmbed(nn.Module):
    """timm's patches of `vit_base_resnet50_384`: each is a cell of the last map of a ResNet of three stages."""

    def __init__(self, channels=(32, 128, 256, 384), blocks=(1, 2, 1)):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = nn.Module()
        self.backbone.stem.conv = StandardisedConv(3, channels[0], 7, 2)
        self.backbone.stem.norm = nn.GroupNorm(32, channels[0])
        self.backbone.stages = nn.ModuleList()
        for number, count in enumerate(blocks):
            stage = nn.Module()
            stage.blocks = nn.Sequential(
                *(
                    BitBlock(channels[number + (at > 0)], channels[number + 1], 2 if number and not at else 1, at == 0)
                    for at in range(count)
                )
            )
            self.backbone.stages.append(stage)
        self.proj = nn.Conv2d(channels[-1], WIDTH, 1)

    def maps(self, image):
        """The outputs of the three stages, at 1/4, 1/8 and 1/16 of the image."""
        stem = self.backbone.stem
        x = F.max_pool2d(padded(F.relu(stem.norm(stem.conv(image))), 3, 2), 3, 2)
        maps = []
        for stage in self.backbone.stages:
            x = stage.blocks(x)
            maps.append(x)
        return maps

    def forward(self, image):
        return self.proj(self.maps(image)[-1]).flatten(2).transpose(1, 2)


class DptHybrid(DptLarge):
    """MiDaS's DPT-Hybrid, in small: two maps of its ResNet as they are, and blocks 8 and 11 of its ViT."""

    def __init__(self):
        super().__init__(necks=(128, 256, 40, 48))
        self.pretrained.model.patch_embed = HybridEmbed()
        for level in (1, 2):
            setattr(self.pretrained, f"act_postprocess{level}", nn.Sequential(*(nn.Identity() for _ in range(3))))

    def forward(self, image):
        """The output of the last convolution, before its ReLU."""
        after = self.pretrained.model(image)
        maps = self.pretrained.model.patch_embed.maps(image)[:2]
        maps += [self.pretrained.act_postprocess3(after[8]), self.pretrained.act_postprocess4(after[11])]
        return self.scratch.output_conv(fuse(self.scratch, maps))[:, 0]
