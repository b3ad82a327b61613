"""Loss or gradient that is not a finite number."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from safetensors.torch import load_file

import depthseg.engine.bad_steps as bad_steps
from depthseg.cli import main
from depthseg.engine import loop
from depthseg.engine.batches import Collate
from depthseg.engine.command import one_sentence_errors
from depthseg.engine.replay import replay
from depthseg.engine.sampling import stream_of


@pytest.fixture
def poison(monkeypatch):
    """`poison(name, value)`: the image of a sample gets a pixel of this value on its way to the network."""

    def plant(name, value):
        gather, finish, names = Collate.gather, Collate.finish, []

        def remembering(self, samples):
            names[:] = [sample.name for sample in samples]
            return gather(self, samples)

        def poisoned(self, batch):
            batch = finish(self, batch)
            if name in names:
                batch["pixel_values"][names.index(name), 0, 3, 3] = value
            return batch

        monkeypatch.setattr(Collate, "gather", remembering)
        monkeypatch.setattr(Collate, "finish", poisoned)

    return plant


def _first_step_with(name, tiny, seed=0):
    stream = stream_of(tiny.Blocks(10), seed)
    return next(p for p in range(100) if tiny.Blocks(10).names[stream.index(p)] == name) // 4 + 1


def _good_weights(tmp_path, step):
    return load_file(tmp_path / "run" / "checkpoints" / f"step_{step}" / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_a_bad_step_is_left_out_and_can_be_run_again(value, run_tiny, tiny, poison, row, tmp_path, caplog, capsys):
    step = _first_step_with("block_05", tiny)
    poison("block_05", value)
    run_tiny("run.keep_last=9", "schedule.steps=3")
    bundle = tmp_path / "run" / "bad_steps" / f"step_{step}"
    said = [record.getMessage() for record in caplog.records if f"of step {step} is" in record.getMessage()]
    assert len(said) == 1 and said[0].count("block_05") == 2 and str(bundle) in said[0]
    # Weights, statistics of norms and the optimiser are those of the step before.
    if step > 1:
        before, after = _good_weights(tmp_path, step - 1), _good_weights(tmp_path, step)
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.isfinite().all() for tensor in _good_weights(tmp_path, 3).values())
    found = replay(bundle)
    assert not torch.tensor(found.loss).isfinite() and found.files == ["block_05"]
    assert "encoder" in found.first_layer and found.facts["not_finite"] == ["block_05"]
    main_said = _replayed(bundle, capsys)
    assert "Alone, the loss is not finite for block_05." in main_said
    if value == float("inf"):
        row(
            "An image with an infinite value",
            said[0],
            "Weights and statistics as before the step; the bundle of the step.",
        )
    else:
        row(
            "An image with a value that is not a number",
            said[0],
            "Weights and statistics as before the step; the bundle of the step.",
        )


def _replayed(bundle, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(bundle), "--cpu"])
    assert not ended.value.code
    return capsys.readouterr().out


def _spoil(monkeypatch, what, step):
    """Let the loss or the gradient of a step come out wrong; returns the list that gets what it really is."""
    computed, backward = [], loop._backward

    def planted(training, micro_batches, num_valid):
        totals = backward(training, micro_batches, num_valid)
        if training.progress.step + 1 != step:
            return totals
        gradients = [p.grad for p in training.objective.parameters() if p.grad is not None]
        if what == "loss":
            computed.append(float(totals["loss"]))
            totals["loss"] = totals["loss"] * torch.inf
        else:
            computed.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
            gradients[0].fill_(torch.nan)
        return totals

    monkeypatch.setattr(loop, "_backward", planted)
    return computed


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_replay_of_finite_tensors_computes_what_the_step_did(
    what, run_tiny, tiny, monkeypatch, tmp_path, caplog, row
):
    computed = _spoil(monkeypatch, what, 2)
    run_tiny("schedule.steps=3")
    found = replay(tmp_path / "run" / "bad_steps" / "step_2")
    assert (found.loss if what == "loss" else found.grad_norm) == pytest.approx(computed[0], rel=1e-5)
    assert found.files == [] and "differ from those of the run" in list(found.sentences())[-1]
    said = next(r.getMessage() for r in caplog.records if f"The {what} of step 2" in r.getMessage())
    if what == "loss":
        row("The loss is infinite", said, "Weights and statistics as before the step; the bundle of the step.")
    else:
        row("The gradient is not a number", said, "Weights and statistics as before the step; the bundle of the step.")


def test_a_bundle_that_was_written_after_later_steps_says_so(run_tiny, monkeypatch, tmp_path):
    computed = _spoil(monkeypatch, "loss", 2)
    run_tiny("run.checkpoint_every=0", "run.eval_every=0")
    late = replay(tmp_path / "run" / "bad_steps" / "step_2")
    assert late.loss != pytest.approx(computed[0], rel=1e-5)
    said = list(late.sentences())
    assert "The weights are those after step 4" in said[1] and "run.log_every=1" in said[1]
    assert "weights, device, precision" in said[-1]
    run_tiny("run.checkpoint_every=0", "run.eval_every=0", "run.log_every=1", folder="soon")
    soon = replay(tmp_path / "soon" / "bad_steps" / "step_2")
    assert soon.loss == pytest.approx(computed[1], rel=1e-5) and not soon.has_later_weights


def test_after_so_many_in_a_row_the_last_good_state_is_kept(run_tiny, tiny, monkeypatch, tmp_path, row, ends_like):
    finish, seen = Collate.finish, []

    def poisoned(self, batch):
        batch = finish(self, batch)
        if len(batch["pixel_values"]) == 4:
            seen.append(1)
            if len(seen) > 2:
                batch["pixel_values"][:] = torch.nan
        return batch

    with monkeypatch.context() as patch:
        patch.setattr(Collate, "finish", poisoned)
        with pytest.raises(SystemExit) as ended, one_sentence_errors():
            run_tiny("optim.max_bad_steps=2", "run.checkpoint_every=0")
    said = ended.value.code
    assert "(2 such steps in a row)" in said and "The state after step 2 is saved." in said
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step_2"]
    row(
        "Such steps in a row, `optim.max_bad_steps` of them", said, "The last good state as a checkpoint; the bundles."
    )
    run_tiny("optim.max_bad_steps=2", "run.checkpoint_every=0", "run.resume=true")
    assert ends_like()


@pytest.mark.heavy
def test_a_full_disk_does_not_hide_what_is_wrong_with_the_step(run_tiny, tiny, poison, monkeypatch, row, caplog):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bad_steps, "save_file", full)
    poison("block_05", float("nan"))
    run_tiny("schedule.steps=3")
    said = " ".join(r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "step" in r.getMessage())
    assert "could not be kept" in said and "is nan" in said
    row("A disk that is full when the bundle is written", said, "Weights and statistics as before the step.")


def test_the_newest_bundles_stay_and_whatever_else_is_there(tmp_path):
    for name in ("step_2", "step_10", "step_9", "step_11", "step_2_copy"):
        (tmp_path / name).mkdir()
    bad_steps._remove_old(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_10", "step_11", "step_2_copy", "step_9"]


@pytest.mark.heavy
def test_a_bundle_that_is_none_or_damaged_is_named(run_tiny, tiny, poison, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no bundle of a bad step"):
        replay(tmp_path)
    poison("block_05", float("nan"))
    run_tiny("schedule.steps=3")
    bundle = next((tmp_path / "run" / "bad_steps").iterdir())
    facts = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(facts | {"format": 9}))
    with pytest.raises(ValueError, match="is of format 9"):
        replay(bundle)
    (bundle / "bundle.json").write_text(json.dumps(facts))
    os.truncate(bundle / "batch_0.safetensors", 100)
    with pytest.raises(ValueError, match="is damaged.*the bundle cannot be run"):
        replay(bundle)
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        replay(bundle)
