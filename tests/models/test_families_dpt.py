"""Depth Anything, Prompt Depth Anything and DPT in all their forms, held against transformers' own classes."""

from __future__ import annotations

import pytest
import torch
from models.tiny_models import NUM_LABELS, make_labels
from rounding import assert_same_up_to_rounding
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
    PromptDepthAnythingConfig,
    PromptDepthAnythingForDepthEstimation,
)

from depthseg.models import DepthSegForDepthEstimation, DepthSegForSemanticSegmentation

DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 4],
}
DINOV2_TOKENS = DINOV2 | {"reshape_hidden_states": False}
BEIT = {
    "model_type": "beit",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 16,
    "use_relative_position_bias": True,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
    "reshape_hidden_states": False,
}
SWINV2 = {
    "model_type": "swinv2",
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 1, 1],
    "window_size": 4,
    "image_size": 64,
    "patch_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
BIT = {
    "model_type": "bit",
    "global_padding": "same",
    "layer_type": "bottleneck",
    "depths": [1, 1, 1],
    "hidden_sizes": [8, 16, 32],
    "embedding_size": 8,
    "num_groups": 4,
    "out_features": ["stage1", "stage2", "stage3"],
    "embedding_dynamic_padding": True,
}
NECK = {"neck_hidden_sizes": [8, 8, 12, 16], "fusion_hidden_size": 8}
OWN_VIT = NECK | {
    "hidden_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 16,
    "backbone_out_indices": [0, 1, 2, 3],
}
ANYTHING = NECK | {"backbone_config": DINOV2_TOKENS, "reassemble_hidden_size": 16, "head_hidden_size": 8}
HYBRID = OWN_VIT | {
    "is_hybrid": True,
    "backbone_config": BIT,
    "backbone_featmap_shape": [1, 32, 4, 4],
    "neck_hidden_sizes": [8, 16, 16, 16],
    "reassemble_factors": [1, 1, 1, 0.5],
}

# Family -> (its class in transformers, configuration class, options, sizes at which transformers works).
FAMILIES = {
    "depth_anything": (DepthAnythingForDepthEstimation, DepthAnythingConfig, ANYTHING, [(56, 84), (70, 42)]),
    "depth_anything_metric": (
        DepthAnythingForDepthEstimation,
        DepthAnythingConfig,
        ANYTHING | {"depth_estimation_type": "metric", "max_depth": 80},
        [(56, 84), (70, 42)],
    ),
    "prompt_depth_anything": (
        PromptDepthAnythingForDepthEstimation,
        PromptDepthAnythingConfig,
        ANYTHING | {"depth_estimation_type": "metric", "max_depth": None},
        [(56, 84), (70, 42)],
    ),
    "prompt_depth_anything_relative": (
        PromptDepthAnythingForDepthEstimation,
        PromptDepthAnythingConfig,
        ANYTHING,
        [(56, 84), (70, 42)],
    ),
    "dpt": (DPTForDepthEstimation, DPTConfig, OWN_VIT, [(64, 64), (96, 96)]),
    "dpt_add": (DPTForDepthEstimation, DPTConfig, OWN_VIT | {"readout_type": "ignore"}, [(64, 64), (96, 96)]),
    "dpt_hybrid": (DPTForDepthEstimation, DPTConfig, HYBRID, [(64, 64)]),
    "dpt_dinov2": (
        DPTForDepthEstimation,
        DPTConfig,
        NECK | {"backbone_config": DINOV2_TOKENS},
        [(56, 84), (84, 28)],
    ),
    "dpt_beit": (DPTForDepthEstimation, DPTConfig, NECK | {"backbone_config": BEIT}, [(64, 64), (64, 96)]),
    "dpt_swinv2": (
        DPTForDepthEstimation,
        DPTConfig,
        NECK
        | {
            "backbone_config": SWINV2,
            "neck_hidden_sizes": [8, 16, 32, 64],
            "use_batch_norm_in_fusion_residual": True,
            "add_projection": False,
        },
        [(64, 64), (64, 128)],
    ),
}


def make_foreign(family: str):
    """A random depth model of transformers whose output is neither zero nor constant, and its sizes."""
    model_class, config_class, options, sizes = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(config_class(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
            if name.startswith("head.") and name.endswith("bias"):
                parameter.add_(0.3)
    return model, sizes


@pytest.fixture(scope="module", params=FAMILIES)
def foreign(request, tmp_path_factory):
    model, sizes = make_foreign(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder, sizes


@torch.no_grad()
def test_depth_equals_that_of_transformers(foreign):
    model, folder, sizes = foreign
    ours = DepthSegForDepthEstimation.from_depth_pretrained(folder)
    assert not ours.training
    for size in sizes:
        image = torch.randn(2, 3, *size)
        expected, output = model(image).predicted_depth, ours(image)
        assert expected.std() > 1e-4
        # At a patch of 14 DPT's map has 16 / 14 of the image's size; ours is brought back to the image afterwards.
        found = ours.read_depth(output.raw_maps[0])[:, 0]
        assert_same_up_to_rounding(found, expected)
        assert output.predicted_depth.shape == (2, *size)
        if expected.shape[-2:] == size:
            assert_same_up_to_rounding(output.predicted_depth, expected)


@torch.no_grad()
def test_depth_and_labels_at_sizes_that_transformers_refuses_or_cuts(foreign):
    _, folder, _ = foreign
    depth = DepthSegForDepthEstimation.from_depth_pretrained(folder)
    segmenter = DepthSegForSemanticSegmentation.from_depth_pretrained(folder, num_labels=NUM_LABELS, keep_depth=True)
    for size in ((57, 101), (96, 64)):
        image = torch.randn(1, 3, *size)
        output = segmenter(image)
        assert depth(image).predicted_depth.shape == output.predicted_depth.shape == (1, *size)
        assert output.logits.isfinite().all()
        assert_same_up_to_rounding(depth(image).predicted_depth, output.predicted_depth)


@pytest.mark.parametrize("ending", ["last_layer", "segmentation_block"])
def test_a_native_segmenter_trains_whole_and_survives_saving(foreign, ending, tmp_path):
    _, folder, _ = foreign
    options = {"head_config": {"ending": ending}, "num_labels": NUM_LABELS}
    model = DepthSegForSemanticSegmentation.from_depth_pretrained(folder, **options)
    assert [(part.part, part.status) for part in model.transfer_report.parts[:3]] == [
        ("encoder", "taken"),
        ("head", "taken"),
        ("classifier", "new"),
    ]
    image, labels = torch.randn(1, 3, 57, 101), make_labels("segmentation", 1, 57, 101)
    output = model.train()(image, labels=labels)
    assert output.logits.shape[1] == NUM_LABELS
    output.loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not gradient.any()] == []
    model.eval().save_pretrained(tmp_path)
    loaded = DepthSegForSemanticSegmentation.from_pretrained(tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        assert loaded(image).logits.isfinite().all()
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    # Equal weights at another place in memory may be summed in another order.
    assert_same_up_to_rounding(loaded(image).logits, model(image).logits)
    assert loaded.transfer_report.is_reload


def test_a_native_depth_network_trains_whole(foreign):
    _, folder, _ = foreign
    model = DepthSegForDepthEstimation.from_depth_pretrained(folder).train()
    model(torch.randn(1, 3, 57, 101), labels=make_labels("depth", 1, 57, 101)).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
@pytest.mark.parametrize("hybrid", [False, True])
def test_segmentation_block_equals_dpt_for_semantic_segmentation(hybrid):
    """The same weights in transformers' segmenter, which takes square images alone."""
    options = (HYBRID if hybrid else OWN_VIT) | {"num_labels": NUM_LABELS, "use_auxiliary_head": False}
    theirs = DPTForSemanticSegmentation(DPTConfig(**options)).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    head_config = {"family": "dpt", "ending": "segmentation_block"}
    head_config["options"] = NECK | {"upsampling": "double", "head_hidden_size": 32}
    if hybrid:
        head_config["options"] |= {name: options[name] for name in ("neck_hidden_sizes", "reassemble_factors")}
    encoder_config = DPTConfig(**options).to_dict() | {"id2label": None, "label2id": None}
    encoder_config = {name: value for name, value in encoder_config.items() if value is not None}
    config = DepthSegForSemanticSegmentation.config_class(
        encoder_config=encoder_config, head_type="native", head_config=head_config, num_labels=NUM_LABELS
    )
    ours = DepthSegForSemanticSegmentation(config).eval()
    renamed = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in (("dpt.", "encoder.backbone."), ("neck.", "head."), ("head.head.", "classifier.")):
            if name.startswith(old):
                renamed[new + name.removeprefix(old)] = tensor
    missing, unexpected = ours.load_state_dict(renamed, strict=False)
    assert unexpected == [] and {name.split(".")[1] for name in missing} == {"conv1", "conv2"}
    for size in (64,) if hybrid else (64, 96):
        image = torch.randn(2, 3, size, size)
        assert_same_up_to_rounding(ours(image).logits, theirs(image).logits)
    with pytest.raises((RuntimeError, ValueError)):
        theirs(torch.randn(1, 3, 64, 96))
    assert ours(torch.randn(1, 3, 64, 96)).logits.shape == (1, NUM_LABELS, 64, 96)


def test_prompt_layers_are_left_over_with_the_reason(tmp_path):
    model, _ = make_foreign("prompt_depth_anything")
    model.save_pretrained(tmp_path)
    report = DepthSegForDepthEstimation.from_depth_pretrained(tmp_path).transfer_report
    count = sum(p.numel() for n, p in model.named_parameters() if "prompt_depth_layer" in n)
    assert (report.parts[-1].part, report.parts[-1].status) == ("prompt", "left over")
    assert report.parts[-1].parameters == count > 0
    assert "prompt" in report.parts[-1].why
