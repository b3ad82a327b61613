"""Cameras and poses from files."""

import numpy as np
import pytest
import torch

from depthseg import geometry
from depthseg.data.calibration import read_calibration, read_poses, resize_intrinsics

CAMERA = [[700.0, 0, 600], [0, 710, 180], [0, 0, 1]]
ROW = "700 0 600 0 0 710 180 0 0 0 1 0"


@pytest.mark.parametrize(
    ("name", "text", "baseline"),
    [
        ("calib.txt", ROW, None),
        ("calib.txt", f"{ROW}\n700 0 600 -350 0 710 180 0 0 0 1 0", 0.5),
        ("calib.txt", f"P0: {ROW}\nP1: 700 0 600 -350 0 710 180 0 0 0 1 0\nTr: 1 0 0 0 0 1 0 0 0 0 1 0\n", 0.5),
        ("calib.txt", f"calib_time: 09-Jan\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_00: {ROW}\n", None),
        ("k.txt", "700 0 600\n0 710 180\n0 0 1\n", None),
        ("k.txt", "700, 0, 600\n\n0, 710, 180\n0, 0, 1", None),
        ("k.txt", "700 0 600 0\n0 710 180 0\n0 0 1 0", None),
        ("k.txt", "7e2 0 6e2 0 7.1e2 180 0 0 1", None),
        ("k.json", '{"fx": 7e2, "fy": 71e1, "cx": 600, "cy": 180}', None),
        ("calib.txt", '\n{"fx": 7e2, "fy": 710, "cx": 600, "cy": 180, "baseline": 5e-1}\n', 0.5),
        ("k.yaml", '{"fx": 7e2, "fy": 710, "cx": 600, "cy": 180}', None),
        ("k.txt", f"P0: {ROW}\nP1: 700.6 0 599.4 -350 0 709.5 180.5 0 0 0 1 0", 0.5),
        ("k.json", '{"fx": 700, "fy": 710, "cx": 600, "cy": 180.0, "baseline": 0.5}', 0.5),
        ("k.yaml", "fx: 700\nfy: 710\ncx: 600\ncy: 180\n", None),
        ("k.yaml", "fx: 7.e2\nfy: 7.1e2\ncx: 6e2\ncy: 180\n", None),
    ],
)
def test_known_forms_give_one_camera(tmp_path, name, text, baseline):
    (tmp_path / name).write_text(text)
    calibration = read_calibration(tmp_path / name)
    assert calibration.intrinsics.tolist() == CAMERA and calibration.intrinsics.dtype == np.float64
    assert calibration.baseline == baseline and calibration.size is None
    assert calibration.for_size((370, 1226)).tolist() == CAMERA


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "known forms are KITTI's calib.txt"),
        ("a.txt", "fx 700", "known forms"),
        ("a.txt", "700 0 600 0 710 180 0 0", "known forms"),
        ("a.txt", "0 700 600 710 0 180 0 0 1", "not the matrix of a camera"),
        ("a.txt", "700 0 600 0 nan 180 0 0 1", "not the matrix of a camera"),
        ("a.txt", "-700 0 600 0 700 180 0 0 1", "fx = -700"),
        ("a.json", "[1, 2]", "must name fx, fy, cx and cy"),
        ("a.json", '{"fx": 1, "fy": 1, "cx": 1}', "must name fx, fy, cx and cy"),
        ("a.json", '{"fx": 1', "not valid JSON"),
        ("calib.txt", "{fx: 1, fy: 1, cx: 1, cy: 1}", "not valid JSON"),
        ("a.yaml", "{fx: 1", "is not a YAML file that can be read"),
        (
            "a.json",
            '{"fx": 1, "fy": 1, "cx": 1, "cy": 1, "width": NaN, "height": 2}',
            "width: nan; it must be a number",
        ),
        (
            "a.txt",
            f"P0: {ROW}\nP1: 701 0 600 -350 0 710 180 0 0 0 1 0",
            r"fx \(700 and 701\): rectify .* to one camera",
        ),
        (
            "a.txt",
            f"P0: {ROW}\nP1: 700 0 630 -350 0 705 178 0 0 0 1 0",
            r"differ in fy \(710 and 705\), cx \(600 and 630\), cy \(180 and 178\): rectify the images",
        ),
        ("a.txt", "700 0 600 0 710 180 0 0 1\n700 5 600 0 710 180 0 0 1", r"differ in skew \(0 and 5\)"),
        ("a.yaml", "{fx: true, fy: 1, cx: 1, cy: 1}", "fx: True; it must be a number"),
        ("a.yaml", "{fx: 1, fy: 1, cx: 1, cy: 1, baseline: -1}", "baseline -1"),
    ],
)
def test_what_is_no_camera_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name} .*{message}"):
        read_calibration(tmp_path / name)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no calibration file .*a.txt"):
        read_calibration(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="no file of poses .*a.txt"):
        read_poses(tmp_path / "a.txt")


def test_the_size_of_the_images_must_be_that_of_the_file(tmp_path):
    (tmp_path / "k.json").write_text('{"fx": 700, "fy": 710, "cx": 600, "cy": 180, "width": 1226, "height": 370}')
    calibration = read_calibration(tmp_path / "k.json")
    assert calibration.size == (370, 1226) and calibration.for_size((370, 1226)).tolist() == CAMERA
    with pytest.raises(ValueError, match=r"for 1226x370 pixels and they are 1242x375; .*scale fx, cx by the width"):
        calibration.for_size((375, 1242))


@pytest.mark.parametrize("new_size", [(185, 613), (96, 320), (740, 1226)])
def test_resized_intrinsics_are_those_of_geometry(new_size):
    expected = geometry.scale_intrinsics(torch.tensor([CAMERA]).double(), (370, 1226), new_size)[0].numpy()
    np.testing.assert_allclose(resize_intrinsics(np.array(CAMERA), (370, 1226), new_size), expected, rtol=1e-12)


def test_poses_are_counted_by_lines_that_say_something(tmp_path):
    lines = [f"1 0 0 {k} 0 1 0 0 0 0 1 {k / 2}" for k in range(3)]
    for text in ("\n".join(lines), "\n".join(lines) + "\n\n", "\n\n".join(lines)):
        (tmp_path / "poses.txt").write_text(text)
        poses = read_poses(tmp_path / "poses.txt")
        assert poses.shape == (3, 4, 4) and poses[2].tolist() == [
            [1, 0, 0, 2],
            [0, 1, 0, 0],
            [0, 0, 1, 1],
            [0, 0, 0, 1],
        ]


@pytest.mark.parametrize(
    "line", ["1 2 3", "1 0 0 0 0 1 0 0 0 0 1 x", "1 0 0 nan 0 1 0 0 0 0 1 0", "2 0 0 0 0 1 0 0 0 0 1 0"]
)
def test_what_is_no_pose_is_named_by_its_line(tmp_path, line):
    (tmp_path / "poses.txt").write_text(f"1 0 0 0 0 1 0 0 0 0 1 0\n{line}\n")
    with pytest.raises(ValueError, match="Line 2 of .*poses.txt is not a pose"):
        read_poses(tmp_path / "poses.txt")
