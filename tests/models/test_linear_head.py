"""The linear probe against its definition: BatchNorm, then one 1x1 convolution, on the last map or the last four."""

from __future__ import annotations

import pytest
import torch
from models.feature_maps import CHANNELS, SIZES, STRIDES, batch_norm, make_features, make_head, random_weights
from models.tiny_models import tiny_model
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F


@pytest.mark.parametrize("num_layers", [1, 4])
@torch.no_grad()
def test_head_is_a_batch_norm_of_the_deepest_maps(num_layers):
    head = random_weights(make_head("linear", {"num_layers": num_layers}))
    features = make_features()
    size = SIZES[-num_layers]
    maps = [F.interpolate(m, size=size, mode="bilinear", align_corners=False) for m in features.maps[-num_layers:]]
    (decoded,) = head(features)
    assert_same_up_to_rounding(decoded, batch_norm(torch.cat(maps, dim=1), head.norm))
    assert (head.channels, head.strides) == ([sum(CHANNELS[-num_layers:])], (STRIDES[-num_layers],))
    assert set(head.state_dict()) == {f"norm.{name}" for name in torch.nn.BatchNorm2d(1).state_dict()}


@torch.no_grad()
def test_training_normalises_by_the_batch():
    head = make_head("linear", {"num_layers": 1}).train()
    (decoded,) = head(make_features())
    torch.testing.assert_close(decoded.mean(dim=(0, 2, 3)), torch.zeros(CHANNELS[-1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(decoded.var(dim=(0, 2, 3), unbiased=False), torch.ones(CHANNELS[-1]), rtol=0, atol=1e-3)


def test_the_whole_probe_is_linear_in_the_features():
    model = tiny_model("segmentation", "dinov2", "linear", head_config={"num_layers": 4})
    size = 4 * 16  # four layers of 16 channels
    assert sum(p.numel() for p in model.head.parameters()) == 2 * size
    assert sum(p.numel() for p in model.classifier.parameters()) == 5 * (size + 1)


def test_more_layers_than_the_encoder_gives_are_refused():
    with pytest.raises(ValueError, match="num_layers is 6, but the encoder returns 5 maps; lower it, or select more"):
        tiny_model("segmentation", head="linear", head_config={"num_layers": 6})
