import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from depthseg.metrics import CalibrationError


def test_by_hand():
    # Two bins: confidences 0.2, 0.4 (one of two right), and 0.9 three times (all right).
    meter = CalibrationError(num_bins=2)
    meter.update(
        torch.tensor([0, 1, 2, 2, 2, 0]),
        torch.tensor([0, 0, 2, 2, 2, 255]),
        torch.tensor([0.2, 0.4, 0.9, 0.9, 0.9, 0.1]),
    )
    scores = meter.compute()
    assert scores["calibration_error"] == pytest.approx((2 * abs(0.5 - 0.3) + 3 * abs(1 - 0.9)) / 5)
    assert scores["mean_confidence"] == pytest.approx((0.2 + 0.4 + 2.7) / 5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 20))
def test_it_is_the_definition(seed, num_bins):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 255], (9, 11))
    prediction, confidence = rng.integers(0, 3, (9, 11)), rng.choice([rng.random(), 0.0, 0.2, 0.5, 1.0], (9, 11))
    meter = CalibrationError(num_bins=num_bins)
    for row in range(9):
        meter.update(prediction[row], labels[row], confidence[row])
    error = total = 0
    for number in range(num_bins):
        inside = [
            (p == t, c)
            for p, t, c in zip(prediction.flat, labels.flat, confidence.flat, strict=True)
            if t != 255 and (number / num_bins < c <= (number + 1) / num_bins or (number == 0 and c == 0))
        ]
        if inside:
            error += abs(np.mean([right for right, _ in inside]) - np.mean([c for _, c in inside])) * len(inside)
            total += len(inside)
    assert meter.compute()["calibration_error"] == pytest.approx(error / total, abs=1e-12)


def test_states_of_images_add_up():
    meter, rng = CalibrationError(), np.random.default_rng(0)
    images = [(rng.integers(0, 3, (4, 5)), rng.integers(0, 3, (4, 5)), rng.random((4, 5))) for _ in range(3)]
    total = sum(meter.state_of(*image) for image in images)
    for image in images:
        meter.update(*image)
    torch.testing.assert_close(total, meter.state)


@pytest.mark.parametrize(
    ("confidence", "message"),
    [([0.5, 1.5], "0.5 to 1.5; .*softmax"), ([0.5, float("nan")], "softmax"), ([0.5], "shapes")],
)
def test_what_is_no_probability_is_refused(confidence, message):
    with pytest.raises(ValueError, match=message):
        CalibrationError().update([0, 1], [0, 1], confidence)


def test_nothing_evaluated_is_an_error():
    with pytest.raises(ValueError, match="No labelled pixel"):
        CalibrationError().compute()
