"""FSDP2 over gloo: what processes hold, that numbers stay those of one process, and what becomes of checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rounding import GRADIENT_SHARE
from safetensors.torch import load_file

from depthseg import DepthSegForSemanticSegmentation
from depthseg.engine.sharding import gathered, sharding_plugin, shared_out_like

REPOSITORY = Path(__file__).parents[2]
ENGINE = Path(__file__).parent
DINOV2 = "{model_type: dinov2, hidden_size: 16, num_hidden_layers: 4, num_attention_heads: 2}"
OPTIONS = {
    "fsdp2": (
        *(f"model.encoder={DINOV2}", "model.head_type=linear", "data.size=[28,56]", "optim.lr=1e-3"),
        *("optim.max_grad_norm=1", "optim.accumulation_steps=2"),
    ),
    "zero2": ("optim.name=sgd", "optim.lr=0.02"),
}
COMMON = ("optim.batch_size=10", "run.eval_every=1", "run.checkpoint_every=2", "schedule.steps=4", "run.select=last")
CLOSE = 1e-5


def launch(kind: str, processes: int, script: str, *arguments: str) -> None:
    """Start a script with the file of training/launch, on CPUs."""
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", f"{REPOSITORY}/training/launch/{kind}.yaml", "--num_processes", str(processes)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE", "FSDP"))}
    environment = kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command += ["--main_process_port", "0", str(ENGINE / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def lines(folder: Path) -> list[dict]:
    return [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "step_4" / "model.safetensors")


def assert_same_run(found: Path, expected: Path, kind: str) -> None:
    assert [line["step"] for line in lines(found)] == [line["step"] for line in lines(expected)] == [1, 2, 3, 4]
    for here, there in zip(lines(found), lines(expected), strict=True):
        assert here["train_loss"] == pytest.approx(there["train_loss"], rel=CLOSE)
        # A pixel may change sides where two classes are equally likely; there are 6144 of them.
        assert here["pixel_accuracy"] == pytest.approx(there["pixel_accuracy"], abs=1e-3)
    if kind == "fsdp2":
        return  # AdamW makes whole steps of the rounding of gradients that are zero, as of a bias before a norm
    whole = weights(expected)
    for name, values in weights(found).items():
        bound = GRADIENT_SHARE * max(1, whole[name].abs().max())
        assert (values.double() - whole[name].double()).abs().max() <= bound, name


@pytest.fixture(scope="module", params=["fsdp2", "zero2"])
def shared_out(request, tiny, tmp_path_factory):
    """A run of two processes that share out the network, and the same run in one process."""
    folder, options = tmp_path_factory.mktemp(request.param), (*OPTIONS[request.param], *COMMON)
    launch(request.param, 2, "tiny_run.py", "3", str(folder / "two"), *options)
    tiny.tiny_train(folder / "one", *options)
    return request.param, folder, options


@pytest.mark.heavy
def test_two_processes_that_share_out_the_network_are_one(shared_out):
    kind, folder, _ = shared_out
    (launched,) = json.loads((folder / "two" / "run.json").read_text())["launches"]
    assert (launched["num_processes"], launched["distribution"]) == (2, "FSDP")
    assert_same_run(folder / "two", folder / "one", kind)


@pytest.mark.heavy
def test_what_was_trained_in_shares_loads_as_a_plain_model(shared_out):
    _, folder, _ = shared_out
    model = DepthSegForSemanticSegmentation.from_pretrained(folder / "two" / "model").state_dict()
    trained = {name.removeprefix("model."): values for name, values in weights(folder / "two").items()}
    assert model.keys() == trained.keys()
    assert all(type(values) is torch.Tensor and (values == trained[name]).all() for name, values in model.items())


@pytest.mark.heavy
def test_shares_resume_under_another_number_of_processes(shared_out, tiny, tmp_path):
    """One way of sharing under fewer processes, the other under more."""
    kind, folder, options = shared_out
    processes = {"fsdp2": 4, "zero2": 1}[kind]
    run_dir = tmp_path / "run"
    shutil.copytree(folder / "two", run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "step_4")
    if processes == 1:
        tiny.tiny_train(run_dir, *options, "run.resume=true")
    else:
        launch(kind, processes, "tiny_run.py", "3", str(run_dir), *options, "run.resume=true")
    last = json.loads((run_dir / "run.json").read_text())["launches"][-1]
    assert (last["first_step"], last["num_processes"]) == (2, processes)
    assert_same_run(run_dir, folder / "one", kind)


@pytest.mark.heavy
def test_compiled_shares_train_as_those_that_are_not(tiny, tmp_path):
    options = (*OPTIONS["fsdp2"][:3], *OPTIONS["zero2"], *COMMON)
    launch("fsdp2", 2, "tiny_run.py", "3", str(tmp_path / "two"), *options, "model.compile=true")
    tiny.tiny_train(tmp_path / "one", *options)
    assert_same_run(tmp_path / "two", tmp_path / "one", "compile")


@pytest.mark.heavy
def test_each_process_holds_its_share_and_blocks_are_units(tmp_path):
    launch("fsdp2", 2, "shares.py", str(tmp_path / "shares.json"))
    shares = json.loads((tmp_path / "shares.json").read_text())
    assert len(shares) == 2
    for what, whole in shares[0]["whole"].items():
        assert sum(share[what] for share in shares) == whole
        # Tensors are cut along their first side, which may be odd or 1.
        assert max(share[what] for share in shares) < 0.6 * whole
    assert shares[0]["units"][0] == "" and len(shares[0]["units"]) == 1 + 4


def test_what_no_launcher_shares_out_stays_as_it_is(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert sharding_plugin() is None
    tensor = torch.ones(3)
    assert gathered({"a": tensor}, keep=True)["a"] is tensor and gathered({"a": tensor}, keep=False) == {}
    assert shared_out_like(tensor, torch.zeros(3)) is tensor


@pytest.mark.parametrize(
    ("variables", "options", "words"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, (), "asks for FSDP 1, .*`fsdp_version: 2`"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, (), "asks for DeepSpeed.*training/launch/zero2.yaml"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
            ("run.precision=bf16", "run.pure_bf16=true"),
            "run.pure_bf16=true .* shared out .*run.pure_bf16=false",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused_before_the_directory_is_touched(
    tiny, tmp_path, monkeypatch, variables, options, words
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=words):
        tiny.tiny_train(tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()
