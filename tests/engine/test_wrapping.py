"""Runs whose parts a caller wraps: what they may change, and that their weights go no further."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from engine.tiny_run import Blocks, tiny_config, tiny_train
from safetensors.torch import load_file

from depthseg.engine.run import train
from depthseg.engine.wrapping import Wrapping, wrapped_by
from depthseg.export.command import made_from
from depthseg.hub import exports
from depthseg.hub.record import read_run
from depthseg.study.defects.training import wrapping_of

SMALL = ("schedule.steps=3", "run.report=false", "optim.max_grad_norm=0.5")


def wrapped_train(output_dir, wrapping, *overrides):
    return train(tiny_config(output_dir, *SMALL, *overrides), Blocks(10), Blocks(3, seed=1), wrapping=wrapping)


def weights(result):
    return load_file(result.model_dir / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_train(tmp_path_factory.mktemp("plain") / "run", *SMALL)


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A run with a wrapping that changes nothing."""
    wrapping = Wrapping(("slow_drift", "other"), lambda stream, training, processor: (stream, training))
    return wrapped_train(tmp_path_factory.mktemp("marked") / "run", wrapping)


def test_a_wrapping_that_changes_nothing_changes_no_bit(plain, marked):
    assert same(weights(plain), weights(marked))
    times = {"seconds"}
    assert {k: v for k, v in plain.scores.items() if k not in times} == {
        k: v for k, v in marked.scores.items() if k not in times
    }


def test_the_run_directory_says_what_was_wrapped(plain, marked):
    assert wrapped_by(marked.run_dir) == ["slow_drift", "other"] and wrapped_by(plain.run_dir) == []
    assert "wrapped" not in json.loads((plain.run_dir / "run.json").read_text())


def test_a_wrapping_is_called_again_when_a_run_resumes(tmp_path):
    first_steps = []

    def wrap(stream, training, processor):
        first_steps.append(training.progress.step)
        return stream, training

    wrapped_train(tmp_path / "run", Wrapping(("seen",), wrap), "run.checkpoint_every=2")
    wrapped_train(tmp_path / "run", Wrapping(("seen",), wrap), "run.resume=true")
    assert first_steps == [0, 3]


def test_gradients_that_are_never_cleared_are_those_of_a_loop_that_lacks_the_line(tmp_path, plain, monkeypatch):
    """The defect itself: the same run, in which nothing clears gradients. Without clipping, which shortens the sum."""
    summed = wrapped_train(
        tmp_path / "switch", wrapping_of({"accumulate_gradients": {}}, names=()), "optim.max_grad_norm=0"
    )
    monkeypatch.setattr(AcceleratedOptimizer, "zero_grad", lambda *_, **__: None)
    forgotten = wrapped_train(tmp_path / "line", None, "optim.max_grad_norm=0")
    assert same(weights(summed), weights(forgotten))
    assert not same(weights(summed), weights(plain))


def test_weights_with_known_faults_are_not_published(marked):
    with pytest.raises(ValueError, match=r"trained with known faults, .* \(slow_drift, other\).* are not published"):
        read_run(marked.run_dir)


def test_weights_that_come_from_them_are_not_published_either(tmp_path, marked):
    child = tiny_train(tmp_path / "child", *SMALL, f"model.pretrained={marked.model_dir}")
    assert wrapped_by(child.run_dir) == ["slow_drift", "other"]
    with pytest.raises(ValueError, match="known faults"):
        read_run(child.run_dir)


def test_nor_is_an_exported_file_of_them(plain, marked, tmp_path, monkeypatch):
    assert made_from(plain.model_dir, None) == {"made_from": None, "revision": None}
    about = made_from(marked.model_dir, None)
    assert about["wrapped"] == ["slow_drift", "other"]
    monkeypatch.setattr(exports, "check_packages", lambda name: None)
    monkeypatch.setattr(exports, "_metadata", lambda path, kind: about)
    with pytest.raises(ValueError, match="known faults"):
        exports.read_export(tmp_path / "model.onnx")
