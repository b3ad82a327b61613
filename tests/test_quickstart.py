"""The first thing a new user runs, as they run it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from depthseg.data import Sample
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from depthseg.quickstart import LABELLED_FRAMES, SEEDS, Quickstart, clear, reload_agrees


@pytest.mark.heavy
def test_quickstart_keeps_its_promises(tmp_path):
    out = tmp_path / "results"
    command = [Path(sys.executable).with_name("depthseg"), "quickstart", "--output-dir", out]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((out / "results.json").read_text())
    assert results["depth"]["network"] <= 0.6 * results["depth"]["constant"]
    assert results["reloaded_equal"]
    assert {name: len(scores) for name, scores in results["segmentation"].items()} == {
        "random": len(SEEDS),
        "depth pre-training": len(SEEDS),
    }
    # The table shows the numbers of the runs' own logs.
    for initialisation, folder in (("random", "random"), ("depth pre-training", "depth")):
        for seed, score in zip(SEEDS, results["segmentation"][initialisation], strict=True):
            lines = (out / "runs" / f"{folder}_{seed}" / "metrics.jsonl").read_text().splitlines()
            assert json.loads(lines[-1])["mean_iou"] == score
            assert f"{100 * score:.1f}" in done.stdout
            subset = json.loads((out / "runs" / f"{folder}_{seed}" / "subset.json").read_text())
            assert len(subset["names"]) == LABELLED_FRAMES
    assert all(name in done.stdout for name in results["baselines"])
    assert np.asarray(Image.open(out / "panel.png")).std() > 10
    assert AutoConfig.from_pretrained(out / "model").num_labels == 11
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode != 0 and "--overwrite" in again.stderr and "Traceback" not in again.stderr


@pytest.fixture
def checkpoint(tmp_path):
    """A segmenter as a run saves it, a copy of it, and an image."""
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    model = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=encoder, num_labels=11))
    model.save_pretrained(tmp_path / "run")
    DepthSegImageProcessor(size={"height": 64, "width": 192}).save_pretrained(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    image = np.random.default_rng(0).integers(0, 256, (64, 192, 3), np.uint8)
    return tmp_path / "copy", tmp_path / "run", Sample("noise", image)


def test_the_reloaded_checkpoint_is_compared_on_one_device(checkpoint, monkeypatch):
    # Without a GPU: whoever asks for it gets an error.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert reload_agrees(*checkpoint) is True


def test_a_reloaded_checkpoint_that_is_another_one_is_told(checkpoint):
    copy, _, _ = checkpoint
    weights = load_file(copy / "model.safetensors")
    weights["classifier.conv.bias"][0] += 0.01
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert reload_agrees(*checkpoint) is False


def test_table_gives_mean_spread_and_seeds(tmp_path):
    result = Quickstart(
        output_dir=tmp_path,
        depth={"network": 0.1, "constant": 0.4},
        segmentation={"random": [0.3, 0.32, 0.34], "depth pre-training": [0.4, 0.4, 0.4]},
        baselines={"majority class": 0.05},
        reloaded_equal=True,
        seconds=12.3,
    )
    text = str(result)
    assert "75 % lower" in text
    # Standard deviation of 30, 32, 34 by hand: sqrt((4 + 0 + 4) / 2) = 2.
    assert "| random | 32.0 | 2.0 | 30.0, 32.0, 34.0 |" in text
    assert "| majority class | 5.0 | | |" in text


def test_earlier_results_are_kept_unless_told(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "world").mkdir()
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="--overwrite"):
        clear(tmp_path, overwrite=False)
    clear(tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "world"]
