"""Which tensors of a checkpoint a model takes, which are new, and which are left over."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch
from models.tiny_models import NUM_LABELS, PRETEXT_TASKS, TINY_HEADS, VIT, scramble, tiny_config, tiny_model
from models.tiny_models import TASKS as OWN_TASKS
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSemanticSegmentation, ViTConfig, ViTModel

TASKS = OWN_TASKS | PRETEXT_TASKS
SOURCES = {
    "depth": ("depth", {}),
    "segmentation": ("segmentation", {}),
    "both": ("segmentation", {"keep_depth": True}),
    # As many channels before the last layer as the encoder's last map has, so the last layers of both heads agree in
    # name and shape.
    "dpt": ("depth", {"head": "dpt", "head_config": TINY_HEADS["dpt"] | {"head_hidden_size": 64}}),
    "vit": ("depth", {"encoder": "vit", "head": "dpt", "head_config": TINY_HEADS["dpt"] | {"readout_type": "add"}}),
    "flow": ("flow", {}),
    "reconstruction": ("reconstruction", {}),
    "reconstruction with readout": (
        *("reconstruction",),
        {"encoder": "vit", "head": "dpt", "head_config": TINY_HEADS["dpt"] | {"readout_type": "add"}},
    ),
    "classification": ("classification", {}),
}
OTHER_SCALES = {"decoder_channels": [8, 8, 8, 8, 8], "num_scales": 2}
# source, task to load, arguments, parts taken, parts new, parts left over
CASES = {
    "depth to segmentation": ("depth", "segmentation", {}, "encoder head", "classifier", "depth_predictor"),
    "segmentation to depth": ("segmentation", "depth", {}, "encoder head", "depth_predictor", "classifier"),
    "other classes": ("segmentation", "segmentation", {"num_labels": 3}, "encoder head", "classifier", "classifier"),
    "same classes": ("segmentation", "segmentation", {}, "encoder head classifier", "", ""),
    "reload": ("depth", "depth", {}, "encoder head depth_predictor", "", ""),
    "new head": (
        *("depth", "segmentation", {"head_init": "random"}),
        *("encoder", "head classifier", "head depth_predictor"),
    ),
    "new head, same task": (
        *("depth", "depth", {"head_init": "random"}),
        *("encoder", "head depth_predictor", "head depth_predictor"),
    ),
    "other head": (
        *("depth", "segmentation", {"head_type": "linear"}),
        *("encoder", "head classifier", "head depth_predictor"),
    ),
    "other head, last layers alike": (
        *("dpt", "depth", {"head_type": "linear"}),
        *("encoder", "head depth_predictor", "head depth_predictor"),
    ),
    "other head options, same shapes": (
        *("depth", "segmentation", {"head_config": OTHER_SCALES}),
        *("encoder", "head classifier", "head depth_predictor"),
    ),
    "other readout, same shapes": (
        *("vit", "depth", {"head_config": TINY_HEADS["dpt"] | {"readout_type": "ignore"}}),
        *("encoder", "head depth_predictor", "head depth_predictor"),
    ),
    "depth is kept": ("depth", "segmentation", {"keep_depth": True}, "encoder head depth_predictor", "classifier", ""),
    "depth is dropped": (
        *("both", "segmentation", {"keep_depth": False}),
        *("encoder head classifier", "", "depth_predictor"),
    ),
    "depth out of both": ("both", "depth", {"keep_depth": False}, "encoder head depth_predictor", "", "classifier"),
    "depth beside old classes": (
        *("segmentation", "segmentation", {"keep_depth": True}),
        *("encoder head classifier", "depth_predictor", ""),
    ),
    "other meaning of depth": (
        *("depth", "depth", {"depth_type": "metric"}),
        *("encoder head", "depth_predictor", "depth_predictor"),
    ),
    "flow to segmentation": ("flow", "segmentation", {}, "encoder", "head classifier", "pretext_head"),
    "flow to depth": ("flow", "depth", {}, "encoder", "head depth_predictor", "pretext_head"),
    "reconstruction to segmentation": (
        *("reconstruction", "segmentation", {}),
        *("encoder", "head classifier", "pretext_head"),
    ),
    "reconstruction to both": (
        *("reconstruction", "segmentation", {"keep_depth": True}),
        *("encoder", "head classifier depth_predictor", "pretext_head"),
    ),
    "classification to segmentation": (
        *("classification", "segmentation", {}),
        *("encoder", "head classifier", "pretext_head"),
    ),
    "depth to flow": ("depth", "flow", {}, "encoder", "pretext_head", "head depth_predictor"),
    "segmentation to reconstruction": (
        *("segmentation", "reconstruction", {}),
        *("encoder", "pretext_head", "head classifier"),
    ),
    "segmentation to classification": (
        *("segmentation", "classification", {}),
        *("encoder", "pretext_head", "head classifier"),
    ),
    "reconstruction to flow": ("reconstruction", "flow", {}, "encoder", "pretext_head", "pretext_head"),
    "flow again": ("flow", "flow", {}, "encoder pretext_head", "", ""),
    "flow of another reach": ("flow", "flow", {"flow_range": 0.1}, "encoder", "pretext_head", "pretext_head"),
    "flow with a new head": ("flow", "flow", {"head_init": "random"}, "encoder", "pretext_head", "pretext_head"),
    "reconstruction again": ("reconstruction", "reconstruction", {}, "encoder pretext_head", "", ""),
    "reconstruction with another head": (
        *("reconstruction", "reconstruction", {"head_type": "linear"}),
        *("encoder", "pretext_head", "pretext_head"),
    ),
    "classification again": ("classification", "classification", {}, "encoder pretext_head", "", ""),
    "classification, whatever the head is": (
        *("classification", "classification", {"head_type": "linear"}),
        *("encoder pretext_head", "", ""),
    ),
    "classification of other classes": (
        *("classification", "classification", {"num_labels": 3}),
        *("encoder", "pretext_head", "pretext_head"),
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, (task, options) in SOURCES.items():
        model = scramble(tiny_model(task, **options))
        model.save_pretrained(folder / name)
        # transformers writes a ViT's tensors under other names than they have in memory; the tests compare the latter.
        save_file(model.state_dict(), folder / f"{name}.safetensors")
    return folder


def keys_of(keys, parts: str) -> set[str]:
    return {key for key in keys if key.split(".")[0] in parts.split()}


def parts_with(report, status: str) -> dict[str, int]:
    return {part.part: part.parameters for part in report.parts if part.status == status}


@pytest.mark.parametrize("case", CASES)
def test_exactly_these_tensors_are_taken_new_and_left_over(case, checkpoints):
    source, task, arguments, taken, new, left_over = CASES[case]
    stored = load_file(checkpoints / f"{source}.safetensors")
    model = TASKS[task].from_pretrained(checkpoints / source, **arguments)
    tensors = model.state_dict()
    assert {key for key in tensors if key in stored and torch.equal(tensors[key], stored[key])} == keys_of(
        tensors, taken
    )
    assert keys_of(tensors, new) == tensors.keys() - keys_of(tensors, taken)
    # A part left over may have a namesake in the model, and then not one tensor of it may come over.
    assert keys_of(stored, left_over) == stored.keys() - keys_of(stored, taken)
    assert all(tensor.isfinite().all() for tensor in tensors.values())

    report = model.transfer_report
    assert set(parts_with(report, "taken")) == set(taken.split())
    assert set(parts_with(report, "new")) == set(new.split())
    assert set(parts_with(report, "left over")) == set(left_over.split())
    for part, count in (parts_with(report, "taken") | parts_with(report, "new")).items():
        assert count == sum(tensors[key].numel() for key in keys_of(tensors, part))
    for part, count in parts_with(report, "left over").items():
        assert count == sum(stored[key].numel() for key in keys_of(stored, part))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"head_init": "random"}, "head_init='random'"),
        ({"head_type": "linear"}, "head_type 'monodepth2' in the checkpoint, 'linear' here"),
        ({"head_config": OTHER_SCALES}, "head_config differs in num_scales"),
        ({}, "same head"),
    ],
)
def test_the_report_says_why_a_head_is_taken_or_new(arguments, why, checkpoints):
    report = TASKS["segmentation"].from_pretrained(checkpoints / "depth", **arguments).transfer_report
    assert {part.why for part in report.parts if part.part == "head"} == {why}


@pytest.mark.parametrize(
    ("source", "task", "part", "why"),
    [
        (
            *("flow", "segmentation", "head"),
            "the decoder of DepthSegForOpticalFlow, pretext_head, is for another task",
        ),
        (
            *("reconstruction", "depth", "head"),
            "the decoder of DepthSegForImageReconstruction, pretext_head, is for another task",
        ),
        ("reconstruction", "depth", "pretext_head", "DepthSegForDepthEstimation has no such part"),
        ("classification", "segmentation", "head", "DepthSegForImageClassification has no decoder"),
        ("reconstruction", "flow", "pretext_head", "DepthSegForImageReconstruction is for another task"),
        ("depth", "flow", "pretext_head", "DepthSegForDepthEstimation has no such part"),
    ],
)
def test_the_report_says_why_a_pretext_decoder_stays_behind(source, task, part, why, checkpoints):
    report = TASKS[task].from_pretrained(checkpoints / source).transfer_report
    assert {entry.why for entry in report.parts if entry.part == part} == {why}


@pytest.mark.parametrize("source", ["reconstruction", "reconstruction with readout"])
@pytest.mark.parametrize("task", OWN_TASKS)
def test_the_decoder_of_a_reconstruction_is_taken_on_request(source, task, checkpoints, tmp_path):
    stored = load_file(checkpoints / f"{source}.safetensors")
    model = TASKS[task].from_pretrained(checkpoints / source, transfer_head=True)
    tensors = model.state_dict()
    body = {name.replace("pretext_head.body.", "head."): t for name, t in stored.items() if ".body." in name}
    assert body.keys() == keys_of(tensors, "head")
    assert all(torch.equal(tensors[name], tensor) for name, tensor in body.items())
    assert all(torch.equal(tensors[name], stored[name]) for name in keys_of(tensors, "encoder"))
    last = "classifier" if task == "segmentation" else "depth_predictor"
    report = model.transfer_report
    assert set(parts_with(report, "taken")) == {"encoder", "head"} and set(parts_with(report, "new")) == {last}
    predictor = [tensor.numel() for name, tensor in stored.items() if name.startswith("pretext_head.predictor.")]
    assert parts_with(report, "left over") == {"pretext_head.predictor": sum(predictor)}
    assert "because of transfer_head=True" in str(report)

    model.save_pretrained(tmp_path / "first")
    assert b'transfer_head"' not in (tmp_path / "first" / "config.json").read_bytes()
    again = TASKS[task].from_pretrained(tmp_path / "first")
    assert again.transfer_report.is_reload
    again.save_pretrained(tmp_path / "second")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(
    ("source", "task", "arguments", "why"),
    [
        ("flow", "segmentation", {}, "the decoder of DepthSegForOpticalFlow reads the maps of two images"),
        ("classification", "depth", {}, "DepthSegForImageClassification has no decoder"),
        (
            "depth",
            "segmentation",
            {},
            "DepthSegForDepthEstimation has a head, which is transferred without this argument",
        ),
        ("reconstruction", "flow", {}, "DepthSegForOpticalFlow has no head"),
        ("reconstruction", "depth", {"head_init": "random"}, "head_init='random' initialises a new head"),
        (
            "reconstruction",
            "depth",
            {"head_type": "linear"},
            "head_type 'monodepth2' in the checkpoint, 'linear' here",
        ),
        ("reconstruction", "depth", {"head_config": OTHER_SCALES}, "head_config differs in num_scales"),
    ],
)
def test_a_decoder_that_cannot_be_taken_is_not_replaced_in_silence(source, task, arguments, why, checkpoints):
    with pytest.raises(ValueError, match=re.escape(f"decoder of an inpainting model to head, but {why}")):
        TASKS[task].from_pretrained(checkpoints / source, transfer_head=True, **arguments)


def test_a_damaged_decoder_is_refused(checkpoints, tmp_path):
    stored = load_file(checkpoints / "reconstruction" / "model.safetensors")
    del stored["pretext_head.body.levels.0.conv0.conv.weight"]
    (tmp_path / "config.json").write_bytes((checkpoints / "reconstruction" / "config.json").read_bytes())
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors of 'pretext_head' are missing"):
        TASKS["depth"].from_pretrained(tmp_path, transfer_head=True)


def test_a_new_head_has_fresh_statistics(checkpoints, tmp_path):
    scramble(tiny_model("depth", head="linear")).save_pretrained(tmp_path)
    norm = TASKS["segmentation"].from_pretrained(tmp_path, head_init="random").head.norm
    assert (norm.weight == 1).all() and (norm.bias == 0).all() and norm.num_batches_tracked == 0
    assert (norm.running_mean == 0).all() and (norm.running_var == 1).all()


def test_new_weights_are_drawn_as_in_a_model_built_from_scratch(checkpoints):
    taken = TASKS["segmentation"].from_pretrained(checkpoints / "depth", head_init="random")
    scratch = TASKS["segmentation"](taken.config)
    for name in ("head.levels.4.conv0.conv.weight", "classifier.conv.weight"):
        loaded, built = taken.state_dict()[name], scratch.state_dict()[name]
        assert not torch.equal(loaded, built)
        assert loaded.std().item() == pytest.approx(built.std().item(), rel=0.2)
        assert loaded.abs().max() <= (loaded[0].numel()) ** -0.5


def test_auto_class_turns_a_depth_folder_into_a_segmenter(checkpoints):
    model = AutoModelForSemanticSegmentation.from_pretrained(checkpoints / "depth", num_labels=7)
    assert type(model) is TASKS["segmentation"]
    assert model.config.num_labels == 7 and model.classifier.conv.out_channels == 7
    assert set(parts_with(model.transfer_report, "taken")) == {"encoder", "head"}


@pytest.mark.parametrize("source", ["depth", "vit"])
def test_a_configuration_made_anew_for_the_same_encoder_fits(source, checkpoints):
    options = SOURCES[source][1]
    model = TASKS["segmentation"].from_pretrained(checkpoints / source, config=tiny_config(**options))
    assert set(parts_with(model.transfer_report, "taken")) == {"encoder", "head"}


def test_a_depth_encoder_is_taken_at_a_finer_output_stride(checkpoints):
    finer = tiny_config().encoder_config.to_dict() | {"output_stride": 8}
    model = TASKS["segmentation"].from_pretrained(
        checkpoints / "depth", encoder_config=finer, head_type="deeplabv3", head_config={"channels": 8}
    )
    assert set(parts_with(model.transfer_report, "taken")) == {"encoder"}
    stored = load_file(checkpoints / "depth.safetensors")
    assert all(torch.equal(t, stored[n]) for n, t in model.state_dict().items() if n.startswith("encoder."))
    assert model.encoder.strides == (2, 4, 8, 8, 8)


def test_another_encoder_is_refused(checkpoints):
    other = {"model_type": "depthseg_resnet", "depth": 34, "width_factor": 0.125}
    with pytest.raises(ValueError, match="encoder_config differs from that of the checkpoint in depth;"):
        TASKS["segmentation"].from_pretrained(checkpoints / "depth", encoder_config=other)


@pytest.mark.parametrize("ignore", [{}, {"ignore_mismatched_sizes": True}])
@pytest.mark.parametrize("damage", ["missing", "shape"])
@pytest.mark.parametrize("key", ["encoder.backbone.layer1.0.conv1.weight", "encoder.backbone.bn1.running_mean"])
def test_a_damaged_checkpoint_is_refused(key, damage, ignore, checkpoints, tmp_path):
    stored = load_file(checkpoints / "depth" / "model.safetensors")
    stored[key] = stored[key][:4].clone()
    if damage == "missing":
        del stored[key]
    (tmp_path / "config.json").write_bytes((checkpoints / "depth" / "config.json").read_bytes())
    save_file(stored, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=f"1 tensors of 'encoder' are missing or have another shape, for example {key}"
    ):
        TASKS["segmentation"].from_pretrained(tmp_path, **ignore)


def test_a_checkpoint_of_another_model_type_is_refused(tmp_path):
    options = {name: value for name, value in VIT.items() if name != "model_type"}
    ViTModel(ViTConfig(**options)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of model type 'vit', not of 'depthseg'"):
        TASKS["depth"].from_pretrained(tmp_path)


def test_an_unknown_head_init_is_refused(checkpoints):
    with pytest.raises(ValueError, match="head_init is 'zeros'; allowed are pretrained, random"):
        TASKS["depth"].from_pretrained(checkpoints / "depth", head_init="zeros")


def test_the_report_reads_as_a_table_and_as_json(checkpoints):
    report = TASKS["segmentation"].from_pretrained(checkpoints / "depth", num_labels=NUM_LABELS).transfer_report
    lines = str(report).splitlines()
    assert lines[0] == f"DepthSegForSemanticSegmentation from {checkpoints.name}/depth (DepthSegForDepthEstimation):"
    assert [line.split()[0] for line in lines[1:]] == ["encoder", "head", "classifier", "depth_predictor"]
    assert [line.split()[1] for line in lines[1:]] == ["transferred", "transferred", "new", "not"]
    assert all(" elements " in line for line in lines[1:])
    values = report.to_dict()
    assert values == json.loads(json.dumps(values))
    assert values["source_class"] == "DepthSegForDepthEstimation" and values["revision"] is None
    assert values["parts"][2] == {
        **{"part": "classifier", "status": "new", "why": "DepthSegForDepthEstimation has no such part"},
        **{"tensors": 2, "parameters": NUM_LABELS * (8 * 9 + 1)},
    }
    assert TASKS["depth"](tiny_config()).transfer_report is None


def test_a_transfer_is_logged_and_a_reload_is_not(checkpoints, caplog):
    library = logging.getLogger("transformers")
    library.addHandler(caplog.handler)
    logging.getLogger("depthseg").addHandler(caplog.handler)
    try:
        TASKS["depth"].from_pretrained(checkpoints / "depth")
        assert "transferred" not in caplog.text
        TASKS["segmentation"].from_pretrained(checkpoints / "depth")
    finally:
        library.removeHandler(caplog.handler)
        logging.getLogger("depthseg").removeHandler(caplog.handler)
    assert "depth_predictor  not used" in caplog.text
    assert "LOAD REPORT" not in caplog.text, "transformers' own table says the same a second time"


def test_lineage_grows_with_each_transfer_and_not_with_a_reload(checkpoints, tmp_path):
    assert TASKS["depth"].from_pretrained(checkpoints / "depth").config.weight_lineage is None
    first = TASKS["segmentation"].from_pretrained(checkpoints / "depth", head_init="random")
    assert first.config.weight_lineage == [first.transfer_report.to_dict()]
    first.save_pretrained(tmp_path / "first")
    again = TASKS["segmentation"].from_pretrained(tmp_path / "first")
    assert again.config.weight_lineage == first.config.weight_lineage
    second = TASKS["segmentation"].from_pretrained(tmp_path / "first", num_labels=3)
    assert second.config.weight_lineage == [*first.config.weight_lineage, second.transfer_report.to_dict()]
    second.save_pretrained(tmp_path / "second")
    text = (tmp_path / "second" / "config.json").read_text()
    assert str(tmp_path.parent) not in text and str(checkpoints) not in text
    assert "head_init" not in json.loads(text) and "transfer" not in text


def test_loading_information_is_returned_on_request(checkpoints):
    model, info = TASKS["segmentation"].from_pretrained(checkpoints / "depth", output_loading_info=True)
    assert set(info["missing_keys"]) == keys_of(model.state_dict(), "classifier")
