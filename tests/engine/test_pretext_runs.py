"""Runs without labels, and the baselines of depth, from options to run directory."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from depthseg.data.synthetic import SyntheticCrops, SyntheticWorld
from depthseg.engine.predict import load_model
from depthseg.engine.run import train
from depthseg.geometry import pixel_grid
from depthseg.models import DepthSegForOpticalFlow, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from depthseg.pretext import SelfSupervisedObjective
from depthseg.pretext.alignment import find_rotation, rotated_pixels, stabilise

DEPTH = ("supervision=stereo", "supervision=mono", "supervision=mono_stereo")
LEARNED = ("supervision=mono", "intrinsics=per_image")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    return {
        split: SyntheticWorld(root, split, count=count, size=(32, 64), frames=(-1, 1), stereo=True, flow=True)
        for split, count in (("train", 6), ("val", 2))
    }


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    return {
        split: SyntheticCrops(root, split, count=count, size=(32, 32)) for split, count in (("train", 8), ("val", 8))
    }


def scores_of(run):
    return json.loads((run.run_dir / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    "options",
    [
        *((option,) for option in DEPTH),
        LEARNED,
        (*LEARNED[:1], "pose_network=shared"),
        (*LEARNED, "derotate=true"),
        (*LEARNED[:1], "pose_network=shared", "derotate=true"),
        ("supervision=mono_stereo", "derotate=true"),
    ],
)
def test_depth_without_labels_is_scored_like_any_depth(tiny, tmp_path, world, options):
    config = tiny.tiny_pretext_config(tmp_path, "depth", *options)
    run = train(config, world["train"], world["val"])
    scores = scores_of(run)
    assert scores["alignment"] == ("none" if "stereo" in options[0] else "median")
    assert 0 < scores["abs_rel"] < 10 and scores["images"] == 2
    # The world's cameras see as far as 0.72 to 0.98 of the width, and four steps leave the estimate near 1.
    assert ("focal_error" in scores) == (options[:2] == LEARNED) and 0 < scores.get("focal_error", 0.1) < 0.5
    # Where no baseline gives depth a scale, an anchor holds it.
    assert ("anchor_loss" in scores) == (options[0] == "supervision=mono")
    parts = sum(scores.get(f"{part}_loss", 0) for part in ("photometric", "smoothness", "anchor"))
    assert parts == pytest.approx(scores["val_loss"], rel=1e-6)
    segmenter = DepthSegForSemanticSegmentation.from_pretrained(run.model_dir, num_labels=3)
    taken = {part.part: part.status for part in segmenter.transfer_report.parts}
    assert taken == {"encoder": "taken", "head": "taken", "classifier": "new", "depth_predictor": "left over"}


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("flow", {"end_point_error", "outliers", "photometric_loss"}),
        ("inpainting", {"l1", "psnr", "hole_l1", "hole_psnr"}),
        ("classification", {"accuracy", "mean_class_accuracy"}),
    ],
)
def test_baselines_have_their_own_scores_and_hand_on_their_encoder(tiny, tmp_path, world, crops, task, names):
    data, overrides = (crops, ["data.size=[32,32]"]) if task == "classification" else (world, [])
    run = train(tiny.tiny_pretext_config(tmp_path, task, overrides=overrides), data["train"], data["val"])
    scores = scores_of(run)
    assert names | {"val_loss"} <= set(scores)
    assert all(np.isfinite(scores[name]) for name in names)
    segmenter = DepthSegForSemanticSegmentation.from_pretrained(run.model_dir, num_labels=3)
    taken = {part.part: part.status for part in segmenter.transfer_report.parts}
    assert taken == {"encoder": "taken", "head": "new", "classifier": "new", "pretext_head": "left over"}


@pytest.mark.parametrize("flat", [True, False])
def test_flat_depth_is_said(tiny, tmp_path, world, caplog, monkeypatch, flat):
    depth = torch.ones(1, 32, 64) * 5
    depth[:, 16:] *= 1.02 if flat else 4

    def explain(self, batch, with_source_depths=False, explain=SelfSupervisedObjective.explain):
        return replace(explain(self, batch, with_source_depths), depth=depth)

    monkeypatch.setattr(SelfSupervisedObjective, "explain", explain)
    config = tiny.tiny_pretext_config(tmp_path, "depth", "supervision=mono")
    scores = scores_of(train(config, world["train"], world["val"]))
    # The standard deviation of two values that are equally often there is half of their distance.
    assert scores["depth_spread"] == pytest.approx(np.log(1.02 if flat else 4) / 2, rel=1e-3)
    assert ("varies by 1.0 % within an image" in caplog.text) == flat


class Unmeasured:
    """The world as a user's video has it: images and intrinsics, no truth."""

    label_space = None

    def __init__(self, world):
        self.names, self._world = world.names, world

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return replace(self._world[index], labels=None, depth=None, flow=None)


@pytest.mark.parametrize("task", ["depth", "flow"])
def test_images_without_truth_are_scored_by_how_well_they_are_explained(tiny, tmp_path, world, task):
    options = ("supervision=mono",) if task == "depth" else ()
    config = tiny.tiny_pretext_config(tmp_path, task, *options)
    scores = scores_of(train(config, Unmeasured(world["train"]), Unmeasured(world["val"])))
    assert scores["photometric_loss"] > 0 and "abs_rel" not in scores and "end_point_error" not in scores


@pytest.mark.parametrize("task", ["depth", "inpainting"])
def test_a_run_that_is_broken_off_goes_on_to_the_same_weights(tiny, tmp_path, world, task):
    """Motion networks and drawn holes are part of what is resumed."""
    options = ("supervision=mono", "intrinsics=one_camera") if task == "depth" else ()
    extra = ["data.colour_jitter=0.3", "run.checkpoint_every=2"]
    whole = train(tiny.tiny_pretext_config(tmp_path / "whole", task, *options, overrides=extra), *world.values())
    config = tiny.tiny_pretext_config(tmp_path / "parts", task, *options, overrides=extra)

    class Broken(Exception):
        pass

    class BreaksOff:
        label_space = None

        def __init__(self, data):
            self.names, self._data, self._left = data.names, data, 6

        def __len__(self):
            return len(self.names)

        def __getitem__(self, index):
            self._left -= 1
            if self._left < 0:
                raise Broken
            return self._data[index]

    with pytest.raises(Broken):
        train(config, BreaksOff(world["train"]), world["val"])
    config.run.resume = True
    parts = train(config, *world.values())
    ours, theirs = (last_state(run) for run in (whole, parts))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert json.loads((parts.run_dir / "run.json").read_text())["launches"][1]["first_step"] == 2


def last_state(run):
    """Weights of everything that is trained, from the last checkpoint."""
    return load_file(run.run_dir / "checkpoints" / "step_4" / "model.safetensors")


def test_patches_are_cut_and_whole_images_scored_as_they_are(tiny, tmp_path, world):
    config = tiny.tiny_pretext_config(
        tmp_path, "depth", overrides=["data.size=[32,32]", "data.random_crop=true", "data.hflip=0"]
    )
    run = train(config, world["train"], world["val"])
    _, processor = load_model(run.model_dir)
    assert processor.size == {"height": 32, "width": 64}


def test_missing_views_are_named(tiny, tmp_path, world):
    class NoViews(Unmeasured):
        def __getitem__(self, index):
            return replace(self._world[index], frames={1: self._world[index].frames[1]}, stereo=None, intrinsics=None)

    data = NoViews(world["train"])
    for options, sentence in (
        (("supervision=mono",), "lacks its neighbours at -1, it has \\+1"),
        (("supervision=stereo",), "without the second view of a stereo pair"),
        (("supervision=mono", "source_frames=[1]"), "without the intrinsics of its camera: give a calibration"),
    ):
        with pytest.raises(ValueError, match=sentence):
            train(tiny.tiny_pretext_config(tmp_path / options[-1], "depth", *options), data, world["val"])


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("flow", ("supervision=mono",), "pretext.supervision=mono is for task depth"),
        ("depth", ("source_frames=[0]",), "never 0"),
        ("depth", ("supervision=stereo", "intrinsics=one_camera"), "it needs pretext.supervision=mono"),
        ("depth", ("hole_share=[0.5,0.1]",), "hole_share must be \\[least, most\\]"),
        ("depth", ("derotate=true", "supervision=stereo"), "pretext.derotate removes the rotation between frames"),
        ("inpainting", ("derotate=true",), "task inpainting with pretext.supervision=labels has none"),
        ("depth", ("pose_network=lstm",), "pretext.pose_network must be one of separate, shared, posecnn"),
    ],
)
def test_options_that_do_not_go_together(tiny, tmp_path, task, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny.tiny_pretext_config(tmp_path, task, *options)


class PartlyMeasured(Unmeasured):
    """Depth of the second image alone."""

    def __getitem__(self, index):
        sample = self._world[index]
        return sample if index == 1 else replace(sample, depth=None)

    def has_depth(self, index):
        return index == 1


@pytest.mark.parametrize("options", [("supervision=mono",), ()])
def test_images_without_depth_are_left_out_of_the_score(tiny, tmp_path, world, options):
    scores = scores_of(
        train(tiny.tiny_pretext_config(tmp_path, "depth", *options), world["train"], PartlyMeasured(world["val"]))
    )
    assert (scores["images"], scores["images_without_depth"]) == (1, 1)


def test_what_cannot_be_scored_or_trained_costs_no_earlier_run(tiny, tmp_path, world):
    earlier = train(tiny.tiny_pretext_config(tmp_path, "depth"), world["train"], world["val"])
    again = ["run.overwrite=true"]
    with pytest.raises(ValueError, match="The data set to evaluate on has no depth"):
        train(tiny.tiny_pretext_config(tmp_path, "depth", overrides=again), world["train"], Unmeasured(world["val"]))

    class Uncalibrated(Unmeasured):
        def __getitem__(self, index):
            return replace(self._world[index], intrinsics=None)

    for task, option, way_out in (
        ("depth", "supervision=mono", "pretext.intrinsics=one_camera"),
        ("flow", "derotate=true", "pretext.derotate=false"),
    ):
        config = tiny.tiny_pretext_config(tmp_path, task, option, overrides=again)
        with pytest.raises(ValueError, match=f"the intrinsics of its camera: .*{way_out}"):
            train(config, Uncalibrated(world["train"]), world["val"])
    assert (earlier.model_dir / "model.safetensors").is_file() and scores_of(earlier)["step"] == 4


@torch.no_grad()
def test_the_flow_of_aligned_images_is_scored_with_the_turn(tiny, tmp_path, world):
    """By hand: the network's flow on images without the turn, and the turn on top."""
    with torch.enable_grad():
        run = train(tiny.tiny_pretext_config(tmp_path, "flow", "source_frames=[-1]", "derotate=true"), *world.values())
    model = DepthSegForOpticalFlow.from_pretrained(run.model_dir).eval()
    processor = DepthSegImageProcessor.from_pretrained(run.model_dir)
    errors = {True: [], False: []}
    for index in range(len(world["val"])):
        sample = world["val"][index]
        camera = torch.from_numpy(sample.intrinsics)[None].float()
        images = sample.image, sample.frames[-1]
        first, other = (torch.from_numpy(p).permute(2, 0, 1)[None] / 255 for p in images)
        turn = find_rotation(first, other, camera)
        pixels = [processor(images=[p], return_tensors="pt")["pixel_values"] for p in images]
        found = model(pixels[0], stabilise(pixels[1], turn, camera)).flow.double()
        grid = pixel_grid(32, 64)
        turned = rotated_pixels(turn, camera, grid + found) - grid
        truth = torch.from_numpy(sample.flow).permute(2, 0, 1)[None]
        for with_turn, flow in ((True, turned), (False, found)):
            errors[with_turn].append((flow - truth).norm(dim=1).nanmean().item())
    assert scores_of(run)["end_point_error"] == pytest.approx(np.mean(errors[True]), rel=1e-4)
    assert abs(np.mean(errors[True]) - np.mean(errors[False])) > 0.05


def test_flow_to_another_frame_is_not_scored_by_the_flow_to_the_one_before(tiny, tmp_path, world):
    scores = scores_of(train(tiny.tiny_pretext_config(tmp_path, "flow", "source_frames=[1]"), *world.values()))
    assert "end_point_error" not in scores and scores["photometric_loss"] > 0


def test_whole_images_are_scored_where_patches_are_trained_on(tiny, tmp_path, world, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "depthseg.engine.scoring.Scorer.show", lambda scorer: seen.append(scorer.batch_of(world["val"][0])) or {}
    )
    overrides = ["data.size=[32,32]", "data.random_crop=true", "run.trackers=[tensorboard]"]
    train(tiny.tiny_pretext_config(tmp_path, "depth", "supervision=stereo", overrides=overrides), *world.values())
    assert seen[0]["image"].shape == (1, 3, 32, 64)
    expected = torch.from_numpy(world["val"][0].image).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(seen[0]["image"], expected)


def test_a_model_that_is_handed_over_keeps_its_weights(tiny, tmp_path, world):
    first = train(tiny.tiny_pretext_config(tmp_path / "first", "depth", "supervision=stereo"), *world.values())
    model, processor = load_model(first.model_dir)
    model.transfer_report = None
    biases = [predictor.conv.bias.item() for predictor in model.depth_predictor]
    config = tiny.tiny_pretext_config(
        tmp_path / "second", "depth", "supervision=stereo", overrides=["schedule.steps=1", "optim.lr=1e-12"]
    )
    train(config, *world.values(), model=model, processor=processor)
    assert [predictor.conv.bias.item() for predictor in model.depth_predictor] == pytest.approx(biases, abs=1e-6)
