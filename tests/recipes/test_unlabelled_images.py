"""`pretrain_folder_inpainting` and `pretrain_video_flow` as a user runs them, on images without labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from depthseg.cli import main
from depthseg.models import DepthSegForSemanticSegmentation

TINY = [
    "model.encoder.width_factor=0.125",
    "model.head_config={decoder_channels: [8, 8, 8, 16, 16], num_scales: 2}",
    "data.size=[32,64]",
    "schedule.steps=2",
    "schedule.warmup_steps=0",
    "optim.batch_size=2",
    "run.cpu=true",
    "run.trackers=[]",
    "run.report=false",
]


def write_images(folder, sizes):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")


def pretrain(recipe, run, *options):
    with pytest.raises(SystemExit) as exit_info:
        main(["pretrain", "--config", recipe, f"run.output_dir={run}", *options, *TINY])
    assert exit_info.value.code is None
    (line,) = (run / "metrics.jsonl").read_text().splitlines()
    model = DepthSegForSemanticSegmentation.from_depth_pretrained(run / "model", num_labels=2)
    status = {part.part: part.status for part in model.transfer_report.parts}
    assert status["encoder"] == "taken"
    return json.loads(line)


def test_photographs_of_any_size_are_inpainted(tmp_path):
    write_images(tmp_path / "photographs" / "images", [(40, 60), (60, 40), (50, 50)])
    scores = pretrain("pretrain_folder_inpainting", tmp_path / "run", f"data.root={tmp_path / 'photographs'}")
    assert 0 < scores["hole_l1"] < 1
    assert scores["images"] == 3


@pytest.mark.parametrize(
    ("recipe", "options", "score"),
    [
        ("pretrain_folder_inpainting", ["data.name=video", "data.root={}", "data.options.frames=[]"], "hole_l1"),
        ("pretrain_video_flow", ["data.video={}"], "photometric_loss"),
    ],
)
def test_a_film_without_calibration_is_inpainted_and_its_flow_learned(tmp_path, recipe, options, score):
    write_images(tmp_path / "film", [(48, 96)] * 5)
    scores = pretrain(recipe, tmp_path / "run", *(option.format(tmp_path / "film") for option in options))
    assert 0 < scores[score] < 1
