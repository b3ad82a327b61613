"""Studies with defects, run: what trials with switches leave, and the report of a whole study."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from study.tiny_study import TEXT, tiny_study

from depthseg.engine.config import load_config
from depthseg.engine.wrapping import wrapped_by
from depthseg.hub.record import read_run
from depthseg.metrics.reductions import matrix_scores
from depthseg.study.defects.runs import run_arguments
from depthseg.study.defects.switches import ROWS, SWITCHES, changed
from depthseg.study.matrix import main_trials, pretraining_trials
from depthseg.study.options import load_study
from depthseg.study.report import write_report
from depthseg.study.runner import keys_of, run_study, trials_in_order
from depthseg.study.stored import record_path

PACKAGE = Path(__file__).parents[2] / "depthseg"

EVERYTHING = (
    TEXT.replace("modes:\n", "modes:\n  full: {{}}\n")
    .replace(
        "  deeper: {{after: depth, pretrain: {{task: depth}}}}\n", "  paint: {{pretrain: {{task: inpainting}}}}\n"
    )
    .replace(
        "  depth: {{pretrain: {{task: depth}}}}",
        "  depth: {{pretrain: {{task: depth, data: {{crop_scale: [0.5, 1]}}}}}}",
    )
    + """
defects:
  accumulate_gradients: {{}}
  freeze_mode: {{}}
  label_resize: {{}}
  subset: {{}}
  test_set: {{}}
  normalisation: {{initialisations: [depth]}}
  hflip: {{}}
  lr_update: {{}}
  num_outputs: {{}}
  metric: {{settings: {{classes: [Road, Building, Sky, Car]}}}}
  reinit: {{initialisations: [depth]}}
  zoom_applies_to: {{}}
  crop_probability: {{}}
  recon_scale_weights: {{}}
  nyu_image: {{}}
  depth_loss: {{}}
"""
)
SMALL = ("benchmarks.world.num_labelled=[3]", "rates.grid=[]", "measures=[]", "seeds.finetune=1")


def test_the_table_has_every_switch_of_the_protocol_that_is_no_choice_of_options():
    assert {row.name for row in ROWS} == {
        *("accumulate_gradients", "freeze_mode", "label_resize", "subset", "test_set", "normalisation", "hflip"),
        *("lr_update", "num_outputs", "metric", "reinit", "zoom_applies_to", "crop_probability"),
        *("recon_scale_weights", "nyu_image", "depth_loss"),
    }


def test_models_engine_and_commands_know_no_switch():
    """They offer one general place to wrap a run, and `pretext.scale_weights`, which is an option of its own."""
    own = {"subset", "hflip", "metric", "normalisation", "depth_loss"}  # words of their own
    pattern = re.compile(rf"\b({'|'.join(SWITCHES.keys() - own)}|defects?\.(matrix|training|switches))\b")
    files = [
        path
        for part in ("models", "data", "pretext", "engine", "hub", "cli")
        for path in (PACKAGE / part).rglob("*.py")
    ]
    assert len(files) > 100
    assert [str(path) for path in files if pattern.search(path.read_text())] == []


@pytest.fixture
def trials(tmp_path):
    """Trials by kind, initialisation, mode and names of their switches."""
    study = tiny_study(tmp_path, *SMALL, text=EVERYTHING)
    return {
        (
            trial.kind,
            trial.labels["initialisation"],
            trial.labels.get("mode"),
            tuple(trial.labels.get("switches", ())),
        ): trial
        for trial in trials_in_order(study, tmp_path)
    }


def differing(a, b):
    """Options that differ, apart from where a run is and how it resumes."""
    pairs = {
        f"{section}.{name}": (value, b.to_dict()[section][name])
        for section, values in a.to_dict().items()
        if section != "task"
        for name, value in values.items()
    }
    return {
        name: then
        for name, (now, then) in pairs.items()
        if now != then and name not in ("run.resume", "run.overwrite")
    }


@pytest.mark.parametrize(
    ("place", "options"),
    [
        (("finetune", "none", "frozen", "freeze_mode"), {"model.freeze_encoder": False}),
        (("finetune", "none", "full", "hflip"), {"data.hflip": 0.0}),
        (("finetune", "depth", "full", "reinit"), {"model.head_init": "random"}),
        (("pretrain", "paint", None, "recon_scale_weights"), {"pretext.scale_weights": "reversed"}),
        (("pretrain", "depth", None, "nyu_image"), {"data.train_options": {"count": 4, "frames": [-1]}}),
        (("finetune", "none", "full", "accumulate_gradients"), {}),
        (("finetune", "depth", "full", "normalisation"), {}),
        (("pretrain", "depth", None, "zoom_applies_to"), {}),
    ],
)
def test_a_switch_changes_these_options_and_no_other(trials, place, options):
    kind, init, mode, switch = place
    base, trial = trials[kind, init, mode, ()], trials[kind, init, mode, (switch,)]
    assert differing(base.config, trial.config) == options
    assert base.key != trial.key and trial.labels["switches"].keys() == {switch}


def test_switches_apply_where_they_change_anything(trials):
    alone = {(init, mode, *names) for kind, init, mode, names in trials if kind == "finetune" and len(names) == 1}
    assert {place for place in alone if place[2] == "freeze_mode"} == {
        (init, "frozen", "freeze_mode") for init in ("none", "depth", "paint")
    }
    assert {place[0] for place in alone if place[2] in ("normalisation", "reinit", "depth_loss", "nyu_image")} == {
        "depth"
    }
    assert {place[0] for place in alone if place[2] == "recon_scale_weights"} == {"paint"}
    assert not any(place[2] in ("test_set", "metric") for place in alone)  # scored on the runs without


def test_a_trial_without_switches_is_run_as_ever(trials):
    assert run_arguments(trials["finetune", "none", "full", ()]) == {}
    assert run_arguments(trials["pretrain", "depth", None, ()]) == {}


def test_a_finetuning_after_a_faulty_pretraining_begins_with_its_weights(trials):
    before = trials["pretrain", "depth", None, ("zoom_applies_to",)]
    after = trials["finetune", "depth", "full", ("zoom_applies_to",)]
    assert after.parent == before.key
    assert run_arguments(after)["wrapping"].names == ("zoom_applies_to",)  # so that no weights of it are published


def test_an_interrupted_finetuning_with_switches_starts_again(trials):
    """A checkpoint holds no gradients."""
    run = trials["finetune", "none", "full", ("accumulate_gradients",)].config.run
    assert run.overwrite and not run.resume


def test_options_of_rows_are_those_of_a_run():
    config = load_config(None, ["model.encoder={model_type: depthseg_resnet, depth: 18}", "task=inpainting"])
    for row in ROWS:
        changed(config, {row.name: {"offset": -1}}).validate()


@pytest.mark.parametrize("name", ["defects", "defects_pretraining", "defects_camvid"])
def test_the_studies_of_the_package_measure_their_switches(name):
    study = load_study(name)
    pretraining = pretraining_trials(study)
    base = main_trials(study, keys_of(pretraining), {})
    trials = list(trials_in_order(study, Path("nowhere")))
    switched = [trial for trial in trials if trial.labels.get("switches")]
    assert trials[: len(trials) - len(switched)] and {trial.key for trial in base} <= {trial.key for trial in trials}
    measured = {switch for trial in switched for switch in trial.labels["switches"]}
    assert measured == set(study.defects)


def test_the_pretrainings_of_the_world_are_those_of_its_study():
    """So that their weights can be shared."""
    keys = [{trial.key for trial in pretraining_trials(load_study(name))} for name in ("defects", "world")]
    assert len(keys[0]) == 6 and keys[0] <= keys[1]


def test_a_few_switches_are_run_and_leave_no_weights(tmp_path):
    study = tiny_study(
        tmp_path,
        *SMALL,
        *("initialisations.paint=null", "initialisations.depth=null", "modes.full=null"),
        text=EVERYTHING.replace("  hflip: {{}}\n", "").replace("[depth]", "[none]"),
    )
    keep = ("accumulate_gradients", "num_outputs", "metric", "normalisation")
    study.defects = {name: options for name, options in study.defects.items() if name in keep}
    out = tmp_path / "out"
    run_study(study, out)
    records = [json.loads(path.read_text()) for path in sorted((out / "trials").glob("*.json"))]
    assert {tuple(record.get("switches", ())) for record in records} == {
        *((), ("accumulate_gradients",), ("num_outputs",), ("normalisation",)),
        ("accumulate_gradients", "normalisation", "num_outputs", "metric"),
    }
    assert not list((out / "runs").glob("*/model"))
    check_records(out, records)
    write_report(out)
    page = (out / "report" / "price_of_defects.md").read_text()
    assert "not run yet" not in page and "4 of 4 cells" not in page and "5 of 5 cells are complete." in page


def check_records(out, records):
    """Each is of one kind, and a saved model scores as its run did, switches in place."""
    for record in records:
        if record["kind"] != "finetune":
            continue
        with np.load(record_path(out, record["key"]).with_suffix(".npz")) as file:
            confusion = file["confusion"]
        again = matrix_scores(confusion, record["classes"])["mean_iou"]
        assert again == pytest.approx(record["scores"]["mean_iou"], abs=1e-6), record.get("switches")
        assert len(record["classes"]) == (34 if "num_outputs" in record.get("switches", {}) else 11)
        for scores in record["reported"].values():
            assert 0 <= scores["mean_iou"] <= 1


@pytest.mark.heavy
def test_all_switches_end_to_end(tmp_path):
    # Frozen as well as full where it matters.
    cells = "cells=[{modes: [full]}, {modes: [frozen], initialisations: [depth]}]"
    study, out = tiny_study(tmp_path, *SMALL, cells, text=EVERYTHING), tmp_path / "out"
    run_study(study, out)
    records = [json.loads(path.read_text()) for path in sorted((out / "trials").glob("*.json"))]
    check_records(out, records)
    keys = [trial.key for trial in trials_in_order(study, out)]
    assert {record["key"] for record in records} == set(keys)
    write_report(out)
    page = (out / "report" / "price_of_defects.md").read_text()
    numbers = json.loads((out / "report" / "price_of_defects.json").read_text())
    assert "not run yet" not in page and "does not apply" in page
    cells = [cell for setting in numbers["settings"] for row in setting["rows"] for cell in row["cells"].values()]
    assert sum(cell["applies"] for cell in cells) == sum(cell.get("runs", 0) for cell in cells) > 45
    # Weights of pre-trainings are kept for what follows; those with faults can be told.
    marked = {path.name: wrapped_by(path) for path in (out / "runs").iterdir()}
    assert sum(map(bool, marked.values())) == 6 and sum(not names for names in marked.values()) == 2
    faulty = next(name for name, names in marked.items() if names)
    with pytest.raises(ValueError, match="known faults"):
        read_run(out / "runs" / faulty)
    run_study(study, out)  # nothing is left


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["defects", "defects_pretraining"])
def test_the_studies_of_the_world_at_smoke_scale(tmp_path, name):
    world = [f"{part}.data.root={tmp_path / 'world'}" for part in ("pretrain", "finetune")]
    study = load_study(name, "smoke", [*world, "seeds.draws=1", "seeds.finetune=1"])
    run_study(study, tmp_path / "out")
    write_report(tmp_path / "out")
    assert "not run yet" not in (tmp_path / "out" / "report" / "price_of_defects.md").read_text()
