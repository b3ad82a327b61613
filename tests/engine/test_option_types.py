"""Every option is read as its declared type, from files, overrides and programs, whatever YAML makes of its text."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from depthseg.engine.config import compose_config, load_config
from depthseg.engine.options import DataOptions, ModelOptions, RunConfig
from depthseg.reading import literal
from depthseg.reading.declared import declared, options_of

ENCODER = "model.encoder={model_type: depthseg_resnet, depth: 18}"


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


NEEDED = {
    "data.cache_features": "data.cache_features keeps the features of an encoder that does not change",
    "pretext.derotate": "pretext.derotate removes the rotation between frames",
    "run.pure_bf16": "run.pure_bf16 goes with run.precision=bf16",
}


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
    others = {
        "schedule.warmup_steps": ["schedule.steps=5000"],
        "data.longest_edge": ["data.random_crop=true", "data.shortest_edges=[100]"],
    }
    overrides = others.get(name, [])
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
