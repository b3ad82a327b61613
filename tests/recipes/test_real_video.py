"""The video recipe on real frames: 51 grey ones of KITTI, as a folder and as videos."""

from __future__ import annotations

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rounding import GRADIENT_SHARE

from depthseg.cli import main

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "pretrain_video_mono.yaml"
CLIP = Path(os.environ.get("DEPTHSEG_DATA", "")) / "kitti_clip"
FRAMES_A_SECOND = 10
# Smaller than the recipe has it, for the sake of time.
SMALL = ["data.size=[64,208]"]
# Weights that hardly move: then losses compare what the networks are shown. Where training goes from there is decided
# by the last bits within ten steps, and losses of two kernels, or of one and two threads, are a fifth apart. On the
# CPU, as a GPU adds the gradients of warped pixels in an order of its own each time.
STILL = [*SMALL, "optim.lr=1e-9", "schedule.steps=6", "schedule.warmup_steps=0", "run.cpu=true", "run.report=false"]

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not CLIP.is_dir(), reason="DEPTHSEG_DATA names no folder that holds kitti_clip/"),
]


def pretrain(video, run_dir, *options):
    with pytest.raises(SystemExit) as exit_info:
        main(["pretrain", "--config", str(CONFIG), f"data.video={video}", f"run.output_dir={run_dir}", *options])
    assert exit_info.value.code is None
    return run_dir


def last_line(run_dir):
    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])


def test_the_network_explains_the_drive_better_than_standing_still_and_driving_straight(tmp_path):
    """With a focal length that it learns; the films below are trained with the given one."""
    run = pretrain(CLIP, tmp_path / "run", "pretext.intrinsics=one_camera", *SMALL, "schedule.steps=250")
    motion = json.loads((run / "report" / "motion.json").read_text())
    errors = motion["warp_error"]
    assert errors["model"] < errors["straight_line"] < errors["identity"]
    assert np.isfinite(motion["trajectory"]["model"]["ate"]) and motion["trajectory"]["straight_line"]["ate"] > 0
    assert Image.open(run / "report" / "warped.png").width > 1000


def write_video(path, codec, pixel_format, options):
    av = pytest.importorskip("av")
    images = [np.array(Image.open(file).convert("RGB")) for file in sorted((CLIP / "image_l").iterdir())]
    # Video codecs with subsampled colour want even numbers of pixels.
    images = [image[:370, :1226] for image in images]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FRAMES_A_SECOND, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.time_base = pixel_format, Fraction(1, FRAMES_A_SECOND)
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    shutil.copy(CLIP / "calib.txt", path.parent / "calib.txt")
    return path


def test_a_lossless_video_gives_the_numbers_of_the_folder_and_a_lossy_one_nearly(tmp_path):
    (tmp_path / "lossless").mkdir()
    (tmp_path / "lossy").mkdir()
    lossless = write_video(tmp_path / "lossless" / "clip.mp4", "libx264rgb", "rgb24", {"qp": "0"})
    lossy = write_video(tmp_path / "lossy" / "clip.mp4", "libx264", "yuv420p", {"crf": "18"})
    folder, exact, near = (
        last_line(pretrain(video, tmp_path / f"run{number}", *STILL))
        for number, video in enumerate((CLIP, lossless, lossy))
    )
    for name in ("train_loss", "photometric_loss", "smoothness_loss", "val_loss"):
        assert exact[name] == pytest.approx(folder[name], rel=GRADIENT_SHARE), name
    # Pixels that are off by a grey level or two are told from rounding, and matter little.
    assert GRADIENT_SHARE < abs(near["val_loss"] / folder["val_loss"] - 1) < 0.05
