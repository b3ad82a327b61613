"""The benchmark of a GPU: its parts on the CPU at toy size, and what a part that fails leaves."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from depthseg.bench import device_parts
from depthseg.bench.device_parts import PARTS, VARIANTS, Where, peak_of_device, progress_of, run_to_file
from depthseg.bench.device_run import TOTAL_SECONDS, run_parts

CHECKOUT = Path(__file__).parents[1]
SCRIPT = CHECKOUT / "training" / "benchmarks" / "gpu.py"
GOOD = """
import sys
with open(sys.argv[1], "a") as file:
    file.write('{"ms": 1}\\n')
    file.write('{"ms": 2}\\n')
"""
PROGRAMS = {
    "good": GOOD,
    "failing": GOOD + "raise SystemExit('error: too little memory')",
    # Half a row is written when time is over, and a process of its own is left.
    "slow": GOOD
    + """
    file.write('{"ms":')
    file.flush()
    import subprocess, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(child.pid, file=sys.stderr, flush=True)
    time.sleep(60)
""",
}


@pytest.fixture
def any_precision():
    """Accelerate keeps the precision of the first run of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()


def fake(name: str, rows: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAMS[name], str(rows)]


def run_fakes(folder: Path, *names: str, header: str = "a", **options: float) -> tuple[dict, list[str]]:
    said: list[str] = []
    budgets = {name: 3 if name == "slow" else 60 for name in names}
    content = run_parts(
        budgets, fake, folder / "gpu.json", {"device": header, "commit": "abc"}, say=said.append, **options
    )
    assert json.loads((folder / "gpu.json").read_text()) == content
    return content["parts"], said


def test_a_part_that_fails_or_is_slow_leaves_the_others_and_its_own_rows(tmp_path):
    parts, said = run_fakes(tmp_path, "failing", "slow", "good")
    rows = [{"ms": 1}, {"ms": 2}]
    assert [(name, part["status"], part["rows"]) for name, part in parts.items()] == [
        ("failing", "failed", rows),
        ("slow", "out of time", rows),
        ("good", "done", rows),
    ]
    assert parts["failing"]["error"] == "error: too little memory" and "error" not in parts["good"]
    assert "too little memory" in said[0] and '{"ms": 2}' in said[2]
    child = int(parts["slow"]["error"])
    time.sleep(0.1)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_is_done_is_not_done_again(tmp_path):
    before, _ = run_fakes(tmp_path, "good", "failing")
    after, said = run_fakes(tmp_path, "good", "failing")
    assert after["good"] == before["good"] and said[0].split() == ["good", "done", "before"]
    assert "failing" in said[1] and "failed" in said[1]  # what failed is tried again
    _, said = run_fakes(tmp_path, "good", again=True)
    assert "done in" in said[0]


def test_results_of_another_device_are_moved_aside(tmp_path):
    before, _ = run_fakes(tmp_path, "good")
    _, said = run_fakes(tmp_path, "good", header="b")
    assert "gpu_abc.json now" in said[0] and "done in" in said[1]
    assert json.loads((tmp_path / "gpu_abc.json").read_text())["parts"] == before


def test_no_part_begins_when_time_is_over(tmp_path):
    run_fakes(tmp_path, "good")
    parts, said = run_fakes(tmp_path, "good", "failing", total_seconds=0)
    assert list(parts) == ["good"] and "not begun" in said[1] and "resumes" in said[1]


def test_another_file_is_not_overwritten(tmp_path):
    (tmp_path / "gpu.json").write_text("[1]")
    with pytest.raises(ValueError, match="is no result of this benchmark"):
        run_fakes(tmp_path, "good")
    assert (tmp_path / "gpu.json").read_text() == "[1]"


def test_all_parts_take_eight_minutes_at_most():
    assert sum(part.seconds for part in PARTS.values()) <= 8 * 60
    assert next(iter(PARTS)) == "tests"


@pytest.mark.heavy
def test_every_variant_of_a_step_is_timed_beside_the_plain_loop(tmp_path, any_precision):
    rows = list(PARTS["steps-small"].run(Where("cpu", CHECKOUT, tmp_path, tiny=True)))
    assert [row["variant"] for row in rows] == ["plain loop", *VARIANTS]
    assert rows[0]["flops"] > 1e6 and not [row for row in rows if "error" in row]
    for row in rows[1:]:
        # Of two repetitions the median is the mean, and a ratio of sums is between the ratios.
        for ratio in (row["ratio"], row["ms"] / row["plain_ms"]):
            assert (1 - 1e-9) * row["ratio_min"] <= ratio <= (1 + 1e-9) * row["ratio_max"]
        assert row["images_per_second"] == pytest.approx(1000 / row["ms"])
        assert "mfu" not in row  # a CPU has no peak that is known


def test_a_variant_that_fails_leaves_the_others(tmp_path, any_precision, monkeypatch):
    def out_of_memory(setting, variant):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB\nmore")

    monkeypatch.setattr(device_parts, "EngineLoop", out_of_memory)
    rows = list(PARTS["steps-large"].run(Where("cpu", CHECKOUT, tmp_path, tiny=True)))
    assert {row["error"] for row in rows[1:]} == {"CUDA out of memory. Tried to allocate 20 GiB"}
    assert len(rows) == 1 + len(VARIANTS)


def test_share_of_the_peak_is_that_of_the_data_sheet(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert peak_of_device("cuda") == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40")
    assert peak_of_device("cuda") is None and peak_of_device("cpu") is None


def test_operations_are_rows_of_plain_numbers(tmp_path, any_precision):
    run_to_file("operations", Where("cpu", CHECKOUT, tmp_path, tiny=True), tmp_path / "rows")
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    assert [row["operation"] for row in rows] == ["metric", "loss", "predict"]
    assert not [row for row in rows if "error" in row] and rows[2]["images_per_second"] > 0
    assert all(math.isfinite(row["ratio"]) for row in rows[:2])


def test_a_training_is_ended_some_seconds_after_its_first_line():
    program = "import itertools, sys, time\nfor i in itertools.count(1):\n    time.sleep(0.02)\n"
    program += "    print(f'run: step {i}/1000, loss 1.0, lr 1e-3, 50.00 steps/s', file=sys.stderr, flush=True)"
    seen = progress_of([sys.executable, "-c", program], 0.5)
    steps, times, _ = zip(*seen, strict=True)
    assert list(steps) == list(range(1, len(steps) + 1)) and 1 < len(steps) < 40
    assert 0 < times[-1] - times[0] < 5
    with pytest.raises(RuntimeError, match="ended by itself: .*no such data"):
        progress_of([sys.executable, "-c", "raise SystemExit('error: no such data')"], 0.5)


def test_an_installation_without_pytest_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "pytest.py").write_text("raise SystemExit('No module named pytest')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="the tests ended with 1: No module named pytest"):
        next(device_parts.tests(Where("cpu", tmp_path, tmp_path, tiny=True)))


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_try_on_a_cpu_has_time_for_every_part(tmp_path, script, monkeypatch):
    calls = []
    monkeypatch.setattr(
        script, "run_parts", lambda budgets, *rest, total_seconds: calls.append((budgets, total_seconds))
    )
    for tiny in ([], ["--tiny"]):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cuda", "--output", str(tmp_path / "a.json"), *tiny])
        monkeypatch.setattr(script, "header_of", lambda where: {"device": "cpu"})
        script.main()
    (_, full), (budgets, tried) = calls
    assert full == TOTAL_SECONDS and sum(budgets.values()) <= tried


def test_without_a_gpu_a_line_says_so(script, monkeypatch, capsys):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    script.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert "finds no GPU on this machine" in line and "--device cpu --tiny" in line


@pytest.mark.heavy
def test_the_command_runs_its_parts_on_a_cpu(tmp_path):
    # At toy size the steps of all three networks are those of one.
    chosen = [name for name in PARTS if name not in ("steps-base", "steps-large")]
    command = [sys.executable, SCRIPT, *chosen, "--device", "cpu", "--tiny", "--output", tmp_path / "cpu.json"]
    data = {"DEPTHSEG_DATA": ""} | dict(os.environ)
    done = subprocess.run(command, capture_output=True, text=True, env=data | {"PYTHONPATH": str(CHECKOUT)})
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "cpu.json").read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(chosen, "done")
    assert parts["mono"]["rows"][0]["steps_per_second"] > 0
    assert parts["tests"]["rows"][0]["passed"] > 0
