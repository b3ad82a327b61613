"""Do the intervals hold what they promise? Simulated studies with known truth.

A pixel of class c is right with probability sigmoid(class + initialisation + block + seeds + seeds x block + frame);
the rest falls on the other classes. Truth is the statistic itself in the limit of many blocks and seeds.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from depthseg.study.comparison import compare, summarise
from depthseg.study.statistics import InitialisationResults

CLASS_LOGITS = np.array([2.0, 1.2, 0.3, -0.5])
PIXELS = np.array([4000.0, 2500.0, 1000.0, 300.0])
CONFUSED_WITH = np.array([[0, 0.6, 0.3, 0.1], [0.5, 0, 0.4, 0.1], [0.4, 0.5, 0, 0.1], [0.5, 0.3, 0.2, 0]])


@dataclass(frozen=True)
class Kind:
    """How many of each there are, and standard deviations of the logits."""

    pretraining: int = 2
    finetuning: int = 3
    blocks: int = 12
    frames: int = 4
    pretraining_sd: float = 0.10
    finetuning_sd: float = 0.15
    block_sd: float = 0.8  # of a block, the same for all initialisations
    init_block_sd: float = 0.5  # of a block, another for every initialisation
    both_sd: float = 0.15  # of seed and block together
    frame_sd: float = 0.02  # frames of one block are nearly equal
    paired: bool = False
    baseline: bool = False  # the second initialisation has no pre-training, six fine-tuning seeds


FEW = Kind()
KINDS = {
    "2 x 3 seeds, 12 blocks": FEW,
    "2 x 3 seeds, 5 blocks": replace(FEW, blocks=5),
    "3 x 6 seeds, 20 blocks": replace(FEW, pretraining=3, finetuning=6, blocks=20),
    "2 x 3 seeds, 12 blocks, paired": replace(FEW, paired=True),
    "3 x 3 seeds, 8 blocks, paired": replace(FEW, pretraining=3, blocks=8, paired=True),
    "2 x 3 seeds against 6 without pre-training": replace(FEW, baseline=True),
    "pre-training seeds matter as much as blocks": replace(FEW, pretraining_sd=0.25),
}


def simulate_images(kind, rng):
    """Pixels per class `(B, 1, K)` in each frame of a block, and how hard the block is `(B, 1, 1)`."""
    pixels = np.rint(PIXELS * rng.gamma(4.0, 0.25, (kind.blocks, 1, 4)))
    return pixels, kind.block_sd * rng.standard_normal((kind.blocks, 1, 1))


def share_right(kind, hard, gain, rng):
    """Share of the pixels of each class that is right, `(P, F, B, frames, K)`."""
    p, f, b, normal = kind.pretraining, kind.finetuning, kind.blocks, rng.standard_normal
    logit = CLASS_LOGITS + gain + hard + kind.init_block_sd * normal((b, 1, 4))
    logit = logit + kind.pretraining_sd * normal((p, 1, 1, 1, 4)) + kind.finetuning_sd * normal((p, f, 1, 1, 4))
    logit = logit + kind.both_sd * normal((p, f, b, 1, 4)) + kind.frame_sd * normal((p, f, b, kind.frames, 4))
    return 1 / (1 + np.exp(-logit))


def simulate_init(kind, images, gain, rng, frames_as_blocks=False):
    pixels, hard = images
    right = share_right(kind, hard, gain, rng)
    wrong = np.floor((pixels * (1 - right))[..., None] * CONFUSED_WITH)
    confusion = wrong + np.eye(4) * (pixels - wrong.sum(-1))[..., None]
    confusion = confusion.reshape(kind.pretraining, kind.finetuning, -1, 4, 4).astype(np.int64)
    frames = np.arange(kind.blocks * kind.frames)
    pretraining = "none" if kind.baseline else "seeds"
    return InitialisationResults(confusion, frames if frames_as_blocks else frames // kind.frames, pretraining)


def simulate_pair(kind, rng, gain=0.0, frames_as_blocks=False):
    images = simulate_images(kind, rng)
    other = replace(kind, pretraining=1, finetuning=6, pretraining_sd=0.0) if kind.baseline else kind
    first = simulate_init(replace(kind, baseline=False), images, gain, rng, frames_as_blocks)
    return first, simulate_init(other, images, 0.0, rng, frames_as_blocks)


def limit(kind, gain=0.0):
    """Mean over seeds, in points, of the mean IoU of all the blocks that could be: 300 seeds and 4000 blocks."""
    many = replace(kind, pretraining=300, finetuning=1, blocks=4000, frames=1)
    rng = np.random.default_rng(77)
    pixels, hard = simulate_images(many, rng)
    right = share_right(many, hard, gain, rng)[:, 0, :, 0]
    pixels = np.broadcast_to(pixels[:, 0], right.shape)
    wrong = np.sum(pixels * (1 - right), axis=1)[..., None] * CONFUSED_WITH
    correct = np.sum(pixels * right, axis=1)
    union = correct + wrong.sum(-1) + wrong.sum(-2)
    return 100 * float(np.mean(correct / union))


def share_covered(kind, repeats, seed, gain=0.3):
    """Share of simulated studies whose interval holds the true difference."""
    rng = np.random.default_rng(seed)
    other = replace(kind, pretraining_sd=0.0) if kind.baseline else kind
    truth = limit(kind, gain) - limit(other)
    hits = 0
    for _ in range(repeats):
        a, b = simulate_pair(kind, rng, gain)
        low, high = compare(a, b, draws=2, paired_seeds=kind.paired).interval
        hits += low <= truth <= high
    return hits / repeats


def share_found(kind, repeats, seed, frames_as_blocks=False):
    """Share of simulated studies that find a difference at 5 % where there is none."""
    rng = np.random.default_rng(seed)
    kind = replace(kind, pretraining_sd=0.0) if kind.baseline else kind
    pairs = (simulate_pair(kind, rng, frames_as_blocks=frames_as_blocks) for _ in range(repeats))
    return np.mean([compare(a, b, draws=2, paired_seeds=kind.paired).p_value < 0.05 for a, b in pairs])


def simulate_setting(kind, rng, gain=0.0, common_sd=0.2):
    """Eight initialisations, the first one better by `gain`; the seeds do something to all initialisations alike."""
    images, normal = simulate_images(kind, rng), rng.standard_normal
    common = common_sd * normal((kind.pretraining, kind.finetuning, 1, 1, 4))
    return [simulate_init(kind, images, common + gain * (place == 0), rng) for place in range(8)]


def share_covered_alike(kind, repeats, seed, gain=0.3, common_sd=0.2):
    rng = np.random.default_rng(seed)
    spread = replace(kind, pretraining_sd=math.hypot(kind.pretraining_sd, common_sd))
    truth = limit(spread, gain) - limit(spread)
    hits = 0
    for _ in range(repeats):
        inits = simulate_setting(kind, rng, gain, common_sd)
        low, high = compare(inits[0], inits[1], draws=2, pooled=inits).interval
        hits += low <= truth <= high
    return hits / repeats


def share_found_alike(kind, repeats, seed):
    rng, found = np.random.default_rng(seed), 0
    for _ in range(repeats):
        inits = simulate_setting(kind, rng)
        found += compare(inits[0], inits[1], draws=2, pooled=inits).p_value < 0.05
    return found / repeats


def binomial_margin(expected, repeats):
    """Three standard errors of a share that is counted in so many repeats."""
    return 3 * math.sqrt(expected * (1 - expected) / repeats)


@pytest.mark.parametrize("name", ["2 x 3 seeds, 12 blocks", "2 x 3 seeds, 5 blocks", "3 x 3 seeds, 8 blocks, paired"])
def test_intervals_cover_the_true_difference(name):
    repeats = 100
    coverage = share_covered(KINDS[name], repeats, seed=11)
    assert 0.92 - binomial_margin(0.92, repeats) <= coverage <= 0.98 + binomial_margin(0.98, repeats)


def test_correlated_frames_are_no_evidence_unless_taken_as_independent():
    repeats, long_blocks = 100, replace(FEW, pretraining=3, frames=10)
    assert share_found(long_blocks, repeats, seed=12) < 0.05 + binomial_margin(0.05, repeats)
    assert share_found(long_blocks, repeats, seed=12, frames_as_blocks=True) > 0.05 + binomial_margin(0.05, repeats)


def test_truth_does_not_depend_on_how_it_is_computed():
    # a study of many seeds and blocks through counts, frames and the code under test
    kind = replace(FEW, pretraining=20, finetuning=2, blocks=400, frames=1)
    rng = np.random.default_rng(5)
    found = [summarise(simulate_init(kind, simulate_images(kind, rng), 0.3, rng)).mean_iou for _ in range(3)]
    assert np.mean(found) == pytest.approx(limit(FEW, 0.3), abs=1.5)


@pytest.mark.heavy
@pytest.mark.parametrize("name", KINDS)
def test_coverage_is_92_to_98_percent(name):
    assert 0.92 <= share_covered(KINDS[name], 2000, seed=21) <= 0.98


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["2 x 3 seeds, 12 blocks", "2 x 3 seeds against 6 without pre-training"])
def test_correlated_frames_give_less_than_5_percent_false_findings(name):
    assert share_found(KINDS[name], 2000, seed=22) < 0.05


@pytest.mark.heavy
def test_the_interval_of_one_initialisation_covers_its_limit():
    rng, truth, repeats = np.random.default_rng(23), limit(FEW), 2000
    intervals = [summarise(simulate_init(FEW, simulate_images(FEW, rng), 0.0, rng)).interval for _ in range(repeats)]
    assert 0.92 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.98


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["2 x 3 seeds, 12 blocks", "pre-training seeds matter as much as blocks"])
def test_coverage_is_92_to_98_percent_where_the_seeds_of_eight_initialisations_vary_alike(name):
    assert 0.92 <= share_covered_alike(KINDS[name], 500, seed=24) <= 0.98


@pytest.mark.heavy
def test_correlated_frames_give_less_than_5_percent_false_findings_where_seeds_vary_alike():
    assert share_found_alike(FEW, 1000, seed=25) < 0.05


@pytest.mark.heavy
def test_the_interval_of_one_initialisation_covers_its_limit_where_the_seeds_of_eight_initialisations_vary_alike():
    rng, repeats, hits = np.random.default_rng(26), 500, 0
    truth = limit(replace(FEW, pretraining_sd=math.hypot(FEW.pretraining_sd, 0.2)))
    for _ in range(repeats):
        inits = simulate_setting(FEW, rng)
        low, high = summarise(inits[0], pooled=inits).interval
        hits += low <= truth <= high
    assert 0.92 <= hits / repeats <= 0.98
