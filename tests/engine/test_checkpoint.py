"""Checkpoints: no pickle in them, damage is noticed, the one before takes over, and a kill never costs both."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

import depthseg
from depthseg.engine.atomic import atomic_path
from depthseg.engine.checkpoint import find_checkpoint, find_damage, load_checkpoint, save_checkpoint
from depthseg.engine.command import one_sentence_errors
from depthseg.engine.run import train
from depthseg.engine.state import Progress, random_state, set_random_state
from depthseg.models import DepthSegForSemanticSegmentation

FILES = ("manifest.json", "model.safetensors", "optimizer.safetensors", "progress.json", "random_states.json")
# Evaluated after steps 3 and 6, saved after 2, 4 and 6: model/ is of a step that is not that of the checkpoint.
OPTIONS = ("run.eval_every=3", "run.checkpoint_every=2", "data.crop_scale=[0.5,1]", "run.select=last")


class Interrupted(Exception):
    pass


class BreaksOff:
    """A data set that cannot be read any more after so many samples."""

    def __init__(self, dataset, after):
        self.names, self.label_space = dataset.names, dataset.label_space
        self._dataset, self._left = dataset, after

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        self._left -= 1
        if self._left < 0:
            raise Interrupted
        return self._dataset[index]


def _train(tiny, run_dir, *overrides, after=None):
    data = tiny.Blocks(10)
    config = tiny.tiny_config(run_dir, *OPTIONS, *overrides)
    return train(config, data if after is None else BreaksOff(data, after), tiny.Blocks(3, seed=1))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An unbroken run of six steps."""
    return _train(tiny, tmp_path_factory.mktemp("whole") / "run").run_dir


@pytest.fixture(scope="module")
def broken_off(tiny, tmp_path_factory):
    """A run that was killed in its sixth step: checkpoints of steps 2 and 4, and model/ of step 3."""
    run_dir = tmp_path_factory.mktemp("broken_off") / "run"
    with pytest.raises(Interrupted):
        _train(tiny, run_dir, after=1 + 5 * 4 + 2)
    return run_dir


@pytest.fixture
def run_dir(broken_off, tmp_path):
    return shutil.copytree(broken_off, tmp_path / "run")


def _flip(path, at=0.5):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _assert_as_uninterrupted(run_dir, whole):
    for folder in ("checkpoints/step_6", "model"):
        ours, theirs = _contents(run_dir / folder), _contents(whole / folder)
        assert ours.keys() == theirs.keys()
        # Time of training is in the progress, and so in the manifest; all else is equal byte by byte.
        assert {name for name in ours if ours[name] != theirs[name]} <= {"manifest.json", "progress.json"}
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (run_dir, whole)]
    ours, theirs = ([{k: v for k, v in line.items() if k != "seconds"} for line in run] for run in lines)
    assert ours == theirs and [line["step"] for line in ours] == [3, 6]


def test_a_checkpoint_holds_tensors_and_json_and_hashes_of_all(broken_off):
    checkpoint = broken_off / "checkpoints" / "step_4"
    names = {path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("selected/")} == set(FILES)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert (manifest["format"], manifest["step"], manifest["num_processes"]) == (1, 4, 1)
    assert manifest["files"].keys() == names - {"manifest.json"}
    for name, stated in manifest["files"].items():
        content = (checkpoint / name).read_bytes()
        assert stated == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert _contents(checkpoint / "selected") == _contents(broken_off / "model")
    assert json.loads((checkpoint / "progress.json").read_text())["progress"]["selected"]["step"] == 3


def test_every_damage_is_found_and_named(broken_off, tmp_path):
    copy = shutil.copytree(broken_off / "checkpoints" / "step_4", tmp_path / "step_4")
    for name in (*FILES, "selected/config.json", "selected/model.safetensors"):
        content = (copy / name).read_bytes()
        for at in (0, 0.01, 0.3, 0.6, 0.999, 1):
            _flip(copy / name, at)
            assert name in find_damage(copy), (name, at)
            (copy / name).write_bytes(content)
        os.truncate(copy / name, len(content) // 2)
        assert name in find_damage(copy)
        (copy / name).unlink()
        assert find_damage(copy) == f"{name} is missing"
        (copy / name).write_bytes(content)
        assert find_damage(copy) is None
    (copy / "selected" / "notes.txt").write_text("mine")
    assert find_damage(copy) == "selected/notes.txt is not in manifest.json: it was added afterwards"
    (copy / "selected" / "notes.txt").unlink()
    assert "of step 4" in find_damage(copy.rename(tmp_path / "step_5"))
    for content in ("[]", "{}", '{"format": 2}', "\x00", '{"format": 1, "sha256": "0"}'):
        (tmp_path / "step_5" / "manifest.json").write_text(content)
        assert "manifest.json" in find_damage(tmp_path / "step_5")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "random_states.json"])
def test_the_checkpoint_before_takes_over_and_the_run_ends_as_if_nothing_had_been(name, tiny, run_dir, whole, caplog):
    _flip(run_dir / "checkpoints" / "step_4" / name)
    _train(tiny, run_dir, "run.resume=true")
    said = [record.getMessage() for record in caplog.records if "cannot be resumed" in record.getMessage()]
    assert len(said) == 1
    assert (
        f"step_4 cannot be resumed: {name} does not have the SHA-256" in said[0] and "resumes from step_2" in said[0]
    )
    assert json.loads((run_dir / "run.json").read_text())["launches"][1]["first_step"] == 2
    _assert_as_uninterrupted(run_dir, whole)
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"step_4", "step_6"}
    assert find_damage(run_dir / "checkpoints" / "step_4") is None


def test_a_run_without_damage_resumes_from_the_last_checkpoint(tiny, run_dir, whole, caplog):
    _train(tiny, run_dir, "run.resume=true")
    assert json.loads((run_dir / "run.json").read_text())["launches"][1]["first_step"] == 4
    assert not [record for record in caplog.records if "resume" in record.getMessage() and record.levelname != "INFO"]
    _assert_as_uninterrupted(run_dir, whole)


def test_where_all_are_damaged_a_sentence_says_so_and_nothing_is_touched(tiny, run_dir):
    os.truncate(run_dir / "checkpoints" / "step_4" / "model.safetensors", 100)
    (run_dir / "checkpoints" / "step_2" / "manifest.json").unlink()
    before = _contents(run_dir)
    with pytest.raises(SystemExit) as ended, one_sentence_errors():
        _train(tiny, run_dir, "run.resume=true")
    said = ended.value.code  # a text: Python prints it and ends with exit code 1
    assert said.startswith(f"error: No checkpoint in {run_dir / 'checkpoints'} can be resumed. step_4: model.safet")
    assert "step_2: manifest.json is missing" in said
    assert "run.overwrite=true" in said and "another run.output_dir" in said
    assert _contents(run_dir) == before


def test_a_damaged_run_record_is_named_and_can_be_removed(tiny, run_dir, whole):
    os.truncate(run_dir / "run.json", 20)
    with pytest.raises(ValueError, match="run.json is damaged .* Remove it to resume"):
        _train(tiny, run_dir, "run.resume=true")
    (run_dir / "run.json").unlink()
    _train(tiny, run_dir, "run.resume=true")
    _assert_as_uninterrupted(run_dir, whole)


class Marker:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def _as_before(checkpoint, marker):
    """Give a checkpoint the files that earlier versions wrote, which run code."""
    for name in ("manifest.json", "optimizer.safetensors", "progress.json", "random_states.json"):
        (checkpoint / name).unlink()
    for name in ("custom_checkpoint_0.pkl", "optimizer.bin", "random_states_0.pkl"):
        torch.save(Marker(marker), checkpoint / name)


def test_pickles_of_a_copied_run_are_never_executed(tiny, run_dir, tmp_path, whole):
    marker = tmp_path / "executed"
    pickle.loads(pickle.dumps(Marker(marker)))
    assert marker.exists()  # it works
    marker.unlink()
    for name in ("custom_checkpoint_0.pkl", "scaler.pt"):
        torch.save(Marker(marker), run_dir / "checkpoints" / "step_4" / name)
    _train(tiny, run_dir, "run.resume=true")
    assert not marker.exists()
    _assert_as_uninterrupted(run_dir, whole)
    shutil.rmtree(run_dir / "checkpoints" / "step_4")
    _as_before(run_dir / "checkpoints" / "step_6", marker)
    with pytest.raises(ValueError, match=r"step_6: .*earlier version.*pickles \(custom_.*, optimizer.bin, random_st"):
        _train(tiny, run_dir, "run.resume=true")
    assert not marker.exists()


def test_pickled_weights_of_a_model_are_not_executed(whole, tmp_path):
    marker = tmp_path / "executed"
    folder = shutil.copytree(whole / "model", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Marker(marker)}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        DepthSegForSemanticSegmentation.from_pretrained(folder)
    assert not marker.exists()


def _calls(path):
    """Calls of a source file as `(text of the function, options)`, and imported modules as `("import NAME", {})`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from ((f"import {name}", {}) for name in names + [getattr(node, "module", None)] if name)


def test_nothing_in_the_package_reads_pickles():
    readers = {"import pickle", "import dill", "import joblib", "import marshal", "import shelve"}
    calls = [(path.name, *call) for path in Path(depthseg.__file__).parent.rglob("*.py") for call in _calls(path)]
    found = [
        (name, function)
        for name, function, options in calls
        if function in readers
        or function.endswith((".load_state", "load_accelerator_state", "read_pickle"))
        or (function == "torch.load" and options.get("weights_only") != "True")
        or (function in ("np.load", "numpy.load") and options.get("allow_pickle") != "False")
    ]
    assert found == []
    assert any(function == "np.load" for _, function, _ in calls)  # the search finds what it looks for


def _resume_only(tiny, run_dir):
    """Resume a run and break it off before its first step."""
    with pytest.raises(Interrupted):
        _train(tiny, run_dir, "run.resume=true", after=1)


def test_selected_weights_are_set_back_to_those_of_the_checkpoint(tiny, run_dir):
    selected = _contents(run_dir / "model")
    weights = run_dir / "model" / "model.safetensors"
    # As after an evaluation whose checkpoint was not reached.
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}, weights)
    _resume_only(tiny, run_dir)
    assert _contents(run_dir / "model") == selected
    # As after a kill between the two moves that replace the folder.
    (run_dir / "model").rename(run_dir / ".model.old")
    _resume_only(tiny, run_dir)
    assert _contents(run_dir / "model") == selected and not (run_dir / ".model.old").exists()
    # Before step 3 no weights were selected.
    shutil.rmtree(run_dir / "checkpoints" / "step_4")
    _resume_only(tiny, run_dir)
    assert not (run_dir / "model").exists()


def test_selected_weights_of_the_step_of_the_checkpoint_come_from_its_own(tiny, whole, tmp_path):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    assert not (run_dir / "checkpoints" / "step_6" / "selected").exists()
    shutil.rmtree(run_dir / "model")
    assert _train(tiny, run_dir, "run.resume=true").scores["step"] == 6
    assert _contents(run_dir / "model") == _contents(whole / "model")


def test_files_that_somebody_put_beside_the_selected_weights_stay(tiny, whole, tmp_path):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    (run_dir / "model" / "README.md").write_text("mine")
    _train(tiny, run_dir, "run.resume=true")
    assert (run_dir / "model" / "README.md").read_text() == "mine"


def test_the_best_weights_stay_those_of_their_scores_after_a_fallback(tiny, tmp_path, monkeypatch):
    """The best step is 1 at the first checkpoint and 3 at the second; the repeated third step is not as good."""
    scores = iter([0.5, 0.4, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr("depthseg.engine.run.Scorer.__call__", lambda scorer: {"mean_iou": next(scores)})
    options = ("run.select=best", "run.eval_every=1", "schedule.steps=5")
    with pytest.raises(Interrupted):
        _train(tiny, tmp_path / "run", *options, after=1 + 4 * 4 + 1)
    _flip(tmp_path / "run" / "checkpoints" / "step_4" / "progress.json")
    first = _contents(tmp_path / "run" / "checkpoints" / "step_2" / "selected")
    result = _train(tiny, tmp_path / "run", *options, "run.resume=true")
    assert (result.scores["step"], result.scores["mean_iou"]) == (1, 0.5)
    assert first and _contents(result.model_dir) == first


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_and_says_so(tiny, tmp_path, whole, caplog):
    with pytest.raises(Interrupted):
        _train(tiny, tmp_path / "run", after=1 + 4)
    _train(tiny, tmp_path / "run", "run.resume=true")
    assert "interrupted before its first checkpoint; it starts from the first step" in caplog.text
    _assert_as_uninterrupted(tmp_path / "run", whole)


def test_a_finished_run_without_checkpoints_is_not_trained_anew(tiny, whole, tmp_path):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints")
    before = _contents(run_dir)
    with pytest.raises(ValueError, match="is finished and its checkpoints were removed.*run.overwrite=true"):
        _train(tiny, run_dir, "run.resume=true")
    assert _contents(run_dir) == before


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
        _flip(tmp_path / "before" / "checkpoints" / "step_3" / "progress.json")
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
