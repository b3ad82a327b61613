"""Segmentation metrics from a confusion matrix that is accumulated image by image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConfusionMatrix:
    """Pixel counts of every pair of true and predicted class, over any number of images.

    The matrices of several processes or data sets can be summed (or all-reduced) before the metrics are computed.

    Args:
        num_classes: Number of classes K; 1 = one class, id 1, against a background, id 0.
        ignore_index: Label of the pixels that are not evaluated.

    Attributes:
        num_ids: Number of ids: K, but 2 for one class.
        matrix: int64 `(num_ids, num_ids)` on the CPU; rows = truth, columns = prediction.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} is out of range; it must be at least 1.")
        self.num_classes = num_classes
        self.num_ids = max(num_classes, 2)
        self.ignore_index = ignore_index
        self.matrix = torch.zeros(self.num_ids, self.num_ids, dtype=torch.int64)

    def update(self, prediction: torch.Tensor | np.ndarray, labels: torch.Tensor | np.ndarray) -> None:
        """Count one image or batch.

        Args:
            prediction: Integer ids of any shape, below `num_ids`.
            labels: Integer ids of the same shape, below `num_ids`, or `ignore_index`.

        Raises:
            ValueError: Shapes differ, an id is out of range, or ids are not integers.
        """
        prediction = _as_ids(prediction, "predicted")
        labels = _as_ids(labels, "labelled").to(prediction.device)
        if prediction.shape != labels.shape:
            raise ValueError(
                f"The prediction has shape {tuple(prediction.shape)}, the labels {tuple(labels.shape)}; "
                "resize the prediction to the size of its labels first."
            )
        scored = labels != self.ignore_index
        truth = labels.masked_select(scored)
        self._check(prediction, "predicted", "")
        self._check(truth, "labelled", f", and {self.ignore_index} for ignored pixels")
        pairs = truth * self.num_ids + prediction.masked_select(scored)
        counts = torch.bincount(pairs, minlength=self.num_ids**2)
        self.matrix += counts.reshape(self.num_ids, self.num_ids).cpu()

    def _check(self, ids: torch.Tensor, what: str, also: str) -> None:
        if ids.numel() and not 0 <= ids.min() <= ids.max() < self.num_ids:
            wrong = torch.unique(ids[(ids < 0) | (ids >= self.num_ids)]).tolist()
            raise ValueError(
                f"Some {what} class ids are outside the label space: {', '.join(map(str, wrong[:8]))}. "
                f"Allowed are 0 to {self.num_ids - 1}{also}."
            )


def _as_ids(ids: torch.Tensor | np.ndarray, what: str) -> torch.Tensor:
    if not isinstance(ids, torch.Tensor):
        ids = np.asarray(ids)
        # A copy as int64: torch warns about read-only arrays and cannot compare uint16.
        ids = torch.from_numpy(ids.astype(np.int64)) if ids.dtype.kind in "biu" else torch.from_numpy(ids)
    if ids.is_floating_point():
        raise ValueError(f"The {what} class ids have type {ids.dtype}; give integer ids, not logits.")
    return ids.long()


def segmentation_scores(matrix: torch.Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Metrics of a whole data set.

    Args:
        matrix: int64 `(K, K)`; rows = truth, columns = prediction.
        classes: K class names in id order. One name with a matrix of `(2, 2)` is one class, id 1, against a
            background, id 0: IoU and recall are those of the class, and pixel accuracy counts both.

    Returns:
        `mean_iou`, `pixel_accuracy` and `mean_accuracy`, each in [0, 1]; `per_class_iou` by class name;
        `absent_classes`. A class that is in neither the ground truth nor the prediction is absent: its IoU is NaN and
        it is excluded from the mean. A class that is predicted but not in the ground truth has an IoU of 0.
        `mean_accuracy` is the mean recall over the classes of the ground truth.

    Raises:
        ValueError: The number of classes differs, or no pixel was evaluated; the ground truth has no pixel of a single
            class.
    """
    counts, ids = matrix.double(), max(len(classes), 2)
    if counts.shape != (ids, ids):
        raise ValueError(
            f"A matrix of shape {tuple(counts.shape)} does not match {len(classes)} class names; give one name per "
            "class."
        )
    total = counts.sum()
    if total == 0:
        raise ValueError("No labelled pixel was evaluated: the data set is empty or every pixel is ignored.")
    correct, truth = counts.diagonal(), counts.sum(1)
    union = truth + counts.sum(0) - correct
    counted = slice(1, None) if len(classes) == 1 else slice(None)
    iou, recall, union, truth = (values[counted] for values in (correct / union, correct / truth, union, truth))
    # Whatever is predicted, so that a training run learns of it at its first evaluation.
    if len(classes) == 1 and not truth.any():
        raise ValueError(
            f"No pixel of the ground truth is {classes[0]!r}, so its IoU says nothing; evaluate on images that "
            "show it, with label maps where 1 is the class and 0 the background."
        )
    per_class = dict(zip(classes, iou.tolist(), strict=True))
    return {
        "mean_iou": iou[union > 0].mean().item(),
        "pixel_accuracy": (correct.sum() / total).item(),
        "mean_accuracy": recall[truth > 0].mean().item(),
        "per_class_iou": per_class,
        "absent_classes": [name for name, value in per_class.items() if math.isnan(value)],
    }
