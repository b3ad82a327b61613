"""Studies whose initialisations all have the same draws of the labelled images: intervals, pairing, power."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import optimize, stats

from depthseg.metrics.blocks import blocks_of
from depthseg.study.comparison import compare, interval_over_draws, summarise
from depthseg.study.intervals import Level, measure_draws, variance_between_pretrainings
from depthseg.study.options import PilotOptions
from depthseg.study.power import Design, smallest_difference, standard_error
from depthseg.study.statistics import InitialisationResults

DRAWS, PRETRAININGS, BLOCKS = 9, 3, 10
SEEDS = np.arange(DRAWS) % PRETRAININGS
RUNS = [(int(seed), draw) for draw, seed in enumerate(SEEDS)]
FRAMES = [f"film_{place:04d}" for place in range(101)]


@dataclass(frozen=True)
class Spread:
    """Standard deviations in points: of a difference, and what a draw does to all initialisations alike."""

    draws: float = 2.4
    pretrainings: float = 0.0
    blocks: float = 2.0
    rest: float = 2.0
    common: float = 4.0


def simulate(spread, rng, pretrained=1, inits=2, count=DRAWS, seeds=SEEDS):
    """Scores `(inits, draws, blocks)` of which the first `pretrained` are pre-trained; no initialisation is better."""
    half = 1 / math.sqrt(2)
    normal = rng.standard_normal
    scores = spread.common * normal((1, count, 1)) + half * spread.draws * normal((inits, count, 1))
    scores = (
        scores
        + half * spread.blocks * normal((inits, 1, BLOCKS))
        + half * spread.rest * normal((inits, count, BLOCKS))
    )
    scores[:pretrained] += spread.pretrainings * normal((pretrained, seeds.max() + 1, 1))[:, seeds]
    return scores


def p_value(scores, shift=0.0, pretrained=1, pooled=0, seeds=SEEDS):
    """p-value of the first initialisation against the last one."""
    level = None
    if pooled:
        level = variance_between_pretrainings(scores.mean(2), seeds, pooled)
    values = scores[0] - scores[-1] + shift
    return measure_draws(values, seeds if pretrained else None, level).p_value(values.mean())


def share_found(spread, repeats, seed, shift=0.0, **kind):
    rng, pooled = np.random.default_rng(seed), kind.get("pooled", 0)
    pretrained = pooled or kind.get("pretrained", 1)
    inits = pooled + 1 if pooled else 2
    found = (p_value(simulate(spread, rng, pretrained, inits), shift, **kind) < 0.05 for _ in range(repeats))
    return sum(found) / repeats


def margin(share, repeats):
    return 3 * math.sqrt(share * (1 - share) / repeats)


class TestIntervalsHoldWhatTheyPromise:
    """9 draws, 3 pre-trainings, 10 blocks; every study here has no difference, so coverage is one minus these."""

    @pytest.mark.parametrize("pretrainings", [0.0, 1.0, 2.0, 4.0])
    @pytest.mark.parametrize("pooled", [0, 3, 6])
    def test_false_findings(self, pretrainings, pooled):
        repeats = 1200
        share = share_found(Spread(pretrainings=pretrainings), repeats, seed=3, pooled=pooled)
        assert 0.01 <= share <= 0.06 + margin(0.06, repeats)

    def test_false_findings_of_two_without_pretraining(self):
        assert 0.015 <= share_found(Spread(), 1200, seed=4, pretrained=0) <= 0.05 + margin(0.05, 1200)

    def test_leaving_the_pretrainings_out_would_find_too_much(self):
        # the simulation can tell a wrong analysis from a right one
        rng, spread = np.random.default_rng(5), Spread(pretrainings=4.0)
        found = [p_value(simulate(spread, rng), pretrained=0) < 0.05 for _ in range(600)]
        assert np.mean(found) > 0.12

    def test_blocks_of_one_frame_would_find_too_much(self):
        rng, found = np.random.default_rng(6), {1: 0, 10: 0}
        for _ in range(600):
            scores = simulate(Spread(draws=0.5, blocks=4.0, rest=0.5), rng, pretrained=0)
            values = scores[0] - scores[-1]
            for frames in found:
                found[frames] += (
                    measure_draws(np.repeat(values, 10 // frames, axis=1), None).p_value(values.mean()) < 0.05
                )
        assert found[10] <= 600 * (0.05 + margin(0.05, 600)) and found[1] > 600 * 0.3


class TestPower:
    @pytest.mark.parametrize(
        ("pretrained", "pooled", "pretrainings"), [(1, 0, 1.0), (1, 4, 1.0), (0, 0, 0.0), (1, 4, 0.0)]
    )
    def test_a_planted_effect_is_found_as_often_as_promised(self, pretrained, pooled, pretrainings):
        spread, repeats = Spread(pretrainings=pretrainings, rest=0.5), 1200
        # what the spread of a mean over all blocks or all draws is, which a pilot measures
        pilot = PilotOptions(math.hypot(2.4, 0.5 / math.sqrt(BLOCKS)), pretrainings, math.hypot(2.0, 0.5 / 3))
        design = Design(DRAWS, PRETRAININGS, BLOCKS, pretrained, (pooled + 1, pooled) if pooled else None)
        planted = smallest_difference(design, pilot)
        share = share_found(spread, repeats, seed=7, shift=planted, pretrained=pretrained, pooled=pooled)
        assert share == pytest.approx(0.8, abs=0.02 + margin(0.8, repeats))

    def test_of_two_without_pretraining_and_without_spread_over_blocks_it_is_the_noncentral_t(self):
        pilot, design = PilotOptions(sd_draws=2.4), Design(DRAWS, PRETRAININGS, BLOCKS, pretrained=0)
        assert standard_error(design, pilot) == pytest.approx(0.8)
        critical = stats.t.ppf(0.975, DRAWS - 1)
        wanted = optimize.brentq(lambda x: stats.nct.sf(critical, DRAWS - 1, x) - 0.8, 1, 10) * 0.8
        assert smallest_difference(design, pilot) == pytest.approx(wanted, rel=0.03)

    def test_a_pretraining_for_each_draw_is_as_good_as_none(self):
        pilot = PilotOptions(sd_draws=2.4)
        each = smallest_difference(Design(DRAWS, DRAWS, BLOCKS, pretrained=1), pilot)
        assert each == pytest.approx(smallest_difference(Design(DRAWS, 3, BLOCKS, pretrained=0), pilot), rel=1e-6)

    def test_more_draws_more_pretrainings_and_pooling_detect_less(self):
        pilot = PilotOptions(2.4, 1.0, 1.0)
        designs = [Design(9, 3, 10, 1), Design(18, 3, 10, 1), Design(18, 6, 10, 1), Design(18, 6, 10, 1, (5, 4))]
        found = [smallest_difference(design, pilot) for design in designs]
        assert found == sorted(found, reverse=True) and found[0] > 1.2 * found[-1]


def confusions(gains, blocks, rng, share=0.7):
    """Two classes; 1000 pixels of each in each frame, of which a run has the given share right, plus its gain."""
    right = np.rint(1000 * np.clip(share + gains, 0.05, 0.95)).astype(np.int64)
    matrices = np.stack([np.stack([right, 1000 - right], -1), np.stack([1000 - right, right], -1)], -2)
    return matrices[None]


def film(rng, draws_of_all, pretrainings, gain, pretraining, name):
    """An initialisation on a film of 101 frames in blocks of 10: the frames of a block are nearly equal."""
    index = np.unique(blocks_of(FRAMES, 10), return_inverse=True)[1]
    normal = rng.standard_normal
    level = gain + draws_of_all + 0.02 * normal((DRAWS, 1)) + 0.02 * normal((DRAWS, index.max() + 1))[:, index]
    level = level + 0.02 * normal(index.max() + 1)[index] + 0.003 * normal((DRAWS, len(FRAMES)))
    if pretraining == "seeds":
        level = level + pretrainings * normal(PRETRAININGS)[SEEDS][:, None]
    blocks = np.array(blocks_of(FRAMES, 10))
    return InitialisationResults(confusions(level, blocks, rng), blocks, pretraining, name, RUNS)


@pytest.fixture(scope="module")
def three():
    rng = np.random.default_rng(8)
    shared = 0.06 * rng.standard_normal((DRAWS, 1))
    kinds = [("depth", 0.04, "seeds"), ("flow", 0.02, "seeds"), ("patches", 0.0, "seeds"), ("none", 0.0, "none")]
    kinds.append(("imagenet", 0.03, "checkpoint"))
    return {name: film(rng, shared, 0.01, gain, origin, name) for name, gain, origin in kinds}


def iou(matrix):
    return np.mean([matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]) for c in (0, 1)])


def test_interval_and_p_value_by_a_few_lines_of_their_own(three):
    a, b = three["depth"], three["none"]
    index = np.arange(101) // 10
    values = np.zeros((9, 11))
    for d in range(9):
        whole = iou(a.confusion[0, d].sum(0)) - iou(b.confusion[0, d].sum(0))
        for j in range(11):
            left = index != j
            values[d, j] = 11 * whole - 10 * (
                iou(a.confusion[0, d, left].sum(0)) - iou(b.confusion[0, d, left].sum(0))
            )
    by_draw = values.mean(1)
    groups = [by_draw[p::3] for p in range(3)]
    within = np.mean([group.var(ddof=1) for group in groups])
    between = 3 * np.var([group.mean() for group in groups], ddof=1)
    blocks = values.mean(0).var(ddof=1) / 11
    rest = values - by_draw[:, None] - values.mean(0) + values.mean()
    both = np.sum(rest**2) / (8 * 10) / 99
    variances = {6: within / 9, 2: max(0, between - within) / 9, 10: blocks}
    error = np.sqrt(max(within / 9 + variances[2], blocks, sum(variances.values()) - both))
    difference = np.mean([iou(a.confusion[0, d].sum(0)) - iou(b.confusion[0, d].sum(0)) for d in range(9)])

    def outside(x):
        return sum(part * 2 * stats.t.sf(x / error, df) for df, part in variances.items()) / sum(variances.values())

    half = optimize.brentq(lambda x: outside(x) - 0.05, 0, 100 * error)
    found = compare(a, b)
    assert found.p_value == pytest.approx(outside(abs(difference)), rel=1e-6)
    assert found.interval == pytest.approx((100 * (difference - half), 100 * (difference + half)), rel=1e-6)
    assert found.difference == pytest.approx(100 * difference) and found.paired


def test_the_standard_error_is_that_of_a_mixed_model_fitted_by_restricted_likelihood():
    # every component clearly above 0, where analysis of variance and restricted likelihood agree
    rng = np.random.default_rng(9)
    normal = rng.standard_normal
    values = 1.5 * normal(3)[SEEDS][:, None] + normal((9, 1)) + 1.2 * normal(10) + 0.7 * normal((9, 10))
    seeds, draws, blocks = np.repeat(SEEDS, 10), np.repeat(np.arange(9), 10), np.tile(np.arange(10), 9)
    same = [np.equal.outer(part, part).astype(float) for part in (seeds, draws, blocks, np.arange(90))]
    ones, y = np.ones(90), values.ravel()

    def fitted(logs):
        covariance = sum(math.exp(log) * part for log, part in zip(logs, same, strict=True))
        solved = np.linalg.solve(covariance, np.stack([ones, y], 1))
        precision = ones @ solved[:, 0]
        residual = y - ones @ solved[:, 1] / precision
        loss = (
            np.linalg.slogdet(covariance)[1] + math.log(precision) + residual @ np.linalg.solve(covariance, residual)
        )
        return loss, 1 / math.sqrt(precision)

    best = optimize.minimize(lambda logs: fitted(logs)[0], np.zeros(4), method="BFGS")
    assert math.exp(best.x.min()) > 0.05
    found = measure_draws(values, SEEDS)
    assert found.standard_error == pytest.approx(fitted(best.x)[1], rel=2e-3)


def test_what_a_draw_does_to_all_cancels_against_random_and_given_weights(three):
    for other in ("none", "imagenet"):
        nested = [replace(three[name], draws=()) for name in ("depth", other)]
        nested[0] = replace(nested[0], confusion=nested[0].confusion.reshape(3, 3, *nested[0].confusion.shape[2:]))
        paired, before = compare(three["depth"], three[other]), compare(*nested)
        widths = [found.interval[1] - found.interval[0] for found in (paired, before)]
        assert paired.paired and not before.paired and widths[0] < 0.6 * widths[1]
        assert set(paired.variance_shares) == {"draws", "pretraining", "blocks"}
    assert set(compare(three["imagenet"], three["none"]).variance_shares) == {"draws", "blocks"}


def test_pretrainings_are_pooled_over_pretrained_initialisations_only(three):
    every = list(three.values())
    found = compare(three["depth"], three["none"], pooled=every)
    assert "all 3 pre-trained initialisations have the same variance" in found.conditional_on
    assert found.interval_alone == compare(three["depth"], three["none"]).interval != found.interval
    few = compare(three["depth"], three["none"], pooled=[three["depth"], three["flow"], three["none"]])
    assert few.interval == few.interval_alone and "same variance" not in few.conditional_on
    without = compare(three["imagenet"], three["none"], pooled=every)
    assert without.interval == without.interval_alone and "same variance" not in without.conditional_on


def test_the_variance_over_pretrainings_is_estimated_without_bias():
    rng, spread = np.random.default_rng(10), Spread(pretrainings=3.0, blocks=0.0)
    unequal = np.array([0, 0, 0, 0, 1, 1, 2, 2, 0])
    found = [
        variance_between_pretrainings(simulate(spread, rng, 3, 5, seeds=unequal).mean(2), unequal, 3).variance
        for _ in range(1500)
    ]
    # of the mean over draws: 5, 2 and 2 of 9 are from one pre-training; below 0 is rare
    assert np.mean(found) == pytest.approx(9 * (25 + 4 + 4) / 81, rel=0.06)


def test_the_origin_and_number_of_repetitions_is_told(three):
    text = compare(three["depth"], three["none"], conditions=["these data"]).conditional_on
    assert text == (
        "over seeds and test images, from 9 draws of the labelled images, the same for both and paired, depth: 3 "
        "pre-training seeds; none: random initialisation and 11 blocks of test images (101 in all); conditional on "
        "these data"
    )
    assert (
        "9 draws of the labelled images, 3 pre-training seeds and 11 blocks"
        in summarise(three["depth"]).conditional_on
    )


def test_other_draws_cannot_be_compared(three):
    shifted = replace(three["none"], draws=[(seed, draw + 1) for seed, draw in RUNS])
    with pytest.raises(ValueError, match="other draws of the labelled images"):
        compare(three["depth"], shifted)
    with pytest.raises(ValueError, match="one run for each draw"):
        replace(three["none"], draws=RUNS[:5])


def test_one_pretraining_has_no_interval(three):
    one = [replace(three[name], draws=[(0, draw) for draw in range(DRAWS)]) for name in ("depth", "none")]
    assert compare(*one).reason.startswith("No interval: depth has 1 pre-training seed")
    assert compare(one[1], replace(one[1], confusion=three["imagenet"].confusion[:, :])).interval is not None


def test_a_pretraining_of_its_own_for_each_draw_is_one_sample_of_differences():
    values = np.array([1.0, 2.0, 4.0, 3.0, 0.5, 2.5])
    runs = {(draw, draw): value for draw, value in enumerate(values)}
    mean, interval = interval_over_draws(runs, pretrained=True)
    wanted = stats.t.interval(0.95, 5, values.mean(), values.std(ddof=1) / math.sqrt(6))
    assert mean == pytest.approx(values.mean()) and interval == pytest.approx(wanted)
    assert interval_over_draws(dict(list(runs.items())[:5]), pretrained=False)[1] is None
    assert measure_draws(values[:, None], None).levels == {"draws": Level(values.var(ddof=1) / 6, 5)}


@pytest.mark.heavy
@pytest.mark.parametrize("gain", [0.0, 0.05])
def test_intervals_of_mean_iou_on_correlated_frames_cover_the_truth(gain):
    rng, repeats, hits, covered = np.random.default_rng(11), 400, 0, 0
    truth = _limit(gain) - _limit(0.0)
    for _ in range(repeats):
        shared = 0.06 * rng.standard_normal((DRAWS, 1))
        a, b = (film(rng, shared, 0.01, *kind) for kind in ((gain, "seeds", "a"), (0.0, "none", "b")))
        found = compare(a, b, draws=2)
        covered += found.interval[0] <= truth <= found.interval[1]
        hits += found.p_value < 0.05
    assert 0.92 <= covered / repeats <= 1.0
    assert hits / repeats > 0.5 if gain else hits / repeats <= 0.05 + margin(0.05, repeats)


def _limit(gain):
    """Mean IoU in points, over very many draws and blocks: both classes have the same share of right pixels."""
    rng = np.random.default_rng(12)
    right = np.clip(0.7 + gain + math.hypot(0.06, 0.02) * rng.standard_normal(200_000), 0.05, 0.95)
    return 100 * float(np.mean(right / (2 - right)))
