"""Studies that run only parts of their matrix, and initialisations that share weights."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from study.tiny_study import TEXT, tiny_study

from depthseg.study import power
from depthseg.study.matrix import main_trials, pretraining_trials, rate_trials, shard_of
from depthseg.study.places import places_of
from depthseg.study.report.details import origins
from depthseg.study.report.effort import spent
from depthseg.study.report.numbers import primary_comparisons, study_numbers
from depthseg.study.results import Setting, StudyResults
from depthseg.study.runner import keys_of, trials_in_order
from depthseg.study.stored import TrialRecord

MORE = (
    TEXT.replace("modes:\n", "modes:\n  full: {{}}\n").replace(
        "architectures:\n", "architectures:\n  other: {{model: {{encoder: {{model_type: depthseg_mobilenet_v2}}}}}}\n"
    )
    + """
cells:
  - {{initialisations: [none, deeper], architectures: [eighth], modes: [full, frozen], num_labelled: [2]}}
  - {{initialisations: [none], architectures: [eighth], modes: [full]}}
  - {{initialisations: [none], architectures: [other], modes: [full], num_labelled: [3]}}
"""
)
PART = "initialisations.part={after: deeper, finetune: {model: {head_init: random}}}"
GIVEN = ["initialisations.given={checkpoint: me/weights, revision: v1}"]


def trials_of(study):
    return list(trials_in_order(study, Path("nowhere")))


def test_cells_are_run_and_nothing_else(tmp_path):
    trials = trials_of(tiny_study(tmp_path, text=MORE))
    names = ("initialisation", "architecture", "mode", "num_labelled")
    tuned = [trial.labels for trial in trials if trial.kind == "finetune"]
    # Two seeds each; by hand from the three cells, of which two overlap.
    assert Counter(tuple(labels[name] for name in names) for labels in tuned if labels["role"] == "main") == {
        ("none", "eighth", "full", 2): 2,
        ("none", "eighth", "frozen", 2): 2,
        ("deeper", "eighth", "full", 2): 2,
        ("deeper", "eighth", "frozen", 2): 2,
        ("none", "eighth", "full", 3): 2,
        ("none", "other", "full", 3): 2,
    }
    # Two rates for each initialisation, architecture and mode that is run.
    assert Counter(tuple(labels[name] for name in names[:3]) for labels in tuned if labels["role"] == "rate") == {
        ("none", "eighth", "full"): 2,
        ("none", "eighth", "frozen"): 2,
        ("deeper", "eighth", "full"): 2,
        ("deeper", "eighth", "frozen"): 2,
        ("none", "other", "full"): 2,
    }
    # `depth` is in no cell, but `deeper` comes after it; neither is run with the other architecture.
    pretrained = [trial.labels for trial in trials if trial.kind == "pretrain"]
    assert [(labels["initialisation"], labels["architecture"]) for labels in pretrained] == [
        ("depth", "eighth"),
        ("deeper", "eighth"),
    ]


def test_cells_change_no_key(tmp_path):
    keys = {trial.key for trial in trials_of(tiny_study(tmp_path))}
    cells = "cells=[{initialisations: [none, depth], num_labelled: [2]}]"
    some = trials_of(tiny_study(tmp_path, cells))
    assert {trial.key for trial in some} < keys and len(some) == 1 + 2 * 2 + 2 * 2


def test_shards_have_every_trial_of_the_cells_once_and_wait_for_no_other(tmp_path):
    study = tiny_study(tmp_path, text=MORE)
    shards = [shard_of(study, index, 2) for index in (1, 2)]
    assert not shards[0] & shards[1]
    assert shards[0] | shards[1] == {
        *{("eighth", "none"), ("eighth", "depth"), ("eighth", "deeper"), ("other", "none")},
    }
    assert any({("eighth", "depth"), ("eighth", "deeper")} <= shard for shard in shards)


def test_what_no_cell_has_is_not_missing(tmp_path):
    study = tiny_study(tmp_path, text=MORE).to_dict()
    results = StudyResults(tmp_path, study, [])
    planned = {
        (init, setting.architecture, setting.mode, setting.num_labelled)
        for setting in results.settings
        for init in study["initialisations"]
        if results.missing(init, setting)
    }
    places = [("deeper", "eighth", mode, 2) for mode in ("full", "frozen")]
    places += [("none", "eighth", mode, 2) for mode in ("full", "frozen")]
    assert planned == {*places, ("none", "eighth", "full", 3), ("none", "other", "full", 3)}
    del study["cells"]  # as an earlier version wrote it
    assert results.missing("depth", Setting("other", "frozen", "world", 3)) == [(0, 0), (0, 1)]


def test_what_is_null_leaves_the_cells(tmp_path):
    gone = ["initialisations.deeper=null", "architectures.other=null", "comparisons=[[deeper, none]]"]
    study = tiny_study(tmp_path, *gone, text=MORE)
    assert study.comparisons == []
    assert [cell.initialisations for cell in study.cells] == [["none"], ["none"]]
    assert [cell.architectures for cell in study.cells] == [["eighth"], ["eighth"]]
    with pytest.raises(ValueError, match="cells names only entries that are null"):
        tiny_study(tmp_path, "initialisations.deeper=null", "cells=[{initialisations: [deeper]}]")


def test_weights_that_are_given_begin_a_pretraining(tmp_path):
    study = tiny_study(tmp_path, *GIVEN, "initialisations.depth.after=given")
    trials = trials_of(study)
    found = {trial.labels["initialisation"]: trial for trial in trials if trial.kind == "pretrain"}
    first, second = found["depth"], found["deeper"]
    assert (first.config.model.pretrained, first.config.model.revision, first.parent) == ("me/weights", "v1", None)
    assert (second.config.model.pretrained, second.parent) == (None, first.key)
    # Every one of them is fine-tuned from its own weights.
    parents = {trial.labels["initialisation"]: trial.parent for trial in trials if trial.kind == "finetune"}
    assert parents == {"none": None, "given": None, "depth": first.key, "deeper": second.key}


def test_initialisations_may_share_a_pretraining_and_transfer_other_parts_of_it(tmp_path):
    study = tiny_study(tmp_path, *GIVEN, PART, "initialisations.same={after: given}")
    trials = trials_of(study)
    pretrained = {trial.labels["initialisation"]: trial.key for trial in trials if trial.kind == "pretrain"}
    assert set(pretrained) == {"depth", "deeper"}
    tuned = {trial.labels["initialisation"]: trial for trial in trials if trial.labels.get("role") == "main"}
    assert tuned["part"].parent == tuned["deeper"].parent == pretrained["deeper"]
    assert tuned["part"].key != tuned["deeper"].key
    assert [tuned[name].config.model.head_init for name in ("part", "deeper")] == ["random", "pretrained"]
    assert (tuned["same"].parent, tuned["same"].config.model.pretrained) == (None, "me/weights")
    results = StudyResults(tmp_path, study.to_dict(), [])
    origins = {name: results.origin(name) for name in study.initialisations}
    assert origins == {
        **{"none": "none", "depth": "seeds", "deeper": "seeds", "given": "checkpoint"},
        **{"part": "seeds", "same": "checkpoint"},
    }
    assert {("eighth", "depth"), ("eighth", "deeper"), ("eighth", "part")} <= shard_of(study, 1, 3)


def test_claims_count_where_both_initialisations_are_run(tmp_path):
    study = tiny_study(tmp_path, "claims=[{better: deeper, than: none, primary: true}]", text=MORE)
    # by hand from the cells: with 2 labels and the first network
    expected = [("eighth", "full", "world", 2), ("eighth", "frozen", "world", 2)]
    assert [tuple(place.values()) for place in places_of(vars(study.claims[0]), study)] == expected
    found = primary_comparisons(StudyResults(tmp_path, study.to_dict(), []))
    assert found == {(Setting(*place), frozenset(("deeper", "none"))) for place in expected}


def test_power_is_that_of_the_initialisations_that_are_run_together(tmp_path, monkeypatch):
    """An encoder alone has the spread of the pre-trainings that it is from."""
    designs = []
    monkeypatch.setattr(power, "smallest_difference", lambda design, *rest: designs.append(design) or 1.0)
    cells = "cells=[{num_labelled: [2]}, {initialisations: [none, part], num_labelled: [3]}]"
    claim = "claims=[{better: part, than: none, primary: true}]"
    study = tiny_study(tmp_path, PART, cells, claim, "seeds={pretrain: 3, draws: 9}", "pilot.sd_draws=1")
    power.power_text(study, {"world": 10})
    assert [(design.pretrained, design.pooled) for design in designs[::2]] == [(1, (4, 3)), (1, None)]


def test_an_initialisation_costs_every_pretraining_that_its_weights_are_from(tmp_path):
    study, records = tiny_study(tmp_path, PART), []
    for trial in trials_of(study):
        init = trial.labels["initialisation"]
        seconds = {"depth": 100.0, "deeper": 40.0}[init] if trial.kind == "pretrain" else 5.0
        content = {"kind": trial.kind, "key": trial.key, **trial.labels, "config": trial.config.to_dict()}
        records.append(TrialRecord(tmp_path / f"{trial.key}.json", content | {"scores": {}, "seconds": seconds}))
    results = StudyResults(tmp_path, study.to_dict(), records)
    row = spent(results, "part", "eighth", "frozen")
    assert (row["pretraining"], row["before"], row["finetuning"], row["total"]) == (40, 100, 5, 145)
    rows = {row["initialisation"]: row for row in origins(results)}
    assert (rows["part"]["task"], rows["part"]["decoder"], rows["deeper"]["decoder"]) == ("depth", False, True)


def test_only_pretrainings_of_its_own_are_missing(tmp_path):
    cells = "cells=[{initialisations: [none, part]}]"
    study = tiny_study(tmp_path, PART, "initialisations.alone={pretrain: {task: flow}}", cells, "comparisons=[]")
    numbers = study_numbers(StudyResults(tmp_path, study.to_dict(), []))
    missing = [row["initialisation"] for row in numbers["missing"] if row["role"] == "pretraining"]
    assert missing == ["depth", "deeper"]


def test_without_a_fixed_rate_initialisations_are_compared_at_the_chosen_ones_alone(tmp_path):
    study = tiny_study(tmp_path, "rates.fixed=null")
    pretrained = keys_of(pretraining_trials(study))
    assert len(rate_trials(study, pretrained)) == 6
    rates = {("eighth", init, "frozen"): 0.003 for init in ("none", "depth")}
    found = {
        (t.labels["initialisation"], t.labels["role"], t.labels["lr"]) for t in main_trials(study, pretrained, rates)
    }
    assert found == {("none", "main", 0.003), ("depth", "main", 0.003), ("deeper", "main", 0.001)}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["cells=[{modes: [full]}]"], "cells refers to 'full', which is none of modes; they are frozen"),
        (
            ["cells=[{num_labelled: [4]}]"],
            r"cells refers to num_labelled 4, which no benchmark has; they have \[2, 3\]",
        ),
        (["cells=[{mode: [frozen]}]"], "Did you mean"),
        (
            ["cells=[{initialisations: [none]}, {initialisations: [depth]}]", "comparisons=[[depth, deeper]]"],
            "comparisons compares 'depth' with 'deeper', but no setting is run with both",
        ),
        (
            [
                "cells=[{num_labelled: [2], initialisations: [none]}, {num_labelled: [3], initialisations: [depth]}]",
                "claims=[{better: depth, than: none, mode: frozen}]",
            ],
            "claims compares 'depth' with 'none', but no setting of mode 'frozen' is run with both",
        ),
        ([*GIVEN, "initialisations.given.after=depth"], "given has both checkpoint and after"),
        (["initialisations.depth.after=deeper"], "initialisations.depth comes after itself, by way of deeper"),
        (["initialisations.depth.after=depth"], "initialisations.depth comes after itself"),
        (["rates.fixed=null", "rates.grid=[]"], "rates has neither a fixed rate nor a grid"),
        (["initialisations.none.finetune.model.head=1"], "'initialisations.none.finetune.model.head'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, overrides, words):
    with pytest.raises(ValueError, match=words):
        tiny_study(tmp_path, *overrides)
