"""UPerNet's head against that of transformers with the same weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from models.feature_maps import CHANNELS, SIZES, STRIDES, copy_weights, make_features, make_head, random_weights
from models.tiny_models import tiny_config
from rounding import assert_same_up_to_rounding
from transformers.models.upernet.modeling_upernet import UperNetHead

from depthseg.models.heads_upernet_depthseg import GridPooling

RENAMES = {
    "psp_modules.": "pooling.branches.",
    "fpn_bottleneck.": "join.",
    "bottleneck.": "pooling.join.",
    "lateral_convs.": "laterals.",
    "fpn_convs.": "smooth.",
    ".conv.": ".0.",
    ".batch_norm.": ".1.",
}
EVEN = [(24, 40), (12, 20), (6, 10), (3, 5)]


def make_pair(pool_scales: list[int]):
    config = SimpleNamespace(pool_scales=pool_scales, hidden_size=9, num_labels=5)
    theirs = random_weights(UperNetHead(config, CHANNELS[1:]))
    return theirs, make_head("upernet", {"channels": 9, "pool_scales": pool_scales}, CHANNELS[1:], STRIDES[1:])


@pytest.mark.parametrize("sizes", [EVEN, SIZES[1:]], ids=["even", "odd"])
@torch.no_grad()
def test_head_equals_that_of_transformers(sizes):
    theirs, ours = make_pair([2, 3, 6])
    copy_weights(theirs.state_dict(), ours, RENAMES)
    classifier = ours.make_classifier(5).eval()
    classifier.load_state_dict(theirs.classifier.state_dict())
    features = make_features(CHANNELS[1:], sizes, STRIDES[1:])
    logits, expected = classifier(ours(features)[0]), theirs(features.maps)
    assert tuple(logits.shape) == (2, 5, *sizes[0]) and expected.std() > 0.1
    assert (ours.channels, ours.strides) == ([9], (4.0,))
    assert_same_up_to_rounding(logits, expected)


@torch.no_grad()
def test_the_mean_of_the_image_is_normalised_over_its_channels():
    """The one difference: a BatchNorm whose statistics are those of this image's vector does the same to it."""
    theirs, ours = make_pair([1, 2])
    features = make_features(CHANNELS[1:], EVEN, STRIDES[1:], batch=1)
    convolution = theirs.psp_modules.blocks[0].layers[1]
    vector = convolution.conv(features.maps[-1].mean(dim=(2, 3), keepdim=True))
    convolution.batch_norm.running_mean.fill_(vector.mean())
    convolution.batch_norm.running_var.fill_(vector.var(unbiased=False))
    of_scale_1 = {
        "psp_modules.0.1.conv.": "pooling.branches.0.1.",
        "psp_modules.0.1.batch_norm.": "pooling.branches.0.2.",
    }
    fixed = {f"psp_modules.0.1.batch_norm.{name}" for name, _ in convolution.batch_norm.named_buffers()}
    copy_weights({n: t for n, t in theirs.state_dict().items() if n not in fixed}, ours, of_scale_1 | RENAMES)
    expected = theirs(features.maps)
    classifier = ours.make_classifier(5).eval()
    classifier.load_state_dict(theirs.classifier.state_dict())
    assert_same_up_to_rounding(classifier(ours(features)[0]), expected)


def test_one_image_trains_though_the_pool_has_a_single_cell():
    head = make_head("upernet", {"channels": 4}).train()
    head(make_features(batch=1))[0].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"pool_scales": [1, 0]},
            r"head_config.pool_scales is \[1, 0\]; it must be a list of one or more integers, each at least 1",
        ),
        ({"channels": 1.5}, "head_config.channels is 1.5; it must be an integer of at least 1"),
        ({"classifier_dropout": -0.1}, "head_config.classifier_dropout is -0.1; it must be a number of at least 0"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_config(head="upernet", head_config=options)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 7), (13, 8)])
@pytest.mark.parametrize("cells", [1, 2, 3, 6])
def test_pooling_of_an_exported_program_equals_that_of_pytorch(size, cells, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(GridPooling(cells)(x), torch.nn.functional.adaptive_avg_pool2d(x, cells))
