"""What a study says beforehand that it will run, and how long that takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from study.tiny_study import tiny_study

from depthseg.engine.options import RunConfig, RunOptions, ScheduleOptions
from depthseg.study import plan as plan_module
from depthseg.study.plan import Cost, PlanRow, plan_study, plan_text, stage_of
from depthseg.study.runner import run_study, trials_in_order
from depthseg.study.stored import read_record, record_path


@pytest.fixture
def costs(monkeypatch):
    """Every run takes 3 s, 0.5 s a step and 2 s an evaluation, and reading 7 s; the trials that were measured."""
    measured, cost = [], Cost(step=0.5, evaluation=2.0, rest=3.0, reading=7.0, memory=1.5)
    monkeypatch.setattr(plan_module, "measure_cost", lambda study, trial: measured.append(trial) or cost)
    return measured


def test_trials_are_counted_and_their_time_added_up(costs, tmp_path, caplog):
    study = tiny_study(tmp_path)
    with caplog.at_level("INFO", logger="depthseg"):
        rows = {row.what: row for row in plan_study(study, tmp_path / "out")}
    first, *stages = caplog.messages
    assert first == "tiny has 20 trials in 4 stages"
    assert stages == [
        f"measuring 12 steps of one of {row.trials} remaining trials: {name}" for name, row in rows.items()
    ]
    # Two initialisations are pre-trained; three x two rates; three x two numbers of labels x two seeds.
    assert {what: row.trials for what, row in rows.items()} == {
        "pre-training, depth, eighth": 1,
        "pre-training, deeper, eighth": 1,
        "learning-rate selection, frozen, eighth": 6,
        "fine-tuning, frozen, eighth": 12,
    }
    # Two steps, and with eval_every=1 two evaluations, one of which is in the rest; the images are read once.
    assert rows["fine-tuning, frozen, eighth"].seconds == pytest.approx(7.0 + 12 * (2 * 0.5 + 2.0 + 3.0))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("images", "stages"),
    [
        (
            "{val_split: test, size: [64, 128]}",
            ["fine-tuning, frozen, eighth, other", "fine-tuning, frozen, eighth, world"],
        ),
        ("{val_split: test}", ["fine-tuning, frozen, eighth"]),
    ],
)
def test_benchmarks_of_other_images_are_measured_by_themselves(costs, tmp_path, images, stages):
    other = f"benchmarks.other={{num_labelled: [2], folds: {{test: {{data: {images}}}}}}}"
    rows = plan_study(tiny_study(tmp_path, other), tmp_path / "out")
    assert sorted(row.what for row in rows if row.what.startswith("fine-tuning")) == stages
    assert "learning-rate selection, frozen, eighth" in [row.what for row in rows]


def test_what_is_done_takes_no_time_and_is_not_measured(costs, tmp_path):
    study, out = tiny_study(tmp_path), tmp_path / "out"
    first, second, third, *_ = trials_in_order(study, out)
    for trial in (first, second):
        record_path(out, trial.key).parent.mkdir(parents=True, exist_ok=True)
        record_path(out, trial.key).write_text("{}")
    rows = plan_study(study, out)
    assert [(row.done, row.seconds) for row in rows[:2]] == [(1, 0.0), (1, 0.0)]
    assert [trial.config.task for trial in costs] == ["segmentation", "segmentation"]


@pytest.mark.parametrize(("steps", "every", "evaluations"), [(600, 50, 11), (600, 0, 0), (10, 4, 2), (3, 5, 0)])
def test_every_evaluation_before_the_last_step_counts(steps, every, evaluations):
    config = RunConfig(schedule=ScheduleOptions(steps=steps), run=RunOptions(eval_every=every))
    cost = Cost(step=0.25, evaluation=4.0, rest=1.0, reading=100.0, memory=0.0)
    assert cost.seconds(config) == pytest.approx(0.25 * steps + 4.0 * evaluations + 1.0)


def test_the_table_says_what_is_left():
    rows = [PlanRow("a", 4, 1, Cost(1, 2, 3, 4, 0.5), 3 * 60.0), PlanRow("b", 2, 2, Cost(0, 0, 0, 0, 0), 0.0)]
    text = plan_text(rows)
    assert "| 4 | 1 | 1 min 00 s | 0.5 GiB | 3 min 00 s | a |" in text
    assert text.startswith("| trials | done | per trial | memory | remaining | stage |\n")
    assert text.endswith("3 trials remain, about 3 min 00 s on this machine if run one after another.")


def test_steps_evaluations_and_the_rest_are_told_apart(tmp_path, monkeypatch):
    """A run of known times: 4 s to set up, a slow first step, 0.5 s for each other one, 2 s an evaluation."""
    clock, examined, wrapped = SimpleNamespace(now=0.0), [], []

    def spend(seconds):
        clock.now += seconds

    class Images:
        """Twenty images, each of which takes 0.25 s to read."""

        def __len__(self):
            return 20

        def __getitem__(self, index):
            spend(0.25)

    def run(config, wrapping):
        wrapped.append(wrapping)
        spend(4.0)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        for step in range(1, config.schedule.steps + 1):
            spend(8.0 if step == 1 else 0.5)
            optimizer.step()
            if step == config.schedule.steps or (config.run.eval_every and step % config.run.eval_every == 0):
                spend(2.0)
        return "the result"

    monkeypatch.setattr(plan_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(plan_module, "train", run)
    monkeypatch.setattr(plan_module, "run_arguments", lambda trial: {"wrapping": trial.key})
    monkeypatch.setattr(plan_module, "build_datasets", lambda data: spend(1.0) or (Images(), Images()))
    monkeypatch.setattr(plan_module, "examine", lambda *what: examined.append(what[:3]) or spend(3.0))
    monkeypatch.setattr(plan_module, "baselines_of", lambda data: spend(100.0))
    monkeypatch.setattr(plan_module, "READ", 10)
    study = tiny_study(tmp_path, "pretrain.run.eval_every=0")
    pretraining, *_, reported = trials_in_order(study, tmp_path / "out")
    # 4 s, what the first step took longer, and the last evaluation; only a reported model is examined.
    for trial, evaluation, rest in ((pretraining, 0.0, 4.0 + 7.5 + 2.0), (reported, 2.0, 4.0 + 7.5 + 2.0 + 3.0)):
        cost = plan_module._measure(study, trial)
        found = (cost.step, cost.evaluation, cost.rest, cost.reading)
        assert found == pytest.approx((0.5, evaluation, rest, 1.0 + 2 * 20 * 0.25)) and cost.memory > 0
    assert examined == [(study, reported, "the result")] and wrapped == [pretraining.key, reported.key]
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1).step()


@pytest.mark.heavy
def test_a_plan_that_is_ended_leaves_no_process(tmp_path):
    """The signal reaches the first process alone, as that of a scheduler may."""
    options = ["pretrain.schedule.steps=100000", "pretrain.data.train_options={count: 400}"]
    tiny_study(tmp_path)
    command = [Path(sys.executable).with_name("depthseg"), "study", "tiny.yaml", "--dry-run", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    launched = psutil.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while len(children := launched.children(recursive=True)) < 2:  # that which measures, and a tracker of resources
        assert launched.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    launched.terminate()
    assert launched.wait(60) == 128 + signal.SIGTERM
    assert psutil.wait_procs(children, 30)[1] == []


@pytest.mark.heavy
def test_the_estimate_of_a_study_is_right_within_a_factor_of_two(tmp_path):
    """With an evaluation after every fourth step, as the time of convergence curves is mostly that of evaluations."""
    options = ["finetune.schedule.steps=40", "pretrain.schedule.steps=40", "finetune.run.eval_every=4"]
    study = tiny_study(tmp_path, *options, "rates.grid=[]", "seeds.finetune=3")
    expected = {row.what: row.seconds for row in plan_study(study, tmp_path / "out")}
    run_study(study, tmp_path / "out")
    taken = {}
    for trial in trials_in_order(study, tmp_path / "out"):
        stage = stage_of(trial)
        taken[stage] = taken.get(stage, 0.0) + read_record(record_path(tmp_path / "out", trial.key))["seconds"]
    assert taken.keys() == expected.keys()
    assert 0.5 < sum(expected.values()) / sum(taken.values()) < 2
