"""The world as an instrument: neither colour nor position gives the classes away, and every class can be scored."""

import numpy as np
import pytest

from depthseg.data.synthetic import render

SIZE = (32, 96)
CLASSES = 11


@pytest.fixture(scope="module")
def frames():
    """Images and labels to fit on (scenes of one world) and to test on (of another)."""

    def of(seed, count):
        found = [render(seed, index, SIZE, outputs=("image", "labels")) for index in range(count)]
        return np.stack([f["image"] for f in found]), np.stack([f["labels"] for f in found])

    return *of(0, 120), *of(2, 40)


def mean_iou(predicted, labels):
    scores = []
    for k in range(CLASSES):
        union = ((predicted == k) | (labels == k)).sum()
        scores.append(((predicted == k) & (labels == k)).sum() / union)
    return np.mean(scores)


def best_guess(counts):
    """The classifiers that counts `(11, ...)` of what was seen allow: most likely, and for each class alike."""
    total = counts.reshape(CLASSES, -1).sum(1).reshape(-1, *[1] * (counts.ndim - 1))
    return [(counts / total**power).argmax(0) for power in (0.0, 0.5, 1.0)]


def test_a_colour_classifier_stays_below_25_percent(frames):
    images, labels, test_images, test_labels = frames

    def bins(image):
        return tuple(np.moveaxis(image // 26, -1, 0).astype(int))

    counts = np.zeros((CLASSES, 10, 10, 10))
    np.add.at(counts, (labels, *bins(images)), 1)
    scores = [mean_iou(guess[bins(test_images)], test_labels) for guess in best_guess(counts + 1e-3)]
    assert 0.02 < max(scores) < 0.25


def test_a_position_prior_stays_below_25_percent(frames):
    _, labels, _, test_labels = frames
    counts = np.stack([(labels == k).sum(0) for k in range(CLASSES)]).astype(float)
    guesses = best_guess(counts + 1e-3)
    scores = [mean_iou(np.broadcast_to(guess, test_labels.shape), test_labels) for guess in guesses]
    assert 0.02 < max(scores) < 0.25


def test_every_class_is_seen_often_enough_to_be_scored(frames):
    labels = np.concatenate([frames[1], frames[3]])
    share = np.bincount(labels.ravel(), minlength=CLASSES) / labels.size
    present = np.array([(labels == k).any((1, 2)).mean() for k in range(CLASSES)])
    assert share.shape == (CLASSES,) and share.min() > 0.01 and share.max() < 0.35
    assert present.min() > 0.6
