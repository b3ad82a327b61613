"""A bundle computes the loss of its step for every kind of objective and of batch."""

from __future__ import annotations

import pytest

import depthseg.engine.bad_steps as bad_steps
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
    losses, require = [], bad_steps.require_finite

    def planted(what, value, number, *about):
        if what == "loss" and number == 2:
            losses.append(value)
            value = float("nan")
        require(what, value, number, *about)

    monkeypatch.setattr("depthseg.engine.loop.require_finite", planted)
    options = ("run.report=false", f"data.cache_dir={tmp_path / 'features'}", *others)
    config = tiny.tiny_pretext_config(tmp_path / "run", task, *pretext, overrides=options)
    train(config, tiny.Blocks(6), tiny.Blocks(2, seed=1))
    found = replay(tmp_path / "run" / "bad_steps" / "step_2")
    assert found.loss == pytest.approx(losses[0], rel=1e-4)
    assert found.first_layer is None and found.parameters == [] and found.files == []
