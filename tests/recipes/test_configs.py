"""Every YAML file of training/configs: complete, valid, and about data that exists."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from depthseg.data import DATASETS, LabelSpace
from depthseg.engine.build import build_model, source_of
from depthseg.engine.config import load_config
from depthseg.engine.options import RunConfig

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").rglob("*.yaml"))


def test_there_are_configs():
    assert len(CONFIGS) >= 3


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_loads_and_shows_every_option_or_what_it_changes(path):
    config = load_config(path)
    written = yaml.safe_load(path.read_text())
    if "base" not in written:
        # How to teach without labels is no question where there are labels.
        left_out = {"pretext"} if config.task == "segmentation" else set()
        assert set(written) == {field.name for field in dataclasses.fields(RunConfig)} - left_out
        for section in set(written) - {"task"}:
            assert set(written[section]) == {field.name for field in dataclasses.fields(getattr(config, section))}
    entry = DATASETS[source_of(config.data)[0]]
    assert {config.data.train_split, config.data.val_split} <= set(entry.splits)
    assert not config.run.resume and not config.run.overwrite
    assert config.run.output_dir == f"runs/{path.stem}" or "base" not in written


DEPTH_RECIPES = [path for path in CONFIGS if load_config(path).task == "depth"]
FEW_SHOT_RECIPES = [path for path in CONFIGS if "fewshot" in path.stem]


@pytest.mark.parametrize("path", DEPTH_RECIPES, ids=lambda path: path.stem)
def test_the_decoder_of_every_depth_recipe_fits_every_few_shot_recipe(path, tmp_path):
    """What the README promises: encoder and decoder are kept, without a word on the command line."""
    assert FEW_SHOT_RECIPES
    samples = SimpleNamespace(label_space=LabelSpace("two", ("low", "high"), ((0, 0, 0), (255, 0, 0))))
    for part in build_model(load_config(path, ["data.crop_pixels=false"]), samples):
        part.save_pretrained(tmp_path)
    for recipe in FEW_SHOT_RECIPES:
        model, _ = build_model(load_config(recipe, [f"model.pretrained={tmp_path}"]), samples)
        status = {part.part: part.status for part in model.transfer_report.parts if part.status != "left over"}
        assert (status["encoder"], status["head"], status["classifier"]) == ("taken", "taken", "new")
