"""Blocks of frames and intervals over them: by hand, by brute force, and against what was published."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from depthseg.metrics import segmentation_scores
from depthseg.metrics.blocks import (
    FEWEST_BLOCKS,
    BlockCounts,
    blocks_of,
    draw_blocks,
    interval_of_iou,
    interval_of_mean,
    mean_iou,
)

ROOT = Path(__file__).parents[2]
CARDS = sorted(path.parent for path in ROOT.glob("model_cards/*/evaluation/scores.json"))


def test_blocks_follow_the_video():
    names = ["b_2", "a_10", "a_11", "a_12", "b_1", "alone"]
    assert blocks_of(names, 2) == ["b/0", "a/0", "a/0", "a/1", "b/0", "alone/0"]
    assert blocks_of(["c/000001", "d_1/000001", "c/000002", "c/000003", "0001", "0002"], 2) == [
        *("c/frames/0", "d_1/frames/0", "c/frames/0", "c/frames/1", "frames/0", "frames/0")
    ]


@pytest.mark.parametrize("seed", range(5))
def test_mean_iou_is_that_of_the_scores(seed):
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, 50, (2, 3, 5, 5))
    confusion[0, :, 2], confusion[0, :, :, 2] = 0, 0  # class 2 is absent
    confusion[1, :, 3] = 0  # class 3 is predicted, never true
    scores = mean_iou(confusion)
    assert scores.shape == (2, 3)
    for place in np.ndindex(2, 3):
        expected = segmentation_scores(torch.from_numpy(confusion[place]), list("abcde"))["mean_iou"]
        assert scores[place] == pytest.approx(expected, abs=1e-12)


def test_an_empty_matrix_has_no_mean_iou():
    with pytest.raises(ValueError, match="No labelled pixel"):
        mean_iou(np.zeros((2, 3, 3), dtype=np.int64))


def test_matrices_are_square():
    with pytest.raises(ValueError, match="not square"):
        mean_iou(np.ones((4, 3)))


def matrix(right, wrong):
    """Two classes; class 0 has `right` pixels found and `wrong` lost to class 1, which has 10 pixels, all found."""
    return [[right, wrong], [0, 10]]


def iou(right, wrong, images):
    return (right / (right + wrong) + 10 * images / (10 * images + wrong)) / 2


def test_blocks_are_drawn_whole():
    # images 0 and 2 are block a: a a, a b (twice as likely) and b b are all that can be drawn
    counts = BlockCounts(np.array([matrix(8, 2), matrix(5, 5), matrix(6, 4)]), np.array(["a", "b", "a"]))
    both_a, mixed, both_b = iou(28, 12, images=4), iou(19, 11, images=3), iou(10, 10, images=2)
    draws = counts.scores(draw_blocks(2, 4000, np.random.default_rng(1)))
    shares = [np.mean(np.isclose(draws, value)) for value in (both_a, mixed, both_b)]
    assert sum(shares) == 1
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def scenes(images=24):
    """Confusion matrices of images with 100 pixels, two in each block; the last two have no labelled pixel."""
    rng = np.random.default_rng(3)
    wrong = rng.integers(5, 40, images)
    confusion = np.stack([np.array(matrix(90 - lost, lost)) for lost in wrong])
    confusion[-2:] = 0
    return confusion, np.arange(images) // 2


def test_the_interval_of_mean_iou_is_that_of_drawn_images():
    confusion, blocks = scenes()
    rng, drawn = np.random.default_rng(7), []
    for _ in range(20000):
        chosen = rng.integers(0, 11, 11)  # the twelfth block has no labels
        drawn.append(mean_iou(confusion.reshape(12, 2, 2, 2)[chosen].sum((0, 1))))
    found = interval_of_iou(confusion, blocks, 20000)
    assert found == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=2e-3)


def test_the_interval_of_a_mean_counts_images_and_not_blocks():
    rng = np.random.default_rng(0)
    values, blocks = rng.random(40), np.sort(rng.integers(0, 15, 40))
    values[5] = np.nan  # no ground truth
    parts = [values[(blocks == block) & np.isfinite(values)] for block in np.unique(blocks[np.isfinite(values)])]
    drawn = [
        np.concatenate([parts[place] for place in rng.integers(0, len(parts), len(parts))]).mean()
        for _ in range(20000)
    ]
    found = interval_of_mean(values, blocks, 20000)
    assert found == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=5e-3)


def test_few_blocks_have_no_interval():
    confusion, _ = scenes()
    few = np.arange(24) % (FEWEST_BLOCKS - 1)
    assert interval_of_iou(confusion, few, 10) is None and interval_of_mean(np.ones(24), few, 10) is None
    assert interval_of_mean(np.ones(24), np.arange(24) % FEWEST_BLOCKS, 10) == (1, 1)


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.parent.name)
def test_published_intervals_follow_from_the_published_images(folder):
    record = json.loads((folder / "scores.json").read_text())
    with np.load(folder / "per_image.npz") as arrays:
        blocks = np.array(blocks_of(arrays["names"].tolist(), record["block_length"]))
        found = {
            name: interval_of_mean(arrays[name], blocks, 2000) for name in ("abs_rel", "delta1") if name in arrays
        }
        if "confusion" in arrays:
            found["mean_iou"] = interval_of_iou(arrays["confusion"], blocks, 2000)
    assert {name: list(ends) for name, ends in found.items()} == record["intervals"]


@pytest.mark.parametrize(("study", "length"), [("camvid", 10), ("world", 5)])
def test_recorded_scores_of_trials_follow_from_their_images(study, length):
    trials = sorted((ROOT / "training/studies/results" / study / "trials").glob("*.npz"))
    assert len(trials) > 200
    for path in trials[:: len(trials) // 3]:
        record = json.loads(path.with_suffix(".json").read_text())
        with np.load(path) as arrays:
            scores = segmentation_scores(torch.from_numpy(arrays["confusion"].sum(0)), record["classes"])
            assert blocks_of(arrays["names"].tolist(), length) == arrays["blocks"].tolist()
        names = ("mean_iou", "pixel_accuracy", "mean_accuracy")
        assert {name: scores[name] for name in names} == {name: record["scores"][name] for name in names}
