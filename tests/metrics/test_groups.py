"""Scores of groups of pixels against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthseg.metrics.groups import IouByDepth, RecallBySize, component_sizes


def flood_fill(ids):
    """Pieces of equal ids, found pixel by pixel."""
    found = np.full(ids.shape, -1)
    count = 0
    for seed in np.ndindex(ids.shape):
        if found[seed] >= 0:
            continue
        pending = [seed]
        while pending:
            row, column = pending.pop()
            if found[row, column] >= 0:
                continue
            found[row, column] = count
            for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                inside = 0 <= place[0] < ids.shape[0] and 0 <= place[1] < ids.shape[1]
                if inside and ids[place] == ids[seed]:
                    pending.append(place)
        count += 1
    return found


def spiral(side):
    """One path of width 1 in which a label must travel far."""
    ids = np.zeros((side, side), dtype=np.uint8)
    top, left, bottom, right = 0, 0, side - 1, side - 1
    while top <= bottom and left <= right:
        ids[top, max(left - 2, 0) : right + 1] = 1
        ids[top : bottom + 1, right] = 1
        ids[bottom, left : right + 1] = 1
        ids[min(top + 2, bottom) : bottom + 1, left] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    return ids


def label_maps():
    rng = np.random.default_rng(0)
    yield from (rng.integers(0, classes, size).astype(np.uint8) for classes in (2, 3) for size in ((17, 23), (40, 9)))
    yield rng.integers(0, 2, (1, 30)).astype(np.uint8)
    yield rng.integers(0, 2, (30, 1)).astype(np.uint8)
    yield np.zeros((5, 7), dtype=np.uint8)
    yield np.indices((9, 9)).sum(0).astype(np.uint8) % 2
    yield spiral(31)
    yield 1 - spiral(30)


def test_sizes_of_components_equal_those_of_a_flood_fill():
    for ids in label_maps():
        components = flood_fill(ids)
        expected = [[(components == here).sum() for here in row] for row in components]
        assert np.array_equal(component_sizes(ids), expected)


def iou_of(pairs, classes):
    """Mean IoU by its definition, over (truth, prediction) of single pixels."""
    scores = []
    for index in range(classes):
        union = sum(index in pair for pair in pairs)
        if union:
            scores.append(sum(pair == (index, index) for pair in pairs) / union)
    return sum(scores) / len(scores)


def test_iou_by_depth_equals_a_loop():
    rng = np.random.default_rng(1)
    meter, pairs = IouByDepth(4), {name: [] for name in ("0-10 m", "10-20 m", "20-40 m", "40-80 m", "over 80 m")}
    for size in ((12, 15), (8, 21)):
        depth = rng.choice([0, np.nan, 3, 9.999, 10, 19.5, 20, 39, 80, 500], size).astype(np.float32)
        labels = rng.choice([0, 1, 2, 255], size).astype(np.uint8)
        prediction = rng.integers(0, 3, size).astype(np.uint8)
        meter.update(prediction, labels, depth)
        for truth, predicted, metres in zip(labels.flat, prediction.flat, depth.flat, strict=True):
            if truth != 255 and metres > 0:
                bounds = [(0, "0-10 m"), (10, "10-20 m"), (20, "20-40 m"), (40, "40-80 m"), (80, "over 80 m")]
                name = [name for low, name in bounds if metres >= low][-1]
                pairs[name].append((int(truth), int(predicted)))
    assert not pairs["40-80 m"]
    expected = {name: iou_of(found, 4) if found else None for name, found in pairs.items()}
    assert meter.compute() == pytest.approx(expected, abs=1e-12)


def test_recall_by_size_by_hand():
    # 1 000 pixels. Class 1: a piece of 12 pixels (1.2 %) with 9 found, one of 5 (0.5 %) with 1 found, another of 5
    # with 3 found. Class 2: one of 9 pixels (0.9 %), all found. Class 0: the rest, in one piece.
    labels = np.zeros((20, 50), dtype=np.uint8)
    labels[1:4, 1:5] = 1
    labels[4, 5:10] = 1  # touches the piece above at a corner only
    labels[10, 20:25] = 1
    labels[15:18, 30:33] = 2
    labels[19, 0] = 255
    prediction = labels.copy()
    prediction[19, 0] = 2
    prediction[1, 1:4] = 2
    prediction[4, 5:9] = 0
    prediction[10, 20:22] = 2
    meter = RecallBySize(3)
    meter.update(prediction, labels)
    assert meter.compute() == pytest.approx(
        {"0-0.1 %": None, "0.1-1 %": (4 / 10 + 9 / 9) / 2, "1-10 %": 9 / 12, "over 10 %": 1.0}
    )


def test_sizes_are_shares_of_the_whole_image_and_ignored_pixels_part_objects():
    # 400 pixels, 360 of them ignored. Of 40 pixels in two pieces each is 5 % of the image, and not 50 % or 10 %.
    labels = np.full((20, 20), 255, dtype=np.uint8)
    labels[0], labels[2] = 0, 0
    meter = RecallBySize(2)
    meter.update(np.zeros_like(labels), labels)
    assert meter.compute() == {"0-0.1 %": None, "0.1-1 %": None, "1-10 %": 1.0, "over 10 %": None}


def test_states_add_up():
    rng = np.random.default_rng(2)
    first, second, both = (RecallBySize(3) for _ in range(3))
    for meter in (first, second):
        prediction, labels = rng.integers(0, 3, (2, 20, 30))
        meter.update(prediction, labels)
        both.update(prediction, labels)
    first.state += second.state
    assert torch.equal(first.state, both.state) and first.compute() == both.compute()


def test_what_does_not_fit_is_said():
    ids, depth = np.zeros((4, 5), dtype=np.uint8), np.ones((4, 5), dtype=np.float32)
    with pytest.raises(ValueError, match=r"the groups \(5, 4\)"):
        IouByDepth(2).update(ids, ids, depth.T)
    with pytest.raises(ValueError, match="outside the label space: 2"):
        RecallBySize(2).update(ids, ids + 2)
    with pytest.raises(ValueError, match="in increasing order"):
        IouByDepth(2, edges=(0, 10, 10))
