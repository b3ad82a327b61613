"""The ASPP head against a forward written by hand, and the published sizes."""

from __future__ import annotations

import pytest
import torch
from models.feature_maps import SIZES, batch_norm, make_features, make_head, random_weights
from models.tiny_models import tiny_config
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F

from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation


def test_network_has_the_published_number_of_parameters():
    encoder = {"model_type": "depthseg_resnet", "depth": 50, "output_stride": 16}
    with torch.device("meta"):
        network = DepthSegForSemanticSegmentation(
            DepthSegConfig(encoder_config=encoder, head_type="deeplabv3", num_labels=19)
        )
    head = sum(p.numel() for module in (network.head, network.classifier) for p in module.parameters())
    assert head == 15_539_987
    assert sum(p.numel() for p in network.parameters()) == 39_048_019


def dilated(x: torch.Tensor, weight: torch.Tensor, rate: int) -> torch.Tensor:
    """The definition: nine taps, each the whole map moved by `rate` cells, zeros outside."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (rate,) * 4)
    taps = 0
    for row in range(3):
        for column in range(3):
            moved = padded[..., row * rate : row * rate + height, column * rate : column * rate + width]
            taps = taps + torch.einsum("oc,bchw->bohw", weight[:, :, row, column], moved)
    return taps


def pointwise(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oc,bchw->bohw", weight[:, :, 0, 0], x)


def layer_norm(x: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
    """Over the channels of each image's vector `(B, C, 1, 1)`."""
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
    return scaled * norm.weight[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize(("image_norm", "written_norm"), [("layer", layer_norm), ("batch", batch_norm)])
@torch.no_grad()
def test_head_equals_a_forward_written_by_hand(image_norm, written_norm):
    head = random_weights(make_head("deeplabv3", {"channels": 7, "rates": [1, 2, 5], "image_norm": image_norm}))
    features = make_features()
    deepest = features.maps[-1]
    branches = [batch_norm(pointwise(deepest, head.pointwise[0].weight), head.pointwise[1])]
    for branch, rate in zip(head.dilated, (1, 2, 5), strict=True):
        branches.append(batch_norm(dilated(deepest, branch[0].weight, rate), branch[1]))
    mean = deepest.mean(dim=(2, 3), keepdim=True)
    vector = written_norm(pointwise(mean, head.image_level[1].weight), head.image_level[2])
    branches.append(vector.expand(-1, -1, *SIZES[-1]))
    joined = torch.cat(branches, dim=1).clamp(min=0)
    expected = batch_norm(pointwise(joined, head.projection[0].weight), head.projection[1]).clamp(min=0)
    (decoded,) = head(features)
    assert expected.std() > 0.1 and (vector > 0).any()
    assert (head.channels, head.strides) == ([7], (32.0,))
    assert_same_up_to_rounding(decoded, expected)


@torch.no_grad()
def test_the_image_level_sees_one_image_alone_in_training_as_in_evaluation():
    level = random_weights(make_head("deeplabv3", {"channels": 7}).image_level)
    images = make_features(batch=3).maps[-1]
    together = level.train()(images)
    for index in range(3):
        assert_same_up_to_rounding(level(images[index : index + 1]), together[index : index + 1])
        assert_same_up_to_rounding(level.eval()(images)[index : index + 1], together[index : index + 1])
    assert together.std() > 0.1


def test_batch_norm_of_one_image_is_refused_in_training_alone():
    head = make_head("deeplabv3", {"channels": 4, "image_norm": "batch"})
    assert head(make_features(batch=1))[0].isfinite().all()
    assert head.train()(make_features(batch=2))[0].isfinite().all()
    with pytest.raises(ValueError, match="image_norm is 'batch' and the batch has one image"):
        head(make_features(batch=1))


def test_momentum_is_that_of_every_norm_of_the_head():
    options = {"channels": 4, "rates": [2, 4], "image_norm": "batch", "norm_momentum": 0.0003}
    norms = [m for m in make_head("deeplabv3", options).modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.0003] * 5


@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_dilated_encoder_gives_logits_at_its_output_stride(output_stride):
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125, "output_stride": output_stride}
    config = DepthSegConfig(encoder_config=encoder, head_type="deeplabv3", head_config={"channels": 4}, num_labels=3)
    model = DepthSegForSemanticSegmentation(config).eval()
    logits = model(torch.randn(1, 3, 57, 101)).logits
    assert tuple(logits.shape) == (1, 3, -(-57 // output_stride), -(-101 // output_stride))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rates": []}, r"head_config.rates is \[\]; it must be a list of one or more integers, each at least 1"),
        (
            {"rates": [6, 1.5]},
            r"head_config.rates is \[6, 1.5\]; it must be a list of one or more integers, each at least 1",
        ),
        ({"rates": 6}, "head_config.rates is 6; it must be a list of one or more integers"),
        ({"image_norm": "group"}, "head_config.image_norm is 'group'; allowed are layer, batch"),
        ({"norm_momentum": 2}, "head_config.norm_momentum is 2; it must be a number of at least 0 and below 1"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(head="deeplabv3", head_config=options)
