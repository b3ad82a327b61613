"""Options: defaults, overrides, and a sentence for every mistake."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from depthseg.engine.config import changed_options, compose_config, load_config
from depthseg.engine.options import DataOptions, ModelOptions, RunConfig
from depthseg.reading import literal
from depthseg.reading.declared import declared, options_of

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


YAML_1_1 = (
    "no",
    "off",
    "on",
    "yes",
    "True",
    "1e-3",
    "1_000",
    "0016E5",
    "010",
    "0x10",
    "1:30",
    "2024-01-01",
    "=",
    "<<",
    "3",
)
"""What YAML 1.1 takes for something else than text."""


DECLARED = {
    f"{section}.{option}": hint
    for section, options in options_of(RunConfig).items()
    if section != "task"
    for option, hint in options_of(options).items()
}
ALLOWED = {name: declared(hint).allowed.words for name, hint in DECLARED.items() if declared(hint).allowed}


def options_of_type(*kinds, optional=(False, True)):
    """Names of all options of some kinds."""
    return [
        name for name, hint in DECLARED.items() if declared(hint).kind in kinds and declared(hint).optional in optional
    ]


def value_of(config, name):
    section, option = name.split(".")
    return getattr(getattr(config, section), option)


def read_both_ways(tmp_path, name, text):
    """An option as an override and in a file: the value, or the sentence without the place; both must be the same."""
    section, option = name.split(".")
    path = tmp_path / "run.yaml"
    path.write_text(f"{section}:\n  {option}: {text}\n")
    start = "model.pretrained=x" if name == "model.encoder" else ENCODER
    override = f"{name}={text}"
    found = []
    for place, file, overrides in ((f"override {override!r}", None, [override]), (f"{path}, line 2", path, [])):
        try:
            found.append(value_of(load_config(file, [start, *overrides]), name))
        except ValueError as error:
            found.append(str(error).removeprefix(f"{place}: "))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("name", options_of_type(str))
def test_text_is_read_as_it_was_typed(tmp_path, name):
    for text in YAML_1_1:
        read = read_both_ways(tmp_path, name, text)
        allowed = declared(DECLARED[name]).allowed
        if allowed and not allowed.holds(text):
            assert read.startswith(f"{name} must be {allowed.words}, got {text!r}.")
        else:
            assert read == text


@pytest.mark.parametrize("name", options_of_type(str, float, dict, optional=[True]))
def test_null_is_none_where_that_is_allowed(tmp_path, name):
    for text in ("null", "~", "", "Null"):
        assert read_both_ways(tmp_path, name, text) is None


@pytest.mark.parametrize("name", options_of_type(str, int, float, bool, list, optional=[False]))
def test_null_is_refused_elsewhere_in_words_of_ours(tmp_path, name):
    for text in ("null", "~"):
        read = read_both_ways(tmp_path, name, text)
        assert read.startswith(f"{name} must be ") and read.endswith(", got null.")
        assert ALLOWED.get(name, "") in read


NEEDED = {"pretext.derotate": "pretext.derotate removes the rotation between frames"}


@pytest.mark.parametrize("name", options_of_type(bool))
def test_true_and_false_have_several_words(tmp_path, name):
    for value, words in ((True, "true True yes on ON 1"), (False, "false FALSE no off Off 0")):
        for word in words.split():
            read = read_both_ways(tmp_path, name, word)
            # Some options need others when they are on; then it was read, and the rule says so.
            assert read is value or (value and read.startswith(NEEDED[name]))
    for text, got in (("maybe", "'maybe'"), ("2", "2"), ("[true]", "[true]"), ("0.0", "0.0"), ("n", "'n'")):
        assert read_both_ways(tmp_path, name, text) == (
            f"{name} must be true or false (yes or no, on or off, 1 or 0), got {got}."
        )


@pytest.mark.parametrize("name", options_of_type(int))
def test_whole_numbers(tmp_path, name):
    overrides = ["schedule.steps=5000"] if name == "schedule.warmup_steps" else []
    for text, value in (("010", 10), ("1_000", 1000), ("1e2", 100), ("20.0", 20), ("+7", 7), ('"8"', 8)):
        read = value_of(load_config(None, [ENCODER, *overrides, f"{name}={text}"]), name)
        assert (read, type(read)) == (value, int)
    for text, got in (
        ("1.5", "1.5"),
        ("1:30", "'1:30'"),
        ("yes", "'yes'"),
        ("true", "true"),
        (".inf", ".inf"),
        ("2024-01-01", "'2024-01-01'"),
        ("[3]", "[3]"),
        ("{a: 1}", "{a: 1}"),
        ('"null"', "'null'"),
    ):
        read = read_both_ways(tmp_path, name, text)
        assert read == f"{name} must be {ALLOWED.get(name, 'a whole number')}, got {got}."


@pytest.mark.parametrize("name", options_of_type(float))
def test_numbers(tmp_path, name):
    needs = {"model.depth_weight": ["model.keep_depth=true"]}.get(name, [])
    for text, value in (("1e-3", 1e-3), ("5E-1", 0.5), (".25", 0.25), ("00.5", 0.5), ("'0.5'", 0.5), ("5.0e-1", 0.5)):
        assert value_of(load_config(None, [ENCODER, *needs, f"{name}={text}"]), name) == value
    for text in ("1:30", "no", "0,5", "3 m"):
        read = read_both_ways(tmp_path, name, text)
        assert read.startswith(f"{name} must be {ALLOWED.get(name, 'a number')}") and read.endswith(f", got {text!r}.")


def test_lists_are_read_entry_by_entry(tmp_path):
    assert read_both_ways(tmp_path, "data.size", "[096, 3.2e2]") == [96, 320]
    assert read_both_ways(tmp_path, "optim.betas", "[9e-1, '0.999']") == [0.9, 0.999]
    assert read_both_ways(tmp_path, "pretext.source_frames", "[-1, +1]") == [-1, 1]
    refused = "data.size must be [height, width] in pixels, both at least 1, got [64, '1:30']."
    assert read_both_ways(tmp_path, "data.size", "[64, 1:30]") == refused


@pytest.mark.parametrize(
    "name", ["data.options", "data.train_options", "model.encoder", "model.head_config", "pretext.pose_encoder"]
)
def test_maps_follow_yaml_1_2(tmp_path, name):
    typed = {
        **{"no": "no", "off": "off", "true": True, "False": False, "null": None, "~": None, "": None, "Yes": "Yes"},
        **{"1e-3": 1e-3, "1.5": 1.5, "-3": -3, "0": 0, ".inf": float("inf"), "'1'": "1", '"null"': "null"},
        **{
            "0016E5": "0016E5",
            "010": "010",
            "1_000": "1_000",
            "1:30": "1:30",
            "2024-01-01": "2024-01-01",
            "0x10": "0x10",
        },
        **{
            "a=b": "a=b",
            "[0016E5, 0006R0, 1]": ["0016E5", "0006R0", 1],
            "{no: off, 01: 02}": {"no": "off", "01": "02"},
        },
    }
    for text, value in typed.items():
        read = read_both_ways(tmp_path, name, f"{{x: {text}}}")
        assert (read, type(read["x"])) == ({"x": value}, type(value))
    one = [ENCODER, f"{name}.x=no", f"{name}.y.z=1e-3", f"{name}.on=a=b=c"]
    read = value_of(load_config(None, one), name)
    assert {key: read[key] for key in ("x", "y", "on")} == {"x": "no", "y": {"z": 1e-3}, "on": "a=b=c"}


@pytest.mark.parametrize(
    "text",
    ["a: b", "runs/x #2", "@home", "*all", "%d", "[draft] clips", "{a}", "'90s clip", "a\tb", "- x", "`", "a=b"],
)
def test_text_on_the_command_line_needs_no_yaml(text):
    assert load_config(None, [ENCODER, f"data.root={text}"]).data.root == text
    assert load_config(None, [ENCODER, f'data.root="{text}"'.replace("\t", "\\t")]).data.root == text


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("optim:\n  lr: 1\n  name: sgd\n  lr: 2\n", ["line 4: 'lr' is there twice; line 2 has it already"]),
        ("data: {options: {a: 1, 'a': 2}}\n", ["line 1: 'a' is there twice"]),
        ("optim:\n\tlr: 1\n", ["line 2", "a tab"]),
        ("optim:\n  name: a: b\n", ["line 2", "quotes"]),
        ("task: x\noptim: {lr: !!timestamp 2024-01-01}\n", ["line 2", "no YAML tags"]),
        ("data:\n  options: &a {b: *a}\n", ["line 2", "an anchor that holds itself"]),
        ("data: {options: {[1]: 2}}\n", ["line 1: a map has a name that is no text"]),
        ("data: {options: {~: 2}}\n", ["line 1: a map has a name that is no text"]),
        ("task: \x00\n", ["line 1: a character that is not allowed"]),
        ("task: depth\n---\ntask: flow\n", ["line 2", "another document"]),
        (
            "optim:\n  lr: fast\nrun: {seed: 1.5, sead: 1}\n",
            ["line 2: optim.lr must", "line 3: run.seed must", "'run.sead'"],
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, content, parts):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(ValueError) as error:
        load_config(path)
    for part in (*parts, str(path)):
        assert part in str(error.value)


def test_a_wrong_value_is_told_even_if_an_override_hides_it(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optim: {lr: fast}\n")
    with pytest.raises(ValueError, match="run.yaml, line 1: optim.lr must be a finite number above 0, got 'fast'"):
        load_config(path, [ENCODER, "optim.lr=1"])


def test_merge_keys_and_anchors_still_work(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: {options: &o {a: 1, b: no}, train_options: {<<: *o, a: 2}, val_options: *o}\n")
    data = load_config(path, [ENCODER]).data
    assert (data.options, data.train_options, data.val_options) == (
        {"a": 1, "b": "no"},
        {"a": 2, "b": "no"},
        data.options,
    )


def awkward_texts():
    """Texts that a reader of YAML may take for something else, and random ones of such parts."""
    random = Random(0)
    parts = [
        *YAML_1_1,
        *"~-:#{}[],&*!|>'\"%@`\\\n\t .eE+0",
        "null",
        "${data.size}",
        "\\${",
        "${",
        "$",
        "é",
        "\u2028",
        "???",
        "\x85",
        "🙂",
    ]
    return [*parts, "", " a", "a ", "a: b", "- a", "\\"] + [
        "".join(random.choices(parts, k=random.randint(2, 6))) for _ in range(300)
    ]


def test_every_text_survives_saving(tmp_path):
    texts = awkward_texts()
    options = dict(zip(texts, reversed(texts), strict=True)) | {"list": texts, "map": {text: text for text in texts}}
    config = RunConfig(data=DataOptions(options=options), model=ModelOptions(encoder={}))
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    for text in texts[:60]:
        config = RunConfig(data=DataOptions(root=text), model=ModelOptions(encoder={"x": text}))
        config.save(tmp_path / "config.yaml")
        assert load_config(tmp_path / "config.yaml") == config
    plain = {"list": [text for text in texts if "${" not in text]}
    RunConfig(data=DataOptions(options=plain), model=ModelOptions(encoder={})).save(tmp_path / "config.yaml")
    # Others read it as well: YAML 1.1, and the reader of earlier versions.
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["data"]["options"] == plain
    assert OmegaConf.load(tmp_path / "config.yaml").data.options == plain


def test_what_earlier_versions_saved_reads_the_same(tmp_path):
    texts = [text for text in awkward_texts() if "${" not in text and text != "???"]
    numbers = [1e-5, 1e16, 0.1, 3, -2.5, float("inf"), True, False, None]
    config = RunConfig(data=DataOptions(root="0016E5", name="no", options={"x": texts, "y": numbers, "z": {}}))
    config.model.pretrained, config.optim.lr = "1e-3", 1e-5
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    read = load_config(tmp_path / "config.yaml")
    assert read == config
    assert list(map(type, read.data.options["y"])) == list(map(type, numbers))


def test_options_from_python_are_held_to_the_same_types():
    config = RunConfig(data=DataOptions(root=Path("x"), size=(64, np.int64(192)), hflip=1))
    config.model.encoder = {"model_type": "depthseg_resnet"}
    config.validate()
    config.data.subset_size = None
    config.optim.lr = "fast"
    with pytest.raises(
        ValueError, match=r"(?s)^data.subset_size must be .* got null.\noptim.lr must be .* got 'fast'.$"
    ):
        config.validate()
    given = compose_config([("mine", {"run": {"precision": "no", "seed": 3.0}, "model": {"pretrained": "null"}})])
    assert (given.run.precision, given.run.seed, given.model.pretrained) == ("no", 3, "null")


def test_options_of_a_run_are_taken_as_they_are_where_overrides_lie_on_top():
    config = RunConfig(data=DataOptions(root="${x}", options={"a": r"b\${c}"}), model=ModelOptions(encoder={}))
    again = compose_config([("the run", literal(config.to_dict()))], ["run.precision=no", "optim.lr=1e-3"])
    assert (again.data, again.run) == (config.data, config.run)
    assert again.optim.lr == 1e-3


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
