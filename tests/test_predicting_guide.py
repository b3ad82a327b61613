"""The commands of training/guides/predicting.md run, in their order, and write what the page says."""

import io
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from data.video_files import write_video
from guide_scripts import GUIDES
from PIL import Image

from depthseg.cli import main
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor

PAGE = (GUIDES / "predicting.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the page supposes: a checkpoint, images and a video."""
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    config = DepthSegConfig(encoder_config=encoder, num_labels=3, keep_depth=True)
    DepthSegForSemanticSegmentation(config).save_pretrained(tmp_path / "model")
    DepthSegImageProcessor(size={"height": 96, "width": 128}).save_pretrained(tmp_path / "model")
    rng = np.random.default_rng(0)
    (tmp_path / "my_images").mkdir()
    for name, size in {"photo.jpg": (40, 50), "large.jpg": (300, 320), "my_images/a.png": (30, 40)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / name)
    frames = list(rng.integers(0, 256, (2, 120, 160, 3), np.uint8))
    write_video(tmp_path / "drive.mp4", frames, "libx264", "yuv420p")
    (tmp_path / "list.txt").write_text("photo.jpg\nmy_images\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_of_the_page_run(folder, monkeypatch, capsys):
    lines = [line for block in blocks("bash") for line in block.splitlines() if "depthseg predict" in line]
    assert len(lines) == 10
    for line in lines:
        before, _, command = line.rpartition("| ")
        if before:
            text = subprocess.run(shlex.split(before), capture_output=True, text=True, check=True).stdout
            monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        words = shlex.split(command)
        with pytest.raises(SystemExit) as end:
            main(words[1:])
        assert end.value.code == 0, (line, capsys.readouterr())
    (code,) = blocks("python")
    exec(code, {})
    assert "('photo',) ()" in capsys.readouterr().out
    named = re.findall(r"^\| `([\w./]+)` \|", PAGE, re.MULTILINE)
    written = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*.*")}
    assert len(named) == 10
    for name in named:
        place = f"one/{name.replace('NAME', 'photo')}" if "NAME" in name else f"drive/{name}"
        assert place in written
    assert {"list/labels/a.png", "both/drive/labels.mkv", "both/labels/a.png", "pattern/labels/photo.png"} <= written
    assert not list((folder / "out").rglob(".unfinished"))


def test_the_page_says_what_the_code_does():
    from depthseg.cli.predict import SMOOTH
    from depthseg.engine import predict_video, tiling
    from depthseg.engine.stopping import REQUEUE_CODE

    assert "0.7 without one" in PAGE and SMOOTH == 0.7
    assert f"loses {predict_video.PIECE} frames" in PAGE and f"with code {REQUEUE_CODE}" in PAGE
    assert "2 megapixels" in PAGE and tiling.LARGEST_WHOLE == 2 * 2**20
    assert f"tiles of {tiling.TILE[0]}x{tiling.TILE[1]}" in PAGE
    assert "fourth power" in PAGE and tiling.STEEPNESS == 4
