"""What a run tells while it trains: whose line it is, and one bar for one run."""

import logging
import multiprocessing
import sys

import pytest
from accelerate import Accelerator

from depthseg.engine import records
from depthseg.engine.state import Progress


def test_every_line_names_its_run(tiny, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="depthseg"):
        tiny.tiny_train(tmp_path / "depth_0", "schedule.steps=2", "run.log_every=1", "run.report=false")
    lines = [record.getMessage() for record in caplog.records if "step " in record.getMessage()]
    assert len(lines) == 3  # two steps and one evaluation
    assert all(line.startswith("depth_0: step ") for line in lines)


@pytest.mark.parametrize(
    ("is_child", "terminal", "drawn"), [(False, True, True), (False, False, False), (True, True, False)]
)
def test_a_bar_is_drawn_on_a_terminal_by_a_run_that_is_alone(tiny, tmp_path, monkeypatch, is_child, terminal, drawn):
    bars = []

    class Bar(records.tqdm):
        def __init__(self, **options):
            bars.append(not options["disable"])
            super().__init__(**{**options, "disable": True})

    monkeypatch.setattr(records, "tqdm", Bar)
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: object() if is_child else None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    tiny.tiny_train(tmp_path / "run", "schedule.steps=1", "run.report=false")
    assert bars == [drawn]


def test_the_share_of_waiting_for_data_is_told(tiny, tmp_path, monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr(records.time, "perf_counter", lambda: clock[0])
    config = tiny.tiny_config(tmp_path)
    log = records.RunLog(tmp_path, Accelerator(cpu=True), config, Progress())
    with caplog.at_level(logging.INFO, logger="depthseg"):
        for step in range(1, 7):
            with log.waiting():
                clock[0] += 1
            clock[0] += 3 if step < 6 else 0
            log.step(step, {"loss": 1.0}, 0.1)
    assert "step 6/6" in caplog.text and "waiting for data 29 %" in caplog.text  # 6 of 21 seconds
