"""The price list: numbers by hand from made-up records, and what the page says of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from study.tiny_study import TEXT, tiny_study

from depthseg.study.defects.prices import estimate, prices
from depthseg.study.defects.switches import SWITCHES
from depthseg.study.matrix import main_trials, pretraining_trials
from depthseg.study.report.prices import price_page, read_prices, write_prices
from depthseg.study.results import load_results
from depthseg.study.runner import keys_of, save_study, trials_in_order
from depthseg.study.stored import record_path

WITH_DEFECTS = (
    TEXT.replace("  deeper: {{after: depth, pretrain: {{task: depth}}}}\n", "")
    + """
defects:
  hflip: {{}}
  normalisation: {{initialisations: [depth]}}
  metric: {{settings: {{classes: [Road, Car]}}}}
"""
)
OVERRIDES = ("benchmarks.world.num_labelled=[3]", "rates.grid=[]", "measures=[]", "seeds.finetune=6")
ALL = {
    "none": {"hflip": {}, "metric": {"classes": ["Road", "Car"]}},
    "depth": {"normalisation": {}, "hflip": {}, "metric": {"classes": ["Road", "Car"]}},
}

BASE = {"none": [30, 31, 32, 33, 34, 35], "depth": [34, 35, 36, 37, 38, 39]}
HFLIP = {"none": [29, 31, 30, 32, 31, 33], "depth": [33, 34, 35, 36, 37, 38]}
METRIC = {"none": [50, 51, 52, 53, 54, 56], "depth": [40, 41, 42, 43, 44, 44]}
TWICE = [20, 21, 22, 23, 24, 28]
TOGETHER, TOGETHER_PLAIN = [45, 45, 46, 46, 47, 47], [19, 19, 20, 20, 21, 21]


def record(trial, mean_iou, reported=None):
    scores = {"mean_iou": mean_iou / 100}
    reported = {name: {"mean_iou": score / 100} for name, score in (reported or {}).items()}
    return {
        **{"kind": "finetune", "key": trial.key, "parent_key": trial.parent, **trial.labels},
        **{"scores": scores, "curve": [], "seconds": 1.0, "config": trial.config.to_dict(), "reported": reported},
    }


def write(out, trial, content):
    path = record_path(out, trial.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def study(tmp_path):
    return tiny_study(tmp_path, *OVERRIDES, text=WITH_DEFECTS)


def record_all(study, out):
    """Give every fine-tuning the score of the tables above."""
    save_study(study, out)
    for trial in trials_in_order(study, out):
        if trial.kind != "finetune":
            continue
        init, draw = trial.labels["initialisation"], trial.labels["finetune_seed"]
        switches = trial.labels.get("switches", {})
        if not switches:
            content = record(trial, BASE[init][draw], {"metric": METRIC[init][draw]})
        elif set(switches) == {"hflip"}:
            content = record(trial, HFLIP[init][draw])
        elif set(switches) == {"normalisation"}:
            content = record(trial, TWICE[draw])
        else:
            assert switches == ALL[init]
            content = record(trial, TOGETHER_PLAIN[draw], {"metric": TOGETHER[draw]})
        write(out, trial, content)


def cell(numbers, switch, init):
    (setting,) = numbers["settings"]
    return next(row for row in setting["rows"] if row["switch"] == switch)["cells"][init]


def order(numbers, switch):
    (setting,) = numbers["settings"]
    return next(row for row in setting["rows"] if row["switch"] == switch)["order"]


def t_interval(differences):
    found = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return [found.low, found.high]


def test_the_change_is_paired_over_draws(study, tmp_path):
    record_all(study, tmp_path / "out")
    numbers = read_prices(tmp_path / "out")
    none = cell(numbers, "hflip", "none")
    assert (none["runs"], none["planned"]) == (6, 6)
    assert none["mean"] == pytest.approx(-1.5)  # -1, 0, -2, -1, -3, -2
    assert none["interval"] == pytest.approx(t_interval([-1, 0, -2, -1, -3, -2]))
    # All draws lose one point: there is no spread, and so no interval.
    depth = cell(numbers, "hflip", "depth")
    assert depth["mean"] == pytest.approx(-1.0) and depth["spread"] == pytest.approx([-1.0, -1.0])


def test_a_switch_of_the_score_is_read_off_the_runs_without_switches(study, tmp_path):
    record_all(study, tmp_path / "out")
    numbers = read_prices(tmp_path / "out")
    changes = [20, 20, 20, 20, 20, 21]
    none = cell(numbers, "metric", "none")
    assert none["mean"] == pytest.approx(np.mean(changes)) and none["interval"] == pytest.approx(t_interval(changes))
    assert none["of_weights"]["mean"] == 0.0  # the weights are those of the runs without
    together = cell(numbers, "all", "depth")
    assert together["mean"] == pytest.approx(np.subtract(TOGETHER, BASE["depth"]).mean())
    assert together["of_weights"]["mean"] == pytest.approx(np.subtract(TOGETHER_PLAIN, BASE["depth"]).mean())


def test_a_switch_that_does_not_apply_leaves_the_score_but_may_change_the_order(study, tmp_path):
    record_all(study, tmp_path / "out")
    numbers = read_prices(tmp_path / "out")
    assert cell(numbers, "normalisation", "none") == {"applies": False}
    assert order(numbers, "hflip")["swaps"] == []
    found = order(numbers, "normalisation")
    assert (found["before"], found["after"]) == (["depth", "none"], ["none", "depth"])
    (swap,) = found["swaps"]
    # Without, depth leads by 4 in every draw: no spread, so nothing is decided.
    assert (swap["better_before"], swap["better_after"], swap["decided"]) == ("depth", "none", False)
    assert swap["after"]["mean"] == pytest.approx(np.subtract(TWICE, BASE["none"]).mean())


def test_a_change_of_the_order_is_decided_by_both_intervals(study, tmp_path, monkeypatch):
    monkeypatch.setitem(BASE, "none", [30, 32, 32, 33, 34, 36])
    record_all(study, tmp_path / "out")
    (swap,) = order(read_prices(tmp_path / "out"), "normalisation")["swaps"]
    before, after = np.subtract(BASE["depth"], BASE["none"]), np.subtract(TWICE, BASE["none"])
    assert swap["before"]["interval"] == pytest.approx(t_interval(before)) and t_interval(before)[0] > 0
    assert swap["after"]["interval"] == pytest.approx(t_interval(after)) and t_interval(after)[1] < 0
    assert swap["decided"]


def test_few_draws_have_a_spread_and_no_interval():
    assert estimate({}) == {"runs": 0, "mean": None, "spread": None, "interval": None}
    five = estimate({(0, draw): float(draw) for draw in range(5)})
    assert (five["mean"], five["spread"], five["interval"]) == (2.0, [0.0, 4.0], None)


def test_what_was_not_run_is_said_and_never_made_up(study):
    numbers = prices(study, [])
    assert all(cell["mean"] is None for cell in numbers["settings"][0]["base"].values())
    page = price_page(numbers)
    assert "| `hflip` | not run yet | not run yet | not run yet |" in page
    assert "| `normalisation` | does not apply | not run yet | not run yet |" in page
    assert "| all together | not run yet | not run yet | not run yet |" in page
    assert "0 of 7 cells are complete." in page


def test_a_study_that_is_not_finished_says_how_many_draws_it_has(study, tmp_path):
    out = tmp_path / "out"
    record_all(study, out)
    for trial in trials_in_order(study, out):
        if trial.labels.get("finetune_seed", 0) >= 2 and trial.labels.get("switches"):
            record_path(out, trial.key).unlink()
    page = write_prices(out, tmp_path).read_text()
    assert "| `hflip` | \N{MINUS SIGN}0.5 (\N{MINUS SIGN}1.0 to 0.0, no interval), 2 of 6 draws |" in page
    assert json.loads((tmp_path / "price_of_defects.json").read_text())["settings"][0]["mode"] == "frozen"


def test_the_page_says_what_the_numbers_say(study, tmp_path):
    record_all(study, tmp_path / "out")
    page = write_prices(tmp_path / "out", tmp_path).read_text()
    low, high = t_interval([20, 20, 20, 20, 20, 21])
    assert "| none (mean IoU) | 32.5 | 36.5 |  |" in page
    assert f"| `metric` | +20.2 ({low:.1f} to {high:.1f}); weights +0.0 (0.0 to 0.0, no interval) |" in page
    assert "changes: random initialisation above depth (undecided)" in page
    assert "7 of 7 cells are complete." in page
    assert all(f"| `{name}` | {SWITCHES[name].defect} |" in page for name in study.defects)


def test_two_records_of_one_trial_are_refused(study, tmp_path):
    out = tmp_path / "out"
    record_all(study, out)
    copied = next(path for path in sorted((out / "trials").glob("*.json")) if "hflip" in path.read_text())
    (copied.parent / f"copy_{copied.name}").write_text(copied.read_text())
    with pytest.raises(ValueError, match="records of the same trial, with the same switches"):
        read_prices(out)


def test_the_report_of_the_study_counts_no_run_with_switches(study, tmp_path):
    record_all(study, tmp_path / "out")
    results = load_results(tmp_path / "out")
    assert len(results.records) == 12
    assert {record.content.get("switches") for record in results.records} == {None}


def test_trials_without_switches_are_those_of_the_study_without_defects(study, tmp_path):
    plain = tiny_study(tmp_path, *OVERRIDES, text=WITH_DEFECTS[: WITH_DEFECTS.index("defects:")])
    pretraining = pretraining_trials(plain)
    keys = [trial.key for trial in (*pretraining, *main_trials(plain, keys_of(pretraining), {}))]
    trials = list(trials_in_order(study, tmp_path))
    assert [trial.key for trial in trials if not trial.labels.get("switches")] == keys
    assert [trial.key for trial in trials_in_order(plain, tmp_path)] == keys
    # Six draws of hflip and of all for both, and of normalisation for one; the score needs no run of its own.
    switched = [trial for trial in trials if trial.labels.get("switches")]
    assert len(switched) == 6 * 5 and len({trial.key for trial in trials}) == len(trials)
    assert trials[-len(switched) :] == switched


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("  hflp: {{}}", "defects.hflp is no switch. Did you mean 'hflip'?"),
        ("  hflip: {{initialisations: [nobody]}}", "names 'nobody'; initialisations are none, depth"),
        ("  hflip: {{alone_in: [full]}}", "alone_in names 'full'; modes are frozen"),
        ("  reinit: {{}}", "defects.reinit.initialisations is null: name those for which the whole decoder"),
        ("  hflip: {{settings: {{classes: [a]}}}}", "settings has 'classes'; it takes no settings"),
        ("  metric: {{}}", "metric.settings.classes is None; allowed are lists"),
        ("  num_outputs: {{settings: {{outputs: 0}}}}", "outputs is 0; allowed are the numbers 1 to 255"),
        ("  nyu_image: {{settings: {{offset: 0}}}}", "offset is 0; allowed are whole numbers of frames but 0"),
    ],
)
def test_mistakes_in_a_study_file_are_sentences(tmp_path, lines, words):
    text = WITH_DEFECTS[: WITH_DEFECTS.index("defects:")] + f"defects:\n{lines}\n"
    with pytest.raises(ValueError) as error:
        tiny_study(tmp_path, *OVERRIDES, text=text)
    assert words in str(error.value)


def test_what_a_study_removes_is_removed_from_its_switches(tmp_path):
    text = WITH_DEFECTS.replace("  hflip: {{}}", "  hflip: {{alone_in: [frozen, full]}}")
    text = text.replace("modes:\n", "modes:\n  full: {{}}\n")
    study = tiny_study(tmp_path, *OVERRIDES, "modes.frozen=null", "initialisations.depth=null", text=text)
    assert study.defects["hflip"].alone_in == ["full"]
    assert study.defects["normalisation"].initialisations == []  # nobody, not everybody
    named = {name for trial in trials_in_order(study, tmp_path) for name in trial.labels.get("switches", {})}
    assert named == {"hflip", "metric"}


def test_a_switch_is_measured_alone_where_the_study_says_so(tmp_path):
    text = TEXT.replace("modes:\n", "modes:\n  full: {{}}\n")
    text += "defects: {{hflip: {{alone_in: [full]}}, subset: {{}}}}\n"
    study = tiny_study(tmp_path, *OVERRIDES, "initialisations.deeper=null", "initialisations.depth=null", text=text)
    found = {
        (trial.labels["mode"], tuple(trial.labels["switches"]))
        for trial in trials_in_order(study, tmp_path)
        if trial.labels.get("switches")
    }
    together = ("subset", "hflip")
    assert found == {("full", ("subset",)), ("full", ("hflip",)), ("full", together)} | {
        ("frozen", ("subset",)),
        ("frozen", together),
    }
    full, frozen = prices(study, [])["settings"]
    assert [row["switch"] for row in full["rows"]] == ["subset", "hflip", "all"]
    assert [row["switch"] for row in frozen["rows"]] == ["subset", "all"]
