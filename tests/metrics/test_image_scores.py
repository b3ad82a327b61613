"""Scores of whole images against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from depthseg.metrics import CategoryScores, InpaintingErrors


def image(value, height=2, width=4):
    return torch.full((3, height, width), value, dtype=torch.float64)


def test_reconstruction_by_hand():
    # One of eight pixels is a hole: off by 0.5 there, by 0.1 elsewhere.
    holes = torch.zeros(2, 4, dtype=torch.bool)
    holes[1, 2] = True
    predicted = image(0.4) + 0.1
    predicted[:, 1, 2] = 0.9
    errors = InpaintingErrors()
    errors.update(predicted, image(0.4), holes)
    scores = errors.compute()
    assert scores["l1"] == pytest.approx((0.5 + 7 * 0.1) / 8)
    assert scores["psnr"] == pytest.approx(-10 * math.log10((0.25 + 7 * 0.01) / 8))
    assert scores["hole_l1"] == pytest.approx(0.5)
    assert scores["hole_psnr"] == pytest.approx(-10 * math.log10(0.25))
    assert (scores["images"], scores["images_with_holes"]) == (1, 1)


def test_a_perfect_image_has_a_finite_psnr():
    errors = InpaintingErrors()
    errors.update(image(0.3), image(0.3), torch.zeros(2, 4, dtype=torch.bool))
    scores = errors.compute()
    assert (scores["l1"], scores["psnr"]) == (0.0, 100.0)
    assert (scores["hole_l1"], scores["hole_psnr"], scores["images_with_holes"]) == (None, None, 0)


def test_images_weigh_the_same_and_states_add_up():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.rand(4, 3, 6, 5, generator=generator) for _ in range(2))
    holes = torch.rand(4, 6, 5, generator=generator) > 0.7
    holes[2] = False
    batch, first, second = (InpaintingErrors() for _ in range(3))
    batch.update(predicted, truth, holes)
    first.update(predicted[0], truth[0], holes[0])
    second.update(predicted[1:], truth[1:], holes[1:])
    first.state += second.state
    assert first.compute() == pytest.approx(batch.compute())
    masked = [(predicted[i] - truth[i])[:, holes[i]].abs().mean().item() for i in (0, 1, 3)]
    assert batch.compute()["hole_l1"] == pytest.approx(sum(masked) / 3)
    assert batch.compute()["l1"] == pytest.approx((predicted - truth).abs().mean().item(), rel=1e-6)
    squares = [(predicted[i] - truth[i]).square().mean().item() for i in range(4)]
    assert batch.compute()["psnr"] == pytest.approx(sum(-10 * math.log10(value) for value in squares) / 4, rel=1e-6)


def test_wrong_images_are_named():
    holes = torch.zeros(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"the mask \(4, 2\)"):
        InpaintingErrors().update(image(0.0), image(0.0), holes.T)
    with pytest.raises(ValueError, match=r"the true image \(3, 2, 5\)"):
        InpaintingErrors().update(image(0.0), image(0.0, width=5), holes)
    with pytest.raises(ValueError, match="not finite"):
        InpaintingErrors().update(image(math.nan), image(0.0), holes)
    with pytest.raises(ValueError, match="No image was evaluated"):
        InpaintingErrors().compute()


def test_categories_by_hand():
    # Class 0: 3 of 4 found; class 1: none of 1; class 2: 1 of 1; class 3 does not occur, though it is predicted.
    scores = CategoryScores(4)
    scores.update(torch.tensor([0, 0, 0, 3, 2, 2, 1]), torch.tensor([0, 0, 0, 0, 1, 2, -1]))
    assert scores.compute() == {
        "accuracy": pytest.approx(4 / 6),
        "mean_class_accuracy": pytest.approx((0.75 + 0 + 1) / 3),
        "images": 6,
    }


def test_category_states_add_up():
    first, second, whole = (CategoryScores(300) for _ in range(3))
    predicted, truth = torch.tensor([255, 1, 299]), torch.tensor([255, 0, 299])
    whole.update(predicted, truth)
    first.update(predicted[0], truth[0])
    second.update(predicted[1:], truth[1:])
    first.state = first.state + second.state
    assert first.compute() == whole.compute() and first.compute()["accuracy"] == pytest.approx(2 / 3)


def test_wrong_categories_are_named():
    with pytest.raises(ValueError, match="outside the label space: 3"):
        CategoryScores(3).update(torch.tensor([3]), torch.tensor([1]))
    with pytest.raises(ValueError, match="No image with a known class"):
        CategoryScores(3).compute()
