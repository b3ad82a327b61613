"""The segmentation metric through `evaluate`, against bare NumPy histograms of the same pairs of ids.

The bare sides check nothing: neither shapes nor ids. One takes pairs of two bytes, label * 32 + prediction, and leaves
the ignored rows out afterwards; the other takes the labelled pixels alone, as 64-bit integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ..metrics import segmentation_scores
from .timing import Comparison, relative_difference, time_in_turns

NUM_CLASSES = 19
IGNORED = 255


def compare(name: str, repeats: int, *, images: int, size: tuple[int, int]) -> Iterator[Comparison]:
    """Compare with both bare sides; see `bench`. Their difference is that of the IoU of the classes.

    Args:
        name: Of the case.
        repeats: Timed runs of each side.
        images: Number of maps.
        size: Height and width.
    """
    pairs = make_pairs(images, *size)
    with tempfile.TemporaryDirectory() as folder:
        ours = partial(metric_iou, pairs, folder)
        for side, bare in BARE_SIDES.items():
            sides = {side: partial(bare, pairs), "depthseg": ours}
            difference = relative_difference(scores_of(bare(pairs)), ours())
            yield Comparison(f"{name} {side}", time_in_turns(sides, repeats), *size, difference=difference)


def make_pairs(images: int, height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predictions and labels, uint8: blocks of one class, of which 20 % of the pixels are predicted at random."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(images):
        blocks = rng.integers(0, NUM_CLASSES, (-(-height // 16), -(-width // 16)), dtype=np.uint8)
        labels = np.kron(blocks, np.ones((16, 16), np.uint8))[:height, :width].copy()
        prediction = np.where(rng.random(labels.shape) < 0.8, labels, rng.integers(0, NUM_CLASSES, labels.shape))
        labels[rng.random(labels.shape) < 0.05] = IGNORED
        pairs.append((prediction.astype(np.uint8), labels))
    return pairs


def bare_two_bytes(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Confusion matrix from one histogram of two-byte pairs for each image."""
    counts = np.zeros(256 * 32, np.int64)
    for prediction, labels in pairs:
        codes = labels.astype(np.uint16)
        codes *= 32
        codes += prediction
        counts += np.bincount(codes.ravel(), minlength=counts.size)
    return counts.reshape(256, 32)[:NUM_CLASSES, :NUM_CLASSES]


def bare_int64(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Confusion matrix from one histogram of the labelled pixels for each image."""
    counts = np.zeros(NUM_CLASSES**2, np.int64)
    for prediction, labels in pairs:
        scored = labels != IGNORED
        codes = labels[scored].astype(np.int64) * NUM_CLASSES + prediction[scored]
        counts += np.bincount(codes, minlength=counts.size)
    return counts.reshape(NUM_CLASSES, NUM_CLASSES)


def metric_iou(pairs: list[tuple[np.ndarray, np.ndarray]], folder: str) -> torch.Tensor:
    """IoU of the classes by the metric of the package, image by image."""
    from ..metrics.hf import SegmentationMetric

    metric = SegmentationMetric([str(index) for index in range(NUM_CLASSES)], cache_dir=folder)
    for prediction, labels in pairs:
        metric.add(prediction=prediction, reference=labels)
    return torch.tensor(list(metric.compute()["per_class_iou"].values()), dtype=torch.float64)


def scores_of(matrix: np.ndarray) -> torch.Tensor:
    """IoU of the classes from a confusion matrix."""
    scores = segmentation_scores(torch.from_numpy(matrix), [str(index) for index in range(NUM_CLASSES)])
    return torch.tensor(list(scores["per_class_iou"].values()), dtype=torch.float64)


BARE_SIDES = {"uint16 bincount": bare_two_bytes, "int64 bincount": bare_int64}
