"""Which tensors of somebody's depth model are taken, which are new or left over, and what is refused."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from models.test_families_dpt import DINOV2, OWN_VIT, make_foreign
from models.tiny_models import NUM_LABELS, TASKS, TINY_ENCODERS, tiny_model
from rounding import assert_same_up_to_rounding
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    BertConfig,
    Dinov2Backbone,
    Dinov2Config,
    Dinov2ForImageClassification,
    DPTConfig,
    DPTForDepthEstimation,
    DPTForSemanticSegmentation,
)

from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegForSemanticSegmentation

TINY_DPT = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
# source, task to load, arguments, parts taken, parts new, parts left over
CASES = {
    "its own head by default": ("depth_anything", "segmentation", {}, "encoder head", "classifier", "depth_predictor"),
    "native": (
        *("depth_anything", "segmentation", {"head_type": "native"}),
        *("encoder head", "classifier", "depth_predictor"),
    ),
    "dpt is native under another name": (
        *("depth_anything", "segmentation", {"head_type": "dpt"}),
        *("encoder head", "classifier", "depth_predictor"),
    ),
    "the whole network as depth": ("depth_anything", "depth", {}, "encoder head depth_predictor", "", ""),
    "depth is kept": (
        *("depth_anything", "segmentation", {"keep_depth": True}),
        *("encoder head depth_predictor", "classifier", ""),
    ),
    "segmentation block": (
        *("dpt", "segmentation", {"head_config": {"ending": "segmentation_block"}}),
        *("encoder head", "classifier", "depth_predictor"),
    ),
    "encoder only": (
        *("depth_anything", "segmentation", {"head_init": "random"}),
        *("encoder", "head classifier", "head depth_predictor"),
    ),
    "other head": (
        *("depth_anything", "segmentation", {"head_type": "linear"}),
        *("encoder", "head classifier", "head depth_predictor"),
    ),
    # "ignore" and "add" have the same tensors with another meaning.
    "other readout, same shapes": (
        *("dpt_add", "segmentation", {"head_type": "dpt", "head_config": {"readout_type": "add"}}),
        *("encoder", "head classifier", "head depth_predictor"),
    ),
    "other upsampling, same shapes": (
        *("dpt", "depth", {"head_type": "dpt", "head_config": {"upsampling": "image"}}),
        *("encoder", "head depth_predictor", "head depth_predictor"),
    ),
    "other meaning of depth": (
        *("depth_anything", "depth", {"depth_type": "metric"}),
        *("encoder head", "depth_predictor", "depth_predictor"),
    ),
    "prompt layers": (
        *("prompt_depth_anything", "segmentation", {}),
        *("encoder head", "classifier", "depth_predictor prompt"),
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    for family in ("depth_anything", "prompt_depth_anything", "dpt", "dpt_add"):
        make_foreign(family)[0].save_pretrained(folder / family)
    return folder


def our_names(family: str) -> dict[str, torch.Tensor]:
    """The tensors of a foreign model under our names, written down here once more by hand."""
    stored = {}
    for name, tensor in make_foreign(family)[0].state_dict().items():
        if family.startswith("dpt"):
            last = {"head.head.0": "head.conv1", "head.head.2": "head.conv2", "head.head.4": "depth_predictor.0"}
        else:
            last = {"head.conv3": "depth_predictor.0"}
        for old, new in (last | {"dpt": "encoder.backbone", "backbone": "encoder.backbone", "neck": "head"}).items():
            if name.startswith(old + "."):
                name = new + name.removeprefix(old)
                break
        stored[name] = tensor
    return stored


@pytest.mark.parametrize("case", CASES)
def test_exactly_these_tensors_are_taken_new_and_left_over(case, checkpoints):
    family, task, arguments, taken, new, left_over = CASES[case]
    stored = our_names(family)
    model = TASKS[task].from_depth_pretrained(checkpoints / family, num_labels=NUM_LABELS, **arguments)
    tensors = model.state_dict()
    equal = {key for key in tensors if key in stored and torch.equal(tensors[key], stored[key])}
    assert equal == {key for key in tensors if key.split(".")[0] in taken.split()}
    assert {key for key in tensors if key.split(".")[0] in new.split()} == tensors.keys() - equal
    parts = model.transfer_report.parts
    for status, names in (("taken", taken), ("new", new), ("left over", left_over)):
        assert {part.part for part in parts if part.status == status} == set(names.split())
    assert all(part.why and part.tensors for part in parts)
    assert model.config.weight_lineage[-1]["source"] == f"{checkpoints.name}/{family}"


def test_the_report_with_its_reasons_is_printed_and_saved(checkpoints, caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        model = DepthSegForSemanticSegmentation.from_depth_pretrained(checkpoints / "dpt", head_type="linear")
    assert "head_type 'native' in the checkpoint, 'linear' here" in caplog.text
    assert "DPTForDepthEstimation" in caplog.text
    model.save_pretrained(tmp_path)
    lineage = json.loads((tmp_path / "config.json").read_text())["weight_lineage"]
    assert lineage[0]["source_class"] == "DPTForDepthEstimation"
    assert {part["part"]: part["status"] for part in lineage[0]["parts"] if part["part"] == "encoder"} == {
        "encoder": "taken"
    }


def damage(checkpoints, tmp_path, change_config=None, drop=None):
    folder = tmp_path / "damaged"
    make_foreign("depth_anything")[0].save_pretrained(folder)
    if change_config:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change_config))
    if drop:
        tensors = load_file(folder / "model.safetensors")
        save_file({k: v for k, v in tensors.items() if k != drop}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("arguments", [{}, {"ignore_mismatched_sizes": True}, {"head_type": "linear"}])
@pytest.mark.parametrize(
    "fault", [{"change_config": {"fusion_hidden_size": 16}}, {"drop": "neck.convs.2.weight"}], ids=["shape", "missing"]
)
def test_a_checkpoint_that_does_not_fill_its_network_is_refused(fault, arguments, checkpoints, tmp_path):
    folder = damage(checkpoints, tmp_path, **fault)
    with pytest.raises(ValueError, match="missing or differ in shape.*damaged, and nothing was transferred"):
        DepthSegForSemanticSegmentation.from_depth_pretrained(folder, **arguments)


def test_models_that_predict_no_depth_are_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(
        ValueError, match="the model type 'bert', which is not a supported depth model.*supports depthseg, dep"
    ):
        DepthSegForSemanticSegmentation.from_depth_pretrained(tmp_path / "bert")
    DPTForSemanticSegmentation(DPTConfig(**OWN_VIT)).save_pretrained(tmp_path / "labels")
    with pytest.raises(ValueError, match="saved by DPTForSemanticSegmentation, which does not predict depth"):
        DepthSegForSemanticSegmentation.from_depth_pretrained(tmp_path / "labels")
    (tmp_path / "canopy").mkdir()
    (tmp_path / "canopy" / "config.json").write_text(json.dumps({"model_type": "chmv2"}))
    with pytest.raises(ValueError, match="'chmv2', which is not supported: predicts the height of tree canopies"):
        DepthSegForSemanticSegmentation.from_depth_pretrained(tmp_path / "canopy")
    with pytest.raises(ValueError, match="head_init is 'none'; allowed are pretrained, random"):
        DepthSegForSemanticSegmentation.from_depth_pretrained(tmp_path / "bert", head_init="none")


def test_another_map_than_the_finest_is_refused(tmp_path):
    DPTForDepthEstimation(DPTConfig(**OWN_VIT, head_in_index=0)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="head_in_index is 0; only heads on the last"):
        DepthSegForDepthEstimation.from_depth_pretrained(tmp_path)


def test_a_flow_checkpoint_gives_its_encoder_alone(tmp_path):
    """Same head type, same options, same tensor names and shapes: only the class says that it never saw depth."""
    model = tiny_model("depth", "dinov2", "dpt")
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["DepthSegForOpticalFlow"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = DepthSegForSemanticSegmentation.from_depth_pretrained(tmp_path, num_labels=NUM_LABELS)
    taken = [part.part for part in loaded.transfer_report.parts if part.status == "taken"]
    assert taken == ["encoder"]
    assert not torch.equal(loaded.head.conv1.weight, model.head.conv1.weight)


def test_a_depthseg_checkpoint_is_read_as_from_pretrained_reads_it(tmp_path):
    model = tiny_model("depth", "dinov2", "dpt").eval()
    model.save_pretrained(tmp_path)
    loaded = DepthSegForDepthEstimation.from_depth_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    image = torch.randn(1, 3, 57, 101)
    assert_same_up_to_rounding(loaded(image).predicted_depth, model(image).predicted_depth)
    assert loaded.transfer_report.is_reload


def test_the_dtype_of_the_checkpoint_or_the_one_asked_for(checkpoints, tmp_path):
    make_foreign("depth_anything")[0].bfloat16().save_pretrained(tmp_path)
    assert DepthSegForDepthEstimation.from_depth_pretrained(tmp_path).dtype == torch.bfloat16
    assert DepthSegForDepthEstimation.from_depth_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    options = {name: value for name, value in DINOV2.items() if name not in ("model_type", "out_indices")}
    model = Dinov2ForImageClassification(Dinov2Config(**options, num_labels=7)).eval()
    folder = tmp_path_factory.mktemp("classifier")
    model.save_pretrained(folder)
    return model, folder


@torch.no_grad()
def test_a_bare_encoder_comes_out_of_an_image_classifier_and_goes_back_alone(classifier, tmp_path):
    theirs, folder = classifier
    model = DepthSegForSemanticSegmentation.from_encoder_pretrained(
        folder,
        encoder_options={"out_indices": [1, 2, 3, 4]},
        head_type="dpt",
        head_config=TINY_DPT,
        num_labels=NUM_LABELS,
    )
    image = torch.randn(1, 3, 28, 56)
    hidden = theirs.dinov2(image, output_hidden_states=True).hidden_states[4]
    expected = theirs.dinov2.layernorm(hidden)[:, 1:].transpose(1, 2).reshape(1, 16, 2, 4)
    assert_same_up_to_rounding(model.encoder(image).maps[3], expected)
    assert [(part.part, part.status) for part in model.transfer_report.parts] == [
        ("encoder", "taken"),
        ("head", "new"),
        ("classifier", "new"),
    ]
    model.save_encoder(tmp_path)
    backbone = Dinov2Backbone.from_pretrained(tmp_path).eval()
    found = backbone(image).feature_maps[3][:, 1:].transpose(1, 2).reshape(1, 16, 2, 4)
    assert_same_up_to_rounding(found, model.encoder(image).maps[3])


def test_an_encoder_is_not_taken_from_a_depth_model_nor_half(checkpoints, classifier, tmp_path):
    with pytest.raises(ValueError, match="is a depth model .depth_anything.; load it with from_depth_pretrained"):
        DepthSegForSemanticSegmentation.from_encoder_pretrained(checkpoints / "depth_anything")
    classifier[0].save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if "layer.1" in name or "layers.1" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors are missing or differ in shape"):
        DepthSegForSemanticSegmentation.from_encoder_pretrained(tmp_path)


def test_the_configuration_of_a_native_head_is_checked():
    for head_config, message in (
        ({"family": "bert"}, "head_config.family is 'bert'; allowed are depth_anything"),
        ({"family": "dpt", "ending": "none"}, "head_config.ending is 'none'; allowed are last_layer"),
        ({"family": "dpt", "options": {"ending": "last_layer"}}, "set head_config.ending"),
        ({"family": "dpt", "options": {"colour": 1}}, "no option colour for the native head of 'dpt'"),
    ):
        with pytest.raises(ValueError, match=message):
            DepthSegConfig(encoder_config=dict(DINOV2), head_type="native", head_config=head_config)


@pytest.mark.parametrize(
    "encoder", ["vit", "vit_mae", "beit", "swin", "swinv2", "convnext", "resnet", "dinov2_with_registers"]
)
def test_any_image_classifier_gives_its_encoder(encoder, tmp_path):
    """The baselines of the study: every tensor of the encoder is found, value by value, in the classifier."""
    options = {name: value for name, value in TINY_ENCODERS[encoder].items() if name != "model_type"}
    auto_class = AutoModelForPreTraining if encoder == "vit_mae" else AutoModelForImageClassification
    theirs = auto_class.from_config(AutoConfig.for_model(encoder, **options))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.rand_like(parameter))
    theirs.save_pretrained(tmp_path)
    model = DepthSegForSemanticSegmentation.from_encoder_pretrained(tmp_path, head_type="linear", num_labels=3)
    assert len(model.encoder.strides) == 4
    stored = {tensor.float().sum().item() for tensor in theirs.state_dict().values()}
    alien = [n for n, t in model.encoder.named_parameters() if t.float().sum().item() not in stored]
    # Norms of single maps are new: a classifier has none.
    assert [name for name in alien if "hidden_states_norms" not in name] == []
