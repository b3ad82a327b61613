"""The motion of every pixel between two images whose motion is known."""

import numpy as np
import pytest

from depthseg.data.video_motion import DENSE_WIDTH, dense_motion


@pytest.mark.parametrize("size", [(48, 80), (200, 2 * DENSE_WIDTH + 31)], ids=["small", "wide"])
@pytest.mark.parametrize("shift", [(4, 0), (-3, 2)])
def test_a_shifted_image_is_found_where_it_was(size, shift):
    cell = 3 if size[1] < DENSE_WIDTH else 9
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (size[0] // cell + 9, size[1] // cell + 9, 3), dtype=np.uint8)
    wide = wide.repeat(cell, 0).repeat(cell, 1)
    right, down = shift
    earlier, later = (wide[8 - y : 8 - y + size[0], 8 - x : 8 - x + size[1]] for x, y in ((0, 0), (right, down)))
    places, known = dense_motion(earlier, later)
    grid = np.stack(np.meshgrid(np.arange(size[1]), np.arange(size[0])), -1)
    inner = np.s_[10:-10, 10:-10]
    assert known[inner].mean() > 0.95
    error = np.linalg.norm(places - grid + np.array(shift), axis=-1)[known]
    assert np.median(error) < 0.2 and np.mean(error > 1) < 0.05
    # What comes into view was nowhere, and what is known was inside.
    rounded = np.rint(places[known])
    assert rounded.min() >= 0 and (rounded < [size[1], size[0]]).all()
    edge = known[:, : right - 1] if right > 0 else known[:, right + 1 :]
    assert edge.mean() < 0.3


def test_after_a_cut_no_motion_is_known():
    first, second = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), dtype=np.uint8)
    assert not dense_motion(first, second)[1].any()
    assert dense_motion(first, first)[1].all()
