"""The host waits for the device once per `log_every` steps, whatever is trained."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from depthseg.engine import run
from depthseg.engine.label_range import LabelRange

SSI = ("model.depth_type=relative_inverse", "model.depth_loss=ssi")
ALIGNED = ("pretext.derotate=true", "pretext.pyramid=true", "pretext.intrinsics=per_image")
RUNS = {
    "segmentation": ("task=segmentation", "model.class_weights=[1,2,3]"),
    "dice": ("task=segmentation", "model.segmentation_loss=cross_entropy_dice"),
    "focal": ("task=segmentation", "model.segmentation_loss=focal", "optim.accumulation_steps=2"),
    "joint": ("task=segmentation", "model.keep_depth=true", "model.depth_weight=0.5"),
    "depth": ("task=depth", "model.depth_loss=silog", "optim.max_grad_norm=1"),
    "depth_ssi": ("task=depth", *SSI, "optim.name=sgd"),
    "depth_l1": ("task=depth", "model.depth_loss=l1", "optim.name=adam"),
    "mono": ("task=depth", "pretext.supervision=mono"),
    "mono_aligned": ("task=depth", "pretext.supervision=mono", *ALIGNED, "pretext.scale_consistency_weight=0.1"),
    "stereo": ("task=depth", "pretext.supervision=stereo"),
    "mono_stereo": ("task=depth", "pretext.supervision=mono_stereo"),
    "flow": ("task=flow", "pretext.derotate=false"),
    "flow_aligned": ("task=flow", "pretext.derotate=true"),
    "inpainting": ("task=inpainting",),
    "classification": ("task=classification",),
}
QUICK = ("segmentation", "depth_ssi", "mono_aligned", "flow_aligned", "inpainting", "classification")
"""One of each task, with most of what there is to it."""


def _helper(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def with_everything(tiny):
    """The images of the tiny run with whatever a task may ask for."""

    class Everything(tiny.Blocks):
        categories = ("even", "odd")

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            more = {"category": index % 2, "stereo": np.roll(sample.image, 2, axis=1), "stereo_x": 0.5}
            return type(sample)(**{**vars(sample), **more})

    return Everything


def _waits(monkeypatch, config, train_set, val_set):
    """Waits of each step but the first, in which constants are made, and the last, after which is an evaluation."""
    waits, steps = _helper("host_waits").HostWaits(), []
    fit = run.fit

    def counted(training, batches):
        def quiet():
            while True:
                steps.append(waits.found.copy())
                with waits.ignored():
                    micro_batches = next(batches, None)
                if micro_batches is None:
                    return
                yield micro_batches

        with waits.counting():
            fit(training, quiet())

    monkeypatch.setattr(run, "fit", counted)
    run.train(config, train_set, val_set)
    of_a_step = config.optim.accumulation_steps
    borders = steps[::of_a_step]
    return [later - earlier for earlier, later in zip(borders[1:], borders[2:], strict=False)]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.heavy) for name in RUNS]
)
def test_the_host_waits_once_per_line_of_progress(tiny, with_everything, tmp_path, monkeypatch, name):
    short = ("optim.batch_size=2", "schedule.steps=7", "run.log_every=3", "run.checkpoint_every=0")
    config = tiny.tiny_config(tmp_path / "run", *short, *RUNS[name])
    waits = _waits(monkeypatch, config, with_everything(8), with_everything(1))
    assert [step.total() for step in waits[:5]] == [0, 1, 0, 0, 1], waits


def test_every_way_to_wait_is_counted():
    counter = _helper("host_waits").HostWaits()
    x = torch.arange(6.0)
    ways = {
        "item": lambda: x[0].item(),
        "bool": lambda: bool(x[1]),
        "float": lambda: float(x[0]),
        "int": lambda: int(x[0]),
        "tolist": lambda: x.tolist(),
        "cpu": lambda: x.cpu(),
        "numpy": lambda: x.numpy(),
        "array": lambda: np.asarray(x),
        "nonzero": lambda: (x > 2).nonzero(),
        "mask": lambda: x[x > 2],
        "write by mask": lambda: x.__setitem__(x > 2, x[x > 2]),
        "unique": lambda: x.unique(),
        "masked_select": lambda: x.masked_select(x > 2),
        "where": lambda: torch.where(x > 2),
        "if": lambda: 1 if x.isnan().any() else 0,
        "new_tensor": lambda: x.new_tensor([1.0]),
        "tensor": lambda: torch.tensor([1.0]),
        "equal": lambda: torch.equal(x, x),
    }
    missed = []
    for way, run_it in ways.items():
        before = counter.found.total()
        with counter.counting():
            run_it()
        missed += [way] if counter.found.total() == before else []
    assert missed == []
    with counter.counting():
        before = counter.found.total()
        _ = x[2:4], x[torch.arange(2)], torch.where(x > 2, x, 0.0), x.sum(), x.to(torch.float64), x.median()
        assert counter.found.total() == before


def test_a_step_that_waits_is_seen(tiny, with_everything, tmp_path, monkeypatch):
    forward = nn.Conv2d.forward

    def waiting(module, x):
        return forward(module, x) if x.sum().item() else x

    monkeypatch.setattr(nn.Conv2d, "forward", waiting)
    config = tiny.tiny_config(tmp_path / "run", "optim.batch_size=2", "schedule.steps=3", "task=inpainting")
    waits = _waits(monkeypatch, config, with_everything(8), with_everything(1))
    assert waits[0].total() > 1


class Wrong:
    """A data set whose second image is labelled with ids that nobody knows."""

    def __init__(self, dataset):
        self.names, self.label_space = dataset.names, dataset.label_space
        self._dataset = dataset

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        sample = self._dataset[index]
        if index == 1:
            sample.labels[:, :20] = 7
            sample.labels[:, 20:30] = 254
        return sample


@pytest.mark.parametrize("workers", [0, 1])
def test_unknown_class_ids_are_found_where_they_are_read(tiny, tmp_path, workers):
    config = tiny.tiny_config(tmp_path / "run", f"data.num_workers={workers}")
    with pytest.raises(ValueError, match="'block_01' is labelled with the ids 7, 254, but the model knows 0 to 2 and"):
        run.train(config, Wrong(tiny.Blocks(4)), tiny.Blocks(1))


def test_range_of_class_ids():
    ids = np.array([[0, 1], [255, 2]])
    LabelRange(3, 255).check("a", ids)
    with pytest.raises(
        ValueError, match="'a' is labelled with the ids 2, but the model knows 0 to 1 and ignores 255;"
    ):
        LabelRange(2, 255).check("a", ids)
    with pytest.raises(ValueError, match="'a' is labelled with the ids -1, but the model knows 0 to 4;"):
        LabelRange(5, None).check("a", np.array(-1))
    with pytest.raises(ValueError, match="the ids 5, 6, 7, 8, 9, ..., but"):
        LabelRange(5, None).check("a", np.arange(20))
