"""The ResNet against a forward written with functions, in torchvision's names."""

from __future__ import annotations

import math

import pytest
import torch
from models.tiny_models import scramble
from torch.nn import functional as F

from depthseg.models import DepthSegResNet, DepthSegResNetConfig

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
CHANNELS = [64, 64, 128, 256, 512]


def batch_norm(x, weights, name):
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale = weights[f"{name}.weight"] / torch.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]


def block(x, weights, name, stride, depth):
    shortcut = x
    if f"{name}.downsample.0.weight" in weights:
        shortcut = F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride)
        shortcut = batch_norm(shortcut, weights, f"{name}.downsample.1")
    # (padding, stride) of each convolution: the stride is on the first 3x3.
    layout = [(1, stride), (1, 1)] if depth < 50 else [(0, 1), (1, stride), (0, 1)]
    for index, (padding, step) in enumerate(layout, start=1):
        x = F.conv2d(x, weights[f"{name}.conv{index}.weight"], stride=step, padding=padding)
        x = batch_norm(x, weights, f"{name}.bn{index}")
        if index < len(layout):
            x = F.relu(x)
    return F.relu(x + shortcut)


def reference_maps(x, weights, depth):
    x = F.relu(batch_norm(F.conv2d(x, weights["conv1.weight"], stride=2, padding=3), weights, "bn1"))
    maps = [x]
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for index in range(blocks):
            stride = 2 if stage > 1 and index == 0 else 1
            x = block(x, weights, f"layer{stage}.{index}", stride, depth)
        maps.append(x)
    return maps


@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_maps_equal_a_forward_written_by_hand(depth):
    model = scramble(DepthSegResNet(DepthSegResNetConfig(depth=depth))).eval()
    for tensor in model.state_dict().values():
        if tensor.dim() == 4:
            tensor.copy_(torch.randn_like(tensor) / math.sqrt(tensor[0].numel()))
    image = torch.randn(1, 3, 57, 101)
    maps, expected = model(image), reference_maps(image, model.state_dict(), depth)
    factor = 1 if depth < 50 else 4
    assert [m.shape[1] for m in maps] == [CHANNELS[0], *(factor * c for c in CHANNELS[1:])]
    assert [tuple(m.shape[-2:]) for m in maps] == [(29, 51), (15, 26), (8, 13), (4, 7), (2, 4)]
    for ours, theirs in zip(maps, expected, strict=True):
        assert ours.std() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


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
