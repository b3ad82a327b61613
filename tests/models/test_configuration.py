"""The configuration refuses what it does not understand and survives every way of copying it."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from models.tiny_models import DINOV2, RESNET, VIT, tiny_config, tiny_model
from transformers import AutoConfig, BertConfig

from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegResNetConfig
from depthseg.models.configuration_depthseg import OWN_OPTIONS

# One wrong type or value for each option: (value, what the message names)
WRONG = {
    "encoder_config": ("resnet18", "encoder_config"),
    "head_type": ("unet", "head_type is 'unet'; allowed are monodepth2, dpt, "),
    "head_config": ({"scales": 3}, "head_config has no option scales for head_type 'monodepth2'"),
    "one_class": ("yes", "one_class"),
    "semantic_loss_ignore_index": ("none", "semantic_loss_ignore_index"),
    "depth_type": ("metres", "depth_type"),
    "depth_loss": ("l2", "depth_loss"),
    "segmentation_loss": ("hinge", "segmentation_loss"),
    "class_weights": ([1.0, -2.0], "class_weights is .*; weights must be at least 0"),
    "label_smoothing": (1.5, "label_smoothing is 1.5; it must be from 0 to 1"),
    "min_depth": (0.0, "min_depth is 0.0"),
    "max_depth": (0.05, "0 < min_depth < max_depth"),
    "input_mean": ([0.5, 0.5, 0.5], "input_mean and input_std go together"),
    "input_std": ([0.5, 0.5, 0.5], "input_mean and input_std go together"),
    "keep_depth": ("yes", "keep_depth"),
    "flow_range": (1.5, "flow_range is 1.5; it must lie above 0 and not above 1"),
    "weight_lineage": ("imagenet", "weight_lineage"),
}


@pytest.mark.parametrize("name", OWN_OPTIONS)
def test_a_wrong_value_of_any_option_is_refused(name):
    value, message = WRONG[name]
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        DepthSegConfig(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_depth": "near"}, "Field 'min_depth' expected float, got str"),
        ({"head_type": 3}, "Field 'head_type' expected str, got int"),
        ({"encoder_config": RESNET | {"depth": "18"}}, "Field 'depth' expected int, got str"),
        ({"min_depth": 5.0, "max_depth": 5.0}, "0 < min_depth < max_depth"),
        ({"input_mean": [0.5], "input_std": [0.5]}, "each needs 3 numbers"),
        ({"input_mean": [0.5] * 3, "input_std": [0.5, 0.5, 0.0]}, "each must be above 0"),
        ({"num_labels": 3, "id2label": {0: "road", 1: "sky"}}, "num_labels is 3 but id2label names 2 classes"),
        ({"id2label": {1: "road", 2: "sky"}}, r"id2label has the ids \[1, 2\]; they must be 0 to 1"),
        ({"num_lables": 3}, "has no option num_lables; its own options are .*depth_loss"),
        ({"encoder_config": {"depth": 18}}, "encoder_config.model_type is None; allowed are depthseg_resnet"),
        ({"encoder_config": {"model_type": "bert"}}, "encoder_config.model_type is 'bert'; allowed are"),
        ({"encoder_config": BertConfig()}, "encoder_config.model_type is 'bert'; allowed are"),
        ({"encoder_config": RESNET | {"width": 2}}, "encoder_config has no option width; .* knows .*width_factor"),
        ({"encoder_config": RESNET | {"depth": 19}}, r"depth is 19; allowed are \[18, 34, 50, 101\]"),
        ({"encoder_config": RESNET | {"width_factor": 0.01}}, "width_factor is 0.01; it must be between"),
        ({"encoder_config": VIT | {"layers": 2}}, "encoder_config has no option layers"),
        (
            {"head_config": {"decoder_channels": [8, 0]}},
            r"decoder_channels is \[8, 0\]; it must be a list of one or more integers, each at least 1",
        ),
        ({"head_config": {"num_scales": 0}}, "num_scales is 0; it must be an integer of at least 1"),
        ({"head_type": "linear", "head_config": {"num_layers": 1.5}}, "num_layers is 1.5; it must be an integer"),
        ({"head_type": "dpt", "head_config": {"readout_type": "mean"}}, "readout_type is 'mean'; allowed are project"),
        ({"head_type": "dpt", "head_config": {"neck_hidden_sizes": [8, 8]}}, "DPT requires exactly 4 entries"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(options, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        DepthSegConfig(**options)


def test_a_value_is_checked_when_it_is_set_later():
    with pytest.raises(StrictDataclassError, match="keep_depth"):
        tiny_config().keep_depth = "no"


def test_label2id_follows_from_id2label():
    config = DepthSegConfig(id2label={0: "sky", 1: "road", 2: "car"})
    assert config.num_labels == 3
    assert config.label2id == {"sky": 0, "road": 1, "car": 2}


def test_heads_get_their_defaults_as_plain_json():
    config = DepthSegConfig(head_type="dpt", head_config={"fusion_hidden_size": 64})
    assert config.head_config == {
        "neck_hidden_sizes": [96, 192, 384, 768],
        "reassemble_factors": [4, 2, 1, 0.5],
        "readout_type": "project",
        "readout_act": "gelu",
        "fusion_hidden_size": 64,
        "use_batch_norm_in_fusion_residual": False,
        "use_bias_in_fusion_residual": None,
        "add_projection": False,
        "head_hidden_size": 32,
        "upsampling": "image",
        "depth_activation": "depth_type",
        "ending": "last_layer",
        "classifier_dropout": 0.1,
    }
    default = DepthSegConfig()
    assert default.encoder_config.model_type == "depthseg_resnet" and default.encoder_config.depth == 18
    assert default.encoder_config.width_factor == 1.0 and default.head_type == "monodepth2"


FULL = {
    "id2label": {0: "sky", 1: "road", 2: "car"},
    "depth_type": "metric",
    "depth_loss": "silog",
    "min_depth": 0.5,
    "max_depth": 80,
    "input_mean": (0.45, 0.45, 0.45),
    "input_std": [0.225, 0.225, 0.225],
    "keep_depth": True,
    "semantic_loss_ignore_index": 11,
    "segmentation_loss": "cross_entropy_dice",
    "class_weights": [1.0, 0.5, 2.0],
    "label_smoothing": 0.1,
}
COPIES = {
    "dictionary": lambda config, path: DepthSegConfig.from_dict(config.to_dict()),
    "json": lambda config, path: DepthSegConfig.from_dict(json.loads(config.to_json_string(use_diff=False))),
    "deepcopy": lambda config, path: copy.deepcopy(config),
    "pickle": lambda config, path: pickle.loads(pickle.dumps(config)),
    "folder": lambda config, path: config.save_pretrained(path) or DepthSegConfig.from_pretrained(path),
    "auto class": lambda config, path: config.save_pretrained(path) or AutoConfig.from_pretrained(path),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("encoder", [RESNET, DINOV2, VIT], ids=lambda options: options["model_type"])
def test_every_way_of_copying_gives_an_equal_configuration(encoder, way, tmp_path):
    config = DepthSegConfig(encoder_config=dict(encoder), **FULL)
    twin = COPIES[way](config, tmp_path)
    assert type(twin) is DepthSegConfig and type(twin.encoder_config) is type(config.encoder_config)
    for name in OWN_OPTIONS:
        if name not in ("encoder_config", "input_mean"):
            assert getattr(twin, name) == getattr(config, name)
    assert list(twin.input_mean) == [0.45, 0.45, 0.45]
    assert twin.id2label == FULL["id2label"] and twin.label2id == config.label2id
    assert {name: getattr(twin.encoder_config, name) for name in encoder} == encoder


def test_an_encoder_may_be_given_as_an_object():
    config = DepthSegConfig(encoder_config=DepthSegResNetConfig(depth=50))
    assert config.encoder_config.depth == 50
    assert DepthSegConfig.from_dict(config.to_dict()).encoder_config.depth == 50


@pytest.mark.parametrize("encoder", ["depthseg_resnet", "dinov2", "vit"])
def test_building_a_model_leaves_its_configuration_as_it_was(encoder):
    config = tiny_config(encoder, "linear")
    before = config.to_dict()
    DepthSegForSemanticSegmentation(config)
    assert config.to_dict() | {"dtype": None} == before


def test_two_classes_are_the_default_and_are_not_in_the_file(tmp_path):
    config = DepthSegConfig(encoder_config=RESNET)
    assert (config.num_labels, config.id2label) == (2, {0: "LABEL_0", 1: "LABEL_1"})
    model = DepthSegForSemanticSegmentation(config)
    model.save_pretrained(tmp_path)
    # As the files of version 0.1.0 are.
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({name: stored[name] for name in stored.keys() - {"id2label", "label2id", "one_class"}}))
    loaded = DepthSegForSemanticSegmentation.from_pretrained(tmp_path)
    assert loaded.config.id2label == config.id2label
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("overrides", "id2label"),
    [
        ({"num_labels": 2}, {0: "LABEL_0", 1: "LABEL_1"}),
        ({"num_labels": 4}, {i: f"LABEL_{i}" for i in range(4)}),
        ({"id2label": {0: "near", 1: "far"}}, {0: "near", 1: "far"}),
        ({"id2label": {0: "near", 1: "far"}, "num_labels": 2}, {0: "near", 1: "far"}),
        ({}, FULL["id2label"]),
    ],
)
def test_classes_are_replaced_when_a_checkpoint_is_loaded_with_others(overrides, id2label, tmp_path):
    DepthSegConfig(encoder_config=RESNET, **FULL).save_pretrained(tmp_path)
    config = DepthSegConfig.from_pretrained(tmp_path, **overrides)
    assert config.id2label == id2label
    assert config.label2id == {name: index for index, name in id2label.items()}
    assert config.num_labels == len(id2label)


def test_classes_at_odds_with_each_other_are_refused_when_loading_too(tmp_path):
    DepthSegConfig(encoder_config=RESNET).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_labels is 3 but id2label names 1 classes"):
        DepthSegConfig.from_pretrained(tmp_path, num_labels=3, id2label={0: "road"})


def test_another_head_drops_the_options_of_the_old_one(tmp_path):
    tiny_config(head="dpt").save_pretrained(tmp_path)
    assert DepthSegConfig.from_pretrained(tmp_path, head_type="linear").head_config == {"num_layers": 1}
    assert DepthSegConfig.from_pretrained(tmp_path).head_config["fusion_hidden_size"] == 8


def test_what_is_set_when_loading_is_checked_too(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(StrictDataclassError, match="depth_loss"):
        DepthSegConfig.from_pretrained(tmp_path, depth_loss="l2")


def test_options_of_a_newer_release_are_ignored_with_a_warning(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_the_future": 1}))
    assert DepthSegConfig.from_pretrained(tmp_path).head_type == "monodepth2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_smoothing": 0.1, "head_type": "mask_queries"}, "'mask_queries' compares masks by a loss of its own"),
        ({"label_smoothing": 0.1, "segmentation_loss": "focal"}, "segmentation_loss is 'focal', which has none"),
        ({"class_weights": [1, 2], "segmentation_loss": "dice"}, "compares areas; leave class_weights out"),
        ({"class_weights": [1, 2, 3]}, "class_weights has 3 entries but there are 2 classes"),
        ({"class_weights": [1, float("nan")]}, "must be at least 0, finite, and not all 0"),
        ({"class_weights": [0, 0]}, "must be at least 0, finite, and not all 0"),
    ],
)
def test_losses_that_do_not_go_together_are_refused(options, words):
    with pytest.raises((StrictDataclassError, ValueError), match=words):
        DepthSegConfig(num_labels=2, **options)


def test_a_depth_checkpoint_takes_class_weights_with_its_classes(tmp_path):
    tiny_model("depth").save_pretrained(tmp_path)
    options = {"num_labels": 3, "class_weights": [1.0, 2.0, 0.5], "segmentation_loss": "focal"}
    for load in (
        DepthSegForSemanticSegmentation.from_depth_pretrained,
        DepthSegForSemanticSegmentation.from_pretrained,
    ):
        config = load(tmp_path, **options).config
        assert config.class_weights == [1.0, 2.0, 0.5] and config.segmentation_loss == "focal"


def test_class_weights_are_saved_and_go_with_their_classes(tmp_path):
    DepthSegConfig(num_labels=3, class_weights=[1.0, 2.0, 0.5], label_smoothing=0.1).save_pretrained(tmp_path)
    assert DepthSegConfig.from_pretrained(tmp_path).class_weights == [1.0, 2.0, 0.5]
    other = DepthSegConfig.from_pretrained(tmp_path, num_labels=2)
    assert other.class_weights is None and other.label_smoothing == 0.1
    assert DepthSegConfig.from_pretrained(tmp_path, num_labels=2, class_weights=[1, 2]).class_weights == [1, 2]
    same = DepthSegConfig.from_pretrained(tmp_path, num_labels=3, id2label={i: f"LABEL_{i}" for i in range(3)})
    assert same.class_weights == [1.0, 2.0, 0.5]
    renamed = DepthSegConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b", 2: "c"})
    assert renamed.class_weights is None
    masks = DepthSegConfig.from_pretrained(tmp_path, head_type="mask_queries")
    assert masks.class_weights is None and masks.label_smoothing == 0 and masks.num_labels == 3
