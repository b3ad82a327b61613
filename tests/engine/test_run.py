"""A run directory from the first step to the last, interrupted and not."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from depthseg.data import DATASETS, DatasetEntry
from depthseg.data.class_weights import balanced_weights
from depthseg.engine.build import build_model
from depthseg.engine.checkpoint import find_checkpoint
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.predict import load_model
from depthseg.engine.run import train
from depthseg.metrics.stamp import Stamp, label_space_hash
from depthseg.models import DepthSegForSemanticSegmentation

EVERY_OTHER = ("run.eval_every=2", "run.checkpoint_every=2")


def _lines(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def _assert_equal_state(run_dir, other, step):
    """Weights and optimiser state are equal bit by bit, and so are the records."""
    ours, theirs = (folder / "checkpoints" / f"step_{step}" for folder in (run_dir, other))
    for file in ("model.safetensors", "optimizer.safetensors"):
        tensors, expected = load_file(ours / file), load_file(theirs / file)
        assert tensors.keys() == expected.keys() and tensors
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert (ours / "random_states.json").read_bytes() == (theirs / "random_states.json").read_bytes()
    assert _lines(run_dir) == _lines(other)
    selected, expected = (load_file(folder / "model" / "model.safetensors") for folder in (run_dir, other))
    assert all(torch.equal(selected[name], expected[name]) for name in expected)


class Noisy:
    """A data set whose reader may be made to do something at its n-th call."""

    def __init__(self, dataset, at=None, action=None):
        self.names, self.label_space = dataset.names, dataset.label_space
        self._dataset, self._at, self._action, self._calls = dataset, at, action, 0

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        self._calls += 1
        if self._calls == self._at:
            self._action()
        return self._dataset[index]


def _crash():
    raise KeyboardInterrupt


def _train(tiny, run_dir, *overrides, dataset=None):
    config = tiny.tiny_config(run_dir, *EVERY_OTHER, "data.crop_scale=[0.5,1]", *overrides)
    return train(config, dataset or tiny.Blocks(10), tiny.Blocks(3, seed=1))


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An unbroken run of six steps."""
    run_dir = tmp_path_factory.mktemp("run") / "whole"
    return _train(tiny, run_dir)


def test_a_run_directory_holds_what_the_readme_says(whole):
    names = {path.name for path in whole.run_dir.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "run.json", "checkpoints", "model", "report"}
    assert [line["step"] for line in _lines(whole.run_dir)] == [2, 4, 6]
    assert {path.name for path in (whole.run_dir / "checkpoints").iterdir()} == {"step_4", "step_6"}
    launch = json.loads((whole.run_dir / "run.json").read_text())["launches"][0]
    assert (launch["num_processes"], launch["device"], launch["torch"]) == (1, "cpu", torch.__version__)


def test_model_holds_the_best_weights_and_scores_what_was_logged(whole, tiny):
    best = max(_lines(whole.run_dir), key=lambda line: line["mean_iou"])
    assert whole.scores == best
    # On the device and in the memory format of training, which decide how sums are rounded.
    model, processor = load_model(whole.model_dir, device="cpu")
    assert evaluate_model(model, processor, tiny.Blocks(3, seed=1), "segmentation").items() <= best.items()


def test_every_evaluation_carries_its_stamp(whole, tiny):
    stamps = [Stamp.from_dict(line["stamp"]) for line in _lines(whole.run_dir)]
    space = tiny.Blocks(1).label_space
    assert stamps == [Stamp(label_space_hash(space.id2label), space.ignore_index)] * 3


def test_select_last_keeps_the_last(tiny, tmp_path, whole):
    result = _train(tiny, tmp_path / "run", "run.select=last")
    assert result.scores == _lines(whole.run_dir)[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_a_stopped_run_goes_on_bit_by_bit(tiny, tmp_path, whole, caplog, number):
    handler = signal.getsignal(number)
    stop = Noisy(tiny.Blocks(10), at=10, action=lambda: os.kill(os.getpid(), number))  # while step 3 is read
    with pytest.raises(SystemExit, match="Stopped on request after step 3 of 6.*run.resume=true") as stopped:
        _train(tiny, tmp_path / "run", dataset=stop)
    # A code of its own, so that a scheduler can tell what is to be queued again from what has failed.
    assert stopped.value.code == 75 == os.EX_TEMPFAIL
    assert [record.getMessage() for record in caplog.records].count(str(stopped.value)) == 1
    assert signal.getsignal(number) is handler
    _train(tiny, tmp_path / "run", "run.resume=true")
    _assert_equal_state(tmp_path / "run", whole.run_dir, 6)
    launches = json.loads((tmp_path / "run" / "run.json").read_text())["launches"]
    assert [launch["first_step"] for launch in launches] == [0, 3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], ids=lambda number: number.name)
def test_reading_processes_outlive_a_request_to_stop(tiny, tmp_path, whole, number):
    """A scheduler signals all processes of a job; the run has to read on to the end of its step."""
    main = os.getpid()

    def ask_the_reader():
        assert os.getpid() != main
        os.kill(os.getpid(), number)

    data = Noisy(tiny.Blocks(10), at=10, action=ask_the_reader)
    _train(tiny, tmp_path / "run", "data.num_workers=1", dataset=data)
    _assert_equal_state(tmp_path / "run", whole.run_dir, 6)


def test_a_crashed_run_goes_on_from_its_last_complete_checkpoint(tiny, tmp_path, whole):
    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        _train(tiny, run_dir, "run.checkpoint_every=4", dataset=Noisy(tiny.Blocks(10), at=22, action=_crash))
    # What a kill may leave: a half-written checkpoint, a half-written line, a line that no checkpoint knows of.
    (run_dir / "checkpoints" / ".step_5.partial").mkdir()
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train_loss": 1.0}\n{"step": 6, "tra')
    assert find_checkpoint(run_dir / "checkpoints").name == "step_4"
    _train(tiny, run_dir, "run.checkpoint_every=4", "run.resume=true")
    _assert_equal_state(run_dir, whole.run_dir, 6)
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"step_4", "step_6"}


def test_random_layers_go_on_with_the_same_noise(tiny, tmp_path, monkeypatch):
    init = DepthSegForSemanticSegmentation.__init__

    def with_dropout(model, config):
        init(model, config)
        model.classifier.register_forward_pre_hook(lambda module, args: torch.nn.functional.dropout(args[0], 0.3))

    monkeypatch.setattr(DepthSegForSemanticSegmentation, "__init__", with_dropout)
    expected = _train(tiny, tmp_path / "whole", "schedule.steps=3")
    with pytest.raises(KeyboardInterrupt):
        _train(tiny, tmp_path / "run", "schedule.steps=3", dataset=Noisy(tiny.Blocks(10), at=9, action=_crash))
    _train(tiny, tmp_path / "run", "schedule.steps=3", "run.resume=true")
    _assert_equal_state(tmp_path / "run", expected.run_dir, 3)


def test_reading_processes_change_nothing(tiny, tmp_path, whole):
    _train(tiny, tmp_path / "run", "data.num_workers=2")
    _assert_equal_state(tmp_path / "run", whole.run_dir, 6)


def test_resuming_a_finished_run_returns_its_result(tiny, whole):
    before = (whole.run_dir / "metrics.jsonl").read_bytes()
    assert _train(tiny, whole.run_dir, "run.resume=true").scores == whole.scores
    assert (whole.run_dir / "metrics.jsonl").read_bytes() == before


def test_a_directory_with_a_run_is_refused_and_left_alone(tiny, whole):
    before = sorted(path.stat().st_mtime_ns for path in whole.run_dir.rglob("*"))
    with pytest.raises(FileExistsError, match="already holds a run .*run.resume=true .*run.overwrite=true"):
        _train(tiny, whole.run_dir)
    with pytest.raises(ValueError, match="other options.*optim.lr: 0.0001 -> 0.5"):
        _train(tiny, whole.run_dir, "run.resume=true", "optim.lr=0.5")
    with pytest.raises(ValueError, match="subset of 99"):  # a mistake must not cost the run that lies there
        _train(tiny, whole.run_dir, "run.overwrite=true", "data.subset_size=99")
    assert sorted(path.stat().st_mtime_ns for path in whole.run_dir.rglob("*")) == before


def test_overwrite_removes_the_run_and_nothing_else(tiny, tmp_path, whole):
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints" / "step_99").mkdir(parents=True)
    (run_dir / "notes.txt").write_text("mine")
    _train(tiny, run_dir, "run.overwrite=true")
    _assert_equal_state(run_dir, whole.run_dir, 6)
    assert (run_dir / "notes.txt").read_text() == "mine"


def test_the_few_shot_subset_is_written_down_and_alone_trained_on(tiny, tmp_path):
    read = []

    class Recording(tiny.Blocks):
        def __getitem__(self, index):
            read.append(self.names[index])
            return super().__getitem__(index)

    _train(tiny, tmp_path / "run", "data.subset_size=3", "data.subset_seed=5", dataset=Recording(10))
    subset = json.loads((tmp_path / "run" / "subset.json").read_text())
    assert (subset["size"], subset["seed"], len(subset["names"])) == (3, 5, 3)
    assert set(read) == set(subset["names"])


def test_training_from_a_depth_run_keeps_its_encoder_frozen(tiny, tmp_path):
    depth = _train(tiny, tmp_path / "depth", "task=depth")
    assert depth.scores["alignment"] == "none"
    assert depth.scores["abs_rel"] == min(line["abs_rel"] for line in _lines(depth.run_dir))
    overrides = (f"model.pretrained={depth.model_dir}", "model.freeze_encoder=true", "model.head_init=random")
    result = _train(tiny, tmp_path / "segmentation", *overrides)
    before, after = (load_file(run.model_dir / "model.safetensors") for run in (depth, result))
    shared = [name for name in before if name.startswith("encoder.")]
    assert shared and all(torch.equal(before[name], after[name]) for name in shared)
    heads = [name for name in before if name.startswith("head.")]
    assert heads and not all(torch.equal(before[name], after[name]) for name in heads)


def test_options_reach_both_splits_of_a_named_data_set(tiny, tmp_path, monkeypatch):
    opened = []

    def load(root, split, *, count, seed=0):
        opened.append((str(root), split, count, seed))
        return tiny.Blocks(count, seed)

    monkeypatch.setitem(DATASETS, "blocks", DatasetEntry(load, ("train", "val"), "", ""))
    named = ("data.name=blocks", "data.root=there", "data.options.count=4", "data.val_options={count: 2, seed: 1}")
    train(tiny.tiny_config(tmp_path / "run", *named, "schedule.steps=1"))
    assert opened == [("there", "train", 4, 0), ("there", "val", 2, 1)]
    with pytest.raises(ValueError, match="data.name and data.root must say"):
        train(tiny.tiny_config(tmp_path / "other"))


def test_a_image_without_its_label_map_is_named(tiny, tmp_path):
    class Unlabelled(tiny.Blocks):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return type(sample)(sample.name, sample.image, None, sample.depth)

    with pytest.raises(ValueError, match="Image 'block_.*' has no label map"):
        _train(tiny, tmp_path / "run", dataset=Unlabelled(4))


def test_half_precision_needs_a_gpu(tiny, tmp_path):
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        _train(tiny, tmp_path / "run", "run.precision=fp16")


def test_processes_that_do_not_find_each_other_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="started 2 processes .* sees 1"):
        _train(tiny, tmp_path / "run")


def test_balanced_class_weights_are_those_of_the_training_labels_and_written_down(tiny, tmp_path):
    blocks = tiny.Blocks(10)
    result = _train(tiny, tmp_path / "run", "model.class_weights=balanced", "model.label_smoothing=0.1")
    counts = sum(torch.bincount(torch.tensor(s.labels[s.labels < 255]).long(), minlength=99) for s in blocks)
    counts = counts[: len(blocks.label_space.classes)].double()
    expected = counts.sum() / ((counts > 0).sum() * counts)
    written = json.loads((result.run_dir / "run.json").read_text())["class_weights"]
    assert written == pytest.approx(expected.where(counts > 0, expected[counts > 0].max()).tolist())
    config = load_model(result.model_dir)[0].config
    assert config.class_weights == written and config.label_smoothing == 0.1


def test_a_model_from_python_is_trained_by_the_loss_of_the_options(tiny, tmp_path):
    config = tiny.tiny_config(tmp_path / "run", "schedule.steps=1")
    model, processor = build_model(config, tiny.Blocks(2))
    config.model.class_weights, config.model.segmentation_loss = "balanced", "focal"
    result = train(config, tiny.Blocks(10), tiny.Blocks(2, seed=1), model, processor)
    weights = json.loads((result.run_dir / "run.json").read_text())["class_weights"]
    assert weights == balanced_weights(tiny.Blocks(10)) == model.config.class_weights
    assert model.config.segmentation_loss == "focal" and model.config.label_smoothing == 0
    config.model.class_weights, config.run.overwrite = [1.0, 2.0], True
    with pytest.raises(ValueError, match="do not fit the model given: .*2 entries but there are 3 classes"):
        train(config, tiny.Blocks(10), tiny.Blocks(2, seed=1), model, processor)
    assert model.config.class_weights == weights


@pytest.mark.parametrize("given", ["even", "3", "[1, heavy]"])
def test_class_weights_of_another_kind_are_refused(tiny, tmp_path, given):
    with pytest.raises(ValueError, match="must be none, balanced, or a list"):
        _train(tiny, tmp_path / "run", f"model.class_weights={given}")


def _spoil_losses(monkeypatch, spoiled):
    """Make the losses of some training steps NaN, counted from 1."""
    forward, calls = DepthSegForSemanticSegmentation.forward, []

    def spoiling(model, *args, **kwargs):
        output = forward(model, *args, **kwargs)
        if model.training:
            calls.append(None)
            if len(calls) in spoiled:
                output.loss = output.loss * torch.nan
        return output

    monkeypatch.setattr(DepthSegForSemanticSegmentation, "forward", spoiling)


def test_a_step_that_is_not_finite_is_skipped_and_its_images_are_named(tiny, tmp_path, monkeypatch, caplog):
    read = []

    class Remembering(tiny.Blocks):
        def __getitem__(self, index):
            read.append(self.names[index])
            return super().__getitem__(index)

    _spoil_losses(monkeypatch, {2})
    config = tiny.tiny_config(tmp_path / "run", "schedule.steps=3", "run.eval_every=1", "run.log_every=3")
    train(config, Remembering(10), tiny.Blocks(3, seed=1))
    losses = [line["train_loss"] for line in _lines(tmp_path / "run")]
    assert losses[1] is None and all(isinstance(losses[step], float) for step in (0, 2))
    (warning,) = [record.message for record in caplog.records if "left out" in record.message]
    names = read[-12:][4:8]  # the last of all that was read: three steps of four images
    assert f"The loss of step 2 is nan at learning rate 7.5e-05. Its batch: {', '.join(names)}. `depth" in warning
    weights = load_file(tmp_path / "run" / "checkpoints" / "step_3" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_a_run_with_skipped_steps_resumes_bit_by_bit(tiny, tmp_path, monkeypatch):
    _spoil_losses(monkeypatch, {2, 3})
    expected = _train(tiny, tmp_path / "whole", "schedule.steps=4", "run.log_every=4")
    monkeypatch.undo()
    _spoil_losses(monkeypatch, {2, 3})
    with pytest.raises(KeyboardInterrupt):
        dataset = Noisy(tiny.Blocks(10), at=14, action=_crash)  # while step 4 is read
        _train(tiny, tmp_path / "run", "schedule.steps=4", "run.log_every=4", dataset=dataset)
    monkeypatch.undo()
    _spoil_losses(monkeypatch, {1})  # after step 2: the third one again
    _train(tiny, tmp_path / "run", "schedule.steps=4", "run.log_every=4", "run.resume=true")
    _assert_equal_state(tmp_path / "run", expected.run_dir, 4)
