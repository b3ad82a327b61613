"""The CamVid recipe on the real images: two processes, counted, and equal to one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rounding import SHARE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "training" / "finetune_segmentation.py"
CONFIG = ROOT / "training" / "configs" / "camvid_fewshot_resnet18.yaml"
CAMVID = Path(os.environ.get("DEPTHSEG_DATA", "")) / "camvid"
STEPS = 3
# On the CPU everywhere: two processes would want two GPUs, and scores of another device are rounded in another way.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(run_dir: Path, processes: int) -> None:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    options = [f"data.root={CAMVID}", f"run.output_dir={run_dir}"]
    options += [f"schedule.steps={STEPS}", "schedule.warmup_steps=1"]
    done = subprocess.run(
        [*launcher, SCRIPT, "--config", CONFIG, *options],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.heavy
@pytest.mark.skipif(not CAMVID.is_dir(), reason="DEPTHSEG_DATA names no folder that holds camvid/")
def test_two_processes_are_counted_equal_one_and_are_scored_as_logged(tmp_path):
    for processes in (2, 1):
        start(tmp_path / str(processes), processes)
    lines = {}
    for processes in (2, 1):
        run = json.loads((tmp_path / str(processes) / "run.json").read_text())
        assert run["launches"][0]["num_processes"] == processes
        lines[processes] = json.loads((tmp_path / str(processes) / "metrics.jsonl").read_text().splitlines()[-1])
    # The mean over the steps: the first compares the losses, the others also the updates between them.
    assert lines[2]["train_loss"] == pytest.approx(lines[1]["train_loss"], rel=SHARE)
    names = [json.loads((tmp_path / f"{n}" / "subset.json").read_text())["names"] for n in (2, 1)]
    assert names[0] == names[1] and len(names[0]) == 16 and not any(name.startswith("0016E5") for name in names[0])
    done = subprocess.run(
        [sys.executable, "-m", "depthseg.cli", "evaluate", "--model", tmp_path / "2" / "model"]
        + ["--dataset", "camvid", "--root", CAMVID, "--split", "val", "--json"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    printed = json.loads(done.stdout)
    found = [printed.pop(name) for name in ("dataset", "split", "images", "protocol")]
    assert found == ["camvid", "val", 101, "standard"]
    assert printed and all(lines[2][name] == value for name, value in printed.items())
