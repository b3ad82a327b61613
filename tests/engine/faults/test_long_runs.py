"""The scripts that kill runs and let them run for long, on a few moments and steps."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "training" / "benchmarks"


def _script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_fifty_moments_of_which_ten_are_inside_a_checkpoint():
    kills = _script("kill_and_resume")
    found = kills.moments()
    assert len(found) == 50 and sorted(m.place for m in found if m.place) == sorted(kills.PLACES)
    for setting in kills.SETTINGS:
        assert sum((m.processes, m.cache) == setting for m in found) >= 12
    assert len({m.share for m in found if not m.place}) > 35


@pytest.mark.heavy
def test_killed_runs_end_bit_by_bit_like_one_that_nothing_interrupts(tmp_path):
    found = _script("kill_and_resume").moments()
    chosen = [m for m in found if m.place][:3] + [m for m in found if not m.place][:3]
    assert {(m.processes, m.cache) for m in chosen} == {(1, False), (1, True), (2, False), (2, True)}
    numbers = [str(moment.number) for moment in chosen]
    script = BENCHMARKS / "kill_and_resume.py"
    command = [sys.executable, script, "--work-dir", tmp_path / "kills", "--output", tmp_path / "table.md"]
    done = subprocess.run([*command, "--moments", *numbers], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 runs ended" in (tmp_path / "table.md").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_memory_files_and_threads_stay_what_they_are(tmp_path):
    found = _script("soak").soak(800, tmp_path)
    # A slope of megabytes needs more steps than a test has; files and threads do not.
    assert found["files_grown_by"] <= 0 and found["threads_grown_by"] <= 0
    assert len(found["looks"]) == 40 and found["looks"][-1]["step"] == 800


@pytest.mark.heavy
def test_a_leak_is_seen(tmp_path, monkeypatch):
    soak = _script("soak")
    files = []

    class Leaking(soak.Toys):
        def __getitem__(self, index):
            files.append(open(__file__, encoding="utf-8"))  # noqa: SIM115
            return super().__getitem__(index)

    monkeypatch.setattr(soak, "Toys", Leaking)
    found = soak.soak(40, tmp_path, num_workers=0)
    for file in files:
        file.close()
    assert found["files_grown_by"] > 0 and not found["passed"]
