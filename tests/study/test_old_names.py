"""Study files, records and directories of earlier versions."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from study.made_up_study import write_study
from study.tiny_study import TEXT, tiny_study

from depthseg.cli import main
from depthseg.study.options import load_study
from depthseg.study.plan import plan_study
from depthseg.study.runner import run_study, trials_in_order
from depthseg.study.stored import read_records, record_path

REKEY = Path(__file__).parents[2] / "training" / "rekey_study.py"
OLD_TEXT = (
    TEXT.replace("initialisations:", "arms:")
    .replace("reference:", "reference_arm:")
    .replace("num_labelled: 2,", "budget: 2,")
    .replace("num_labelled: [", "budgets: [")
)
OLD_FIELDS = {"initialisation": "arm", "num_labelled": "budget"}


def make_old(out, keys=lambda key: key):
    """Give a directory the form in which version 0.1 wrote it, under other keys if wanted."""
    study = yaml.safe_load((out / "study.yaml").read_text())
    study["arms"], study["reference_arm"] = study.pop("initialisations"), study.pop("reference")
    study["rates"]["budget"] = study["rates"].pop("num_labelled")
    for benchmark in study["benchmarks"].values():
        benchmark["budgets"] = benchmark.pop("num_labelled")
    (out / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    folder = (out / "trials").rename(out / "cells")
    for path in [*folder.glob("*.json"), *folder.glob("*.npz")]:
        if path.suffix == ".json":
            record = {OLD_FIELDS.get(name, name): value for name, value in json.loads(path.read_text()).items()}
            record |= {name: record[name] and keys(record[name]) for name in ("key", "parent_key")}
            if record["kind"] == "finetune":
                record["pretrain_key"] = record.pop("parent_key")
            path.write_text(json.dumps(record))
        path.rename(path.with_stem(keys(path.stem)))


def test_a_file_with_old_names_is_the_same_study_with_a_warning_for_each(tmp_path, caplog):
    assert OLD_TEXT.count("budget") == 3 and "num_labelled" not in OLD_TEXT
    study = tiny_study(tmp_path, scale="smaller")
    assert caplog.messages == []
    assert tiny_study(tmp_path, scale="smaller", text=OLD_TEXT) == study
    pairs = [("initialisations", "arms"), ("reference", "reference_arm")]
    pairs += [("num_labelled", "budget"), ("num_labelled", "budgets")]
    sentences = [f"{old} is called {new} now; the old name goes with the next version." for new, old in pairs]
    assert sorted(message.partition(": ")[2] for message in caplog.messages) == sorted(sentences)
    assert all("tiny.yaml, line " in message for message in caplog.messages)


def test_old_and_new_names_may_meet_in_layers_and_on_the_command_line(tmp_path, caplog):
    tiny_study(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: tiny.yaml\nname: mine\narms: {deeper: null}\nrates: {budget: 3}\n")
    overrides = ["arms.depth.title=depth: mine", "benchmarks.world.budgets=[1]", "scales.smaller.rates.budget=7"]
    study = load_study(str(tmp_path / "mine.yaml"), overrides=overrides)
    assert list(study.initialisations) == ["none", "depth"] and study.initialisations["depth"].title == "depth: mine"
    assert (study.rates.num_labelled, study.benchmarks["world"].num_labelled) == (3, [1])
    assert study.scales["smaller"]["rates"] == {"grid": [], "num_labelled": 7}
    told = len(caplog.messages)
    assert told == 5  # arms and budget of the file, and of the overrides
    # Names of initialisations and options of a run are not options of a study.
    study = load_study("world", overrides=["initialisations.arms={checkpoint: mine}", "modes.budget={}"])
    assert "arms" in study.initialisations and "budget" in study.modes and len(caplog.messages) == told


def test_mistakes_under_old_names_are_found_at_their_line(tmp_path):
    with pytest.raises(ValueError, match=r"tiny.yaml, line 16: benchmarks.world.num_labelled must be a list of"):
        tiny_study(tmp_path, text=OLD_TEXT.replace("budgets: [2, 3]", "budgets: few"))
    with pytest.raises(ValueError, match="arms is called initialisations now, and both are given"):
        tiny_study(tmp_path, text=OLD_TEXT + "initialisations: {{}}\n")


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})


@pytest.mark.usefixtures("without_figures")
def test_the_report_of_an_old_directory_is_that_of_a_new_one(tmp_path, caplog):
    found = []
    for form in ("new", "old"):
        out = write_study(tmp_path / form)
        if form == "old":
            make_old(out)
        with pytest.raises(SystemExit) as end:
            main(["study", "world", "--report", "--output-dir", str(out)])
        assert end.value.code is None
        report = (out / "report" / "report.md").read_text()
        found.append((json.loads((out / "report" / "results.json").read_text()), report))
    (new, report), (old, old_report) = found
    assert old == new | {"folder": "cells"} and len(new["main"]) > 10
    assert old_report == report.replace("../trials/", "../cells/") != report
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == []
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["cells", "report", "study.yaml"]


def test_an_old_directory_is_not_added_to(tmp_path):
    out = write_study(tmp_path)
    make_old(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for use in (run_study, plan_study):
        with pytest.raises(ValueError, match=rf"records of an earlier version.*rekey_study.py {out}"):
            use(load_study("world"), out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def write_records(study, out):
    """A finished study whose records are made up, with the weights of its pre-trainings."""
    for trial in trials_in_order(study, out):
        content = {"kind": trial.kind, "key": trial.key, **trial.labels, "parent_key": trial.parent}
        content["config"] = trial.config.to_dict()
        record_path(out, trial.key).parent.mkdir(parents=True, exist_ok=True)
        content |= {"scores": {"mean_iou": 0.5}, "curve": [], "seconds": 0.1 + 0.2}
        record_path(out, trial.key).write_text(json.dumps(content))
        if trial.kind == "pretrain":
            (out / "runs" / trial.key / "model").mkdir(parents=True)
        else:
            record_path(out, trial.key).with_suffix(".npz").write_bytes(trial.key.encode())
    keys = [trial.key for trial in trials_in_order(study, out)]
    (out / "plan.json").write_text(json.dumps({"keys": keys}))
    (out / "study.yaml").write_text(yaml.safe_dump(study.to_dict(), sort_keys=False))
    return keys


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_migrated_directory_has_nothing_left_to_run(tmp_path, monkeypatch, interrupted):
    study, out = tiny_study(tmp_path), tmp_path / "out"
    keys = write_records(study, out)
    contents = {key: json.loads(record_path(out, key).read_text()) for key in keys}
    made = {path.relative_to(out) for path in out.rglob("*")}
    make_old(out, lambda key: key[::-1])
    plan = {"keys": [key[::-1] for key in keys]}
    (out / "plan.json").write_text(json.dumps(plan))
    for path in (out / "runs").iterdir():
        path.rename(path.with_name(path.name[::-1]))
    monkeypatch.setattr(sys, "argv", [str(REKEY), str(out)])
    if interrupted:
        with monkeypatch.context() as patch:
            patch.setattr("depthseg.reading.write_yaml", lambda *_: sys.exit("killed"))
            with pytest.raises(SystemExit, match="killed"):
                runpy.run_path(str(REKEY), run_name="__main__")
        assert len(read_records(out / "cells")) == len(keys) and not (out / "trials").exists()
    for _ in range(2):  # a second time changes nothing
        runpy.run_path(str(REKEY), run_name="__main__")
        assert {path.relative_to(out) for path in out.rglob("*")} == made
        for key, content in contents.items():
            assert json.loads(record_path(out, key).read_text()) == content
            array = record_path(out, key).with_suffix(".npz")
            assert content["kind"] == "pretrain" or array.read_bytes() == key.encode()
        assert json.loads((out / "plan.json").read_text())["keys"] == keys
        assert load_study(str(out / "study.yaml")) == study
        assert all(row.trials == row.done for row in plan_study(study, out))
