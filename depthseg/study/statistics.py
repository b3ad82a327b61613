"""Scores of an initialisation over seeds and test images, their resampling, and what is chosen or adjusted by them.

Three levels are random: pre-training seeds, the fine-tuning seeds under each of them, and blocks of test images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..metrics.blocks import BlockCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PRETRAINING = ("seeds", "checkpoint", "none")
"""Origins of the weights of an initialisation: pre-trained by the study once per seed, one given checkpoint (all
statements are then conditional on this checkpoint), or none, that is random."""


@dataclass(frozen=True, eq=False)
class InitialisationResults:
    """Results of an initialisation of a study on the test images.

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
    name: str = "the initialisation"

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

    @cached_property
    def counts(self) -> BlockCounts:
        """Pixels by block, `(P, F, B, K)`."""
        return BlockCounts(self.confusion, self.blocks)


def draw_seeds(seeds: tuple[int, int], draws: int, generator: np.random.Generator) -> np.ndarray:
    """Weight of each run, `(D, P, F)`; each draw sums to 1.

    The fine-tuning seeds of a drawn pre-training seed are resampled among its own.
    """
    outer, inner = seeds
    taken = generator.multinomial(outer, np.full(outer, 1 / outer), size=draws)
    return generator.multinomial(taken * inner, np.full(inner, 1 / inner)) / (outer * inner)


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


@dataclass(frozen=True)
class RateChoice:
    """The best learning rate of a grid.

    Attributes:
        rate: The rate with the best mean.
        at_edge: Whether it is the lowest or highest of the grid, so that a better rate may be outside.
        sentence: The choice in words.
    """

    rate: float
    at_edge: bool
    sentence: str


def select_rate(table: Mapping[float, Sequence[float]]) -> RateChoice:
    """Choose the learning rate with the best mean validation score; the lowest of equal ones.

    Args:
        table: Rate -> validation scores of its seeds. Only rates with the most scores can be chosen.

    Raises:
        ValueError: There is no rate, a rate has no score, or a score is not finite.
    """
    if not table or not all(table.values()):
        raise ValueError("Learning-rate selection requires at least one rate, and a validation score for each rate.")
    if not all(math.isfinite(score) for scores in table.values() for score in scores):
        raise ValueError("A validation score is not finite; a run that diverged scores 0.")
    seeds = max(map(len, table.values()))
    means = {rate: sum(scores) / seeds for rate, scores in sorted(table.items()) if len(scores) == seeds}
    best, low, high = max(means, key=means.__getitem__), min(table), max(table)
    grid = f"{len(table)} learning rates from {low:g} to {high:g}, {seeds} seed{'s' * (seeds > 1)} each"
    where = "inside the grid."
    if best in (low, high):
        where = "at the end of the grid: the grid is too narrow, and a better rate may be outside it."
    return RateChoice(best, best in (low, high), f"Best of {grid}: {best:g}, {where}")


def _check_shapes(init: InitialisationResults) -> None:
    shape = init.confusion.shape
    if len(shape) != 5 or shape[3] != shape[4] or 0 in shape:
        raise ValueError(
            f"The confusion matrices of {init.name} have shape {shape}; expected (pre-training seeds, fine-tuning "
            "seeds, images, K, K), all at least 1."
        )
    if init.blocks.shape != shape[2:3]:
        raise ValueError(
            f"{init.name} has {shape[2]} images and blocks of shape {init.blocks.shape}; give one block per image."
        )
    if init.pretraining not in PRETRAINING:
        raise ValueError(f"pretraining={init.pretraining!r} is unknown; choose one of {', '.join(PRETRAINING)}.")
    if init.pretraining != "seeds" and shape[0] != 1:
        raise ValueError(
            f"{init.name} has {shape[0]} pre-training seeds, but pretraining={init.pretraining!r} allows only one; "
            "give all its runs in shape (1, F, N, K, K)."
        )


def _check_counts(init: InitialisationResults) -> None:
    if init.confusion.dtype.kind not in "iu" or init.confusion.min() < 0:
        raise ValueError(f"The confusion matrices of {init.name} must contain counts, integers from 0.")
    truth = init.confusion.sum(-1)
    differs = np.any(truth != truth[:1, :1], axis=(0, 1, 3))
    if differs.any():
        raise ValueError(
            f"The runs of {init.name} do not have the same labels in test image {int(differs.argmax())}; evaluate "
            "every seed on the same images in the same order."
        )
    for block in np.unique(init.blocks):
        if not truth[0, 0, init.blocks == block].any():
            raise ValueError(f"Block {block!s} has no labelled pixel in {init.name}; remove its images.")
