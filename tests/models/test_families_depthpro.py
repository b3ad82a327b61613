"""DepthPro, held against transformers' own class."""

from __future__ import annotations

import pytest
import torch
from models import family_contract
from models.family_contract import ENDINGS, check_depth, load, make_foreign
from rounding import assert_same_up_to_rounding, in_float64
from torch.nn import functional as F
from transformers import DepthProConfig, DepthProForDepthEstimation

from depthseg.models import ENCODERS, DepthSegConfig, DepthSegForDepthEstimation, encoders_base_depthseg

VIT = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 32,
    "patch_size": 16,
}
# The smallest of three scaled images is one patch: images of 128 x 128.
DEPTHPRO = {
    "patch_size": 32,
    "fusion_hidden_size": 16,
    "intermediate_hook_ids": [2, 0],
    "intermediate_feature_dims": [16, 12],
    "scaled_images_ratios": [0.25, 0.5, 1],
    "scaled_images_overlap_ratios": [0.0, 0.5, 0.25],
    "scaled_images_feature_dims": [10, 8, 6],
    "image_model_config": VIT | {"hidden_size": 8},
    "patch_model_config": VIT,
    "fov_model_config": VIT,
}
FORMS = {
    "batch_norm": DEPTHPRO | {"use_batch_norm_in_fusion_residual": True, "use_bias_in_fusion_residual": False},
    "two_scales": DEPTHPRO
    | {
        "patch_size": 64,
        "image_model_config": VIT | {"image_size": 64},
        "patch_model_config": VIT | {"image_size": 64},
        "fov_model_config": VIT | {"image_size": 64},
        "scaled_images_ratios": [0.5, 1],
        "scaled_images_overlap_ratios": [0.0, 0.5],
        "scaled_images_feature_dims": [10, 8],
    },
}


def save(options, folder):
    model = make_foreign(DepthProForDepthEstimation, DepthProConfig(**options))
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return save(DEPTHPRO | {"use_fov_model": True}, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def ours(published):
    return load(published[1], "depth")


def test_depth_equals_that_of_transformers(published, ours):
    check_depth(published[0], ours, sizes=[(128, 128)])


@pytest.mark.parametrize("form", FORMS)
def test_depth_of_other_forms_equals_that_of_transformers(form, tmp_path):
    model, folder = save(FORMS[form], tmp_path)
    check_depth(model, load(folder, "depth"), sizes=[(128, 128)])


@torch.no_grad()
def test_batches_equal_those_of_transformers(published, ours):
    images = torch.randn(2, 3, 128, 128, dtype=torch.float64)
    expected = in_float64(published[0])(images).predicted_depth
    assert_same_up_to_rounding(in_float64(ours)(images).predicted_depth, expected)


@torch.no_grad()
@pytest.mark.parametrize("size", [(57, 101), (40, 24)])
def test_another_size_is_resized_to_the_one_and_back(published, ours, size):
    model, _ = published
    image = torch.randn(1, 3, *size)
    square = F.interpolate(image, (128, 128), mode="bilinear", antialias=True)
    expected = F.interpolate(model(square).predicted_depth[:, None], size, mode="bilinear")[:, 0]
    assert_same_up_to_rounding(ours(image).predicted_depth, expected)


def test_resizing_is_said(ours, monkeypatch):
    said = []
    monkeypatch.setattr(encoders_base_depthseg.logger, "warning_once", said.append)
    with torch.no_grad():
        ours(torch.randn(1, 3, 128, 128))
        assert said == []
        ours(torch.randn(1, 3, 40, 24))
    assert len(said) == 1
    assert "depth_pro supports only images of 128x128 pixels" in said[0]


def test_the_field_of_view_is_left_over_with_its_reason(published, ours):
    model, _ = published
    parts = {part.part: part for part in ours.transfer_report.parts}
    rest = parts["field_of_view"]
    assert rest.status == "left over"
    assert "field-of-view network" in rest.why
    assert rest.tensors == len(model.fov_model.state_dict())
    assert rest.parameters == sum(tensor.numel() for tensor in model.fov_model.state_dict().values())


def test_the_configuration_says_what_there_is(ours):
    assert ours.config.depth_type == "relative_inverse"
    assert ours.config.encoder_config.use_fov_model is False


def test_any_size_gives_labels_and_depth(published, ours):
    family_contract.check_any_size(ours, published[1])


@pytest.mark.parametrize(("task", "ending"), [("depth", "last_layer"), *(("segmentation", e) for e in ENDINGS)])
def test_saving_and_training(published, task, ending, tmp_path):
    family_contract.check_saving_and_training(published[1], task, ending, tmp_path)


def test_a_saved_depth_network_becomes_a_segmenter(ours, tmp_path):
    family_contract.check_transfer_between_tasks(ours, tmp_path)


@torch.no_grad()
def test_maps_go_from_shallow_to_deep(published, ours):
    """Intermediate layers first, the earlier one in front; then the scaled images from large to small."""
    model, _ = published
    image = torch.randn(1, 3, 128, 128)
    features = ours.encode(image)
    expected = model.depth_pro.encoder(image).features
    assert features.strides == (16, 16, 16, 32, 64, 64)
    assert [m.shape[1] for m in features.maps] == [16, 16, 16, 16, 16, 8]
    for found, theirs in zip(features.maps, reversed(expected), strict=True):
        assert_same_up_to_rounding(found, theirs)
    # The hook on the first layer is named last in the configuration. Five patches of 2 x 2 cells a side become eight
    # cells: the corner lies an eighth of a cell inside the first patch.
    vit = model.depth_pro.encoder.patch_encoder.model
    first_layer = vit(image[..., :32, :32], output_hidden_states=True).hidden_states[1]
    weights = torch.tensor([0.875, 0.125]).outer(torch.tensor([0.875, 0.125])).flatten()
    corner = (weights[:, None] * first_layer[0, 1:]).sum(dim=0)
    assert_same_up_to_rounding(features.maps[0][0, :, 0, 0], corner)


def test_the_declared_maps_are_those_handed_on(published):
    model = load(published[1], "segmentation", "segmentation_block", keep_depth=True)
    maps = model.head(model.encode(torch.randn(1, 3, 128, 128)))
    assert [m.shape[1] for m in maps] == model.head.channels == [32, 16]
    assert [128 / m.shape[-1] for m in maps] == list(model.head.strides)


@pytest.mark.parametrize("head_type", ["dpt", "linear"])
def test_other_heads_work_on_the_encoder(published, head_type):
    model = load(published[1], "segmentation", head_type=head_type, head_config=None)
    assert model(torch.randn(1, 3, 57, 101)).logits.isfinite().all()
    assert [part.status for part in model.transfer_report.parts[:3]] == ["taken", "new", "new"]


def test_the_head_on_another_encoder_is_refused():
    config = DepthSegConfig(
        encoder_config={"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125},
        head_type="native",
        head_config={"family": "depth_pro"},
    )
    with pytest.raises(ValueError, match="but the encoder returns 5 maps of .* use the encoder 'depth_pro'"):
        DepthSegForDepthEstimation(config)


@pytest.mark.parametrize("ratios", [[0.25, 0.5, 0.75], [0.25, 0.3, 1]])
def test_scales_that_leave_no_whole_image_are_refused(ratios):
    config = DepthProConfig(**DEPTHPRO | {"scaled_images_ratios": ratios})
    with pytest.raises(ValueError, match="the largest ratio must be 1, and every scaled image a whole number"):
        ENCODERS["depth_pro"].cls.complete_config(config)
