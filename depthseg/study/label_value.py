"""How many labelled images a pre-training is worth, read off the curve of the reference over the number of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..metrics.blocks import draw_blocks
from .comparison import CONFIDENCE, LEAST_RUNS
from .statistics import InitialisationResults, draw_seeds, plural, weighted_scores

DRAWS = 2000
"""Bootstrap draws, always with the same seed."""


@dataclass(frozen=True)
class LabelValue:
    """Number of labels with which the reference has the score of another initialisation.

    Attributes:
        labels: The number; infinity = more than the reference was trained with, minus infinity = fewer. None if it
            cannot be read off.
        interval: 95 % interval, with infinite ends as above; None if it cannot be given.
        reason: Why the number or its interval is absent; None if there are both.
    """

    labels: float | None
    interval: tuple[float, float] | None
    reason: str | None


def value_in_labels(init: InitialisationResults, reference: Mapping[int, InitialisationResults]) -> LabelValue:
    """Read the score of an initialisation off the curve of the reference, and resample draws and blocks of images.

    The curve is that of the means over draws, made monotone by isotonic regression, and linear in the logarithm of the
    number of labels. All have the same draws, so a resampled draw is the same at every number of labels. The ends of
    the interval are percentiles, taken further out for the small number of draws. They do not include the variation
    over further pre-trainings.

    Args:
        init: The initialisation, with draws of the labelled images.
        reference: Number of labelled images -> the reference with the same draws and test images.

    Source:
        Hesterberg 2015, "What teachers should know about the bootstrap", on expanded percentiles.
    """
    from scipy import special

    name = next((found.name for found in reference.values()), "the reference")
    numbers = sorted(count for count in reference if count)
    if len(numbers) < 2:
        has = f"only runs with {plural(numbers[0], 'label')}" if numbers else "no runs with a known number of labels"
        return LabelValue(None, None, f"Cannot be read off: {name} has {has}, at least two numbers are needed.")
    curve = [reference[count] for count in numbers]
    runs = init.seeds[1]
    whole = np.ones((1, init.num_blocks)), np.full((1, *init.seeds), 1 / runs)
    heights = [float(weighted_scores(found.counts, *whole)[0]) for found in curve]
    if heights[-1] <= heights[0]:
        reason = f"the score of {name} does not rise from {numbers[0]} to {plural(numbers[-1], 'label')}."
        return LabelValue(None, None, f"Cannot be read off: {reason}")
    labels = _read_off(float(weighted_scores(init.counts, *whole)[0]), numbers, heights)
    if runs < LEAST_RUNS:
        return LabelValue(labels, None, f"No interval: {plural(runs, 'draw')}, at least {LEAST_RUNS} are needed.")
    generator = np.random.default_rng(0)
    weights = draw_blocks(init.num_blocks, DRAWS, generator), draw_seeds(init.seeds, DRAWS, generator)
    resampled = [weighted_scores(found.counts, *weights) for found in (init, *curve)]
    found = [_read_off(score, numbers, heights) for score, *heights in zip(*resampled, strict=True)]
    outside = NormalDist().cdf(-math.sqrt(runs / (runs - 1)) * special.stdtrit(runs - 1, (1 + CONFIDENCE) / 2))
    # Infinite values cannot be interpolated.
    low, high = np.quantile(found, [outside, 1 - outside], method="inverted_cdf")
    return LabelValue(labels, (float(low), float(high)), None)


def _read_off(score: float, numbers: Sequence[int], heights: Sequence[float]) -> float:
    """Number of labels at which a curve has a score; infinite outside of the curve."""
    from scipy import optimize

    curve = optimize.isotonic_regression(heights).x
    if score < curve[0]:
        return -math.inf
    if score > curve[-1]:
        return math.inf
    after = int(np.argmax(curve >= score))
    if after == 0 or curve[after] == score:
        return float(numbers[after])
    part = (score - curve[after - 1]) / (curve[after] - curve[after - 1])
    return math.exp((1 - part) * math.log(numbers[after - 1]) + part * math.log(numbers[after]))
