"""Flow errors against numbers worked out by hand and a loop over pixels."""

from __future__ import annotations

import math

import pytest
import torch

from depthseg.metrics import FlowErrors


def scores_of(*pairs):
    errors = FlowErrors()
    for pair in pairs:
        errors.update(*pair)
    return errors.compute()


def constant(x, y, height=2, width=3):
    return torch.tensor([x, y], dtype=torch.float64)[:, None, None].expand(2, height, width).clone()


def test_by_hand():
    scores = scores_of((constant(3.0, 4.0), constant(0.0, 0.0)))
    assert scores == {"end_point_error": 5.0, "outliers": 1.0, "images": 1, "images_without_flow": 0}


def test_an_outlier_is_off_by_both():
    # True flow 100 pixels: 4 are below 5 %. True flow 10: 2 are 20 %, but below 3 pixels. 6 of 100 are both.
    cases = [(104.0, 100.0, 0.0), (12.0, 10.0, 0.0), (106.0, 100.0, 1.0), (3.0, 0.0, 0.0), (3.1, 0.0, 1.0)]
    for predicted, truth, expected in cases:
        assert scores_of((constant(predicted, 0.0), constant(truth, 0.0)))["outliers"] == expected


def test_unknown_pixels_do_not_matter():
    truth, predicted = constant(1.0, 1.0), constant(1.0, 2.0)
    truth[0, 0, 0] = truth[1, 0, 1] = math.nan
    truth[1, 1, 1] = math.inf
    predicted[:, 0, 0] = math.nan
    predicted[:, 0, 1] = 50.0
    assert scores_of((predicted, truth))["end_point_error"] == 1.0


def test_images_weigh_the_same_and_those_without_flow_nothing():
    small, large = (
        (constant(1.0, 0.0, 1, 1), constant(0.0, 0.0, 1, 1)),
        (constant(5.0, 0.0, 8, 9), constant(0, 0, 8, 9)),
    )
    unknown = (constant(1.0, 0.0), constant(math.nan, 0.0))
    scores = scores_of(small, large, unknown)
    assert scores == {"end_point_error": 3.0, "outliers": 0.5, "images": 2, "images_without_flow": 1}


def test_batches_and_states_add_up_to_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    truth, predicted = (torch.randn(3, 2, 4, 5, generator=generator) * 20 for _ in range(2))
    means, shares = [], []
    for image in range(3):
        pixels = [(image, slice(None), row, column) for row in range(4) for column in range(5)]
        errors = [math.hypot(*(predicted[place] - truth[place]).tolist()) for place in pixels]
        lengths = [math.hypot(*truth[place].tolist()) for place in pixels]
        means.append(sum(errors) / 20)
        shares.append(sum(e > 3 and e > 0.05 * n for e, n in zip(errors, lengths, strict=True)) / 20)
    batch, first, second = FlowErrors(), FlowErrors(), FlowErrors()
    batch.update(predicted.requires_grad_(), truth)
    first.update(predicted[0], truth[0])
    second.update(predicted[1:], truth[1:])
    first.state += second.state
    for meter in (batch, first):
        scores = meter.compute()
        assert scores["end_point_error"] == pytest.approx(sum(means) / 3)
        assert scores["outliers"] == pytest.approx(sum(shares) / 3)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"must be \(2, H, W\)"):
        FlowErrors().update(torch.zeros(4, 5, 2), torch.zeros(4, 5, 2))
    with pytest.raises(ValueError, match=r"shape \(2, 4, 5\), the true flow \(2, 5, 4\)"):
        FlowErrors().update(torch.zeros(2, 4, 5), torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match="not finite"):
        FlowErrors().update(constant(math.nan, 0.0), constant(0.0, 0.0))
    with pytest.raises(ValueError, match="none of 1 images has a true flow"):
        scores_of((constant(0.0, 0.0), constant(math.nan, 0.0)))
