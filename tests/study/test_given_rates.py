"""Learning rates that a study gives for parts of its matrix."""

from __future__ import annotations

from pathlib import Path

import pytest
from study.tiny_study import tiny_study

from depthseg.study.results import StudyResults
from depthseg.study.runner import trials_in_order
from depthseg.study.stored import TrialRecord

FULL = "modes.full={}"
GIVEN = "rates.given=[{rate: 0.2, initialisations: [depth], modes: [frozen]}, {rate: 0.1, initialisations: [depth]}]"
NONE_LEFT = "rates.given=[{rate: 0.2, initialisations: [depth]}, {rate: 0.1, modes: [frozen]}]"


def tuned(study):
    trials = [trial for trial in trials_in_order(study, Path("nowhere")) if trial.kind == "finetune"]
    for trial in trials:
        assert trial.config.optim.lr == trial.labels["lr"]
    return trials


def rates_of(trials, role, init):
    return {
        (trial.labels["mode"], trial.labels["lr"])
        for trial in trials
        if (trial.labels["role"], trial.labels["initialisation"]) == (role, init)
    }


def test_a_given_rate_takes_the_place_of_the_chosen_and_of_the_fixed_one(tmp_path):
    plain, given = (tuned(tiny_study(tmp_path, FULL, *more)) for more in ([], [GIVEN]))
    assert rates_of(given, "main", "depth") == {("frozen", 0.2), ("full", 0.1)}
    assert not rates_of(given, "rate", "depth") and not rates_of(given, "fixed", "depth")
    for role in ("rate", "main", "fixed"):
        assert rates_of(given, role, "none") == rates_of(plain, role, "none")
    # Where nothing is given, a trial is the one that it was.
    others = [{trial.key for trial in found if trial.labels["initialisation"] != "depth"} for found in (plain, given)]
    assert others[0] == others[1]


def test_nothing_is_missing_at_the_fixed_rate_where_one_is_given(tmp_path):
    study, records = tiny_study(tmp_path, GIVEN), []
    for trial in tuned(study):
        content = {"kind": trial.kind, "key": trial.key, **trial.labels, "config": trial.config.to_dict()}
        records.append(TrialRecord(tmp_path / f"{trial.key}.json", content | {"scores": {}, "curve": []}))
    results = StudyResults(tmp_path, study.to_dict(), records)
    (first, *_) = results.settings
    assert results.given_rate("depth", first) == 0.2 and results.given_rate("none", first) is None
    assert not any(results.missing(init, first, role) for init in ("none", "depth") for role in ("main", "fixed"))
    old = study.to_dict()
    del old["rates"]["given"]  # as an earlier version wrote it
    assert StudyResults(tmp_path, old, records).missing("depth", first, "fixed")


def test_without_a_fixed_rate_and_a_grid_every_part_needs_a_given_one(tmp_path):
    bare = [FULL, "rates.fixed=null", "rates.grid=[]"]
    with pytest.raises(ValueError, match="gives none for none, eighth, full;"):
        tiny_study(tmp_path, *bare, NONE_LEFT)
    study = tiny_study(tmp_path, *bare, NONE_LEFT, "cells=[{initialisations: [depth]}, {modes: [frozen]}]")
    assert {(trial.labels["initialisation"], trial.labels["lr"]) for trial in tuned(study)} == {
        *{("depth", 0.2), ("none", 0.1), ("deeper", 0.1)},
    }


def test_given_rates_of_what_is_null_go_and_those_of_what_is_unknown_are_refused(tmp_path):
    study = tiny_study(tmp_path, GIVEN, "initialisations.deeper.after=null", "initialisations.depth=null")
    assert study.rates.given == []
    with pytest.raises(ValueError, match="rates.given refers to 'dept', which is none of initialisations"):
        tiny_study(tmp_path, "rates.given=[{rate: 0.1, initialisations: [dept]}]")
    with pytest.raises(ValueError, match=r"rates.given\[0\].rate is null; give a learning rate"):
        tiny_study(tmp_path, "rates.given=[{initialisations: [depth]}]")
