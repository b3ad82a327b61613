"""Confidence intervals of a mean over few seeds and few blocks of images.

The percentile bootstrap is too narrow here: with two seeds it finds half of their variance, and it ignores the
uncertainty of a variance estimated from two seeds. The variance of each level is therefore estimated without bias, and
each level has a t distribution with its own degrees of freedom.

**Variance.** Runs and blocks are crossed: every run is evaluated on every block. The variance between the means of the
runs (with several pre-training seeds, of all runs of one seed together, which includes the variance below) and the
variance between the means of the blocks both include the interaction of runs and blocks. The interaction is therefore
subtracted once: `V = V_seeds + V_blocks - V_both`, and never less than the larger of the two.

**Interval.** The probability of a deviation beyond `x` standard errors is the mean of the tail probabilities of the t
distributions of the levels, each weighted by its fraction of the variance. This is exact if one level dominates and
conservative otherwise. Satterthwaite's single t distribution with pooled degrees of freedom covers only 88 to 92 % in
our simulations if one of the levels has a single degree of freedom (two pre-training seeds), because its weights come
from the same noisy estimates; the Behrens-Fisher distribution covers 95 to 99.9 %. Within one level the two
initialisations are pooled by Satterthwaite's rule. If all variance is interaction, the interval is too wide (coverage
99 %).

**Many initialisations, few seeds.** Two pre-training seeds of two initialisations give a poor estimate of the variance
over seeds; those of eight give a good one. `pooled_variance_of_difference` uses one variance for all initialisations
of a setting, with (initialisations - 1)(seeds - 1) degrees of freedom. In our simulations the intervals become a
quarter to a half narrower and cover 94 to 97 %; 88 to 91 % for two initialisations of eight whose standard deviation
is twice that of the others.

**Draws.** If every initialisation is fine-tuned with the same draws of the labelled images (`measure_draws`), the
difference of two is taken draw by draw, so that what a draw does to both cancels. Draw d uses pre-training d modulo
their number; the variance between the means of the pre-trainings beyond that of the draws, unbiased and never below 0,
is a level of its own, as are the draws under one pre-training and the blocks. With 9 draws, 3 pre-trainings and 10
blocks the intervals cover 93 to 98 % in our simulations; a difference of two initialisations without pre-training
depends on draws and blocks only. `variance_between_pretrainings` takes that level from all pre-trained initialisations
of a setting: with three or more the intervals become narrower and cover 94 to 97 %, but 80 to 90 % for one whose
scores vary twice as much over pre-trainings as those of the others, if that spread is as large as that of the draws.

Source:
    Variance of a crossed design: Searle, Casella and McCulloch 1992, chapter 4; the interaction term: Owen 2007, "The
    pigeonhole bootstrap". Satterthwaite 1946; Cochran and Cox 1957, section 4.14. Weights on probabilities instead of
    quantiles were chosen by simulation (tests/study/test_statistics_coverage.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

TINY = 1e-12
"""A standard error below this is due to rounding: the numbers do not differ."""


@dataclass(frozen=True)
class Level:
    """Variance component of one level of resampling.

    Attributes:
        variance: Of the mean, in the squared unit of the values.
        freedom: Degrees of freedom with which it is estimated, at least 1.
    """

    variance: float
    freedom: float


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of a mean.

    Attributes:
        standard_error: In the unit of the values.
        levels: By name, of `pretraining`, `finetuning` or `draws`, and `blocks`.
    """

    standard_error: float
    levels: Mapping[str, Level]

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the variance due to each level; they sum to 1."""
        total = sum(level.variance for level in self.levels.values())
        return {name: level.variance / total for name, level in self.levels.items()}

    def p_value(self, deviation: float) -> float:
        """Probability of a mean at least this far from the truth, on either side."""
        return self._outside(abs(deviation) / self.standard_error)

    def half_width(self, confidence: float = 0.95) -> float:
        """Deviation whose p-value is one minus the confidence."""
        from scipy import optimize, special

        # In standard errors, because the root is found to an absolute precision. It is between the quantiles of the
        # levels, as its probability is a mean of theirs.
        largest = max(special.stdtrit(level.freedom, (1 + confidence) / 2) for level in self.levels.values())
        root = optimize.brentq(lambda x: self._outside(x) - (1 - confidence), 0.0, 1.1 * largest)
        return self.standard_error * root

    def _outside(self, x: float) -> float:
        """Probability of a deviation of more than `x` standard errors: the mean of those of the levels."""
        from scipy import special

        shares = self.shares.items()
        return sum(share * 2 * float(special.stdtr(self.levels[name].freedom, -x)) for name, share in shares)


def pooled_variance_of_difference(scores: np.ndarray) -> Level:
    """Variance over seeds of the difference of two initialisations, if it is the same for all initialisations.

    Two-way analysis of variance: the effects of initialisations and of seeds are subtracted, and the residual variance
    is assumed to be the same for any two initialisations.

    Args:
        scores: `(A, P)`, mean of each of A >= 3 initialisations under each of P >= 2 pre-training seeds.

    Source:
        Fisher 1935, "The Design of Experiments", randomised blocks; Scheffe 1959, chapter 4.
    """
    inits, seeds = scores.shape
    return Level(2 * _residual_variance(scores) / seeds, (inits - 1) * (seeds - 1))


def pooled_variance_of_mean(scores: np.ndarray) -> Level:
    """Variance over seeds of the mean of a single initialisation, if it is the same for all initialisations.

    The common effect of a seed on all initialisations (runs of one seed use the same labelled images) does not cancel
    here. Its variance can only be estimated from the seeds, regardless of the number of initialisations. The two
    components therefore keep their own degrees of freedom and are pooled by Satterthwaite's rule.

    Args:
        scores: As for `pooled_variance_of_difference`.
    """
    inits, seeds = scores.shape
    shared = Level(_variance_of_mean(scores.mean(0)), seeds - 1)
    own = pooled_variance_of_difference(scores)
    return _pooled([shared, Level((1 - 1 / inits) * own.variance / 2, own.freedom)])


def measure(parts: Sequence[np.ndarray], seeds_level: Level | None = None) -> Uncertainty:
    """Uncertainty of a sum of means, such as a difference.

    Args:
        parts: For each initialisation whose runs are independent of those of the others, pseudo-values `(P, F, B)`,
            with the sign that it has in the sum. The blocks are the same in all.
        seeds_level: Variance over seeds from another estimate; None = from these runs.

    Raises:
        ValueError: There are fewer than two blocks, or a part has a single run.
    """
    # Rows that are independent of one another, `(n, B)`: pre-training seeds if there are several.
    runs = [part.mean(1) if len(part) > 1 else part[0] for part in parts]
    if min(values.shape[axis] for values in runs for axis in (0, 1)) < 2:
        raise ValueError("A spread needs at least two runs of every initialisation and two blocks of test images.")
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
    interaction = sum(_residual_variance(values) / values.size for values in runs)
    return Uncertainty(math.sqrt(max(seeds, blocks, seeds + blocks - interaction)), levels)


def measure_draws(
    values: np.ndarray, pretrainings: np.ndarray | None, pretraining_level: Level | None = None
) -> Uncertainty:
    """Uncertainty of the mean over draws of the labelled images, such as of a difference taken draw by draw.

    Args:
        values: `(D, B)`, pseudo-values of D draws in B blocks; with one block, its variance is left out.
        pretrainings: `(D,)`, the pre-training of each draw; None = no pre-training of the study is involved.
        pretraining_level: Variance of the mean over pre-trainings from another estimate; None = from these values.

    Raises:
        ValueError: There are fewer than two draws, or all are from one pre-training.
    """
    draws, blocks = values.shape
    if draws < 2:
        raise ValueError("A spread needs at least two draws of the labelled images.")
    means = values.mean(1)
    if pretrainings is None:
        levels = {"draws": Level(_variance_of_mean(means), draws - 1)}
    elif len(np.unique(pretrainings)) == draws:
        levels = {"pretraining": Level(_variance_of_mean(means), draws - 1)}
    else:
        between, within, repeats = _split(means[None], pretrainings)
        own = Level(between.variance * repeats, between.freedom)
        levels = {"pretraining": pretraining_level or own, "draws": Level(within.variance / draws, within.freedom)}
    seeds = sum(level.variance for level in levels.values())
    if blocks == 1:
        return Uncertainty(math.sqrt(seeds), levels)
    over_blocks = _variance_of_mean(values.mean(0))
    levels["blocks"] = Level(over_blocks, blocks - 1)
    together = seeds + over_blocks - _residual_variance(values) / values.size
    return Uncertainty(math.sqrt(max(seeds, over_blocks, together)), levels)


def variance_between_pretrainings(scores: np.ndarray, pretrainings: np.ndarray, pretrained: int) -> Level:
    """Variance over pre-trainings of the mean of one pre-trained initialisation, if it is the same for all of them.

    Two-way analysis of variance of initialisations and draws, whose residuals are split into those between and within
    pre-trainings. Initialisations without pre-training add to the effects of the draws, but not to the variance.

    Args:
        scores: `(A, D)`, of each of A >= 2 initialisations with each of D draws.
        pretrainings: `(D,)`, the pre-training of each draw; at least two, and one of them with several draws.
        pretrained: How many of the initialisations have a pre-training.

    Source:
        Expected mean squares: Searle, Casella and McCulloch 1992, chapter 4.
    """
    inits = len(scores)
    between, _, repeats = _split(scores - scores.mean(0), pretrainings)
    variance = between.variance / (inits - 1) * inits / pretrained
    return Level(variance * repeats, between.freedom * min(inits - 1, pretrained))


def _split(rows: np.ndarray, pretrainings: np.ndarray) -> tuple[Level, Level, float]:
    """Split rows over draws by pre-training.

    Returns:
        Variance between pre-trainings beyond that of the draws, at least 0, and variance of a draw under one, both
        summed over rows; and the variance of a mean over draws, for a variance between pre-trainings of 1.
    """
    _, place, counts = np.unique(pretrainings, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise ValueError("The variance between pre-trainings needs draws of at least two of them.")
    draws, seeds = len(place), len(counts)
    means = rows @ np.eye(seeds)[place] / counts
    between = float(np.sum(counts * (means - rows.mean(1, keepdims=True)) ** 2)) / (seeds - 1)
    within = float(np.sum((rows - means[:, place]) ** 2)) / (draws - seeds)
    repeats = float(np.sum(counts**2)) / draws**2
    # Draws per pre-training in the expected variance between their means, also if some have more than others.
    each = draws * (1 - repeats) / (seeds - 1)
    return Level(max(0.0, between - within) / each, seeds - 1), Level(within, draws - seeds), repeats


def _variance_of_mean(values: np.ndarray) -> float:
    return float(values.var(ddof=1) / len(values))


def _residual_variance(table: np.ndarray) -> float:
    """What the effects of rows and columns leave of the variance, in a two-way analysis."""
    rows, columns = table.shape
    residuals = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return float(np.sum(residuals**2) / ((rows - 1) * (columns - 1)))


def _pooled(members: Sequence[Level]) -> Level:
    total = sum(level.variance for level in members)
    noise = sum(level.variance**2 / level.freedom for level in members)
    return Level(total, total**2 / noise if noise > 0 else sum(level.freedom for level in members))
