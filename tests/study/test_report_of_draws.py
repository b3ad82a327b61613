"""The report of a study with draws of the labelled images and primary claims, of made-up numbers."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from study import made_up_study
from study.made_up_study import pooled_iou, write_study
from study.tiny_study import tiny_study

from depthseg.cli import main
from depthseg.study import power
from depthseg.study.plan import Cost
from depthseg.study.report import write_report

DRAWS = 6
SEEDS = {"pretrain": 2, "finetune": 9, "draws": DRAWS}
RUNS = [(draw % 2, draw) for draw in range(DRAWS)]
CLAIMS = [
    {"text": "Depth helps", "better": "depth", "than": "none", "mode": "full", "num_labelled": 8, "primary": True},
    {"text": "Frozen, too", "better": "depth", "than": "none", "mode": "frozen", "num_labelled": 8, "primary": True},
    {"text": "Weights from elsewhere help more", "better": "hub", "than": "depth", "mode": ""},
]
PLACE = {"architecture": "resnet18", "benchmark": "streets"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("depthseg.study.report.write_figures", lambda *_: {})
        # between the scores of random weights with 8 and with 32 labels
        patch.setitem(made_up_study.BASE, "hub", 38)
        out = write_study(tmp_path_factory.mktemp("draws"), seeds=SEEDS, claims=CLAIMS)
        for run in RUNS:  # frozen, random weights: another curve for each draw
            path = out / "trials" / f"none-frozen-8-{run[0]}-{run[1]}-main-0_001-test.json"
            content = json.loads(path.read_text())
            reached = {20 * run[1] + 10: 0.96, 200: 1.0}
            content["curve"] = [{"step": step, "mean_iou": 0.5 * part} for step, part in reached.items()]
            path.write_text(json.dumps(content))
        report = write_report(out)
        return json.loads((out / "report" / "results.json").read_text()), report.read_text()


def only(rows, **place):
    (row,) = [row for row in rows if all(row[name] == value for name, value in (PLACE | place).items())]
    return row


def test_every_draw_counts_once_and_none_is_missing(whole):
    numbers, _ = whole
    assert numbers["planned_runs"] == numbers["draws"] == DRAWS and numbers["missing"] == []
    row = only(numbers["main"], initialisation="none", mode="full", num_labelled=8)
    assert row["mean_iou"] == pytest.approx(100 * np.mean([pooled_iou("none", 8, run) for run in RUNS]))
    pair = only(numbers["comparisons"], a="depth", b="none", mode="full", num_labelled=32)
    assert pair["runs"] == DRAWS and pair["paired"] and pair["interval"] is not None


def test_primary_claims_are_adjusted_among_themselves_and_the_others_have_a_false_discovery_rate(whole):
    numbers, text = whole
    rows = numbers["comparisons"]
    primary = [row for row in rows if row["primary"]]
    assert [(row["a"], row["b"], row["mode"], row["num_labelled"]) for row in primary] == [
        ("depth", "none", "full", 8),
        ("depth", "none", "frozen", 8),
    ]
    first, second = sorted(row["p_value"] for row in primary)
    assert sorted(row["p_adjusted"] for row in primary) == pytest.approx([2 * first, max(2 * first, second)])
    others = [row for row in rows if not row["primary"]]
    expected = stats.false_discovery_control([row["p_value"] for row in others])
    assert [row["q_value"] for row in others] == pytest.approx(expected) and len(others) == 10
    assert all(row["p_adjusted"] is None for row in others) and all(row["q_value"] is None for row in primary)
    assert not any(row["primary"] for row in numbers["comparisons_fixed"])
    assert "2 comparisons were registered as primary before the study ran" in text
    assert "**Primary claims**" in text and "“Depth helps”:" in text and "| primary |" in text
    assert "Exploratory, better than" in text and "Significantly better" not in text


def test_unfinished_primary_claims_count_in_the_adjustment(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    without = [("depth", "frozen", 8, run) for run in RUNS]
    write_report(write_study(tmp_path, seeds=SEEDS, claims=CLAIMS, without=without))
    numbers = json.loads((tmp_path / "report" / "results.json").read_text())
    (row,) = [row for row in numbers["comparisons"] if row["primary"]]
    assert row["p_adjusted"] == pytest.approx(2 * row["p_value"])
    assert "not tested, no run is finished" in (tmp_path / "report" / "report.md").read_text()


def test_steps_to_95_percent_are_paired_over_draws(whole):
    numbers, text = whole
    row = only(numbers["convergence"], initialisation="none", mode="frozen", num_labelled=8)
    # the curves reach 96 % of the end at step 20 d + 10, and start from 0
    steps = np.array([(20 * draw + 10) * 0.95 / 0.96 for draw in range(DRAWS)])
    assert row["steps_to_95"] == pytest.approx(steps.mean()) and row["spread"] == pytest.approx([steps[0], steps[-1]])
    wanted = stats.t.interval(0.95, DRAWS - 1, steps.mean(), steps.std(ddof=1) / math.sqrt(DRAWS))
    assert row["interval"] == pytest.approx(wanted) and row["difference"] is None
    hub = only(numbers["convergence"], initialisation="hub", mode="frozen", num_labelled=8)
    assert hub["difference"] == pytest.approx(95 - steps.mean())
    assert hub["interval_of_difference"] == pytest.approx([95 - wanted[1], 95 - wanted[0]])
    assert "Steps to 95 % of the final score of a run, mean over draws" in text


def test_where_the_cost_goes(whole):
    numbers, text = whole
    (depth,) = [row for row in numbers["spent"] if (row["initialisation"], row["mode"]) == ("depth", "full")]
    assert (depth["pretraining"], depth["before"], depth["finetuning"], depth["total"]) == (3700, None, 60, 3760)
    hub = only(numbers["label_values"], initialisation="hub", reference="none", mode="full", num_labelled=8)
    low, high = (np.mean([pooled_iou("none", labels, run) for run in RUNS]) for labels in (8, 32))
    # `hub` is 38 only within the fixture
    own = np.mean([made_up_study.iou(38 + 2 * run[0] + run[1] + 1.5) for run in RUNS])
    assert hub["value"] == ["", pytest.approx(8 * 4 ** ((own - low) / (high - low)))]
    assert hub["interval"][0][1] < hub["value"][1] < hub["interval"][1][1]
    depth = only(numbers["label_values"], initialisation="depth", reference="none", mode="full", num_labelled=8)
    assert depth["value"] == ["more than ", 32] and "| more than 32 | more than 32 to more than 32 |" in text
    pairs = {(row["initialisation"], row["reference"]) for row in numbers["label_values"]}
    assert pairs == {("depth", "none"), ("hub", "none"), ("depth", "hub")}
    assert only(numbers["label_values"], reference="hub", mode="full", num_labelled=8)["value"] == ["more than ", 32]
    assert "## Where the cost goes" in text


def test_cpu_time_is_shown_where_one_of_each_kind_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    write_study(tmp_path, seeds=SEEDS)
    for path in (tmp_path / "trials").glob("*.json"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | {"cpu_seconds": content["seconds"] / 4}))
    text = write_report(tmp_path).read_text()
    rows = json.loads((tmp_path / "report" / "results.json").read_text())["spent"]
    (depth,) = [row for row in rows if (row["initialisation"], row["mode"]) == ("depth", "full")]
    assert (depth["clock"], depth["pretraining"], depth["finetuning"]) == ("cpu_seconds", 925, 15)
    assert "CPU time, which other work on the machine does not change, of trials that were not interrupted." in text

    def change(pattern, **fields):
        for path in (tmp_path / "trials").glob(pattern):
            path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    change("depth-0.json", cpu_seconds=None)  # it was resumed
    change("depth-1.json", cpu_seconds=1000)
    write_report(tmp_path)
    rows = json.loads((tmp_path / "report" / "results.json").read_text())["spent"]
    (depth,) = [row for row in rows if (row["initialisation"], row["mode"]) == ("depth", "full")]
    assert (depth["clock"], depth["pretraining"], depth["finetuning"]) == ("cpu_seconds", 1000, 15)
    change("depth-?.json", cpu_seconds=None)  # as of a version without
    text = write_report(tmp_path).read_text()
    rows = json.loads((tmp_path / "report" / "results.json").read_text())["spent"]
    assert {(row["clock"], row["total"]) for row in rows if row["initialisation"] == "depth"} == {("seconds", 3760)}
    assert "Time on the clock." in text


def test_one_number_of_labels_says_why_nothing_can_be_read_off(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    streets = {"streets": {"title": "", "num_labelled": [8], "folds": {"test": {}}}}
    text = write_report(write_study(tmp_path, seeds=SEEDS, benchmarks=streets)).read_text()
    assert "only runs with 8 labels, at least two numbers are needed" in text


def test_what_can_be_read_off_is_shown_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    write_study(tmp_path, seeds=SEEDS, claims=[])
    for path in (tmp_path / "trials").glob("none-*-32-*"):
        path.unlink()
    table = write_report(tmp_path).read_text().split("**Number of labels with which")[1].split("**Time for")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "more than" in line]
    assert len(rows) == 4 and all("| Depth $x$ | A \\| checkpoint |" in row for row in rows)
    assert "has only runs with 8 labels, at least two numbers are needed." in table


def test_folds_of_one_draw_are_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    streets = {"streets": {"title": "", "num_labelled": [8, 32], "folds": {"north": {}, "south": {}}}}
    write_report(write_study(tmp_path, seeds=SEEDS, benchmarks=streets))
    numbers = json.loads((tmp_path / "report" / "results.json").read_text())
    assert only(numbers["main"], initialisation="hub", mode="full", num_labelled=8)["runs"] == DRAWS
    assert {(row["finetuning"], row["clock"]) for row in numbers["spent"]} == {(120, "seconds")}
    row = only(numbers["convergence"], initialisation="hub", mode="full", num_labelled=8)
    assert row["steps_to_95"] == 95 and len(row["records"]) == 2 * DRAWS


def test_studies_without_draws_and_primary_claims_have_none_of_this(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    text = write_report(write_study(tmp_path)).read_text()
    numbers = json.loads((tmp_path / "report" / "results.json").read_text())
    assert not {"primary", "draws", "convergence", "spent", "label_values"} & set(numbers)
    assert "xploratory" not in text and "Where the cost goes" not in text
    assert all("q_value" not in row for row in numbers["comparisons"])


PRIMARY = "claims=[{better: depth, than: none, num_labelled: 3, primary: true, expected: 2.2}]"


def lines(tmp_path, *overrides, blocks=10):
    return power.power_text(tiny_study(tmp_path, *overrides), {"world": blocks}).split("\n")


@pytest.mark.parametrize(
    ("overrides", "blocks", "words"),
    [
        ([], 10, "out of reach: the study has no draws that all initialisations share; give seeds.draws."),
        (["seeds.draws=5"], 10, "out of reach: 5 draws, at least 6 are needed for a p-value; raise seeds.draws."),
        (["seeds.draws=9"], 10, "out of reach: one pre-training, at least 2 are needed for a p-value"),
        (["seeds.draws=9", "seeds.pretrain=3"], 1, "out of reach: all test images are in one block"),
        (["seeds.draws=9", "seeds.pretrain=3"], 10, "not known: give pilot.sd_draws"),
    ],
)
def test_claims_out_of_reach_are_told_with_what_to_change(tmp_path, overrides, blocks, words):
    assert words in lines(tmp_path, PRIMARY, *overrides, blocks=blocks)[1]


def test_a_claim_about_what_is_not_run_is_not_lost(tmp_path):
    claims = "{better: depth, than: none, num_labelled: %d, primary: true}"
    other = f"claims=[{claims % 3}]", f"claims=[{claims % 3}, {claims % 7}]"
    sentence = "- depth against none: not tested, as the plan runs no setting of this claim with both."
    given = "benchmarks.world.num_labelled=[3, 7]"
    assert sentence not in lines(tmp_path, given, other[1])
    study = tiny_study(tmp_path, given, other[1])
    study.benchmarks["world"].num_labelled = [3]
    assert power.power_text(study, {"world": 10}).split("\n")[1:3] == [lines(tmp_path, other[0])[1], sentence]
    study.benchmarks["world"].num_labelled = [5]
    assert power.power_text(study, {}).split("\n") == ["Primary claims:", sentence, sentence]


def test_the_smallest_difference_is_compared_with_the_expected_one(tmp_path):
    plan = [PRIMARY, "seeds.draws=12", "seeds.pretrain=12", "pilot.sd_draws=2.4"]
    found = lines(tmp_path, *plan)
    # one sample of 12 differences: noncentral t by a table of power
    smallest = float(found[1].split(": ")[1].split(";")[0])
    critical = stats.t.ppf(0.975, 11)
    assert stats.nct.sf(critical, 11, smallest / (2.4 / math.sqrt(12))) == pytest.approx(0.8, abs=0.03)
    assert found[1] == (
        f"- depth against none (eighth, frozen, world, 3 labels): {smallest}; 2.2 is expected, which is within reach."
    )
    assert "2.4 over draws. The pilot did not measure the spread over pre-trainings and blocks" in found[-1]
    assert "is out of reach" in lines(tmp_path, *plan, "pilot.sd_blocks=3.0")[1]
    several = lines(tmp_path, *plan, PRIMARY.replace("num_labelled: 3, ", ""))
    assert "as the first of 2 claims by Holm's adjustment" in several[1] and len(several) == 5


def test_a_dry_run_tells_it_with_the_blocks_of_the_test_images(tmp_path, monkeypatch, capsys):
    tiny_study(tmp_path)
    monkeypatch.setattr("depthseg.study.plan.measure_cost", lambda study, trial: Cost(0.1, 1.0, 1.0, 1.0, 1.0))
    overrides = [PRIMARY, "seeds.draws=6", "seeds.pretrain=2", "pilot.sd_draws=2.4", "block_length=1"]
    with pytest.raises(SystemExit) as end:
        main(["study", str(tmp_path / "tiny.yaml"), *overrides, "--dry-run", "--output-dir", str(tmp_path / "out")])
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "trials remain" in printed and "- depth against none (eighth, frozen, world, 3 labels): " in printed
    study = tiny_study(tmp_path, *overrides)
    assert power.count_test_blocks(study, tmp_path / "out") == {"world": 3}
    assert power.count_test_blocks(tiny_study(tmp_path), tmp_path / "out") == {}
