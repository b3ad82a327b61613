"""A study does not rank scores that were computed in different ways."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from study.made_up_study import write_study

from depthseg.metrics import Stamp
from depthseg.study.results import load_results
from depthseg.study.runner import chosen_rates
from depthseg.study.stored import record_path

OWN, SMALL = Stamp("0" * 12), Stamp("0" * 12, resolution="192x640")


def stamp_records(out, of):
    """Give the records of fine-tunings a stamp, by a rule; return the keys of those at the grid of rates."""
    rates = []
    for path in sorted((out / "trials").glob("*.json")):
        record = json.loads(path.read_text())
        if record["kind"] == "finetune":
            stamp = of(record)
            record["scores"] |= {} if stamp is None else {"stamp": stamp.to_dict()}
            path.write_text(json.dumps(record))
            rates += [record] if record["role"] == "rate" else []
    return rates


def trials_of(records):
    return [SimpleNamespace(key=record["key"], labels=record) for record in records]


def test_equal_stamps_and_records_without_are_ranked(tmp_path):
    write_study(tmp_path)
    rates = stamp_records(tmp_path, lambda record: None if record["mode"] == "frozen" else OWN)
    assert load_results(tmp_path).records and chosen_rates(trials_of(rates), tmp_path)
    assert all(record_path(tmp_path, record["key"]).is_file() for record in rates)


def test_different_stamps_are_not_ranked(tmp_path):
    write_study(tmp_path)
    rates = stamp_records(tmp_path, lambda record: SMALL if record["initialisation"] == "none" else OWN)
    sentence = r"cannot be compared, because their stamps differ in resolution \(.*192x640.*Evaluate both with one"
    with pytest.raises(ValueError, match=sentence):
        load_results(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        chosen_rates(trials_of(rates), tmp_path)


def test_benchmarks_may_differ_from_the_selection_of_rates(tmp_path):
    write_study(tmp_path)
    stamp_records(tmp_path, lambda record: SMALL if record["role"] == "rate" else OWN)
    assert load_results(tmp_path).records
