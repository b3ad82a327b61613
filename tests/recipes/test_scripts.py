"""The scripts of training/ as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "training" / "configs"
SMALL = (
    "model.encoder.width_factor=0.125",
    "data.size=[32,64]",
    "optim.batch_size=4",
    "run.trackers=[]",
    "run.cpu=true",
    "run.select=best",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: twelve images with label maps and class names."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("ground\nsky\n")
    rng = np.random.default_rng(0)
    for index in range(12):
        labels = np.zeros((40, 80), dtype=np.uint8)
        labels[: rng.integers(10, 30)] = 1
        image = rng.integers(0, 100, (40, 80, 3)) + labels[..., None] * 120
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(labels).save(root / "labels" / f"{index}.png")
    return root


def _command(script, *arguments):
    return [sys.executable, str(REPOSITORY / "training" / script), *map(str, arguments)]


def _environment():
    # No GPU, as `run.cpu` has it: what is evaluated on another device is rounded in another way.
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _run(command, **options):
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=300, **options)


def _finetune(folder, run_dir, *overrides):
    return _command(
        *("finetune_segmentation.py", "--config", CONFIGS / "folder_fewshot_resnet18.yaml", f"data.root={folder}"),
        *(f"run.output_dir={run_dir}", *SMALL, "schedule={steps: 6, warmup_steps: 1}", *overrides),
    )


@pytest.mark.heavy
def test_evaluate_prints_what_the_run_logged(folder, tmp_path):
    done = _run(_finetune(folder, tmp_path / "run", "run.eval_every=3"))
    assert done.returncode == 0, done.stderr
    model, _, printed = done.stdout.partition("\n")
    logged = json.loads(printed)
    assert logged["mean_iou"] > 0 and "step 6/6" in done.stderr
    for image in ("panel.png", "curves.png"):
        assert Image.open(tmp_path / "run" / "report" / image).size > (100, 100)
    options = ("--dataset", "folder", "--root", folder, "--split", "val", "--option", "val_fraction=0.2")
    scored = _run(_command("evaluate.py", "--model", model, *options, "--json"))
    assert scored.returncode == 0, scored.stderr
    scores = json.loads(scored.stdout)
    assert (scores.pop("dataset"), scores.pop("split"), scores.pop("images") > 0) == ("folder", "val", True)
    assert scores.pop("protocol") == "standard"
    assert scores and scores.items() <= logged.items()


@pytest.mark.heavy
def test_mistakes_end_with_one_sentence(folder, tmp_path):
    done = _run(_finetune(folder, tmp_path / "run", "optim.lrr=1"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "Did you mean 'optim.lr'?" in done.stderr


LONG = ("schedule.steps=40", "run.checkpoint_every=4", "run.eval_every=20")


@pytest.fixture(scope="module")
def weights_of_an_unbroken_run(folder, tmp_path_factory):
    """Final weights of a run that nobody disturbed."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    done = _run(_finetune(folder, run_dir, *LONG))
    assert done.returncode == 0, done.stderr
    return load_file(run_dir / "checkpoints" / "step_40" / "model.safetensors")


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_killed_goes_on_as_if_nothing_had_been(folder, tmp_path, weights_of_an_unbroken_run, number):
    command = _finetune(folder, tmp_path / "run", *LONG)
    process = subprocess.Popen(command, env=_environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not any((tmp_path / "run" / "checkpoints").glob("step_*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else os.EX_TEMPFAIL)
    if number != signal.SIGKILL:
        assert b"Stopped on request" in errors and b"run.resume=true" in errors
    resumed = _run(_finetune(folder, tmp_path / "run", *LONG, "run.resume=true"))
    assert resumed.returncode == 0, resumed.stderr
    weights = load_file(tmp_path / "run" / "checkpoints" / "step_40" / "model.safetensors")
    assert all((weights[name] == values).all() for name, values in weights_of_an_unbroken_run.items())
