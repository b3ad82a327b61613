"""What holds for every geometry of the training transform, tried on many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from depthseg.data import DepthSample, Sample, VideoSample, transforms
from depthseg.data.transforms import TrainTransform, guard_labels, largest_class_share

WAYS = st.one_of(
    st.builds(dict, crop_scale=st.tuples(st.floats(0.2, 0.6), st.floats(0.6, 1))),
    st.builds(
        dict,
        random_crop=st.just(True),
        scale_range=st.tuples(st.floats(0.4, 0.9), st.floats(0.9, 2.5)),
        max_class_share=st.sampled_from([0.5, 1.0]),
    ),
    st.builds(
        dict,
        random_crop=st.just(True),
        shortest_edges=st.lists(st.integers(3, 80), min_size=1, max_size=4),
        longest_edge=st.sampled_from([0, 60]),
    ),
)
SIDES = st.tuples(st.integers(4, 60), st.integers(4, 60))
TRIES = settings(max_examples=150, deadline=None, derandomize=True)


def positions(height, width, seed=0, **parts):
    """A sample whose depth says which pixel each value is of, from 1 on."""
    depth = np.arange(1, height * width + 1, dtype=np.float32).reshape(height, width)
    labels = np.random.default_rng(seed).choice([0, 3, 7, 255], (height, width)).astype(np.uint8)
    image = np.full((height, width, 3), 90, np.uint8)
    return Sample("a", image, labels, depth, **parts)


@TRIES
@given(SIDES, SIDES, WAYS, st.floats(0, 1, allow_subnormal=False), st.integers(0, 2**32))
def test_projecting_the_backprojected_pixel_gives_the_pixel(source, size, way, hflip, seed):
    intrinsics = np.array([[50.0, 0, 0.45 * source[1]], [0, 47.0, 0.55 * source[0]], [0, 0, 1]])
    before = positions(*source, intrinsics=intrinsics, stereo_x=0.5)
    after = TrainTransform(size, hflip, **way)(before, np.random.default_rng(seed))
    assert after.image.shape == (*size, 3) and after.labels.shape == after.depth.shape == size

    known = after.depth > 0
    rows, columns = np.nonzero(known)
    index = after.depth[known].astype(int) - 1
    # Where the camera of the result sees the pixel, and where that of the source saw it, at one depth of 1.
    seen = np.linalg.inv(after.intrinsics) @ np.stack([columns, rows, np.ones_like(rows)])
    saw = np.linalg.inv(intrinsics) @ np.stack([index % source[1], index // source[1], np.ones_like(rows)])
    # A mirrored image shows a mirrored scene; then the other camera is on the other side.
    saw[0] *= after.stereo_x / 0.5
    assert abs(after.stereo_x) == 0.5
    back = after.intrinsics @ saw
    # The nearest pixel is off by half a pixel of the source at most, which is this many pixels of the result.
    reach = 0.5 * np.diag(after.intrinsics)[:2] / np.diag(intrinsics)[:2] + 1e-6
    assert np.abs(back[0] - columns).max(initial=0) <= reach[0]
    assert np.abs(back[1] - rows).max(initial=0) <= reach[1]
    np.testing.assert_allclose(after.intrinsics @ seen, np.stack([columns, rows, np.ones_like(rows)]), atol=1e-9)


@TRIES
@given(SIDES, SIDES, WAYS, st.integers(0, 2**32))
def test_padding_is_ignored_unknown_and_black_and_nothing_is_made_up(source, size, way, seed):
    before = positions(*source, seed)
    after = TrainTransform(size, 0.5, **way)(before, np.random.default_rng(seed))
    guard_labels(before, after)
    padded = after.depth == 0
    assert (after.labels[padded] == 255).all()
    assert (after.image[padded] == 0).all() and (after.image[~padded] == 90).all()
    index = after.depth[~padded].astype(int) - 1
    np.testing.assert_array_equal(after.labels[~padded], before.labels.ravel()[index])
    # What is padded is whole rows at the bottom and whole columns on one side.
    rows, columns = padded.all(1), padded.all(0)
    np.testing.assert_array_equal(padded, rows[:, None] | columns)
    assert (np.diff(rows.astype(int)) >= 0).all()


def test_images_are_resized_before_the_patch_is_cut():
    transform = TrainTransform((30, 40), 0, random_crop=True, scale_range=(2, 2))
    after = transform(positions(60, 80), np.random.default_rng(0))
    index = after.depth.astype(int) - 1
    assert np.ptp(index // 80) + 1 == pytest.approx(15, abs=1) and np.ptp(index % 80) + 1 == pytest.approx(20, abs=1)
    assert np.median(np.unique(index, return_counts=True)[1]) == 4, "each pixel is enlarged to two by two"


def test_the_shorter_side_gets_one_of_the_lengths():
    """Images of 40x60, patches larger than any of them: what is not padded is the whole image."""
    transform = TrainTransform((200, 200), 0, random_crop=True, shortest_edges=[20, 50, 80], longest_edge=105)
    shapes = []
    for seed in range(300):
        known = transform(positions(40, 60), np.random.default_rng(seed)).depth > 0
        shapes.append((known.any(1).sum(), known.any(0).sum()))
    # 80x120 is too long, so that the longer side is 105.
    counts = {shape: shapes.count(shape) for shape in [(20, 30), (50, 75), (70, 105)]}
    assert sum(counts.values()) == 300 and min(counts.values()) > 70


def test_shortest_edges_move_no_other_draw():
    ways = [{"shortest_edges": [30]}, {"scale_range": (0.5, 0.5)}]
    sample = positions(60, 90)
    first, second = (
        TrainTransform((20, 20), random_crop=True, **way)(sample, np.random.default_rng(3)) for way in ways
    )
    np.testing.assert_array_equal(first.depth, second.depth)


def test_what_a_loss_compares_is_not_padded():
    sample = positions(20, 20)
    video = Sample("a", sample.image, frames={-1: sample.image})
    transform = TrainTransform((30, 30), random_crop=True, scale_range=(1.0, 1.1))
    with pytest.raises(ValueError, match="or a larger scale_range: what a loss compares is not padded"):
        transform(video, np.random.default_rng(0))
    assert transform(sample, np.random.default_rng(0)).image.shape == (30, 30, 3)


def test_crops_that_show_one_class_alone_are_drawn_again():
    labels = np.zeros((64, 64), np.uint8)
    labels[40:, 40:] = 1
    labels[:4] = 255
    sample = Sample("a", np.zeros((64, 64, 3), np.uint8), labels)
    shares = {
        limit: [
            largest_class_share(
                TrainTransform((24, 24), random_crop=True, max_class_share=limit)(
                    sample, np.random.default_rng(seed)
                ).labels
            )
            for seed in range(100)
        ]
        for limit in (1.0, 0.75)
    }
    most = {limit: np.mean(np.array(found) > 0.75) for limit, found in shares.items()}
    # Ten more draws of which each fails with the probability of the first: 0.86 ** 11 = 0.19.
    assert most[1.0] > 0.75 and most[0.75] == pytest.approx(most[1.0] ** 11, abs=0.1)


def test_drawing_a_crop_again_moves_no_other_draw():
    sample = positions(64, 64)
    options = {"random_crop": True, "colour_jitter": 0.5, "hole_share": (0.01, 0.02)}
    holes = [
        TrainTransform((24, 24), max_class_share=limit, **options)(sample, np.random.default_rng(7)).holes
        for limit in (1.0, 0.01)
    ]
    np.testing.assert_array_equal(*holes)


def test_the_largest_share_leaves_ignored_pixels_out():
    assert largest_class_share(np.uint8([[1, 1, 2, 255], [255, 255, 255, 1]])) == 0.75
    assert largest_class_share(np.full((2, 2), 255, np.uint8)) == 0


def test_made_up_ids_are_refused():
    before = positions(8, 8)
    mixed = Sample("a", before.image, np.full((4, 4), 5, np.uint8))
    with pytest.raises(ValueError, match="made up the class ids 5 in the labels of 'a'.*nearest pixel"):
        guard_labels(before, mixed)


def test_the_transform_guards_its_labels(monkeypatch):
    def mixed(geometry, values, padding):
        return np.array(Image.fromarray(values).resize(geometry.size[::-1], Image.Resampling.BICUBIC))

    monkeypatch.setattr(transforms.Geometry, "map", mixed)
    with pytest.raises(ValueError, match="made up the class ids .* in the labels of 'a'"):
        TrainTransform((10, 10))(positions(20, 30), np.random.default_rng(0))


@pytest.mark.parametrize("kind", [DepthSample, VideoSample])
def test_a_typed_record_stays_what_it_is(kind):
    sample = positions(20, 30)
    record = kind(name="a", image=sample.image, depth=sample.depth, intrinsics=np.eye(3))
    assert type(TrainTransform((10, 10))(record, np.random.default_rng(0))) is kind
