import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg.data import load_dataset
from depthseg.data.calibration import read_calibration
from depthseg.data.images import read_depth
from depthseg.data.official.kitti_calibration import read_rig
from depthseg.data.official.kitti_poses import imu_pose, read_oxts
from depthseg.data.official.velodyne import project_velodyne, read_velodyne

real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder with kitti_drive/ and samples/"
)

P2 = "7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.728540e+02 2.163791e-01 0 0 1 2.745884e-03"
P3 = "7.215377e+02 0 6.095593e+02 -3.395242e+02 0 7.215377e+02 1.728540e+02 2.199936e+00 0 0 1 2.729905e-03"
UNIT = "1 0 0 0 1 0 0 0 1"
AXES = "0 -1 0 0 0 -1 1 0 0"


@pytest.fixture
def date(tmp_path):
    """Folder of a date with the published projections of 2011_09_26, and unit rotations."""
    folder = tmp_path / "2011_09_26"
    folder.mkdir()
    (folder / "calib_cam_to_cam.txt").write_text(
        f"calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.95e-02\nS_rect_02: 1.242000e+03 3.750000e+02\n"
        f"R_rect_00: {UNIT}\nP_rect_02: {P2}\nP_rect_03: {P3}\n"
    )
    (folder / "calib_velo_to_cam.txt").write_text(f"calib_time: 15-Mar-2012 11:37:16\nR: {AXES}\nT: 0 0 0\n")
    return folder


def test_a_date_gives_the_published_camera(date):
    rig = read_rig(date)
    assert rig.intrinsics(2, (375, 1242)).tolist() == [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]]
    assert rig.stereo_x(2, 3) == pytest.approx(0.53272545, abs=1e-7)
    assert rig.stereo_x(3, 2) == -rig.stereo_x(2, 3)
    assert rig.imu_to_velo is None and rig.camera_to_imu(2) is None


@pytest.mark.parametrize(
    "text",
    [
        f"P2: {P2}\nP3: {P3}\nR0_rect: {UNIT}\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n",
        f"P_rect_02: {P2}\nP_rect_03: {P3}\nR_rect_00: {UNIT}\nTr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 0\n",
        f"P2: {P2}\nP3: {P3}\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n",
    ],
    ids=["object", "raw in one file", "odometry"],
)
def test_all_forms_say_the_same(date, tmp_path, text):
    path = tmp_path / "calib.txt"
    path.write_text(text)
    rig, expected = read_rig(path), read_rig(date)
    np.testing.assert_array_equal(rig.velodyne_projection(2), expected.velodyne_projection(2))
    np.testing.assert_array_equal(rig.projections[3], expected.projections[3])


def test_a_point_is_projected_as_by_hand(date):
    # 10 m ahead, 1 m to the right and 0.5 m down: camera axes (1, 0.5, 10) plus the place of camera 2.
    depth = project_velodyne(np.float32([[10, -1, -0.5, 0.2]]), read_rig(date).velodyne_projection(2), (375, 1242))
    z = 10 + 2.745884e-03
    column = round((721.5377 * 1 + 609.5593 * 10 + 44.85728) / z)
    row = round((721.5377 * 0.5 + 172.854 * 10 + 0.2163791) / z)
    assert np.argwhere(depth).tolist() == [[row, column]]
    assert depth[row, column] == pytest.approx(z, rel=1e-6)
    eigen = project_velodyne(
        np.float32([[10, -1, -0.5, 0.2]]), read_rig(date).velodyne_projection(2), (375, 1242), "eigen"
    )
    assert np.argwhere(eigen).tolist() == [[row - 1, column - 1]]
    assert eigen[row - 1, column - 1] == 10


def test_the_evaluation_of_eigen_takes_both_ends_of_a_row_for_one_pixel():
    """Public code numbers pixels `row * (width - 1) + column - 1`; the first of two points gets the closer value."""
    projection = np.array([[0, -1.0, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]])
    # Columns 1 to 4 and rows 1 to 3 of the scanner's axes are the pixels (0, 0) to (3, 2) here.
    right, left = (8, -4 * 8, -1 * 8), (5, -1 * 5, -2 * 5)  # last pixel of the first row, first pixel of the second
    for points, first, second in (((right, left), 5, 5), ((left, right), 8, 5)):
        depth = project_velodyne(np.float32(points), projection, (3, 4), "eigen")
        assert (depth[0, 3], depth[1, 0]) == (first, second)
        assert np.count_nonzero(depth) == 2


@pytest.mark.parametrize("convention", ["camera", "eigen"])
def test_of_several_points_in_a_pixel_the_closest_counts(convention):
    """Against the definition, point by point; the borders are left out, where `eigen` has a quirk of its own."""
    random = np.random.default_rng(0)
    points = np.concatenate([random.uniform((-5, -9, -2), (30, 9, 1), (4000, 3)), np.zeros((4000, 1))], 1)
    points = points.astype(np.float32)
    projection = np.array([[20.0, -40, 0, 3], [9, 0, -40, 1], [1, 0, 0, -0.2]])
    found = project_velodyne(points, projection, (18, 40), convention)
    expected = np.zeros((18, 40), np.float32)
    for point in points:
        u, v, z = projection[:, :3] @ point[:3].astype(np.float64) + projection[:, 3]
        if point[0] < 0 or z <= 0:
            continue
        shift = convention == "eigen"
        column, row, value = round(u / z) - shift, round(v / z) - shift, point[0] if shift else np.float32(z)
        if 0 <= column < 40 and 0 <= row < 18 and (expected[row, column] == 0 or value < expected[row, column]):
            expected[row, column] = value
    assert np.count_nonzero(expected) > 300
    np.testing.assert_array_equal(found[:, 1:-1], expected[:, 1:-1])


def test_navigation_is_metres_east_and_north():
    origin = np.array([49.0, 8.4, 100.0, 0, 0, 0])
    north = imu_pose(np.array([49.001, 8.4, 101.0, 0, 0, math.pi / 2]), origin)
    # A thousandth of a degree of a sphere of that radius.
    assert north[:3, 3] == pytest.approx([0, math.radians(0.001) * 6378137, 1], abs=2e-3)
    assert north[:3, 0] == pytest.approx([0, 1, 0])  # what is ahead of the car is north
    east = imu_pose(np.array([49.0, 8.401, 100.0, 0.1, 0, 0]), origin)
    assert east[:3, 3] == pytest.approx([math.radians(0.001) * 6378137 * math.cos(math.radians(49)), 0, 0])
    assert east[:3, 1] == pytest.approx([0, math.cos(0.1), math.sin(0.1)])  # a roll lifts what is left
    down = imu_pose(np.array([49.0, 8.4, 100.0, 0, 0.1, 0]), origin)
    assert down[:3, 0] == pytest.approx([math.cos(0.1), 0, -math.sin(0.1)])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("calib_cam_to_cam.txt", "R_rect_00", "R_rect_0", r"cam_to_cam.txt has no line R_rect_00.* 2011_09_26_calib"),
        ("calib_cam_to_cam.txt", "P_rect_0", "Q_rect_0", r"cam_to_cam.txt has no projection matrix.* Unpack"),
        (
            "calib_cam_to_cam.txt",
            f"R_rect_00: {UNIT}",
            "R_rect_00: 1 0 0",
            r"has 3 numbers in its line R_rect_00; 3x3",
        ),
        ("calib_cam_to_cam.txt", f"R_rect_00: {UNIT}", "R_rect_00: 2 0 0 0 1 0 0 0 1", r"R_rect_00 is not a rotation"),
        ("calib_cam_to_cam.txt", "P_rect_02: 7.2", "P_rect_02: -7.2", r"P_rect_02 is not the projection of a camera"),
        ("calib_cam_to_cam.txt", "7.215377e+02 0 6", "7.215x77e+02 0 6", r"Line 5 of .*cam_to_cam.txt is damaged"),
        ("calib_cam_to_cam.txt", "6.095593e+02", "nan", r"Line 5 of .*cam_to_cam.txt is damaged.* finite numbers"),
        ("calib_velo_to_cam.txt", "T: 0 0 0", "", r"velo_to_cam.txt has no line T. Unpack 2011_09_26_calib.zip again"),
        ("calib_velo_to_cam.txt", "T: 0 0 0", "T: 0 0", r"velo_to_cam.txt has 2 numbers in its line T; 3x1"),
    ],
)
def test_damaged_calibrations_are_named(date, file, old, new, message):
    path = date / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_rig(date)


def test_what_is_missing_is_named(date, tmp_path):
    rig = read_rig(date)
    with pytest.raises(ValueError, match=r"cam_to_cam.txt does not fit .* 640x192 pixels: it is for 1242x375. Use"):
        rig.intrinsics(2, (192, 640))
    with pytest.raises(ValueError, match=r"camera 3, 600x375 pixels: its principal point is outside. Use"):
        rig.intrinsics(3, (375, 600))
    with pytest.raises(ValueError, match=r"does not fit .* 1241x376 pixels: it is for 1242x375. Use the calibration"):
        rig.intrinsics(2, (376, 1241))
    with pytest.raises(ValueError, match=r"cam_to_cam.txt has no projection matrix of camera 0, only of 2, 3"):
        rig.intrinsics(0, (375, 1242))
    (date / "calib_velo_to_cam.txt").unlink()
    with pytest.raises(ValueError, match=r"does not say where the laser scanner is.* calib_velo_to_cam.txt"):
        read_rig(date).velodyne_projection(2)
    (date / "calib_cam_to_cam.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no calibration file .*cam_to_cam.txt. Unpack 2011_09_26_calib.zip"):
        read_rig(date)


@pytest.mark.parametrize("content", ["", "49 8 100 0 0", "49 8 x", "nan " * 30])
def test_a_damaged_packet_is_named(tmp_path, content):
    path = tmp_path / "2011_09_26_drive_0001_sync" / "oxts" / "data" / "0000000003.txt"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"0000000003.txt is not a navigation packet.* Unpack 2011_09_26_drive_0001"):
        read_oxts(path)


@real_data
@pytest.mark.parametrize("frame", ["0000000000", "0000000030", "0000000060"])
def test_real_sweeps_give_the_depth_maps_that_were_made_of_them(frame):
    folder = Path(os.environ["DEPTHSEG_DATA"]) / "kitti_drive"
    expected = read_depth(next((folder / "depth").glob(f"*{frame}.png")))
    points = read_velodyne(folder / "velodyne" / f"{frame}.bin")
    projection = read_rig(folder / "calib.txt").velodyne_projection(2)
    found = project_velodyne(points, projection, expected.shape)
    assert np.count_nonzero(found) > 10_000
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1 / 512 + 1e-5)


@real_data
def test_the_real_drive_is_read_as_a_video_with_its_last_frames_held_out():
    folder = Path(os.environ["DEPTHSEG_DATA"]) / "kitti_drive"
    options = {"depth": "../depth", "calibration": "../calib.txt", "frames": [], "val_fraction": 10 / 78}
    train, val = (load_dataset("video", folder / "images", split, **options) for split in ("train", "val"))
    assert len(train) == 68 and val.names == [f"images/{number:010d}" for number in range(68, 78)]
    sample = val[0]
    assert sample.intrinsics.tolist() == [[721.5377, 0, 609.5593], [0, 721.5377, 172.854], [0, 0, 1]]
    assert sample.depth.shape == (375, 1242) and 10_000 < np.count_nonzero(sample.depth) < 25_000
    assert read_calibration(folder / "calib.txt").baseline is None


@real_data
def test_a_real_stereo_pair_and_its_sweep_agree():
    """Where the scanner measured, the right image looks like the left one at the disparity of that depth."""
    folder = Path(os.environ["DEPTHSEG_DATA"]) / "samples" / "kitti_stereo"
    rig = read_rig(folder / "calib" / "0000000001.txt")
    baseline = rig.stereo_x(2, 3)
    assert 0.53 < baseline < 0.54
    left, right = (
        np.asarray(Image.open(folder / side / "0000000001.png").convert("L"), np.float64)
        for side in ("image_2", "image_3")
    )
    points = read_velodyne(folder / "velodyne" / "0000000001.bin")
    depth = project_velodyne(points, rig.velodyne_projection(2), left.shape)
    rows, columns = np.nonzero((depth > 5) & (depth < 40))
    disparity = rig.intrinsics(2, left.shape)[0, 0] * baseline / depth[rows, columns]
    assert 9 < np.median(disparity) < 77

    def difference(shift: float) -> float:
        there = np.round(columns - disparity + shift).astype(int)
        inside = (there >= 0) & (there < left.shape[1])
        return float(np.abs(left[rows, columns] - right[rows, np.clip(there, 0, left.shape[1] - 1)])[inside].mean())

    assert abs(min(range(-8, 9), key=difference)) <= 1
