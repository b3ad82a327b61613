"""The files of training/launch: Accelerate reads them, and what Slurm stopped is saved and queued again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from depthseg.engine.stopping import REQUEUE_CODE

REPOSITORY = Path(__file__).parents[2]
LAUNCH = REPOSITORY / "training" / "launch"
TINY = REPOSITORY / "tests" / "engine" / "tiny_run.py"

# Stand-ins for the commands of Slurm: two tasks, each with its children in a group of its own, as Slurm signals all
# processes of a task; the code of a step is the highest of its tasks.
COMMANDS = {
    "srun": """#!/usr/bin/env bash
[ "$1" = --kill-on-bad-exit=0 ] && shift
pids=()
for number in 0 1; do
    SLURM_PROCID=$number SLURM_LOCALID=$number setsid "$@" &
    pids+=($!)
done
echo "${pids[@]}" > "$STAND_IN/tasks"
highest=0
for pid in "${pids[@]}"; do
    wait "$pid"; code=$?
    [ $code -gt $highest ] && highest=$code
done
exit $highest
""",
    "scancel": """#!/usr/bin/env bash
[ "$*" = "--signal=USR1 7.0" ] || exit 1
for pid in $(cat "$STAND_IN/tasks"); do kill -USR1 -- "-$pid"; done
""",
    "scontrol": """#!/usr/bin/env bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$*" >> "$STAND_IN/requeued"; fi
""",
}


@pytest.fixture
def slurm(tmp_path):
    """Environment of a job script, and the folder of its stand-ins."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "one", "SLURM_NTASKS": "2", "STAND_IN": str(folder)}
    return os.environ | job | {"PATH": path, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}, folder


def job(run_dir, *options):
    return ["bash", str(LAUNCH / "slurm.sbatch"), str(TINY), "3", str(run_dir), "data.num_workers=1", *options]


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_each_configuration(path):
    config = load_config_from_file(str(path))
    kinds = {"one_gpu": "NO", "ddp": "MULTI_GPU", "several_nodes": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "FSDP"}
    assert str(config.distributed_type).endswith(kinds[path.stem]) and config.use_cpu is False
    assert config.num_machines == (2 if path.stem == "several_nodes" else 1)


@pytest.mark.parametrize("name", [path.name for path in LAUNCH.iterdir() if path.suffix != ".yaml"])
def test_scripts_are_bash(name):
    assert subprocess.run(["bash", "-n", str(LAUNCH / name)], check=False).returncode == 0


def test_a_task_of_slurm_knows_its_place_and_has_its_cores(slurm):
    environment, _ = slurm
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "SRUN_CPUS_PER_TASK")
    # In one piece, as both write to one pipe, and may do so without a buffer.
    program = f"import os, sys; print(' '.join([*map(os.environ.get, {names}), sys.argv[1]]) + chr(10), end='')"
    command = ["bash", str(LAUNCH / "slurm.sbatch"), "-c", program]
    done = subprocess.run(
        command, env=environment | {"SLURM_CPUS_PER_TASK": "8"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = [f"{number} {number} 2 127.0.0.1 8 run.resume=true" for number in range(2)]
    assert sorted(done.stdout.splitlines()) == expected


@pytest.mark.heavy
def test_a_slurm_job_near_its_end_is_saved_queued_again_and_ends_as_if_nothing_had_been(slurm, tmp_path):
    environment, folder = slurm
    options = ("schedule.steps=30", "run.checkpoint_every=5", "data.crop_scale=[0.5,1]")
    whole = subprocess.run(job(tmp_path / "whole", *options), env=environment, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    assert not (folder / "requeued").exists()
    script = subprocess.Popen(job(tmp_path / "run", *options), env=environment, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoints" / "step_5").is_dir():
        assert script.poll() is None
        time.sleep(0.02)
    script.send_signal(signal.SIGUSR1)
    errors = script.communicate(timeout=60)[1]
    assert script.returncode == 0 and "Stopped on request after step" in errors
    assert (folder / "requeued").read_text() == "requeue 7\n"
    again = subprocess.run(job(tmp_path / "run", *options), env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (folder / "requeued").read_text() == "requeue 7\n"
    first, second = json.loads((tmp_path / "run" / "run.json").read_text())["launches"]
    assert first["num_processes"] == 2 and 5 <= second["first_step"] < 30
    ours, theirs = (
        load_file(tmp_path / run / "checkpoints" / "step_30" / "model.safetensors") for run in ("run", "whole")
    )
    assert all((values == theirs[name]).all() for name, values in ours.items())


@pytest.mark.heavy
def test_a_slurm_job_that_fails_is_not_queued_again(slurm, tmp_path):
    environment, folder = slurm
    done = subprocess.run(job(tmp_path / "run", "optim.lrr=1"), env=environment, capture_output=True, text=True)
    assert done.returncode not in (0, REQUEUE_CODE) and "Did you mean 'optim.lr'?" in done.stderr
    assert not (folder / "requeued").exists()
