"""Code lengths against entropies, and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from depthseg.metrics.code_length import code_length


def random_features(images, channels=6, size=(12, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(channels, *size, generator=generator) for _ in range(images)]


def linear_labels(features, classes=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(classes, len(features[0]), generator=generator)
    return [torch.einsum("kc,chw->khw", weights, maps).argmax(0) for maps in features]


def test_independent_labels_cost_their_entropy():
    shares = np.array([0.7, 0.2, 0.1])
    rng = np.random.default_rng(0)
    features = random_features(31)
    labels = [torch.from_numpy(rng.choice(3, (12, 16), p=shares)) for _ in features]
    cost = code_length(features, labels, 3)
    entropy = -(shares * np.log2(shares)).sum()
    assert [portion.images for portion in cost.portions] == [1, 2, 4, 8, 16]
    assert cost.uniform_bits_per_pixel == math.log2(3) == cost.portions[0].bits_per_pixel
    assert cost.portions[-1].bits_per_pixel == pytest.approx(entropy, rel=0.03)
    assert entropy < cost.bits_per_pixel < cost.uniform_bits_per_pixel


def test_linear_labels_cost_little_more_than_the_first_portion():
    features = random_features(31, size=(24, 32))
    cost = code_length(features, linear_labels(features), 4)
    costs = [portion.bits_per_pixel for portion in cost.portions]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.15
    first = 2.0 / 31
    assert first < cost.bits_per_pixel < first + 0.25
    hidden = code_length(random_features(31, size=(24, 32), seed=9), linear_labels(features), 4)
    assert hidden.bits_per_pixel > 1.8


def test_total_is_a_mean_over_pixels():
    features = random_features(7)
    labels = linear_labels(features)
    for index, ids in enumerate(labels):
        ids[: index + 2] = 255
    cost = code_length(features, labels, 4)
    assert [portion.images for portion in cost.portions] == [1, 2, 4]
    pixels = [portion.pixels for portion in cost.portions]
    assert sum(pixels) == sum((ids != 255).sum() for ids in labels)
    weighted = np.average([portion.bits_per_pixel for portion in cost.portions], weights=pixels)
    assert cost.bits_per_pixel == pytest.approx(weighted)


def best_biases(counts):
    """Softmax biases with the largest posterior under a standard normal prior, by Newton's method."""
    counts = np.asarray(counts, dtype=float)
    biases = np.zeros(len(counts))
    for _ in range(100):
        shares = np.exp(biases) / np.exp(biases).sum()
        gradient = counts.sum() * shares - counts + biases
        curvature = counts.sum() * (np.diag(shares) - np.outer(shares, shares)) + np.eye(len(counts))
        biases -= np.linalg.solve(curvature, gradient)
    return np.exp(biases) / np.exp(biases).sum()


def test_features_that_say_nothing_by_hand():
    # Constant features: the second image is paid by the class shares of the first, with a class that was never seen.
    labels = [torch.tensor([[0] * 30 + [1] * 10]), torch.tensor([[0] * 25 + [2] * 15])]
    cost = code_length([torch.full((3, 1, 40), 5.0)] * 2, labels, 3)
    possible = []
    for known, paid in ((0, 1), (1, 0)):
        shares = 0.99 * best_biases(torch.bincount(labels[known].flatten(), minlength=3)) + 0.01 / 3
        bits = -(torch.bincount(labels[paid].flatten(), minlength=3).numpy() * np.log2(shares)).sum()
        possible.append((40 * math.log2(3) + bits) / 80)
    assert min(abs(cost.bits_per_pixel - value) for value in possible) < 1e-6


def test_images_without_labels_are_left_out():
    features = random_features(6)
    labels = linear_labels(features)
    labels[2] = torch.full_like(labels[2], 255)
    cost = code_length(features, labels, 4)
    assert sum(portion.images for portion in cost.portions) == 5


def test_order_and_scale_of_channels_do_not_matter():
    features = random_features(15)
    labels = linear_labels(features)
    whole = code_length(features, labels, 4)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    scale = torch.tensor([1e-3, 0.1, -1.0, 7.0, 50.0, 1e3])[:, None, None]
    changed = [maps[order] * scale + 3 * scale for maps in features]
    assert code_length(changed, labels, 4).bits_per_pixel == pytest.approx(whole.bits_per_pixel, abs=1e-4)


def test_the_same_seed_gives_the_same_number():
    features = random_features(8)
    labels = linear_labels(features)
    first, second, other = (code_length(features, labels, 4, seed) for seed in (0, 0, 1))
    assert first == second != other


def test_no_pixel_costs_more_than_its_share_of_the_uniform_code():
    # Class and feature change sides after the first image, whichever it is.
    features = [torch.ones(1, 20, 20) * side for side in (-1, 1)]
    features = [maps * torch.linspace(0.5, 1, 20) for maps in features]
    labels = [torch.zeros(20, 20, dtype=torch.int64), torch.ones(20, 20, dtype=torch.int64)]
    cost = code_length(features, labels, 8)
    assert 3 < cost.portions[1].bits_per_pixel <= math.log2(800)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda features, labels: features.pop(), "2 feature maps for 3 label maps"),
        (lambda features, labels: labels.__setitem__(0, labels[0][:5]), r"its labels \(5, 16\)"),
        (lambda features, labels: features[1].fill_(math.nan), "not finite"),
        (lambda features, labels: labels[2].fill_(4), r"ids \[4\]; allowed are 0 to 3"),
        (lambda features, labels: [ids.fill_(255) for ids in labels], "No pixel is labelled"),
    ],
)
def test_what_does_not_fit_is_said(change, part):
    features = random_features(3)
    labels = linear_labels(features)
    change(features, labels)
    with pytest.raises(ValueError, match=part):
        code_length(features, labels, 4)
