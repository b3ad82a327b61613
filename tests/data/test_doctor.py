"""The doctor of videos against the exact motion of the procedural world, and against a real drive."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from data.video_files import world_frame, write_frames

from depthseg.cli import main
from depthseg.data.calibration import read_poses
from depthseg.data.doctor import LEAST_PARALLAX, examine_video
from depthseg.data.images import read_image
from depthseg.data.video_motion import measure_pair

KITTI = Path(os.environ.get("DEPTHSEG_DATA", "")) / "kitti_clip"
TURNING = ((0, 1), (0, 3), (5, 21))


def angle(start, end):
    """Degrees between two poses."""
    cosine = (np.trace(start[:3, :3].T @ end[:3, :3]) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def true_parallax(start, end):
    """Median share of the width that the known points move beyond the rotation."""
    rows, columns = np.nonzero(start["depth"])
    pixels = np.stack([columns, rows, np.ones(len(rows))])
    points = np.linalg.inv(start["intrinsics"]) @ pixels * start["depth"][rows, columns]
    motion = np.linalg.inv(end["pose"]) @ start["pose"]
    turned = motion[:3, :3] @ points
    moved = turned + motion[:3, 3:]
    places = [(end["intrinsics"] @ vectors)[:2] / vectors[2] for vectors in (turned, moved)]
    ahead = (turned[2] > 0.5) & (moved[2] > 0.5)
    inside = ahead & (places[1][0] > 0) & (places[1][0] < 319) & (places[1][1] > 0) & (places[1][1] < 95)
    return np.median(np.linalg.norm(places[1] - places[0], axis=0)[inside]) / 320


@pytest.fixture
def camera(tmp_path):
    def write(scene):
        k = world_frame(scene, 0)["intrinsics"]
        path = tmp_path / "camera.json"
        path.write_text(json.dumps({"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}))
        return path

    return write


@pytest.fixture
def drive(tmp_path):
    def write(scene, times, change=lambda number, image: image):
        images = [change(number, world_frame(scene, time)["image"]) for number, time in enumerate(times)]
        return write_frames(tmp_path / "drive", images)

    return write


@pytest.mark.parametrize("scene", TURNING)
def test_rotation_and_parallax_are_the_worlds(scene):
    start, end = world_frame(scene, 0), world_frame(scene, 1)
    found = measure_pair(start["image"], end["image"], start["intrinsics"])
    assert found.followed and angle(start["pose"], end["pose"]) > 0.8
    assert found.rotation == pytest.approx(angle(start["pose"], end["pose"]), abs=0.15)
    # Points are followed where there is contrast, the truth is of all points: the same order is all there can be.
    assert 0.4 < found.parallax / true_parallax(start, end) < 1.6


def test_a_camera_that_only_turns_shows_no_parallax():
    start = world_frame((0, 1), 0)
    k = start["intrinsics"]
    turn = np.radians(2)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    # Each pixel of the turned image looks up where its ray goes in the first one.
    rows, columns = np.mgrid[0:96, 0:320]
    rays = k @ rotation @ np.linalg.inv(k) @ np.stack([columns.ravel(), rows.ravel(), np.ones(96 * 320)])
    x, y = np.clip(rays[:2] / rays[2], 0, [[318.999], [94.999]])
    left, top = x.astype(int), y.astype(int)
    a, b = (x - left)[:, None], (y - top)[:, None]
    image = start["image"].astype(float)
    mixed = (image[top, left] * (1 - a) + image[top, left + 1] * a) * (1 - b)
    mixed += (image[top + 1, left] * (1 - a) + image[top + 1, left + 1] * a) * b
    found = measure_pair(start["image"], mixed.round().astype(np.uint8).reshape(96, 320, 3), k)
    assert found.rotation == pytest.approx(2, abs=0.05)
    assert found.motion > 0.02 and found.parallax < 5e-4


def test_a_drive_is_described(drive, camera):
    scene = (0, 1)
    report = examine_video(drive(scene, range(6)), calibration=camera(scene))
    poses = [world_frame(scene, time)["pose"] for time in range(6)]
    expected = np.median([angle(*pair) for pair in zip(poses[:-1], poses[1:], strict=True)])
    assert (report.clips, report.frames, report.pairs, report.size) == (1, 6, 5, (96, 320))
    assert report.rotation == pytest.approx(expected, abs=0.15)
    assert report.static_share == report.lost_share == 0 and report.calibrated
    assert report.suggested_stride == 1 and report.exposure_jumps == [] and report.advice == []
    assert "This video is suitable for training depth" in str(report)
    assert f"{report.rotation:.2f} degrees" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["suggested_stride"] == 1


def test_a_camera_that_stands_still_is_told(drive):
    noise = np.random.default_rng(0)

    def grain(number, image):
        return np.clip(image + noise.normal(0, 2, image.shape), 0, 255).astype(np.uint8)

    report = examine_video(drive((0, 1), [0] * 8, grain))
    assert report.static_share == 1 and report.suggested_stride is None
    assert report.advice[0].startswith("The camera does not move")
    assert "focal length cannot be estimated from this video, give a calibration" in report.advice[1]


def test_a_slow_video_gets_a_stride_at_which_it_is_not_slow(drive, camera):
    scene, slowness = (0, 3), 8
    path = drive(scene, np.arange(17) / slowness)
    report = examine_video(path, calibration=camera(scene), pairs=8)
    assert report.parallax < LEAST_PARALLAX
    assert report.suggested_stride in (slowness // 4, slowness // 2)
    assert f"use stride {report.suggested_stride}" in report.advice[0]
    again = examine_video(path, calibration=camera(scene), stride=report.suggested_stride, pairs=8)
    assert again.parallax >= LEAST_PARALLAX and again.suggested_stride == report.suggested_stride
    # The same drive turns as fast whatever stride it is looked at with.
    expected = angle(world_frame(scene, 0)["pose"], world_frame(scene, 1)["pose"]) / slowness
    assert report.rotation == pytest.approx(expected, abs=0.05)
    assert again.rotation == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("gain", [0.7, 1.4])
def test_jumps_of_the_exposure_are_found_where_they_are(drive, gain):
    def expose(number, image):
        return np.clip(image * (0.7 * gain if number in (3, 4) else 0.7), 0, 255).astype(np.uint8)

    report = examine_video(drive((0, 1), range(7), expose))
    assert report.exposure_jumps == ["drive/000003", "drive/000005"]
    assert "The brightness jumps at 2 of the frames" in report.advice[-1]
    assert report.lost_share == 0


@pytest.mark.parametrize("gain", [1 / 2, 0.7, 1.3, 2])
def test_a_change_of_the_exposure_does_not_pass_for_motion(gain):
    start, end = world_frame((0, 3), 0), world_frame((0, 3), 1)
    dark, bright = ((scale * image["image"]).astype(np.uint8) for scale, image in ((0.5, start), (0.5 * gain, end)))
    same = measure_pair(dark, (0.5 * end["image"]).astype(np.uint8), start["intrinsics"])
    found = measure_pair(dark, bright, start["intrinsics"])
    assert found.followed and found.gain == pytest.approx(gain, rel=0.05)
    assert found.parallax == pytest.approx(same.parallax, rel=0.1)
    assert found.rotation == pytest.approx(same.rotation, abs=0.1)


def test_images_of_depth_are_not_frames(drive, camera, capsys):
    path = drive((0, 1), range(4))
    write_frames(path.parent / "depth" / "drive", [np.full((96, 320), 512, np.uint16)] * 3, "00000{}.png")
    words = [str(path.parent), "--calibration", str(camera((0, 1))), "--json"]
    for options, clips in ((["--depth", "depth"], 1), ([], 2)):
        with pytest.raises(SystemExit):
            main(["datasets", "doctor", *words, *options])
        assert json.loads(capsys.readouterr().out)["clips"] == clips


def test_little_depth_does_not_stop_the_search_for_a_stride(drive):
    path = drive((0, 3), np.arange(12) / 32)
    write_frames(path.parent / "depth", [np.full((96, 320), 512, np.uint16)], "000001.png")
    report = examine_video(path.parent, depth="depth")
    assert report.clips == 1 and report.suggested_stride is None


def test_images_without_anything_in_common_cannot_be_followed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (4, 96, 320, 3), dtype=np.uint8)
    report = examine_video(write_frames(tmp_path / "a", list(noise)))
    assert report.lost_share == 1 and report.motion is None and report.suggested_stride is None
    assert report.advice[0].startswith("In 100% of the pairs too few points can be followed")
    assert "not measured" in str(report)


def test_a_image_of_nothing_is_told_as_well(tmp_path):
    report = examine_video(write_frames(tmp_path / "a", [np.zeros((48, 64, 3), np.uint8)] * 4))
    assert report.lost_share == 1 and np.isfinite(json.loads(json.dumps(report.to_dict()))["lost_share"])


def test_the_command_prints_a_table_or_json(drive, camera, capsys):
    path, calibration = drive((0, 1), range(4)), camera((0, 1))
    for words, found in (([], "suggested stride"), (["--json", "--stride", "2"], '"stride": 2')):
        with pytest.raises(SystemExit) as exit_info:
            main(["datasets", "doctor", str(path), "--calibration", str(calibration), *words])
        assert not exit_info.value.code and found in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: .*nowhere"):
        main(["datasets", "doctor", "nowhere"])


def test_missing_opencv_is_a_sentence(drive, monkeypatch):
    path = drive((0, 1), range(3))
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ImportError, match="OpenCV: python -m pip install"):
        examine_video(path)


@pytest.mark.skipif(not KITTI.is_dir(), reason="DEPTHSEG_DATA names no folder that holds kitti_clip/")
def test_the_kitti_clip_drives_straight_on():
    report = examine_video(KITTI, pairs=16)
    assert report.calibrated and report.static_share == report.lost_share == 0
    poses = read_poses(KITTI / "poses.txt")
    turns = [angle(poses[k], poses[k + 1]) for k in range(50)]
    assert report.rotation == pytest.approx(np.median(turns), abs=0.1)
    assert report.suggested_stride == 1 and report.exposure_jumps == []
    assert len(report.advice) == 1 and "shows no rotation" in report.advice[0]
    k = np.array([[707.0912, 0, 601.8873], [0, 707.0912, 183.1104], [0, 0, 1]])
    for start in (3, 24, 41):
        images = [read_image(KITTI / "image_l" / f"{number:06d}.png") for number in (start, start + 2)]
        found = measure_pair(*images, k)
        assert found.rotation == pytest.approx(angle(poses[start], poses[start + 2]), abs=0.2)
