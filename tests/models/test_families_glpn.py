"""GLPN, held against transformers' own class."""

from __future__ import annotations

import pytest
import torch
from models import family_contract
from models.family_contract import ENDINGS, check_depth, load, make_foreign
from models.tiny_models import TASKS
from rounding import assert_same_up_to_rounding, in_float64
from torch.nn import functional as F
from transformers import GLPNConfig, GLPNForDepthEstimation

from depthseg.models import ENCODERS
from depthseg.models.heads_glpn_depthseg import GLPNHeadConfig

GLPN = {
    "hidden_sizes": [8, 8, 12, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "mlp_ratios": [2, 2, 2, 2],
    "decoder_hidden_size": 8,
    "max_depth": 10,
    "drop_path_rate": 0.0,
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    model = make_foreign(GLPNForDepthEstimation, GLPNConfig(**GLPN))
    folder = tmp_path_factory.mktemp("glpn")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def ours(foreign):
    return load(foreign[1], "depth")


def test_depth_equals_that_of_transformers(foreign, ours):
    check_depth(foreign[0], ours, sizes=[(64, 96), (96, 32)])


@torch.no_grad()
def test_an_odd_image_is_the_padded_one_cut_back(foreign, ours):
    model, ours = in_float64(foreign[0]), in_float64(ours)
    image = torch.randn(1, 3, 57, 101, dtype=torch.float64)
    expected = model(F.pad(image, (0, 27, 0, 7), mode="replicate")).predicted_depth[:, :57, :101]
    assert_same_up_to_rounding(ours(image).predicted_depth, expected)
    # Without the padding transformers' decoder cannot join its maps.
    with pytest.raises(RuntimeError):
        model(image)


@torch.no_grad()
def test_the_decoder_resizes_to_the_next_map(ours):
    """Maps whose sizes are not doubles of each other, as of an encoder that is not padded."""
    head = ours.head
    sizes = [(23, 15), (12, 8), (6, 4), (3, 2)]
    maps = [torch.randn(1, channels, *size) for channels, size in zip([8, 8, 12, 16], sizes, strict=True)]
    fused = None
    for stage, level in zip(head.stages, reversed(maps), strict=True):
        level = stage.convolution(level)
        if fused is not None:
            fused = F.interpolate(fused, level.shape[-2:], mode="bilinear", align_corners=False)
            level = stage.fusion(level, fused)
        fused = level
    expected = F.interpolate(fused, (46, 30), mode="bilinear", align_corners=False)
    assert_same_up_to_rounding(head.fuse(maps), expected)


def test_metres_come_from_the_depth_model(ours):
    assert (ours.config.depth_type, ours.config.max_depth) == ("metric", 10.0)


def test_any_size_gives_labels_and_depth(foreign, ours):
    family_contract.check_any_size(ours, foreign[1])


@pytest.mark.parametrize(("task", "ending"), [("depth", "last_layer"), *(("segmentation", e) for e in ENDINGS)])
def test_saving_and_training(foreign, task, ending, tmp_path):
    family_contract.check_saving_and_training(foreign[1], task, ending, tmp_path)


def test_a_saved_depth_network_becomes_a_segmenter(ours, tmp_path):
    family_contract.check_transfer_between_tasks(ours, tmp_path)


def test_the_encoder_covers_all_keys_of_its_attention():
    encoder = ENCODERS["glpn"].cls(GLPNConfig(**GLPN))
    assert encoder.multiple == 32
    assert encoder.strides == (4, 8, 16, 32)
    assert encoder.channels == [8, 8, 12, 16]
    narrow = ENCODERS["glpn"].cls(GLPNConfig(**GLPN | {"sr_ratios": [3, 2, 1, 1]}))
    assert narrow.multiple == 96


def test_a_head_on_another_map_is_refused(tmp_path):
    make_foreign(GLPNForDepthEstimation, GLPNConfig(**GLPN | {"head_in_index": 1})).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="head_in_index is 1; only heads on the last"):
        TASKS["depth"].from_depth_pretrained(tmp_path)


def test_an_odd_decoder_width_is_refused():
    with pytest.raises(ValueError, match="decoder_hidden_size is 7; it must be an even number"):
        GLPNHeadConfig(decoder_hidden_size=7)
