"""Learning-rate selection: the best rate of one grid, with the same number of runs for every arm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class RateChoice:
    """The best rate of a grid.

    Attributes:
        rate: The rate with the best mean.
        mean: Its mean validation score.
        at_edge: Whether it is the lowest or highest of the grid, so that a better rate may be outside.
        sentence: The choice in words.
    """

    rate: float
    mean: float
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
    most = max(map(len, table.values()))
    means = {rate: sum(scores) / most for rate, scores in sorted(table.items()) if len(scores) == most}
    best = max(means, key=means.__getitem__)
    at_edge = best in (min(table), max(table))
    return RateChoice(best, means[best], at_edge, _sentence(best, sorted(table), at_edge, most))


def _sentence(best: float, grid: Sequence[float], at_edge: bool, seeds: int) -> str:
    runs = f"{seeds} seed{'s' * (seeds > 1)} each"
    found = f"Best of {len(grid)} learning rates from {grid[0]:g} to {grid[-1]:g}, {runs}: {best:g}"
    if at_edge:
        return f"{found}, at the end of the grid: the grid is too narrow, and a better rate may be outside it."
    return f"{found}, inside the grid."
