"""Confusion matrices of corrupted images against predictions that are counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine.test_analysis import Echo, EchoProcessor, Listed

from depthseg.data import LabelSpace, Sample
from depthseg.data.corruptions import corrupt
from depthseg.engine.analysis import measure_model
from depthseg.engine.robustness import corrupted_counts

SPACE = LabelSpace("abc", ("a", "b", "c"), ((0, 0, 0),) * 3)


class Channels(Echo):
    """Predicts the brightest channel."""

    def __init__(self):
        super().__init__()
        self.config.id2label, self.config.one_class = dict(enumerate("abc")), False

    def forward(self, pixel_values):
        return {"logits": self.weight * pixel_values[0].argmax(0).float()}


def photographs(count=7, seed=0):
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        image = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
        samples.append(Sample(f"s{number}", image, image.argmax(-1).astype(np.uint8)))
    return Listed(samples, SPACE)


def counted(image, labels):
    """The matrix pixel by pixel; ties go to the first channel, as in `argmax`."""
    matrix = np.zeros((3, 3), np.int64)
    np.add.at(matrix, (labels.ravel(), image.astype(int).argmax(-1).ravel()), 1)
    return matrix


def test_every_third_image_is_evaluated_clear_and_corrupted():
    data, model = photographs(), Channels().train()
    found = corrupted_counts(model, EchoProcessor(), data, corruptions=["noise", "dusk"], strengths=[1, 3], every=3)
    assert model.training
    assert list(found) == ["clean", "noise 1", "noise 3", "dusk 1", "dusk 3"]
    for name, counts in found.items():
        assert counts.names == ["s0", "s3", "s6"] and counts.confusion.dtype == np.int64
        for sample, matrix in zip(data.samples[::3], counts.confusion, strict=True):
            image = sample.image if name == "clean" else corrupt(sample.image, sample.name, name[:-2], int(name[-1]))
            assert np.array_equal(matrix, counted(image, sample.labels))
    errors = [1 - np.trace(counts.confusion.sum(0)) / counts.confusion.sum() for counts in found.values()]
    assert errors[0] == 0 < errors[1] < errors[2]


def test_the_measure_is_the_mean_iou_and_keeps_the_matrices():
    data, film, kept = photographs(), photographs(2, seed=1), {}
    options = {"robustness": {"corruptions": ["noise"], "strengths": [2], "every": 2, "others": {"film": film}}}
    found = measure_model(Channels(), EchoProcessor(), data, ["robustness"], options=options, kept=kept)["robustness"]
    assert found["clean"] == found["film"] == 1.0
    matrix = sum(counted(corrupt(s.image, s.name, "noise", 2), s.labels) for s in data.samples[::2])
    right = np.diag(matrix)
    assert found["noise 2"] == pytest.approx((right / (matrix.sum(0) + matrix.sum(1) - right)).mean())
    assert np.array_equal(kept["robustness/noise 2"].sum(0), matrix)
    assert kept["robustness/film/names"].tolist() == ["s0", "s1"]


def test_images_without_labels_are_passed_over():
    data = photographs(3)
    data.samples[0] = replace(data.samples[0], labels=None)
    found = corrupted_counts(Channels(), EchoProcessor(), data, corruptions=["fog"], strengths=[1], every=2)
    assert found["fog 1"].names == ["s2"]
    data.samples[2] = replace(data.samples[2], labels=None)
    with pytest.raises(ValueError, match="None of the images to evaluate has labels"):
        corrupted_counts(Channels(), EchoProcessor(), data, corruptions=["fog"], strengths=[1], every=2)


def test_training_images_are_evaluated_as_they_are():
    trained_on, kept = photographs(4, seed=2), {}
    options = {"training_images": {"images": trained_on}}
    found = measure_model(Channels(), EchoProcessor(), photographs(), ["training_images"], None, options, kept)
    assert found == {"training_images": {"train": 1.0}}
    matrices = [counted(sample.image, sample.labels) for sample in trained_on.samples]
    assert np.array_equal(kept["training_images/train"], matrices)
    assert measure_model(Channels(), EchoProcessor(), photographs(), ["training_images"]) == {"training_images": None}
