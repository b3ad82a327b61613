"""Baselines that use no image, or only single pixels: a lower bound for every score.

Each baseline is fitted on one data set and evaluated on another, sample by sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..data.transforms import resize_nearest
from .confusion import ConfusionMatrix
from .depth import DepthErrors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..data.label_spaces import LabelSpace
    from ..data.sample import Sample, SampleDataset


class Baseline(Protocol):
    """A predictor of a map `(H, W)` for a sample: ids or metres."""

    def predict(self, sample: Sample) -> np.ndarray:
        """The map for the image of this sample; its labels and depth are not used."""


class MajorityClass:
    """The most frequent class of the training labels at every pixel.

    Args:
        dataset: Training samples.
    """

    def __init__(self, dataset: SampleDataset) -> None:
        counts = np.zeros(len(_label_space(dataset).classes), dtype=np.int64)
        for _, labels, known in _labelled(dataset):
            counts += np.bincount(labels[known], minlength=len(counts))
        self.class_id = int(counts.argmax())

    def predict(self, sample: Sample) -> np.ndarray:
        """uint8 `(H, W)`."""
        return np.full(sample.image.shape[:2], self.class_id, dtype=np.uint8)


class PositionPrior:
    """The most frequent class of each position in the image.

    Label maps are resized (nearest) to a common grid, and the grid to each image. Positions without any label get the
    most frequent class overall.

    Args:
        dataset: Training samples.
        grid: Height and width of the grid.
    """

    def __init__(self, dataset: SampleDataset, grid: Sequence[int] = (90, 120)) -> None:
        counts = np.zeros((len(_label_space(dataset).classes), *grid), dtype=np.int64)
        for _, labels, _ in _labelled(dataset):
            small = resize_nearest(labels, grid)
            counts += small == np.arange(len(counts)).reshape(-1, 1, 1)
        self.class_ids = _most_frequent(counts)

    def predict(self, sample: Sample) -> np.ndarray:
        """uint8 `(H, W)`."""
        return resize_nearest(self.class_ids, sample.image.shape[:2])


class ColourClassifier:
    """The most frequent class of each colour, pixel by pixel.

    Colours that do not occur in training get the most frequent class overall.

    Args:
        dataset: Training samples.
        bins: Bins of each of red, green and blue, 1 to 256.

    Raises:
        ValueError: `bins` is out of range.
    """

    def __init__(self, dataset: SampleDataset, bins: int = 16) -> None:
        if not 1 <= bins <= 256:
            raise ValueError(f"bins={bins} is out of range; it must be from 1 to 256.")
        self._bins = bins
        cells = bins**3
        counts = np.zeros(len(_label_space(dataset).classes) * cells, dtype=np.int64)
        for sample, labels, known in _labelled(dataset):
            pairs = labels[known].astype(np.int64) * cells + self._cell(sample.image)[known]
            counts += np.bincount(pairs, minlength=len(counts))
        self._class_ids = _most_frequent(counts.reshape(-1, cells))

    def _cell(self, image: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis(image.astype(np.int64) * self._bins // 256, -1, 0)
        return (red * self._bins + green) * self._bins + blue

    def predict(self, sample: Sample) -> np.ndarray:
        """uint8 `(H, W)`."""
        return self._class_ids[self._cell(sample.image)]


class ConstantDepth:
    """One depth everywhere: the median of all training depths, the constant with the lowest mean absolute error.

    The median is computed from a histogram over the logarithm of depth, with 0.01 % wide bins from 1 mm to 10 km, so
    that no depth map has to be stored.

    Args:
        dataset: Training samples with depth.

    Raises:
        ValueError: No pixel of the data set has a depth.
    """

    _edges = np.geomspace(1e-3, 1e4, 160_001)

    def __init__(self, dataset: SampleDataset) -> None:
        counts = np.zeros(len(self._edges) - 1, dtype=np.int64)
        for index in range(len(dataset)):
            depth = dataset[index].depth
            if depth is not None:
                counts += np.histogram(depth, self._edges)[0]  # unknown depth, 0, is below the first edge
        if not counts.any():
            raise ValueError("No pixel of the training samples has a depth; the constant-depth baseline requires one.")
        middle = np.searchsorted(counts.cumsum(), counts.sum() / 2)
        self.depth = float(np.sqrt(self._edges[middle] * self._edges[middle + 1]))

    def predict(self, sample: Sample) -> np.ndarray:
        """float32 `(H, W)`, metres."""
        return np.full(sample.image.shape[:2], self.depth, dtype=np.float32)


def score_segmentation_baseline(baseline: Baseline, dataset: SampleDataset) -> dict[str, Any]:
    """`segmentation_scores` of a baseline on the labelled samples of a data set."""
    space = _label_space(dataset)
    confusion = ConfusionMatrix(space.num_labels, space.ignore_index, space.evaluated_classes)
    for sample, labels, _ in _labelled(dataset):
        confusion.update(baseline.predict(sample), labels)
    return confusion.compute()


def score_depth_baseline(baseline: Baseline, dataset: SampleDataset, **protocol: Any) -> dict[str, Any]:
    """`DepthErrors` of a baseline on the samples of a data set that have depth.

    Args:
        baseline: Predicts metres.
        dataset: Samples; those without a depth map are skipped.
        **protocol: Keyword arguments of `DepthErrors`.
    """
    errors = DepthErrors(**protocol)
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.depth is not None:
            errors.update(baseline.predict(sample), sample.depth)
    return errors.compute()


def _label_space(dataset: SampleDataset) -> LabelSpace:
    if dataset.label_space is None:
        raise ValueError("The data set has no label space; segmentation baselines require one.")
    return dataset.label_space


def _labelled(dataset: SampleDataset) -> Iterator[tuple[Sample, np.ndarray, np.ndarray]]:
    """Labelled samples, each with its labels and the mask of the pixels that have a class."""
    found = False
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.labels is not None:
            known = np.not_equal(sample.labels, _label_space(dataset).ignore_index)
            found = found or bool(known.any())
            yield sample, sample.labels, known
    if not found:
        raise ValueError("The data set has no labelled pixel, so no baseline can be fitted or evaluated on it.")


def _most_frequent(counts: np.ndarray) -> np.ndarray:
    """uint8 class with the largest count along axis 0; the most frequent class overall where there are no counts."""
    overall = counts.reshape(len(counts), -1).sum(1).argmax()
    return np.where(counts.any(0), counts.argmax(0), overall).astype(np.uint8)
