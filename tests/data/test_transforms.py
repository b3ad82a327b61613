import numpy as np
import pytest
from PIL import Image, ImageEnhance

from depthseg.data import Sample, pixel_changes
from depthseg.data.pixel_changes import ColourChange
from depthseg.data.transforms import TrainTransform, resize_nearest


def street(height, width, seed=0):
    """A sample whose three parts all say where a pixel was: the image in bytes, labels coarsely, depth exactly."""
    rows, columns = np.mgrid[:height, :width]
    image = np.dstack([columns * 255 // width, rows * 255 // height, np.zeros_like(rows)]).astype(np.uint8)
    labels = np.random.default_rng(seed).choice([0, 3, 7, 255], (height, width)).astype(np.uint8)
    return Sample("a", image, labels, (rows * 1000 + columns + 1).astype(np.float32))


@pytest.mark.parametrize("seed", range(40))
def test_no_id_or_depth_is_ever_invented(seed):
    rng = np.random.default_rng(seed)
    sample = street(*rng.integers(1, 90, 2), seed)
    transform = TrainTransform(rng.integers(1, 90, 2), crop_scale=(0.3, 1.0), colour_jitter=0.5)
    out = transform(sample, rng)
    assert out.image.shape == (*transform.size, 3)
    assert out.labels.shape == out.depth.shape == transform.size
    assert (out.image.dtype, out.labels.dtype, out.depth.dtype) == (np.uint8, np.uint8, np.float32)
    assert set(np.unique(out.labels)) <= set(np.unique(sample.labels))
    # Depth says which pixel was taken, so the label must be the label of that very pixel.
    source = out.depth.astype(int) - 1
    assert np.array_equal(out.labels, sample.labels[source // 1000, source % 1000])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("hflip", [0.0, 1.0])
def test_image_and_depth_go_through_the_same_geometry(seed, hflip):
    sample = street(120, 160)
    out = TrainTransform((60, 70), hflip=hflip, crop_scale=(0.4, 0.9))(sample, np.random.default_rng(seed))
    source = out.depth.astype(int) - 1
    inside = np.s_[2:-2, 2:-2]
    assert np.abs(out.image[..., 0].astype(float) * 160 / 255 - source % 1000)[inside].max() < 2.5, "columns agree"
    assert np.abs(out.image[..., 1].astype(float) * 120 / 255 - source // 1000)[inside].max() < 2.5, "rows agree"
    direction = np.diff(source[30] % 1000)
    assert (direction <= 0).all() if hflip else (direction >= 0).all()


def test_crops_have_the_asked_share_and_reach_every_place():
    sample = street(100, 200)
    transform = TrainTransform((100, 200), hflip=0, crop_scale=(0.5, 0.8))
    shares, lefts = [], []
    for seed in range(200):
        source = transform(sample, np.random.default_rng(seed)).depth.astype(int) - 1
        rows, columns = source // 1000, source % 1000
        shares.append((np.ptp(rows) + 1) / 100)
        assert abs((np.ptp(columns) + 1) / 200 - shares[-1]) < 0.03, "the same share of height and width"
        lefts.append(columns.min())
    assert 0.49 <= min(shares) < 0.53
    assert 0.77 < max(shares) <= 0.82
    assert min(lefts) < 5
    assert max(lefts) > 85


def test_without_options_it_is_the_plain_resize_of_the_whole_image():
    sample = street(31, 47)
    out = TrainTransform((16, 20), hflip=0)(sample, np.random.default_rng(0))
    expected = Image.fromarray(sample.image).resize((20, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(out.image, np.array(expected))
    rows = np.floor((np.arange(16) + 0.5) * 31 / 16).astype(int)
    columns = np.floor((np.arange(20) + 0.5) * 47 / 20).astype(int)
    assert np.array_equal(out.labels, sample.labels[np.ix_(rows, columns)])
    assert np.array_equal(out.depth, sample.depth[np.ix_(rows, columns)])
    assert np.array_equal(resize_nearest(sample.labels, (16, 20)), out.labels)


def test_half_of_the_images_are_mirrored():
    sample = street(8, 8)
    mirrored = [
        np.array_equal(TrainTransform((8, 8))(sample, np.random.default_rng(seed)).depth, sample.depth[:, ::-1])
        for seed in range(400)
    ]
    assert 150 < sum(mirrored) < 250


def test_the_generator_alone_decides():
    sample = street(40, 50)
    transform = TrainTransform((20, 30), crop_scale=(0.2, 1), colour_jitter=0.4)
    state = np.random.get_state()[1].copy()
    first, again, other = (transform(sample, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.depth, again.depth)
    assert not np.array_equal(first.depth, other.depth)
    assert np.array_equal(np.random.get_state()[1], state), "the global generator is left alone"


def test_options_do_not_move_each_other():
    sample = street(40, 50)
    plain, jittered = (
        TrainTransform((20, 30), crop_scale=(0.2, 1), colour_jitter=amount)(sample, np.random.default_rng(1))
        for amount in (0.0, 0.5)
    )
    assert np.array_equal(plain.depth, jittered.depth)
    assert not np.array_equal(plain.image, jittered.image)


def test_grey_images_only_change_in_brightness_and_within_range():
    # Contrast is about the mean and saturation about grey, so both leave an even grey image as it is.
    sample = Sample("a", np.full((4, 4, 3), 100, np.uint8))
    transform = TrainTransform((4, 4), colour_jitter=0.3)
    values = [transform(sample, np.random.default_rng(seed)).image for seed in range(300)]
    assert all(np.ptp(value) == 0 for value in values)
    levels = [int(value[0, 0, 0]) for value in values]
    assert 69 <= min(levels) < 75
    assert 125 < max(levels) <= 130


def test_saturation_and_contrast_change_too():
    image = np.full((4, 4, 3), 55, np.uint8)
    image[:2] = (150, 100, 85)
    transform = TrainTransform((4, 4), hflip=0, colour_jitter=0.3)
    out = [transform(Sample("a", image), np.random.default_rng(seed)).image.astype(float) for seed in range(100)]
    luma = [pixels @ (0.299, 0.587, 0.114) for pixels in out]
    contrast = np.array([y[0, 0] - y[3, 3] for y in luma])
    # Brightness scales both, saturation keeps the luma: only contrast moves this ratio,
    assert np.ptp(contrast / [y.mean() for y in luma]) > 0.25
    # and both scale colour and luma differences alike: only saturation moves this one.
    assert np.ptp([pixels[0, 0, 0] - pixels[0, 0, 1] for pixels in out] / contrast) > 0.3


def test_colours_change_in_every_order(monkeypatch):
    applied = []
    monkeypatch.setattr(pixel_changes, "_enhanced", lambda image, which, _: applied.append("bcs"[which]) or image)
    transform = TrainTransform((2, 2), colour_jitter=0.3)
    for seed in range(60):
        transform(street(2, 2), np.random.default_rng(seed))
    orders = {"".join(applied[start : start + 3]) for start in range(0, len(applied), 3)}
    assert orders == {"bcs", "bsc", "cbs", "csb", "sbc", "scb"}


def test_parts_that_are_missing_stay_missing():
    out = TrainTransform((5, 6))(Sample("a", np.zeros((9, 9, 3), np.uint8)), np.random.default_rng(0))
    assert out.labels is None
    assert out.depth is None
    assert out.name == "a"


def deep(values):
    """What `to_rgb` of an image processor does with 16 bits."""
    return values if values.dtype == np.uint8 else np.repeat(values[..., None] / np.float32(257), 3, axis=2)


@pytest.mark.parametrize("seed", range(6))
def test_deep_images_go_through_the_geometry_and_the_colours_of_8_bits_without_rounding(seed):
    grey = street(60, 80).image[..., 0]
    options = {"crop_scale": (0.5, 1.0), "colour_jitter": 0.4, "to_rgb": deep}
    transform = TrainTransform((30, 36), **options)
    frames, fine_frames = {1: np.dstack([grey] * 3)}, {1: grey.astype(np.uint16) * 257}
    coarse = transform(Sample("a", np.dstack([grey] * 3), frames=frames), np.random.default_rng(seed))
    fine = transform(Sample("a", fine_frames[1], frames=fine_frames), np.random.default_rng(seed))
    for byte, level in (
        (coarse.image, fine.image),
        (coarse.frames[1], fine.frames[1]),
        (coarse.clean.image, fine.clean.image),
    ):
        assert (level.dtype, level.shape) == (np.float32, (30, 36, 3))
        assert 0 <= level.min() and level.max() <= 255
        # Pillow rounds after each of three changes and two passes of the filter.
        assert np.abs(level - byte).max() < 3


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def test_each_change_of_colours_is_that_of_pillow():
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for index, factor in [(0, 0.7), (0, 1.3), (1, 0.6), (1, 1.4), (2, 0.5), (2, 1.5)]:
        expected = np.asarray(ENHANCERS[index](Image.fromarray(values)).enhance(factor))
        change = ColourChange((index,), {index: factor})
        found = change.of_floats(values.astype(np.float32))
        # Pillow rounds what it mixes with (the mean of the grey image after the grey image) and the result.
        assert np.abs(found - expected).max() < 1 + abs(1 - factor)
        assert np.array_equal(change.of_image(Image.fromarray(values)), expected)


@pytest.mark.parametrize("seed", range(30))
def test_colours_of_bytes_are_changed_as_pillow_changes_them(seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(*sorted(rng.choice(257, 2, replace=False)), (23, 31, 3), np.uint8)
    order, factors = rng.permutation(3).tolist(), [*(1 + rng.uniform(-1, 1, 3))]
    factors[rng.integers(3)] = rng.choice([0.0, 1.0, factors[0]])
    expected = Image.fromarray(values)
    for index in order:
        expected = ENHANCERS[index](expected).enhance(factors[index])
    assert np.array_equal(ColourChange(tuple(order), tuple(factors)).of_image(Image.fromarray(values)), expected)


def test_deep_images_want_a_scale():
    with pytest.raises(
        ValueError, match="Image 'a' has more than 8 bits .uint16., and the image processor has no to_rgb"
    ):
        TrainTransform((4, 4))(Sample("a", np.zeros((8, 8), np.uint16)), np.random.default_rng(0))
