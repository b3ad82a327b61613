"""Requests to stop: one saves, the second ends at once."""

from __future__ import annotations

import json
import os
import signal

import pytest

from depthseg.engine import checkpoint
from depthseg.engine import command as command_module
from depthseg.engine.command import INTERRUPTED
from depthseg.engine.stopping import REQUEUE_CODE


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_one_request_saves_after_the_step(number, run_tiny, tiny, faulty, row, tmp_path, ends_like):
    asked = []

    def look(index):
        if not asked and (tmp_path / "run" / "checkpoints" / "step_1").is_dir():
            asked.append(index)
            os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as ended:
        run_tiny("run.keep_last=9", data=faulty(tiny.Blocks(10), when=look))
    said = str(ended.value)
    assert ended.value.code == REQUEUE_CODE == 75 and "after step 2 of 4; everything is saved" in said
    if number == signal.SIGTERM:
        row("SIGTERM", said, "The state after the step that was going on.")
    else:
        row("Ctrl-C", said, "The state after the step that was going on.")
    run_tiny("run.keep_last=9", "run.resume=true")
    assert ends_like()


def _lines(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("step", [2, 4])
def test_a_request_while_images_are_evaluated_saves_before_the_rest_of_them(
    step, run_tiny, tiny, faulty, row, tmp_path, ends_like
):
    run_tiny(folder="unbroken")
    read = []

    def look(index):
        if (tmp_path / "run" / "checkpoints" / f"step_{step - 1}").is_dir():
            read.append(index)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        run_tiny(val=faulty(tiny.Blocks(2, seed=1), when=look))
    assert read == [0]
    said = str(ended.value)
    assert ended.value.code == REQUEUE_CODE and f"after step {step} of 4; everything is saved" in said
    assert (tmp_path / "run" / "checkpoints" / f"step_{step}").is_dir()
    if step == 2:
        row("SIGTERM while images are evaluated", said, "The state after the step; its evaluation is repeated.")
    run_tiny("run.resume=true")
    assert ends_like()
    assert _lines(tmp_path / "run") == _lines(tmp_path / "unbroken")
    models = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "unbroken")]
    assert models[0] == models[1]


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: a process in the background of a shell begins with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_the_second_request_ends_at_once_even_in_a_checkpoint(
    run_tiny, tiny, faulty, monkeypatch, row, tmp_path, ends_like, capsys
):
    asked = []

    def look(index):
        if not asked and (tmp_path / "run" / "checkpoints" / "step_2").is_dir():
            asked.append(index)
            os.kill(os.getpid(), signal.SIGINT)

    write = checkpoint.write_state

    def write_and_ask(folder, *arguments):
        write(folder, *arguments)
        if asked:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_state", write_and_ask)
        with pytest.raises(SystemExit) as ended, command_module.ended_at_once():
            run_tiny(data=faulty(tiny.Blocks(10), when=look))
    assert ended.value.code == INTERRUPTED == 130
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step_1", "step_2"]
    row(
        "Ctrl-C twice, the second one inside a checkpoint",
        capsys.readouterr().err.splitlines()[-1],
        "The checkpoints before.",
    )
    run_tiny("run.resume=true")
    assert ends_like()
