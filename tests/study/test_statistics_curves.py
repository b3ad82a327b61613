import math

import pytest

from depthseg.study.statistics import area_under_curve, select_rate, steps_to_95


class TestStepsTo95:
    def test_by_hand(self):
        # 95 % of 0.8 is 0.76, one fifth of the way from 0.72 at 200 to 0.92 at 300
        assert steps_to_95([0, 100, 200, 300, 400], [0.1, 0.4, 0.72, 0.92, 0.8]) == pytest.approx(220)

    def test_the_first_time_counts(self):
        assert steps_to_95([0, 10, 20, 30], [0.0, 1.0, 0.2, 1.0]) == pytest.approx(9.5)

    def test_a_curve_that_starts_later_starts_from_0(self):
        assert steps_to_95([100, 200], [0.5, 0.5]) == pytest.approx(95)

    def test_there_from_the_start(self):
        assert steps_to_95([0, 100], [0.5, 0.5]) == 0

    def test_nothing_to_reach(self):
        assert steps_to_95([0, 100], [0.2, 0.0]) is None


class TestAreaUnderCurve:
    def test_by_hand(self):
        # trapezia 100 * 0.3 and 300 * 0.6 over 400 steps
        assert area_under_curve([0, 100, 400], [0.2, 0.4, 0.8]) == pytest.approx(0.525)

    def test_a_curve_that_starts_later_starts_from_0(self):
        assert area_under_curve([100, 200], [0.4, 0.4]) == pytest.approx((20 + 40) / 200)

    def test_faster_is_larger(self):
        steps = [0, 100, 200, 300]
        assert area_under_curve(steps, [0, 0.7, 0.8, 0.8]) > area_under_curve(steps, [0, 0.3, 0.6, 0.8])

    def test_a_curve_without_length(self):
        with pytest.raises(ValueError, match="ends at step 0"):
            area_under_curve([0], [0.3])


@pytest.mark.parametrize("measure", [steps_to_95, area_under_curve])
@pytest.mark.parametrize(
    ("steps", "scores", "sentence"),
    [
        ([], [], "at least one"),
        ([1, 2], [0.1], "score for each step"),
        ([2, 1], [0.1, 0.2], "increase"),
        ([1, 1], [0.1, 0.2], "increase"),
        ([-1, 1], [0.1, 0.2], "start at 0"),
        ([1, 2], [0.1, math.nan], "finite"),
        ([1, 2], [0.1, -0.2], "0 or more"),
    ],
)
def test_curves_that_are_none(measure, steps, scores, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(steps, scores)


class TestSelectRate:
    def test_best_mean_inside_the_grid(self):
        choice = select_rate({1e-3: [0.5, 0.4], 1e-4: [0.6, 0.5], 1e-5: [0.7, 0.1]})
        assert (choice.rate, choice.at_edge) == (1e-4, False)
        assert (
            choice.sentence == "Best of 3 learning rates from 1e-05 to 0.001, 2 seeds each: 0.0001, inside the grid."
        )

    @pytest.mark.parametrize("best", [1e-3, 1e-5])
    def test_an_end_of_the_grid_is_said(self, best):
        choice = select_rate({rate: [0.9 if rate == best else 0.5] for rate in (1e-5, 1e-4, 1e-3)})
        assert (choice.rate, choice.at_edge) == (best, True)
        assert "too narrow" in choice.sentence

    def test_one_rate_is_an_end(self):
        assert select_rate({1e-4: [0.3]}).at_edge

    def test_the_lowest_of_equal_ones(self):
        assert select_rate({1e-3: [0.5], 1e-4: [0.5], 1e-2: [0.5]}).rate == 1e-4

    def test_rates_dropped_on_the_way_cannot_win(self):
        choice = select_rate({1e-5: [0.9], 1e-4: [0.6, 0.5], 1e-3: [0.6, 0.6]})
        assert (choice.rate, choice.at_edge) == (1e-3, True)

    @pytest.mark.parametrize("table", [{}, {1e-3: []}, {1e-3: [0.5], 1e-4: [math.nan]}])
    def test_nothing_to_choose_from(self, table):
        with pytest.raises(ValueError, match="validation score"):
            select_rate(table)
