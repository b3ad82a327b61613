"""Runs that start from a depth model of transformers: numbers against transformers' own, and the way to the end."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import assert_same_up_to_rounding
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Dinov2ForImageClassification,
)

from depthseg import DepthSegForSemanticSegmentation, DepthSegImageProcessor
from depthseg.cli import main
from depthseg.data import LabelSpace
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
SPACE = LabelSpace("two", ("low", "high"), ((0, 0, 0), (255, 0, 0)))
CLASSES = SimpleNamespace(label_space=SPACE)

# What the processors of Depth Anything write, with other numbers.
PROCESSOR = {
    "image_processor_type": "DPTImageProcessor",
    "do_resize": True,
    "size": {"height": 518, "width": 518},
    "keep_aspect_ratio": True,
    "ensure_multiple_of": 14,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
    "do_pad": False,
}


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory):
    """A folder as transformers saves it, and the model."""
    folder = tmp_path_factory.mktemp("depth-anything")
    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    model = DepthAnythingForDepthEstimation(config).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder, model


@pytest.fixture
def data_dir(tmp_path):
    """Six small images whose upper part is bright, with labels."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(6):
        labels = np.zeros((30, 44), np.uint8)
        labels[: rng.integers(8, 22)] = 1
        pixels = np.clip(labels[..., None] * 150 + rng.integers(0, 60, (30, 44, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"{index}.png")
    (tmp_path / "data" / "classes.txt").write_text("low\nhigh\n")
    (tmp_path / "data" / "train.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "data" / "val.txt").write_text("4\n5\n")
    return tmp_path / "data"


def options(folder, *overrides):
    return load_config(None, [f"model.pretrained={folder}", "data.size=[28,42]", *overrides])


def test_the_model_of_a_run_predicts_what_transformers_predicts(depth_anything):
    folder, theirs = depth_anything
    model, processor = build_model(options(folder, "task=depth"), None)
    image = np.random.default_rng(0).integers(0, 256, (28, 42, 3), np.uint8)
    pixels = torch.from_numpy((image / 255 - MEAN) / STD).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(processor(images=image)["pixel_values"], pixels, rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = theirs(pixels).predicted_depth
        ours = model.eval()(pixels).predicted_depth
    assert_same_up_to_rounding(ours, expected)
    assert processor.size == {"height": 28, "width": 42}


def test_the_options_of_a_run_reach_the_model(depth_anything):
    folder, _ = depth_anything
    overrides = ("model.head_type=monodepth2", "model.keep_depth=true", "model.depth_type=relative")
    model, _ = build_model(options(folder, *overrides, "model.freeze_encoder=true"), CLASSES)
    assert type(model) is DepthSegForSemanticSegmentation and model.config.id2label == {0: "low", 1: "high"}
    assert (model.config.head_type, model.config.depth_type) == ("monodepth2", "relative")
    assert model.encoder.frozen and model.dtype == torch.float32
    status = {part.part: part.status for part in model.transfer_report.parts if part.status != "left over"}
    assert status == {"encoder": "taken", "head": "new", "depth_predictor": "new", "classifier": "new"}


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        ((), False),
        (("model.head_type=monodepth2",), True),
        (("model.head_type=monodepth2", "model.head_init=random"), False),
    ],
)
def test_a_decoder_that_the_options_drop_is_warned_of(depth_anything, caplog, overrides, warned):
    build_model(options(depth_anything[0], *overrides), CLASSES)
    assert ("set model.head_type=null model.head_config=null" in caplog.text) == warned


@pytest.fixture
def image_classifier(depth_anything, tmp_path):
    """A folder with an image classifier of transformers, and the model."""
    options_of_encoder = depth_anything[1].config.backbone_config.to_dict()
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "mlp_ratio", "image_size", "patch_size")
    classifier = Dinov2ForImageClassification(Dinov2Config(**{name: options_of_encoder[name] for name in names}))
    classifier.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return tmp_path, classifier.eval()


def test_a_run_may_start_from_a_bare_encoder(image_classifier):
    """An image classifier of transformers, in the place where a depth model may stand."""
    folder, classifier = image_classifier
    model, processor = build_model(options(folder, "model.head_type=linear"), CLASSES)
    status = {part.part: part.status for part in model.transfer_report.parts}
    assert status == {"encoder": "taken", "head": "new", "classifier": "new"}
    theirs = classifier.dinov2.embeddings.cls_token
    assert torch.equal(model.encoder.backbone.embeddings.cls_token, theirs) and theirs.any()
    assert (model.dtype, processor.image_mean) == (torch.float32, MEAN)


@pytest.mark.parametrize("layers", [[2], [1, 3]])
@torch.no_grad()
def test_options_choose_the_layers_that_are_read_of_a_bare_encoder(image_classifier, layers):
    folder, classifier = image_classifier
    chosen = f"model.encoder={{model_type: dinov2, hidden_size: 999, out_indices: {layers}}}"
    head = ("model.head_type=linear", f"model.head_config.num_layers={len(layers)}", "model.freeze_encoder=true")
    model, _ = build_model(options(folder, chosen, *head), CLASSES)
    assert model.config.encoder_config.out_indices == layers
    assert model.config.encoder_config.hidden_size == 16  # the size is that of the weights
    image = torch.randn(1, 3, 28, 56)
    states = classifier.dinov2(image, output_hidden_states=True).hidden_states
    for found, layer in zip(model.encoder(image).maps, layers, strict=True):
        expected = classifier.dinov2.layernorm(states[layer])[:, 1:].transpose(1, 2).unflatten(2, (2, 4))
        assert torch.allclose(found, expected, atol=1e-5)


def test_the_layers_of_another_encoder_choose_nothing(image_classifier):
    other = "model.encoder={model_type: vit, out_indices: [2]}"
    model, _ = build_model(options(image_classifier[0], other, "model.head_type=linear"), CLASSES)
    assert model.config.encoder_config.out_indices == [1, 2, 3, 4]


def test_a_depth_model_without_processor_is_refused(depth_anything, tmp_path):
    depth_anything[1].save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no preprocessor_config.json"):
        build_model(options(tmp_path), CLASSES)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    assert exit_info.value.code in (0, None)
    return capsys.readouterr().out


def test_from_somebodys_depth_model_to_scores_on_a_folder(depth_anything, data_dir, tmp_path, capsys, monkeypatch):
    config, run_dir = tmp_path / "run.yaml", tmp_path / "run"
    config.write_text("task: segmentation\n")
    overrides = (
        *(f"model.pretrained={depth_anything[0]}", "data.name=folder", f"data.root={data_dir}", "data.size=[28,42]"),
        *("optim.batch_size=2", "optim.lr=1e-3", "optim.layer_decay=0.8", "model.gradient_checkpointing=true"),
        *("schedule.steps=3", "run.cpu=true", "run.trackers=[]", f"run.output_dir={run_dir}"),
    )
    run(capsys, "finetune", "--config", config, *overrides)
    model = DepthSegForSemanticSegmentation.from_pretrained(run_dir / "model")
    lineage = model.config.weight_lineage[0]
    status = {part["part"]: part["status"] for part in lineage["parts"]}
    assert lineage["source_class"] == "DepthAnythingForDepthEstimation"
    assert (status["encoder"], status["head"], status["classifier"]) == ("taken", "taken", "new")
    processor = DepthSegImageProcessor.from_pretrained(run_dir / "model")
    assert (processor.image_mean, processor.image_std, processor.resample) == (MEAN, STD, 2)
    logged = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])
    evaluate = ("evaluate", "--model", run_dir / "model", "--dataset", "folder", "--root", data_dir, "--json")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # evaluated where it was trained
    scores = json.loads(run(capsys, *evaluate))
    assert (scores.pop("dataset"), scores.pop("split"), scores.pop("images") > 0) == ("folder", "val", True)
    assert scores.pop("protocol") == "standard"
    assert scores.items() <= logged.items() and scores["mean_iou"] is not None
