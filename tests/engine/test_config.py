"""Options: defaults, overrides, and a sentence for every mistake."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from depthseg.engine.config import changed_options, load_config
from depthseg.engine.options import RunConfig

ENCODER = "model.encoder={model_type: depthseg_resnet, depth: 18}"


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {pretrained: some/where}\noptim: {lr: 0.5, batch_size: 4}\n")
    config = load_config(path, ["optim.lr=1e-3", "optim.lr=2e-3", "data.size=[96, 320]"])
    assert (config.optim.lr, config.optim.batch_size, config.optim.momentum) == (2e-3, 4, 0.9)
    assert config.data.size == [96, 320]


def test_a_saved_file_is_complete_and_loads_back_equal(tmp_path):
    config = load_config(None, [ENCODER, 'data.train_options.exclude_sequences=["0016E5"]', "data.options.n=3"])
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert config.data.train_options == {"exclude_sequences": ["0016E5"]}
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for section in ("model", "data", "optim", "schedule", "run"):
        names = {field.name for field in dataclasses.fields(getattr(config, section))}
        assert set(written[section]) == names


def test_interpolation_spares_writing_the_size_twice(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {pretrained: x}\ndata: {size: [64, 192], options: {size: '${data.size}'}}\n")
    assert load_config(path).data.options["size"] == [64, 192]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=1", ["'optim.lrr'", "Did you mean 'optim.lr'", "batch_size"]),
        ("optm.lr=1", ["'optm'", "Did you mean 'optim'", "schedule"]),
        ("lr=1", ["'lr'", "Did you mean 'optim.lr'"]),
        ("data.zzzqqq=1", ["'data.zzzqqq'", "hflip"]),
        ("optim.lr=fast", ["'optim.lr=fast'", "'optim.lr'", "'fast'", "Float"]),
        ("optim.batch_size=2.5", ["optim.batch_size", "2.5", "Integer"]),
        ("optim=3", ["'optim'", "section", "weight_decay"]),
        ("data.size=7", ["data.size", "list"]),
        ("optim.lr", ["no `=`", "section.option=value"]),
        ("data.size=[1,", ["'data.size=[1,'", "cannot be read"]),
    ],
)
def test_unreadable_options_are_named_with_a_way_out(override, parts):
    with pytest.raises(ValueError) as error:
        load_config(None, [ENCODER, override])
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        (
            "task=detection",
            "task must be one of segmentation, depth, flow, reconstruction, classification, got 'detection'",
        ),
        ("model.encoder=null", "model.pretrained and model.encoder are both null"),
        ("model.head_init=none", "model.head_init must be one of pretrained, random"),
        ("model.min_depth=0", "model.min_depth must be a finite number above 0"),
        ("model={min_depth: 2, max_depth: 1}", "model.max_depth must be above model.min_depth (2.0), got 1.0"),
        ("data.size=[64]", "data.size must be [height, width]"),
        ("data.size=[64, 0]", "data.size must be [height, width]"),
        ("data.hflip=1.5", "data.hflip is a probability"),
        ("data.crop_scale=[0.9, 0.5]", "data.crop_scale must be"),
        ("data.crop_scale=[0.0, 0.5]", "data.crop_scale must be"),
        ("data.colour_jitter=1", "data.colour_jitter must be in [0, 1)"),
        ("data.subset_size=-1", "data.subset_size must be a whole number of at least 0, got -1"),
        ("optim.name=lion", "optim.name must be one of adamw, adam, sgd"),
        ("optim.lr=0", "optim.lr must be a finite number above 0"),
        ("optim.lr=.nan", "optim.lr must be a finite number above 0, got nan"),
        ("optim.weight_decay=-0.1", "optim.weight_decay must be a finite number of at least 0"),
        ("optim.betas=[0.9]", "optim.betas must be two numbers"),
        ("optim.batch_size=0", "optim.batch_size must be a whole number of at least 1"),
        ("schedule.name=step", "schedule.name must be one of cosine, poly, constant"),
        ("schedule.warmup_steps=1000", "below schedule.steps (1000), got 1000"),
        ("run.precision=fp8", "run.precision must be one of no, bf16, fp16"),
        ("run.select=first", "run.select must be one of best, last"),
        ("run.log_every=0", "run.log_every must be a whole number of at least 1"),
        ("run={resume: true, overwrite: true}", "run.resume and run.overwrite exclude each other"),
    ],
)
def test_every_wrong_value_gets_its_sentence(override, part):
    with pytest.raises(ValueError) as error:
        load_config(None, [ENCODER, override])
    assert part in str(error.value)


def test_all_wrong_values_are_told_at_once():
    with pytest.raises(ValueError, match="(?s)data.hflip.*optim.lr"):
        load_config(None, [ENCODER, "data.hflip=2", "optim.lr=-1"])


def test_keeping_depth_is_for_segmentation():
    with pytest.raises(ValueError, match="keep_depth is for segmentation"):
        load_config(None, [ENCODER, "task=depth", "model.keep_depth=true"])


@pytest.mark.parametrize(
    ("content", "error", "part"),
    [
        (None, FileNotFoundError, "no configuration file"),
        ("model: [", ValueError, "is not a YAML file"),
        ("- 1", ValueError, "must hold sections"),
        ("optim: null", ValueError, "'optim' is a section"),
    ],
)
def test_bad_files(tmp_path, content, error, part):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=part) as caught:
        load_config(path)
    assert "run.yaml" in str(caught.value)


def test_changed_options_lists_what_differs():
    old, new = RunConfig(), RunConfig()
    new.optim.lr, new.run.log_every, new.task = 5.0, 3, "depth"
    assert changed_options(old, new, ignored=["run.log_every"]) == [
        "task: 'segmentation' -> 'depth'",
        "optim.lr: 0.0001 -> 5.0",
    ]
    assert changed_options(old, RunConfig()) == []


def test_a_file_based_on_another_says_only_what_it_changes(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "model: {encoder: {model_type: depthseg_resnet, depth: 50}}\n"
        "data: {name: synthetic, root: x, options: {count: 3, size: [8, 8]}}\noptim: {lr: 0.5}\n"
    )
    (tmp_path / "sub").mkdir()
    middle, top = tmp_path / "sub" / "middle.yaml", tmp_path / "sub" / "top.yaml"
    middle.write_text("base: ../base.yaml\ndata: {options: {count: 4}}\n")
    top.write_text("base: middle.yaml\noptim: {batch_size: 3}\n")
    config = load_config(top, ["data.options.flow=true", "model.encoder.depth=18"])
    assert config.data.options == {"count": 4, "flow": True}  # a file replaces dictionaries, an override adds to them
    assert config.model.encoder == {"model_type": "depthseg_resnet", "depth": 18}
    assert (config.optim.lr, config.optim.batch_size, config.data.root) == (0.5, 3, "x")


def test_a_missing_or_circular_base_is_named(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("base: second.yaml\n")
    with pytest.raises(FileNotFoundError, match="second.yaml"):
        load_config(first)
    second.write_text("base: first.yaml\n")
    with pytest.raises(ValueError, match="first.yaml is based on itself, by way of .*second.yaml"):
        load_config(first)


def test_a_circle_by_way_of_other_folders_is_seen_and_a_base_is_one_file(tmp_path):
    first, second = tmp_path / "a" / "first.yaml", tmp_path / "b" / "second.yaml"
    for path, base in ((first, "../b/second.yaml"), (second, "../a/first.yaml")):
        path.parent.mkdir()
        path.write_text(f"base: {base}\n")
    with pytest.raises(ValueError, match="is based on itself"):
        load_config(first)
    first.write_text("base: [x.yaml, y.yaml]\n")
    with pytest.raises(ValueError, match="base must be the path of one YAML file"):
        load_config(first)
