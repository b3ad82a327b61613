"""A device whose memory does not hold the batch; where there is no GPU its error is raised by hand."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from depthseg.engine.command import one_sentence_errors
from depthseg.pretext import SupervisedObjective

SAID = "CUDA out of memory. Tried to allocate 2.50 GiB."


@pytest.fixture
def memory(monkeypatch):
    """`memory(images)`: so many fit at once."""

    def limit(images):
        forward = SupervisedObjective.forward

        def limited(self, batch, num_valid=None):
            if self.training and len(batch["pixel_values"]) > images:
                # Statistics of norms have been changed when the memory runs out.
                forward(self, batch, num_valid)
                raise torch.OutOfMemoryError(SAID)
            return forward(self, batch, num_valid)

        monkeypatch.setattr(SupervisedObjective, "forward", limited)

    return limit


def _said(run):
    with pytest.raises(SystemExit) as ended, one_sentence_errors():
        run()
    return ended.value.code


def _weights(tmp_path, folder):
    return load_file(tmp_path / folder / "checkpoints" / "step_4" / "model.safetensors")


@pytest.mark.heavy
def test_a_batch_too_large_is_cut_and_the_step_stays(run_tiny, memory, tmp_path, row, caplog):
    run_tiny("optim.accumulation_steps=4", folder="by_hand")
    memory(1)
    run_tiny("optim.auto_batch_size=true")
    said = [r.getMessage() for r in caplog.records if "is cut into" in r.getMessage()]
    assert len(said) == 2 and "2 parts" in said[0] and "4 parts" in said[1]  # in the first step alone
    ours, theirs = _weights(tmp_path, "run"), _weights(tmp_path, "by_hand")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    row(
        "The memory of the device does not hold a batch, `optim.auto_batch_size=true`",
        said[0],
        "The run and its batch size; the step is that of `optim.accumulation_steps`, bit by bit.",
    )


@pytest.mark.heavy
def test_a_resumed_run_cuts_as_before(run_tiny, memory, tmp_path, tiny, faulty):
    memory(2)
    run_tiny("optim.auto_batch_size=true", folder="whole")
    left = [11]

    def stop(index):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiny("optim.auto_batch_size=true", data=faulty(tiny.Blocks(10), when=stop))
    run_tiny("optim.auto_batch_size=true", "run.resume=true")
    ours, theirs = _weights(tmp_path, "run"), _weights(tmp_path, "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_the_option_the_sentence_names_it(run_tiny, memory, row, tmp_path):
    memory(2)
    said = _said(run_tiny)
    assert "optim.auto_batch_size=true run.resume=true" in said
    row("The memory of the device does not hold a batch", said, "The checkpoints.")
    run_tiny("run.resume=true", "optim.auto_batch_size=true")


def test_one_image_cannot_be_cut(run_tiny, memory, row):
    memory(0)
    said = _said(lambda: run_tiny("optim.auto_batch_size=true"))
    row("The memory of the device does not hold one image", said, "The checkpoints.")
