"""Scores of an initialisation over seeds, test images and steps, and what is chosen or adjusted by them.

Three levels are random: pre-training seeds, the fine-tuning seeds under each of them or draws of the labelled images,
which are the same for all initialisations, and blocks of test images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..metrics.blocks import BlockCounts

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
        draws: If the study has draws of the labelled images: pre-training seed and draw of each of the F runs; P is
            then 1 in `confusion`. Empty = the fine-tuning seeds are nested.

    Raises:
        ValueError: Shapes do not match, a count is negative or not an integer, the ground truth of the runs differs, a
            block has no labelled pixel, or P is not 1 although `pretraining` is not `seeds`.
    """

    confusion: np.ndarray
    blocks: np.ndarray
    pretraining: str = "seeds"
    name: str = "the initialisation"
    draws: Sequence[tuple[int, int]] = ()

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
    def pretrainings(self) -> np.ndarray:
        """Pre-training seed of each draw, `(F,)`."""
        return np.array([seed for seed, _ in self.draws])

    @property
    def num_pretrainings(self) -> int:
        """Number of pre-training seeds, with draws of those that the draws are from."""
        return len(set(self.pretrainings)) if self.draws else self.seeds[0]

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
    known = _known(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[place] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """The q-values of a family of comparisons: the false-discovery rate if this and all smaller ones are accepted.

    Args:
        p_values: As for `holm`.

    Raises:
        ValueError: A p-value is out of range.

    Source:
        Benjamini and Hochberg 1995, "Controlling the false discovery rate".
    """
    known = _known(p_values)
    found: list[float | None] = [None] * len(p_values)
    smallest = 1.0
    for rank, (p, place) in reversed(list(enumerate(known, start=1))):
        smallest = min(smallest, len(known) * p / rank)
        found[place] = smallest
    return found


def _known(p_values: Sequence[float | None]) -> list[tuple[float, int]]:
    """The p-values that there are with their places, the smallest first."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    if not all(0 <= p <= 1 for p, _ in known):
        raise ValueError(f"p-values must be between 0 and 1; got {list(p_values)}.")
    return known


@dataclass(frozen=True)
class Convergence:
    """Convergence speed of the runs of an initialisation; None where no run has a value.

    A curve starts at step 0. Without an evaluation at step 0 its value there is taken as 0, so that curves with
    different first evaluations can be compared.

    Attributes:
        steps_to_95: Step at which a run reaches 95 % of its own final score, mean over runs.
        steps_spread: Lowest and highest run.
        area_under_curve: Mean height of a curve, mean over runs, in points (0 to 100).
    """

    steps_to_95: float | None
    steps_spread: tuple[float, float] | None
    area_under_curve: float | None


def summarise_curves(curves: Sequence[Sequence[Mapping[str, float]]]) -> Convergence:
    """Convergence speed of runs, from the evaluations of each, with `step` and `mean_iou` (0 to 1)."""
    points = [([point["step"] for point in curve], [point["mean_iou"] for point in curve]) for curve in curves]
    steps = [step for curve in points if (step := steps_to_95(*curve)) is not None]
    areas = [area_under_curve(*curve) for curve in points]
    return Convergence(
        steps_to_95=sum(steps) / len(steps) if steps else None,
        steps_spread=(min(steps), max(steps)) if steps else None,
        area_under_curve=100 * sum(areas) / len(areas) if areas else None,
    )


def steps_to_95(steps: Sequence[int], scores: Sequence[float]) -> float | None:
    """Step at which a curve first reaches 95 % of its own final value.

    The final value is the last one. The curve is interpolated linearly between evaluations. A later drop below the
    target does not change the result.

    Args:
        steps: Steps of the evaluations, increasing.
        scores: Their scores, 0 or more.

    Returns:
        The step, or None if the final value is 0.

    Raises:
        ValueError: The curve is empty, out of order or contains an invalid score.
    """
    step, score = _curve(steps, scores)
    target = 0.95 * score[-1]
    if target == 0:
        return None
    after = int(np.argmax(score >= target))
    if after == 0:
        return float(step[0])
    before = after - 1
    part = (target - score[before]) / (score[after] - score[before])
    return float(step[before] + part * (step[after] - step[before]))


def area_under_curve(steps: Sequence[int], scores: Sequence[float]) -> float:
    """Mean height of a curve from step 0 to its last step, by the trapezoidal rule.

    The arguments are those of `steps_to_95`.

    Raises:
        ValueError: The curve is empty, ends at step 0, is out of order or contains an invalid score.
    """
    step, score = _curve(steps, scores)
    if step[-1] == 0:
        raise ValueError("A curve that ends at step 0 has no area; it needs an evaluation at a later step.")
    return float(np.trapezoid(score, step) / step[-1])


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
    grid = f"{len(table)} learning rates from {low:g} to {high:g}, {plural(seeds, 'seed')} each"
    where = "inside the grid."
    if best in (low, high):
        where = "at the end of the grid: the grid is too narrow, and a better rate may be outside it."
    return RateChoice(best, best in (low, high), f"Best of {grid}: {best:g}, {where}")


def plural(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


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
    if init.draws and shape[:2] != (1, len(set(init.draws))):
        raise ValueError(
            f"{init.name} has runs of shape {shape[:2]} and {len(set(init.draws))} different draws; give one run for "
            "each draw, in shape (1, draws, N, K, K)."
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


def _curve(steps: Sequence[int], scores: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    step, score = np.asarray(steps, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if step.ndim != 1 or step.shape != score.shape or not len(step):
        raise ValueError(f"A curve needs a score for each step, at least one; got {step.shape} and {score.shape}.")
    if step[0] < 0 or np.any(np.diff(step) <= 0):
        raise ValueError(f"The steps of a curve must start at 0 or later and increase; got {list(steps)}.")
    if not np.all(np.isfinite(score)) or score.min() < 0:
        raise ValueError(f"The scores of a curve must be finite and 0 or more; got {list(scores)}.")
    if step[0] > 0:
        return np.append(0.0, step), np.append(0.0, score)
    return step, score
