"""How many labels a pre-training is worth."""

import math

import numpy as np
import pytest

from depthseg.study.label_value import value_in_labels
from depthseg.study.statistics import InitialisationResults

BLOCKS = np.arange(10)


def runs_of(share, spread=0.0, draws=9, seed=0):
    """One class right in a share of its 10000 pixels, the other always: images alike, draws apart by `spread`."""
    shares = share + spread * np.random.default_rng(seed).standard_normal(draws)
    right = np.rint(10000 * shares).astype(np.int64)
    matrices = np.array([[[count, 10000 - count], [0, 1]] for count in right])
    confusion = np.broadcast_to(matrices[None, :, None], (1, draws, len(BLOCKS), 2, 2)).copy()
    return InitialisationResults(
        confusion, BLOCKS, "none", "random weights", [(draw % 3, draw) for draw in range(draws)]
    )


def score(share):
    """Mean IoU of one image, by hand."""
    wrong = 10000 * (1 - share)
    return (share + 1 / (1 + wrong)) / 2


def test_the_curve_is_read_between_two_numbers_of_labels_in_their_logarithm():
    reference = {8: runs_of(0.3), 16: runs_of(0.4), 32: runs_of(0.6)}
    found = value_in_labels(runs_of(0.5), reference)
    part = (score(0.5) - score(0.4)) / (score(0.6) - score(0.4))
    assert found.labels == pytest.approx(16 * 2**part) and found.reason is None
    # every draw is the same, so there is nothing to resample
    assert found.interval == pytest.approx((found.labels, found.labels))
    assert value_in_labels(runs_of(0.4), reference).labels == 16


def test_beyond_the_ends_of_the_curve_only_a_bound_is_known():
    reference = {8: runs_of(0.3), 32: runs_of(0.5)}
    assert value_in_labels(runs_of(0.6), reference).labels == math.inf
    assert value_in_labels(runs_of(0.2), reference).labels == -math.inf
    assert value_in_labels(runs_of(0.6, 0.001), reference).interval == (math.inf, math.inf)


def test_a_dip_of_the_curve_is_flat():
    # 0.5 and 0.4 become their mean, which the curve reaches between 8 and 16 labels
    reference = {8: runs_of(0.3), 16: runs_of(0.5), 32: runs_of(0.4), 64: runs_of(0.7)}
    flat = (score(0.5) + score(0.4)) / 2
    part = (score(0.35) - score(0.3)) / (flat - score(0.3))
    assert value_in_labels(runs_of(0.35), reference).labels == pytest.approx(8 * 2**part)


def test_draws_that_vary_give_an_interval_that_shrinks_with_their_number_and_if_they_are_shared():
    def widths(draws, seed):
        reference = {8: runs_of(0.3, 0.02, draws, seed), 128: runs_of(0.7, 0.02, draws, seed)}
        found = value_in_labels(runs_of(0.5, 0.02, draws, 1), reference)
        low, high = found.interval
        assert low < found.labels < high
        return math.log(high / low)

    assert widths(36, seed=2) < 0.85 * widths(9, seed=2) and widths(9, seed=1) < 0.7 * widths(9, seed=2)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({16: runs_of(0.3)}, "random weights has only runs with 16 labels, at least two numbers are needed"),
        ({0: runs_of(0.3), 16: runs_of(0.3)}, "only runs with 16 labels"),
        ({0: runs_of(0.3)}, "no runs with a known number of labels"),
        ({8: runs_of(0.5), 16: runs_of(0.5)}, "the score of random weights does not rise from 8 to 16 labels"),
    ],
)
def test_why_it_cannot_be_read_off_is_said(reference, words):
    found = value_in_labels(runs_of(0.5), reference)
    assert found.labels is None and found.interval is None
    assert found.reason.startswith("Cannot be read off: ") and words in found.reason


def test_few_draws_give_a_number_without_interval():
    found = value_in_labels(runs_of(0.5, draws=5), {8: runs_of(0.3, draws=5), 16: runs_of(0.7, draws=5)})
    assert 8 < found.labels < 16 and found.interval is None
    assert found.reason == "No interval: 5 draws, at least 6 are needed."
