"""Options of the speed of a step: the same training up to the rounding that each names, and bit-equal resuming."""

from __future__ import annotations

import copy
import os
import signal
from functools import partial

import pytest
import torch
from models.tiny_models import tiny_model
from rounding import assert_same_training
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cosine_similarity

from depthseg.engine.compiling import compile_parts
from depthseg.engine.config import load_config
from depthseg.engine.pure_bf16 import FLOAT32_INSIDE, compute_in_bf16
from depthseg.engine.run import train

VIT = (
    "model.encoder=null",
    "model.encoder={model_type: dinov2, hidden_size: 16, num_hidden_layers: 4, num_attention_heads: 2, mlp_ratio: 2, "
    "image_size: 28, patch_size: 14, out_indices: [1, 2, 3, 4]}",
    "model.head_type=dpt",
    "model.head_config={neck_hidden_sizes: [8, 8, 8, 8], fusion_hidden_size: 8, head_hidden_size: 8}",
    # Plain gradient descent: Adam's division would blow up the last bits of a gradient near zero.
    *("optim.name=sgd", "optim.lr=0.05", "schedule.steps=3", "data.size=[28,56]"),
)
STEP = "checkpoints/step_3/model.safetensors"


@pytest.fixture(autouse=True)
def forget_graphs_and_precision(monkeypatch):
    """Graphs count towards a limit of recompilations; Accelerate keeps the precision of the first run of a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    torch.compiler.reset()
    # PyTorch's own kernels behind the graphs: nothing is built by a C++ compiler.
    monkeypatch.setattr("depthseg.engine.build.compile_parts", partial(compile_parts, backend="eager"))
    yield
    torch.compiler.reset()
    AcceleratorState._reset_state(reset_partial_state=True)


def stopping_at(tiny, reads: int):
    """The training images; reading the given one asks the run to stop."""

    class Stopping(tiny.Blocks):
        left = reads

        def __getitem__(self, index):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    return Stopping(10)


def test_compiled_parts_train_as_without(tiny, tmp_path):
    weights = {}
    for switch in ("true", "false"):
        tiny.tiny_train(tmp_path / switch, *VIT, f"model.compile={switch}")
        weights[switch] = load_file(tmp_path / switch / STEP)
    assert_same_training(weights["true"], weights["false"], tiny.tiny_start(*VIT))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("model.compile=true",), id="compile", marks=pytest.mark.heavy),
        pytest.param(("run.precision=bf16", "run.pure_bf16=true"), id="pure_bf16"),
    ],
)
def test_a_stopped_run_resumes_bit_by_bit(tiny, tmp_path, options):
    tiny.tiny_train(tmp_path / "whole", *VIT, *options)
    halves = partial(tiny.tiny_config, tmp_path / "halves", *VIT, *options)
    with pytest.raises(SystemExit, match="Stopped on request after step"):
        train(halves(), stopping_at(tiny, 8), tiny.Blocks(3, seed=1))
    train(halves("run.resume=true"), tiny.Blocks(10), tiny.Blocks(3, seed=1))
    whole, resumed = (load_file(tmp_path / name / STEP) for name in ("whole", "halves"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_blocks_and_decoder_are_compiled_for_training_alone():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = tiny_model("segmentation", "vit", "dpt").train()
    names = set(model.state_dict())
    compile_parts(model, backend=backend)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model(pixel_values=pixels)
    assert not graphs
    model(pixel_values=pixels).logits.sum().backward()
    # Blocks of one kind share a graph.
    assert 2 <= len(graphs) < 2 + len(list(model.encoder.backbone.modules()))
    compiled = len(graphs)
    model(pixel_values=pixels)
    with torch.no_grad():
        model(pixel_values=torch.randn(1, 3, 96, 64))
    assert len(graphs) == compiled and set(model.state_dict()) == names


def test_a_copy_of_compiled_parts_computes_with_its_own_weights():
    model = tiny_model("segmentation", "vit", "dpt").train()
    compile_parts(model, backend="eager")
    copied = copy.deepcopy(model)
    copied(pixel_values=torch.randn(1, 3, 64, 64)).logits.sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    parts = {name.partition(".")[0] for name, parameter in copied.named_parameters() if parameter.grad is not None}
    assert {"encoder", "head"} <= parts


def test_a_compiler_that_fails_is_a_sentence():
    def backend(graph, inputs):
        raise OSError("no compiler here")

    model = tiny_model("segmentation", "vit", "dpt").train()
    compile_parts(model, backend=backend)
    with pytest.raises(ValueError, match="model.compile=true: PyTorch could not compile .* set model.compile=false"):
        model(pixel_values=torch.randn(1, 3, 64, 64))


@pytest.mark.heavy
def test_the_compiler_itself_gives_the_same_gradients():
    model = tiny_model("segmentation", "dinov2", "dpt").train()
    batch = {"pixel_values": torch.randn(2, 3, 56, 84), "labels": torch.randint(0, 3, (2, 56, 84))}
    expected = gradients(model, batch)
    compile_parts(model)
    torch.testing.assert_close(gradients(model, batch), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def gradients(model: nn.Module, batch: dict, autocast: bool = False) -> torch.Tensor:
    """All gradients of one step, one after the other."""
    model.zero_grad()
    torch.manual_seed(0)  # some encoders jitter their positions in training
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = model(**batch).loss
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    "encoder", ["dinov2", *(pytest.param(name, marks=pytest.mark.heavy) for name in ("swin", "dinov3_vit", "hiera"))]
)
def test_pure_bf16_is_as_exact_as_autocast(encoder):
    model = tiny_model("segmentation", encoder, "dpt").train()
    batch = {"pixel_values": torch.randn(2, 3, 64, 96), "labels": torch.randint(0, 3, (2, 64, 96))}
    exact, autocast = gradients(model, batch), gradients(model, batch, autocast=True)
    compute_in_bf16(model)
    pure = gradients(model, batch, autocast=True)
    assert torch.equal(gradients(model, batch), exact)  # without autocast nothing changes
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters() if p.grad is not None}
    assert pure.dtype == torch.float32 and not torch.equal(pure, autocast)
    error, usual = (1 - float(cosine_similarity(found, exact, dim=0)) for found in (pure, autocast))
    assert error < 2 * usual + 1e-3


def test_norms_and_sums_of_branches_are_bf16():
    model = tiny_model("segmentation", "dinov2", "dpt").train()
    compute_in_bf16(model)
    seen = set()
    for module in model.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, inputs, output: seen.update({inputs[0].dtype, output.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(pixel_values=torch.randn(1, 3, 56, 84))
    assert seen == {torch.bfloat16}


def test_statistics_of_batch_norms_stay_float32():
    model = tiny_model("segmentation", "depthseg_resnet", "monodepth2").train()
    compute_in_bf16(model)
    batch = {"pixel_values": torch.randn(2, 3, 64, 96), "labels": torch.randint(0, 3, (2, 64, 96))}
    before = {name: value.clone() for name, value in model.named_buffers() if name.endswith("running_mean")}
    gradients(model, batch, autocast=True)
    after = dict(model.named_buffers())
    assert before and all(after[name].dtype == torch.float32 for name in before)
    assert any(not torch.equal(after[name], value) for name, value in before.items())


def test_an_encoder_with_float32_inside_is_refused():
    for name in FLOAT32_INSIDE:
        with pytest.raises(ValueError, match=f"run.pure_bf16=true: the encoder {name} computes"):
            compute_in_bf16(tiny_model("segmentation", name, "dpt"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("run.pure_bf16=true",), "run.pure_bf16 goes with run.precision=bf16, got run.precision=no"),
        (
            ("run.pure_bf16=true", "run.precision=bf16", "model.gradient_checkpointing=true"),
            "makes its bf16 weights for one forward pass",
        ),
        (
            (
                *("run.pure_bf16=true", "run.precision=bf16"),
                *("data.cache_features=true", "model.freeze_encoder=true"),
            ),
            "as it computes them without run.pure_bf16",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        load_config(None, ["model.encoder={model_type: depthseg_resnet}", *options])
