"""Any frame of a video by its number, however it is encoded and in whatever order it is read."""

import pickle
import random

import av
import numpy as np
import pytest
from data.video_files import noisy_frames, world_frame, write_video
from torch.utils.data import DataLoader

from depthseg.data.decoding import VideoFrames

LOSSY = [
    ("a.mp4", "libx264", "yuv420p", {"crf": "18", "g": "6", "bf": "3"}),
    ("a.mp4", "libx264", "yuv420p", {"crf": "18", "x264-params": "open-gop=1:keyint=5:bframes=3"}),
    ("a.ts", "libx264", "yuv420p", {"crf": "18", "g": "6"}),
    ("a.avi", "mpeg4", "yuv420p", {"b": "4000000", "g": "6"}),
    ("a.webm", "libvpx-vp9", "yuv420p", {"crf": "18", "cpu-used": "8"}),
]


def read(video, number):
    *_, (last, frame) = video.up_to(number)
    assert last == number
    return frame


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [("a.mp4", "libx264rgb", "rgb24", {"qp": "0"}), ("a.mkv", "ffv1", "bgr0", {})],
)
def test_lossless_video_gives_the_very_pixels(tmp_path, name, codec, pixels, options):
    frames = noisy_frames()
    video = VideoFrames(write_video(tmp_path / name, frames, codec, pixels, **options))
    assert len(video) == len(frames) and video.frame_rate == 10
    assert all(np.array_equal(read(video, number), frame) for number, frame in enumerate(frames))


@pytest.mark.parametrize(("name", "codec", "pixels", "options"), LOSSY)
def test_any_order_gives_what_playing_gives(tmp_path, name, codec, pixels, options):
    frames = [world_frame((0, 0), time, (48, 96))["image"] for time in range(16)]
    path = write_video(tmp_path / name, frames, codec, pixels, **options)
    with av.open(str(path)) as container:
        played = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(played) == len(frames)
    video = VideoFrames(path)
    order = 2 * list(range(len(frames)))
    random.Random(0).shuffle(order)
    assert all(np.array_equal(read(video, number), played[number]) for number in order)
    # What is played is what was filmed: each frame is nearest to its own original.
    distance = [[np.abs(a.astype(int) - b).mean() for b in frames] for a in played]
    assert np.argmin(distance, axis=1).tolist() == list(range(len(frames)))


def test_frames_on_the_way_come_with_their_numbers(tmp_path):
    frames = noisy_frames()
    video = VideoFrames(write_video(tmp_path / "a.mp4", frames, qp="0", g="4", sc_threshold="0"))
    passed = list(video.up_to(6))
    assert [number for number, _ in passed] == [4, 5, 6]
    assert all(np.array_equal(frame, frames[number]) for number, frame in passed)
    assert [number for number, _ in video.up_to(7)] == [7]
    assert [number for number, _ in video.up_to(5)] == [4, 5]


def test_grey_video_has_three_equal_channels(tmp_path):
    grey = [frame[..., 0].copy() for frame in noisy_frames(4)]
    video = VideoFrames(write_video(tmp_path / "a.mkv", grey, "ffv1", "gray"))
    assert all(np.array_equal(read(video, k), np.dstack([frame] * 3)) for k, frame in enumerate(grey))


@pytest.mark.parametrize("angle", [90, -90, 180])
def test_a_turned_camera_gives_upright_frames(tmp_path, angle):
    frames = noisy_frames(3)
    path = write_video(tmp_path / "a.mp4", frames, turned=angle, qp="0")
    # The file says counter-clockwise, and so does NumPy.
    assert np.array_equal(read(VideoFrames(path), 1), np.rot90(frames[1], angle // 90))


class Numbered:
    """Frames for a DataLoader."""

    def __init__(self, video):
        self.video = video

    def __len__(self):
        return len(self.video)

    def __getitem__(self, number):
        return read(self.video, number)


def test_processes_forked_off_while_the_file_is_open_read_their_own(tmp_path):
    frames = noisy_frames()
    video = VideoFrames(write_video(tmp_path / "a.mkv", frames, "ffv1", "bgr0"))
    read(video, 3)
    loader = DataLoader(Numbered(video), num_workers=2, batch_size=None)
    for _ in range(2):
        assert all(np.array_equal(got, frames[k]) for k, got in enumerate(loader))
        assert np.array_equal(read(video, 4), frames[4])


def test_a_copy_for_another_process_opens_the_file_anew(tmp_path):
    frames = noisy_frames()
    video = VideoFrames(write_video(tmp_path / "a.mkv", frames, "ffv1", "bgr0"))
    read(video, 3)
    assert np.array_equal(read(pickle.loads(pickle.dumps(video)), 7), frames[7])


def test_a_damaged_frame_is_named(tmp_path):
    frames = noisy_frames(6)
    path = write_video(tmp_path / "a.mov", frames, "png", "rgb24")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    start, size = packets[2]
    content[start + size // 4 : start + size // 2] = bytes(size // 2 - size // 4)
    path.write_bytes(content)
    video = VideoFrames(path)
    assert np.array_equal(read(video, 1), frames[1])
    with pytest.raises(ValueError, match=r"Frame 2 of .*a.mov .*cannot be decoded.*ffmpeg -i a.mov"):
        read(video, 2)
    assert np.array_equal(read(video, 3), frames[3])


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(5000)])
def test_what_is_not_a_video_is_named(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match="a.mp4 is not a video that can be read"):
        VideoFrames(tmp_path / "a.mp4")


def test_a_file_cut_off_is_not_a_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", noisy_frames(), qp="0")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="a.mp4 is not a video that can be read"):
        VideoFrames(path)


def test_a_stream_without_times_asks_for_a_conversion(tmp_path):
    path = write_video(tmp_path / "a.h264", noisy_frames(), "libx264", "yuv420p")
    with pytest.raises(ValueError, match="does not say when its frames are shown.*ffmpeg -i a.h264"):
        VideoFrames(path)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match="a.mp4 has no images"):
        VideoFrames(tmp_path / "a.mp4")


def test_missing_files_and_missing_pyav_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no video file .*a.mp4"):
        VideoFrames(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").touch()
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"pip install depthseg\[video\]"):
        VideoFrames(tmp_path / "a.mp4")
