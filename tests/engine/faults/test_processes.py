"""Several processes, one of which stops or dies."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
OPTIONS = ("schedule.steps=40", "run.checkpoint_every=2", "run.eval_every=10", "run.timeout=20", "run.report=false")


def _start(tiny, run_dir, log):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    return subprocess.Popen(
        [*command, tiny.__file__, "3", str(run_dir), *OPTIONS],
        env=kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        stderr=log.open("w"),
    )


def _second_process(launcher, run_dir):
    """The process of rank 1, once a checkpoint is there."""
    while not (run_dir / "checkpoints" / "step_2").is_dir():
        assert launcher.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    ranks = {_rank(child): int(child) for child in children}
    return ranks["1"]


def _rank(process):
    values = dict(
        each.split("=", 1) for each in Path(f"/proc/{process}/environ").read_text().split("\0") if "=" in each
    )
    return values.get("RANK")


def _said(log):
    found = re.search(r"RunFault: (.*)", log.read_text())
    assert found, log.read_text()
    return found[1]


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stalled", "killed"])
def test_the_process_that_the_others_wait_for_is_named(number, tiny, tmp_path, row):
    run_dir, log = tmp_path / "run", tmp_path / "log.txt"
    launcher = _start(tiny, run_dir, log)
    second = _second_process(launcher, run_dir)
    os.kill(second, number)
    try:
        assert launcher.wait(240) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):  # the launcher has ended it
            os.kill(second, signal.SIGKILL)
    if number == signal.SIGKILL:
        assert f"Signal 9 (SIGKILL) received by PID {second}" in log.read_text()  # of the launcher
    # The launcher ends the other process a tenth of a second after a death: busy machines are slower.
    if number == signal.SIGSTOP or "RunFault" in log.read_text():
        said = re.sub(r"in step \d+( for|;)", r"in step N\1", _said(log)).split(" The exchange ended with")[0]
        if number == signal.SIGSTOP:
            assert f"process 1 (process id {second} on" in said and "does not answer" in said
            row("One of two processes stalls", said, "The checkpoints.")
        else:
            row("One of two processes is killed", said, "The checkpoints.")
