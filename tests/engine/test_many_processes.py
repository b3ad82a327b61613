"""Four processes of one machine, and two nodes of one process: the numbers are those of one."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from rounding import SHARE
from safetensors.torch import load_file

REPOSITORY = Path(__file__).parents[2]
ENGINE = Path(__file__).parent
CASES = (
    *("mono", "stereo", "mono_stereo", "flow", "inpainting", "classification", "depth", "segmentation", "ignored"),
    *("mask_queries", "mask2former", "ignored_masks"),
)
CLOSE = 1e-6
"""Share of a number, and at least of 1, by which the number of processes may move it."""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "FSDP"))}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | more


def torchrun(processes: int, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*command, *arguments]


def run(command: list[str], **more: str) -> None:
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def lines(folder: Path) -> list[dict[str, float]]:
    """The numbers of each evaluation, those of single classes too."""
    return [dict(numbers(json.loads(text))) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def numbers(values: dict, prefix: str = ""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers(value, f"{prefix}{name}/")
        elif isinstance(value, float) and name != "seconds":
            yield prefix + name, value


@pytest.fixture(scope="module")
def every_task(tmp_path_factory):
    """The folder of all runs, by number of processes."""
    folder = tmp_path_factory.mktemp("processes")
    for processes in (1, 4):
        run(torchrun(processes, str(ENGINE / "every_task.py"), str(folder / str(processes))))
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("case", CASES)
def test_losses_scores_and_weights_are_those_of_one_process(every_task, case):
    ours, theirs = every_task / "4" / case, every_task / "1" / case
    assert json.loads((ours / "run.json").read_text())["launches"][0]["num_processes"] == 4
    found, expected = lines(ours), lines(theirs)
    assert len(found) == len(expected) == 2
    for here, there in zip(found, expected, strict=True):
        assert here.keys() == there.keys() and {"train_loss"} < here.keys()
        for name, value in there.items():
            assert here[name] == pytest.approx(value, rel=CLOSE, abs=CLOSE, nan_ok=True), name
    # The second step has gradients behind it, or nothing that could be learned.
    assert math.isfinite(found[0]["train_loss"]) and found[0]["train_loss"] != found[1]["train_loss"]
    last = Path("checkpoints", "step_2", "model.safetensors")
    weights = load_file(theirs / last)
    for name, values in load_file(ours / last).items():
        share = SHARE if name.endswith(("running_mean", "running_var")) else CLOSE
        bound = share * max(1, weights[name].double().abs().max().item())
        assert (values.double() - weights[name].double()).abs().max() <= bound, name


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


NODES = {
    "torchrun": lambda rank, port: [
        *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
    ],
    "accelerate": lambda rank, port: [
        *("-m", "accelerate.commands.launch", "--config_file", f"{REPOSITORY}/training/launch/several_nodes.yaml"),
        *("--num_processes", "2", "--machine_rank", str(rank), "--main_process_port", str(port)),
    ],
}


@pytest.mark.heavy
@pytest.mark.parametrize("launcher", NODES)
def test_two_launchers_are_two_nodes_and_train_to_the_loss_of_one_process(tiny, tmp_path, launcher):
    options = ("optim.name=sgd", "optim.lr=0.05", "optim.batch_size=16", "run.eval_every=1", "schedule.steps=4")
    port = free_port()
    script = [str(ENGINE / "tiny_run.py"), "3", str(tmp_path / "nodes"), *options]
    launchers = [
        subprocess.Popen(
            [sys.executable, *NODES[launcher](rank, port), *script],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for node in launchers:
        errors = node.communicate(timeout=600)[1]
        assert node.returncode == 0, errors
    tiny.tiny_train(tmp_path / "one", *options)
    assert json.loads((tmp_path / "nodes" / "run.json").read_text())["launches"][0]["num_processes"] == 2
    found, expected = lines(tmp_path / "nodes"), lines(tmp_path / "one")
    assert len(found) == len(expected) == 4
    for here, there in zip(found, expected, strict=True):
        assert here["train_loss"] == pytest.approx(there["train_loss"], rel=1e-5)
