"""Layers of encoder parameters against lists written by hand from the papers' architectures.

Patterns name places, not the weights inside a block, whose names differ between versions of transformers.
"""

from __future__ import annotations

import re

import pytest
import torch
from models.tiny_models import TINY_ENCODERS
from torch import nn

from depthseg.models import ENCODERS
from depthseg.models.configuration_depthseg import build_encoder_config
from depthseg.models.encoders_layers_depthseg import number_layers

VIT = {r"embeddings\.": 0, **{rf"layers?\.{i}\.": i + 1 for i in range(4)}, r"(layer)?norm\.": 5}
SWIN = {"depths": [2, 1, 3, 1], "num_heads": [1, 2, 2, 2]}
# Stages of 2, 1, 3 and 1 blocks; merging patches at the end of a stage goes with its last block.
SWIN_LAYERS = {
    r"embeddings\.": 0,
    r"layers\.0\.blocks\.0\.": 1,
    r"layers\.0\.(blocks\.1|downsample)\.": 2,
    r"layers\.1\.(blocks\.0|downsample)\.": 3,
    r"layers\.2\.blocks\.0\.": 4,
    r"layers\.2\.blocks\.1\.": 5,
    r"layers\.2\.(blocks\.2|downsample)\.": 6,
    r"layers\.3\.blocks\.0\.": 7,
    r"(layernorm|hidden_states_norms\.\w+)\.": 8,
}
CONVNEXT_LAYERS = {r"embeddings\.": 0, **{rf"stages\.{i}\.": i + 1 for i in range(4)}, r"hidden_states_norms\.": 5}
# Embedding i makes the input of stage i, norm i ends it; stages of 1, 2, 1 and 2 blocks.
GLPN_LAYERS = {
    r"patch_embeddings\.0\.": 0,
    r"block\.0\.0\.|layer_norm\.0\.|patch_embeddings\.1\.": 1,
    r"block\.1\.0\.": 2,
    r"block\.1\.1\.|layer_norm\.1\.|patch_embeddings\.2\.": 3,
    r"block\.2\.0\.|layer_norm\.2\.|patch_embeddings\.3\.": 4,
    r"block\.3\.0\.": 5,
    r"block\.3\.1\.": 6,
    r"layer_norm\.3\.": 7,
}
EXPECTED = {
    "depthseg_resnet": ({}, {r"(conv1|bn1)\.": 0, **{rf"layer{i}\.": i for i in range(1, 5)}}, 5),
    "dinov2": ({}, VIT, 5),
    "vit": ({}, VIT, 5),
    "vit_mae": ({}, VIT, 5),
    "beit": ({}, {**VIT, r"relative_position_bias\.": 0}, 5),
    "dinov3_vit": ({}, VIT, 5),
    "dpt": ({}, VIT, 5),
    "swin": (SWIN, SWIN_LAYERS, 8),
    "swinv2": (SWIN, SWIN_LAYERS, 8),
    "convnext": ({"depths": [1, 2, 3, 1]}, CONVNEXT_LAYERS, 5),
    # A stem of several convolutions is no stage.
    "rt_detr_resnet": ({}, {r"embedder\.": 0, **{rf"stages\.{i}\.": i + 1 for i in range(4)}}, 5),
    "glpn": ({"depths": [1, 2, 1, 2]}, GLPN_LAYERS, 7),
    # Two ViTs side by side, numbered alike.
    "depth_pro": ({}, {rf"(patch|image)_encoder\.model\.(encoder\.)?({place})": i for place, i in VIT.items()}, 5),
}


def build_encoder(model_type: str, changes: dict) -> nn.Module:
    config = build_encoder_config({"model_type": model_type} | TINY_ENCODERS[model_type] | changes)
    return ENCODERS[model_type].cls(config)


@pytest.mark.parametrize("model_type", EXPECTED)
def test_layers_are_those_written_by_hand(model_type):
    changes, places, num_layers = EXPECTED[model_type]
    encoder = build_encoder(model_type, changes)
    assert encoder.num_layers == num_layers
    seen = set()
    for name, _ in encoder.named_parameters():
        # Whatever wraps the layers (the family's name, `encoder`, `model`) may stand before a place.
        wrappers = r"backbone\.(\w+\.)?(encoder\.|model\.)?"
        matching = {place for place in places if re.match(wrappers + f"({place})", name)}
        if not matching:  # a weight of its own, such as a table of positions
            assert (name.count("."), encoder.layer_of(name)) == (1, 0), name
            continue
        assert {encoder.layer_of(name)} == {places[place] for place in matching}, name
        seen |= matching
    assert all("norm" in place or "position" in place for place in set(places) - seen)  # not in every family


@pytest.mark.parametrize("model_type", ENCODERS)
def test_every_encoder_counts_without_gaps(model_type):
    encoder = build_encoder(model_type, {})
    layers = {encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    # A stem may be part of the first stage, and nothing need follow the last one.
    assert set(range(1, encoder.num_layers)) <= layers <= set(range(encoder.num_layers + 1))
    assert encoder.num_layers >= 4


def test_numbers_are_of_the_structure_and_cost_no_weights():
    encoder = build_encoder("depthseg_resnet", {})
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    assert encoder.layer_of("backbone.layer3.1.conv2.weight") == 3
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_an_unknown_parameter_is_named():
    with pytest.raises(ValueError, match="no parameter 'backbone.layer9.weight'"):
        build_encoder("depthseg_resnet", {}).layer_of("backbone.layer9.weight")


def test_a_block_that_is_left_out_keeps_its_number():
    class ToyAttention(nn.Linear):
        pass

    blocks = nn.ModuleList(nn.Sequential(ToyAttention(2, 2), nn.Linear(2, 2)) for _ in range(3))
    network = nn.ModuleDict({"stem": nn.Linear(2, 2), "blocks": blocks, "norm": nn.LayerNorm(2)})
    x = torch.zeros(1, 2)
    layers, top = number_layers(network, lambda: network["norm"](network["blocks"][0](network["stem"](x))))
    assert top == 4
    assert [layers[name] for name in ("stem", "blocks.0.1", "blocks.1", "blocks.2.0")] == [0, 1, 2, 3]
