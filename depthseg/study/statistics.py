"""Scores of an arm over seeds and test images, and their resampling.

Three levels are random: pre-training seeds, the fine-tuning seeds under each of them, and blocks of test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

LEVELS = ("pretraining", "finetuning", "blocks")
PRETRAINING = ("seeds", "checkpoint", "none")
"""Initialisation of an arm: pre-trained by the study once per seed, one given checkpoint (all statements are then
conditional on this checkpoint), or random."""


@dataclass(frozen=True, eq=False)
class ArmResults:
    """Results of an arm of a study on the test images.

    Args:
        confusion: int64 `(P, F, N, K, K)`: P pre-training seeds, F fine-tuning seeds under each, N test images; rows =
            truth, columns = prediction. The fine-tuning seeds are treated as nested: number f under one pre-training
            seed is independent of number f under another, so give each run a different seed.
        blocks: `(N,)` labels; images of one block (a sequence or segment of a video) are dependent.
        pretraining: One of `PRETRAINING`; P is 1 unless it is `seeds`.
        name: Used in messages.

    Raises:
        ValueError: Shapes do not match, a count is negative or not an integer, the ground truth of the runs differs, a
            block has no labelled pixel, or P is not 1 although `pretraining` is not `seeds`.
    """

    confusion: np.ndarray
    blocks: np.ndarray
    pretraining: str = "seeds"
    name: str = "the arm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "confusion", np.asarray(self.confusion))
        object.__setattr__(self, "blocks", np.asarray(self.blocks))
        _check_shapes(self)
        _check_counts(self)

    @property
    def seeds(self) -> tuple[int, int]:
        """Number of pre-training seeds, and of fine-tuning seeds under each."""
        return self.confusion.shape[:2]

    @property
    def num_blocks(self) -> int:
        """Number of blocks of test images."""
        return len(np.unique(self.blocks))


class BlockCounts:
    """Pixels in intersection and union of truth and prediction, summed over the images of each block.

    The mean IoU of any multiset of blocks follows from these sums, which makes resampling fast.

    Args:
        arm: The arm whose images are summed.

    Attributes:
        intersection: float64 `(P, F, B, K)`, blocks in sorted order of their labels.
        union: The same.
    """

    def __init__(self, arm: ArmResults) -> None:
        _, index = np.unique(arm.blocks, return_inverse=True)
        member = np.eye(index.max() + 1)[index]
        parts = _intersection_and_union(arm.confusion)
        self.intersection, self.union = (np.einsum("pfnk,nb->pfbk", part, member) for part in parts)

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """Mean IoU of each run on resampled blocks.

        Args:
            weights: `(D, B)`, how often each block occurs.

        Returns:
            `(D, P, F)`.
        """
        parts = (np.tensordot(weights, part, (1, 2)) for part in (self.intersection, self.union))
        return _mean_ratio(*parts)

    def pseudo_values(self) -> np.ndarray:
        """Jackknife pseudo-values of the mean IoU of each run, `(P, F, B)`, leaving out one block at a time.

        Their mean over blocks is close to the mean IoU, and their variance over blocks estimates that of single
        blocks, although mean IoU itself is not a mean over blocks.

        Source:
            Tukey 1958 (jackknife); Efron and Tibshirani 1993, chapter 11.
        """
        count = self.union.shape[2]
        together = self.scores(np.ones((1, count)))
        without_one = self.scores(1.0 - np.eye(count))
        return np.moveaxis(count * together - (count - 1) * without_one, 0, -1)


def bootstrap(
    arm: ArmResults, draws: int, generator: np.random.Generator, what: Collection[str] = LEVELS
) -> np.ndarray:
    """Mean over seeds of the mean IoU over all images, each level resampled with replacement.

    The fine-tuning seeds of a drawn pre-training seed are resampled among its own; a drawn block includes all its
    images. The variance of these draws is too small if a level has few members (by (n - 1) / n, half of the variance
    with two seeds): `compare` and `summarise` do not compute intervals from it.

    Args:
        arm: Results.
        draws: Number of draws D.
        generator: Source of randomness.
        what: The levels of `LEVELS` that are resampled; the others are fixed.

    Returns:
        `(D,)`, in [0, 1].

    Raises:
        ValueError: A level that does not exist.
    """
    if not set(what) <= set(LEVELS):
        raise ValueError(f"what={sorted(what)} contains a level that does not exist; choose from {', '.join(LEVELS)}.")
    blocks = draw_blocks(arm.num_blocks, draws, generator) if "blocks" in what else np.ones((draws, arm.num_blocks))
    return weighted_scores(BlockCounts(arm), blocks, draw_seeds(arm.seeds, draws, generator, what))


def draw_blocks(count: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of `count` blocks is drawn, `(D, B)`; each row sums to their number."""
    return generator.multinomial(count, np.full(count, 1 / count), size=draws)


def draw_seeds(
    seeds: tuple[int, int], draws: int, generator: np.random.Generator, what: Collection[str] = LEVELS
) -> np.ndarray:
    """Weight of each run, `(D, P, F)`; each draw sums to 1."""
    outer, inner = seeds
    taken = np.ones((draws, outer), dtype=np.int64)
    if "pretraining" in what:
        taken = generator.multinomial(outer, np.full(outer, 1 / outer), size=draws)
    if "finetuning" in what:
        return generator.multinomial(taken * inner, np.full(inner, 1 / inner)) / (outer * inner)
    return np.repeat(taken[..., None], inner, axis=2) / (outer * inner)


def weighted_scores(counts: BlockCounts, blocks: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Weighted mean over runs of the mean IoU, `(D,)`, for block weights `(D, B)` and run weights `(D, P, F)`."""
    return np.sum(counts.scores(blocks) * seeds, axis=(1, 2))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of a family of comparisons for the family-wise error rate.

    Args:
        p_values: In [0, 1]; None for a comparison without p-value, which stays None and is not counted.

    Raises:
        ValueError: A p-value is out of range.

    Source:
        Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    if not all(0 <= p <= 1 for p, _ in known):
        raise ValueError(f"p-values must be between 0 and 1; got {list(p_values)}.")
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def _intersection_and_union(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(-1) + confusion.sum(-2) - intersection


def _mean_ratio(intersection: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Mean IoU as `depthseg.metrics.segmentation_scores` defines it: without the classes that are absent."""
    present = union > 0
    classes = present.sum(-1)
    if not np.all(classes):
        raise ValueError("No labelled pixel was evaluated: a confusion matrix is empty.")
    return np.sum(intersection / np.where(present, union, 1), axis=-1) / classes


def _check_shapes(arm: ArmResults) -> None:
    shape = arm.confusion.shape
    if len(shape) != 5 or shape[3] != shape[4] or 0 in shape:
        raise ValueError(
            f"The confusion matrices of {arm.name} have shape {shape}; expected (pre-training seeds, fine-tuning "
            "seeds, images, K, K), all at least 1."
        )
    if arm.blocks.shape != shape[2:3]:
        raise ValueError(
            f"{arm.name} has {shape[2]} images and blocks of shape {arm.blocks.shape}; give one block per image."
        )
    if arm.pretraining not in PRETRAINING:
        raise ValueError(f"pretraining={arm.pretraining!r} is unknown; choose one of {', '.join(PRETRAINING)}.")
    if arm.pretraining != "seeds" and shape[0] != 1:
        raise ValueError(
            f"{arm.name} has {shape[0]} pre-training seeds, but pretraining={arm.pretraining!r} allows only one; give "
            "all its runs in shape (1, F, N, K, K)."
        )


def _check_counts(arm: ArmResults) -> None:
    if arm.confusion.dtype.kind not in "iu" or arm.confusion.min() < 0:
        raise ValueError(f"The confusion matrices of {arm.name} must contain counts, integers from 0.")
    truth = arm.confusion.sum(-1)
    differs = np.any(truth != truth[:1, :1], axis=(0, 1, 3))
    if differs.any():
        raise ValueError(
            f"The runs of {arm.name} do not have the same labels in test image {int(differs.argmax())}; evaluate "
            "every seed on the same images in the same order."
        )
    for block in np.unique(arm.blocks):
        if not truth[0, 0, arm.blocks == block].any():
            raise ValueError(f"Block {block!s} has no labelled pixel in {arm.name}; remove its images.")
