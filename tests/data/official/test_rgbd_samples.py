"""Depth encodings: by hand, and genuine files of NYU, SUN RGB-D, TUM and a room."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg.data import load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.images import read_depth

SAMPLES = Path(os.environ.get("DEPTHSEG_DATA", "")) / "samples" / "rgbd"
real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds samples/ to test on real data"
)


def write_pgm(path, values, order="<u2"):
    """A 16-bit PGM, by default with the lowest byte first as NYU's raw scenes have it."""
    values = np.asarray(values)
    header = f"P5\n{values.shape[1]} {values.shape[0]}\n65535\n".encode()
    path.write_bytes(header + values.astype(order).tobytes())
    return path


def test_kinect_numbers_in_either_byte_order(tmp_path):
    numbers = [[2047, 600, 1000], [839, 1058, 1057]]
    expected = [[0, 351.3 / 492.5, 351.3 / 92.5], [351.3 / 253.5, 0, 351.3 / 35.5]]
    for order in ("<u2", ">u2"):
        depth = read_depth(write_pgm(tmp_path / "d.pgm", numbers, order), depth_format="kinect")
        np.testing.assert_allclose(depth, expected, rtol=1e-6)
    Image.fromarray(np.array(numbers, np.uint16)).save(tmp_path / "d.png")
    np.testing.assert_array_equal(read_depth(tmp_path / "d.png", depth_format="kinect"), depth)


def test_sun_bits_are_rotated_back(tmp_path):
    millimetres = np.array([[0, 1, 1234], [8191, 8192, 65535]], np.uint16)
    stored = (millimetres << 3) | (millimetres >> 13)
    Image.fromarray(stored).save(tmp_path / "d.png")
    np.testing.assert_allclose(
        read_depth(tmp_path / "d.png", depth_format="sun"), millimetres.astype(np.float32) / 1000, rtol=1e-7
    )


def test_wrong_formats_are_refused(tmp_path):
    path = write_pgm(tmp_path / "d.pgm", [[2047, 600]])
    with pytest.raises(ValueError, match="d.pgm holds the raw numbers of a Kinect.* depth_format=kinect"):
        read_depth(path)
    Image.fromarray(np.full((2, 3), 30000, np.uint16)).save(tmp_path / "d.png")
    with pytest.raises(ValueError, match="d.png holds 30000, but raw numbers of a Kinect are at most 2047"):
        read_depth(tmp_path / "d.png", depth_format="kinect")
    with pytest.raises(ValueError, match="depth_format='tum' is not known; choose one of scaled, sun, kinect"):
        read_depth(tmp_path / "d.png", depth_format="tum")
    (tmp_path / "images").mkdir()
    for name in ("folder", "video"):
        with pytest.raises(ValueError, match="depth_format='tum' is not known"):
            load_dataset(name, tmp_path, "train", depth_format="tum")


def test_a_format_of_depth_files_has_no_part_in_disparity(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="depth_format=sun is for the files of depth/, .* leave one of them out"):
        load_dataset("folder", tmp_path, "train", depth_format="sun", focal_times_baseline=400)


def test_big_endian_pgm_of_millimetres_is_read_as_it_is(tmp_path):
    path = write_pgm(tmp_path / "d.pgm", [[0, 1500], [2600, 9000]], ">u2")
    np.testing.assert_allclose(read_depth(path, scale=1000), [[0, 1.5], [2.6, 9]], rtol=1e-6)


def folder_of(tmp_path, image, depth):
    """A `folder` data set of one image and its depth file."""
    for place, path in (("images", image), ("depth", depth)):
        (tmp_path / place).mkdir()
        shutil.copy(path, tmp_path / place / f"frame{path.suffix}")
    return tmp_path


@real_data
@pytest.mark.parametrize(
    ("image", "depth", "options", "low", "high"),
    [
        ("NYU_color.ppm", "NYU_depth.pgm", {"depth_format": "kinect"}, 1.5, 6.3),
        ("SUN_color.jpg", "SUN_depth.png", {"depth_format": "sun"}, 1.1, 8.9),
        ("TUM_color.png", "TUM_depth.png", {"depth_scale": 5000}, None, None),
        ("room/color/00000.jpg", "room/depth/00000.png", {"depth_scale": 1000}, None, None),
    ],
)
def test_genuine_pairs_are_read_by_the_folder_data_set(tmp_path, image, depth, options, low, high):
    root = folder_of(tmp_path, SAMPLES / image, SAMPLES / depth)
    sample = load_dataset("folder", root, "all", **options)[0]
    assert sample.image.shape == (480, 640, 3) and sample.depth.shape == (480, 640)
    known = sample.depth[sample.depth > 0]
    assert known.size > 0.5 * sample.depth.size
    if low is not None:
        np.testing.assert_allclose(np.quantile(known, (0.01, 0.99)), (low, high), atol=0.06)
    assert 0.3 < np.median(known) < 6, "a room"
    report = check_dataset("folder", root, **options)
    assert report.problems == []
    assert report.splits["all"].depth.high == known.max()


@real_data
def test_raw_numbers_of_the_genuine_kinect_file():
    content = (SAMPLES / "NYU_depth.pgm").read_bytes()
    numbers = np.frombuffer(content[-2 * 640 * 480 :], "<u2").reshape(480, 640)
    assert (numbers.min(), numbers.max()) == (839, 2047)
    depth = read_depth(SAMPLES / "NYU_depth.pgm", depth_format="kinect")
    np.testing.assert_array_equal(depth == 0, numbers == 2047)
    known = numbers < 2047
    np.testing.assert_allclose(1092.5 - 351.3 / depth[known], numbers[known], atol=1e-3)
    with pytest.raises(ValueError, match="NYU_depth.pgm holds the raw numbers of a Kinect"):
        read_depth(SAMPLES / "NYU_depth.pgm")


@real_data
def test_genuine_values_are_those_of_the_files():
    for name, options, value_of in (
        ("SUN_depth.png", {"depth_format": "sun"}, lambda v: ((v >> 3) + (v % 8) * 8192) / 1000),
        ("TUM_depth.png", {"scale": 5000}, lambda v: v / 5000),
        ("room/depth/00003.png", {"scale": 1000}, lambda v: v / 1000),
    ):
        stored = np.asarray(Image.open(SAMPLES / name)).astype(np.int64)
        np.testing.assert_allclose(read_depth(SAMPLES / name, **options), value_of(stored), rtol=1e-6)


@real_data
def test_the_room_is_a_video_with_depth():
    color, depth = SAMPLES / "room" / "color", SAMPLES / "room" / "depth"
    dataset = load_dataset("video", color, "all", depth=depth, depth_scale=1000)
    assert len(dataset) == 3, "five frames, of which the outer two are neighbours only"
    sample = dataset[0]
    assert sample.name.endswith("00001") and set(sample.frames) == {-1, 1}
    stored = np.asarray(Image.open(depth / "00001.png"))
    np.testing.assert_allclose(sample.depth, stored / 1000, rtol=1e-6)
    assert check_dataset("video", color, depth=str(depth), depth_scale=1000).problems == []
