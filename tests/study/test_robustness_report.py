"""Losses under corruption and their intervals, of made-up counts that can be computed by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import optimize, stats
from study.made_up_study import BLOCKS, confusion, iou, write_finetuning, write_study, wrong_pixels

from depthseg.study.report.markdown import to_markdown
from depthseg.study.report.numbers import study_numbers
from depthseg.study.report.robustness import robustness
from depthseg.study.results import Setting, load_results

NESTED = [(outer, inner) for outer in (0, 1) for inner in range(3)]
DRAWS = [(draw % 2, draw) for draw in range(6)]
EXTRA = {"none": 8, "hub": 4, "depth": 6}


def lost(init, run, image, strength):
    """Pixels that noise takes on top of those that are lost on clear images."""
    return EXTRA[init] * strength + run[1] * (1 + image % 2) + run[0]


def matrices(init, run, strength):
    found = confusion(init, 8, run)
    for image, matrix in enumerate(found):
        matrix[0] += np.array([-1, 1]) * (lost(init, run, image, strength) if strength else 0)
    return found


@pytest.fixture(scope="module", params=[NESTED, DRAWS], ids=["nested", "draws"])
def study(request, tmp_path_factory):
    """Directory and runs of a study whose seeds are nested, and of one with draws of the labelled images."""
    out, runs = tmp_path_factory.mktemp("robust"), request.param
    seeds = {"pretrain": 2, "finetune": 3} | ({"draws": 6} if runs == DRAWS else {})
    write_study(out, seeds=seeds)
    names = np.array([f"test{image}" for image in range(4)])
    for init in EXTRA:
        for run in runs:
            path = out / "trials" / f"{write_finetuning(out, init, 'full', 8, run)}.json"
            record, arrays = json.loads(path.read_text()), dict(np.load(path.with_suffix(".npz")))
            conditions = {"clean": 0, "noise 1": 1, "noise 3": 3, "fog 1": 2}
            record["measures"]["robustness"] = dict.fromkeys([*conditions, "drive"], 0.5)
            for condition, strength in conditions.items():
                arrays |= {f"robustness/{condition}": matrices(init, run, strength)}
                arrays |= {f"robustness/{condition}/names": names}
            film = {"robustness/drive": matrices(init, run, 1)[:2], "robustness/drive/names": np.array(["d_0", "e_0"])}
            path.write_text(json.dumps(record))
            np.savez(path.with_suffix(".npz"), **arrays, **film)
    return out, runs


def score(init, run, strength, images=range(4)):
    wrong = [
        wrong_pixels(init, 8, run, image) + (lost(init, run, image, strength) if strength else 0) for image in images
    ]
    return iou(np.mean(wrong))


def loss(init, run, kind, images=range(4)):
    strengths = {"noise": (1, 3), "fog": (2,), "all corruptions": (1, 3, 2)}[kind]
    return score(init, run, 0, images) - np.mean([score(init, run, strength, images) for strength in strengths])


def test_losses_are_those_of_the_counts(study):
    out, runs = study
    rows = {row["initialisation"]: row for row in robustness(load_results(out))["values"]}
    assert set(rows) == set(EXTRA)
    for init, row in rows.items():
        place = (row["architecture"], row["mode"], row["benchmark"], row["num_labelled"])
        assert place == ("resnet18", "full", "streets", 8)
        assert row["clear"] == pytest.approx(100 * np.mean([score(init, run, 0) for run in runs]))
        for kind in ("noise", "fog", "all corruptions"):
            assert row["losses"][kind] == pytest.approx(100 * np.mean([loss(init, run, kind) for run in runs]))
        assert row["kept"] == pytest.approx(100 * (1 - row["losses"]["all corruptions"] / row["clear"]))
        assert row["films"] == {"drive": pytest.approx(100 * np.mean([score(init, run, 1, (0, 1)) for run in runs]))}
        assert row["runs"] == len(row["records"]) == 6


def test_the_interval_of_a_difference_is_that_of_runs_and_blocks(study):
    out, runs = study
    (row,) = [
        row for row in robustness(load_results(out))["differences"] if (row["a"], row["condition"]) == ("hub", "noise")
    ]
    difference = [loss("hub", run, "noise") - loss("none", run, "noise") for run in runs]
    # Jackknife over the two blocks: 2 x whole - without one.
    halves = ([2, 3], [0, 1])
    values = np.array(
        [
            [2 * whole - (loss("hub", run, "noise", half) - loss("none", run, "noise", half)) for half in halves]
            for run, whole in zip(runs, difference, strict=True)
        ]
    )
    over_runs, over_blocks = values.mean(1).var(ddof=1) / 6, values.mean(0).var(ddof=1) / 2
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    both = (rest**2).sum() / 5 / 12
    error = np.sqrt(max(over_runs, over_blocks, over_runs + over_blocks - both))
    weight = over_runs / (over_runs + over_blocks)

    def outside(x):
        return 2 * (weight * stats.t.sf(x, 5) + (1 - weight) * stats.t.sf(x, 1))

    half_width = error * optimize.brentq(lambda x: outside(x) - 0.05, 0, 20)
    mean = np.mean(difference)
    assert row["b"] == "none" and row["difference"] == pytest.approx(100 * mean) and mean < 0
    assert row["interval"] == pytest.approx([100 * (mean - half_width), 100 * (mean + half_width)])
    assert row["p_value"] == pytest.approx(outside(abs(mean) / error))
    assert len(set(BLOCKS)) == 2


def test_the_report_shows_losses_and_films(study):
    out, runs = study
    text = to_markdown(study_numbers(load_results(out)), {})
    section = text.split("## Robustness")[1].split("\n## ")[0]
    assert "Loss, noise" in section and "mIoU, drive" in section and "all corruptions" in section
    assert section.count("95 % interval") == 2


def test_a_study_without_the_measure_has_no_such_section(tmp_path):
    results = load_results(write_study(tmp_path))
    assert robustness(results) == {"values": [], "differences": []}
    assert "## Robustness" not in to_markdown(study_numbers(results), {})
    assert Setting("resnet18", "full", "streets", 8) in results.settings
