"""Differences between initialisations, with confidence intervals and p-values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..metrics.blocks import draw_blocks
from .intervals import (
    TINY,
    Level,
    Uncertainty,
    measure,
    measure_draws,
    pooled_variance_of_difference,
    pooled_variance_of_mean,
    variance_between_pretrainings,
)
from .statistics import InitialisationResults, draw_seeds, plural, weighted_scores

CONFIDENCE = 0.95
LEAST_PRETRAINING_SEEDS = 2
LEAST_RUNS = 6
"""With fewer runs a spread is given, but no interval and no p-value."""
LEAST_POOLED = 3
"""Number of initialisations from which the variance over seeds is pooled; with draws, of pre-trained ones."""

Inits = Sequence[InitialisationResults]


@dataclass(frozen=True)
class Summary:
    """Mean IoU of one initialisation, in points (0 to 100).

    Attributes:
        mean_iou: Mean over runs of the mean IoU over all test images.
        interval: 95 % confidence interval; None if `reason` is given.
        spread: Lowest and highest run.
        variance_shares: Fraction of the variance due to `pretraining`, `finetuning` (both seeds; with several
            pre-training seeds `pretraining` includes both) or `draws` (then `pretraining` is what pre-trainings add),
            and `blocks`; empty without interval.
        conditional_on: Sources of variation, assumptions and conditions of the interval.
        reason: Why there is no interval; None if there is one.
    """

    mean_iou: float
    interval: tuple[float, float] | None
    spread: tuple[float, float]
    variance_shares: Mapping[str, float]
    conditional_on: str
    reason: str | None


@dataclass(frozen=True)
class Comparison:
    """Difference of the mean IoU of two initialisations, a - b, in points (-100 to 100).

    Attributes:
        difference: The estimate.
        interval: 95 % confidence interval; None if `reason` is given.
        interval_alone: The interval from the seeds of these two initialisations only, without `pooled`.
        p_value: Two-sided, against no difference; below 0.05 exactly if the interval excludes 0. Not adjusted for
            multiple comparisons, see `depthseg.study.statistics`. None without interval.
        probability_a_beats_b: Fraction of bootstrap differences above 0; None without interval.
        spread: Lowest and highest difference: of runs with the same seeds if `paired`, else of any two runs.
        paired: Whether runs were compared seed by seed.
        variance_shares: As in `Summary`.
        conditional_on: As in `Summary`.
        reason: Why there is no interval and no p-value; None if there are.
    """

    difference: float
    interval: tuple[float, float] | None
    interval_alone: tuple[float, float] | None
    p_value: float | None
    probability_a_beats_b: float | None
    spread: tuple[float, float]
    paired: bool
    variance_shares: Mapping[str, float]
    conditional_on: str
    reason: str | None


def summarise(init: InitialisationResults, conditions: Sequence[str] = (), pooled: Inits = ()) -> Summary:
    """Mean IoU of an initialisation with its uncertainty; `conditions` and `pooled` are those of `compare`."""
    scores = _run_scores(init)
    pooled = _poolable(pooled, [init])
    uncertainty, reason = _uncertainty([init], pooled=pooled)
    return Summary(
        mean_iou=100 * float(scores.mean()),
        interval=_interval(uncertainty, scores.mean()),
        spread=_spread(scores),
        variance_shares={} if uncertainty is None else uncertainty.shares,
        conditional_on=_conditional_on([init], False, pooled, conditions),
        reason=reason,
    )


def compare(
    a: InitialisationResults,
    b: InitialisationResults,
    *,
    draws: int = 2000,
    paired_seeds: bool = False,
    pooled: Inits = (),
    conditions: Sequence[str] = (),
) -> Comparison:
    """Compare two initialisations on the same test images.

    The images are always paired, so the difficulty of an image cancels. The interval and the p-value are those of
    `depthseg.study.intervals`. The bootstrap resamples seeds and blocks of both initialisations, with the same
    blocks for both. Its differences are then scaled about the estimate so that the 95 % range of a normal distribution
    equals the interval; `probability_a_beats_b` is therefore consistent with the interval.

    Args:
        a: One initialisation.
        b: The other.
        draws: Bootstrap draws, always with the same seed.
        paired_seeds: Whether seeds at the same position of both initialisations are equal (common random numbers), so
            that shared effects cancel. Different numbers of seeds are treated as independent; `paired` of the result
            is then False. Draws of the labelled images are always paired, also if one of the two has no pre-training.
        pooled: Initialisations, including `a` and `b`, that all have runs of the same seeds and whose scores are
            assumed to have the same variance over seeds. With at least three this variance is pooled, which gives
            usable intervals from few seeds; the common effect of a seed on all cancels. With draws, only the variance
            over pre-trainings is pooled, from at least three pre-trained ones.
        conditions: Further conditions of the interval, such as "one training set of 16 images".

    Raises:
        ValueError: The images, their blocks, the classes or the draws of the labelled images differ.
    """
    _check_same_images(a, b)
    paired = bool(a.draws) or (paired_seeds and a.seeds == b.seeds)
    first, second = _run_scores(a), _run_scores(b)
    difference = first.mean() - second.mean()
    pooled = _poolable(pooled, [a, b])
    uncertainty, reason = _uncertainty([a, b], paired, pooled)
    alone = _uncertainty([a, b], paired)[0] if uncertainty and pooled else uncertainty
    p_value = probability = None
    if uncertainty is not None:
        p_value = uncertainty.p_value(difference)
        resampled = _bootstrap_differences(a, b, draws, paired)
        probability = _fraction_above_zero(resampled, difference, uncertainty.half_width(CONFIDENCE))
    return Comparison(
        difference=100 * float(difference),
        interval=_interval(uncertainty, difference),
        interval_alone=_interval(alone, difference),
        p_value=p_value,
        probability_a_beats_b=probability,
        spread=_spread(first - second if paired else np.subtract.outer(first.ravel(), second.ravel())),
        paired=paired,
        variance_shares={} if uncertainty is None else uncertainty.shares,
        conditional_on=_conditional_on([a, b], paired, pooled, conditions),
        reason=reason,
    )


def interval_over_draws(
    values: Mapping[tuple[int, int], float], pretrained: bool
) -> tuple[float, tuple[float, float] | None]:
    """Mean over draws of a number that is not a score, such as steps, and its 95 % interval over draws.

    Args:
        values: Pre-training seed and draw -> the number, or the difference of two initialisations.
        pretrained: Whether a pre-training of the study is involved.

    Returns:
        The mean, and the interval in the unit of the values; None if there are too few draws or pre-trainings.
    """
    numbers, seeds = np.array(list(values.values()), dtype=np.float64), np.array([seed for seed, _ in values])
    mean = float(numbers.mean())
    if len(numbers) < LEAST_RUNS or (pretrained and len(set(seeds)) < LEAST_PRETRAINING_SEEDS):
        return mean, None
    uncertainty = measure_draws(numbers[:, None], seeds if pretrained else None)
    if uncertainty.standard_error < TINY:
        return mean, None
    half_width = uncertainty.half_width(CONFIDENCE)
    return mean, (mean - half_width, mean + half_width)


def _run_scores(init: InitialisationResults) -> np.ndarray:
    """Mean IoU of each run on all images, `(P, F)`."""
    return init.counts.scores(np.ones((1, init.num_blocks)))[0]


def _pretrained(inits: Inits) -> int:
    """How many of them are pre-trained by the study."""
    return sum(init.pretraining == "seeds" for init in inits)


def _uncertainty(inits: Inits, paired: bool = False, pooled: Inits = ()) -> tuple[Uncertainty | None, str | None]:
    """Uncertainty of an initialisation or of the difference of two, or the reason for its absence."""
    reason = next((reason for init in inits if (reason := _too_few(init))), None)
    if reason is not None:
        return None, reason
    first, *others = (init.counts.pseudo_values() for init in inits)
    if inits[0].draws:
        several = _pretrained(inits)
        level = _level_of_pretrainings(several, pooled) if several and pooled else None
        uncertainty = measure_draws((first - sum(others))[0], inits[0].pretrainings if several else None, level)
    elif pooled:
        seeds = max(init.seeds[0] for init in pooled)
        by_seed = [values.reshape(seeds, -1, values.shape[-1]) for values in (first, *others)]
        scores = np.stack([_run_scores(init).reshape(seeds, -1).mean(1) for init in pooled])
        level = pooled_variance_of_difference(scores) if others else pooled_variance_of_mean(scores)
        uncertainty = measure([by_seed[0] - sum(by_seed[1:])], level)
    else:
        uncertainty = measure([first - others[0]] if paired else [first, *(-other for other in others)])
    if uncertainty.standard_error < TINY:
        return None, "No interval: the scores do not vary over seeds or blocks of images, so there is no spread."
    return uncertainty, None


def _level_of_pretrainings(several: int, pooled: Inits) -> Level:
    """Variance over pre-trainings of the mean, or of the difference if `several` is 2, pooled over initialisations."""
    scores = np.stack([_run_scores(init)[0] for init in pooled])
    level = variance_between_pretrainings(scores, pooled[0].pretrainings, _pretrained(pooled))
    return Level(several * level.variance, level.freedom)


def _poolable(pooled: Inits, inits: Inits) -> Inits:
    """The initialisations whose variance over seeds is pooled for some of them, or none if they are too few."""
    if inits[0].draws:
        enough = _pretrained(pooled) >= LEAST_POOLED and 2 <= inits[0].num_pretrainings < len(inits[0].draws)
        return pooled if enough and _pretrained(inits) else ()
    several = any(init.seeds[0] >= LEAST_PRETRAINING_SEEDS for init in pooled)
    return pooled if several and len(pooled) >= LEAST_POOLED else ()


def _too_few(init: InitialisationResults) -> str | None:
    seeds, runs = init.num_pretrainings, math.prod(init.seeds)
    if init.pretraining == "seeds" and seeds < LEAST_PRETRAINING_SEEDS:
        return (
            f"No interval: {init.name} has {seeds} pre-training seed, at least {LEAST_PRETRAINING_SEEDS} are needed."
        )
    if runs < LEAST_RUNS:
        return f"No interval: {init.name} has {plural(runs, 'run')}, at least {LEAST_RUNS} are needed."
    if init.num_blocks < 2:
        return "No interval: all test images are in one block, so the variance between blocks cannot be estimated."
    return None


def _interval(uncertainty: Uncertainty | None, centre: float) -> tuple[float, float] | None:
    """In points; None without an uncertainty."""
    if uncertainty is None:
        return None
    half_width = uncertainty.half_width(CONFIDENCE)
    return 100 * float(centre - half_width), 100 * float(centre + half_width)


def _bootstrap_differences(a: InitialisationResults, b: InitialisationResults, draws: int, paired: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    blocks = draw_blocks(a.num_blocks, draws, generator)
    seeds = draw_seeds(a.seeds, draws, generator)
    other_seeds = seeds if paired else draw_seeds(b.seeds, draws, generator)
    return weighted_scores(a.counts, blocks, seeds) - weighted_scores(b.counts, blocks, other_seeds)


def _fraction_above_zero(resampled: np.ndarray, estimate: float, half_width: float) -> float:
    normal = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * resampled.std()
    stretch = half_width / normal if normal > TINY else 1.0
    differences = estimate + (resampled - resampled.mean()) * stretch
    return float(np.mean(differences > 0) + np.mean(differences == 0) / 2)


def _spread(scores: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest, in points."""
    return 100 * float(scores.min()), 100 * float(scores.max())


def _check_same_images(a: InitialisationResults, b: InitialisationResults) -> None:
    if a.confusion.shape[2:] != b.confusion.shape[2:] or not np.array_equal(a.blocks, b.blocks):
        raise ValueError(
            f"{a.name} and {b.name} were not evaluated on the same test images: {a.confusion.shape[2:]} and "
            f"{b.confusion.shape[2:]} (images, classes, classes), or different blocks. Evaluate both on the same "
            "images in the same order."
        )
    if list(a.draws) != list(b.draws):
        raise ValueError(
            f"{a.name} and {b.name} have other draws of the labelled images, or other pre-training seeds for them; "
            "compare them by the draws that both have."
        )
    if not np.array_equal(a.confusion[0, 0].sum(-1), b.confusion[0, 0].sum(-1)):
        raise ValueError(
            f"{a.name} and {b.name} were not evaluated with the same labels: their images or the order of their "
            "images differ."
        )


def _conditional_on(inits: Inits, paired: bool, pooled: Inits, conditions: Sequence[str]) -> str:
    texts, drawn = [_repetitions(init) for init in inits], bool(inits[0].draws)
    if len(inits) == 1:
        seeds = texts[0]
    elif texts[0] == texts[1]:
        seeds = f"{texts[0]} for each initialisation" + ("" if drawn else f", {'paired' if paired else 'not paired'}")
    else:
        seeds = "; ".join(f"{init.name}: {text}" for init, text in zip(inits, texts, strict=True))
    if drawn:
        paired_by = ", the same for both and paired" if len(inits) > 1 else ""
        seeds = f"{plural(len(inits[0].draws), 'draw')} of the labelled images{paired_by}, {seeds}"
    images = f"{plural(inits[0].num_blocks, 'block')} of test images ({len(inits[0].blocks)} in all)"
    lines = [f"over seeds and test images, from {seeds} and {images}"]
    if pooled:
        who, what = f"{len(pooled)} initialisations", "seeds"
        if drawn:
            who, what = f"{_pretrained(pooled)} pre-trained initialisations", "pre-trainings"
        lines.append(f"assuming that the scores of all {who} have the same variance over {what}")
    if conditions:
        lines.append(f"conditional on {', '.join(conditions)}")
    return "; ".join(lines)


def _repetitions(init: InitialisationResults) -> str:
    """Its pre-trainings and, without draws, its fine-tunings, in words."""
    origin = {
        "seeds": plural(init.num_pretrainings, "pre-training seed"),
        "checkpoint": "one given checkpoint",
        "none": "random initialisation",
    }[init.pretraining]
    each = " each" if init.num_pretrainings > 1 else ""
    return origin if init.draws else f"{origin}, {plural(init.seeds[1], 'fine-tuning seed')}{each}"
