"""Numbers of a paper beside those of a study, and the miniatures that small scales run on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from study.made_up_study import pooled_iou, study_yaml, write_study, wrong_pixels
from study.tiny_study import TEXT, tiny_study

from depthseg.cli import main
from depthseg.data.miniatures import write_miniature
from depthseg.study.miniatures import MARK, prepare_data
from depthseg.study.report import write_report
from depthseg.study.report.numbers import study_numbers
from depthseg.study.report.paper import paper_table
from depthseg.study.results import load_results

CELLS = [
    {"initialisation": "none", "mode": "full", "num_labelled": 8, "mean_iou": 41.35, "pixel_accuracy": 70.75},
    {"initialisation": "depth", "mode": "full", "num_labelled": 8, "mean_iou": 46.0, "pixel_accuracy": None},
    {"initialisation": "hub", "mode": "frozen", "num_labelled": 32, "mean_iou": None, "pixel_accuracy": None},
    {"initialisation": "hub", "mode": "full", "num_labelled": 16, "mean_iou": 33.33, "pixel_accuracy": 65.34},
]
CELLS = [cell | {"architecture": "resnet18", "benchmark": "streets"} for cell in CELLS]
PAPER = {"source": "Doe 2024, table 1", "not_in_text": ["Which 16 images."], "cells": CELLS}
OWN = """
paper:
  source: Doe
  cells:
    - {{initialisation: none, num_labelled: 2, mean_iou: 40}}
    - {{initialisation: depth, architecture: eighth, mode: frozen, benchmark: world, num_labelled: 3}}
"""


def report_of(folder, **changes):
    out = write_study(folder, **changes)
    report = write_report(out)
    return json.loads((out / "report" / "results.json").read_text()), report.read_text()


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})


def accuracy(init, num_labelled, run):
    """Share of right pixels: all but the lost ones of 100 in each of four images."""
    return 1 - sum(wrong_pixels(init, num_labelled, run, image) for image in range(4)) / 400


def test_each_cell_has_our_number_that_of_the_paper_and_their_difference(tmp_path, without_figures):
    numbers, text = report_of(tmp_path, paper=PAPER, scale="full")
    none, depth, hub, absent = numbers["paper"]["cells"]
    runs = [(outer, inner) for outer in (0, 1) for inner in range(3)]
    scores = [100 * pooled_iou("none", 8, run) for run in runs]
    found = none["mean_iou"]
    assert (found["mean"], found["sd"]) == pytest.approx((np.mean(scores), np.std(scores, ddof=1)))
    assert found["difference"] == pytest.approx(np.mean(scores) - 41.35)
    right = [100 * accuracy("none", 8, run) for run in runs]
    assert none["pixel_accuracy"]["mean"] == pytest.approx(np.mean(right))
    assert none["pixel_accuracy"]["difference"] == pytest.approx(np.mean(right) - 70.75)
    assert none["runs"] == len(none["records"]) == 6
    assert depth["pixel_accuracy"]["difference"] is hub["mean_iou"]["difference"] is None
    assert [row["status"] for row in (none, depth, hub, absent)] == ["measured here"] * 3 + ["not run"]
    assert absent["mean_iou"] == {"mean": None, "sd": None, "paper": 33.33, "difference": None}
    assert none["mean_iou"]["mean"] == pytest.approx(
        next(row["mean_iou"] for row in numbers["main"] if (row["initialisation"], row["mode"]) == ("none", "full"))
    )
    section = text.partition("## Beside the paper")[2].partition("\n## ")[0]
    assert "Source: Doe 2024, table 1." in section and "- Which 16 images." in section
    lines = [line for line in section.splitlines() if line.startswith("| f")]
    assert "| 41.35 |" in lines[0] and "70.75" in lines[0] and "| measured here |" in lines[0]
    assert "not in the text" in lines[1] and "not run" in lines[3] and "0 of 6" in lines[3]


def test_another_scale_says_nothing_about_the_paper(tmp_path, without_figures):
    numbers, text = report_of(tmp_path, paper=PAPER)
    assert [row["status"] for row in numbers["paper"]["cells"]] == ["toy only"] * 3 + ["not run"]
    assert "Toy only: of tiny networks on rendered scenes; no statement about the paper." in text
    assert "Measured here:" not in text


def test_one_run_has_no_standard_deviation_and_a_missing_one_is_counted(tmp_path, without_figures):
    gone = [("none", "full", 8, (outer, inner)) for outer in (0, 1) for inner in range(3)][1:]
    write_study(tmp_path, without=gone, paper=PAPER)
    (row, *_) = paper_table(study_numbers(load_results(tmp_path))).rows
    assert (row["runs"], row["mean_iou"]["sd"]) == (1, None)
    assert row["mean_iou"]["mean"] == pytest.approx(100 * pooled_iou("none", 8, (0, 0)))


def test_cells_are_told_apart_by_what_the_study_has_one_of(tmp_path, without_figures):
    streets = {"streets": {"title": "", "num_labelled": [8], "folds": {"test": {}}}}
    write_study(tmp_path, benchmarks=streets, modes={"full": {}}, paper=PAPER | {"cells": [CELLS[0], CELLS[3]]})
    table = paper_table(study_numbers(load_results(tmp_path)))
    assert [column.title for column in table.columns[:2]] == ["Labels", "Initialisation"]
    assert [table.columns[0].text(row) for row in table.rows] == ["8", "16"]
    assert table.caption == "Scores in points beside those of the paper (resnet18, full, streets)."


def test_a_study_without_numbers_of_a_paper_has_no_such_section(tmp_path, without_figures):
    numbers, text = report_of(tmp_path)
    assert "paper" not in numbers and "Beside the paper" not in text and "paper" not in study_yaml()


def test_parts_of_a_cell_that_a_study_has_once_need_not_be_written(tmp_path):
    study = tiny_study(tmp_path, text=TEXT + OWN)
    first, second = study.paper.cells
    assert (first.architecture, first.mode, first.benchmark, first.mean_iou) == ("eighth", "frozen", "world", 40)
    assert (second.num_labelled, second.mean_iou) == (3, None)


def test_numbers_of_what_is_removed_go_with_it(tmp_path):
    study = tiny_study(tmp_path, "initialisations.none=null", "reference=depth", text=TEXT + OWN)
    assert [cell.initialisation for cell in study.paper.cells] == ["depth"]


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        (
            "{initialisation: nothing, num_labelled: 2}",
            r"cells\[0\].initialisation is 'nothing'; give one of none, depth",
        ),
        ("{num_labelled: 2}", r"cells\[0\].initialisation is empty"),
        ("{initialisation: none, mode: full, num_labelled: 2}", r"mode is 'full'; give one of frozen"),
        ("{initialisation: none}", "num_labelled is null, but the benchmark has several"),
        ("{initialisation: none, num_labelled: 2, mean_iou: 141}", "must be a number of points from 0 to 100"),
    ],
)
def test_a_number_of_no_cell_of_the_study_is_refused(tmp_path, cell, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_study(tmp_path, f"paper.cells=[{cell}]")


def with_miniature(folder, name="kitti_semantics"):
    return TEXT.replace("scales:", f"scales:\n  toy: {{{{miniatures: {{{{{folder}: {name}}}}}}}}}")


def test_a_small_scale_renders_its_miniatures_once_and_touches_no_folder(tmp_path):
    toy, there = tmp_path / "data" / "toy", tmp_path / "there"
    study = tiny_study(tmp_path, scale="toy", text=with_miniature(toy))
    prepare_data(study)
    images = sorted((toy / "training" / "image_2").glob("*.png"))
    assert len(images) == 30 and (toy / MARK).is_file() and not list(toy.parent.glob("*.partial"))
    written = [path.stat().st_mtime_ns for path in images]
    prepare_data(study)
    assert [path.stat().st_mtime_ns for path in images] == written
    there.mkdir()
    prepare_data(tiny_study(tmp_path, scale="toy", text=with_miniature(there)))
    assert not list(there.iterdir())


def test_a_study_at_full_scale_does_not_run_on_a_miniature(tmp_path, monkeypatch):
    text = with_miniature(tmp_path / "real").replace("root: {root}", f"root: {tmp_path / 'real' / 'part'}", 1)
    prepare_data(tiny_study(tmp_path, text=text))
    assert not (tmp_path / "real").exists()
    prepare_data(tiny_study(tmp_path, scale="toy", text=text))
    monkeypatch.chdir(tmp_path)
    for more in ((), ("--dry-run",)):
        with pytest.raises(SystemExit, match="real is a miniature that a small scale has rendered"):
            main(["study", "tiny.yaml", *more])
    assert not Path("runs").exists()


def test_a_miniature_that_full_scale_does_not_read_is_no_obstacle(tmp_path):
    text = with_miniature(tmp_path / "world_of_toys")  # its name begins like that of the data
    prepare_data(tiny_study(tmp_path, scale="toy", text=text))
    assert (tmp_path / "world_of_toys" / MARK).is_file()
    prepare_data(tiny_study(tmp_path, text=text))


def test_a_miniature_that_was_rendered_by_hand_is_data_like_any(tmp_path):
    write_miniature("kitti_semantics", tmp_path / "mine")
    prepare_data(tiny_study(tmp_path, text=with_miniature(tmp_path / "mine")))


def test_miniatures_at_full_scale_and_unknown_ones_are_refused(tmp_path):
    with pytest.raises(ValueError, match="miniatures is given at full scale"):
        tiny_study(tmp_path, "miniatures={somewhere: voc}")
    with pytest.raises(ValueError, match="is 'kitty'; there are miniatures of ade20k"):
        tiny_study(tmp_path, scale="toy", text=with_miniature("somewhere", "kitty"))
