import numpy as np
import pytest

from depthseg.data import LabelSpace, Sample, default_palette
from depthseg.metrics.baselines import (
    ColourClassifier,
    ConstantDepth,
    MajorityClass,
    PositionPrior,
    score_depth_baseline,
    score_segmentation_baseline,
)


class Listed:
    """A data set in memory."""

    def __init__(self, samples, classes=3):
        self.samples = samples
        self.names = [sample.name for sample in samples]
        self.label_space = LabelSpace("toy", tuple("abcdefgh"[:classes]), default_palette(classes))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def sample_of(labels, image=None, depth=None):
    labels = np.array(labels, np.uint8)
    image = np.zeros((*labels.shape, 3), np.uint8) if image is None else image
    return Sample("a", image, labels, depth)


def test_majority_is_the_most_frequent_labelled_class():
    data = Listed([sample_of([[0, 2, 2, 255, 255, 255]]), sample_of([[1, 2, 1]])])
    assert MajorityClass(data).predict(sample_of(np.zeros((2, 3)))).tolist() == [[2] * 3] * 2
    scores = score_segmentation_baseline(MajorityClass(data), data)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 6)
    assert scores["mean_iou"] == pytest.approx((0 + 0 + 3 / 6) / 3)


def test_position_prior_is_the_vote_at_each_place():
    maps = np.random.default_rng(0).choice([0, 1, 2, 255], (7, 4, 5), p=[0.3, 0.3, 0.3, 0.1]).astype(np.uint8)
    maps[:, 0, 0] = 255
    maps[:, 1, 1] = [0, 0, 1, 1, 1, 2, 255]
    prior = PositionPrior(Listed([sample_of(m) for m in maps]), grid=(4, 5))
    assert prior.class_ids[1, 1] == 1
    assert prior.class_ids[0, 0] == np.bincount(maps[maps < 255]).argmax(), "never labelled: the overall winner"
    for row in range(4):
        for column in range(5):
            votes = maps[:, row, column]
            votes = np.bincount(votes[votes < 255], minlength=3)
            assert votes[prior.class_ids[row, column]] == votes.max()


def test_position_prior_fits_images_of_any_size():
    half = np.zeros((8, 10), np.uint8)
    half[:, 5:] = 1
    prior = PositionPrior(Listed([sample_of(half)]), grid=(4, 4))
    predicted = prior.predict(sample_of(np.zeros((6, 20))))
    assert predicted.shape == (6, 20)
    assert (predicted[:, :10] == 0).all()
    assert (predicted[:, 10:] == 1).all()


def test_colour_classifier_is_the_vote_of_each_colour():
    image = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    by_red = (image[..., 0] // 16 % 3).astype(np.uint8)
    data = Listed([sample_of(by_red, image)])
    assert score_segmentation_baseline(ColourClassifier(data, bins=16), data)["mean_iou"] == 1
    # With one bin there are no colours left to tell apart: the majority class.
    assert np.unique(ColourClassifier(data, bins=1).predict(data[0])).tolist() == [
        np.bincount(by_red.ravel()).argmax()
    ]
    with pytest.raises(ValueError, match="bins=0"):
        ColourClassifier(data, bins=0)


def test_colour_bins_do_not_mix_channels():
    # Each corner of the colour cube has its own class, so mixing up two channels or bins would merge classes.
    corners = np.array([[(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]], np.uint8)
    data = Listed([sample_of([range(8)], corners)], classes=8)
    assert ColourClassifier(data, bins=256 // 16).predict(data[0]).tolist() == [list(range(8))]


def test_unseen_colours_get_the_majority_class():
    data = Listed([sample_of([[1, 1, 0]])])
    white = Sample("w", np.full((2, 2, 3), 255, np.uint8))
    assert ColourClassifier(data).predict(white).tolist() == [[1, 1], [1, 1]]


def test_constant_depth_is_the_median_of_known_depths():
    rng = np.random.default_rng(2)
    maps = [rng.gamma(2, 10, (20, 30)).astype(np.float32) + 0.5 for _ in range(5)]
    for depth in maps:
        depth[rng.random(depth.shape) < 0.3] = 0
    data = Listed([sample_of(np.zeros((20, 30)), depth=depth) for depth in maps])
    baseline = ConstantDepth(data)
    known = np.concatenate([depth[depth > 0] for depth in maps])
    assert baseline.depth == pytest.approx(np.median(known), rel=2e-3)
    scores = score_depth_baseline(baseline, data, max_depth=200)
    expected = np.mean([np.mean(np.abs(baseline.depth - d[d > 0]) / d[d > 0]) for d in maps])
    assert scores["abs_rel"] == pytest.approx(expected, rel=1e-6)
    assert scores["alignment"] == "none"


def test_constant_depth_of_one_value_is_that_value():
    depth = np.full((2, 2), 12.34, np.float32)
    assert ConstantDepth(Listed([sample_of(np.zeros((2, 2)), depth=depth)])).depth == pytest.approx(12.34, rel=1e-4)


def test_baselines_never_see_the_truth_they_are_scored_on():
    train = Listed([sample_of([[0, 1], [1, 2]], depth=np.ones((2, 2), np.float32))])
    fitted = [MajorityClass(train), PositionPrior(train), ColourClassifier(train), ConstantDepth(train)]
    image = np.random.default_rng(3).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    blind = Sample("b", image)
    seeing = Sample("b", image, np.full((5, 6), 2, np.uint8), np.full((5, 6), 9, np.float32))
    for baseline in fitted:
        assert np.array_equal(baseline.predict(blind), baseline.predict(seeing))


def test_missing_truth_is_named():
    data = Listed([Sample("a", np.zeros((2, 2, 3), np.uint8))])
    with pytest.raises(ValueError, match="No pixel of the training samples has a depth"):
        ConstantDepth(data)
    with pytest.raises(ValueError, match="no labelled pixel"):
        MajorityClass(data)
    data.label_space = None
    with pytest.raises(ValueError, match="has no label space"):
        MajorityClass(data)
