"""Videos as training data: which frames, in which order, with which camera; and what is refused."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from data.video_files import noisy_frames, write_frames, write_video
from PIL import Image

from depthseg.data import VideoSequences, clips, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.doctor import examine_video
from depthseg.data.images import read_image

KITTI = Path(os.environ.get("DEPTHSEG_DATA", "")) / "kitti_clip"
needs_kitti = pytest.mark.skipif(not KITTI.is_dir(), reason="DEPTHSEG_DATA names no folder that holds kitti_clip/")


def same_samples(one, other):
    return len(one) == len(other) > 0 and all(
        np.array_equal(a.image, b.image)
        and a.frames.keys() == b.frames.keys()
        and all(np.array_equal(a.frames[key], b.frames[key]) for key in a.frames)
        for a, b in zip(one, other, strict=True)
    )


@pytest.fixture
def frames():
    return noisy_frames()


@pytest.fixture
def drive(tmp_path, frames):
    """A clip as KITTI odometry has it: 12 frames of 64x48, a calibration and poses without a last line break."""
    write_frames(tmp_path / "drive" / "image_l", frames)
    (tmp_path / "drive" / "calib.txt").write_text(
        "P0: 60 0 30 0 0 61 20 0 0 0 1 0\nP1: 60 0 30 -30 0 61 20 0 0 0 1 0\n"
    )
    poses = "\n".join(f"1 0 0 {number} 0 1 0 0 0 0 1 {2 * number}" for number in range(12))
    (tmp_path / "drive" / "poses.txt").write_text(poses)
    return tmp_path / "drive"


def test_every_frame_with_both_neighbours_is_a_sample(drive, frames):
    data = load_dataset("video", drive, "train")
    assert data.names == [f"image_l/{number:06d}" for number in range(1, 11)]
    for number, sample in enumerate(data, 1):
        assert sample.name == data.names[number - 1] and sample.frames.keys() == {-1, 1}
        assert np.array_equal(sample.image, frames[number])
        assert all(np.array_equal(sample.frames[step], frames[number + step]) for step in (-1, 1))
        assert sample.intrinsics.tolist() == [[60, 0, 30], [0, 61, 20], [0, 0, 1]]
    assert data.poses[:, 0, 3].tolist() == list(range(1, 11)) and data.poses.shape == (10, 4, 4)
    assert data.frame_rate is None and data.label_space is None


@pytest.mark.parametrize(
    ("offsets", "stride", "first", "last"),
    [((-1, 1), 3, 3, 8), ((1, 2), 2, 0, 7), ((-2,), 1, 2, 11), ((), 1, 0, 11), ((1, -3), 1, 3, 10)],
)
def test_offsets_count_in_strides(drive, frames, offsets, stride, first, last):
    data = VideoSequences(drive, frames=offsets, stride=stride)
    assert data.names == [f"image_l/{number:06d}" for number in range(first, last + 1)]
    for number, sample in enumerate(data, first):
        assert tuple(sample.frames) == offsets
        assert all(np.array_equal(sample.frames[k], frames[number + k * stride]) for k in offsets)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [("drive.mp4", "libx264rgb", "rgb24", {"qp": "0"}), ("drive.mkv", "ffv1", "bgr0", {})],
)
def test_a_lossless_video_is_its_folder_of_frames(tmp_path, frames, name, codec, pixels, options):
    folder = VideoSequences(write_frames(tmp_path / "drive", frames))
    path = write_video(tmp_path / name, frames, codec, pixels, **options)
    video = VideoSequences(path)
    assert same_samples(folder, video)
    assert video.names == folder.names and video.frame_rate == 10 and folder.frame_rate is None
    backwards = VideoSequences(path)
    assert all(np.array_equal(backwards[k].image, folder[k].image) for k in reversed(range(len(folder))))


def test_clips_lie_side_by_side_and_neighbours_stay_in_them(tmp_path, frames):
    write_frames(tmp_path / "town" / "b10", frames[:4])
    write_frames(tmp_path / "town" / "b9", frames[4:7], "f{}.png")
    write_video(tmp_path / "c.mkv", frames[7:], "ffv1", "bgr0")
    (tmp_path / "notes.txt").touch()
    data = VideoSequences(tmp_path, "all")
    assert data.names == ["c/000001", "c/000002", "c/000003", "town/b9/f1", "town/b10/000001", "town/b10/000002"]
    assert np.array_equal(data[3].frames[1], frames[6])
    assert data.frame_rate is None and data.poses is None


def test_clips_may_be_chosen_and_have_the_calibration_nearest_to_them(tmp_path, frames):
    for name in ("monday/front", "monday/rear", "tuesday", "labels"):
        write_frames(tmp_path / name, frames[:3])
    (tmp_path / "monday" / "calib.txt").write_text("50 0 32 0 50 24 0 0 1")
    data = VideoSequences(tmp_path, clips=["tuesday", "monday/front"])
    assert data.names == ["tuesday/000001", "monday/front/000001"]
    assert data[0].intrinsics is None and data[1].intrinsics[0].tolist() == [50, 0, 32]
    assert list(check_dataset("video", tmp_path, clips=["tuesday"]).splits) == ["tuesday"]
    assert examine_video(tmp_path, clips=["monday"]).clips == 2
    with pytest.raises(FileNotFoundError, match="There is no video file or folder .*wednesday"):
        VideoSequences(tmp_path, clips=["wednesday"])


def test_frames_are_in_natural_order(tmp_path, frames):
    write_frames(tmp_path / "a", frames, "frame_{}.png")
    data = VideoSequences(tmp_path / "a")
    assert data.names[8:] == ["a/frame_9", "a/frame_10"]
    assert np.array_equal(data[8].frames[1], frames[10])


def test_grey_frames_have_three_equal_channels(tmp_path, frames):
    grey = [frame[..., 0].copy() for frame in frames[:3]]
    sample = VideoSequences(write_frames(tmp_path / "a", grey))[0]
    assert np.array_equal(sample.image, np.dstack([grey[1]] * 3))


def test_val_is_the_end_of_each_clip_and_shares_no_frame_with_train(drive, frames):
    train, val = (VideoSequences(drive, split, val_fraction=0.4) for split in ("train", "val"))
    assert train.names == [f"image_l/{number:06d}" for number in range(1, 6)]
    assert val.names == [f"image_l/{number:06d}" for number in range(8, 11)]
    assert np.array_equal(val[0].frames[-1], frames[7]) and np.array_equal(train[-1].frames[1], frames[6])
    assert val.poses[:, 0, 3].tolist() == [8, 9, 10]
    names = [VideoSequences(drive, split).names for split in ("train", "val", "all")]
    assert names[0] == names[1] == names[2]
    with pytest.raises(ValueError, match=r"'val' of .*drive has no sample.* 3 in a row.*val_fraction=0.1"):
        VideoSequences(drive, "val", val_fraction=0.1)


def test_resized_frames_take_intrinsics_and_depth_along(drive, frames):
    depth = np.zeros((48, 64), np.uint16)
    depth[1::8, 1::8] = 256 * np.arange(48).reshape(6, 8)
    write_frames(drive / "depth", [depth], "000003.png")
    data = VideoSequences(drive, depth="depth", size=(24, 32))
    sample = data[2]
    assert sample.image.shape == sample.frames[-1].shape == (24, 32, 3)
    expected = np.asarray(Image.fromarray(frames[3]).resize((32, 24), Image.Resampling.BILINEAR))
    assert np.array_equal(sample.image, expected)
    # The centre of a pixel of the small image is half a pixel right of that of every other large one.
    assert sample.intrinsics.tolist() == [[30, 0, 14.75], [0, 30.5, 9.75], [0, 0, 1]]
    assert sample.depth.shape == (24, 32) and set(np.unique(sample.depth)) <= set(range(48))
    assert data[0].depth is None


def test_depth_goes_by_the_name_of_the_frame(tmp_path, frames):
    for clip in "ab":
        write_frames(tmp_path / clip, frames[:4])
        (tmp_path / "true" / clip).mkdir(parents=True)
        np.save(tmp_path / "true" / clip / "000002.npy", np.full((48, 64), ord(clip), np.float32))
    data = VideoSequences(tmp_path, depth=tmp_path / "true")
    assert data.names == ["a/000001", "a/000002", "b/000001", "b/000002"]
    values = [None if sample.depth is None else sample.depth[0, 0] for sample in data]
    assert values == [None, ord("a"), None, ord("b")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty has no depth file for any frame, such as a/000001.png"):
        VideoSequences(tmp_path, depth="empty")
    with pytest.raises(FileNotFoundError, match="depth files nowhere does not exist"):
        VideoSequences(tmp_path, depth="nowhere")


def test_has_depth_and_pixel_aspect_read_no_more_than_they_must(tmp_path, frames):
    write_frames(tmp_path / "a", frames[:4])
    write_frames(tmp_path / "b", [frame[:24] for frame in frames[:3]])
    (tmp_path / "true" / "a").mkdir(parents=True)
    (tmp_path / "true" / "a" / "000002.npy").write_bytes(b"not read")
    data = VideoSequences(tmp_path, depth="true", size=(12, 32))
    assert [data.has_depth(index) for index in range(3)] == [False, True, False]
    # 64x48 and 64x24 become 32x12: in the first clip the height is squeezed twice as much as the width.
    assert [data.pixel_aspect(index) for index in range(3)] == [0.5, 0.5, 1.0]
    plain = VideoSequences(tmp_path / "a")
    assert not plain.has_depth(0) and plain.pixel_aspect(0) == 1.0


def test_the_pixel_aspect_is_that_of_the_intrinsics(drive):
    (drive / "calib.txt").write_text("60 0 30 0 60 20 0 0 1")
    data = VideoSequences(drive, size=(40, 24))
    k = data[0].intrinsics
    assert data.pixel_aspect(0) == pytest.approx(k[1, 1] / k[0, 0]) == pytest.approx(20 / 9)


@pytest.mark.parametrize("relative", [True, False])
def test_camera_and_poses_lie_beside_a_video_file(drive, frames, tmp_path, monkeypatch, relative):
    (tmp_path / "calib.txt").write_text("1 0 1 0 1 1 0 0 1")  # a folder above the root: of something else
    path = write_video(drive / "film.mp4", frames, qp="0")
    monkeypatch.chdir(drive)
    video = VideoSequences(path.name if relative else path)
    assert video[0].intrinsics.tolist() == [[60, 0, 30], [0, 61, 20], [0, 0, 1]]
    assert video.poses[:, 0, 3].tolist() == list(range(1, 11))
    (drive / "calib.txt").unlink()
    assert VideoSequences(path)[0].intrinsics is VideoSequences(drive)[0].intrinsics is None


@pytest.mark.parametrize("limit", [1, 5 * 48 * 64 * 3])
def test_little_memory_changes_nothing(drive, tmp_path, frames, monkeypatch, limit):
    monkeypatch.setattr(clips, "CACHE_BYTES", limit)
    video = write_video(tmp_path / "a.mp4", frames, qp="0")
    order = np.random.default_rng(0).permutation(10)
    data, folder = VideoSequences(video), VideoSequences(drive)
    assert all(np.array_equal(data[k].frames[1], frames[k + 2]) for k in order)
    assert all(np.array_equal(folder[k].frames[1], frames[k + 2]) for k in order)
    assert data._cache._bytes <= max(limit, frames[0].nbytes)


def test_samples_do_not_share_memory_and_copies_carry_no_frames(drive, frames):
    data = VideoSequences(drive)
    data[0].image[:] = 0
    data[1].frames[-1][:] = 0
    assert np.array_equal(data[0].image, frames[1])
    packed = pickle.dumps(data)
    assert len(packed) < frames[0].nbytes and same_samples(pickle.loads(packed), data)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": (0, 1)}, r"frames=\(0, 1\) is not valid"),
        ({"frames": (1, 1)}, "different whole offsets"),
        ({"frames": (0.5,)}, "different whole offsets"),
        ({"stride": 0}, "stride=0 is out of range"),
        ({"val_fraction": 1}, "val_fraction=1 is out of range"),
        ({"size": (0, 3)}, "size=.* is not valid"),
        ({"depth_scale": 0}, "depth_scale=0 is out of range"),
        ({"split": "test"}, "no split 'test'"),
    ],
)
def test_options_out_of_range_are_named(drive, options, message):
    with pytest.raises(ValueError, match=message):
        VideoSequences(drive, **options)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_frames_are_too_few(tmp_path, frames, count):
    with pytest.raises(ValueError, match=rf"longest clip has {count} frames, .*\[-1, 1\] need 3 in a row"):
        VideoSequences(write_frames(tmp_path / "a", frames[:count]))
    with pytest.raises(ValueError, match="need 3 in a row"):
        VideoSequences(write_video(tmp_path / "a.mp4", frames[:count]))
    with pytest.raises(ValueError, match=r"\[-5, 7\] need 13 in a row"):
        VideoSequences(write_frames(tmp_path / "b", frames), frames=(-5, 7))


def test_frames_of_another_size_are_named(tmp_path, frames):
    folder = write_frames(tmp_path / "a", frames[:5])
    Image.fromarray(frames[0][:40]).save(folder / "000003.png")
    data = VideoSequences(folder)
    assert data[0].name == "a/000001"
    with pytest.raises(ValueError, match=r"000003.png is 64x40 pixels, but its clip begins with 64x48"):
        data[1]
    with pytest.raises(ValueError, match=r"000003.png is 64x40"):
        VideoSequences(folder, size=(24, 32))[2]


def test_unreadable_frames_are_named(tmp_path, frames):
    folder = write_frames(tmp_path / "a", frames[:5])
    path = folder / "000003.png"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="000003.png is truncated or damaged"):
        VideoSequences(folder)[2]


def test_what_is_not_a_video_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for root in (tmp_path, tmp_path / "a.mp4"):
        with pytest.raises(ValueError, match="a.mp4 is not a video"):
            VideoSequences(root)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(FileNotFoundError, match="holds neither frames .* nor video files"):
        VideoSequences(tmp_path)
    with pytest.raises(FileNotFoundError, match="no video file or folder .*nowhere"):
        VideoSequences(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ({"cx": 64}, r"principal point \(64, 20\) lies outside of 64x48 pixels; give the calibration of"),
        ({"cy": -1}, "lies outside of 64x48"),
        ({"width": 640, "height": 480}, "it is for 640x480 pixels and they are 64x48"),
        ({"fx": 0}, "focal lengths fx = 0, fy = 61"),
        ({"fy": -3}, "fy = -3; they are pixels, above 0"),
        ({"fx": 1e400}, "must be"),
        ({"fx": "wide"}, "fx: 'wide'; it must be a number"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused_at_once(drive, camera, message):
    values = {"fx": 60, "fy": 61, "cx": 30, "cy": 20} | camera
    (drive / "camera.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"camera.json.*{message}"):
        VideoSequences(drive, calibration="camera.json")


def test_poses_must_be_one_a_frame(drive, caplog):
    lines = (drive / "poses.txt").read_text().splitlines()
    (drive / "poses.txt").write_text("\n".join(lines[:-1]))
    assert VideoSequences(drive).poses is None
    assert "11 poses, but the clip image_l has 12 frames" in caplog.text
    with pytest.raises(ValueError, match="11 poses, but the clip image_l has 12 frames; one line a frame"):
        VideoSequences(drive, poses="poses.txt")


# ------------------------------------------------------------------------------------------------- a real clip


@needs_kitti
def test_the_kitti_clip():
    data = VideoSequences(KITTI, "train")
    assert len(data) == 49 and data.names[0] == "image_l/000001" and data.poses.shape == (49, 4, 4)
    travelled = np.linalg.norm(np.diff(data.poses[:, :3, 3], axis=0), axis=1)
    assert (np.abs(travelled - 1.2) < 0.02).all()
    sample = data[10]
    assert sample.image.shape == (370, 1226, 3) and (sample.image == sample.image[..., :1]).all()
    assert sample.intrinsics[0].tolist() == [707.0912, 0, 601.8873]


@needs_kitti
def test_a_lossless_video_of_the_kitti_clip_has_its_very_pixels(tmp_path):
    frames = [read_image(KITTI / "image_l" / f"{number:06d}.png") for number in range(51)]
    video = write_video(tmp_path / "image_l.mp4", frames, qp="0", preset="ultrafast")
    assert same_samples(VideoSequences(KITTI / "image_l"), VideoSequences(video))
