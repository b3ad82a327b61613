"""The report of a study whose numbers were made up, so that they can be computed by hand."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from study.made_up_study import GRID, MODES, NUM_LABELLED, TITLES, pooled_iou, write_finetuning, write_study

from depthseg.cli import main
from depthseg.study.report import figures, tables, write_report
from depthseg.study.report.hero import hero
from depthseg.study.report.html import write_page
from depthseg.study.report.markdown import to_markdown
from depthseg.study.report.style import spread_apart, styles_of
from depthseg.study.report.tables import claim_table, fixed_rate_table, origin_table, rate_table
from depthseg.study.report.text import MINUS, NOTHING, number
from depthseg.study.results import Setting, load_results
from depthseg.study.statistics import Convergence, summarise_curves

RUNS = [(outer, inner) for outer in (0, 1) for inner in range(3)]
STREETS = Setting("resnet18", "full", "streets", 8)
# Elements without an end tag.
VOID = {"meta", "link", "img", "br", "hr", "input", "col"}


class Page(HTMLParser):
    """What a test asks of an HTML page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.resources, self.links = [], [], [], []
        self.tags, self.ids, self.alternatives, self.names, self.rows = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.alternatives += [values["alt"]] if tag == "img" else []
        self.names += [values["aria-label"]] if "aria-label" in values else []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
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
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = write_study(tmp_path_factory.mktemp("whole"))
    report = write_report(out)
    return out, report, json.loads((out / "report" / "results.json").read_text())


@pytest.fixture(scope="module")
def page(whole):
    return write_page(whole[1])


@pytest.fixture
def without_figures(monkeypatch):
    """Reports take a tenth of the time."""
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})


def texts(table):
    """The text of every cell, row by row."""
    return [[column.text(row) for column in table.columns] for row in table.rows]


def only(rows, **place):
    (row,) = [row for row in rows if all(row[name] == value for name, value in place.items())]
    return row


def test_scores_are_means_over_the_runs(whole):
    _, _, numbers = whole
    for init in TITLES:
        for num_labelled in NUM_LABELLED:
            row = only(numbers["main"], initialisation=init, mode="full", num_labelled=num_labelled)
            scores = [100 * pooled_iou(init, num_labelled, run) for run in RUNS]
            assert row["mean_iou"] == pytest.approx(np.mean(scores))
            assert row["spread"] == pytest.approx([min(scores), max(scores)])
            assert row["interval"][0] < row["mean_iou"] < row["interval"][1]
            # The curve rises evenly from nothing to the last of 100 steps.
            assert (row["steps_to_95"], row["area_under_curve"]) == pytest.approx((95, np.mean(scores) / 2))
            assert len(row["records"]) == row["runs"] == 6


def test_differences_are_those_of_the_means(whole):
    _, _, numbers = whole
    mean = {init: np.mean([100 * pooled_iou(init, 8, run) for run in RUNS]) for init in TITLES}
    for a, b in (("depth", "none"), ("hub", "none"), ("depth", "hub")):
        row = only(numbers["comparisons"], a=a, b=b, mode="full", num_labelled=8)
        assert row["difference"] == pytest.approx(mean[a] - mean[b])
        assert row["p_value"] <= row["p_adjusted"] <= 1
        assert "2 blocks of test images" in row["conditional_on"]


def test_claims_are_tested_in_their_direction_and_mode(whole):
    _, _, numbers = whole
    assert not [row for row in numbers["comparisons"] if (row["a"], row["b"]) == ("hub", "depth")]
    table = claim_table(numbers)
    shown = texts(table)
    places = [("full", 8), ("full", 32), ("frozen", 8), ("frozen", 32)]
    expected = [("depth", "none", place) for place in places[2:]] + [("depth", "hub", place) for place in places]
    assert len(shown) == len(expected)
    for cells, (a, b, (mode, num_labelled)) in zip(shown, expected, strict=True):
        row = only(numbers["comparisons"], a=a, b=b, mode=mode, num_labelled=num_labelled)
        sign, found = (1 if b == "none" else -1), row["p_adjusted"] < 0.05
        assert cells[0] == ("Depth helps" if b == "none" else "Weights from elsewhere help more")
        assert cells[1:3] == [mode, str(num_labelled)]
        assert cells[3] == ("undecided" if not found else "supported" if b == "none" else "contradicted")
        assert float(cells[4].replace(MINUS, "-")) == pytest.approx(sign * row["difference"], abs=0.051)


def test_rates_and_baselines_and_measures(whole):
    _, _, numbers = whole
    row = only(numbers["rates"], initialisation="depth", mode="full")
    assert row["scores"] == pytest.approx({f"{lr:g}": 50 - 10 * abs(np.log10(lr / 0.0003)) for lr in GRID})
    assert (row["chosen"], row["at_edge"], row["used"]) == (0.0003, True, [0.0003])
    assert numbers["baselines"][0]["mean_iou"] == pytest.approx({"position_prior": 30, "majority_class": 10})
    depths = only(numbers["measures"], initialisation="hub", mode="frozen", num_labelled=32)["values"]["iou_by_depth"]
    assert depths["0-10 m"]["mean"] == pytest.approx(0.6) and depths["10-20 m"] is None
    assert [row["scores"] for row in numbers["pretraining"]] == [{"abs_rel": 0.1}, {"abs_rel": 0.2}]
    assert {row["alignment"] for row in numbers["pretraining"]} == {"median"}


def test_rates_are_told_with_the_labels_that_they_were_chosen_with(whole):
    """Four labels, which no setting of the study has."""
    _, _, numbers = whole
    assert {row["num_labelled"] for row in numbers["rates"]} == {4} and {
        row["num_labelled"] for row in numbers["main"]
    } == {8, 32}
    table, beside = rate_table(numbers), fixed_rate_table(numbers)
    assert table.caption.startswith("Mean IoU in points on validation images for each learning rate, with 4 labels")
    assert [column.title for column in table.columns[:2]] == ["Mode", "Initialisation"] and len(table.rows) == len(
        TITLES
    ) * 2
    chosen = only(numbers["main"], initialisation="depth", mode="frozen", num_labelled=32)
    fixed = only(numbers["fixed"], initialisation="depth", mode="frozen", num_labelled=32)
    (row,) = [cells for cells in texts(beside) if cells[:3] == ["frozen", "32", TITLES["depth"]]]
    assert row[3:] == ["0.0003", f"{chosen['mean_iou']:.1f}", "6", "0.001", f"{fixed['mean_iou']:.1f}", "6"]


def test_runs_that_were_scored_once_tell_nothing_of_how_fast_they_learn(tmp_path):
    write_study(tmp_path)
    for path in (tmp_path / "trials").glob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"curve": record.get("curve", [])[-1:]}))
    numbers = json.loads((write_report(tmp_path).parent / "results.json").read_text())
    assert {(row["steps_to_95"], row["area_under_curve"]) for row in numbers["main"]} == {(None, None)}
    assert numbers["curves"] == []
    page = (tmp_path / "report" / "report.md").read_text()
    assert "steps to 95 % of the final score" not in page and "Learning curves" not in page


def test_what_each_initialisation_was_trained_on(whole):
    _, path, numbers = whole
    table = origin_table(numbers)
    shown = {first: rest for first, *rest in texts(table)}
    assert shown[TITLES["none"]] == ["random", *[NOTHING] * 6]
    assert shown[TITLES["hub"]] == ["a given checkpoint", *[NOTHING] * 6]
    assert shown[TITLES["depth"]] == ["depth", "synthetic, mono", NOTHING, "transferred", "2000", "900", "8"]
    assert "Fine-tuning: 100 steps of 4 images of 64x192 pixels." in path.read_text()
    flow = numbers["origins"][1] | {"task": "flow", "decoder": False}
    table = origin_table(numbers | {"origins": [*numbers["origins"], flow]})
    assert "a difference between such initialisations includes the effect of the decoder" in table.notes[-1]


def test_the_page_is_whole_and_needs_no_other_file(whole, page):
    text = page.read_text()
    shown = Page(text)
    assert not shown.wrong and not shown.open
    assert shown.resources and all(source.startswith("data:") for source in shown.resources)
    files = [link for link in shown.links if not link.startswith("#")]
    assert len(files) > 100 and all((page.parent / link).is_file() for link in files)
    assert "<script" not in text and "@import" not in text and "url(" not in text


def test_the_page_has_every_heading_table_cell_figure_and_link_of_the_markdown(whole, page):
    text, shown = whole[1].read_text(), Page(page.read_text())
    tables = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert len(shown.rows) == len(tables) > 40
    for cells, line in zip(shown.rows, tables, strict=True):
        # A pipe within a cell is escaped.
        assert len(cells) == len(re.split(r"(?<!\\)\|", line)) - 2
    assert sum(tag == "img" for tag in shown.tags) == text.count("![") >= 4
    assert all(alternative for alternative in shown.alternatives)
    captions = re.findall(r"^\*\*(.*)\*\*\n\n\|", text, re.MULTILINE)
    assert [name.replace("\\", "") for name in captions] == [re.sub("&", "&amp;", name) for name in shown.names]
    assert sum(tag == "h2" for tag in shown.tags) == len(re.findall("^## ", text, re.MULTILINE))
    assert shown.links == re.findall(r"\]\(((?:#|\.\./trials|figures/[^)]*pdf)[^)]*)\)", text)
    row = only(whole[2]["main"], initialisation="depth", mode="full", num_labelled=8)
    expected = [TITLES["depth"], f"{row['mean_iou']:.1f}", "{:.1f} to {:.1f}".format(*row["interval"])]
    assert expected in [cells[:3] for cells in shown.rows]


def test_titles_are_shown_as_they_are(whole, page):
    text = page.read_text()
    assert "Random &lt;start&gt; &amp; nothing" in text and "<start>" not in text
    shown = [cells[0] for cells in Page(text).rows]
    assert set(TITLES.values()) <= set(shown)


def test_contents_lead_to_the_headings(whole, page):
    text, shown = whole[1].read_text(), Page(page.read_text())
    titles = re.findall("^## (.*)$", text, re.MULTILINE)
    # The anchors of GitHub.
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
    assert {"Findings", "Set-up", "Mean IoU by depth", "Cost"} <= set(titles)
    assert re.findall(r"\]\(#(.*?)\)", text) == anchors
    assert set(anchors) <= set(shown.ids) and len(shown.ids) == len(set(shown.ids))


def test_figures_are_beside_the_markdown(whole):
    _, path, _ = whole
    images = re.findall(r"!\[[^\n]*?\]\((figures/[^)]*\.png)\)", path.read_text())
    assert "figures/hero.png" in images and len(images) >= 4
    for file in images:
        with Image.open(path.parent / file) as image:
            assert min(image.size) > 300
        assert (path.parent / file).with_suffix(".pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("without_figures")
def test_what_is_written_and_where_is_logged_once_before_it_is_computed(tmp_path, caplog):
    out = write_study(tmp_path)
    with caplog.at_level("INFO", logger="depthseg"):
        write_report(out)
    (message,) = caplog.messages
    records = len(list((out / "trials").glob("*.json")))
    assert message == f"writing report.md, results.json and figures of {records} records to {out / 'report'}"
    assert not (out / "report" / "index.html").exists()


@pytest.mark.parametrize("name", ["camvid", "camvid_real", "world"])
def test_the_committed_reports_are_rendered_from_the_committed_numbers(name, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "write_figure", lambda *_: None)
    report = Path(__file__).parents[2] / "training" / "studies" / "results" / name / "report"
    numbers = json.loads((report / "results.json").read_text())
    text = to_markdown(numbers, figures.write_figures(numbers, tmp_path))
    assert text == (report / "report.md").read_text()
    named = set(re.findall(r"\]\((figures/[^)]*)\)", text))
    assert named == {f"figures/{path.name}" for path in (report / "figures").iterdir()}


@pytest.mark.usefixtures("without_figures")
def test_a_report_shows_the_rounded_numbers_of_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.DIGITS", 2)
    report = write_report(write_study(tmp_path))
    numbers = json.loads((report.parent / "results.json").read_text())
    assert report.read_text() == to_markdown(numbers, {})


@pytest.mark.usefixtures("without_figures")
def test_a_new_number_is_a_field_of_its_measure_and_a_column(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class More(Convergence):
        last_step: float

    def measured(curves):
        return More(**asdict(summarise_curves(curves)), last_step=max(point["step"] for point in curves[0]))

    monkeypatch.setattr("depthseg.study.report.numbers.summarise_curves", measured)
    columns = (*tables.SCORE_COLUMNS, tables.Column("Last step", "last_step", number))
    monkeypatch.setattr(tables, "SCORE_COLUMNS", columns)
    report = write_report(write_study(tmp_path))
    numbers = json.loads((report.parent / "results.json").read_text())
    assert {row["last_step"] for row in numbers["main"]} == {100}
    heading, _, *rows = report.read_text().split("## Scores")[1].split("\n\n")[3].splitlines()
    place = heading.split(" | ").index("Last step")
    shown = [re.split(r"(?<!\\) \| ", row)[place] for row in rows]
    assert shown == ["100.0"] * len(TITLES) + [NOTHING] * 2  # the baselines have no curve


@pytest.mark.usefixtures("without_figures")
def test_the_command_renders_the_page_when_asked_for(tmp_path, capsys, caplog):
    folder = write_study(tmp_path) / "report"
    command = ["study", "world", "--output-dir", str(tmp_path)]
    for options, name in ((["--report"], "report.md"), (["--report", "--html"], "index.html")):
        assert not (folder / name).exists()
        with pytest.raises(SystemExit) as end:
            main([*command, *options])
        assert end.value.code is None
        assert capsys.readouterr().out.split() == [str(folder / name)]
    assert '<h1 id="made-up">made-up</h1>' in (folder / "index.html").read_text()
    assert "earlier report" not in caplog.text
    with pytest.raises(SystemExit):
        main([*command, "--report"])
    assert f"{folder / 'index.html'} is of an earlier report; --html renders it again" in caplog.text
    with pytest.raises(SystemExit, match="--dry-run writes no report; leave out --html"):
        main([*command, "--dry-run", "--html"])


def test_a_page_that_cannot_be_rendered_is_said_before_the_runs(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "depthseg.study.report.html")
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    monkeypatch.setattr("depthseg.study.runner.run_study", lambda *_: pytest.fail("It ran."))
    with pytest.raises(SystemExit, match='needs markdown-it-py: python -m pip install "markdown-it-py>=3"'):
        main(["study", "world", "--output-dir", str(tmp_path), "--html"])


def test_legends_are_inside_their_figures(whole, tmp_path, monkeypatch):
    _, _, numbers = whole
    titles = dict(zip(TITLES, ("random initialisation", "depth, monocular video, world", "m" * 40), strict=True))
    drawn = []
    monkeypatch.setattr(figures, "write_figure", lambda figure, folder, name: drawn.append(figure))
    figures.write_figures(
        numbers | {"initialisations": {init: {"title": title} for init, title in titles.items()}}, tmp_path
    )
    legends = [legend for figure in drawn for legend in figure.legends]
    assert len(legends) >= 3
    for legend in legends:
        legend.figure.draw_without_rendering()
        box, frame = legend.get_window_extent(), legend.figure.bbox
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1, legend.get_texts()


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([3.0, 1.0, 2.0], [3.0, 1.0, 2.0]),
        ([1.0, 1.0, 5.0], [0.5, 1.5, 5.0]),
        # The third label is pushed by the first two and all three are about their mean.
        ([2.0, 2.2, 2.7], [1.3, 2.3, 3.3]),
        ([0.0, 10.0, 10.2, 0.6], [-0.2, 9.6, 10.6, 0.8]),
        ([], []),
    ],
)
def test_labels_are_moved_as_little_as_needed(heights, expected):
    assert spread_apart(heights, 1.0) == pytest.approx(expected)


def test_the_main_figure_of_a_study_with_one_number_of_labels_names_every_initialisation(whole):
    numbers = whole[2]
    settings = [setting for setting in numbers["settings"] if setting["num_labelled"] == 8]
    rows = [row for row in numbers["main"] if row["num_labelled"] == 8]
    figure = hero(numbers | {"settings": settings, "main": rows}, styles_of(TITLES))
    figure.draw_without_rendering()
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == [f"resnet18, {mode}, streets" for mode in MODES]
    for axes in (first, second):
        assert {text.get_text() for text in axes.texts} == set(TITLES.values())
        assert [label.get_text() for label in axes.get_xticklabels()] == ["8"]


@pytest.mark.usefixtures("without_figures")
def test_an_unfinished_study_says_what_is_missing_and_compares_what_both_have(tmp_path):
    out = write_study(tmp_path, without=[("depth", "full", 8, (1, 2))])
    write_report(out)
    numbers = json.loads((out / "report" / "results.json").read_text())
    missing = only(numbers["missing"], initialisation="depth", mode="full", num_labelled=8, role="main")
    assert missing["runs"] == ["1.2"]
    row = only(numbers["comparisons"], a="depth", b="none", mode="full", num_labelled=8)
    used = [(outer, inner) for outer in (0, 1) for inner in (0, 1)]
    expected = [np.mean([100 * pooled_iou(init, 8, run) for run in used]) for init in ("depth", "none")]
    assert row["difference"] == pytest.approx(expected[0] - expected[1])
    assert row["interval"] is None and "4 runs, at least 6 are needed" in row["reason"]
    assert "The study is not finished: 1 planned run is missing" in (out / "report" / "report.md").read_text()


@pytest.mark.usefixtures("without_figures")
def test_one_pretraining_seed_gives_a_spread_and_no_interval(tmp_path):
    out = write_study(tmp_path, seeds={"pretrain": 1, "finetune": 3})
    write_report(out)
    numbers = json.loads((out / "report" / "results.json").read_text())
    row = only(numbers["main"], initialisation="depth", mode="full", num_labelled=8)
    assert row["interval"] is None and "1 pre-training seed, at least 2 are needed" in row["reason"]
    assert row["spread"][0] < row["spread"][1]


def test_trials_of_other_options_do_not_count(tmp_path):
    out = write_study(tmp_path)
    keys = [path.stem for path in (out / "trials").glob("*.json")]
    stale = write_finetuning(out, "depth", "full", 8, (0, 0), lr=0.1)
    (out / "plan.json").write_text(json.dumps({"keys": keys}))
    results = load_results(out)
    assert results.unused == [f"trials/{stale}.json is not used: its options differ from those of study.yaml."]
    assert len(results.used_records(["depth"], STREETS)) == 6


def test_a_study_without_records_is_said(tmp_path):
    out = write_study(tmp_path)
    for path in (out / "trials").glob("*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="contains no record of this study"):
        write_report(out)
    with pytest.raises(FileNotFoundError, match=r"There is no .*study\.yaml"):
        load_results(tmp_path / "nowhere")
