"""Scores against a loop over pixels, on predictions that are known."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BatchFeature

from depthseg.data import LabelSpace, Sample
from depthseg.engine.evaluation import (
    class_meter,
    default_depth_errors,
    evaluate_images,
    evaluate_model,
    json_scores,
    sum_up,
)
from depthseg.metrics import Stamp

SPACE = LabelSpace("abcd", ("a", "b", "c", "d"), ((0, 0, 0),) * 4)


class Mixed:
    """Images of different sizes; the red channel says what the model will answer."""

    label_space = SPACE

    def __init__(self):
        rng = np.random.default_rng(0)
        self.samples = []
        for index, size in enumerate([(4, 6), (5, 3), (7, 7)]):
            image = np.zeros((*size, 3), dtype=np.uint8)
            image[..., 0] = rng.integers(0, 3, size)
            labels = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
            depth = rng.choice([0, 2, 9], size).astype(np.float32)
            self.samples.append(Sample(f"s{index}", image, labels, depth))
        self.names = [sample.name for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Echo(nn.Module):
    """Predicts the red channel; must be in eval mode and without gradients."""

    def __init__(self, depth_type="metric"):
        super().__init__()
        self.calls = 0
        self.weight = nn.Parameter(torch.ones(()))
        id2label = dict(enumerate(SPACE.classes))
        self.config = SimpleNamespace(
            one_class=False, num_labels=4, id2label=id2label, depth_type=depth_type, min_depth=0.5, max_depth=50.0
        )

    @property
    def device(self):
        return self.weight.device

    def forward(self, pixel_values):
        assert not self.training and not torch.is_grad_enabled()
        self.calls += 1
        answer = self.weight * pixel_values[0, 0]
        return {"logits": answer, "predicted_depth": answer}


class Processor:
    """Hands the image over as it is."""

    def __call__(self, images, return_tensors):
        return BatchFeature({"pixel_values": torch.from_numpy(images[0].astype(np.float32)).permute(2, 0, 1)[None]})

    def post_process_semantic_segmentation(self, outputs, target_sizes):
        assert tuple(outputs["logits"].shape) == tuple(target_sizes[0])
        return [outputs["logits"].long()]

    def post_process_depth_estimation(self, outputs, target_sizes):
        assert tuple(outputs["predicted_depth"].shape) == tuple(target_sizes[0])
        return [{"predicted_depth": 1 + outputs["predicted_depth"]}]


def test_segmentation_equals_a_loop_over_pixels():
    model, data = Echo().train(), Mixed()
    scores = evaluate_model(model, Processor(), data, "segmentation")
    assert model.training  # as it came
    pairs = [
        (truth, predicted)
        for sample in data.samples
        for truth, predicted in zip(sample.labels.flat, sample.image[..., 0].flat, strict=True)
        if truth != 255
    ]
    iou = {}
    for index, name in enumerate("abc"):
        hits = sum(truth == predicted == index for truth, predicted in pairs)
        iou[name] = hits / sum(index in pair for pair in pairs)
    assert scores["mean_iou"] == pytest.approx(sum(iou.values()) / 3, abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(sum(t == p for t, p in pairs) / len(pairs), abs=1e-12)
    assert math.isnan(scores["per_class_iou"]["d"]) and scores["absent_classes"] == ["d"]
    assert json_scores(scores)["per_class_iou"] == pytest.approx({**iou, "d": None})


def test_depth_equals_a_loop_over_images():
    data = Mixed()
    scores = evaluate_model(Echo(), Processor(), data, "depth")
    errors = []
    for sample in data.samples:
        known = sample.depth > 0
        errors.append(np.mean(np.abs(1.0 + sample.image[..., 0] - sample.depth)[known] / sample.depth[known]))
    assert scores["abs_rel"] == pytest.approx(np.mean(errors), abs=1e-7)
    assert (scores["alignment"], scores["images"], scores["max_depth"]) == ("none", 3, 50.0)


def test_relative_depth_is_fitted_before_it_is_measured():
    data = Mixed()
    for sample in data.samples:  # the prediction is an affine map of the true inverse depth
        sample.image[..., 0] = np.select([sample.depth == 2, sample.depth == 9], [9, 2], 0)
    scores = evaluate_model(Echo("relative_inverse"), Processor(), data, "depth")
    assert scores["alignment"] == "scale_shift_inverse"
    assert scores["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_depth_up_to_scale_and_shift_is_fitted_in_depth():
    data = Mixed()
    for sample in data.samples:  # the prediction is an affine map of the true depth
        sample.image[..., 0] = np.select([sample.depth == 2, sample.depth == 9], [10, 24], 0)
    scores = evaluate_model(Echo("relative"), Processor(), data, "depth")
    assert scores["alignment"] == "scale_shift"
    assert scores["abs_rel"] == pytest.approx(0, abs=1e-6)


def test_processes_share_the_images_and_add_their_counts():
    data, model = Mixed(), Echo()
    sums = []

    class Rank:
        num_processes, device = 2, torch.device("cpu")

        def __init__(self, process_index):
            self.process_index = process_index

        def reduce(self, counts, reduction):
            sums.append(counts.clone())
            return sum(sums) if len(sums) == 2 else counts

    evaluate_model(model, Processor(), data, "segmentation", Rank(0))
    both = evaluate_model(model, Processor(), data, "segmentation", Rank(1))
    assert json_scores(both) == json_scores(evaluate_model(model, Processor(), data, "segmentation"))


def test_an_image_is_predicted_once_for_all_that_is_measured():
    model, data = Echo().train(), Mixed()
    data.samples[1] = replace(data.samples[1], depth=None)
    meters = {"segmentation": class_meter(model, data), "depth": default_depth_errors(model)}
    images = list(evaluate_images(model, Processor(), data, meters))
    assert model.calls == 3 and model.training
    for (labels, states), sample in zip(images, data.samples, strict=True):
        assert np.array_equal(labels, sample.image[..., 0])
        counts = np.zeros((4, 4), dtype=int)
        for truth, predicted in zip(sample.labels.flat, sample.image[..., 0].flat, strict=True):
            if truth != 255:
                counts[truth, predicted] += 1
        assert np.array_equal(states["segmentation"], counts)
    assert [states["depth"][-2:].tolist() for _, states in images] == [[1, 0], [0, 1], [1, 0]]
    assert not meters["segmentation"].state.any() and not meters["depth"].state.any()
    both = sum_up(meters, [states for _, states in images])
    apart = [evaluate_model(model, Processor(), data, task) for task in ("segmentation", "depth")]
    assert Stamp.from_dict(apart[0].pop("stamp")).ignore_id == 255
    assert json_scores(both) == json_scores(apart[0] | apart[1]) and both["images_without_depth"] == 1


def test_an_image_without_truth_is_not_predicted_for_its_depth():
    model, data = Echo(), Mixed()
    data.samples[0] = replace(data.samples[0], depth=None)
    assert evaluate_model(model, Processor(), data, "depth")["images_without_depth"] == 1 and model.calls == 2


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda data: data.samples.clear(), "data set to score on is empty"),
        (lambda data: setattr(data, "label_space", None), "no label space"),
        (
            lambda data: setattr(data, "label_space", LabelSpace("two", ("x", "y"), ((0, 0, 0),) * 2)),
            "knows 4 classes, but label space 'two' of the data set has 2",
        ),
    ],
)
def test_what_cannot_be_scored_is_said(change, part):
    data = Mixed()
    change(data)
    with pytest.raises(ValueError, match=part):
        evaluate_model(Echo(), Processor(), data, "segmentation")
