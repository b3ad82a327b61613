"""Samples that cannot be read, and reading processes that end."""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest
from accelerate import Accelerator
from torch.utils.data import get_worker_info

from depthseg.engine import run
from depthseg.engine.command import one_sentence_errors
from depthseg.engine.stopping import REQUEUE_CODE
from depthseg.engine.unreadable import read_unreadable

DAMAGED = "images/block_05.png is truncated or damaged and cannot be decoded: broken data stream."
USUAL = ("schedule.steps=3", "run.checkpoint_every=1")


def _said(run):
    with pytest.raises(SystemExit) as ended, one_sentence_errors():
        run()
    return ended.value.code


def _checkpoints(tmp_path):
    return sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*"))


def _unreadable(tmp_path):
    return json.loads((tmp_path / "run" / "run.json").read_text())["unreadable"]


def test_a_sample_that_cannot_be_read_stops_the_run(run_tiny, tiny, faulty, row, tmp_path, ends_like):
    data = faulty(tiny.Blocks(10), {5: ValueError(DAMAGED)})
    said = _said(lambda: run_tiny(data=data))
    assert said == f"error: {DAMAGED}"
    said_by_process = _said(lambda: run_tiny("data.num_workers=1", data=data, folder="other"))
    assert said_by_process == said
    row("A training image is damaged", said, "The checkpoints; the run resumes when the file is mended.")
    run_tiny("run.resume=true")
    assert ends_like()


@pytest.mark.heavy
def test_with_skip_another_sample_takes_its_place_whatever_reads(run_tiny, tiny, faulty, row, tmp_path, caplog):
    errors = {5: ValueError(DAMAGED), 6: FileNotFoundError("There is no file images/block_06.png.")}
    run_tiny("data.on_error=skip", data=faulty(tiny.Blocks(10), errors))
    assert [(each["index"], each["name"]) for each in _unreadable(tmp_path)] == [(5, "block_05"), (6, "block_06")]
    assert _unreadable(tmp_path)[0]["error"] == DAMAGED
    said = [r.getMessage() for r in caplog.records if "could not be read" in r.getMessage()][0]
    row(
        "Two training images are damaged, `data.on_error=skip`",
        said,
        "The run, with other images in their place; their names and errors in run.json.",
    )
    run_tiny("data.on_error=skip", "data.num_workers=2", data=faulty(tiny.Blocks(10), errors), folder="other")
    weights = [
        (tmp_path / run / "checkpoints" / "step_4" / "model.safetensors").read_bytes() for run in ("run", "other")
    ]
    assert weights[0] == weights[1]


class SameAs:
    """Ten images of which some are the one after it: what a data set with skipped samples should be."""

    def __init__(self, dataset, replaced):
        self.names, self.label_space = dataset.names, dataset.label_space
        self._dataset, self._replaced = dataset, replaced

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self._dataset[self._replaced.get(index, index)]


def test_a_skipped_run_is_the_run_on_the_samples_that_took_their_places(run_tiny, tiny, faulty, tmp_path):
    errors = {0: OSError(5, "Input/output error"), 9: ValueError(DAMAGED)}
    run_tiny("data.on_error=skip", data=faulty(tiny.Blocks(10), errors))
    run_tiny(data=SameAs(tiny.Blocks(10), {0: 1, 9: 1}), folder="other")
    for name in ("model.safetensors", "optimizer.safetensors"):
        ours, theirs = ((tmp_path / run / "checkpoints" / "step_4" / name).read_bytes() for run in ("run", "other"))
        assert ours == theirs


@pytest.mark.heavy
def test_more_than_the_limit_stop_the_run(run_tiny, tiny, faulty, row, tmp_path):
    errors = {index: ValueError(DAMAGED.replace("05", f"{index:02d}")) for index in (1, 3, 5)}
    options = ("data.on_error=skip", "data.max_unreadable=2")
    said = _said(lambda: run_tiny(*options, data=faulty(tiny.Blocks(10), errors)))
    assert "3 training samples cannot be read, more than data.max_unreadable=2" in said
    assert len(_unreadable(tmp_path)) == 3
    row("More images than `data.max_unreadable`", said, "The checkpoints, and the list of the images.")
    run_tiny(*options[:1], "data.max_unreadable=3", "run.resume=true", data=faulty(tiny.Blocks(10), errors))


def test_a_list_that_cannot_be_copied_hides_no_fault(tmp_path, monkeypatch, caplog):
    """Nor does a line of it that was half written."""
    lines = ['{"index": 3, "name": "c", "error": "damaged"}', '{"index": 1, "name": "a", "error": "damaged"}', '{"ind']
    (tmp_path / "unreadable.jsonl").write_text("\n".join(lines))
    assert [sample["index"] for sample in read_unreadable(tmp_path)] == [1, 3]

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run, "write_json", full)
    run._record_unreadable(tmp_path, Accelerator(cpu=True))
    assert "2 training samples could not be read; unreadable.jsonl lists them." in caplog.text


@pytest.mark.heavy
def test_an_error_of_another_kind_is_not_taken_for_a_damaged_file(run_tiny, tiny, faulty):
    with pytest.raises(KeyError):
        run_tiny("data.on_error=skip", data=faulty(tiny.Blocks(10), {3: KeyError("a mistake in the code")}))
    with pytest.raises(KeyError) as raised:
        data = faulty(tiny.Blocks(10), {3: KeyError("a mistake in the code")})
        run_tiny("data.num_workers=1", data=data, folder="other")
    assert "In a reading process:" in raised.value.__notes__[0] and "__getitem__" in raised.value.__notes__[0]


def _kill_reading_process(index):
    if index == 5 and get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_reading_process_that_is_killed_is_named(run_tiny, tiny, faulty, row, tmp_path, ends_like):
    data = faulty(tiny.Blocks(10), when=_kill_reading_process)
    said = _said(lambda: run_tiny("data.num_workers=1", data=data))
    assert "A reading process ended before its work was done" in said and "data.num_workers was 1" in said
    row("A reading process is killed", said, "The checkpoints.")
    run_tiny("run.resume=true")
    assert ends_like()


def _signal_all(index):
    if index == 5:
        if get_worker_info() is not None:  # this one first: it must not fall before the run has saved
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getppid(), signal.SIGTERM)


@pytest.mark.heavy
def test_a_scheduler_that_stops_all_processes_leaves_a_checkpoint(run_tiny, tiny, faulty, row, tmp_path, ends_like):
    data = faulty(tiny.Blocks(10), when=_signal_all)
    with pytest.raises(SystemExit) as ended:
        run_tiny("data.num_workers=1", "run.checkpoint_every=0", data=data)
    said = str(ended.value)
    assert (
        ended.value.code == REQUEUE_CODE == 75 and "everything is saved" in said and len(_checkpoints(tmp_path)) == 1
    )
    said = said.replace(_checkpoints(tmp_path)[0].removeprefix("step_") + " of", "N of")
    row("SIGTERM to the run and its reading processes at once", said, "The state after the step that was going on.")
    run_tiny("run.checkpoint_every=0", "run.resume=true")
    assert ends_like()
