"""Videos: every frame is predicted as an image is, times and rotation are kept, and an interruption loses nothing."""

import json
import os
import signal
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from data.video_files import write_video

from depthseg.cli import main
from depthseg.data.decoding import VideoFrames
from depthseg.engine import predict_video
from depthseg.engine.predict import load_model, predict, predict_maps
from depthseg.engine.smoothing import Flicker, Smoother
from depthseg.engine.stopping import REQUEUE_CODE, Stopped
from depthseg.engine.visualization import blend_labels
from depthseg.models import (
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)

COUNT, SIZE = 11, (36, 50)
NAMES = {0: "road", 1: "car", 2: "sky"}


def save_model(folder, cls=DepthSegForSemanticSegmentation, size=(32, 64), **options):
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    cls(DepthSegConfig(encoder_config=encoder, **options)).save_pretrained(folder)
    processor = DepthSegImageProcessor(size=size and {"height": size[0], "width": size[1]})
    processor.save_pretrained(folder)
    return folder


def moving_blocks(count=COUNT, size=SIZE):
    """A picture of blocks that moves by two pixels a frame, and noise."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (size[0] // 6 + 1, (size[1] + 2 * count) // 6 + 1, 3)).repeat(6, 0).repeat(6, 1)
    frames = [wide[: size[0], 2 * k : 2 * k + size[1]] + rng.integers(-20, 21, (*size, 3)) for k in range(count)]
    return [np.clip(frame, 0, 255).astype(np.uint8) for frame in frames]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"), id2label=NAMES, keep_depth=True)


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "drive.mp4", moving_blocks(), qp="0")


@pytest.fixture(scope="module")
def done(model_dir, drive, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    result = predict(model_dir, [drive], out, device="cpu")
    assert (result.names, result.failures) == (("drive",), ())
    return out


def decoded(path, form="gray"):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=form) for frame in container.decode(video=0)]


def times_of(path):
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def by_hand(model_dir, path):
    model, processor = load_model(model_dir, device="cpu")
    frames = [list(VideoFrames(path).up_to(k))[-1][1] for k in range(len(VideoFrames(path)))]
    return frames, [predict_maps(model, processor, frame) for frame in frames]


def test_every_frame_has_the_labels_that_it_has_as_an_image(done, model_dir, drive):
    frames, maps = by_hand(model_dir, drive)
    found = decoded(done / "labels.mkv")
    assert len(found) == COUNT
    for labels, (expected, _) in zip(found, maps, strict=True):
        np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(found)) > 1
    assert {path.name for path in done.iterdir()} == {
        *("labels.mkv", "overlay.mp4", "depth.mkv", "side_by_side.mp4", "summary.json")
    }
    palette = ((0, 114, 178), (230, 159, 0), (0, 158, 115))
    for frame, labels, shown in zip(frames, found, decoded(done / "overlay.mp4", "rgb24"), strict=True):
        assert np.abs(shown.astype(int) - blend_labels(frame, labels, palette)).mean() < 12
    beside = decoded(done / "side_by_side.mp4", "rgb24")[0]
    assert beside.shape[1] == 3 * SIZE[1] and beside.shape[0] > SIZE[0]
    assert np.abs(beside[: SIZE[0], : SIZE[1]].astype(int) - frames[0]).mean() < 12


def test_depth_is_in_kittis_form(done, model_dir, drive):
    _, maps = by_hand(model_dir, drive)
    for stored, (_, depth) in zip(decoded(done / "depth.mkv", "gray16le"), maps, strict=True):
        np.testing.assert_allclose(stored / 256, np.clip(depth, 0, 65535 / 256), atol=0.51 / 256)


def test_the_summary_counts_pixels_and_changes(done, drive):
    summary = json.loads((done / "summary.json").read_text())
    labels = decoded(done / "labels.mkv")
    counts = np.bincount(np.concatenate(labels, axis=None), minlength=3)
    assert summary["classes"] == pytest.approx({NAMES[k]: n / counts.sum() for k, n in enumerate(counts) if n})
    assert (summary["frames"], summary["frame_rate"], summary["variable_frame_rate"]) == (COUNT, 10, False)
    assert (summary["height"], summary["width"], summary["rotation"]) == (*SIZE, 0)
    assert summary["video"] == str(drive) and summary["seconds_per_frame"] > 0
    assert summary["depth"] == {"type": "disparity", "file_scale": 256, "file_offset": 0}
    assert set(summary["flicker"]) == {"before"} and 0 < summary["flicker"]["before"] < 1


def test_rotation_and_times_are_kept(model_dir, tmp_path):
    """Frames of a phone held upright, shown at times of its own."""
    path, times = tmp_path / "phone.mp4", [0, 400, 900, 1000, 1900]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=30, options={"qp": "0", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "rgb24"
        stream.codec_context.time_base = Fraction(1, 12800)
        stream.set_display_rotation(-90)
        for frame, time in zip(moving_blocks(5), times, strict=True):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = time, Fraction(1, 12800)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    shown = times_of(path)
    assert len(set(np.diff(shown).round(4))) > 1
    predict(model_dir, [path], tmp_path / "out", device="cpu")
    frames, maps = by_hand(model_dir, path)
    assert frames[0].shape == (*SIZE[::-1], 3)
    for name, tolerance in (("labels.mkv", 6e-4), ("overlay.mp4", 1e-6), ("side_by_side.mp4", 1e-6)):
        assert times_of(tmp_path / "out" / name) == pytest.approx(shown, abs=tolerance)
        with av.open(str(tmp_path / "out" / name)) as container:
            assert {frame.rotation for frame in container.decode(video=0)} == {-90}
    labels = VideoFrames(tmp_path / "out" / "labels.mkv")
    for number, (expected, _) in enumerate(maps):
        np.testing.assert_array_equal(list(labels.up_to(number))[-1][1][..., 0], expected)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["variable_frame_rate"] and summary["rotation"] == -90
    assert (summary["height"], summary["width"]) == SIZE[::-1]


@pytest.mark.parametrize("rate", [25, Fraction(30000, 1001)])
def test_the_frame_rate_is_kept(model_dir, tmp_path, rate):
    path = write_video(tmp_path / "a.mp4", moving_blocks(4), "libx264", "yuv420p", rate=rate)
    predict(model_dir, [path], tmp_path / "out", device="cpu")
    for name in ("labels.mkv", "overlay.mp4", "side_by_side.mp4", "depth.mkv"):
        assert VideoFrames(tmp_path / "out" / name).frame_rate == pytest.approx(float(rate), rel=1e-4)


class Interrupted:
    """Sends this process Ctrl-C when a number of frames was seen, counted over all calls."""

    def __init__(self, monkeypatch, after):
        self.seen, self.after = 0, after
        draw = predict_video.VideoPrediction._drawn
        monkeypatch.setattr(predict_video.VideoPrediction, "_drawn", lambda *words: self.count() or draw(*words))

    def count(self):
        self.seen += 1
        if self.seen == self.after:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("options", [{}, {"smooth": 0.6, "batch_size": 2}], ids=["plain", "smooth"])
def test_a_resumed_prediction_has_the_bytes_of_one_without_a_break(model_dir, drive, tmp_path, monkeypatch, options):
    monkeypatch.setattr(predict_video, "PIECE", 4)
    predict(model_dir, [drive], tmp_path / "whole", device="cpu", **options)
    interrupted = Interrupted(monkeypatch, after=7)
    with pytest.raises(Stopped, match="the same command"):
        predict(model_dir, [drive], tmp_path / "out", device="cpu", **options)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".unfinished"}
    seen = interrupted.seen
    assert seen == 7 + (len(options) > 0)
    predict(model_dir, [drive], tmp_path / "out", device="cpu", **options)
    assert interrupted.seen == COUNT  # no frame twice
    assert not (tmp_path / "out" / ".unfinished").exists()
    for name in ("labels.mkv", "depth.mkv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    summaries = [json.loads((tmp_path / folder / "summary.json").read_text()) for folder in ("out", "whole")]
    for summary in summaries:
        del summary["seconds_per_frame"]
    assert summaries[0] == summaries[1]
    assert len(decoded(tmp_path / "out" / "overlay.mp4", "rgb24")) == COUNT


def test_a_killed_prediction_resumes_with_its_last_whole_piece(model_dir, drive, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_video, "PIECE", 4)
    draw, seen = predict_video.VideoPrediction._drawn, []

    def dies(*words):
        seen.append(1)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return draw(*words)

    monkeypatch.setattr(predict_video.VideoPrediction, "_drawn", dies)
    with pytest.raises(KeyboardInterrupt):
        predict(model_dir, [drive], tmp_path / "out", device="cpu")
    predict(model_dir, [drive], tmp_path / "out", device="cpu")
    assert len(seen) == 7 + COUNT - 4
    assert len(decoded(tmp_path / "out" / "labels.mkv")) == COUNT


def test_an_interrupted_prediction_of_other_options_is_not_mixed_up(model_dir, drive, tmp_path, monkeypatch):
    Interrupted(monkeypatch, after=3)
    with pytest.raises(Stopped):
        predict(model_dir, [drive], tmp_path, device="cpu")
    with pytest.raises(FileExistsError, match="another model or other options"):
        predict(model_dir, [drive], tmp_path, device="cpu", smooth=0.5)
    predict(model_dir, [drive], tmp_path, device="cpu", smooth=0.5, overwrite=True)
    assert set(json.loads((tmp_path / "summary.json").read_text())["flicker"]) == {"before", "after"}


def test_the_command_resumes_and_leaves_what_is_done_alone(model_dir, drive, tmp_path, monkeypatch, capsys):
    """Two videos and an image; the signal comes in the second video."""
    second = write_video(tmp_path / "second.mkv", moving_blocks(5), "ffv1", "bgr0")
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    from PIL import Image

    Image.fromarray(moving_blocks(1)[0]).save(tmp_path / "labels.png")
    words = ["predict", model_dir, tmp_path / "labels.png", drive, tmp_path / "broken.mp4", second]
    words = [*map(str, words), "--output-dir", str(tmp_path / "out")]
    interrupted = Interrupted(monkeypatch, after=COUNT + 2)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == REQUEUE_CODE
    assert "To resume: the same command" in capsys.readouterr().err
    finished = tmp_path / "out" / "drive" / "labels.mkv"
    before = finished.stat().st_mtime_ns
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 1
    printed = capsys.readouterr()
    assert (
        printed.out.startswith("1 image and 2 videos done")
        and "broken.mp4 is not a video that can be read" in printed.err
    )
    assert finished.stat().st_mtime_ns == before and interrupted.seen == COUNT + 5
    assert len(decoded(tmp_path / "out" / "second" / "labels.mkv")) == 5
    assert (tmp_path / "out" / "labels" / "labels.png").is_file()
    with pytest.raises(SystemExit, match="exists already"):
        main(words)


def test_a_damaged_video_does_not_stop_the_others(model_dir, drive, tmp_path):
    path = write_video(tmp_path / "a.mov", moving_blocks(6), "png", "rgb24")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content, (start, size) = bytearray(path.read_bytes()), packets[2]
    content[start + size // 4 : start + size // 2] = bytes(size // 2 - size // 4)
    path.write_bytes(content)
    result = predict(model_dir, [path, drive], tmp_path / "out", device="cpu")
    assert result.names == ("drive",)
    assert len(result.failures) == 1 and "Frame 2 of" in result.failures[0]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"drive"}


def test_a_depth_model_writes_depth_alone(tmp_path, drive):
    save_model(tmp_path / "model", DepthSegForDepthEstimation, depth_type="relative_inverse")
    predict(tmp_path / "model", [drive], tmp_path / "out", device="cpu")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"depth.mkv", "side_by_side.mp4", "summary.json"}
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["depth"]
    _, maps = by_hand(tmp_path / "model", drive)
    for stored, (_, depth) in zip(decoded(tmp_path / "out" / "depth.mkv", "gray16le"), maps, strict=True):
        step = 1 / record["file_scale"]
        np.testing.assert_allclose(stored / record["file_scale"] + record["file_offset"], depth, atol=1.01 * step)


def test_large_frames_go_through_in_tiles(tmp_path):
    model_dir = save_model(tmp_path / "model", size=(64, 64), id2label=NAMES)
    path = write_video(tmp_path / "a.mkv", moving_blocks(2, (70, 100)), "ffv1", "bgr0")
    options = {"native": True, "smooth": 0.5, "batch_size": 2}
    assert predict(model_dir, [path], tmp_path / "out", device="cpu", **options).failures == ()
    plain = predict(model_dir, [path], tmp_path / "plain", device="cpu", native=True)
    assert plain.failures == ()
    first = [decoded(tmp_path / folder / "labels.mkv")[0] for folder in ("out", "plain")]
    assert (first[0] == first[1]).mean() > 0.999  # nothing is carried into the first frame


# A textured square of 24 pixels moves over texture by 3 pixels a frame.
SIDE, SHIFT, GROUND = 24, 3, (64, 96)


def square_scene(number):
    rng = np.random.default_rng(7)
    ground, square = (rng.normal(128, 60, (*size, 3)) for size in (GROUND, (SIDE, SIDE)))
    image = blurred(ground)
    truth = np.zeros(GROUND, np.uint8)
    place = slice(20, 20 + SIDE), slice(8 + SHIFT * number, 8 + SHIFT * number + SIDE)
    image[place], truth[place] = blurred(square), 1
    return np.clip(image, 0, 255).astype(np.uint8), truth


def blurred(image):
    padded = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="wrap")
    rows, columns = image.shape[:2]
    return sum(padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)) / 9 * 1.5 - 64


def test_smoothing_follows_a_moving_square():
    """Noisy scores of two classes: fewer flickers and errors, where smoothing in place would smear the square."""
    from depthseg.data.video_motion import dense_motion

    rng = np.random.default_rng(1)
    smoother, in_place, last = Smoother(0.7), None, None
    flicker = {name: Flicker() for name in ("raw", "smooth")}
    errors = {name: [] for name in ("raw", "smooth", "in place")}
    for number in range(12):
        image, truth = square_scene(number)
        scores = torch.from_numpy(np.stack([truth == 0, truth == 1]) + rng.normal(0, 0.6, (2, *GROUND))).float()[None]
        motion = None if last is None else dense_motion(last[0], image)
        smooth = smoother.update(scores, motion)
        in_place = scores if in_place is None else 0.7 * in_place + 0.3 * scores
        maps = {"raw": scores, "smooth": smooth, "in place": in_place}
        labels = {name: each[0].argmax(0).numpy() for name, each in maps.items()}
        if last is not None:
            places, known = motion
            inner = np.s_[26:38, 14 + SHIFT * number : 26 + SHIFT * number]
            grid = np.stack(np.meshgrid(np.arange(GROUND[1]), np.arange(GROUND[0])), -1)
            assert np.median((places - grid)[inner], axis=(0, 1)) == pytest.approx([-SHIFT, 0], abs=0.5)
            assert known[inner].mean() > 0.9
            for name, each in flicker.items():
                each.update(last[1][name], labels[name], places, known)
            for name, each in errors.items():
                each.append((labels[name] != truth).mean())
        last = image, labels
    assert flicker["smooth"].share < 0.3 * flicker["raw"].share
    late = {name: np.mean(each[5:]) for name, each in errors.items()}
    assert late["smooth"] < 0.5 * late["raw"] and late["smooth"] < 0.6 * late["in place"]


def test_flicker_is_counted_along_the_motion():
    earlier, later = np.array([[0, 1, 1, 2]]), np.array([[2, 0, 1, 2]])
    places = np.stack([np.arange(4) - 1, np.zeros(4)], -1)[None]
    flicker = Flicker()
    flicker.update(earlier, later, places, np.array([[False, True, True, True]]))
    assert (flicker.changed, flicker.followed) == (1, 3)  # 0 -> 0, 1 -> 1, 1 -> 2
    assert Flicker().share is None
