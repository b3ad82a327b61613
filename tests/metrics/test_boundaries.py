"""Boundaries against their definitions, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthseg.metrics.boundaries import (
    BoundaryAlignment,
    BoundaryIou,
    area_under_roc,
    edge_kinds,
    near_boundary,
)


def window(shape, place, distance):
    """Places of the image at most `distance` rows and columns away."""
    (rows, columns), (row, column) = shape, place
    for i in range(max(0, row - distance), min(rows, row + distance + 1)):
        for j in range(max(0, column - distance), min(columns, column + distance + 1)):
            yield i, j


def slow_band(ids, distance):
    """Pixels of a class with a pixel of another class in their window."""
    return {
        place
        for place in np.ndindex(ids.shape)
        if ids[place] != 255
        and any(ids[other] not in (255, ids[place]) for other in window(ids.shape, place, distance))
    }


def slow_kinds(labels, depth, distance, ratio):
    """Kind of each pixel: by a loop over windows and over pairs of neighbours."""
    edges = {}
    for row, column in np.ndindex(labels.shape):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] == labels.shape[0] or other[1] == labels.shape[1]:
                continue
            pair = ((row, column), other)
            classes, metres = [int(labels[place]) for place in pair], [float(depth[place]) for place in pair]
            if 255 in classes or classes[0] == classes[1] or not min(metres) > 0 or np.isnan(metres).any():
                continue
            jump = metres[0] != metres[1] and abs(np.log(metres[0]) - np.log(metres[1])) > np.log(ratio)
            kind = "depth" if jump else "texture"
            for place in pair:
                edges.setdefault(place, set()).add(kind)
    kinds = np.full(labels.shape, -1)
    for place in np.ndindex(labels.shape):
        near = set().union(*(edges.get(other, set()) for other in window(labels.shape, place, distance)))
        kinds[place] = 0 if "depth" in near else 1 if "texture" in near else -1
    return kinds


def scene(seed, size=(18, 25)):
    """Blocks of classes with ignored pixels, and depths that are partly unknown, partly one per class."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 3, (5, 6)).repeat(5, 0).repeat(5, 1)[: size[0], : size[1]]
    labels = np.where(rng.random(size) < 0.04, 255, blocks).astype(np.uint8)
    prediction = np.roll(blocks, rng.integers(-2, 3), axis=rng.integers(0, 2)).astype(np.uint8)
    depth = np.array([10.0, 11.0, 30.0])[blocks] * rng.uniform(0.97, 1.03, size)
    depth[rng.random(size) < 0.05] = 0
    depth[:6, 4] = np.nan
    depth[-1] = np.inf
    return prediction, labels, depth.astype(np.float32)


@pytest.mark.parametrize("distance", [1, 3])
def test_bands_and_kinds_equal_loops(distance):
    for seed in range(3):
        _, labels, depth = scene(seed)
        expected = slow_band(labels, distance)
        assert {tuple(place) for place in np.argwhere(near_boundary(labels, distance)).tolist()} == expected
        kinds = edge_kinds(labels, depth, distance, depth_ratio=1.25)
        assert set(np.unique(kinds)) == {-1, 0, 1} or distance > 1
        assert np.array_equal(kinds, slow_kinds(labels, depth, distance, 1.25))


def slow_boundary_iou(scenes, classes, share, ratio):
    counts = {kind: np.zeros((classes, 2)) for kind in (None, 0, 1)}
    for prediction, labels, depth in scenes:
        distance = max(1, round(share * np.hypot(*labels.shape)))
        seen = np.where(labels == 255, 255, prediction)
        true_band, predicted_band = slow_band(labels, distance), slow_band(seen, distance)
        kinds = slow_kinds(labels, depth, distance, ratio)
        for index in range(classes):
            true_mask = {place for place in true_band if labels[place] == index}
            predicted_mask = {place for place in predicted_band if seen[place] == index}
            for kind, count in counts.items():
                chosen = {place for place in np.ndindex(labels.shape) if kind is None or kinds[place] == kind}
                count[index] += len(true_mask & predicted_mask & chosen), len((true_mask | predicted_mask) & chosen)
    return {
        name: np.mean([hits / union for hits, union in counts[kind] if union])
        for name, kind in {"all": None, "depth": 0, "texture": 1}.items()
    }


@pytest.mark.parametrize("share", [0.02, 0.07])
def test_boundary_iou_equals_sets_of_pixels(share):
    scenes = [scene(seed) for seed in range(4)]
    meter, first, second = (BoundaryIou(4, share=share) for _ in range(3))
    for number, one in enumerate(scenes):
        meter.update(*one)
        (first if number < 2 else second).update(*one)
    expected = slow_boundary_iou(scenes, 4, share, 1.25)
    assert len({round(value, 3) for value in expected.values()}) == 3
    assert meter.compute() == pytest.approx(expected, abs=1e-12)
    first.state += second.state
    assert torch.equal(first.state, meter.state)


def test_boundary_iou_by_hand():
    # Two halves; the prediction puts the boundary one column to the right. The bands of 1 pixel are columns 4 | 5 in
    # truth and 5 | 6 in the prediction. No column is in both bands with the same class.
    labels = np.zeros((10, 10), dtype=np.uint8)
    labels[:, 5:] = 1
    prediction = np.roll(labels, 1, axis=1)
    prediction[:, 0] = 0
    depth = np.where(labels == 1, 20.0, 10.0)
    one, wide, perfect = BoundaryIou(2, share=0.05), BoundaryIou(2, share=0.14), BoundaryIou(2)
    one.update(prediction, labels, depth)
    assert one.compute() == {"all": 0.0, "depth": 0.0, "texture": None}
    # With 2 pixels (0.14 * 14.1), class 0: 3-4 and 4-5, class 1: 5-6 and 6-7; one column of three each.
    wide.update(prediction, labels, depth)
    assert wide.compute()["all"] == pytest.approx(1 / 3)
    perfect.update(labels, labels, np.full((10, 10), 7.0))
    assert perfect.compute() == {"all": 1.0, "depth": None, "texture": 1.0}


def test_the_border_of_a_image_is_no_boundary():
    meter = BoundaryIou(2)
    meter.update(np.ones((6, 6), dtype=int), np.ones((6, 6), dtype=int))
    assert meter.compute() == {"all": None, "depth": None, "texture": None}


def test_area_under_roc_counts_pairs():
    rng = np.random.default_rng(0)
    for levels in (3, 1000):
        scores, positive = rng.integers(0, levels, 120).astype(float), rng.random(120) < 0.3
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
        assert area_under_roc(scores, positive) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert area_under_roc(scores, positive) + area_under_roc(-scores, positive) == pytest.approx(1)
    assert area_under_roc(np.zeros(9), np.arange(9) < 4) == 0.5
    assert area_under_roc(scores, np.ones(120, dtype=bool)) is None


def test_alignment_is_a_mean_over_images_without_ignored_pixels():
    labels = np.zeros((9, 12), dtype=np.uint8)
    labels[:, 6:] = 1
    labels[:2] = 255
    near = np.zeros(labels.shape)
    near[:, 4:8] = 1
    misled = near.copy()
    misled[:2] = 5
    meter = BoundaryAlignment(distance=2)
    meter.update(misled, labels)
    assert meter.compute() == 1.0
    meter.update(np.full(labels.shape, 3.0), labels)
    assert meter.compute() == 0.75
    meter.update(near, np.zeros_like(labels))  # has no boundary
    assert meter.compute() == 0.75
    assert BoundaryAlignment().compute() is None


def test_what_does_not_fit_is_said():
    ids = np.zeros((4, 5), dtype=np.uint8)
    with pytest.raises(ValueError, match="distance of 0 pixels"):
        near_boundary(ids, 0)
    with pytest.raises(ValueError, match=r"shape \(5, 4\)"):
        BoundaryAlignment().update(np.zeros((5, 4)), ids)
    with pytest.raises(ValueError, match="finite"):
        BoundaryAlignment().update(np.full((4, 5), np.nan), ids)
    with pytest.raises(ValueError, match="outside the label space: 3"):
        BoundaryIou(3).update(ids + 3, ids)
    with pytest.raises(ValueError, match="depth_ratio=1.0 above 1"):
        BoundaryIou(3, depth_ratio=1.0)
