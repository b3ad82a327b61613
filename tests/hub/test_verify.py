"""How far the scores of a checkpoint may be from those of its run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub.tiny_runs import tiny_runs

from depthseg.engine.config import load_config
from depthseg.engine.tasks import TASKS
from depthseg.hub import verify
from depthseg.hub.verify import compare_scores, evaluate_checkpoint
from depthseg.models import DepthSegForSemanticSegmentation, DepthSegImageProcessor

RECORDED = {
    "mean_iou": 0.5,
    "per_class_iou": {"road": 0.9, "pole": 0.2, "sky": 0.8, "kerb": 0.1},
    "end_point_error": 3.0,
}


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        # A pixel more in a class of a few hundred, as another device rounds.
        ({"per_class_iou": {"pole": 0.2038}}, None),
        ({"mean_iou": 0.5009}, None),
        ({"end_point_error": 3.0029}, None),
        ({"per_class_iou": {"pole": 0.2042}}, "per_class_iou.pole is 0.2042, not 0.2"),
        ({"mean_iou": 0.5011}, "mean_iou is 0.5011, not 0.5"),
        ({"end_point_error": 3.0031}, "end_point_error is 3.0031, not 3"),
        ({"mean_iou": 0.49, "per_class_iou": {"road": 0.86}}, "mean_iou is 0.49, not 0.5; per_class_iou.road is 0.86"),
    ],
)
def test_scores_may_differ_by_what_rounding_moves(changes, refused):
    if refused is None:
        compare_scores(changes, RECORDED, Path("there"))
        return
    with pytest.raises(ValueError, match=f"in there do not reproduce the scores that their run logged: {refused}"):
        compare_scores(changes, RECORDED, Path("there"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tiny_runs(tmp_path_factory.mktemp("runs"))


@pytest.mark.heavy
def test_a_run_of_the_cpu_is_evaluated_again_on_the_cpu(runs, monkeypatch):
    run_dir = runs["depth"]
    # Without a GPU: whoever asks for it gets an error.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert evaluate_checkpoint(load_config(run_dir / "config.yaml"), run_dir / "model").scores["images"] == 12


@pytest.mark.heavy
def test_an_image_is_predicted_once_for_labels_and_depth(runs, tmp_path, monkeypatch):
    config = load_config(runs["segmentation"] / "config.yaml")
    depth = runs["depth"] / "model"
    segmenter = DepthSegForSemanticSegmentation.from_pretrained(depth, num_labels=11, keep_depth=True)
    segmenter.save_pretrained(tmp_path)
    DepthSegImageProcessor.from_pretrained(depth).save_pretrained(tmp_path)
    calls, forward = [], DepthSegForSemanticSegmentation.forward
    monkeypatch.setattr(
        DepthSegForSemanticSegmentation,
        "forward",
        lambda self, *args, **options: calls.append(1) or forward(self, *args, **options),
    )
    found = evaluate_checkpoint(config, tmp_path)
    assert len(calls) == len(found.names) == 12
    assert set(found.per_image) == {"confusion", "abs_rel", "delta1"} == {"confusion", *found.intervals} - {"mean_iou"}
    total = found.per_image["confusion"].sum(0)
    assert found.scores["pixel_accuracy"] == pytest.approx(total.trace() / total.sum())
    assert found.scores["abs_rel"] == pytest.approx(found.per_image["abs_rel"].mean())


@pytest.mark.parametrize(("cpu", "expected"), [("true", "cpu"), ("false", "cuda")])
def test_a_baseline_is_evaluated_on_the_device_of_its_run(runs, monkeypatch, cpu, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices = []

    class Placed:
        def __init__(self, *given):
            pass

        def to(self, device, **options):
            devices.append(str(device))
            return self

        def eval(self):
            return self

    def scorer(config, objective, processor, dataset, accelerator):
        devices.append(str(accelerator.device))
        return lambda: {"hole_l1": 0.5}

    task = replace(TASKS["inpainting"], objective=Placed)
    for name, stand_in in (("model_of", Placed), ("task_of", lambda config: task), ("Scorer", scorer)):
        monkeypatch.setattr(verify, name, stand_in)
    config = load_config(runs["depth"] / "config.yaml", [f"run.cpu={cpu}", "task=inpainting"])
    found = evaluate_checkpoint(config, runs["depth"] / "model")
    assert devices == [expected] * 3 and found.scores == {"hole_l1": 0.5} and len(found.names) == 12
