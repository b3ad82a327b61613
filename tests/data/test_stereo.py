"""Rectified pairs: partners, depth from disparity, cameras; and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthseg import geometry
from depthseg.data import StereoPairs, load_dataset
from depthseg.data.synthetic import render

MOTORCYCLE = Path(os.environ.get("DEPTHSEG_DATA", "")) / "stereo_motorcycle"


@pytest.fixture
def root(tmp_path):
    """Four pairs of 6x4; disparity as 16-bit PNG, NumPy array and PFM, and none."""
    for side, value in (("left", 10), ("right", 20)):
        (tmp_path / side).mkdir()
        for number in range(4):
            Image.new("RGB", (6, 4), (value, number, 0)).save(tmp_path / side / f"{number}.png")
    (tmp_path / "disparity").mkdir()
    Image.fromarray(np.array([[0, 256, 512, 1024, 128, 65535]] * 4, np.uint16)).save(tmp_path / "disparity/0.png")
    np.savez(tmp_path / "disparity/1.npz", np.array([[np.inf, 2, np.nan, 4, 0, 0.5]] * 4))
    rows = np.arange(24, dtype=">f4").reshape(4, 6)
    (tmp_path / "disparity/2.pfm").write_bytes(b"Pf\n6 4\n1.0\n" + rows[::-1].tobytes())
    return tmp_path


def test_both_images_and_where_the_other_camera_is(root):
    data = load_dataset("stereo", root, "train", baseline=0.5, focal=8)
    assert data.names == ["0", "1", "2", "3"] and data.label_space is None
    sample = data[3]
    assert sample.image[0, 0].tolist() == [10, 3, 0] and sample.stereo[0, 0].tolist() == [20, 3, 0]
    assert sample.stereo_x == 0.5 and sample.depth is None
    assert sample.intrinsics.tolist() == [[8, 0, 2.5], [0, 8, 1.5], [0, 0, 1]]


def test_depth_is_focal_times_baseline_over_disparity(root):
    data = StereoPairs(root, baseline=0.5, focal=8)
    assert data[0].depth[0].tolist() == [0, 4, 2, 1, 8, np.float32(4 * 256 / 65535)]
    assert data[1].depth[0].tolist() == [0, 2, 0, 1, 0, 8]
    assert data[2].depth[:, 1].tolist() == [4, np.float32(4 / 7), np.float32(4 / 13), np.float32(4 / 19)]
    assert data[2].depth.dtype == np.float32
    (root / "disparity/0.png").write_bytes(b"has_depth does not read it")
    assert [data.has_depth(index) for index in range(4)] == [True, True, True, False]


def test_without_any_camera_depth_is_in_baselines(root):
    sample = StereoPairs(root)[0]
    assert sample.stereo_x == 1 and sample.intrinsics[0, 0] == 6
    assert sample.depth[0, :3].tolist() == [0, 6, 3]


def test_the_calibration_says_focal_length_and_baseline(root):
    (root / "calib.txt").write_text("P0: 5 0 3 0 0 5 2 0 0 0 1 0\nP1: 5 0 3 -2 0 5 2 0 0 0 1 0\n")
    sample = StereoPairs(root)[0]
    assert sample.stereo_x == pytest.approx(0.4) and sample.depth[0, 1] == pytest.approx(2)
    assert sample.intrinsics.tolist() == [[5, 0, 3], [0, 5, 2], [0, 0, 1]]
    assert StereoPairs(root, baseline=3)[0].stereo_x == 3
    with pytest.raises(ValueError, match="focal=4 and .*calib.txt both say the focal length"):
        StereoPairs(root, focal=4)
    (root / "calib.txt").write_text("P0: 5 0 30 0 0 5 2 0 0 0 1 0\nP1: 5 0 30 2 0 5 2 0 0 0 1 0\n")
    with pytest.raises(ValueError, match="baseline -0.4; .*left camera first"):
        StereoPairs(root)
    (root / "camera.yaml").write_text("{fx: 5, fy: 5, cx: 30, cy: 2, baseline: 0.2}")
    with pytest.raises(ValueError, match=r"camera.yaml does not fit .* \(30, 2\) lies outside of 6x4"):
        StereoPairs(root, calibration="camera.yaml")[0]


def test_val_is_the_end(root):
    assert StereoPairs(root, "val", val_fraction=0.25).names == ["3"]
    assert StereoPairs(root, "train", val_fraction=0.25).names == ["0", "1", "2"]
    assert StereoPairs(root, "val").names == StereoPairs(root, "train").names == StereoPairs(root, "all").names
    with pytest.raises(ValueError, match="'val' .* is empty: val_fraction=0.1 of 4 pairs"):
        StereoPairs(root, "val", val_fraction=0.1)


def test_pairs_of_a_video_bring_their_neighbours(root):
    pairs = StereoPairs(root, frames=[-1, 1], stride=1)
    assert pairs.names == ["1", "2"]
    for index, name in enumerate(pairs.names):
        for offset in (-1, 1):
            expected = np.asarray(Image.open(root / "left" / f"{int(name) + offset}.png"))
            assert np.array_equal(pairs[index].frames[offset], expected)
    assert StereoPairs(root, frames=[1], stride=2).names == ["0", "1"]
    with pytest.raises(ValueError, match="a sample takes 5 in a row"):
        StereoPairs(root, frames=[-1, 1], stride=2)
    with pytest.raises(ValueError, match="other than 0"):
        StereoPairs(root, frames=[0])


def test_what_does_not_fit_is_named(root):
    for options in ({"baseline": 0}, {"focal": -1}):
        with pytest.raises(ValueError, match="must be above 0"):
            StereoPairs(root, **options)
    Image.new("RGB", (6, 5)).save(root / "right/1.png")
    with pytest.raises(ValueError, match="right/1.png is 6x5 pixels, .*left/1.png is 6x4"):
        StereoPairs(root)[1]
    np.save(root / "disparity/3.npy", -np.ones((4, 6)))
    with pytest.raises(ValueError, match="3.npy holds negative values, the lowest is -1"):
        StereoPairs(root)[3]
    (root / "right/2.png").unlink()
    with pytest.raises(FileNotFoundError, match="left/2.png has no partner of the same name in .*right"):
        StereoPairs(root)


def test_a_pair_of_the_world_fits_together(tmp_path):
    """The data set's depth, camera and baseline carry the right image onto the left one."""
    size = (48, 144)
    left, right = (
        render(5, 21, size, view=view, outputs=("image", "depth", "intrinsics", "pose")) for view in ("left", "right")
    )
    for side, frame in (("left", left), ("right", right)):
        (tmp_path / side).mkdir()
        Image.fromarray(frame["image"]).save(tmp_path / side / "a.png")
    baseline = float(np.linalg.norm(right["pose"][:3, 3] - left["pose"][:3, 3]))
    k = left["intrinsics"]
    (tmp_path / "disparity").mkdir()
    with np.errstate(divide="ignore"):
        np.save(tmp_path / "disparity/a.npy", np.where(left["depth"] > 0, k[0, 0] * baseline / left["depth"], 0))
    camera = {"fx": k[0, 0], "fy": k[1, 1], "cx": k[0, 2], "cy": k[1, 2], "baseline": baseline}
    (tmp_path / "camera.yaml").write_text("\n".join(f"{key}: {float(value)}" for key, value in camera.items()))
    sample = StereoPairs(tmp_path, calibration="camera.yaml")[0]
    np.testing.assert_allclose(sample.depth, left["depth"], rtol=1e-5)
    pose = geometry.pose_from_axis_angle(torch.zeros(1, 3), torch.tensor([[-sample.stereo_x, 0.0, 0.0]]))
    image, depth, camera = (
        torch.tensor(np.asarray(part, np.float32))[None] for part in (sample.stereo, sample.depth, sample.intrinsics)
    )
    warped, mask = geometry.reproject(image.permute(0, 3, 1, 2), depth, camera, camera, pose)
    error = (warped[0].permute(1, 2, 0) - torch.tensor(sample.image.astype(np.float32))).abs().mean(-1)
    before = (image[0] - torch.tensor(sample.image.astype(np.float32))).abs().mean(-1)
    assert error[mask[0]].median() < 2 < before[mask[0]].mean() / 4


@pytest.mark.skipif(not MOTORCYCLE.is_dir(), reason="DEPTHSEG_DATA names no folder that holds stereo_motorcycle/")
def test_the_motorcycle(tmp_path):
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        shutil.copy(MOTORCYCLE / f"motorcycle_{side}.png", tmp_path / side / "motorcycle.png")
    (tmp_path / "disparity").mkdir()
    shutil.copy(MOTORCYCLE / "motorcycle_disp.npz", tmp_path / "disparity" / "motorcycle.npz")
    sample = StereoPairs(tmp_path)[0]
    truth = np.load(MOTORCYCLE / "motorcycle_disp.npz")["arr_0"]
    known = np.isfinite(truth)
    assert np.array_equal(sample.depth > 0, known) and known.any() and not known.all()
    np.testing.assert_allclose(741 / sample.depth[known], truth[known], rtol=1e-5)
