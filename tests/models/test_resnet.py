"""The ResNet against a forward written with functions, in torchvision's names."""

from __future__ import annotations

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from models.tiny_models import scramble
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F

from depthseg.models import DepthSegResNet, DepthSegResNetConfig

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
CHANNELS = [64, 64, 128, 256, 512]
# Stride of each stage, dilation in its first block before the place of the stride, dilation from there on. Stride 16
# is that of Lao et al. 2024: the fourth stage's first 3x3 convolution has no dilation, the others 2.
STAGES = {
    32: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)],
    16: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)],
    8: [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4)],
}


def batch_norm(x, weights, name):
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale = weights[f"{name}.weight"] / torch.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]


def block(x, weights, name, stride, depth, before=1, behind=1):
    shortcut = x
    if f"{name}.downsample.0.weight" in weights:
        shortcut = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
        shortcut = batch_norm(shortcut, weights, f"{name}.downsample.1")
    # (stride, dilation) of each convolution: the stride is on the first 3x3.
    layout = [(stride, before), (1, behind)] if depth < 50 else [(1, 1), (stride, before), (1, 1)]
    for index, (step, dilation) in enumerate(layout, start=1):
        kernel = weights[f"{name}.conv{index}.weight"]
        padding = dilation * (kernel.shape[-1] // 2)
        x = F.conv2d(x, kernel, stride=step, padding=padding, dilation=dilation)
        x = batch_norm(x, weights, f"{name}.bn{index}")
        if index < len(layout):
            x = F.relu(x)
    return F.relu(x + shortcut)


def reference_maps(x, weights, depth, stages=STAGES[32]):
    x = F.relu(batch_norm(F.conv2d(x, weights["conv1.weight"], stride=2, padding=3), weights, "bn1"))
    maps = [x]
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, (blocks, (stride, before, behind)) in enumerate(zip(BLOCKS[depth], stages, strict=True), start=1):
        for index in range(blocks):
            step, dilation = (stride, before) if index == 0 else (1, behind)
            x = block(x, weights, f"layer{stage}.{index}", step, depth, dilation, behind)
        maps.append(x)
    return maps


def random_resnet(**options) -> DepthSegResNet:
    """A network whose maps are of ordinary size in all stages."""
    model = scramble(DepthSegResNet(DepthSegResNetConfig(**options))).eval()
    for tensor in model.state_dict().values():
        if tensor.dim() == 4:
            tensor.copy_(torch.randn_like(tensor) / math.sqrt(tensor[0].numel()))
    return model


@pytest.mark.parametrize("output_stride", STAGES)
@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_maps_equal_a_forward_written_by_hand(depth, output_stride):
    model = random_resnet(depth=depth, output_stride=output_stride, width_factor=1.0 if output_stride == 32 else 0.25)
    image = torch.randn(1, 3, 57, 101)
    maps, expected = model(image), reference_maps(image, model.state_dict(), depth, STAGES[output_stride])
    if output_stride == 32:
        factor = 1 if depth < 50 else 4
        assert [m.shape[1] for m in maps] == [CHANNELS[0], *(factor * c for c in CHANNELS[1:])]
        assert [tuple(m.shape[-2:]) for m in maps] == [(29, 51), (15, 26), (8, 13), (4, 7), (2, 4)]
    for ours, theirs in zip(maps, expected, strict=True):
        assert ours.std() > 1e-3
        assert_same_up_to_rounding(ours, theirs)


@pytest.mark.parametrize("size", [(57, 101), (64, 96), (40, 31)])
@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_dilated_maps_hold_those_of_stride_32_at_every_second_or_fourth_cell(depth, size):
    strided = random_resnet(depth=depth, width_factor=0.25)
    image = torch.randn(2, 3, *size)
    for output_stride, steps in ((16, (1, 1, 1, 1, 2)), (8, (1, 1, 1, 2, 4))):
        dilated = random_resnet(depth=depth, width_factor=0.25, output_stride=output_stride)
        dilated.load_state_dict(strided.state_dict())
        for dense, sparse, step in zip(dilated(image), strided(image), steps, strict=True):
            assert sparse.std() > 1e-3
            assert_same_up_to_rounding(dense[..., ::step, ::step], sparse)
        strides = [min(2**stage, output_stride) for stage in range(1, 6)]
        sizes = [tuple(-(-side // stride) for side in size) for stride in strides]
        assert [tuple(dense.shape[-2:]) for dense in dilated(image)] == sizes


@torch.no_grad()
def test_weights_saved_at_stride_32_load_at_any_other(tmp_path):
    strided = random_resnet(width_factor=0.125)
    strided.save_pretrained(tmp_path)
    for output_stride in STAGES:
        loaded = DepthSegResNet.from_pretrained(tmp_path, output_stride=output_stride)
        assert loaded.config.output_stride == output_stride
        weights = loaded.state_dict()
        assert weights.keys() == strided.state_dict().keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in strided.state_dict().items())


@pytest.mark.parametrize("output_stride", [4, 24, 64])
def test_other_output_strides_are_refused(output_stride):
    with pytest.raises(StrictDataclassError, match=rf"output_stride is {output_stride}; allowed are \(8, 16, 32\)"):
        DepthSegResNetConfig(output_stride=output_stride)


@pytest.mark.parametrize(("depth", "parameters", "tensors"), [(18, 11_176_512, 120), (50, 23_508_032, 318)])
def test_size_of_the_full_networks(depth, parameters, tensors):
    with torch.device("meta"):
        model = DepthSegResNet(DepthSegResNetConfig(depth=depth))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors


@pytest.mark.parametrize("depth", BLOCKS)
def test_parameters_bear_the_names_and_shapes_of_torchvision(depth):
    with torch.device("meta"):
        weights = DepthSegResNet(DepthSegResNetConfig(depth=depth)).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    basic = depth < 50
    last = BLOCKS[depth][2] - 1
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["bn1.running_mean"] == (64,)
    assert shapes["layer1.0.conv1.weight"] == ((64, 64, 3, 3) if basic else (64, 64, 1, 1))
    assert ("layer1.0.downsample.0.weight" in shapes) is not basic
    assert shapes["layer2.0.downsample.0.weight"] == ((128, 64, 1, 1) if basic else (512, 256, 1, 1))
    assert shapes["layer2.0.downsample.1.num_batches_tracked"] == ()
    assert shapes[f"layer3.{last}.conv2.weight"] == (256, 256, 3, 3)
    assert ("layer4.2.bn3.bias" in shapes) is not basic
    assert f"layer3.{last + 1}.conv1.weight" not in shapes
    assert not any(name.startswith("fc.") for name in shapes)


@pytest.mark.parametrize(
    ("factor", "widths"),
    [(0.125, [8, 8, 16, 32, 64]), (0.5, [32, 32, 64, 128, 256]), (2.0, [128, 128, 256, 512, 1024])],
)
def test_the_width_factor_scales_every_stage(factor, widths):
    with torch.device("meta"):
        maps = DepthSegResNet(DepthSegResNetConfig(width_factor=factor))(torch.zeros(2, 3, 32, 32))
    assert [m.shape[1] for m in maps] == widths


def test_random_weights_follow_he_initialisation():
    weights = DepthSegResNet(DepthSegResNetConfig(depth=18)).state_dict()
    kernel = weights["layer3.0.conv1.weight"]
    assert kernel.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)
    assert kernel.mean().abs() < 1e-3
    assert (weights["layer3.0.bn1.weight"] == 1).all() and (weights["layer3.0.bn1.bias"] == 0).all()
    assert (weights["bn1.running_mean"] == 0).all() and (weights["bn1.running_var"] == 1).all()
