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
        table: Rate -> validation scores of its seeds. After successive halving the rates that were kept have more
            scores than those that were dropped: only rates with the most scores can be chosen.

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


def halving_rounds(rates: int, seeds: int, keep: float = 0.5) -> list[tuple[int, int]]:
    """Plan successive halving: few seeds for all rates, and more seeds for the best of them.

    Args:
        rates: Number of rates in the grid.
        seeds: Seeds of the last rate.
        keep: Fraction of rates that is kept after each round, in (0, 1); the number of seeds grows by its inverse.

    Returns:
        For each round the number of rates, and the number of seeds of each rate at the end of the round.

    Raises:
        ValueError: A number is out of range.

    Source:
        Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization", with
        seeds as the resource.
    """
    if rates < 1 or seeds < 1 or not 0 < keep < 1:
        raise ValueError(
            f"rates={rates}, seeds={seeds}, keep={keep}: rates and seeds must be at least 1, and keep must be between "
            "0 and 1."
        )
    rounds = [(rates, 1 if rates > 1 else seeds)]
    while rounds[-1][0] > 1:
        left, had = rounds[-1]
        left = max(1, min(left - 1, math.ceil(left * keep)))
        rounds.append((left, min(seeds, math.ceil(had / keep)) if left > 1 else seeds))
    return rounds


def _sentence(best: float, grid: Sequence[float], at_edge: bool, seeds: int) -> str:
    runs = f"{seeds} seed{'s' * (seeds > 1)} each"
    found = f"Best of {len(grid)} learning rates from {grid[0]:g} to {grid[-1]:g}, {runs}: {best:g}"
    if at_edge:
        return f"{found}, at the end of the grid: the grid is too narrow, and a better rate may be outside it."
    return f"{found}, inside the grid."
