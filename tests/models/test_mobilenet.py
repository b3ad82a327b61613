"""MobileNetV2 against a forward written with functions from the paper's table 2, and with torchvision's weights."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from models.tiny_models import scramble
from PIL import Image
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F

from depthseg.models import (
    DepthSegConfig,
    DepthSegForImageClassification,
    DepthSegForSemanticSegmentation,
    DepthSegMobileNetV2,
    DepthSegMobileNetV2Config,
)

DATA = Path(os.environ.get("DEPTHSEG_DATA", ""))
PUBLISHED = DATA / "weights" / "mobilenet_v2-b0353104.pth"
# Expansion, channels, stride of the 17 blocks, one row a block.
BLOCKS = [
    (1, 16, 1),
    *[(6, 24, 2), (6, 24, 1)],
    *[(6, 32, 2), (6, 32, 1), (6, 32, 1)],
    *[(6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1)],
    *[(6, 96, 1), (6, 96, 1), (6, 96, 1)],
    *[(6, 160, 2), (6, 160, 1), (6, 160, 1)],
    (6, 320, 1),
]
LAST_OF_STRIDE = {1: 16, 3: 24, 6: 32, 13: 96, 17: 320}
# Ids of ImageNet-1k that streets are full of: bicycles, cabs, buses, cars, signs, lights, trams, lorries, motorcycles.
STREET = {436, 444, 468, 475, 511, 555, 569, 603, 627, 654, 656, 661, 665, 670, 671, 675, 705, 717, 734, 751, 779, 817}
STREET |= {829, 864, 867, 874, 919, 920}


def normalised(x, weights, name):
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale = weights[f"{name}.weight"] / torch.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]


def reference_features(x, weights):
    """The outputs of torchvision's `features.0` to `features.17`."""
    x = F.conv2d(x, weights["features.0.0.weight"], stride=2, padding=1)
    outputs = [normalised(x, weights, "features.0.1").clamp(0, 6)]
    for number, (expansion, _, stride) in enumerate(BLOCKS, start=1):
        name, x = f"features.{number}.conv", outputs[-1]
        if expansion > 1:
            x = normalised(F.conv2d(x, weights[f"{name}.0.0.weight"]), weights, f"{name}.0.1").clamp(0, 6)
        place = 1 if expansion > 1 else 0
        kernel = weights[f"{name}.{place}.0.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=1, groups=len(kernel))
        x = normalised(x, weights, f"{name}.{place}.1").clamp(0, 6)
        x = normalised(F.conv2d(x, weights[f"{name}.{place + 1}.weight"]), weights, f"{name}.{place + 2}")
        outputs.append(outputs[-1] + x if x.shape == outputs[-1].shape and stride == 1 else x)
    return outputs


def randomise(model):
    """Weights with which the maps are of ordinary size in all stages."""
    for tensor in scramble(model).eval().state_dict().values():
        if tensor.dim() == 4:
            tensor.copy_(torch.randn_like(tensor) * math.sqrt(2 / tensor[0].numel()))
    return model


@pytest.mark.parametrize("width_factor", [1.0, 0.35, 1.4])
@torch.no_grad()
def test_maps_equal_a_forward_written_by_hand(width_factor):
    model = randomise(DepthSegMobileNetV2(DepthSegMobileNetV2Config(width_factor=width_factor)))
    image = torch.randn(1, 3, 57, 101)
    maps, expected = model(image), reference_features(image, model.state_dict())
    assert [tuple(m.shape[-2:]) for m in maps] == [(29, 51), (15, 26), (8, 13), (4, 7), (2, 4)]
    if width_factor == 1:
        assert [m.shape[1] for m in maps] == list(LAST_OF_STRIDE.values())
        assert [m.shape[1] for m in expected[1:]] == [channels for _, channels, _ in BLOCKS]
    for ours, number in zip(maps, LAST_OF_STRIDE, strict=True):
        assert ours.std() > 1e-2
        assert_same_up_to_rounding(ours, expected[number])


def test_channels_of_published_widths():
    """Those of the networks that MobileNetV2's authors published, with 0.35 and 1.4 of the channels."""
    for width_factor, expected, last in ((0.35, [8, 8, 16, 32, 112], 1280), (1.4, [24, 32, 48, 136, 448], 1792)):
        config = DepthSegMobileNetV2Config(width_factor=width_factor)
        with torch.device("meta"):
            maps = DepthSegMobileNetV2(config).eval()(torch.zeros(1, 3, 64, 64))
        assert [m.shape[1] for m in maps] == expected
        assert config.last_channels == last


@pytest.mark.parametrize("size", [(1, 1), (33, 64)])
@torch.no_grad()
def test_any_size_gives_maps_that_round_up(size):
    model = DepthSegMobileNetV2(DepthSegMobileNetV2Config(width_factor=0.1)).eval()
    sizes = [tuple(-(-side // 2**stage) for side in size) for stage in range(1, 6)]
    assert [tuple(m.shape[-2:]) for m in model(torch.randn(1, 3, *size))] == sizes


def test_other_widths_are_refused():
    with pytest.raises(StrictDataclassError, match="width_factor is 0.05; it must be between 0.1 and 4"):
        DepthSegMobileNetV2Config(width_factor=0.05)


def from_torchvision(weights):
    """torchvision's tensors under the names of a classifier of this library."""
    places = {"features.18.": "pretext_head.last_stage.", "classifier.1.": "pretext_head."}
    renamed = {}
    for name, tensor in weights.items():
        place = next((place for place in places if name.startswith(place)), None)
        renamed[places[place] + name.removeprefix(place) if place else f"encoder.backbone.{name}"] = tensor
    return renamed


def classifier(num_labels, **encoder_options):
    encoder_config = {"model_type": "depthseg_mobilenet_v2"} | encoder_options
    return DepthSegForImageClassification(DepthSegConfig(encoder_config=encoder_config, num_labels=num_labels)).eval()


@torch.no_grad()
def test_a_classifier_widens_the_deepest_map_before_the_mean():
    model = randomise(classifier(7, width_factor=0.35))
    weights = model.state_dict()
    backbone = {name.removeprefix("encoder.backbone."): tensor for name, tensor in weights.items()}
    image = torch.randn(2, 3, 64, 96)
    x = F.conv2d(reference_features(image, backbone)[-1], weights["pretext_head.last_stage.0.weight"])
    x = normalised(x, weights, "pretext_head.last_stage.1").clamp(0, 6).mean((2, 3))
    assert x.shape == (2, 1280)
    expected = F.linear(x, weights["pretext_head.weight"], weights["pretext_head.bias"])
    assert expected.std() > 1e-3
    assert_same_up_to_rounding(model(image).logits, expected)


def test_every_parameter_of_a_classifier_learns_and_its_encoder_becomes_a_segmenter(tmp_path):
    model = classifier(3, width_factor=0.1).train()
    model(torch.randn(4, 3, 64, 64), labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    again = DepthSegForImageClassification.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in again.state_dict().items())
    segmenter = DepthSegForSemanticSegmentation.from_pretrained(tmp_path, num_labels=5, id2label=None)
    status = {part.part: (part.status, part.tensors) for part in segmenter.transfer_report.parts}
    assert status["encoder"] == ("taken", len(model.encoder.state_dict()))
    assert status["pretext_head"] == ("left over", len(model.pretext_head.state_dict()))


@pytest.mark.skipif(
    not (PUBLISHED.is_file() and (DATA / "camvid").is_dir()),
    reason="DEPTHSEG_DATA names no folder that holds weights/mobilenet_v2-b0353104.pth and camvid/",
)
@torch.no_grad()
def test_published_weights_load_completely_and_see_streets():
    weights = torch.load(PUBLISHED, weights_only=True)
    model = classifier(1000)
    model.load_state_dict(from_torchvision(weights))
    assert len(weights) == len(model.state_dict()) == 314
    images = sorted((DATA / "camvid" / "val").glob("*.png"))[::20]
    for path in images:
        image = Image.open(path).convert("RGB").resize((320, 240), Image.Resampling.BILINEAR)
        pixels = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        pixels = torch.from_numpy(pixels).float().permute(2, 0, 1)[None]
        logits = model(pixels).logits[0]
        assert len(STREET & set(logits.topk(5).indices.tolist())) >= 3, path.name
        x = F.conv2d(reference_features(pixels, weights)[-1], weights["features.18.0.weight"])
        x = normalised(x, weights, "features.18.1").clamp(0, 6).mean((2, 3))
        expected = F.linear(x, weights["classifier.1.weight"], weights["classifier.1.bias"])[0]
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert len(images) >= 5
