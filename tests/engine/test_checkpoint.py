"""Checkpoints of a run: no pickle in them, damage is noticed, and the one before takes over."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import depthseg
from depthseg.engine.checkpoint import find_damage
from depthseg.engine.command import one_sentence_errors
from depthseg.engine.run import train
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
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        names = [alias.name for alias in node.names]
        if all(name.endswith("Error") for name in names):
            continue  # an exception reads nothing
        modules = names if isinstance(node, ast.Import) else [node.module]
        yield from ((f"import {name}", {}) for name in modules if name)


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
    monkeypatch.setattr("depthseg.engine.run.Scorer.__call__", lambda scorer, stopping: {"mean_iou": next(scores)})
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


def test_a_run_that_was_killed_between_its_last_scores_and_its_only_checkpoint_begins_again(
    tiny, tmp_path, whole, monkeypatch
):
    def killed(*arguments, **options):
        raise Interrupted

    monkeypatch.setattr("depthseg.engine.loop.save_checkpoint", killed)
    with pytest.raises(Interrupted):
        _train(tiny, tmp_path / "run", "run.checkpoint_every=0")
    monkeypatch.undo()
    left = _contents(tmp_path / "run")
    assert {Path(name).parts[0] for name in left} >= {"metrics.jsonl", "model"}
    assert not [name for name in left if name.startswith("checkpoints")]
    _train(tiny, tmp_path / "run", "run.checkpoint_every=0", "run.resume=true")
    _assert_as_uninterrupted(tmp_path / "run", whole)


def test_a_finished_run_without_checkpoints_is_not_trained_anew(tiny, whole, tmp_path):
    run_dir = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(run_dir / "checkpoints")
    before = _contents(run_dir)
    with pytest.raises(ValueError, match="is finished and its checkpoints were removed.*run.overwrite=true"):
        _train(tiny, run_dir, "run.resume=true")
    assert _contents(run_dir) == before
