"""From the confusion matrices of single images to the scores of a data set."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

from .confusion import segmentation_scores
from .stamp import IMAGE_MEAN, ONE_MATRIX


def matrix_scores(matrices: torch.Tensor | np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Scores from one matrix over the data set, as `segmentation_scores` has them.

    Args:
        matrices: int64 `(N, I, I)`, one of each image, or their sum `(I, I)`; rows = truth, columns = prediction. I
            is that of `segmentation_scores`, or one more: the last id then says that a pixel was predicted as none of
            the classes, which is a miss of its class and a false alarm of none.
        classes: Names of the K classes.
    """
    matrices = torch.as_tensor(matrices)
    total = matrices.sum(0) if matrices.ndim == 3 else matrices
    if len(classes) == 1 or len(total) == len(classes):
        return segmentation_scores(total, classes)
    scores = segmentation_scores(total, [*classes, ""])
    iou = {name: scores["per_class_iou"][name] for name in classes}
    present = [value for value in iou.values() if not math.isnan(value)]
    absent = [name for name in scores["absent_classes"] if name]
    return scores | {"mean_iou": math.fsum(present) / len(present), "per_class_iou": iou, "absent_classes": absent}


def image_mean_scores(
    matrices: torch.Tensor | np.ndarray, classes: Sequence[str], evaluated: Collection[str], void: int = 0
) -> dict[str, Any]:
    """Scores as the released KITTI scorer of Lao et al. has them: means over images, each with the same weight.

    The IoU of a class in an image counts every predicted pixel, those without a label included. A class that is
    neither labelled nor predicted in an image has none there. The mean IoU of an image is that of the evaluated
    classes which have one; images without any are left out. The pixel accuracy of an image divides all pixels whose
    prediction equals the label, void included, by those that have a label, and may therefore be above 1.

    Args:
        matrices: int64 `(N, K, K)`, one of each image; rows = truth, columns = prediction, void among them.
        classes: Names of the K ids.
        evaluated: The classes whose IoU is averaged.
        void: Id of the pixels without label.

    Returns:
        `mean_iou`, `pixel_accuracy`, `per_class_iou` (of the evaluated classes, over the images in which each has
        one, NaN in none), `absent_classes`, and `images_without_labels`, whose accuracy divides by zero: where there
        are any, the pixel accuracy is NaN.

    Raises:
        ValueError: No image has an evaluated class; or there is none.
    """
    counts = np.asarray(matrices).astype(np.float64)
    correct = np.diagonal(counts, axis1=1, axis2=2)
    labelled, predicted = counts.sum(2), counts.sum(1)
    ids = [index for index, name in enumerate(classes) if name in set(evaluated)]
    with np.errstate(invalid="ignore"):
        iou = (correct / (labelled + predicted - correct))[:, ids]
    defined = ~np.isnan(iou)
    if not defined.any():
        raise ValueError(f"No image shows or predicts one of the evaluated classes: {', '.join(evaluated)}.")
    with_labels = np.delete(labelled, void, axis=1).sum(1)
    empty = int((with_labels == 0).sum())
    per_class = {classes[id]: _mean(iou[defined[:, column], column]) for column, id in enumerate(ids)}
    images = [_mean(values[known]) for values, known in zip(iou, defined, strict=True) if known.any()]
    return {
        "mean_iou": _mean(images),
        "pixel_accuracy": math.nan if empty else _mean(correct.sum(1) / with_labels),
        "per_class_iou": per_class,
        "absent_classes": [name for name, value in per_class.items() if math.isnan(value)],
        "images_without_labels": empty,
    }


def scores_of_images(
    matrices: torch.Tensor | np.ndarray, classes: Sequence[str], reduction: str, evaluated: Collection[str] = ()
) -> dict[str, Any]:
    """Scores from stored matrices, by the reduction that their stamp names.

    Args:
        matrices: int64 `(N, I, I)`.
        classes: As `scores.json` names them beside the stamp.
        reduction: `one matrix over the data set` or `mean over images of per-image IoU`.
        evaluated: As `scores.json` names them; the first reduction evaluates all classes.

    Raises:
        ValueError: Another reduction.
    """
    if reduction == ONE_MATRIX:
        return matrix_scores(matrices, classes)
    if reduction == IMAGE_MEAN:
        return image_mean_scores(matrices, classes, evaluated)
    raise ValueError(f"There is no reduction {reduction!r}; allowed are {ONE_MATRIX!r} and {IMAGE_MEAN!r}.")


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Exactly rounded sum over number, so that no order of the images matters; NaN of nothing."""
    return math.fsum(values) / len(values) if len(values) else math.nan
