"""Switches that change what a run reads and how it is scored, each against its definition, written out by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthseg.data import LabelSpace
from depthseg.data.sample import Sample
from depthseg.engine.options import DataOptions
from depthseg.study.defects import data as data_module
from depthseg.study.defects import scoring
from depthseg.study.defects.data import BicubicLabels, EarlierImages, UnusedClasses, datasets_with, scored_set

SPACE = LabelSpace("three", ("road", "car", "sky"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


@dataclass
class Frames:
    """A data set in memory."""

    samples: list[Sample]
    label_space: LabelSpace | None = SPACE
    names: list[str] = field(init=False)

    def __post_init__(self):
        self.names = [sample.name for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def frame(name, labels, image=None, **more):
    labels = np.array(labels, np.uint8)
    image = np.zeros((*labels.shape, 3), np.uint8) if image is None else image
    return Sample(name, image, labels=labels, **more)


@pytest.fixture
def pool(monkeypatch):
    """Eight training frames and two test frames stand for every data set."""
    train = Frames([frame(f"train_{index}", [[index % 3]]) for index in range(8)])
    test = Frames([frame(f"test_{index}", [[0]]) for index in range(2)])
    monkeypatch.setattr(data_module, "build_datasets", lambda options: (train, test))
    return train, test


def keys_cubic(x):
    """Keys' cubic kernel with a = -0.5."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def bicubic_row(values, count):
    """A row of grey values at another length: the kernel is widened where the row shrinks, and cut at its ends."""
    scale = len(values) / count
    width = max(scale, 1.0)
    found = []
    for index in range(count):
        centre = (index + 0.5) * scale
        weights = [keys_cubic((position + 0.5 - centre) / width) for position in range(len(values))]
        mixed = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        found.append(int(min(max(math.floor(mixed + 0.5), 0), 255)))
    return found


@pytest.mark.parametrize("count", [3, 5, 12])
def test_labels_are_resized_as_grey_values(count):
    row = [0, 0, 2, 2, 255, 255, 1, 1]
    resized = BicubicLabels(Frames([frame("a", [row])]), (1, count))[0]
    as_in_files = [3 if id == 255 else id for id in row]  # the id after the last class
    mixed = bicubic_row(as_in_files, count)
    assert resized.labels.tolist() == [[id if id < 3 else 255 for id in mixed]]


def test_bicubic_labels_show_classes_that_were_not_there():
    """A border of road and sky: by hand, three quarters of the way from 0 to 2 is 1, which is car."""
    resized = BicubicLabels(Frames([frame("a", [[0, 0, 2, 2]])]), (1, 9))[0]
    assert 1 in resized.labels
    assert 1 not in frame("a", [[0, 0, 2, 2]]).labels


def test_images_are_resized_by_the_same_filter():
    image = np.array([[[10, 0, 0], [200, 0, 0], [90, 0, 0], [30, 0, 0]]], np.uint8)
    resized = BicubicLabels(Frames([frame("a", [[0, 0, 0, 0]], image)]), (1, 7))[0]
    assert resized.image[0, :, 0].tolist() == bicubic_row([10, 200, 90, 30], 7)


def test_the_first_images_are_taken_whatever_the_seed(pool):
    for seed in (0, 5):
        train_set, _ = datasets_with(DataOptions(subset_size=3, subset_seed=seed), {"subset": {}})
        assert train_set.names == ["train_0", "train_1", "train_2"]


def test_nothing_is_changed_without_switches(pool):
    train, test = pool
    assert datasets_with(DataOptions(subset_size=3), {}) == (train, test)
    assert scored_set(DataOptions(subset_size=3), {}) is test


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_test_set_is_the_rest_of_the_pool(pool, seed):
    train, _ = pool
    options = DataOptions(subset_size=3, subset_seed=seed)
    from depthseg.data.subsets import few_shot_subset  # what a run trains on

    trained = few_shot_subset(train, 3, seed).names
    tested = scored_set(options, {"test_set": {}}).names
    assert sorted([*trained, *tested]) == train.names and not set(trained) & set(tested)
    assert scored_set(options, {"subset": {}, "test_set": {}}).names == train.names[3:]


def test_further_outputs_are_classes_that_no_pixel_shows():
    space = UnusedClasses(Frames([frame("a", [[0, 2]])]), 34).label_space
    assert space.num_labels == 34 and space.classes[:3] == SPACE.classes and len(set(space.classes)) == 34
    assert UnusedClasses(Frames([frame("a", [[0, 2]])]), 34)[0].labels.tolist() == [[0, 2]]
    with pytest.raises(ValueError, match="2 outputs, but label space 'three' has 3 classes"):
        UnusedClasses(Frames([]), 2)


def test_the_image_is_that_of_an_earlier_frame():
    before = np.full((1, 1, 3), 7, np.uint8)
    sample = frame("a", [[0]], depth=np.full((1, 1), 5, np.float32), frames={-1: before})
    paired = EarlierImages(Frames([sample]), -1)[0]
    assert (paired.image == before).all() and paired.depth == sample.depth and not paired.frames


# Scores


def released_score(predictions, truths, evaluated, void):
    """Section 5.1 of the protocol, pixel by pixel: `void` is the id of pixels without a label."""
    images, accuracies = [], []
    for predicted, truth in zip(predictions, truths, strict=True):
        pixels = list(zip(np.ravel(predicted).tolist(), np.ravel(truth).tolist(), strict=True))
        scores = []
        for id in evaluated:
            hits = sum(p == id and t == id for p, t in pixels)
            union = sum(p == id or t == id for p, t in pixels)
            if union:
                scores.append(hits / union)
        if scores:
            images.append(sum(scores) / len(scores))
        accuracies.append(sum(p == t for p, t in pixels) / sum(t != void for _, t in pixels))
    return sum(images) / len(images), sum(accuracies) / len(accuracies)


def scored(predictions, truths, switched, monkeypatch):
    """Scores of made-up predictions."""
    dataset = Frames([frame(str(index), truth) for index, truth in enumerate(truths)])
    left = iter(predictions)
    monkeypatch.setattr(
        scoring, "predict_maps", lambda model, processor, image: (np.array(next(left), np.uint8), None)
    )
    matrices = scoring.count_pixels(torch.nn.Identity(), None, dataset)
    return scoring.scores_by(matrices, SPACE.classes, switched)


METRIC = {"metric": {"classes": ["road", "car"]}}


def test_the_released_score_by_hand(monkeypatch):
    """Image 1: road 1/3, as sky and a pixel without label are taken for it; no car. Image 2: road 1/2, car 1/2."""
    predictions = [[[0, 0, 0, 2]], [[0, 1, 1, 2]]]
    truths = [[[0, 2, 255, 2]], [[0, 0, 1, 2]]]
    scores = scored(predictions, truths, METRIC, monkeypatch)
    assert scores["mean_iou"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert scores["pixel_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_released_score_is_its_definition(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    truths = rng.choice([0, 1, 2, 255], size=(4, 3, 5))
    predictions = rng.integers(0, 6, size=(4, 3, 5))  # with outputs that are never labelled, 3 being "no label"
    scores = scored(predictions, truths, METRIC, monkeypatch)
    with_void = np.where(truths == 255, 3, truths)
    iou, accuracy = released_score(predictions, with_void, [0, 1], void=3)
    assert scores["mean_iou"] == pytest.approx(iou) and scores["pixel_accuracy"] == pytest.approx(accuracy)


def test_a_prediction_of_no_class_is_a_miss_and_no_false_alarm(monkeypatch):
    """Without `metric`: road 1 of 3 pixels (one predicted as id 3, one as 5), car 1 of 1, sky 1 of 1."""
    scores = scored([[[0, 3, 5, 1, 2, 0]]], [[[0, 0, 0, 1, 2, 255]]], {}, monkeypatch)
    assert scores["mean_iou"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 5)


def test_classes_that_there_are_not_are_named(monkeypatch):
    with pytest.raises(ValueError, match="names tree; the classes are road, car, sky"):
        scored([[[0]]], [[[0]]], {"metric": {"classes": ["road", "tree"]}}, monkeypatch)


def test_what_a_run_is_scored_by(monkeypatch):
    asked = []
    monkeypatch.setattr(scoring, "scored_set", lambda data, switched: asked.append(dict(switched)) or Frames([]))
    monkeypatch.setattr(scoring, "count_pixels", lambda *_: np.zeros((1, 5, 5)))
    monkeypatch.setattr(scoring, "scores_by", lambda *_: {"mean_iou": 0.5, "pixel_accuracy": math.nan})
    offered = {"hflip": {}, "test_set": {}, **METRIC}
    arguments = (DataOptions(), SimpleNamespace(), None)
    score = {"mean_iou": 0.5, "pixel_accuracy": None}

    def reported(switched):
        return scoring.reported_scores(arguments[0], switched, offered, *arguments[1:])

    # A run without switches is what the switches of the score are measured on; each of them alone.
    assert reported({}) == {"test_set": score, "metric": score}
    assert asked == [{"test_set": {}}, METRIC]
    assert reported({"hflip": {}}) == {}
    together = {"subset": {}, "label_resize": {}, "test_set": {}, "num_outputs": {"outputs": 34}, **METRIC}
    assert reported(together).keys() == {"label_resize+test_set+metric", "plain"}
    assert asked[-2:] == [together, {}]
