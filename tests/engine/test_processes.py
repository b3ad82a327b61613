"""Two processes against one with the same global batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rounding import SHARE, assert_same_training
from safetensors.torch import load_file
from torch import nn

from depthseg.engine.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norm

REPOSITORY = Path(__file__).parents[2]
# SGD, because Adam's division would blow up the last bits of a gradient near zero. Scored at each step for its loss.
# Micro-batches of 8: the deepest maps have 1x2 pixels, and statistics over a handful of values blow up rounding too.
OPTIONS = (
    *("optim.name=sgd", "optim.lr=0.05", "optim.batch_size=16", "optim.accumulation_steps=2"),
    *("run.eval_every=1", "schedule.steps=4"),
)


def launch(script: Path, *arguments: str, processes: int = 2) -> subprocess.CompletedProcess:
    """Start a script with torchrun and nothing else set."""
    command = torchrun(script, *arguments, processes=processes)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)


def torchrun(script: Path, *arguments: str, processes: int = 2) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*command, str(script), *arguments]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def two_and_one(tiny, tmp_path_factory):
    """The same run, in two processes and in this one."""
    folder = tmp_path_factory.mktemp("processes")
    done = launch(Path(tiny.__file__), "3", str(folder / "two"), *OPTIONS)
    assert done.returncode == 0, done.stderr
    tiny.tiny_train(folder / "one", *OPTIONS)
    return folder / "two", folder / "one"


@pytest.mark.heavy
def test_two_processes_took_part(two_and_one):
    for folder, count in zip(two_and_one, (2, 1), strict=True):
        assert json.loads((folder / "run.json").read_text())["launches"][0]["num_processes"] == count


@pytest.mark.heavy
def test_losses_and_scores_are_those_of_one_process(two_and_one):
    two, one = ([json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in two_and_one)
    assert len(two) == len(one) == 4
    for ours, theirs in zip(two, one, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=SHARE)
        # A pixel may change sides where two classes are equally likely; there are 6144 of them.
        assert ours["pixel_accuracy"] == pytest.approx(theirs["pixel_accuracy"], abs=5e-4)


@pytest.mark.heavy
def test_weights_and_statistics_are_those_of_one_process(two_and_one, tiny):
    step = Path("checkpoints", "step_4", "model.safetensors")
    two, one = (load_file(run / step) for run in two_and_one)
    assert any(name.endswith("running_var") for name in one)
    assert_same_training(two, one, tiny.tiny_start(*OPTIONS))


@pytest.mark.heavy
def test_a_checkpoint_of_two_processes_resumes_in_one(two_and_one, tiny, tmp_path):
    two, _ = two_and_one
    result = tiny.tiny_train(two, *OPTIONS, "run.resume=true")
    assert json.loads((two / "run.json").read_text())["launches"][-1]["first_step"] == 4
    assert result.scores["step"] in range(1, 5)


@pytest.mark.heavy
def test_two_processes_that_are_killed_and_damaged_end_bit_by_bit_as_if_nothing_had_been(tiny, tmp_path):
    script = Path(tiny.__file__)
    options = ("schedule.steps=30", "run.checkpoint_every=2", "run.eval_every=5", "data.crop_scale=[0.5,1]")
    done = launch(script, "3", str(tmp_path / "whole"), *options)
    assert done.returncode == 0, done.stderr
    killed = subprocess.Popen(
        torchrun(script, "3", str(tmp_path / "run"), *options),
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    checkpoints = tmp_path / "run" / "checkpoints"
    while len(list(checkpoints.glob("step_*"))) < 2:
        assert killed.poll() is None
        time.sleep(0.02)
    workers = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    for number in (killed.pid, *map(int, workers)):
        os.kill(number, signal.SIGKILL)
    killed.wait()
    assert len(workers) == 2
    newest = max(checkpoints.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    os.truncate(newest / "optimizer.safetensors", 1000)
    resumed = launch(script, "3", str(tmp_path / "run"), *options, "run.resume=true")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count(f"{newest.name} cannot be resumed: optimizer.safetensors has 1000 bytes") == 1
    for name in ("model.safetensors", "optimizer.safetensors", "random_states.json"):
        ours, theirs = (tmp_path / run / "checkpoints" / "step_30" / name for run in ("run", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert len(json.loads(ours.read_text())) == 2
    os.truncate(checkpoints / "step_28" / "manifest.json", 5)
    os.truncate(checkpoints / "step_30" / "model.safetensors", 5)
    refused = launch(script, "3", str(tmp_path / "run"), *options, "run.resume=true")
    assert refused.returncode == 1
    # Both processes raise it, though only the first one looked.
    assert refused.stderr.count(f"ValueError: No checkpoint in {checkpoints} can be resumed. step_30: model.saf") == 2


def test_conversion_keeps_tensors_keys_and_frozen_layers():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)))
    module[1][1].requires_grad_(False)
    state = module.state_dict()
    synced = synchronise_batch_norm(module)
    assert type(synced[1][0]) is SyncBatchNorm2d and type(synced[1][1]) is nn.BatchNorm2d
    assert synced.state_dict().keys() == state.keys()
    assert all(value.data_ptr() == state[name].data_ptr() for name, value in synced.state_dict().items())


def test_a_converted_layer_that_does_not_train_is_the_plain_one():
    plain = nn.BatchNorm2d(4)
    nn.init.normal_(plain.running_mean)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(SyncBatchNorm2d.from_batch_norm(plain).eval()(x), plain.eval()(x), rtol=0, atol=0)


@pytest.mark.heavy
def test_without_labels_two_processes_are_one_even_if_one_has_no_image_to_score(tiny, tmp_path):
    options = ("task=depth", "pretext.supervision=mono", "pretext.intrinsics=per_image", *OPTIONS)
    done = launch(Path(tiny.__file__), "1", str(tmp_path / "two"), *options)
    assert done.returncode == 0, done.stderr
    tiny.tiny_train(tmp_path / "one", *options, scored=1)
    two, one = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("two", "one")
    )
    assert len(two) == len(one) == 4
    for ours, theirs in zip(two, one, strict=True):
        for name in ("train_loss", "val_loss", "focal_error"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name


PATIENT = """
import sys, time
from datetime import timedelta
from accelerate import Accelerator, InitProcessGroupKwargs
from depthseg.engine.patience import agreed, wait_patiently

accelerator = Accelerator(cpu=True, kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=2))])

def read():
    time.sleep(5)
    return {"found": 3}

def fail():
    time.sleep(3)
    raise ValueError("image 3 is damaged")

assert agreed(accelerator, read) == {"found": 3}
if accelerator.process_index == 1:
    time.sleep(4)
wait_patiently(accelerator)
try:
    agreed(accelerator, fail)
except ValueError as error:
    sys.stdout.write(f"{accelerator.process_index}: {error}\\n")
accelerator.end_training()
"""


@pytest.mark.heavy
def test_processes_wait_for_the_first_one_for_longer_than_a_collective_may_take(tmp_path):
    (tmp_path / "patient.py").write_text(PATIENT)
    done = launch(tmp_path / "patient.py")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split("\n")) == ["", "0: image 3 is damaged", "1: image 3 is damaged"]
