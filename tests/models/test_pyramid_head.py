"""The feature pyramid against BEiT's neck in transformers, its sizes on odd grids, and the heads that use it."""

from __future__ import annotations

import pytest
import torch
from models.feature_maps import CHANNELS, SIZES, STRIDES, copy_weights, make_features, make_head, random_weights
from models.tiny_models import tiny_model
from rounding import assert_same_up_to_rounding
from transformers import BeitConfig
from transformers.models.beit.modeling_beit import BeitFPNNeck

from depthseg.models.heads_pyramid_depthseg import FeaturePyramid

PLAIN = (16.0,) * 4
RENAMES = {
    "fpn1.conv_transpose1": "levels.0.0",
    "fpn1.normalization": "levels.0.1",
    "fpn1.conv_transpose2": "levels.0.3",
    "fpn2": "levels.1",
}


@torch.no_grad()
def test_pyramid_equals_the_neck_of_beit():
    neck = random_weights(BeitFPNNeck(BeitConfig(hidden_size=12)))
    pyramid = FeaturePyramid([12] * 4, PLAIN).eval()
    copy_weights(neck.state_dict(), pyramid, RENAMES)
    maps = [torch.randn(2, 12, 4, 6) for _ in range(4)]
    levels = pyramid(maps)
    assert [tuple(level.shape[-2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    for level, expected in zip(levels, neck(maps), strict=True):
        assert expected.std() > 0.1
        assert_same_up_to_rounding(level, expected)


@pytest.mark.parametrize(("size", "half"), [((5, 7), (3, 4)), ((1, 2), (1, 1)), ((26, 35), (13, 18))])
@torch.no_grad()
def test_odd_grids_lose_no_row_and_no_column(size, half):
    pyramid = FeaturePyramid([8] * 4, PLAIN)
    maps = [torch.randn(1, 8, *size) for _ in range(4)]
    levels = pyramid(maps)
    assert [tuple(level.shape[-2:]) for level in levels[:3]] == [tuple(f * side for side in size) for f in (4, 2, 1)]
    assert tuple(levels[3].shape[-2:]) == half
    for row in range(half[0]):
        for column in range(half[1]):
            cells = maps[3][0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(levels[3][0, :, row, column], cells.amax(dim=(1, 2)))
    assert torch.equal(levels[2], maps[2])


@pytest.mark.parametrize(
    ("given", "chosen"),
    [(1, [0, 0, 0, 0]), (2, [0, 0, 1, 1]), (3, [0, 0, 1, 2]), (4, [0, 1, 2, 3]), (6, [2, 3, 4, 5])],
)
@torch.no_grad()
def test_levels_come_from_the_four_deepest_maps_or_from_fewer(given, chosen):
    channels = [10 + index for index in range(given)]
    pyramid = FeaturePyramid(channels, (14.0,) * given)
    assert pyramid.channels == [channels[index] for index in chosen]
    assert pyramid.strides == (3.5, 7.0, 14.0, 28.0)
    maps = [torch.randn(1, count, 3, 4) for count in channels]
    levels = pyramid(maps)
    assert [level.shape[1] for level in levels] == pyramid.channels
    assert torch.equal(levels[2], maps[chosen[2]])


@pytest.mark.parametrize(("max_levels", "first"), [(None, 0), (4, 1), (9, 0)])
def test_maps_of_a_hierarchical_encoder_pass_as_they_are(max_levels, first):
    pyramid = FeaturePyramid(CHANNELS, STRIDES, max_levels)
    maps = make_features().maps
    assert not pyramid.state_dict()
    assert (pyramid.channels, pyramid.strides) == (CHANNELS[first:], STRIDES[first:])
    assert all(level is source for level, source in zip(pyramid(maps), maps[first:], strict=True))


def test_dilated_stages_of_equal_stride_are_no_plain_transformer():
    assert not FeaturePyramid(CHANNELS, (2.0, 4.0, 8.0, 8.0, 8.0), 4).is_plain


@pytest.mark.parametrize("head", ["monodepth2", "upernet", "segformer"])
@torch.no_grad()
def test_heads_decode_the_levels_of_the_pyramid(head):
    """A head on a plain ViT is the same head on a hierarchical encoder that gives the pyramid's levels."""
    options = {"decoder_channels": [4] * 5} if head == "monodepth2" else {"channels": 4}
    plain = random_weights(make_head(head, options, [6] * 4, (14.0,) * 4))
    hierarchical = make_head(head, options, plain.pyramid.channels, plain.pyramid.strides)
    hierarchical.load_state_dict({n: t for n, t in plain.state_dict().items() if not n.startswith("pyramid.")})
    features = make_features([6] * 4, [(5, 8)] * 4, (14.0,) * 4)
    features.padded_size = (70, 112)
    levels = make_features([6] * 4, [(5, 8)] * 4, plain.pyramid.strides)
    levels.maps, levels.padded_size = plain.pyramid(features.maps), (70, 112)
    for decoded, expected in zip(plain(features), hierarchical(levels), strict=True):
        assert_same_up_to_rounding(decoded, expected)
    assert (plain.channels, plain.strides) == (hierarchical.channels, hierarchical.strides)


@torch.no_grad()
def test_monodepth2_on_a_plain_transformer_has_four_scales_from_the_pyramid():
    model = tiny_model("depth", "dinov2", "monodepth2").eval()
    features = model.encoder(torch.randn(1, 3, 57, 101))
    sizes = [tuple(level.shape[-2:]) for level in model.head(features)]
    # A grid of 5x8 patches of 14 pixels: the padded image, then four, two and one times the grid.
    assert sizes == [(70, 112), (20, 32), (10, 16), (5, 8)]
    assert model.head.strides == (1.0, 3.5, 7.0, 14.0)
    assert len(model.depth_predictor) == 4


def test_the_pyramid_adds_nothing_to_weights_on_convolutional_encoders():
    assert not any("pyramid" in name for name in tiny_model("depth").state_dict())


@pytest.mark.parametrize("head", ["upernet", "segformer"])
@torch.no_grad()
def test_five_maps_are_read_from_the_second(head):
    decoder = make_head(head, {"channels": 4})
    features = make_features()
    decoded = decoder(features)[0]
    assert tuple(decoded.shape[-2:]) == SIZES[1] and decoder.strides == (4.0,)
    features.maps[0] = torch.full_like(features.maps[0], torch.nan)
    assert torch.equal(decoder(features)[0], decoded)
