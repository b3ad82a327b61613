"""Blocks of dependent test images, and bootstrap intervals over them.

Neighbouring frames of a video are similar, so an interval resamples blocks of consecutive frames and not single ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import digits

import numpy as np

FEWEST_BLOCKS = 10
"""With fewer blocks an interval over them is not meaningful."""


def blocks_of(names: Sequence[str], length: int) -> list[str]:
    """The block of each image: a run of consecutive images of one sequence.

    Images of a sequence are in the same folder. Their names differ after the last underscore or, without an
    underscore, in the trailing digits.

    Args:
        names: Names of the images; their alphabetical order is that of the video.
        length: Images per block.
    """
    places: dict[str, int] = {}
    blocks: dict[str, str] = {}
    for name in sorted(names):
        folder, _, last = name.rpartition("/")
        sequence = "/".join(filter(None, (folder, last.rpartition("_")[0] or last.rstrip(digits) or "frames")))
        place = places.get(sequence, 0)
        places[sequence] = place + 1
        blocks[name] = f"{sequence}/{place // length}"
    return [blocks[name] for name in names]


def draw_blocks(count: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of `count` blocks is drawn, `(D, B)`; each row sums to their number."""
    return generator.multinomial(count, np.full(count, 1 / count), size=draws)


def mean_iou(confusion: np.ndarray) -> np.ndarray:
    """Mean intersection over union, as `depthseg.metrics.segmentation_scores` defines it, of a stack of matrices.

    Args:
        confusion: Counts `(..., K, K)`; rows = truth, columns = prediction.

    Returns:
        `(...)`, in [0, 1]. Classes that are in neither the ground truth nor the prediction are excluded from the mean.

    Raises:
        ValueError: The matrices are not square, or one of them has no pixel.
    """
    return _mean_ratio(*_intersection_and_union(np.asarray(confusion)))


class BlockCounts:
    """Pixels in intersection and union of truth and prediction, summed over the images of each block.

    The mean IoU of any multiset of blocks follows from these sums, which makes resampling fast.

    Args:
        confusion: int64 `(..., N, K, K)` of N images, of one or several models; rows = truth, columns = prediction.
        blocks: `(N,)` labels.

    Attributes:
        intersection: float64 `(..., B, K)`, blocks in sorted order of their labels.
        union: The same.
    """

    def __init__(self, confusion: np.ndarray, blocks: np.ndarray) -> None:
        _, index = np.unique(blocks, return_inverse=True)
        member = np.eye(index.max() + 1)[index]
        parts = _intersection_and_union(confusion)
        self.intersection, self.union = (np.einsum("...nk,nb->...bk", part, member) for part in parts)

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """Mean IoU of each model on resampled blocks.

        Args:
            weights: `(D, B)`, how often each block occurs.

        Returns:
            `(D, ...)`.
        """
        parts = (np.tensordot(weights, part, (1, -2)) for part in (self.intersection, self.union))
        return _mean_ratio(*parts)

    def pseudo_values(self) -> np.ndarray:
        """Jackknife pseudo-values of the mean IoU of each model, `(..., B)`, leaving out one block at a time.

        Their mean over blocks is close to the mean IoU, and their variance over blocks estimates that of single
        blocks, although mean IoU itself is not a mean over blocks.

        Source:
            Tukey 1958 (jackknife); Efron and Tibshirani 1993, chapter 11.
        """
        count = self.union.shape[-2]
        together = self.scores(np.ones((1, count)))
        without_one = self.scores(1.0 - np.eye(count))
        return np.moveaxis(count * together - (count - 1) * without_one, 0, -1)


def interval_of_iou(confusion: np.ndarray, blocks: np.ndarray, draws: int) -> tuple[float, float] | None:
    """95 % bootstrap interval over blocks of the mean IoU of one model.

    Args:
        confusion: int64 `(N, K, K)`; images without any labelled pixel are excluded.
        blocks: `(N,)` labels.
        draws: Bootstrap draws, with a fixed seed.

    Returns:
        Lower and upper end, in [0, 1]; None with fewer than `FEWEST_BLOCKS` blocks.
    """
    labelled = confusion.sum((1, 2)) > 0
    weights = _weights(blocks[labelled], draws)
    return None if weights is None else _ends(BlockCounts(confusion[labelled], blocks[labelled]).scores(weights))


def interval_of_mean(values: np.ndarray, blocks: np.ndarray, draws: int) -> tuple[float, float] | None:
    """95 % bootstrap interval over blocks of the mean over images of a score.

    Args:
        values: `(N,)`; images whose value is not finite are excluded.
        blocks: `(N,)` labels.
        draws: Bootstrap draws, with a fixed seed.

    Returns:
        Lower and upper end, in the unit of the values; None with fewer than `FEWEST_BLOCKS` blocks.
    """
    known = np.isfinite(values)
    weights = _weights(blocks[known], draws)
    if weights is None:
        return None
    _, member = np.unique(blocks[known], return_inverse=True)
    return _ends((weights @ np.bincount(member, values[known])) / (weights @ np.bincount(member)))


def _weights(blocks: np.ndarray, draws: int) -> np.ndarray | None:
    count = len(np.unique(blocks))
    return None if count < FEWEST_BLOCKS else draw_blocks(count, draws, np.random.default_rng(0))


def _ends(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _intersection_and_union(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if confusion.ndim < 2 or confusion.shape[-1] != confusion.shape[-2]:
        raise ValueError(f"Confusion matrices of shape {confusion.shape} are not square; expected (..., K, K).")
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(-1) + confusion.sum(-2) - intersection


def _mean_ratio(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    present = union > 0
    classes = present.sum(-1)
    if not np.all(classes):
        raise ValueError("No labelled pixel was evaluated: a confusion matrix is empty.")
    return np.sum(intersection / np.where(present, union, 1), axis=-1) / classes
