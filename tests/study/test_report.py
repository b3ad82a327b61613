"""The report of a study whose numbers were made up, so that they can be told by hand."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from study.made_up_study import BUDGETS, GRID, TITLES, pooled_iou, write_finetuning, write_study

from depthseg.study.report import figures, write_report
from depthseg.study.report.detail_tables import rate_tables, start_tables
from depthseg.study.report.tables import claim_tables
from depthseg.study.report.text import MINUS, NOTHING
from depthseg.study.results import Setting, load_results

RUNS = [(outer, inner) for outer in (0, 1) for inner in range(3)]
STREETS = Setting("resnet18", "full", "streets", 8)
# Elements without an end tag.
VOID = {"meta", "link", "img", "br", "hr", "input", "col"}


class Page(HTMLParser):
    """What a test asks of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.resources, self.links, self.text = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag in ("script", "img", "link"):
            self.resources += [values[name] for name in ("src", "href") if name in values]
        if tag == "a":
            self.links.append(values["href"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = write_study(tmp_path_factory.mktemp("whole"))
    page = write_report(out)
    return out, page, json.loads((out / "report" / "results.json").read_text())


def only(rows, **place):
    (row,) = [row for row in rows if all(row[name] == value for name, value in place.items())]
    return row


def test_scores_are_means_over_the_runs(whole):
    _, _, numbers = whole
    for arm in TITLES:
        for budget in BUDGETS:
            row = only(numbers["main"], arm=arm, mode="full", budget=budget)
            scores = [100 * pooled_iou(arm, budget, run) for run in RUNS]
            assert row["mean_iou"] == pytest.approx(np.mean(scores))
            assert row["spread"] == pytest.approx([min(scores), max(scores)])
            assert row["interval"][0] < row["mean_iou"] < row["interval"][1]
            # The curve rises evenly from nothing to the last of 100 steps.
            assert (row["steps_to_95"], row["area_under_curve"]) == pytest.approx((95, np.mean(scores) / 2))
            assert len(row["records"]) == row["runs"] == 6


def test_differences_are_those_of_the_means(whole):
    _, _, numbers = whole
    mean = {arm: np.mean([100 * pooled_iou(arm, 8, run) for run in RUNS]) for arm in TITLES}
    for a, b in (("depth", "none"), ("hub", "none"), ("depth", "hub")):
        row = only(numbers["comparisons"], a=a, b=b, mode="full", budget=8)
        assert row["difference"] == pytest.approx(mean[a] - mean[b])
        assert row["p_value"] <= row["p_adjusted"] <= 1
        assert "2 blocks of test images" in row["conditional_on"]


def test_claims_are_tested_in_their_direction_and_mode(whole):
    _, _, numbers = whole
    assert not [row for row in numbers["comparisons"] if (row["a"], row["b"]) == ("hub", "depth")]
    (table,) = claim_tables(numbers)
    shown = [[cell.text for cell in row.cells] for row in table.rows]
    places = [("full", 8), ("full", 32), ("frozen", 8), ("frozen", 32)]
    expected = [("depth", "none", place) for place in places[2:]] + [("depth", "hub", place) for place in places]
    assert len(shown) == len(expected)
    for cells, (a, b, (mode, budget)) in zip(shown, expected, strict=True):
        row = only(numbers["comparisons"], a=a, b=b, mode=mode, budget=budget)
        sign, found = (1 if b == "none" else -1), row["p_adjusted"] < 0.05
        assert cells[0] == ("Depth helps" if b == "none" else "Weights from elsewhere help more")
        assert cells[1:3] == [mode, str(budget)]
        assert cells[3] == ("undecided" if not found else "supported" if b == "none" else "contradicted")
        assert float(cells[4].replace(MINUS, "-")) == pytest.approx(sign * row["difference"], abs=0.051)


def test_rates_and_baselines_and_measures(whole):
    _, _, numbers = whole
    row = only(numbers["rates"], arm="depth", mode="full")
    assert row["scores"] == pytest.approx({f"{lr:g}": 50 - 10 * abs(np.log10(lr / 0.0003)) for lr in GRID})
    assert (row["chosen"], row["at_edge"], row["used"]) == (0.0003, True, [0.0003])
    assert numbers["baselines"][0]["mean_iou"] == pytest.approx({"position_prior": 30, "majority_class": 10})
    depths = only(numbers["measures"], arm="hub", mode="frozen", budget=32)["values"]["iou_by_depth"]
    assert depths["0-10 m"]["mean"] == pytest.approx(0.6) and depths["10-20 m"] is None
    assert [row["scores"] for row in numbers["pretraining"]] == [{"abs_rel": 0.1}, {"abs_rel": 0.2}]
    assert {row["alignment"] for row in numbers["pretraining"]} == {"median"}


def test_rates_are_told_with_the_labels_that_they_were_chosen_with(whole):
    """Four labels, which no setting of the study has."""
    _, _, numbers = whole
    assert {row["budget"] for row in numbers["rates"]} == {4} and {row["budget"] for row in numbers["main"]} == {8, 32}
    (table,) = rate_tables(numbers)
    assert table.caption.startswith("Mean IoU in points on validation images for each learning rate, with 4 labels")
    assert table.columns[:2] == ("Mode", "Arm") and len(table.rows) == len(TITLES) * 2


def test_runs_that_were_scored_once_tell_nothing_of_how_fast_they_learn(tmp_path):
    write_study(tmp_path)
    for path in (tmp_path / "cells").glob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"curve": record.get("curve", [])[-1:]}))
    numbers = json.loads((write_report(tmp_path).parent / "results.json").read_text())
    assert {(row["steps_to_95"], row["area_under_curve"]) for row in numbers["main"]} == {(None, None)}
    assert numbers["curves"] == []
    page = (tmp_path / "report" / "report.md").read_text()
    assert "steps to 95 % of the final score" not in page and "Learning curves" not in page


def test_what_each_start_has_seen(whole):
    _, path, numbers = whole
    (table,) = start_tables(numbers)
    shown = {cells[0].text: [cell.text for cell in cells[1:]] for cells in (row.cells for row in table.rows)}
    assert shown[TITLES["none"]] == ["random", *[NOTHING] * 6]
    assert shown[TITLES["hub"]] == ["a given checkpoint", *[NOTHING] * 6]
    assert shown[TITLES["depth"]] == ["depth", "synthetic, mono", NOTHING, "transferred", "2000", "900", "8"]
    assert "Fine-tuning: 100 steps of 4 images of 64x192 pixels." in path.read_text()
    flow = numbers["starts"][1] | {"task": "flow", "decoder": False}
    (table,) = start_tables(numbers | {"starts": [*numbers["starts"], flow]})
    assert "a difference between such arms includes the effect of the decoder" in table.notes[-1]


def test_the_page_is_whole_and_needs_no_other_file(whole):
    out, path, _ = whole
    page = Page(path.read_text())
    assert not page.wrong and not page.open
    assert page.resources and all(source.startswith("data:") for source in page.resources)
    files = [link for link in page.links if not link.startswith("#")]
    assert len(files) > 100 and all((path.parent / link).is_file() for link in files)
    assert "@import" not in path.read_text() and "url(http" not in path.read_text()


def test_titles_are_shown_as_they_are(whole):
    _, path, _ = whole
    text = path.read_text()
    assert "Random &lt;start&gt; &amp; nothing" in text and "<start>" not in text
    assert any(TITLES["none"] in part for part in Page(text).text)


def test_markdown_and_figures_lie_beside_it(whole):
    out, path, _ = whole
    text = (path.parent / "report.md").read_text()
    pictures = re.findall(r"!\[[^\n]*?\]\((figures/[^)]*\.png)\)", text)
    assert "figures/hero.png" in pictures and len(pictures) >= 4
    for picture in pictures:
        with Image.open(path.parent / picture) as image:
            assert min(image.size) > 300
        assert (path.parent / picture).with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_legends_are_inside_their_figures(whole, tmp_path, monkeypatch):
    _, _, numbers = whole
    titles = dict(zip(TITLES, ("random initialisation", "depth, monocular video, world", "m" * 40), strict=True))
    drawn = []
    monkeypatch.setattr(figures, "write_figure", lambda figure, folder, name: drawn.append(figure))
    figures.write_figures(numbers | {"arms": {arm: {"title": title} for arm, title in titles.items()}}, tmp_path)
    legends = [legend for figure in drawn for legend in figure.legends]
    assert len(legends) >= 3
    for legend in legends:
        legend.figure.draw_without_rendering()
        box, frame = legend.get_window_extent(), legend.figure.bbox
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1, legend.get_texts()


def test_an_unfinished_study_says_what_is_missing_and_compares_what_both_have(tmp_path):
    out = write_study(tmp_path, without=[("depth", "full", 8, (1, 2))])
    write_report(out)
    numbers = json.loads((out / "report" / "results.json").read_text())
    missing = only(numbers["missing"], arm="depth", mode="full", budget=8, role="main")
    assert missing["runs"] == ["1.2"]
    row = only(numbers["comparisons"], a="depth", b="none", mode="full", budget=8)
    used = [(outer, inner) for outer in (0, 1) for inner in (0, 1)]
    expected = [np.mean([100 * pooled_iou(arm, 8, run) for run in used]) for arm in ("depth", "none")]
    assert row["difference"] == pytest.approx(expected[0] - expected[1])
    assert row["interval"] is None and "4 runs, at least 6 are needed" in row["reason"]
    assert "The study is not finished: 1 planned run is missing" in (out / "report" / "report.md").read_text()


def test_one_pretraining_seed_gives_a_spread_and_no_interval(tmp_path):
    out = write_study(tmp_path, seeds={"pretrain": 1, "finetune": 3})
    write_report(out)
    numbers = json.loads((out / "report" / "results.json").read_text())
    row = only(numbers["main"], arm="depth", mode="full", budget=8)
    assert row["interval"] is None and "1 pre-training seed, at least 2 are needed" in row["reason"]
    assert row["spread"][0] < row["spread"][1]


def test_cells_of_other_options_do_not_count(tmp_path):
    out = write_study(tmp_path)
    keys = [path.stem for path in (out / "cells").glob("*.json")]
    stale = write_finetuning(out, "depth", "full", 8, (0, 0), lr=0.1)
    (out / "plan.json").write_text(json.dumps({"keys": keys}))
    results = load_results(out)
    assert results.strangers == [f"cells/{stale}.json is not used: its options differ from those of study.yaml."]
    assert len(results.used_records(["depth"], STREETS)) == 6


def test_a_study_without_records_is_said(tmp_path):
    out = write_study(tmp_path)
    for path in (out / "cells").glob("*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="contains no record of this study"):
        write_report(out)
    with pytest.raises(FileNotFoundError, match=r"There is no .*study\.yaml"):
        load_results(tmp_path / "nowhere")
