"""Scores from the matrices of images, by loops over small random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from depthseg.metrics import scores_of_images, segmentation_scores
from depthseg.metrics.reductions import image_mean_scores, matrix_scores
from depthseg.metrics.stamp import IMAGE_MEAN, ONE_MATRIX

CLASSES = ("void", "a", "b", "c")


def matrices(seed, images=5, ids=4):
    """Counts with classes that some images, or all of them, do not show."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 50, (images, ids, ids)) * rng.integers(0, 2, (images, ids, ids))
    for image in found:
        absent = rng.integers(1, ids)
        image[absent] = image[:, absent] = 0
        image[0, 0] += 1
        image[1 if absent != 1 else 2, 0] += 1
    return found


@pytest.mark.parametrize("seed", range(20))
def test_means_over_images_are_those_of_a_loop(seed):
    counts, evaluated = matrices(seed), ("a", "c")
    means, accuracies, ious = [], [], {name: [] for name in evaluated}
    for image in counts:
        values = []
        for id, name in enumerate(CLASSES):
            union = image[id].sum() + image[:, id].sum() - image[id, id]
            if name in evaluated and union:
                values.append(image[id, id] / union)
                ious[name].append(values[-1])
        means += [np.mean(values)] if values else []
        accuracies.append(np.trace(image) / image[1:].sum())
    scores = image_mean_scores(counts, CLASSES, evaluated)
    assert scores["mean_iou"] == pytest.approx(np.mean(means), abs=1e-14)
    assert scores["pixel_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-14)
    assert scores["per_class_iou"] == pytest.approx({name: np.mean(values) for name, values in ious.items()})
    # Whatever their order, to the last bit.
    assert image_mean_scores(counts[::-1], CLASSES, evaluated) == scores


@pytest.mark.parametrize("seed", range(20))
def test_a_prediction_of_none_of_the_classes_is_a_miss(seed):
    counts = matrices(seed)
    counts[:, 3] = 0  # the last id is predicted, never labelled
    total, iou = counts.sum(0), []
    for id in range(3):
        union = total[id].sum() + total[:, id].sum() - total[id, id]
        iou.append(total[id, id] / union if union else math.nan)
    scores = matrix_scores(counts, CLASSES[:3])
    assert list(scores["per_class_iou"].values()) == pytest.approx(iou, nan_ok=True)
    assert scores["mean_iou"] == pytest.approx(np.nanmean(iou))
    assert scores["pixel_accuracy"] == pytest.approx(np.trace(total[:3]) / total.sum())
    assert scores["absent_classes"] == [name for name, value in zip(CLASSES, iou, strict=False) if math.isnan(value)]


def test_each_stamp_has_its_reduction():
    counts = matrices(0)
    assert str(scores_of_images(counts, CLASSES, ONE_MATRIX)) == str(matrix_scores(counts.sum(0), CLASSES))
    one_class = counts[:, :2, :2]
    found = scores_of_images(one_class, ["thing"], ONE_MATRIX)
    assert str(found) == str(segmentation_scores(torch.tensor(one_class).sum(0), ["thing"]))
    assert scores_of_images(counts, CLASSES, IMAGE_MEAN, ["a"])["mean_iou"] <= 1
    with pytest.raises(ValueError, match="no reduction 'median'; allowed are 'one matrix over the data set' and"):
        scores_of_images(counts, CLASSES, "median")


def test_images_that_show_no_evaluated_class():
    counts = np.zeros((2, 4, 4), int)
    counts[:, 2, 2] = 5
    with pytest.raises(ValueError, match="No image shows or predicts one of the evaluated classes: a, c"):
        image_mean_scores(counts, CLASSES, ("a", "c"))
