"""Noise, blur, fog and dusk against their formulae."""

from __future__ import annotations

import math

import numpy as np
import pytest

from depthseg.data import LabelSpace, Sample, default_palette
from depthseg.data.corruptions import CORRUPTIONS, STRENGTHS, CorruptedImages, corrupt, read_corruption

GREY = np.full((224, 300, 3), 128, np.uint8)


def photograph(size=(48, 64)):
    return np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_an_image_stays_an_image_and_is_the_same_whenever_it_is_asked_for(kind, strength):
    image = photograph()
    before = image.copy()
    found = corrupt(image, "a", kind, strength)
    assert found.dtype == np.uint8 and found.shape == image.shape and np.array_equal(image, before)
    assert not np.array_equal(found, image)
    assert np.array_equal(found, corrupt(image, "a", kind, strength))
    assert kind == "blur" or not np.array_equal(found, corrupt(image, "b", kind, strength))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_higher_strength_changes_an_image_more(kind):
    # Of smooth stripes: noise alone is as far from its blurred self at any radius.
    image = np.tile((128 + 90 * np.sin(np.arange(96) / 5))[None, :, None], (64, 1, 3)).astype(np.uint8)
    changes = [np.abs(corrupt(image, "a", kind, strength) - image.astype(float)).mean() for strength in STRENGTHS]
    assert changes == sorted(changes) and len(set(changes)) == 3


@pytest.mark.parametrize(("strength", "deviation"), [(1, 0.08), (2, 0.18)])
def test_noise_has_the_deviation_of_the_benchmark(strength, deviation):
    found = corrupt(GREY, "a", "noise", strength) / 255.0
    assert found.mean() == pytest.approx(128 / 255, abs=0.002)
    assert found.std() == pytest.approx(deviation, rel=0.02)
    assert abs(np.corrcoef(found[..., 0].ravel(), found[..., 1].ravel())[0, 1]) < 0.02


def test_a_point_is_blurred_to_a_disk_whose_radius_grows_with_the_image():
    for scale in (1, 2):
        image = np.zeros((224 * scale, 230 * scale, 3), np.uint8)
        image[100 * scale, 120 * scale] = 255
        rows, columns = np.nonzero(corrupt(image, "a", "blur", 1)[..., 0])
        radius, half_a_pixel = 3 * scale, math.sqrt(0.5)
        found = set(zip(rows - 100 * scale, columns - 120 * scale, strict=True))
        around = {(y, x): math.hypot(y, x) for y in range(-9, 10) for x in range(-9, 10)}
        assert found >= {place for place, length in around.items() if length <= radius - half_a_pixel}
        assert found <= {place for place, length in around.items() if length <= radius + half_a_pixel}


def test_blur_keeps_a_plain_image_up_to_its_borders():
    assert np.array_equal(corrupt(GREY, "a", "blur", 3), GREY)


def test_fog_lightens_black_by_its_clouds_and_keeps_within_the_formula():
    image = np.zeros((64, 96, 3), np.uint8)
    image[0, 0] = 255  # m = 1
    found = corrupt(image, "a", "fog", 2)[1:] / 255.0
    # c f m / (m + c) with f from 0 to 1
    assert found.max() <= 2.5 / 3.5 + 0.5 / 255 and found.max() > 0.9 * 2.5 / 3.5 and found.min() < 0.02
    assert np.array_equal(found[..., 0], found[..., 2])
    # Clouds are smooth where noise is not: neighbours are much nearer to one another than pixels at large.
    assert np.abs(np.diff(found[..., 0], axis=1)).mean() < 0.3 * found[..., 0].std()


def test_dusk_is_the_darkened_image_with_the_noise_of_its_photons():
    found = corrupt(GREY, "a", "dusk", 1) / 255.0
    mean = 0.8 * (128 / 255) ** 1.5
    assert found.mean() == pytest.approx(mean, abs=0.003)
    assert found.var() == pytest.approx(mean / 60, rel=0.05)


def test_a_black_image_stays_an_image():
    black = np.zeros((20, 30, 3), np.uint8)
    assert not corrupt(black, "a", "fog", 1).any() and not corrupt(black, "a", "dusk", 3).any()


class Two:
    names, value_range = ["one", "two"], (0, 255)
    label_space = LabelSpace("two", ("a", "b"), default_palette(2))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        labels, depth = np.full((48, 64), index, np.uint8), np.ones((48, 64), np.float32)
        return Sample(self.names[index], photograph(), labels, depth)


def test_a_corrupted_data_set_changes_its_images_alone():
    found, clear = CorruptedImages(Two(), "fog", 2), Two()
    assert len(found) == 2 and found.names == clear.names and found.label_space is Two.label_space
    assert found.value_range == (0, 255) and not hasattr(found, "categories")
    for index in range(2):
        assert np.array_equal(found[index].image, corrupt(photograph(), clear.names[index], "fog", 2))
        assert np.array_equal(found[index].labels, clear[index].labels)
        assert np.array_equal(found[index].depth, clear[index].depth)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("fog", "written KIND:STRENGTH, such as fog:2; 'fog' was given"),
        ("fog:x", "written KIND:STRENGTH"),
        ("fgo:1", "no corruption 'fgo'. Did you mean 'fog'"),
        ("fog:4", "fog has the strengths 1, 2, 3; 4 was asked for"),
    ],
)
def test_what_is_no_corruption_is_said(text, part):
    with pytest.raises(ValueError, match=part):
        read_corruption(text)
    assert read_corruption("dusk:3") == ("dusk", 3)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint16), np.zeros((4, 4, 3), np.float32)])
def test_images_of_other_forms_are_refused(image):
    with pytest.raises(ValueError, match="Image 'a' is .* defined for RGB images of 8 bits"):
        corrupt(image, "a", "noise", 1)
