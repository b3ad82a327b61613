"""What a run that begins with trained weights writes about its gain, its loss, and the check of its data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine.tiny_run import Blocks, tiny_config, tiny_train
from PIL import Image
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from depthseg.engine import build
from depthseg.engine.before_after import constant_scores
from depthseg.engine.build import build_model
from depthseg.engine.config import load_config
from depthseg.engine.run import train

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def write_depth_anything(folder, **options):
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
    small = {
        "reassemble_hidden_size": 16,
        "neck_hidden_sizes": [8] * 4,
        "fusion_hidden_size": 8,
        "head_hidden_size": 8,
    }
    DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **small, **options)).save_pretrained(
        folder
    )
    processor = {"image_processor_type": "DPTImageProcessor", "size": {"height": 28, "width": 28}}
    processor |= {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    processor |= {"image_mean": MEAN, "image_std": STD, "resample": 3, "do_pad": False, "ensure_multiple_of": 14}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def depth_anything(tmp_path_factory):
    return write_depth_anything(tmp_path_factory.mktemp("relative"))


@pytest.fixture
def depth_folder(tmp_path):
    """Ten images whose lower rows are nearer, with 16-bit depth."""
    rng = np.random.default_rng(0)
    for name in ("images", "depth"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(10):
        metres = np.linspace(20 + index, 4, 30)[:, None] * np.ones((1, 44))
        pixels = (metres[..., None] * 8 + rng.integers(0, 40, (30, 44, 3))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{index}.png")
        Image.fromarray((metres * 256).astype(np.uint16)).save(tmp_path / "data" / "depth" / f"{index}.png")
    return tmp_path / "data"


def recipe(source, root, run_dir, *overrides):
    own = (f"model.pretrained={source}", f"data.root={root}", f"run.output_dir={run_dir}", "data.size=[28,42]")
    short = ("optim.batch_size=2", "schedule.steps=2", "schedule.warmup_steps=0", "run.cpu=true")
    return load_config("depth_anything_own_depth", [*own, *short, "run.trackers=[]", *overrides])


def test_the_recipe_keeps_the_decoder_and_compares_before_after_and_constant(depth_anything, depth_folder, tmp_path):
    result = train(recipe(depth_anything, depth_folder, tmp_path / "run"))
    lineage = json.loads((result.model_dir / "config.json").read_text())["weight_lineage"][0]
    assert {part["part"]: part["status"] for part in lineage["parts"]} == dict.fromkeys(
        ("encoder", "head", "depth_predictor"), "taken"
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    before, constant = record["scores_before"], record["constant_scores"]["constant depth"]
    assert (before["alignment"], constant["alignment"]) == ("scale_shift_inverse", "median")
    assert before["images"] == constant["images"] == result.scores["images"] and before != result.scores
    table = (tmp_path / "run" / "report" / "before_after.md").read_text()
    cells = [f"{scores['abs_rel']:.3f}" for scores in (constant, before, result.scores)]
    assert f"| AbsRel | {' | '.join(cells)} |" in table
    assert "scale_shift_inverse (after training)" in table and "median (constant depth)" in table


@pytest.mark.parametrize(
    ("metric", "overrides", "loss"),
    [
        ({}, (), "ssi"),
        ({"depth_estimation_type": "metric", "max_depth": 20}, (), "silog"),
        ({}, ("model.depth_loss=l1",), "l1"),
        ({}, ("model.head_type=monodepth2", "model.depth_type=metric", "model.head_init=random"), "silog"),
        ({}, ("model.head_type=monodepth2", "model.depth_type=relative", "model.head_init=random"), "ssi"),
    ],
)
def test_the_loss_is_that_of_the_meaning_of_the_depth(tmp_path, metric, overrides, loss):
    source = write_depth_anything(tmp_path, **metric)
    options = [f"model.pretrained={source}", "task=depth", "data.size=[28,42]", *overrides]
    model, _ = build_model(load_config(None, options), None)
    assert model.config.depth_loss == loss


def test_a_loss_that_a_depthseg_checkpoint_has_stays(depth_anything, tmp_path):
    options = ["task=depth", "data.size=[28,42]"]
    first, processor = build_model(
        load_config(None, [f"model.pretrained={depth_anything}", "model.depth_loss=l1", *options]), None
    )
    first.save_pretrained(tmp_path), processor.save_pretrained(tmp_path)
    model, _ = build_model(load_config(None, [f"model.pretrained={tmp_path}", *options]), None)
    assert (model.config.depth_type, model.config.depth_loss) == ("relative_inverse", "l1")


@pytest.mark.parametrize("is_evaluated", [True, False])
def test_a_resumed_run_keeps_the_loss_that_it_began_with(
    depth_anything, depth_folder, tmp_path, monkeypatch, is_evaluated
):
    """Of a time when a depth model of transformers got the loss of every other, and no record named it."""
    every = "run.eval_every=1" if is_evaluated else "run.eval_every=0"
    config = recipe(depth_anything, depth_folder, tmp_path / "run", "run.checkpoint_every=1", every)
    config.model.depth_loss = None
    monkeypatch.setattr(build, "LOSS_OF_DEPTH", {})
    result = train(config)
    metrics = tmp_path / "run" / "metrics.jsonl"
    then = json.loads(metrics.read_text().splitlines()[-1])
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_2")
    if not is_evaluated:
        shutil.rmtree(result.model_dir)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record.pop("depth_loss") == "l1"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    monkeypatch.undo()
    config.run.resume = True
    resumed = train(config)
    assert json.loads((resumed.model_dir / "config.json").read_text())["depth_loss"] == "l1"
    assert json.loads(metrics.read_text().splitlines()[-1])["train_loss"] == pytest.approx(
        then["train_loss"], rel=1e-5
    )


def test_a_resumed_run_keeps_the_loss_and_the_weights_of_its_record(depth_anything, depth_folder, tmp_path):
    config = recipe(depth_anything, depth_folder, tmp_path / "run", "run.checkpoint_every=1")
    config.model.depth_loss = None
    train(config)
    path = tmp_path / "run" / "run.json"
    assert json.loads(path.read_text())["depth_loss"] == "ssi"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"depth_loss": "silog"}))
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_2")
    config.run.resume = True
    assert json.loads((train(config).model_dir / "config.json").read_text())["depth_loss"] == "silog"
    weighted = tiny_config(tmp_path / "weighted", "model.class_weights=balanced", "schedule.steps=2")
    weighted.run.checkpoint_every = 1
    train(weighted, Blocks(6), Blocks(2, seed=1))
    then = json.loads((tmp_path / "weighted" / "run.json").read_text())["class_weights"]
    shutil.rmtree(tmp_path / "weighted" / "checkpoints" / "step_2")
    weighted.run.resume = True
    result = train(weighted, Blocks(6, seed=9), Blocks(2, seed=1))
    assert json.loads((result.model_dir / "config.json").read_text())["class_weights"] == then


@pytest.mark.parametrize("given", ["{}", "null"])
def test_empty_options_of_a_decoder_keep_that_of_the_checkpoint(depth_anything, tmp_path, given):
    """On the command line and in a file, above a recipe that names another decoder with its options."""
    lines = (
        f"base: pretrain_folder\nmodel: {{head_type: native, head_config: {given}, pretrained: {depth_anything}}}\n"
    )
    (tmp_path / "mine.yaml").write_text(lines)
    overrides = ["model.head_type=native", f"model.head_config={given}", f"model.pretrained={depth_anything}"]
    for config in (load_config(tmp_path / "mine.yaml"), load_config("pretrain_folder", overrides)):
        config = replace(config, data=replace(config.data, size=[28, 42]))
        config.model.depth_type = None
        model, _ = build_model(config, None)
        status = {part.part: part.status for part in model.transfer_report.parts}
        assert status == {"encoder": "taken", "head": "taken", "depth_predictor": "taken"}


def test_damaged_data_stop_a_run_in_the_sentences_of_the_check(depth_anything, depth_folder, tmp_path):
    Image.fromarray(np.ones((8, 8), np.uint16)).save(depth_folder / "depth" / "3.png")
    with pytest.raises(ValueError, match="was checked before training") as caught:
        train(recipe(depth_anything, depth_folder, tmp_path / "run"))
    assert "3.png" in str(caught.value) and "data.check=false" in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"3\.png") as caught:  # where the run meets the file
        train(recipe(depth_anything, depth_folder, tmp_path / "run", "data.check=false"))
    assert "was checked" not in str(caught.value)


def test_data_sets_that_are_rendered_need_no_check(tmp_path):
    options = ["data.name=synthetic", f"data.root={tmp_path / 'world'}", "data.options={count: 2, size: [32, 64]}"]
    config = tiny_config(tmp_path / "run", *options, "data.check=true", "schedule.steps=1", "optim.batch_size=2")
    assert train(config).scores["step"] == 1


def test_scoring_before_changes_no_number_and_is_done_once(tmp_path):
    plain = tiny_train(tmp_path / "plain", "schedule.steps=3")
    scored = tiny_train(tmp_path / "scored", "schedule.steps=3", "run.score_before=true")
    assert {**scored.scores, "seconds": 0} == {**plain.scores, "seconds": 0}
    path = tmp_path / "scored" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"scores_before": record["scores_before"] | {"mean_iou": 0.125}}))
    tiny_train(tmp_path / "scored", "schedule.steps=3", "run.score_before=true", "run.resume=true")
    table = (tmp_path / "scored" / "report" / "before_after.md").read_text()
    assert "| mIoU |" in table and "| 12.5 % |" in table and "majority class" in table and "Labels: stamp" in table


def test_scores_before_are_those_of_the_weights_that_the_run_begins_with(tmp_path):
    first = tiny_train(tmp_path / "first", "task=depth", "schedule.steps=3")
    options = ("task=depth", "run.score_before=true", "schedule.steps=1", f"model.pretrained={first.model_dir}")
    tiny_train(tmp_path / "second", *options, "model.encoder=null")
    before = json.loads((tmp_path / "second" / "run.json").read_text())["scores_before"]
    assert before == {name: first.scores[name] for name in before}


def test_constants_are_scored_as_computed_by_hand():
    """Two pixels of 2 and 4 m, of images where 4 m is the more frequent depth of training."""

    def samples(*depths):
        maps = [np.array([depth], np.float32) for depth in depths]
        images = [np.zeros((*depth.shape, 3), np.uint8) for depth in maps]
        items = [SimpleNamespace(image=image, depth=depth) for image, depth in zip(images, maps, strict=True)]
        return items

    scores = {"abs_rel": 0.0, "alignment": "none", "min_depth": 0.1, "max_depth": 100.0, "crop": "none"}
    found = constant_scores(scores, samples([4, 4, 4, 2]), samples([2, 4]))["constant depth"]
    assert found["abs_rel"] == pytest.approx(((4 - 2) / 2 + 0) / 2, rel=1e-3) and found["alignment"] == "none"
    aligned = constant_scores(scores | {"alignment": "scale_shift_inverse"}, samples([4]), samples([2, 4]))
    # The median of 2 and 4 is 3.
    assert aligned["constant depth"]["abs_rel"] == pytest.approx((1 / 2 + 1 / 4) / 2, rel=1e-6)
    assert constant_scores({"loss": 1.0}, [], []) == {}


def test_a_training_set_without_depth_has_no_constant(tmp_path, caplog):
    class WithoutDepth(Blocks):
        def __getitem__(self, index):
            return replace(super().__getitem__(index), depth=None)

    video = ("task=depth", "pretext.supervision=mono", "optim.batch_size=2", "schedule.steps=1")
    config = tiny_config(tmp_path / "run", *video, "run.score_before=true")
    train(config, WithoutDepth(4), Blocks(2, seed=1))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["scores_before"]["abs_rel"] > 0 and record["constant_scores"] == {}
    assert "not compared with a constant" in caplog.text
