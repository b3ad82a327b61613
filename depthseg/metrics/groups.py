"""Segmentation metrics of groups of pixels: by depth, and by the size of their object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .confusion import ConfusionMatrix, segmentation_scores
from .meter import Meter

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_GROUP = -1

DEPTH_EDGES = (0.0, 10.0, 20.0, 40.0, 80.0, float("inf"))
"""Bounds of the depth ranges in metres; each range includes its lower bound and excludes its upper one."""

SIZE_EDGES = (0.0, 0.001, 0.01, 0.1, float("inf"))
"""Bounds of the object sizes as fractions of the image: 173, 1 728 and 17 280 pixels of 360x480, which separate about
a far sign, a far car, a near car, and a road or a row of houses."""


class GroupedConfusion(Meter):
    """One confusion matrix for each group of pixels.

    Args:
        groups: Names of the groups.
        num_classes: Number of classes K; 1 = one class, id 1, against a background, id 0.
        ignore_index: Label of the pixels that are not evaluated.

    Attributes:
        state: int64 `(G, K, K)`, or `(G, 2, 2)` for one class, on the CPU; rows = truth, columns = prediction.
    """

    def __init__(self, groups: Sequence[str], num_classes: int, ignore_index: int = 255) -> None:
        self.groups = tuple(groups)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.state = torch.stack([ConfusionMatrix(num_classes, ignore_index).state for _ in groups])

    def update(self, prediction: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> None:
        """Count one image.

        Args:
            prediction: Integer ids `(H, W)`, 0..K-1.
            labels: Integer ids `(H, W)`, 0..K-1 or `ignore_index`.
            groups: Integer `(H, W)`, the number of each pixel's group; -1 = in no group, not counted.

        Raises:
            ValueError: Shapes differ, or an id is out of range.
        """
        if groups.shape != labels.shape:
            raise ValueError(f"The labels have shape {labels.shape}, the groups {groups.shape}; both must be (H, W).")
        for number in range(len(self.groups)):
            counts = ConfusionMatrix(self.num_classes, self.ignore_index)
            counts.update(prediction, np.where(groups == number, labels, self.ignore_index))
            self.state[number] += counts.state

    def compute(self, score: str = "mean_iou") -> dict[str, float | None]:
        """One score of `segmentation_scores` for each group; None if no pixel was counted.

        Of one class (K = 1), None as well where the ground truth of the group does not have it.
        """
        classes = [str(index) for index in range(self.num_classes)]
        return {
            name: segmentation_scores(matrix, classes)[score] if self._counts(matrix) else None
            for name, matrix in zip(self.groups, self.state, strict=True)
        }

    def _counts(self, matrix: torch.Tensor) -> bool:
        return bool((matrix[1] if self.num_classes == 1 else matrix).any())


class IouByDepth(GroupedConfusion):
    """Mean IoU of the pixels in each range of true depth.

    Both true and false positives of a range are pixels of that range, so every range is evaluated as a separate data
    set, with the classes that occur in it. Pixels of unknown depth are in no range.

    Args:
        num_classes: Number of classes K.
        ignore_index: Label of the pixels that are not evaluated.
        edges: Bounds of the ranges, increasing, metres.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, edges: Sequence[float] = DEPTH_EDGES) -> None:
        self.edges = tuple(edges)
        super().__init__(_range_names(edges, "m"), num_classes, ignore_index)

    def update(self, prediction: np.ndarray, labels: np.ndarray, depth: np.ndarray) -> None:
        """Count one image.

        Args:
            prediction: Integer ids `(H, W)`, 0..K-1.
            labels: Integer ids `(H, W)`, 0..K-1 or `ignore_index`.
            depth: Metres `(H, W)`; 0 or NaN = unknown.
        """
        super().update(prediction, labels, np.where(depth > 0, _range_of(depth, self.edges), NO_GROUP))


class RecallBySize(GroupedConfusion):
    """Recall of the pixels of objects, by object size.

    An object is a connected component (4 neighbours) of one class in the true labels, and its size is its fraction of
    the pixels of the image. The score of a size is the fraction of correctly predicted pixels in all objects of that
    size and class, averaged over the classes with such objects. It is a recall and not an IoU, because a false
    positive belongs to no object, and therefore to no size: predicting a class everywhere is not penalised here.

    Args:
        num_classes: Number of classes K.
        ignore_index: Label of the pixels that are not evaluated; they separate objects.
        edges: Bounds of the sizes, increasing, as fractions of the image.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, edges: Sequence[float] = SIZE_EDGES) -> None:
        self.edges = tuple(edges)
        super().__init__(_range_names([100 * edge for edge in edges], "%"), num_classes, ignore_index)

    # The groups follow from the labels.
    def update(self, prediction: np.ndarray, labels: np.ndarray) -> None:  # type: ignore[override]
        """Count one image.

        Args:
            prediction: Integer ids `(H, W)`, 0..K-1.
            labels: Integer ids `(H, W)`, 0..K-1 or `ignore_index`.
        """
        super().update(prediction, labels, _range_of(component_sizes(labels) / labels.size, self.edges))

    def compute(self, score: str = "mean_accuracy") -> dict[str, float | None]:
        """The recall of each size; None if there was no object of that size."""
        return super().compute(score)


def component_sizes(ids: np.ndarray) -> np.ndarray:
    """Size of the connected component of equal ids that each pixel is in; pixels are connected to their 4 neighbours.

    Args:
        ids: Integers `(H, W)`.

    Returns:
        int64 `(H, W)`, pixels.
    """
    from scipy.ndimage import label

    sizes = np.empty(ids.shape, dtype=np.int64)
    for value in np.unique(ids):
        inside = ids == value
        components = label(inside)[0][inside]
        sizes[inside] = np.bincount(components)[components]
    return sizes


def _range_of(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Number of the range of each value, or `NO_GROUP`."""
    number = np.searchsorted(edges, values, side="right") - 1
    return np.where(number < len(edges) - 1, number, NO_GROUP)


def _range_names(edges: Sequence[float], unit: str) -> list[str]:
    """Names such as `10-20 m` and `over 80 m`."""
    if len(edges) < 2 or not all(low < high for low, high in zip(edges, edges[1:], strict=False)):
        raise ValueError(f"The bounds of ranges are {tuple(edges)}; give at least two, in increasing order.")
    return [
        f"over {low:g} {unit}" if np.isinf(high) else f"{low:g}-{high:g} {unit}"
        for low, high in zip(edges, edges[1:], strict=False)
    ]
