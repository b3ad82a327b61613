"""How uncertain a mean over few seeds and few blocks of images is.

The percentile bootstrap is too narrow here: with two seeds it finds half of their variance, and knows nothing of how
badly two seeds tell a variance at all. So the variance of each level is estimated without bias, and each level is
given the t distribution of its own degrees of freedom.

**Variance.** Runs and blocks are crossed: every run is scored on every block. The variance between the means of the
runs (of all runs under one pre-training seed together, where there are several: what varies below is then contained)
and that between the means of the blocks both contain the interplay of runs and blocks, which is therefore taken off
once: `V = V_seeds + V_blocks - V_both`, and never less than the larger of the two.

**Interval.** The chance of a deviation beyond `x` standard errors is the mean of what the t distributions of the
levels say, each weighted by its share in the variance: exact where one level dominates, and in between it leans on
the level that is known worst. Satterthwaite's one t distribution with pooled degrees of freedom covers only 88 to 92 %
in our simulations where one of the levels has a single degree of freedom (two pre-training seeds), because it judges
the shares from the same noisy estimates; the Behrens-Fisher distribution covers 95 to
99.9 %. Within one level the two arms are pooled by Satterthwaite's rule. Where neither seeds nor
blocks differ and all variance is interplay the interval is too wide (coverage 99 %).

**Many arms, few seeds.** Two pre-training seeds of two arms say next to nothing of how seeds vary, those of eight arms
do: `seeds_alike` takes one variance for all arms of a setting, with (arms - 1)(seeds - 1) degrees of freedom. In our
simulations the intervals become a quarter to a half narrower and cover 94 to 97 %; 88 to 91 % for two arms of eight
whose standard deviation is twice that of the others.

Source:
    Variance of a crossed design: Searle, Casella and McCulloch 1992, chapter 4; the surplus of interplay: Owen 2007,
    "The pigeonhole bootstrap". Satterthwaite 1946; Cochran and Cox 1957, section 4.14. That the weights are applied to
    probabilities instead of quantiles was chosen by simulation (tests/study/test_statistics_coverage.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NODES, NODE_WEIGHTS = np.polynomial.legendre.leggauss(64)
TINY = 1e-12
"""A standard error below this is rounding: the numbers do not differ."""


@dataclass(frozen=True)
class Level:
    """Part of a variance that one level of resampling brings.

    Attributes:
        variance: Of the mean.
        freedom: Degrees of freedom with which it is estimated, at least 1.
    """

    variance: float
    freedom: float


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of a mean.

    Attributes:
        standard_error: In the unit of the values.
        levels: By name, of `LEVELS`.
    """

    standard_error: float
    levels: Mapping[str, Level]

    @property
    def shares(self) -> dict[str, float]:
        """Part of the variance that each level brings; they sum to 1."""
        total = sum(level.variance for level in self.levels.values())
        return {name: level.variance / total for name, level in self.levels.items()}

    def p_value(self, deviation: float) -> float:
        """Chance of a mean at least this far from the truth, on either side."""
        x = abs(deviation) / self.standard_error
        return sum(share * two_sided(x, self.levels[name].freedom) for name, share in self.shares.items())

    def half_width(self, confidence: float = 0.95) -> float:
        """Deviation whose p-value is one minus the confidence."""
        low, high = 0.0, self.standard_error
        while self.p_value(high) > 1 - confidence:
            low, high = high, 2 * high
        for _ in range(32):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_value(middle) > 1 - confidence else (low, middle)
        return high


def two_sided(x: float, freedom: float) -> float:
    """Chance that a variable with Student's t distribution lies outside -x..x.

    With x = sqrt(freedom) tan(angle) the density becomes cos(angle) ** (freedom - 1), which is integrated by
    Gauss-Legendre quadrature.

    Args:
        x: Not negative.
        freedom: Degrees of freedom, at least 1; need not be whole.
    """
    angle = math.atan(x / math.sqrt(freedom))
    log_constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    density = np.cos((NODES + 1) / 2 * angle) ** (freedom - 1)
    return max(0.0, 1 - math.exp(log_constant) * angle * float(NODE_WEIGHTS @ density))


def seeds_alike(scores: np.ndarray) -> Level:
    """What seeds bring to the difference of two arms, where those of all arms vary alike.

    Two-way analysis of variance: what an arm and a seed have in common with the others is taken off, and what is left
    is the same for any two arms. With few seeds this tells far more than the two arms alone.

    Args:
        scores: `(A, P)`, mean of each of A arms under each of P pre-training seeds, at least three arms and two seeds.

    Source:
        Fisher 1935, "The Design of Experiments", randomised blocks; Scheffe 1959, chapter 4.
    """
    arms, seeds = scores.shape
    rest = scores - scores.mean(0) - scores.mean(1, keepdims=True) + scores.mean()
    freedom = (arms - 1) * (seeds - 1)
    return Level(2 * float(np.sum(rest**2)) / freedom / seeds, freedom)


def seeds_alike_alone(scores: np.ndarray) -> Level:
    """What seeds bring to the mean of a single arm, where those of all arms vary alike.

    What a seed does to all arms (runs of one seed learn from the same labelled images) does not cancel here, and only
    the seeds tell how much that is, however many arms there are; so the two parts keep their own degrees of freedom
    and are pooled by Satterthwaite's rule.

    Args:
        scores: As for `seeds_alike`.
    """
    arms, seeds = scores.shape
    shared = Level(_variance_of_mean(scores.mean(0)), seeds - 1)
    own = seeds_alike(scores)
    return _pooled([shared, Level((1 - 1 / arms) * own.variance / 2, own.freedom)])


def measure(parts: Sequence[np.ndarray], seeds_level: Level | None = None) -> Uncertainty:
    """Uncertainty of a sum of means, such as a difference.

    Args:
        parts: For each arm whose runs are independent of those of the others, pseudo-values `(P, F, B)`, with the
            sign that the arm has in the sum. The blocks are the same in all.
        seeds_level: What seeds bring, if that is known from elsewhere; None = from these runs.

    Raises:
        ValueError: There are fewer than two blocks, or a part has a single run.
    """
    runs = [_independent_runs(part) for part in parts]
    if min(values.shape[axis] for values in runs for axis in (0, 1)) < 2:
        raise ValueError("A spread needs at least two runs of every arm and two blocks of test images.")
    blocks = _variance_of_mean(sum(values.mean(0) for values in runs))
    levels = {"blocks": Level(blocks, runs[0].shape[1] - 1)}
    for name, several in (("pretraining", True), ("finetuning", False)):
        members = [
            Level(_variance_of_mean(values.mean(1)), len(values) - 1)
            for part, values in zip(parts, runs, strict=True)
            if (len(part) > 1) == several
        ]
        if members:
            levels[name] = _pooled(members)
    if seeds_level is not None:
        levels = {"blocks": levels["blocks"], "pretraining": seeds_level}
    seeds = sum(level.variance for name, level in levels.items() if name != "blocks")
    both = sum(_variance_of_interplay(values) for values in runs)
    return Uncertainty(math.sqrt(max(seeds, blocks, seeds + blocks - both)), levels)


def _independent_runs(part: np.ndarray) -> np.ndarray:
    """Rows that are independent of one another, `(n, B)`: pre-training seeds where there are several."""
    return part.mean(1) if len(part) > 1 else part[0]


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values))


def _variance_of_interplay(values: np.ndarray) -> float:
    rows, columns = values.shape
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    return float(np.sum(rest**2) / ((rows - 1) * (columns - 1)) / (rows * columns))


def _pooled(members: Sequence[Level]) -> Level:
    total = sum(level.variance for level in members)
    noise = sum(level.variance**2 / level.freedom for level in members)
    return Level(total, total**2 / noise if noise > 0 else sum(level.freedom for level in members))
