"""Trackers: what reaches them, and that a run never depends on one."""

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# A module of this name and interface stands for a package that is not installed here.
FAKE = """
import json
from pathlib import Path

CALLS = Path(__file__).with_suffix(".jsonl")


def note(*call):
    with CALLS.open("a") as file:
        file.write(json.dumps(call) + "\\n")


class Run:
    def log(self, values, step=None):
        note("log", values, step)

    def finish(self):
        note("finish")


class config:
    @staticmethod
    def update(values, allow_val_change):
        note("config", values)


def init(**arguments):
    note("init", arguments)
    return Run()
"""


@pytest.fixture(autouse=True)
def forget_fakes():
    yield
    for name in ("trackio", "wandb"):
        sys.modules.pop(name, None)


def install(folder, monkeypatch, name, text=FAKE):
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return folder / f"{name}.jsonl"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(run_dir):
    board = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in board.Tags()["scalars"]}


def test_tensorboard_has_the_numbers_of_the_run_also_when_it_was_resumed(tiny, tmp_path):
    options = ("run.trackers=[tensorboard]", "run.log_every=2", "run.eval_every=3", "run.checkpoint_every=3")
    tiny.tiny_train(tmp_path / "run", *options)
    metrics = lines(tmp_path / "run" / "metrics.jsonl")
    found = scalars(tmp_path / "run")
    assert [step for step, _ in found["train/loss"]] == [2, 4, 6]
    assert found["train/lr"][-1][1] == pytest.approx(metrics[-1]["lr"])
    assert found["eval/mean_iou"] == [(line["step"], pytest.approx(line["mean_iou"])) for line in metrics]
    assert {"train/grad_norm", "eval/train_loss"} <= found.keys() and "eval/lr" not in found
    # One writer a launch, in this folder alone: a run in TensorBoard is one run.
    assert [path.is_file() for path in (tmp_path / "run" / "tensorboard").iterdir()] == [True]


def test_a_tracker_gets_options_numbers_and_one_name_for_all_launches(tiny, tmp_path, monkeypatch):
    path = install(tmp_path, monkeypatch, "trackio")
    monkeypatch.setenv("TRACKIO_PROJECT", "streets")
    options = ("run.trackers=[trackio]", "run.log_every=3", "run.checkpoint_every=3")
    tiny.tiny_train(tmp_path / "run", *options)
    first = lines(path)
    assert [call[0] for call in first] == ["init", "config", "log", "log", "log", "finish"]
    started = first[0][1]
    assert started["project"] == "streets" and started["resume"] == "allow" and started["name"].startswith("run-")
    assert first[1][1]["optim.batch_size"] == 4 and first[1][1]["data.size"] == "[32, 64]"
    (metrics,) = lines(tmp_path / "run" / "metrics.jsonl")
    assert [call[2] for call in first[2:5]] == [3, 6, 6]
    assert first[4][1]["eval/mean_iou"] == metrics["mean_iou"]
    tiny.tiny_train(tmp_path / "run", *options, "run.resume=true")
    again = lines(path)[len(first) :]
    assert [call[0] for call in again] == ["init", "config", "finish"] and again[0][1]["name"] == started["name"]


FAILING = {
    "init": ("def init(**arguments):\n    raise ConnectionError('no route to host')\n", "ConnectionError: no route"),
    "import": ("import a_module_that_is_missing\n", "ModuleNotFoundError: No module named 'a_module"),
    "log": (FAKE.replace('note("log", values, step)', "raise OSError('gone')"), "OSError: gone"),
    "finish": (FAKE.replace('note("finish")', "raise OSError('gone')"), "OSError: gone"),
}


@pytest.mark.parametrize(("text", "reason"), FAILING.values(), ids=FAILING)
def test_a_failing_tracker_is_one_warning_and_the_others_go_on(tiny, tmp_path, monkeypatch, caplog, text, reason):
    path = install(tmp_path, monkeypatch, "trackio")
    install(tmp_path, monkeypatch, "wandb", text)
    trackers = "run.trackers=[wandb,trackio,tensorboard]"
    tiny.tiny_train(tmp_path / "run", trackers, "run.log_every=1")
    (warning,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("The tracker")]
    assert warning.startswith(f"The tracker wandb failed ({reason}") and "goes on without it" in warning
    assert [call[0] for call in lines(path)].count("log") == 7
    assert len(scalars(tmp_path / "run")["train/loss"]) == 6
    # The run itself is that without a tracker.
    tiny.tiny_train(tmp_path / "alone", "run.log_every=1")
    weights = [tmp_path / run / "checkpoints" / "step_6" / "model.safetensors" for run in ("run", "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_tracker_that_is_not_installed_is_a_warning(tiny, tmp_path, monkeypatch, caplog):
    (tmp_path / "wandb").mkdir()  # which wandb leaves where it ran
    monkeypatch.syspath_prepend(str(tmp_path))
    tiny.tiny_train(tmp_path / "run", "run.trackers=[wandb]")
    (warning,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("The tracker")]
    assert "wandb is not installed" in warning and "`pip install wandb`" in warning


def test_an_unknown_tracker_is_refused_with_those_there_are(tiny, tmp_path):
    with pytest.raises(ValueError, match="run.trackers.*tensorbord.*Did you mean 'tensorboard'"):
        tiny.tiny_config(tmp_path, "run.trackers=[tensorbord]")
