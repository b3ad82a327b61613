"""A bundle computes the loss of its step for every kind of objective and of batch."""

from __future__ import annotations

import pytest
import torch

from depthseg.engine import loop
from depthseg.engine.replay import replay
from depthseg.engine.run import train

# Task, options of the pretext section, other options.
KINDS = {
    "depth": ("depth", (), ()),
    "mono": ("depth", ("supervision=mono", "intrinsics=one_camera"), ()),
    "flow": ("flow", (), ()),
    "inpainting": ("inpainting", (), ()),
    "cached features": ("segmentation", (), ("model.freeze_encoder=true", "data.cache_features=true")),
    "two micro-batches": ("segmentation", (), ("optim.accumulation_steps=2",)),
}


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_computes_the_loss_of_the_step(kind, tiny, tmp_path, monkeypatch):
    task, pretext, others = KINDS[kind]
    losses, backward = [], loop._backward

    def planted(training, micro_batches, num_valid):
        totals = backward(training, micro_batches, num_valid)
        if training.progress.step == 1:
            losses.append(float(totals["loss"]))
            totals["loss"] = totals["loss"] * torch.nan
        return totals

    monkeypatch.setattr(loop, "_backward", planted)
    options = ("run.report=false", "run.log_every=1", f"data.cache_dir={tmp_path / 'features'}", *others)
    config = tiny.tiny_pretext_config(tmp_path / "run", task, *pretext, overrides=options)
    train(config, tiny.Blocks(6), tiny.Blocks(2, seed=1))
    found = replay(tmp_path / "run" / "bad_steps" / "step_2")
    assert found.loss == pytest.approx(losses[0], rel=1e-4)
    assert found.first_layer is None and found.parameters == [] and found.files == []
