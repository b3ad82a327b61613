"""The Monodepth2 decoder against a forward written with functions, and its published size."""

from __future__ import annotations

import pytest
import torch
from models.tiny_models import RESNET, tiny_model
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F

from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegForSemanticSegmentation

PREDICTORS = sum(9 * channels + 1 for channels in (16, 32, 64, 128))


def count(*modules: torch.nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(("depth", "published"), [(18, 3_152_724), (50, 9_014_100)])
def test_decoder_has_the_published_number_of_parameters(depth, published):
    encoder = {"model_type": "depthseg_resnet", "depth": depth}
    with torch.device("meta"):
        network = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=encoder))
        segmenter = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=encoder, num_labels=34))
    assert count(network.head, network.depth_predictor) == published
    assert count(segmenter.head, segmenter.classifier) == published - PREDICTORS + 34 * (16 * 9 + 1)


def reflect_conv(x: torch.Tensor, weights: dict, name: str) -> torch.Tensor:
    """Reflection written as indices, then an unpadded convolution."""
    rows = [1, *range(x.shape[2]), x.shape[2] - 2]
    columns = [1, *range(x.shape[3]), x.shape[3] - 2]
    return F.conv2d(x[:, :, rows][:, :, :, columns], weights[f"{name}.conv.weight"], weights[f"{name}.conv.bias"])


def elu(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, x.exp() - 1)


def reference_decoder(maps: list[torch.Tensor], weights: dict) -> list[torch.Tensor]:
    """Upsampling by exactly two, as published; outputs finest first."""
    x, decoded = maps[-1], []
    for level in (4, 3, 2, 1, 0):
        x = elu(reflect_conv(x, weights, f"head.levels.{level}.conv0"))
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        if level > 0:
            x = torch.cat([x, maps[level - 1]], dim=1)
        x = elu(reflect_conv(x, weights, f"head.levels.{level}.conv1"))
        decoded.insert(0, x)
    return decoded


@torch.no_grad()
def test_depth_network_equals_a_forward_written_by_hand():
    model = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=RESNET, min_depth=0.2, max_depth=50.0)).eval()
    output = model(torch.randn(2, 3, 64, 64), output_hidden_states=True)
    weights = model.state_dict()
    decoded = reference_decoder(list(output.hidden_states), weights)
    assert len(output.raw_maps) == 4
    for scale, raw in enumerate(output.raw_maps):
        expected = 1 / (1 + torch.exp(-reflect_conv(decoded[scale], weights, f"depth_predictor.{scale}")))
        assert raw.shape == (2, 1, 64 >> scale, 64 >> scale)
        assert_same_up_to_rounding(raw, expected)
    expected_depth = 1 / (1 / 50 + (1 / 0.2 - 1 / 50) * output.raw_maps[0][:, 0])
    assert_same_up_to_rounding(output.predicted_depth, expected_depth)


@torch.no_grad()
def test_classifier_reads_the_finest_map():
    model = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=RESNET, num_labels=7)).eval()
    output = model(torch.randn(1, 3, 64, 64), output_hidden_states=True)
    decoded = reference_decoder(list(output.hidden_states), model.state_dict())
    assert_same_up_to_rounding(output.logits, reflect_conv(decoded[0], model.state_dict(), "classifier"))


@pytest.mark.parametrize("size", [(57, 101), (360, 480), (33, 34)])
@torch.no_grad()
def test_every_level_has_the_size_of_the_map_it_joins(size):
    model = tiny_model("depth").eval()
    features = model.encoder(torch.randn(1, 3, *size))
    sizes = [tuple(level.shape[-2:]) for level in model.head(features)]
    assert sizes == [size, *(tuple(m.shape[-2:]) for m in features.maps[:-1])]
    # Each halving of the encoder rounds up.
    assert sizes[1:] == [(-(-size[0] // 2**i), -(-size[1] // 2**i)) for i in (1, 2, 3, 4)]
    assert model.head.channels == [8, 8, 8, 8, 8] and model.head.strides == (1.0, 2.0, 4.0, 8.0, 16.0)


@torch.no_grad()
def test_maps_of_a_single_pixel_are_padded_by_repetition():
    model = tiny_model("depth").eval()
    assert model(torch.randn(1, 3, 20, 20)).predicted_depth.isfinite().all()
    weights = {"conv.weight": torch.ones(1, 1, 3, 3), "conv.bias": torch.zeros(1)}
    convolution = type(model.head.levels[0].conv0)(1, 1)
    convolution.load_state_dict(weights)
    assert convolution(torch.full((1, 1, 1, 2), 2.0)).tolist() == [[[[18.0, 18.0]]]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"decoder_channels": [8, 8, 8]}, "decoder_channels has 3 entries .* the encoder returns 5 maps"),
        ({"num_scales": 6}, "num_scales is 6, but the encoder returns 5 maps"),
    ],
)
def test_a_head_that_does_not_fit_the_encoder_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_model("depth", head_config=options)
