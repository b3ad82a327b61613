"""Balanced weights against a count by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from depthseg.data.class_weights import balanced_weights
from depthseg.data.label_spaces import LabelSpace


class Maps(list):
    label_space = LabelSpace("three", ("road", "sky", "car"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))


def maps_of(*rows):
    labels = (None if row is None else np.array([row], np.int16) for row in rows)
    return Maps(SimpleNamespace(name=f"street_{n}", labels=each) for n, each in enumerate(labels))


def test_weights_are_inversely_proportional_to_the_pixels_of_a_class():
    # Six pixels of road and two of sky among 8, two classes: 8 / (2 * 6) and 8 / (2 * 2); no car.
    weights = balanced_weights(maps_of([0, 0, 0, 1], [0, 0, 0, 255], None, [1, 255, 255, 255]))
    assert weights == pytest.approx([2 / 3, 2.0, 2.0])


@pytest.mark.parametrize("wrong", [3, 254, -1])
def test_an_id_without_a_class_is_named_with_its_image(wrong):
    with pytest.raises(
        ValueError, match=rf"image 'street_1' holds the ids \[{wrong}\], .* 'three' have the ids 0 to 2"
    ):
        balanced_weights(maps_of([0, 1, 2], [wrong, wrong, 0]))


def test_labels_without_a_labelled_pixel_cannot_be_balanced():
    with pytest.raises(ValueError, match="None of the 1 training label maps has a labelled pixel"):
        balanced_weights(maps_of([255, 255]))
