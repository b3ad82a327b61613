import math

import numpy as np
import pytest
import torch

from depthseg.metrics import DepthErrors
from depthseg.metrics.depth import crop_slices

NAMES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")


def by_loops(predicted, truth, low=1e-3, high=80.0):
    """The published formulas of one image, pixel by pixel."""
    pairs = [
        (min(max(p, low), high), g)
        for p, g in zip(predicted.ravel().tolist(), truth.ravel().tolist(), strict=True)
        if low < g < high
    ]
    n = len(pairs)
    return {
        "abs_rel": sum(abs(g - p) / g for p, g in pairs) / n,
        "sq_rel": sum((g - p) ** 2 / g for p, g in pairs) / n,
        "rmse": math.sqrt(sum((g - p) ** 2 for p, g in pairs) / n),
        "rmse_log": math.sqrt(sum((math.log(g) - math.log(p)) ** 2 for p, g in pairs) / n),
        **{f"delta{k}": sum(max(g / p, p / g) < 1.25**k for p, g in pairs) / n for k in (1, 2, 3)},
    }


def random_pair(seed, shape=(9, 11)):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1, 90, shape)
    predicted = truth * np.exp(rng.normal(0, 0.3, shape))
    truth[rng.random(shape) < 0.2] = 0
    return predicted, truth


def scores_of(predicted, truth, **protocol):
    errors = DepthErrors(**protocol)
    errors.update(predicted, truth)
    return errors.compute()


def test_by_hand():
    scores = scores_of(np.array([[1.0, 4.0]]), np.array([[2.0, 4.0]]))
    assert scores["abs_rel"] == pytest.approx(0.25)
    assert scores["sq_rel"] == pytest.approx(0.25)
    assert scores["rmse"] == pytest.approx(math.sqrt(0.5))
    assert scores["rmse_log"] == pytest.approx(math.log(2) / math.sqrt(2))
    assert [scores[f"delta{k}"] for k in (1, 2, 3)] == [0.5, 0.5, 0.5]
    assert (scores["images"], scores["images_without_depth"], scores["alignment"]) == (1, 0, "none")


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_formulas(seed):
    predicted, truth = random_pair(seed)
    scores = scores_of(predicted, truth)
    assert {name: scores[name] for name in NAMES} == pytest.approx(by_loops(predicted, truth), rel=1e-12)


def test_images_weigh_the_same_whatever_their_number_of_pixels():
    errors = DepthErrors()
    errors.update(np.full((1, 1), 2.0), np.full((1, 1), 1.0))
    errors.update(np.full((50, 50), 1.0), np.full((50, 50), 1.0))
    assert errors.compute()["abs_rel"] == pytest.approx(0.5)


def test_images_without_depth_are_counted_and_left_out():
    errors = DepthErrors()
    errors.update(torch.ones(2, 3, 3), torch.stack([torch.ones(3, 3) * 2, torch.full((3, 3), torch.nan)]))
    errors.update(np.ones((3, 3)), np.zeros((3, 3)))
    scores = errors.compute()
    assert (scores["images"], scores["images_without_depth"]) == (1, 2)
    assert scores["abs_rel"] == pytest.approx(0.5)


def test_unknown_pixels_do_not_matter():
    truth = np.array([[2.0, 0.0, np.nan, np.inf, 200.0, -1.0, 80.0]])
    predicted = np.array([[2.5, np.nan, np.inf, 1.0, 1.0, 1.0, 1.0]])
    assert scores_of(predicted, truth)["abs_rel"] == pytest.approx(0.25)


def test_predictions_are_clamped_after_alignment():
    truth, predicted = np.array([[1.0, 9.0]]), np.array([[-5.0, 1000.0]])
    scores = scores_of(predicted, truth, min_depth=0.5, max_depth=10)
    assert scores["abs_rel"] == pytest.approx((0.5 / 1 + 1 / 9) / 2)
    scores = scores_of(predicted / 100, truth, alignment="fixed", factor=100, min_depth=0.5, max_depth=10)
    assert scores["abs_rel"] == pytest.approx((0.5 / 1 + 1 / 9) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_median_alignment_takes_the_scale_away(seed):
    predicted, truth = random_pair(seed)
    known = (truth > 1e-3) & (truth < 80)
    factor = np.median(truth[known]) / np.median(predicted[known])
    expected = by_loops(predicted * factor, truth)
    for unit in (1.0, 0.013, 55.0):
        scores = scores_of(predicted * unit, truth, alignment="median")
        assert {name: scores[name] for name in NAMES} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_scale_and_shift_are_those_of_least_squares(seed):
    predicted, truth = random_pair(seed)
    known = (truth > 1e-3) & (truth < 80)
    inverse = 1 / predicted
    design = np.stack([inverse[known], np.ones(known.sum())], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, 1 / truth[known], rcond=None)
    aligned = 1 / np.clip(scale * inverse + shift, 1 / 80, 1 / 1e-3)
    expected = by_loops(aligned, truth)
    scores = scores_of(predicted, truth, alignment="scale_shift_inverse")
    assert {name: scores[name] for name in NAMES} == pytest.approx(expected, rel=1e-9)
    relative = scores_of(7 * inverse - 3, truth, alignment="scale_shift_inverse", inverse=True)
    assert {name: relative[name] for name in NAMES} == pytest.approx(expected, rel=1e-7)


def test_a_constant_prediction_can_be_aligned():
    truth = np.array([[1.0, 2.0, 4.0]])
    scores = scores_of(np.full((1, 3), 5.0), truth, alignment="scale_shift_inverse")
    best = 1 / np.mean(1 / truth)
    assert scores["abs_rel"] == pytest.approx(np.mean(np.abs(best - truth) / truth))


def test_states_add_up_over_batches_and_processes():
    pairs = [random_pair(seed) for seed in range(5)]
    single, first, second = (DepthErrors(alignment="median") for _ in range(3))
    for index, (predicted, truth) in enumerate(pairs):
        single.update(predicted, truth)
        (first if index < 2 else second).update(torch.from_numpy(predicted)[None], torch.from_numpy(truth)[None])
    first.state += second.state
    assert first.compute() == pytest.approx(single.compute())
    mean = {name: np.mean([scores_of(p, g, alignment="median")[name] for p, g in pairs]) for name in NAMES}
    assert {name: single.compute()[name] for name in NAMES} == pytest.approx(mean)


def test_the_stamp_says_how_it_was_measured():
    scores = scores_of(np.ones((2, 2)), np.full((2, 2), 5.4), alignment="fixed", factor=5.4, max_depth=50)
    assert (scores["alignment"], scores["min_depth"], scores["max_depth"]) == ("fixed x5.4", 1e-3, 50)
    assert scores["abs_rel"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("crop", "size", "rows", "columns"),
    [
        # What the code of Monodepth and Monodepth2 scores. For 370x1224 Garg et al. name columns 44 to 1180; shares
        # were rounded so that the code, which cuts to whole pixels, begins at 43 (and ends at row 366, not 367).
        ("garg", (375, 1242), (153, 371), (44, 1197)),
        ("garg", (370, 1224), (151, 366), (43, 1180)),
        ("eigen", (375, 1242), (124, 342), (44, 1197)),
        ("none", (5, 7), (0, 5), (0, 7)),
    ],
)
def test_crops_have_the_published_borders(crop, size, rows, columns):
    assert crop_slices(crop, size) == (slice(*rows), slice(*columns))


def test_what_lies_outside_of_the_crop_does_not_matter():
    # A height of 10 leaves rows 4 to 8, a width of 30 columns 1 to 27: by the shares 0.408 to 0.992, 0.036 to 0.964.
    truth, predicted = np.full((2, 10, 30), 2.0), np.full((2, 10, 30), np.nan)
    predicted[:, 4:9, 1:28] = 4.0
    truth[1, 4:9, 1:28] = 0.0
    scores = scores_of(predicted, truth, crop="garg")
    assert (scores["abs_rel"], scores["images"], scores["images_without_depth"]) == (1.0, 1, 1)
    assert scores["crop"] == "garg" and scores_of(truth[0], truth[0])["crop"] == "none"
    scores = scores_of(predicted[0], truth[0], crop="garg", alignment="median")
    assert scores["abs_rel"] == 0
    with pytest.raises(ValueError, match="in the garg crop"):
        scores_of(predicted[1], truth[1], crop="garg")


def test_half_precision_predictions_are_scored():
    truth = torch.full((2, 2), 3.0)
    assert scores_of(truth.bfloat16().requires_grad_(), truth)["abs_rel"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alignment": "scale"}, "alignment='scale' is unknown"),
        ({"alignment": "fixed"}, "factor=None is not allowed"),
        ({"factor": 2.0}, "factor=2.0 is not allowed"),
        ({"alignment": "fixed", "factor": -1.0}, "factor=-1.0 is not allowed"),
        ({"min_depth": 0}, "min_depth=0"),
        ({"max_depth": 1e-4}, "max_depth=0.0001"),
        ({"crop": "center"}, "crop='center' is unknown"),
        ({"inverse": True}, "set alignment='scale_shift_inverse'"),
    ],
)
def test_impossible_protocols_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DepthErrors(**options)


def test_bad_predictions_are_errors_and_not_nan():
    truth = np.full((2, 2), 3.0)
    with pytest.raises(ValueError, match="not finite"):
        scores_of(np.full((2, 2), np.nan), truth)
    with pytest.raises(ValueError, match="median of a predicted depth is 0"):
        scores_of(np.zeros((2, 2)), truth, alignment="median")
    with pytest.raises(ValueError, match="is 0 or below"):
        scores_of(np.zeros((2, 2)), truth, alignment="scale_shift_inverse")
    with pytest.raises(ValueError, match=r"shape \(3, 3\), the true depth \(2, 2\)"):
        scores_of(np.ones((3, 3)), truth)
    with pytest.raises(ValueError, match="No image was evaluated: none of 1 images"):
        scores_of(truth, np.zeros((2, 2)))


@pytest.mark.parametrize("seed", range(3))
def test_scale_and_shift_in_depth_are_those_of_least_squares(seed):
    predicted, truth = random_pair(seed)
    known = (truth > 1e-3) & (truth < 80)
    design = np.stack([predicted[known], np.ones(known.sum())], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, truth[known], rcond=None)
    expected = by_loops(scale * predicted + shift, truth)
    for a, b in ((1, 0), (0.02, 3), (40, -500)):  # negative numbers and zero are depths like any other
        scores = scores_of(a * predicted + b, truth, alignment="scale_shift", relative=True)
        assert {name: scores[name] for name in NAMES} == pytest.approx(expected, rel=1e-9)
    assert scores["alignment"] == "scale_shift"


def test_relative_depth_has_one_protocol():
    for alignment in ("none", "median", "scale_shift_inverse"):
        with pytest.raises(ValueError, match=f"Relative depth has no scale, so alignment='{alignment}'"):
            DepthErrors(alignment=alignment, relative=True)
    with pytest.raises(ValueError, match="Relative inverse depth has no scale, so alignment='scale_shift'"):
        DepthErrors(alignment="scale_shift", inverse=True)
