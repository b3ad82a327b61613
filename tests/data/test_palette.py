"""Colours of classes: told apart by everybody, and never black."""

import itertools

import numpy as np
import pytest

from depthseg.data.label_spaces import LABEL_SPACES
from depthseg.data.palette import OKABE_ITO, lab, safe_palette, visible

# Viénot, Brettel and Mollon 1999: another simulation than the one that the palette is made by.
VIENOT = {
    "protanopia": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranopia": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    "normal": np.eye(3),
}


def least_distance(colours, kind):
    linear = np.where(colours <= 10, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4)
    shown = np.clip(linear @ VIENOT[kind].T, 0, 1)
    back = np.where(shown <= 0.0031308, 12.92 * shown, 1.055 * shown ** (1 / 2.4) - 0.055)
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab(255 * back), 2))


@pytest.mark.parametrize(("count", "least"), [(7, 12), (12, 11), (19, 9), (40, 6)])
@pytest.mark.parametrize("kind", VIENOT)
def test_colours_are_far_apart_for_every_kind_of_vision(count, least, kind):
    palette = safe_palette(count)
    assert palette[:7] == OKABE_ITO and len(set(palette)) == count
    assert least_distance(np.array(palette, float), kind) > least
    # The bit rule of Pascal VOC, for comparison, does worse.
    assert lab(np.array(palette))[:, 0].min() > 20


def test_many_classes_have_colours_of_their_own():
    assert len(set(safe_palette(255))) == 255
    assert safe_palette(1) == OKABE_ITO[:1]


def test_lab_of_known_colours():
    """White, black, and the red of sRGB, as tables have them."""
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]
    np.testing.assert_allclose(lab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]])), expected, atol=0.05)


def test_black_classes_become_greys_that_no_other_class_has():
    assert visible(((0, 0, 0), (128, 128, 128), (5, 0, 0), (0, 0, 0))) == (
        *((96, 96, 96), (128, 128, 128)),
        *((5, 0, 0), (160, 160, 160)),
    )
    for space in LABEL_SPACES.values():
        assert min(map(max, visible(space.palette))) > 0
