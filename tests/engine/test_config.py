"""Options: defaults, overrides, and a sentence for every mistake."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from depthseg.engine.config import changed_options, compose_config, load_config
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
        ("optim.lr=fast", ["override 'optim.lr=fast'", "optim.lr must be a finite number above 0, got 'fast'"]),
        ("optim.batch_size=2.5", ["optim.batch_size must be a whole number of at least 1, got 2.5"]),
        ("optim=3", ["'optim'", "section", "weight_decay"]),
        ("data.size=7", ["data.size must be [height, width] in pixels, both at least 1, got 7"]),
        ("optim.lr", ["no `=`", "section.option=value"]),
        ("data.size=[1,", ["'data.size=[1,'", "cannot be read"]),
        ("data..size=1", ["'data..size=1'", "empty name"]),
        ("data.options.n={a: 1, a: 2}", ["override 'data.options.n={a: 1, a: 2}'", "'a' is there twice"]),
        ("data.options.n=!!python/name:os.system", ["no YAML tags", "python/name"]),
        ("data.options.n=${data.sizes}", ["data.options.n is '${data.sizes}'", "there is no such option"]),
        ("data.options.n=${data.size", ["data.options.n is '${data.size'", "`${section.option}`"]),
        ("optim.lr=${optim.lr}", ["optim.lr is '${optim.lr}'", "stands for no value"]),
        ("optim.lr=${data.train_split}", ["override 'optim.lr=", "optim.lr must be a finite number", "got 'train'"]),
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
            "task must be one of segmentation, depth, flow, inpainting, classification, got 'detection'",
        ),
        ("model.encoder=null", "model.pretrained and model.encoder are both null"),
        ("model.head_init=none", "model.head_init must be one of pretrained, random"),
        ("model.min_depth=near", "model.min_depth must be a number or null, got 'near'"),
        ("data.size=[64]", "data.size must be [height, width]"),
        ("data.size=[64, 0]", "data.size must be [height, width]"),
        ("data.hflip=1.5", "data.hflip must be a probability from 0 to 1, got 1.5"),
        ("data.crop_scale=[0.9, 0.5]", "data.crop_scale must be"),
        ("data.crop_scale=[0.0, 0.5]", "data.crop_scale must be"),
        ("data.colour_jitter=1", "data.colour_jitter must be a number in [0, 1), got 1"),
        ("data.subset_size=-1", "data.subset_size must be a whole number of at least 0 (0 = all images), got -1"),
        ("optim.name=lion", "optim.name must be one of adamw, adam, sgd, got 'lion'"),
        ("optim.name=adamW", "optim.name must be one of adamw, adam, sgd, got 'adamW'. Did you mean 'adamw'?"),
        ("run.output_dir=", "run.output_dir must be the name of a directory, got ''"),
        ("optim.lr=0", "optim.lr must be a finite number above 0"),
        ("optim.lr=.nan", "optim.lr must be a finite number above 0, got .nan"),
        ("optim.weight_decay=-0.1", "optim.weight_decay must be a finite number of at least 0"),
        ("optim.betas=[0.9]", "optim.betas must be two numbers"),
        ("optim.batch_size=0", "optim.batch_size must be a whole number of at least 1"),
        ("schedule.name=step", "schedule.name must be one of cosine, poly, constant"),
        ("schedule.warmup_steps=1000", "below schedule.steps (1000), got 1000"),
        ("run.precision=fp8", "run.precision must be one of no, bf16, fp16"),
        ("run.select=first", "run.select must be one of best, last"),
        ("run.log_every=0", "run.log_every must be a whole number of at least 1"),
        ("run={resume: true, overwrite: true}", "run.resume and run.overwrite exclude each other"),
        ("data.shortest_edges=[448]", "data.shortest_edges resizes images before data.random_crop"),
        (
            "data={shortest_edges: [448], random_crop: true, scale_range: [0.5, 2]}",
            "set data.random_crop=true and leave data.scale_range at",
        ),
        ("data.shortest_edges=[0]", "data.shortest_edges must be lengths in pixels, each at least 1"),
        ("data.longest_edge=100", "data.longest_edge is 100 but data.shortest_edges is empty"),
        ("optim.query_lr_factor=-1", "optim.query_lr_factor"),
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
        ("- 1", ValueError, "must hold options such as `model:` and `data:`"),
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
    with pytest.raises(ValueError, match="first.yaml is its own base, by way of .*second.yaml"):
        load_config(first)


def test_a_circle_by_way_of_other_folders_is_seen_and_a_base_is_one_file(tmp_path):
    first, second = tmp_path / "a" / "first.yaml", tmp_path / "b" / "second.yaml"
    for path, base in ((first, "../b/second.yaml"), (second, "../a/first.yaml")):
        path.parent.mkdir()
        path.write_text(f"base: {base}\n")
    with pytest.raises(ValueError, match="is its own base"):
        load_config(first)
    first.write_text("base: [x.yaml, y.yaml]\n")
    with pytest.raises(ValueError, match="first.yaml, line 1: base must be the path or the name of one file, got"):
        load_config(first)


@pytest.fixture
def layers(tmp_path):
    """A file with a decoder, an encoder and a data set, and all their options."""
    path = tmp_path / "below.yaml"
    path.write_text(
        "model:\n  encoder: {model_type: depthseg_resnet, depth: 18}\n"
        "  head_type: monodepth2\n  head_config: {num_scales: 4}\n"
        "data:\n  name: synthetic\n  root: x\n"
        "  options: {size: [8, 8]}\n  train_options: {count: 3}\n  val_options: {count: 2}\n"
    )
    return path


def read_on_top(path, changes):
    """The same changes as overrides and as a file that is based on another; both must give the same options."""
    top = path.with_name("top.yaml")
    sections = {}
    for change in changes:
        name, _, value = change.partition("=")
        section, option = name.split(".")
        sections.setdefault(section, []).append(f"  {option}: {value}\n")
    lines = [f"{section}:\n{''.join(options)}" for section, options in sections.items()]
    top.write_text("base: below.yaml\n" + "".join(lines))
    by_overrides = load_config(path, changes)
    assert load_config(top) == by_overrides
    return by_overrides


def test_another_decoder_encoder_or_data_set_drops_the_options_of_the_one_below(layers):
    assert read_on_top(layers, ["model.head_type=native"]).model.head_config is None
    assert read_on_top(layers, ["model.head_type=native", "model.head_config={}"]).model.head_config == {}
    assert read_on_top(layers, ["model.head_config={a: 1}", "model.head_type=fcn"]).model.head_config == {"a": 1}
    assert read_on_top(layers, ["model.head_type=null"]).model.head_config is None
    data = read_on_top(layers, ["data.name=folder", "data.train_options={split_by: x}"]).data
    assert (data.options, data.train_options, data.val_options, data.root) == ({}, {"split_by": "x"}, {}, "x")
    encoder = ["model.encoder.model_type=depthseg_vit", "model.encoder.hidden_size=8"]
    assert load_config(layers, encoder).model.encoder == {"model_type": "depthseg_vit", "hidden_size": 8}
    assert load_config(layers, encoder[::-1]).model.encoder == {"model_type": "depthseg_vit", "hidden_size": 8}
    assert load_config("pretrain_synthetic_mono", ["pretext.pose_network=posecnn"]).pretext.pose_encoder is None


def test_options_of_the_same_decoder_encoder_or_data_set_stay(layers):
    same = ["model.head_type=monodepth2", "data.name=synthetic", "data.root=y", "model.head_init=random"]
    assert read_on_top(layers, same).model.head_config == {"num_scales": 4}
    config = load_config(layers, [*same, "model.encoder.model_type=depthseg_resnet", "data.options.count=3"])
    assert config.model.encoder == {"model_type": "depthseg_resnet", "depth": 18}
    assert config.data.options == {"size": [8, 8], "count": 3} and config.data.val_options == {"count": 2}
    # What counts is the outcome of a layer, not what an override said on the way.
    there_and_back = load_config(layers, ["model.head_type=native", "model.head_type=monodepth2"])
    assert there_and_back.model.head_config == {"num_scales": 4}


def test_a_map_takes_the_place_of_the_one_below_and_a_dotted_name_changes_one_entry(layers):
    assert read_on_top(layers, ["model.head_config={}"]).model.head_config == {}
    assert read_on_top(layers, ["data.options={count: 1}"]).data.options == {"count": 1}
    assert load_config(layers, ["data.options={}", "data.options.a.b=1"]).data.options == {"a": {"b": 1}}
    assert load_config(layers, ["data.options.a={b: 1, c: 2}", "data.options.a.b=3"]).data.options["a"] == {
        "b": 3,
        "c": 2,
    }
    # Sections are no maps of that kind: what is not named in them stays.
    assert load_config(layers, ["model={head_init: random}"]).model.head_config == {"num_scales": 4}


def test_sections_from_programs_follow_the_same_rule():
    below = {"model": {"pretrained": "x", "head_type": "monodepth2", "head_config": {"num_scales": 4}}}
    for top, left in (({"head_type": "segformer"}, None), ({"head_type": "monodepth2"}, {"num_scales": 4})):
        assert compose_config([("below", below), ("top", {"model": top})]).model.head_config == left
