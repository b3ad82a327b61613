"""Convergence speed of a run, from its validation curve.

A curve starts at step 0. Without an evaluation at step 0 its value there is taken as 0, so that curves with different
first evaluations can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Convergence:
    """Convergence speed of the runs of an initialisation; None where no run has a value.

    Attributes:
        steps_to_95: Step at which a run reaches 95 % of its own final score, mean over runs.
        steps_spread: Lowest and highest run.
        area_under_curve: Mean height of a curve, mean over runs, in points (0 to 100).
    """

    steps_to_95: float | None
    steps_spread: tuple[float, float] | None
    area_under_curve: float | None


def summarise_curves(curves: Sequence[Sequence[Mapping[str, float]]]) -> Convergence:
    """Convergence speed of runs.

    Args:
        curves: Evaluations of each run, with `step` and `mean_iou` (0 to 1).
    """
    points = [([point["step"] for point in curve], [point["mean_iou"] for point in curve]) for curve in curves]
    steps = [step for curve in points if (step := steps_to_share(*curve)) is not None]
    areas = [area_under_curve(*curve) for curve in points]
    return Convergence(
        steps_to_95=sum(steps) / len(steps) if steps else None,
        steps_spread=(min(steps), max(steps)) if steps else None,
        area_under_curve=100 * sum(areas) / len(areas) if areas else None,
    )


def steps_to_share(steps: Sequence[int], scores: Sequence[float], share: float = 0.95) -> float | None:
    """Step at which a curve first reaches a fraction of its own final value.

    The final value is the last one. The curve is interpolated linearly between evaluations. A later drop below the
    target does not change the result.

    Args:
        steps: Steps of the evaluations, increasing.
        scores: Their scores, 0 or more.
        share: The fraction, in (0, 1].

    Returns:
        The step, or None if the final value is 0.

    Raises:
        ValueError: The curve is empty, out of order or contains an invalid score, or the fraction is out of range.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is out of range; it must be above 0 and at most 1.")
    step, score = _curve(steps, scores)
    target = share * score[-1]
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

    Args:
        steps: Steps of the evaluations, increasing.
        scores: Their scores, 0 or more.

    Raises:
        ValueError: The curve is empty, ends at step 0, is out of order or contains an invalid score.
    """
    step, score = _curve(steps, scores)
    if step[-1] == 0:
        raise ValueError("A curve that ends at step 0 has no area; it needs an evaluation at a later step.")
    return float(np.trapezoid(score, step) / step[-1])


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
