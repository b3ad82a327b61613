import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from depthseg.metrics.blocks import mean_iou
from depthseg.study.comparison import compare, summarise
from depthseg.study.intervals import (
    Level,
    Uncertainty,
    measure,
    pooled_variance_of_difference,
    pooled_variance_of_mean,
)
from depthseg.study.statistics import InitialisationResults, benjamini_hochberg, draw_seeds, holm, weighted_scores


def matrix(right, wrong):
    """Two classes; class 0 has `right` pixels found and `wrong` lost to class 1, which has 10 pixels, all found."""
    return [[right, wrong], [0, 10]]


def init_of(per_run, blocks, **options):
    """An initialisation from (P, F, N) pairs of right and wrong pixels."""
    confusion = np.array([[[matrix(*pair) for pair in run] for run in seed] for seed in per_run], dtype=np.int64)
    return InitialisationResults(confusion, np.array(blocks), **options)


def iou(right, wrong):
    return (right / (right + wrong) + 10 / (10 + wrong)) / 2


def random_init(seed, seeds=(2, 3), images=8, blocks=4, better=0, **options):
    """Images of 3 classes with 100 pixels each, of which some are confused with the next class."""
    rng = np.random.default_rng(seed)
    wrong = rng.integers(5, 20, (*seeds, images, 3)) - better
    confusion = np.eye(3, dtype=np.int64) * (100 - wrong)[..., None]
    confusion += np.roll(np.eye(3, dtype=np.int64), 1, axis=1) * wrong[..., None]
    return InitialisationResults(confusion, np.arange(images) % blocks, **options)


class TestInitialisationResults:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"confusion": np.ones((2, 3, 8, 3), dtype=int)}, "have shape"),
            ({"blocks": np.arange(7)}, "8 images and blocks of shape"),
            ({"pretraining": "some"}, "unknown; choose one of seeds, checkpoint, none"),
            ({"pretraining": "none"}, "allows only one"),
            ({"confusion": np.ones((2, 3, 8, 3, 3))}, "integers from 0"),
            ({"confusion": -np.ones((2, 3, 8, 3, 3), dtype=int)}, "integers from 0"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, change, sentence):
        with pytest.raises(ValueError, match=sentence):
            dataclasses.replace(random_init(0), **change)

    def test_runs_must_have_seen_the_same_labels(self):
        confusion = random_init(0).confusion.copy()
        confusion[1, 2, 5, 0, 0] += 1
        with pytest.raises(ValueError, match="same labels in test image 5"):
            InitialisationResults(confusion, np.arange(8))

    def test_a_block_without_labels_is_named(self):
        confusion = random_init(0).confusion.copy()
        confusion[:, :, 3] = 0
        with pytest.raises(ValueError, match="Block east has no labelled pixel"):
            InitialisationResults(confusion, np.array(["west"] * 3 + ["east"] + ["west"] * 4))


class TestDrawnSeeds:
    def test_fine_tuning_seeds_stay_under_their_pretraining_seed(self):
        # two pre-training seeds with two fine-tuning seeds each, one image: enumerate every nested draw
        pairs = [[(9, 1), (7, 3)], [(4, 6), (1, 9)]]
        init = init_of([[[pair] for pair in seed] for seed in pairs], ["a"])
        score = [[iou(*pair) for pair in seed] for seed in pairs]
        halves = [
            [np.mean([score[p][f] for f in inner]) for inner in itertools.product(range(2), repeat=2)]
            for p in range(2)
        ]
        every = [np.mean([x, y]) for p, q in np.ndindex(2, 2) for x in halves[p] for y in halves[q]]
        seeds = draw_seeds(init.seeds, 20000, np.random.default_rng(2))
        draws = weighted_scores(init.counts, np.ones((20000, 1)), seeds)
        values, counts = np.unique(np.round(every, 9), return_counts=True)
        found = [np.mean(np.isclose(draws, value, atol=1e-8)) for value in values]
        assert found == pytest.approx(counts / len(every), abs=0.015)


class TestIntervals:
    @pytest.mark.parametrize(
        ("freedom", "quantile", "outside"),
        [  # printed tables of Student's t
            (1, 12.706, 0.05), (1, 63.657, 0.01), (2, 4.303, 0.05), (3, 3.182, 0.05), (5, 2.571, 0.05),
            (10, 2.228, 0.05), (10, 3.169, 0.01), (30, 2.042, 0.05), (120, 1.980, 0.05), (1e6, 1.960, 0.05),
        ],
    )  # fmt: skip
    def test_quantiles_are_those_of_the_tables(self, freedom, quantile, outside):
        alone = Uncertainty(1.0, {"blocks": Level(4.0, freedom)})
        assert alone.half_width(1 - outside) == pytest.approx(quantile, abs=6e-4)
        assert alone.p_value(-quantile) == pytest.approx(outside, abs=1e-4)

    @pytest.mark.parametrize("x", [0.0, 0.3, 1.7, 9.0, 200.0])
    def test_closed_forms(self, x):
        one, two = (Uncertainty(1.0, {"blocks": Level(4.0, freedom)}).p_value(x) for freedom in (1, 2))
        assert one == pytest.approx(1 - 2 / np.pi * np.arctan(x), abs=1e-12)
        assert two == pytest.approx(1 - x / np.sqrt(2 + x * x), abs=1e-12)

    @pytest.mark.parametrize("shares", [(1.0, 0.0), (0.5, 0.5), (0.03, 0.97)])
    @pytest.mark.parametrize("standard_error", [1e-9, 0.02, 3.0])
    def test_the_p_value_of_the_half_width_is_one_minus_the_confidence(self, shares, standard_error):
        levels = {"blocks": Level(shares[0], 1), "pretraining": Level(shares[1], 11.5)}
        found = Uncertainty(standard_error, levels)
        for confidence in (0.5, 0.95, 0.999):
            assert found.p_value(found.half_width(confidence)) == pytest.approx(1 - confidence, rel=1e-9)

    def test_a_t_interval_where_only_seeds_vary(self):
        # scores 1, 2, 6: mean 3, standard error sqrt(7 / 3), t with 2 degrees of freedom 4.303
        values = np.array([1.0, 2.0, 6.0]).reshape(3, 1, 1) * np.ones((1, 4, 5))
        found = measure([values])
        assert found.standard_error == pytest.approx(np.sqrt(7 / 3))
        assert found.shares == {"blocks": 0, "pretraining": 1}
        assert found.half_width() == pytest.approx(4.3027 * np.sqrt(7 / 3), abs=1e-3)

    def test_interplay_of_seeds_and_blocks_counts_once(self):
        # expected mean squares of a crossed design: 1 / n + 1 / B + 1 / (n B) for unit variances
        normal, n, b = np.random.default_rng(0).standard_normal, 40, 30
        squares = [
            measure([normal((n, 1, 1)) + normal(b) + normal((n, 1, b))]).standard_error ** 2 for _ in range(300)
        ]
        assert np.mean(squares) == pytest.approx(1 / n + 1 / b + 1 / (n * b), rel=0.03)

    def test_welch_where_two_initialisations_have_other_spreads(self):
        # Welch's degrees of freedom by hand: variances of means 1 (2 degrees) and 4 (2 degrees): 25 / (1/2 + 16/2)
        first = np.sqrt(3) * np.array([-1.0, 0.0, 1.0]).reshape(3, 1, 1) * np.ones((1, 2, 6))
        found = measure([first, -2 * first])
        assert found.standard_error == pytest.approx(np.sqrt(5))
        assert found.levels["pretraining"].freedom == pytest.approx(25 / 8.5)

    def test_one_run_or_one_block_has_no_spread(self):
        for shape in ((1, 1, 5), (2, 3, 1)):
            with pytest.raises(ValueError, match="at least two runs of every initialisation and two blocks"):
                measure([np.random.default_rng(0).random(shape)])


class TestHolm:
    def test_textbook_example(self):
        # 0.005 * 4, 0.01 * 3, then 0.03 * 2, and 0.04 * 1 lifted to the one before
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_none_stays_and_does_not_count(self):
        assert holm([0.02, None, 0.01]) == [0.02, None, 0.02]
        assert holm([None]) == [None]
        assert holm([]) == []

    def test_never_above_one(self):
        assert holm([0.9, 0.8]) == [1.0, 1.0]

    def test_out_of_range(self):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, 1.5])


class TestBenjaminiHochberg:
    def test_by_another_implementation(self):
        p_values = np.random.default_rng(0).random(20) ** 2
        assert benjamini_hochberg(list(p_values)) == pytest.approx(stats.false_discovery_control(p_values))

    def test_by_hand(self):
        # 0.01 * 4 / 1, 0.02 * 4 / 2, then 0.03 * 4 / 3; nothing above that of a larger p-value
        assert benjamini_hochberg([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.04, 0.04, 0.5, 0.04])

    def test_none_stays_and_does_not_count(self):
        assert benjamini_hochberg([0.02, None, 0.5]) == [0.04, None, 0.5]
        assert benjamini_hochberg([None]) == [None]

    def test_out_of_range(self):
        with pytest.raises(ValueError, match="between 0 and 1"):
            benjamini_hochberg([-0.1])


class TestCompare:
    def test_difference_is_that_of_the_means_of_runs(self):
        a, b = random_init(1, name="depth", better=4), random_init(2, name="none")
        means = [np.mean([mean_iou(run) for run in init.confusion.sum(2).reshape(-1, 3, 3)]) for init in (a, b)]
        expected = 100 * (means[0] - means[1])
        found = compare(a, b)
        assert found.difference == pytest.approx(expected)
        assert np.mean(found.interval) == pytest.approx(expected)
        assert sum(found.variance_shares.values()) == pytest.approx(1)

    def test_interval_p_value_and_probability_agree(self):
        many = {"seeds": (3, 6), "images": 24, "blocks": 12}
        for better in (0, 1, 3):
            found = compare(random_init(1, better=better, **many), random_init(2, **many))
            assert (found.p_value < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0)
        assert found.p_value < 0.01
        assert found.probability_a_beats_b > 0.99
        swapped = compare(random_init(2, **many), random_init(1, better=3, **many))
        assert swapped.interval == pytest.approx((-found.interval[1], -found.interval[0]))
        assert swapped.p_value == pytest.approx(found.p_value)

    def test_the_probability_is_unsure_where_the_interval_touches_zero(self):
        # about 97.5 % where the two-sided p-value is 5 %
        few, found = {"seeds": (3, 3), "images": 24, "blocks": 12}, []
        for seed in range(100, 109):
            found.append(compare(random_init(seed, better=1, **few), random_init(9, **few), draws=300))
        close = [one.probability_a_beats_b for one in found if 0.03 < one.p_value < 0.1]
        assert close
        assert all(0.95 < share < 1 for share in close)

    def test_blocks_that_are_hard_for_both_initialisations_cancel(self):
        rng = np.random.default_rng(4)
        hard = rng.integers(0, 60, (1, 1, 8, 1))
        inits = []
        for better in (3, 0):
            wrong = hard + rng.integers(5, 8, (2, 3, 8, 3)) - better
            confusion = np.eye(3, dtype=np.int64) * (100 - wrong)[..., None]
            inits.append(
                InitialisationResults(
                    confusion + np.roll(np.eye(3, dtype=np.int64), 1, 1) * wrong[..., None], range(8)
                )
            )
        low, high = compare(*inits).interval
        alone = summarise(inits[0]).interval
        assert high - low < 0.25 * (alone[1] - alone[0])

    def test_seeds_that_are_good_for_both_initialisations_cancel_if_paired(self):
        rng = np.random.default_rng(5)
        luck = rng.integers(0, 40, (3, 3, 1, 1))
        inits = []
        for better in (3, 0):
            wrong = luck + rng.integers(5, 8, (3, 3, 8, 3)) - better
            confusion = np.eye(3, dtype=np.int64) * (100 - wrong)[..., None]
            inits.append(
                InitialisationResults(
                    confusion + np.roll(np.eye(3, dtype=np.int64), 1, 1) * wrong[..., None], range(8)
                )
            )
        paired, independent = compare(*inits, paired_seeds=True), compare(*inits)
        assert np.ptp(paired.interval) < 0.25 * np.ptp(independent.interval)
        assert np.ptp(paired.spread) < 0.25 * np.ptp(independent.spread)
        assert (paired.paired, independent.paired) == (True, False)
        assert "each for each initialisation, paired and" in paired.conditional_on
        assert "each for each initialisation, not paired and" in independent.conditional_on

    def test_other_numbers_of_seeds_are_never_paired(self):
        baseline = random_init(2, (1, 6), pretraining="none", name="none")
        found = compare(random_init(1, name="depth"), baseline, paired_seeds=True)
        assert not found.paired
        assert found.p_value is not None
        assert found.conditional_on.startswith(
            "over seeds and test images, from depth: 2 pre-training seeds, 3 fine-tuning seeds each; none: random "
            "initialisation, 6 fine-tuning seeds and 4 blocks"
        )

    def test_what_it_is_conditional_on(self):
        a, b = (random_init(seed, (1, 6), pretraining="checkpoint") for seed in (1, 2))
        found = compare(a, b, conditions=["16 training images"])
        assert found.conditional_on == (
            "over seeds and test images, from one given checkpoint, 6 fine-tuning seeds for each initialisation, not "
            "paired and 4 blocks of test images (8 in all); conditional on 16 training images"
        )

    @pytest.mark.parametrize(
        ("seeds", "blocks", "options", "sentence"),
        [
            ((1, 6), 4, {}, "has 1 pre-training seed, at least 2"),
            ((1, 5), 4, {"pretraining": "none"}, "has 5 runs, at least 6"),
            ((2, 2), 4, {}, "has 4 runs, at least 6"),
            ((2, 3), 1, {}, "one block"),
        ],
    )
    def test_too_few_give_a_spread_and_a_reason(self, seeds, blocks, options, sentence):
        few = random_init(1, seeds, blocks=blocks, name="few", **options)
        found = compare(random_init(2, blocks=blocks), few)
        assert (found.interval, found.p_value, found.probability_a_beats_b) == (None, None, None)
        assert sentence in found.reason
        assert found.spread[0] < found.difference < found.spread[1]
        alone = summarise(few)
        assert alone.interval is None
        assert sentence in alone.reason
        assert alone.spread[0] < alone.mean_iou < alone.spread[1]

    def test_equal_results_have_no_interval_of_width_zero(self):
        found = compare(random_init(1), random_init(1), paired_seeds=True)
        assert (found.difference, found.interval, found.p_value) == (0, None, None)
        assert "no spread" in found.reason

    def test_images_must_be_the_same(self):
        a, b = random_init(1, name="a"), random_init(2, name="b")
        with pytest.raises(ValueError, match="a and b were not evaluated on the same test images"):
            compare(a, dataclasses.replace(b, blocks=np.arange(8)))
        with pytest.raises(ValueError, match="not evaluated on the same test images"):
            compare(a, random_init(2, images=9, name="b"))
        with pytest.raises(ValueError, match="not evaluated with the same labels"):
            compare(a, dataclasses.replace(b, confusion=b.confusion * 2))


def test_the_variance_of_seeds_that_vary_alike():
    """Means 2, 3, 5.5 of the rows, 2 and 5 of the columns: residuals of 0.5, 0.5 and 1, whose squares sum to 3."""
    found = pooled_variance_of_difference(np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 8.0]]))
    assert (found.variance, found.freedom) == pytest.approx((2 * (3 / 2) / 2, 2))
    # What a seed does to all initialisations, and by how much initialisations differ, changes nothing.
    assert pooled_variance_of_difference(
        np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 8.0]]) + [[10.0, -5.0]]
    ).variance == pytest.approx(1.5)
    # Alone, variances 2, 2 and 12.5 of the initialisations, whose mean is 5.5, of a mean of two seeds.
    alone = pooled_variance_of_mean(np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 8.0]]))
    # Of it 4.5 / 2 is what seeds do to all, with one degree of freedom, and two thirds of 1.5 / 2 the rest.
    assert (alone.variance, alone.freedom) == pytest.approx((5.5 / 2, 2.75**2 / (2.25**2 / 1 + 0.5**2 / 2)))
    # Where seeds do nothing to all initialisations, every initialisation is informative about the others.
    apart = pooled_variance_of_mean(np.array([[1.0, 3.0], [3.0, 1.0], [2.0, 4.0], [4.0, 2.0]]))
    assert (apart.variance, apart.freedom) == pytest.approx((2 / 2, 3))
