"""EfficientNet-Lite against a forward written with functions from the paper's table and TensorFlow's padding."""

from __future__ import annotations

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from models.tiny_models import scramble
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F

from depthseg.models import (
    DepthSegConfig,
    DepthSegEfficientNetLite,
    DepthSegEfficientNetLiteConfig,
    DepthSegForImageClassification,
)
from depthseg.models.encoders_efficientnet_depthseg import SamePaddedConv2d

# Per stage: kernel size, stride, and per variant the channels and the number of blocks.
TABLE = [
    (3, 1, {0: (16, 1), 1: (16, 1), 2: (16, 1)}),
    (3, 2, {0: (24, 2), 1: (24, 3), 2: (24, 3)}),
    (5, 2, {0: (40, 2), 1: (40, 3), 2: (48, 3)}),
    (3, 2, {0: (80, 3), 1: (80, 4), 2: (88, 4)}),
    (5, 1, {0: (112, 3), 1: (112, 4), 2: (120, 4)}),
    (5, 2, {0: (192, 4), 1: (192, 5), 2: (208, 5)}),
    (3, 1, {0: (320, 1), 1: (320, 1), 2: (352, 1)}),
]
# Tensors of the published files, those of the last stage and the last layer included.
PUBLISHED_TENSORS = {0: 296, 1: 386, 2: 386}
LAST_TENSORS = 8


def padded(x, kernel_size, stride):
    """TensorFlow's "same": the output has `ceil(size / stride)` cells, and an odd pixel of padding is at the end."""
    edges = []
    for side in (x.shape[-1], x.shape[-2]):
        total = max((math.ceil(side / stride) - 1) * stride + kernel_size - side, 0)
        edges += [total // 2, total - total // 2]
    return F.pad(x, edges)


def normalised(x, weights, name):
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale = weights[f"{name}.weight"] / torch.sqrt(variance + 1e-3)
    return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]


def reference_maps(x, weights, variant):
    x = F.conv2d(padded(x, 3, 2), weights["conv_stem.weight"], stride=2)
    x = normalised(x, weights, "bn0").clamp(0, 6)
    number, ends = 0, []
    for kernel_size, first_stride, variants in TABLE:
        channels, count = variants[variant]
        for stride in [first_stride] + [1] * (count - 1):
            name, before = f"blocks.{number}", x
            if f"{name}.expand_conv.weight" in weights:
                x = normalised(F.conv2d(x, weights[f"{name}.expand_conv.weight"]), weights, f"{name}.bn0").clamp(0, 6)
            kernel = weights[f"{name}.depthwise_conv.weight"]
            assert kernel.shape[-2:] == (kernel_size, kernel_size)
            x = F.conv2d(padded(x, kernel_size, stride), kernel, stride=stride, groups=len(kernel))
            x = normalised(x, weights, f"{name}.bn1").clamp(0, 6)
            x = normalised(F.conv2d(x, weights[f"{name}.project_conv.weight"]), weights, f"{name}.bn2")
            x = x + before if x.shape == before.shape and stride == 1 else x
            assert x.shape[1] == channels
            number += 1
        ends.append(x)
    assert f"blocks.{number}.project_conv.weight" not in weights
    return [ends[stage] for stage in (0, 1, 2, 4, 6)]


def randomise(model):
    """Weights with which the maps are of ordinary size in all stages."""
    for tensor in scramble(model).eval().state_dict().values():
        if tensor.dim() == 4:
            tensor.copy_(torch.randn_like(tensor) * math.sqrt(2 / tensor[0].numel()))
    return model


@pytest.mark.parametrize("variant", [0, 1, 2])
@torch.no_grad()
def test_maps_equal_a_forward_written_by_hand(variant):
    model = randomise(DepthSegEfficientNetLite(DepthSegEfficientNetLiteConfig(variant=variant)))
    assert len(model.state_dict()) == PUBLISHED_TENSORS[variant] - LAST_TENSORS
    for size in ((57, 101), (64, 98)):
        image = torch.randn(1, 3, *size)
        maps, expected = model(image), reference_maps(image, model.state_dict(), variant)
        sizes = [tuple(-(-side // 2**stage) for side in size) for stage in range(1, 6)]
        assert [tuple(m.shape[-2:]) for m in maps] == sizes
        for ours, theirs in zip(maps, expected, strict=True):
            assert ours.std() > 1e-2
            assert_same_up_to_rounding(ours, theirs)


@pytest.mark.parametrize(("kernel_size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@torch.no_grad()
def test_padding_is_that_of_tensorflow_at_every_size(kernel_size, stride):
    convolution = SamePaddedConv2d(2, 3, kernel_size, stride)
    for height in range(1, 9):
        for width in range(1, 9):
            image = torch.randn(1, 2, height, width)
            expected = F.conv2d(padded(image, kernel_size, stride), convolution.weight, convolution.bias, stride)
            assert torch.equal(convolution(image), expected)
            assert expected.shape[-2:] == (-(-height // stride), -(-width // stride))


@torch.no_grad()
def test_a_classifier_widens_the_deepest_map_to_1280_channels_whatever_the_width():
    encoder_config = {"model_type": "depthseg_efficientnet_lite", "width_factor": 0.1}
    model = randomise(DepthSegForImageClassification(DepthSegConfig(encoder_config=encoder_config, num_labels=7)))
    weights = model.state_dict()
    image = torch.randn(2, 3, 64, 96)
    x = F.conv2d(model.encoder(image).maps[-1], weights["pretext_head.last_stage.0.weight"])
    x = normalised(x, weights, "pretext_head.last_stage.1").clamp(0, 6).mean((2, 3))
    assert x.shape == (2, 1280)
    expected = F.linear(x, weights["pretext_head.weight"], weights["pretext_head.bias"])
    assert expected.std() > 1e-3
    assert_same_up_to_rounding(model(image).logits, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": 5}, r"variant is 5; allowed are \[0, 1, 2, 3, 4\]"),
        ({"width_factor": 5}, "width_factor is 5; it must be between 0.1 and 4"),
    ],
)
def test_other_architectures_are_refused(options, message):
    with pytest.raises(StrictDataclassError, match=message):
        DepthSegEfficientNetLiteConfig(**options)
