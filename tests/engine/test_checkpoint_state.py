"""The state in a checkpoint: every tensor and random state comes back, and a kill at any moment leaves a good one."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from depthseg.engine.atomic import atomic_path
from depthseg.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from depthseg.engine.state import Progress, random_state, set_random_state


class Mixture(nn.Module):
    """Types and shapes that a network may hold."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.short = nn.Parameter(torch.randn(3).bfloat16())
        self.scale = nn.Parameter(torch.randn(()))
        self.tied = nn.Conv2d(3, 4, 3)
        self.tied.weight = self.conv.weight
        self.unused = nn.Parameter(torch.zeros(2))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("part", torch.arange(6.0)[::2])

    def forward(self, x):
        return self.norm(self.conv(x) + self.tied(x)).square().mean() * self.scale + self.short.float().square().sum()


def _trained(seed, optimizer, steps=2):
    torch.manual_seed(seed)
    module = Mixture()
    trainer = optimizer(module.parameters())
    for _ in range(steps):
        _step(module, trainer)
    return module, trainer


def _step(module, trainer):
    module(torch.randn(2, 3, 8, 8)).backward()
    trainer.step()
    trainer.zero_grad()


OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_tensor_comes_back_in_its_type_and_order_and_the_next_step_is_the_same(name, tmp_path):
    accelerator = Accelerator(cpu=True)
    module, trainer = _trained(0, OPTIMIZERS[name])
    selected = {"step": 2, "mean_iou": 1 / 3, "iou": {"far": None}}
    progress = Progress(2, loss_sum=0.1 + 0.2, loss_steps=3, seconds=1e-7, selected=selected)
    save_checkpoint(accelerator, module, trainer, progress, tmp_path)
    other, other_trainer = _trained(1, OPTIMIZERS[name], steps=0)
    found = Progress()
    load_checkpoint(tmp_path / "checkpoints" / "step_2", accelerator, other, other_trainer, found)
    assert found == progress
    for _ in range(2):
        for key, tensor in module.state_dict().items():
            assert other.state_dict()[key].dtype == tensor.dtype and torch.equal(other.state_dict()[key], tensor), key
        assert other.tied.weight is other.conv.weight
        pairs = zip(module.parameters(), other.parameters(), strict=True)
        for ours, theirs in ((trainer.state[a], other_trainer.state[b]) for a, b in pairs):
            assert ours.keys() == theirs.keys()
            for entry, tensor in ours.items():
                assert (theirs[entry].dtype, theirs[entry].stride()) == (tensor.dtype, tensor.stride()), entry
                assert torch.equal(theirs[entry], tensor), entry
        state = torch.get_rng_state()
        _step(module, trainer)
        torch.set_rng_state(state)
        _step(other, other_trainer)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    accelerator = Accelerator(cpu=True)
    save_checkpoint(accelerator, *_trained(0, OPTIMIZERS["sgd"]), Progress(1), tmp_path)
    module, trainer = _trained(0, OPTIMIZERS["sgd"], steps=0)
    module.float()
    with pytest.raises(ValueError, match="model.safetensors is of another network .* 1 tensors differ, .* short"):
        load_checkpoint(tmp_path / "checkpoints" / "step_1", accelerator, module, trainer, Progress())


def _draw():
    return random.random(), random.gauss(0, 1), np.random.random(), np.random.normal(), torch.rand(1).item()


def test_random_states_continue_where_they_were():
    random.gauss(0, 1), np.random.normal()  # both keep a second number in hand
    state = json.loads(json.dumps(random_state(torch.device("cpu"))))
    expected = [_draw() for _ in range(3)]
    _draw()
    set_random_state(state, torch.device("cpu"))
    assert [_draw() for _ in range(3)] == expected


def test_another_number_of_processes_resumes_with_a_warning(tmp_path, caplog):
    module, trainer = _trained(0, OPTIMIZERS["adamw"])
    save_checkpoint(Accelerator(cpu=True), module, trainer, Progress(1), tmp_path)
    expected = _draw()
    cpu = torch.device("cpu")
    second = SimpleNamespace(scaler=None, process_index=1, num_processes=2, device=cpu, is_main_process=True)
    load_checkpoint(tmp_path / "checkpoints" / "step_1", second, module, trainer, Progress())
    assert "step_1 was written by 1 process(es) on cpu; this launch has 2 on cpu" in caplog.text
    assert _draw() == expected


def test_an_overflow_scale_of_half_precision_is_kept(tmp_path):
    def accelerator():
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        return SimpleNamespace(
            scaler=scaler,
            process_index=0,
            num_processes=1,
            device=torch.device("cpu"),
            is_main_process=True,
            wait_for_everyone=lambda: None,
        )

    before, after = accelerator(), accelerator()
    module, trainer = _trained(0, OPTIMIZERS["sgd"])
    before.scaler.scale(torch.ones(()))
    before.scaler.update(3.0)
    save_checkpoint(before, module, trainer, Progress(1), tmp_path)
    load_checkpoint(tmp_path / "checkpoints" / "step_1", after, module, trainer, Progress())
    assert after.scaler.get_scale() == 3.0
    assert after.scaler.state_dict() == before.scaler.state_dict()


def _die_at(count):
    """End this process, as a kill does, before the call number `count` that changes something on the disk."""
    calls = 0

    def counted(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == count:
                os._exit(9)
            return function(*arguments, **options)

        return call

    for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process to kill it")
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "in the place of a damaged one"])
def test_a_kill_at_any_moment_leaves_a_good_checkpoint(replaced, tmp_path):
    accelerator = Accelerator(cpu=True)
    module, trainer = _trained(0, OPTIMIZERS["adamw"])
    (tmp_path / "before" / "model").mkdir(parents=True)
    (tmp_path / "before" / "model" / "config.json").write_text("{}")
    for step in (1, 2, 3) if replaced else (1, 2):
        save_checkpoint(accelerator, module, trainer, Progress(step, selected={"step": 1}), tmp_path / "before")
    if replaced:
        (tmp_path / "before" / "checkpoints" / "step_3" / "progress.json").write_text("{}")
    found = []
    for count in range(1, 1000):
        run_dir = shutil.copytree(tmp_path / "before", tmp_path / str(count))
        child = os.fork()
        if not child:
            try:
                _die_at(count)
                save_checkpoint(accelerator, module, trainer, Progress(3, selected={"step": 1}), run_dir)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        found.append(find_checkpoint(run_dir / "checkpoints").name)
        if code == 0:
            break
    assert found == sorted(found) and set(found) == {"step_2", "step_3"}
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step_2", "step_3"]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(os.path.basename(_path_of(number))), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert done == [temporary.name, "replace", tmp_path.name]


def _path_of(descriptor):
    return (
        next(path for path in map(Path, ("/proc/self/fd", "/dev/fd")) if path.is_dir())
        .joinpath(str(descriptor))
        .resolve()
    )
