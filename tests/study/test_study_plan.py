"""What a study says beforehand that it will run, and how long that takes."""

from __future__ import annotations

import time

import pytest
import torch
from study.tiny_study import tiny_study

from depthseg.study import plan as plan_module
from depthseg.study.plan import Cost, PlanRow, plan_study, plan_text
from depthseg.study.runner import trials_in_order
from depthseg.study.stored import record_path


@pytest.fixture
def costs(monkeypatch):
    """Every run takes 3 s and 0.5 s a step; the options that were measured."""
    measured = []
    monkeypatch.setattr(plan_module, "measure_cost", lambda config: measured.append(config) or Cost(0.5, 3.0, 1.5))
    return measured


def test_trials_are_counted_and_their_time_added_up(costs, tmp_path, caplog):
    study = tiny_study(tmp_path)
    with caplog.at_level("INFO", logger="depthseg"):
        rows = {row.what: row for row in plan_study(study, tmp_path / "out")}
    first, *stages = caplog.messages
    assert first == "tiny has 20 trials in 4 stages"
    assert stages == [
        f"measuring 8 steps of one of {row.trials} remaining trials: {name}" for name, row in rows.items()
    ]
    # Two initialisations are pre-trained; three x two rates; three x two numbers of labels x two seeds.
    assert {what: row.trials for what, row in rows.items()} == {
        "pre-training, depth, eighth": 1,
        "pre-training, deeper, eighth": 1,
        "learning-rate selection, frozen, eighth": 6,
        "fine-tuning, frozen, eighth": 12,
    }
    # Two steps, and with eval_every=1 two scorings, each taken for as long as the rest of a run.
    assert rows["fine-tuning, frozen, eighth"].seconds == pytest.approx(12 * (2 * 0.5 + 2 * 3.0))
    assert not (tmp_path / "out").exists()


def test_what_is_done_takes_no_time_and_is_not_measured(costs, tmp_path):
    study, out = tiny_study(tmp_path), tmp_path / "out"
    first, second, third, *_ = trials_in_order(study, out)
    for trial in (first, second):
        record_path(out, trial.key).parent.mkdir(parents=True, exist_ok=True)
        record_path(out, trial.key).write_text("{}")
    rows = plan_study(study, out)
    assert [(row.done, row.seconds) for row in rows[:2]] == [(1, 0.0), (1, 0.0)]
    assert [config.task for config in costs] == ["segmentation", "segmentation"]


def test_the_table_says_what_is_left():
    rows = [PlanRow("a", 4, 1, Cost(1, 2, 0.5), 3 * 60.0), PlanRow("b", 2, 2, Cost(0, 0, 0), 0.0)]
    text = plan_text(rows)
    assert "| 4 | 1 | 1 min 00 s | 0.5 GiB | 3 min 00 s | a |" in text
    assert text.startswith("| trials | done | per trial | memory | remaining | stage |\n")
    assert text.endswith("3 trials remain, about 3 min 00 s on this machine if run one after another.")


def test_steps_are_told_from_the_rest(tmp_path, monkeypatch):
    """A run of known times: 0.4 s to set up, a slow first step, 0.03 s for each other one, 0.3 s to score."""
    steps = []

    def run(config):
        time.sleep(0.4)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        for step in range(config.schedule.steps):
            time.sleep(0.5 if step == 0 else 0.03)
            optimizer.step()
            steps.append(step)
        time.sleep(0.3)

    monkeypatch.setattr(plan_module, "train", run)
    monkeypatch.setattr(plan_module, "build_datasets", lambda data: time.sleep(0.2))
    config = next(iter(trials_in_order(tiny_study(tmp_path), tmp_path / "out"))).config
    cost = plan_module._measure(config)
    assert steps == list(range(plan_module.STEPS))
    assert 0.03 <= cost.step < 0.045
    assert 0.4 + 0.3 + 0.5 - 0.05 < cost.rest < 1.5
    assert cost.memory > 0
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step()
