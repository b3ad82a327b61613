"""The DPT head against transformers' own DPT and Depth Anything with the same weights."""

from __future__ import annotations

import pytest
import torch
from models.tiny_models import DINOV2, VIT, scramble, tiny_model
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoModelForDepthEstimation, DepthAnythingConfig, DPTConfig
from transformers.models.dpt.modeling_dpt import DPTDepthEstimationHead, DPTNeck

from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, EncoderFeatures

NECK = [8, 12, 16, 20]
RENAMES = {
    "neck.reassemble_stage.": "head.reassemble_stage.",
    "neck.convs.": "head.convs.",
    "neck.fusion_stage.": "head.fusion_stage.",
    "head.conv1.": "head.conv1.",
    "head.conv2.": "head.conv2.",
    "head.conv3.": "depth_predictor.0.",
    "backbone.": "encoder.backbone.",
}
# Places in the Sequential of transformers' DPT head.
DPT_HEAD_RENAMES = {"head.0.": "conv1.", "head.2.": "conv2."}


def rename(name: str, renames: dict[str, str]) -> str:
    for old, new in renames.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    raise AssertionError(f"{name} has no counterpart")


@pytest.mark.parametrize("readout_type", ["project", "add", "ignore"])
@torch.no_grad()
def test_head_equals_the_neck_and_head_of_transformers_dpt(readout_type):
    config = DPTConfig(
        hidden_size=16,
        image_size=64,
        neck_hidden_sizes=NECK,
        reassemble_factors=[4, 2, 1, 0.5],
        readout_type=readout_type,
        fusion_hidden_size=8,
        is_hybrid=False,
    )
    neck, head = scramble(DPTNeck(config)).eval(), scramble(DPTDepthEstimationHead(config)).eval()
    options = {"neck_hidden_sizes": NECK, "readout_type": readout_type, "fusion_hidden_size": 8}
    ours = tiny_model("depth", "vit", "dpt", head_config=options, depth_type="relative_inverse").eval()
    weights = neck.state_dict()
    weights |= {
        rename(name, DPT_HEAD_RENAMES): tensor for name, tensor in head.state_dict().items() if "head.4" not in name
    }
    ours.head.load_state_dict(weights)
    ours.depth_predictor[0].load_state_dict({n: head.state_dict()[f"head.4.{n}"] for n in ("weight", "bias")})

    tokens = [torch.randn(2, 1 + 16, 16) for _ in range(4)]
    expected = head(neck([t.clone() for t in tokens], 4, 4))
    maps = [t[:, 1:].transpose(1, 2).reshape(2, 16, 4, 4) for t in tokens]
    features = EncoderFeatures(maps, [t[:, :1] for t in tokens], (16.0,) * 4, (64, 64), (64, 64))
    predicted = F.relu(ours.depth_predictor[0](ours.head(features)[0]))[:, 0]
    assert expected.std() > 1e-3
    assert_same_up_to_rounding(predicted, expected)


@pytest.mark.parametrize("size", [(70, 98), (126, 42)])
@torch.no_grad()
def test_depth_network_on_dinov2_equals_depth_anything(size):
    backbone = CONFIG_MAPPING["dinov2"](**{k: v for k, v in DINOV2.items() if k != "model_type"})
    backbone.reshape_hidden_states = False
    theirs = AutoModelForDepthEstimation.from_config(
        DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=14,
            reassemble_hidden_size=16,
            neck_hidden_sizes=NECK,
            fusion_hidden_size=8,
            head_hidden_size=6,
            depth_estimation_type="relative",
        )
    )
    scramble(theirs).eval()
    options = {
        "neck_hidden_sizes": NECK,
        "readout_type": "ignore",
        "fusion_hidden_size": 8,
        "head_hidden_size": 6,
    }
    config = DepthSegConfig(encoder_config=DINOV2, head_type="dpt", head_config=options, depth_type="relative_inverse")
    ours = DepthSegForDepthEstimation(config).eval()
    ours.load_state_dict({rename(name, RENAMES): tensor for name, tensor in theirs.state_dict().items()})
    image = torch.randn(1, 3, *size)
    expected = theirs(image).predicted_depth
    assert expected.std() > 1e-3
    assert_same_up_to_rounding(ours(image).predicted_depth, expected)


@torch.no_grad()
def test_convolutional_maps_are_the_pyramid_and_keep_their_channels():
    model = tiny_model("depth", "depthseg_resnet", "dpt")
    assert [conv.in_channels for conv in model.head.convs] == [8, 16, 32, 64]
    assert not hasattr(model.head, "reassemble_stage")


@torch.no_grad()
def test_vit_maps_are_the_hidden_states_after_the_chosen_layers():
    model = tiny_model("depth", "vit", "dpt").eval()
    image = torch.randn(1, 3, 32, 48)
    states = model.encoder.backbone(image, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    features = model.encoder(image)
    assert len(states) == 1 + VIT["num_hidden_layers"]
    for layer in range(4):
        patches = states[layer + 1][:, 1:].reshape(1, 2, 3, 16).permute(0, 3, 1, 2)
        assert_same_up_to_rounding(features.maps[layer], patches)
        assert_same_up_to_rounding(features.prefix_tokens[layer], states[layer + 1][:, :1])


@pytest.mark.parametrize(("layers", "chosen"), [(4, [1, 2, 3, 4]), (12, [3, 6, 9, 12]), (24, [6, 12, 18, 24])])
def test_vit_layers_are_chosen_evenly(layers, chosen):
    options = VIT | {"num_hidden_layers": layers}
    assert list(DepthSegConfig(encoder_config=options, head_type="dpt").encoder_config.out_indices) == chosen


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [1, 2, 3, 5]])
def test_vit_layers_that_do_not_exist_are_refused(indices):
    with pytest.raises(ValueError, match="a ViT of 4 layers allows 1 to 4"):
        DepthSegConfig(encoder_config=VIT | {"out_indices": indices}, head_type="dpt")


def test_an_exponential_depth_is_that_of_the_last_layer():
    options = {"encoder_config": {"model_type": "depthseg_resnet", "width_factor": 0.125}, "head_type": "dpt"}
    options |= {"depth_type": "relative", "head_config": {"depth_activation": "exp"}}
    model = DepthSegForDepthEstimation(DepthSegConfig(**options)).eval()
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last = model.depth_predictor[0](model.head(model.encode(image))[0])[:, 0]
        assert torch.allclose(model(image).predicted_depth, last.exp())
    with pytest.raises(ValueError, match="head_config.depth_activation is 'log'; allowed are depth_type, exp"):
        DepthSegConfig(**options | {"head_config": {"depth_activation": "log"}})
