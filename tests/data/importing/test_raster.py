"""Which pixels shapes cover, against definitions by brute force."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthseg.data.importing.coco import decode_rle, unpack_counts
from depthseg.data.importing.label_studio import decode_brush
from depthseg.data.importing.raster import box_points, draw_line, fill_ellipse, fill_polygon, polygon_points

HEIGHT, WIDTH = 7, 9
# Eighths, so that edges often go through centres of pixels.
coordinate = st.integers(-16, 96).map(lambda number: number / 8)
polygons = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=8)


def crossings(points, x, y):
    """Where a polygon crosses the row of a pixel's centre, exactly; rows are half-open."""
    found = []
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        if (Fraction(ay) <= y) != (Fraction(by) <= y):
            found.append(
                Fraction(ax) + (y - Fraction(ay)) * (Fraction(bx) - Fraction(ax)) / (Fraction(by) - Fraction(ay))
            )
    return found


@settings(max_examples=100, deadline=None)
@given(polygons)
def test_a_polygon_covers_the_centres_that_are_inside(points):
    covered = fill_polygon(np.array(points), HEIGHT, WIDTH)
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = Fraction(2 * column + 1, 2), Fraction(2 * row + 1, 2)
            found = crossings(points, x, y)
            if any(abs(cross - x) < Fraction(1, 10**9) for cross in found):
                continue  # on an edge: see the next test
            assert covered[row, column] == (sum(cross < x for cross in found) % 2 == 1)


@settings(max_examples=100, deadline=None)
@given(st.tuples(coordinate, coordinate))
def test_polygons_that_share_edges_share_no_pixel_and_leave_none(point):
    corners = [(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)]
    x, y = min(max(point[0], 0), WIDTH), min(max(point[1], 0), HEIGHT)
    triangles = [[(x, y), corners[i], corners[(i + 1) % 4]] for i in range(4)]
    total = sum(fill_polygon(np.array(one, float), HEIGHT, WIDTH).astype(int) for one in triangles)
    assert (total == 1).all()


def test_shapes_by_hand():
    box = fill_polygon(box_points(1, 2, 4, 4), 6, 6)
    assert box.sum() == 6 and box[2:4, 1:4].all()
    ring = [[0, 0], [6, 0], [6, 6], [0, 6], [0, 0], [2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
    hole = fill_polygon(np.array(ring, float), 6, 6)
    assert hole.sum() == 36 - 4 and not hole[2:4, 2:4].any()
    disc = fill_ellipse((3, 3), (2, 1), 6, 6)
    y, x = np.mgrid[:6, :6] + 0.5
    assert (disc == (((x - 3) / 2) ** 2 + (y - 3) ** 2 <= 1)).all()
    assert (fill_ellipse((3, 3), (2, 1), 6, 6, 90) == disc.T).all()
    turned = fill_polygon(box_points(4, 1, 7, 3, 90), 6, 6)  # about its corner, clockwise: down and to the left
    assert turned.sum() == 6 and turned[1:4, 2:4].all()
    line = draw_line(np.array([[0.5, 2.5], [5.5, 2.5]]), 1, 6, 6)
    assert line.sum() == 6 and line[2].all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 3, 4], "a polygon has 2 points; an area needs three"),
        ([1, 2, 3, 4, 5, 6, 7], "an odd number of coordinates, 7"),
        ([1, 2, 3, 4, 5, float("nan")], "not finite"),
        (["a", 2], "no numbers"),
    ],
)
def test_polygons_that_are_none(values, message):
    with pytest.raises(ValueError, match=message):
        polygon_points(values)


def runs_of(flat):
    """Lengths of runs, False first, by walking along."""
    runs, current = [0], False
    for value in flat:
        if value != current:
            runs.append(0)
            current = value
        runs[-1] += 1
    return runs


def packed(runs):
    """COCO's text of runs, written anew from its description."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            part, value = value & 31, value >> 5
            done = value == (-1 if part & 16 else 0)
            text += chr(48 + part + (0 if done else 32))
            if done:
                break
    return text


def test_packed_runs_by_hand():
    # The example of the tests of pycocotools' packing.
    assert unpack_counts("61X13mN000`0") == [6, 1, 40, 4, 5, 4, 5, 4, 21]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 0.98]))
def test_run_length_encoded_masks_of_coco(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = runs_of(mask.T.ravel().tolist())
    for counts in (runs, packed(runs)):
        assert (decode_rle({"size": [height, width], "counts": counts}, height, width) == mask).all()


def brush_of(values, word, sizes, rng):
    """Label Studio's bytes of values: runs of equal values and of different ones, of random lengths."""
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    place = 0
    while place < len(values):
        which = int(rng.integers(4))
        length = min(int(rng.integers(1, 2 ** sizes[which] + 1)), len(values) - place)
        part = values[place : place + length]
        equal = len(set(part)) == 1
        bits += f"{int(equal)}{which:02b}{length - 1:0{sizes[which]}b}"
        bits += "".join(f"{value:0{word}b}" for value in (part[:1] if equal else part))
        place += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_brush_masks_of_label_studio(count, word, seed):
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.integers(0, 2**word, count), rng.integers(1, 9, count)).tolist()
    data = brush_of(values, word, (1, 3, 5, 12), rng)
    assert decode_brush(data).tolist() == values
    with pytest.raises(ValueError, match="truncated"):
        decode_brush(data[: len(data) // 2])
