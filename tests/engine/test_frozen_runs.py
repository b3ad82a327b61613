"""Frozen encoders of whole runs: the run record, several processes, parameters that no output depends on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rounding import assert_same_training
from safetensors.torch import load_file
from torch import nn

from depthseg.engine.config import load_config
from depthseg.engine.fingerprint import hash_module
from depthseg.engine.run import train
from depthseg.engine.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norm
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation
from depthseg.models.encoders_base_depthseg import DepthSegEncoder

REPOSITORY = Path(__file__).parents[2]
FROZEN = ("model.freeze_encoder=true", "optim.weight_decay=0.5", "optim.lr=0.01", "schedule.steps=2")
RESNET = "{model_type: depthseg_resnet, width_factor: 0.125}"
DINOV2 = (
    "{model_type: dinov2, hidden_size: 16, num_hidden_layers: 5, num_attention_heads: 2, mlp_ratio: 2, "
    "image_size: 28, patch_size: 14, out_indices: [1, 2, 3, 4]}"  # the fifth layer is not read
)
DPT = "{neck_hidden_sizes: [8, 8, 8, 8], fusion_hidden_size: 8, head_hidden_size: 8}"
# Plain gradient descent: Adam's division would blow up the last bits of a gradient near zero.
VIT_DPT = (
    *(
        "model.encoder=null",
        f"model.encoder={DINOV2}",
        "model.head_type=dpt",
        f"model.head_config={DPT}",
        "optim.layer_decay=0.7",
    ),
    *("optim.name=sgd", "optim.lr=0.05", "schedule.steps=3", "data.size=[28,56]"),
)


def hashes(run_dir) -> dict[str, str]:
    return json.loads((run_dir / "run.json").read_text())["encoder_hash"]


def test_the_hash_covers_every_parameter_and_buffer_and_nothing_else():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module.register_buffer("unsaved", torch.tensor([True, False]), persistent=False)
    module.register_buffer("short", torch.ones(2, dtype=torch.bfloat16))
    first = hash_module(module)
    assert first == hash_module(module) and len(first) == hashlib.sha256().digest_size * 2
    module.eval().requires_grad_(False)
    assert hash_module(module) == first
    seen = {first}
    for tensor in [*module.parameters(), *module.buffers()]:
        with torch.no_grad():
            tensor.flatten()[0] = ~tensor.flatten()[0] if tensor.dtype == torch.bool else tensor.flatten()[0] + 1
        seen.add(hash_module(module))
    assert len(seen) == 1 + len([*module.parameters(), *module.buffers()])


def test_the_hash_does_not_depend_on_the_memory_format():
    module = nn.Conv2d(3, 4, 3)
    before = hash_module(module)
    assert hash_module(module.to(memory_format=torch.channels_last)) == before
    assert hash_module(module.double()) != before


def test_a_frozen_run_records_equal_hashes_and_a_free_one_different_ones(tiny, tmp_path):
    tiny.tiny_train(tmp_path / "frozen", *FROZEN)
    frozen = hashes(tmp_path / "frozen")
    assert frozen["before"] == frozen["after"]
    tiny.tiny_train(tmp_path / "free", *FROZEN[1:])
    free = hashes(tmp_path / "free")
    assert free["before"] == frozen["before"] and free["after"] != frozen["after"]


def test_norm_statistics_that_move_end_a_frozen_run_with_a_sentence(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(DepthSegEncoder, "freeze", lambda encoder: encoder.requires_grad_(False))
    with pytest.raises(ValueError, match="freeze_encoder is set, but the encoder is not what it was .* 1 of 1"):
        tiny.tiny_train(tmp_path / "run", *FROZEN)
    assert hashes(tmp_path / "run")["before"] != hashes(tmp_path / "run")["after"]


def test_a_resumed_run_is_held_against_its_first_launch(tiny, tmp_path, monkeypatch):
    tiny.tiny_train(tmp_path / "run", *FROZEN)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["encoder_hash"]["before"] = "0" * 64
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="not what it was before training"):
        tiny.tiny_train(tmp_path / "run", *FROZEN, "run.resume=true")
    assert [
        launch["first_step"] for launch in json.loads((tmp_path / "run" / "run.json").read_text())["launches"]
    ] == [
        0,
        2,
    ]


def test_synchronised_norms_leave_a_frozen_encoder_alone():
    encoder = {"model_type": "depthseg_resnet", "width_factor": 0.125}
    head_config = {"use_batch_norm_in_fusion_residual": True, "fusion_hidden_size": 8, "head_hidden_size": 8}
    model = DepthSegForSemanticSegmentation(
        DepthSegConfig(encoder_config=encoder, head_type="dpt", head_config=head_config)
    )
    model.freeze_encoder()
    synchronise_batch_norm(model)

    def norms(part):
        return {type(module) for module in part.modules() if isinstance(module, nn.BatchNorm2d)}

    assert norms(model.encoder) == {nn.BatchNorm2d}
    trained = {m for m in model.head.modules() if isinstance(m, nn.BatchNorm2d) and m.weight.requires_grad}
    assert trained and {type(module) for module in trained} == {SyncBatchNorm2d}


@pytest.mark.parametrize(
    "network", [VIT_DPT, ("optim.name=sgd", "optim.lr=0.05", "schedule.steps=3")], ids=["vit", "resnet"]
)
def test_gradient_checkpointing_gives_the_same_weights_and_statistics(tiny, tmp_path, network):
    runs = {}
    for name, switch in (("with", "true"), ("without", "false")):
        tiny.tiny_train(tmp_path / name, *network, f"model.gradient_checkpointing={switch}")
        runs[name] = load_file(tmp_path / name / "checkpoints" / "step_3" / "model.safetensors")
    assert_same_training(runs["with"], runs["without"], tiny.tiny_start(*network))


def test_gradient_checkpointing_reaches_the_encoder(tiny, tmp_path, monkeypatch):
    recomputed = []
    checkpoint = torch.utils.checkpoint.checkpoint

    def spy(function, *args, **kwargs):
        recomputed.append(1)
        return checkpoint(function, *args, **kwargs)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", spy)
    tiny.tiny_train(tmp_path / "run", *VIT_DPT, "schedule.steps=1", "model.gradient_checkpointing=true")
    assert len(recomputed) >= 4  # one for every layer that is read


def test_checkpointing_of_a_frozen_encoder_is_refused():
    with pytest.raises(ValueError, match="with model.freeze_encoder there are none"):
        overrides = ("model.freeze_encoder=true", "model.gradient_checkpointing=true")
        load_config(None, [f"model.encoder={RESNET}", *overrides])
    with pytest.raises(ValueError, match="optim.layer_decay must be above 0 and at most 1"):
        load_config(None, [f"model.encoder={RESNET}", "optim.layer_decay=1.2"])


def launch(script: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Start a script with torchrun as two processes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(script), *arguments], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.heavy
def test_parameters_without_gradient_do_not_stop_two_processes(tiny, tmp_path):
    """Mask token, final norm, a layer that is not read, and the first fusion residual.

    Two processes with gradient checkpointing get the numbers of one process without.
    """
    overrides = (*VIT_DPT, "optim.batch_size=8")
    done = launch(Path(tiny.__file__), "3", str(tmp_path / "two"), *overrides, "model.gradient_checkpointing=true")
    assert done.returncode == 0, done.stderr
    train(tiny.tiny_config(tmp_path / "one", *overrides), tiny.Blocks(10), tiny.Blocks(3, seed=1))
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["launches"][0]["num_processes"] == 2
    step = Path("checkpoints", "step_3", "model.safetensors")
    two, one = (load_file(tmp_path / run / step) for run in ("two", "one"))
    assert_same_training(two, one, tiny.tiny_start(*overrides))


@pytest.mark.heavy
def test_a_frozen_encoder_stays_as_it_is_in_two_processes(tiny, tmp_path):
    done = launch(Path(tiny.__file__), "3", str(tmp_path / "two"), *FROZEN)
    assert done.returncode == 0, done.stderr
    tiny.tiny_train(tmp_path / "one", *FROZEN)
    two, one = hashes(tmp_path / "two"), hashes(tmp_path / "one")
    assert two["before"] == two["after"] == one["before"]
