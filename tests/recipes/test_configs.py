"""Every YAML file of training/configs: valid, about data that exists, and no longer than it must be."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from depthseg.data import DATASETS, LabelSpace
from depthseg.engine.build import build_model, source_of
from depthseg.engine.config import load_config

CONFIGS = sorted((Path(__file__).parents[2] / "training" / "configs").rglob("*.yaml"))


def test_there_are_configs():
    assert len(CONFIGS) >= 3


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_loads_and_is_about_data_that_exists(path):
    config = load_config(path)
    entry = DATASETS[source_of(config.data)[0]]
    assert {config.data.train_split, config.data.val_split} <= set(entry.splits)
    assert not config.run.resume and not config.run.overwrite
    assert config.run.output_dir.startswith("runs/")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_only_what_it_changes(path, tmp_path):
    """Leaving out any line makes another run or none, so that a new option or another default touches no recipe."""
    expected, written = load_config(path), yaml.safe_load(path.read_text())
    assert "base" in written or list(written)[0] == "task"  # which every recipe may say for its reader
    for section in written.keys() - {"base", "task"}:
        for option in written[section]:
            less = {**written, section: {name: value for name, value in written[section].items() if name != option}}
            (tmp_path / "less.yaml").write_text(yaml.safe_dump({name: value for name, value in less.items() if value}))
            try:
                assert load_config(tmp_path / "less.yaml") != expected, f"{section}.{option} changes nothing"
            except ValueError:
                pass  # it is needed


# The decoder of another recipe comes with its weights; tests/engine/test_before_after.py makes some.
DEPTH_RECIPES = [
    path for path in CONFIGS if load_config(path).task == "depth" and load_config(path).model.pretrained is None
]
FEW_SHOT_RECIPES = [path for path in CONFIGS if "fewshot" in path.stem]


@pytest.mark.parametrize("path", DEPTH_RECIPES, ids=lambda path: path.stem)
def test_the_decoder_of_every_depth_recipe_fits_every_few_shot_recipe(path, tmp_path):
    """What the README promises: encoder and decoder are kept, without a word on the command line."""
    assert FEW_SHOT_RECIPES
    samples = SimpleNamespace(label_space=LabelSpace("two", ("low", "high"), ((0, 0, 0), (255, 0, 0))))
    for part in build_model(load_config(path, ["data.random_crop=false"]), samples):
        part.save_pretrained(tmp_path)
    for recipe in FEW_SHOT_RECIPES:
        model, _ = build_model(load_config(recipe, [f"model.pretrained={tmp_path}"]), samples)
        status = {part.part: part.status for part in model.transfer_report.parts if part.status != "left over"}
        assert (status["encoder"], status["head"], status["classifier"]) == ("taken", "taken", "new")
