"""Requests to stop: one saves, the second ends at once."""

from __future__ import annotations

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
