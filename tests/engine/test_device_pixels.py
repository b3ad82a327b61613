"""The batched path of images makes the bytes of the path of Pillow, whatever is drawn."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from depthseg.data.pixel_changes import ColourChange, Geometry, PixelChange
from depthseg.engine import device_pixels
from depthseg.engine.device_pixels import change_pixels, levels, pack_changes

SIDES = st.tuples(st.integers(1, 50), st.integers(1, 50))


# Runs in the same process may have told it to take subnormal numbers for 0.
floats = partial(st.floats, allow_subnormal=False)


@st.composite
def changes(draw, size, source):
    top, left = (draw(floats(0, side * 0.9)) for side in source)
    bottom = draw(floats(top + source[0] * 0.05, source[0]))
    right = draw(floats(left + source[1] * 0.05, source[1]))
    inner = tuple(draw(st.integers(max(side // 2, 1), side)) for side in size)
    order = tuple(draw(st.permutations(range(3))))
    factors = tuple(draw(floats(0, 2)) for _ in range(3))
    colours = draw(st.sampled_from([None, ColourChange(order, factors)]))
    return PixelChange(Geometry((left, top, right, bottom), inner, size, draw(st.booleans())), colours)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_batches_are_the_bytes_of_pillow(data):
    size, rng = data.draw(SIDES), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sources = data.draw(st.lists(SIDES, min_size=1, max_size=3))
    drawn = [data.draw(changes(size, source)) for source in sources]
    images = [rng.integers(0, 256, (*source, 3), np.uint8) for source in sources]
    found = change_pixels(pack_changes(images, drawn))
    for image, change, made in zip(images, drawn, found, strict=True):
        assert np.array_equal(made.numpy(), change.of(image))


@pytest.mark.parametrize("size", [(352, 480), (97, 333), (150, 460), (700, 900)])
def test_large_images_too(size):
    image = np.random.default_rng(0).integers(0, 256, (360, 480, 3), np.uint8)
    change = PixelChange(
        Geometry((30.3, 20.2, 430.7, 300.1), size, size, True), ColourChange((2, 1, 0), (1.2, 0.7, 1.3))
    )
    assert np.array_equal(change_pixels(pack_changes([image], [change]))[0].numpy(), change.of(image))


def test_the_plain_geometry_is_the_plain_resize():
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    change = PixelChange(Geometry((0, 0, 47, 31), (16, 20), (16, 20), False))
    expected = Image.fromarray(image).resize((20, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(change_pixels(pack_changes([image], [change]))[0].numpy(), np.array(expected))


@pytest.mark.parametrize("leading", [(2,), (2, 3)])
def test_levels_are_looked_up_channel_by_channel(leading):
    values = torch.randint(0, 256, (*leading, 4, 5, 3), dtype=torch.uint8)
    table = torch.rand(3, 256)
    elsewhere = device_pixels._levels_elsewhere(values.movedim(-1, -3), table)
    for found in (levels(values, table), elsewhere):
        assert found.shape == (*leading, 3, 4, 5) and found.is_contiguous()
        for channel in range(3):
            assert torch.equal(found[..., channel, :, :], table[channel][values[..., channel].long()])
