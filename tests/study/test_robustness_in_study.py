"""The measure of robustness within a study: what is kept of a trial, and which films it is evaluated on."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from models.tiny_models import tiny_model
from study.tiny_study import tiny_study

from depthseg.data.corruptions import CorruptedImages
from depthseg.data.subsets import Subset
from depthseg.engine.build import build_datasets
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.predict import load_model
from depthseg.metrics.blocks import mean_iou
from depthseg.models import DepthSegImageProcessor
from depthseg.study import trials as trials_module
from depthseg.study.matrix import main_trials
from depthseg.study.stored import TrialRecord

FILM = "{data: {val_split: val, val_options: {count: 2}}}"
MEASURED = ("measures=[robustness]", "benchmarks.world.num_labelled=[2]", "seeds.finetune=1", "rates.grid=[]")
ONE_KIND = ("robustness.corruptions=[dusk]", "robustness.strengths=[1]", "robustness.every=2")


def first_trial(folder, *overrides):
    study = tiny_study(folder, *MEASURED, *overrides)
    return study, next(trial for trial in main_trials(study, {}, {}) if trial.labels["initialisation"] == "none")


def test_a_trial_keeps_the_counts_of_corrupted_images_and_of_films(tmp_path):
    study, trial = first_trial(tmp_path, *ONE_KIND, f"robustness.films={{street: {FILM}}}")
    model = tmp_path / "model"
    tiny_model("segmentation", num_labels=11).save_pretrained(model)
    DepthSegImageProcessor(size={"height": 32, "width": 64}).save_pretrained(model)
    films, path = trials_module.films_of(study, trial), tmp_path / "trial.json"
    found = trials_module.examine(study, trial, SimpleNamespace(model_dir=model), path, films)["measures"]
    assert list(found["robustness"]) == ["clean", "dusk 1", "street"]
    record = TrialRecord(path, json.loads("{}"))
    counts, test_set = record.counts("robustness"), build_datasets(trial.config.data)[1]
    assert counts["clean"].names == counts["dusk 1"].names == [test_set.names[0], test_set.names[2]]
    assert np.array_equal(counts["clean"].confusion, record.arrays["confusion"][::2])
    assert list(counts["street"].names) == ["val_00000", "val_00001"] and record.counts("boundary_iou") == {}
    network, processor = load_model(model, device="cpu")
    dark = CorruptedImages(Subset(test_set, counts["clean"].names), "dusk", 1)
    expected = evaluate_model(network, processor, dark, "segmentation")["mean_iou"]
    assert found["robustness"]["dusk 1"] == pytest.approx(expected)
    for condition, images in counts.items():
        assert found["robustness"][condition] == pytest.approx(mean_iou(images.confusion.sum(0)))


@pytest.mark.parametrize(("split", "what"), [("train", "training"), ("test", "test")])
def test_films_of_training_or_test_images_are_refused(tmp_path, split, what):
    film = f"robustness.films={{street: {{data: {{val_split: {split}}}}}}}"
    study, trial = first_trial(tmp_path, film)
    with pytest.raises(ValueError, match=f"films.street has . of the {what} images, such as '{split}_00000'"):
        trials_module.films_of(study, trial)
    assert trials_module.films_of(replace(study, measures=[]), trial) == {}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("robustness.corruptions=[fgo]", "robustness: There is no corruption 'fgo'. Did you mean 'fog'"),
        ("robustness.strengths=[4]", "robustness: noise has the strengths 1, 2, 3; 4 was asked for"),
        (f"robustness.films={{clean: {FILM}}}", "films.clean has the name of another condition"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_study_begins(tmp_path, override, part):
    with pytest.raises(ValueError, match=part):
        tiny_study(tmp_path, "measures=[robustness]", override)
