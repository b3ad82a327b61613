"""Options under their former names: users may write them with a warning, and records keep them."""

from __future__ import annotations

import logging
import shutil
from operator import attrgetter
from pathlib import Path

import pytest
import yaml
from engine.tiny_run import Blocks, tiny_config

from depthseg.engine.config import compose_config, load_config
from depthseg.engine.run import train
from depthseg.hub.record import read_published, trace
from depthseg.recipes import find_recipe
from depthseg.study.options import load_study
from depthseg.study.stored import TrialRecord, config_of

CARDS = Path(__file__).parents[1] / "model_cards"
ENCODER = "model.encoder={model_type: depthseg_resnet}"
MONO = {"task": "depth", "pretext": {"supervision": "mono"}}

# What users wrote: sections, what else the option needs, name and value now, the old name, the new name.
FORMER = {
    "crop_pixels": ({"data": {"crop_pixels": True}}, {}, "data.random_crop", True, "data.crop_pixels"),
    "align": ({"pretext": {"align": True}}, MONO, "pretext.derotate", True, "pretext.align"),
    "per_picture": (
        *({"pretext": {"intrinsics": "per_picture"}}, MONO, "pretext.intrinsics", "per_image"),
        "pretext.intrinsics=per_picture",
    ),
    "tensorboard": ({"run": {"tensorboard": False}}, {}, "run.trackers", [], "run.tensorboard=false"),
    "tensorboard_on": (
        *({"run": {"tensorboard": True}}, {}, "run.trackers", ["tensorboard"]),
        "run.tensorboard=true",
    ),
    "reconstruction": ({"task": "reconstruction"}, {}, "task", "inpainting", "task=reconstruction"),
}
former = pytest.mark.parametrize(("old", "needs", "name", "value", "word"), FORMER.values(), ids=FORMER)


def write(path, *sections):
    """A YAML file with sections of options."""
    options = {}
    for section in sections:
        for name, given in section.items():
            options[name] = {**options.get(name, {}), **given} if isinstance(given, dict) else given
    path.write_text(yaml.safe_dump(options))
    return path


def overrides_of(sections):
    return [
        f"{section}.{name}={value}" if isinstance(given, dict) else f"{section}={given}"
        for section, given in sections.items()
        for name, value in (given.items() if isinstance(given, dict) else [("", given)])
    ]


@former
@pytest.mark.parametrize("way", ["file", "base", "override"])
def test_former_names_are_read_with_one_warning(tmp_path, caplog, way, old, needs, name, value, word):
    path = write(tmp_path / "mine.yaml", needs, old if way != "override" else {})
    if way == "base":
        path = write(tmp_path / "top.yaml", {"base": "mine.yaml"}, old)
    overrides = [ENCODER, *overrides_of(old)] if way == "override" else [ENCODER]
    assert attrgetter(name)(load_config(path, overrides)) == value
    now = f"{name}={value}".replace("'", "") if "=" in word else name
    place = {"file": "mine.yaml, line ", "base": "mine.yaml, line ", "override": "override '"}[way]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and place in record.getMessage()
    assert record.getMessage().endswith(f": {word} is called {now} now; the old name goes with the next version.")


def test_a_new_name_on_top_of_an_old_one_wins(tmp_path):
    write(tmp_path / "below.yaml", {"data": {"crop_pixels": True}}, {"task": "reconstruction"})
    top = write(tmp_path / "top.yaml", {"base": "below.yaml", "data": {"random_crop": False}})
    assert load_config(top, [ENCODER]).data.random_crop is False
    assert load_config(top, [ENCODER, "data.crop_pixels=yes"]).data.random_crop is True
    assert load_config(top, [ENCODER, "task=segmentation"]).task == "segmentation"


def test_one_file_gives_an_option_by_one_name(tmp_path):
    path = write(tmp_path / "mine.yaml", {"data": {"crop_pixels": True, "random_crop": True}})
    with pytest.raises(
        ValueError,
        match=r"mine\.yaml, line 2: data\.crop_pixels is called data\.random_crop now, and both are given: leave out",
    ):
        load_config(path, [ENCODER])


def test_what_does_not_fit_an_old_name_is_named_with_its_line(tmp_path):
    (tmp_path / "mine.yaml").write_text("data:\n  size: [32, 64]\n  crop_pixels: perhaps\n")
    with pytest.raises(ValueError, match=r"mine\.yaml, line 3: data\.random_crop must be true.*got 'perhaps'"):
        load_config(tmp_path / "mine.yaml", [ENCODER])


@pytest.mark.parametrize("sections", ["data: null", "data: [1]", "data: crop_pixels", "pretext: {intrinsics: [1]}"])
def test_sections_that_are_none_are_refused_as_before(tmp_path, caplog, sections):
    (tmp_path / "mine.yaml").write_text(sections)
    with pytest.raises(ValueError, match=r"'data' is a section|pretext\.intrinsics must be"):
        load_config(tmp_path / "mine.yaml", [ENCODER])
    assert not caplog.records


def test_entries_of_data_sets_keep_their_names(caplog):
    """`task` and `align` are names of a run's options, not of whatever is in a map of the user."""
    entries = {"task": "reconstruction", "align": True, "data": {"crop_pixels": True}}
    assert compose_config([("mine", {"data": {"options": entries}})], [ENCODER]).data.options == entries
    assert not caplog.records


def test_the_former_name_of_a_recipe(tmp_path, caplog):
    inpainting = load_config("pretrain_synthetic_inpainting")
    assert inpainting.task == "inpainting" and not caplog.records
    assert load_config("pretrain_synthetic_reconstruction") == inpainting
    assert load_config(write(tmp_path / "mine.yaml", {"base": "pretrain_synthetic_reconstruction"})) == inpainting
    assert find_recipe("pretrain_synthetic_reconstruction").name == "pretrain_synthetic_inpainting"
    sentence = (
        "The recipe pretrain_synthetic_reconstruction is called pretrain_synthetic_inpainting now; the old name "
    )
    assert [record.getMessage() for record in caplog.records] == [sentence + "goes with the next version."] * 3
    with pytest.raises(FileNotFoundError, match="Recipes go by their name alone: pretrain_synthetic_inpainting"):
        load_config("training/configs/pretrain_synthetic_reconstruction.yaml")


@former
def test_studies_take_former_names_in_all_sections(tmp_path, caplog, old, needs, name, value, word):
    sections = {"architectures": {"mine": old}, "modes": {"mine": old}, "finetune": old, "pretrain": old}
    path = write(tmp_path / "study.yaml", {"base": "world", **sections})
    for given, overrides in ((str(path), []), ("world", [f"finetune.{text}" for text in overrides_of(old)])):
        below = load_study(given, overrides=overrides).finetune
        for part in name.split("."):
            below = below[part]
        assert below == value
        (record,) = caplog.records
        assert f": {word} is called " in record.getMessage()
        caplog.clear()


def former_options(config):
    """The options of a run as earlier versions wrote them."""
    options = config.to_dict()
    options["data"]["crop_pixels"] = options["data"].pop("random_crop")
    options["pretext"]["align"] = options["pretext"].pop("derotate")
    options["run"]["tensorboard"] = options["run"].pop("trackers") == ["tensorboard"]
    if options["task"] == "inpainting":
        options["task"] = "reconstruction"
    return options


@pytest.fixture(scope="module")
def old_run(tmp_path_factory):
    """A run directory of an earlier version, with two of three steps done."""
    folder = tmp_path_factory.mktemp("old") / "run"
    config = tiny_config(folder, "task=inpainting", "schedule.steps=2", "run.report=false", "run.checkpoint_every=2")
    train(config, Blocks(4), Blocks(2, seed=1))
    (folder / "config.yaml").write_text(yaml.safe_dump(former_options(config)))
    return folder, config


def test_an_old_run_resumes_without_a_warning(old_run, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(old_run[0], folder)
    again = tiny_config(folder, "task=inpainting", "schedule.steps=2", "run.report=false", "run.checkpoint_every=2")
    again.run.resume = True
    with caplog.at_level(logging.WARNING):
        result = train(again, Blocks(4), Blocks(2, seed=1))
    assert result.model_dir.is_dir() and not [r for r in caplog.records if "is called" in r.getMessage()]
    again.data.random_crop = True
    with pytest.raises(ValueError, match="started with other options.*: data.random_crop: False -> True"):
        train(again, Blocks(4), Blocks(2, seed=1))


def test_an_old_run_is_part_of_a_lineage_without_a_warning(old_run, tmp_path, caplog):
    folder, _ = old_run
    config = load_config(None, ["data.name=synthetic", f"model.pretrained={folder / 'model'}"])
    stages = trace(config, tmp_path).stages
    assert [(stage.task, stage.supervision) for stage in stages] == [
        ("inpainting", "images"),
        ("segmentation", "labels"),
    ]
    assert not caplog.records


def test_old_records_of_studies_have_their_options_without_a_warning(caplog):
    config = load_config(None, [ENCODER, "task=inpainting", "data.random_crop=true"])
    record = TrialRecord(Path("cell.json"), {"config": former_options(config)})
    assert config_of(record) == config
    assert not caplog.records


@pytest.mark.parametrize("folder", sorted(CARDS.glob("*/training")), ids=lambda folder: folder.parent.name)
def test_published_records_are_read_without_a_warning(caplog, folder):
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    record = read_published(folder.parent)
    assert record.config.data.random_crop is stored["data"]["crop_pixels"]
    assert record.config.pretext.derotate is stored["pretext"]["align"]
    assert record.lineage.stages[-1].task == record.config.task
    assert "pictures" not in {stage.supervision for stage in record.lineage.stages}
    assert not caplog.records
