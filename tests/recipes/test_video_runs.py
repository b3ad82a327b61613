"""`pretrain_video_mono.yaml` as a user runs it: a folder of frames in, a run directory with a motion report out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from depthseg.cli import main
from depthseg.data.synthetic.rendering import render
from depthseg.models import DepthSegForSemanticSegmentation

CONFIG = Path(__file__).parents[2] / "training" / "configs" / "pretrain_video_mono.yaml"
TINY = [
    "model.encoder.width_factor=0.125",
    "model.head_config={decoder_channels: [8, 8, 8, 16, 16], num_scales: 2}",
    "pretext.pose_encoder={width_factor: 0.125}",
    "schedule.steps=2",
    "schedule.warmup_steps=0",
    "optim.batch_size=2",
    "run.cpu=true",
]
SIZE = (48, 144)
# The protocol of Eigen et al. as Monodepth2 has it, on two frames of the world.
EIGEN = ["--dataset", "synthetic", "--option", "count=2", "--option", "size=[48,144]"]
EIGEN += ["--alignment", "median", "--crop", "garg", "--min-depth", "1e-3", "--max-depth", "80"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Six frames of a drive through the world, with calibration and poses in KITTI's form."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "image_2").mkdir()
    poses = []
    for number in range(6):
        frame = render(2, 4, SIZE, time=number / 2, outputs=["image", "pose", "intrinsics"])
        Image.fromarray(frame["image"]).save(folder / "image_2" / f"{number:06d}.png")
        poses.append(" ".join(f"{value:.9e}" for value in frame["pose"][:3].ravel()))
    matrix = np.hstack([frame["intrinsics"], np.zeros((3, 1))])
    (folder / "calib.txt").write_text(" ".join(f"{value:.9e}" for value in matrix.ravel()))
    (folder / "poses.txt").write_text("\n".join(poses))
    return folder


def pretrain(*arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(["pretrain", "--config", str(CONFIG), *map(str, arguments)])
    return exit_info.value.code


def test_a_folder_of_frames_becomes_a_depth_network_and_a_motion_report(clip, tmp_path, capsys):
    options = [f"data.video={clip}", "data.size=[48,144]", f"run.output_dir={tmp_path / 'run'}"]
    assert pretrain(*options, *TINY) is None
    run = tmp_path / "run"
    assert str(run / "model") in capsys.readouterr().out
    motion = json.loads((run / "report" / "motion.json").read_text())
    assert {"model", "identity", "straight_line"} <= set(motion["warp_error"])
    assert np.isfinite(motion["trajectory"]["model"]["ate"]) and np.isfinite(
        motion["trajectory"]["straight_line"]["ate"]
    )
    assert {path.name for path in (run / "report").iterdir()} == {
        *("curves.png", "panel.png", "motion.json", "warped.png")
    }
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    names = {f"images/{name}" for name in ("target", "warped", "disparity", "auto_mask", "error")}
    assert names <= set(board.Tags()["images"])
    DepthSegForSemanticSegmentation.from_pretrained(run / "model", num_labels=2)
    with pytest.raises(SystemExit) as exit_info:
        main(["evaluate", "--model", str(run / "model"), *EIGEN, "--root", str(tmp_path / "world"), "--json"])
    assert exit_info.value.code in (0, None)
    scores = json.loads(capsys.readouterr().out)
    assert (scores["alignment"], scores["crop"], scores["max_depth"]) == ("median", "garg", 80.0)


def test_without_calibration_the_focal_length_can_be_learned(clip, tmp_path):
    (tmp_path / "frames").symlink_to(clip / "image_2")
    options = [f"data.video={tmp_path / 'frames'}", "data.size=[48,144]", f"run.output_dir={tmp_path / 'run'}", *TINY]
    assert "without the intrinsics" in str(pretrain(*options))
    assert pretrain(*options, "pretext.intrinsics=one_camera", "run.overwrite=true") is None
    motion = json.loads((tmp_path / "run" / "report" / "motion.json").read_text())
    assert motion["focal_length"]["given"] is None and motion["focal_length"]["learned"] is not None


def test_a_video_that_stands_still_keeps_the_loss_finite(tmp_path):
    (tmp_path / "still").mkdir()
    image = Image.fromarray(render(2, 4, SIZE, outputs=["image"])["image"])
    for number in range(4):
        image.save(tmp_path / "still" / f"{number}.png")
    options = [f"data.video={tmp_path / 'still'}", "data.size=[48,144]", "pretext.intrinsics=one_camera"]
    assert pretrain(*options, f"run.output_dir={tmp_path / 'run'}", *TINY) is None
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(line["photometric_loss"])
