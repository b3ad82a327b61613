"""Scores of training images and figures of images in the report of a study whose numbers were made up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from study.made_up_study import iou, write_study
from study.tiny_study import TEXT, tiny_study

from depthseg.study.report import write_report
from depthseg.study.report.numbers import study_numbers
from depthseg.study.report.tables import class_tables
from depthseg.study.results import load_results

SETTING = {"architecture": "resnet18", "mode": "full", "benchmark": "streets", "num_labelled": 8}
CELLS = [
    SETTING | {"initialisation": init, "images": images, "mean_iou": 50.0, "pixel_accuracy": 60.0}
    for init in ("none", "depth")
    for images in ("train", "test")
]
PAPER = {"source": "Doe 2024, table 5", "not_in_text": [], "cells": CELLS}
WRONG = {(outer, inner): 10 + 4 * outer + inner for outer in (0, 1) for inner in range(3)}
HEAT = np.linspace(0, 255, 4 * 8).reshape(1, 4, 8).astype(np.uint8)


def keep(out, arrays, init, **place):
    """Add arrays to the matrices of the records of an initialisation, at the places that are given."""
    for path in sorted((out / "trials").glob("*.json")):
        record = json.loads(path.read_text())
        wanted = {"initialisation": init, "role": "main"} | place
        if record["kind"] == "finetune" and all(record[name] == value for name, value in wanted.items()):
            run = record["pretrain_seed"], record["finetune_seed"]
            with np.load(path.with_suffix(".npz")) as file:
                content = {name: file[name] for name in file.files}
            np.savez(path.with_suffix(".npz"), **content, **arrays(run))


def trained_on(run):
    """Two training images of 90 pixels of a class, of which some are lost, and 10 of another."""
    matrix = np.array([[90 - WRONG[run], WRONG[run]], [0, 10]])
    return {"training_images/train": np.stack([matrix] * 2), "training_images/train/names": np.array(["a", "b"])}


def images(colour):
    def arrays(run):
        plain = np.full((1, 4, 8, 3), colour, np.uint8)
        parts = {"image": plain, "labels": plain, "predicted": plain, "heat": HEAT, "names": np.array(["street"])}
        return {f"grad_cam/{name}": part for name, part in parts.items()}

    return arrays


def test_a_number_of_the_training_images_is_beside_ours_of_the_training_images(tmp_path):
    out = write_study(tmp_path, paper=PAPER)
    keep(out, trained_on, "none", mode="full", num_labelled=8)
    rows = study_numbers(load_results(out))["paper"]["cells"]
    none, of_test, depth, _ = rows
    scores = [100 * iou(wrong) for wrong in WRONG.values()]
    right = [100 - wrong for wrong in WRONG.values()]
    for name, expected, paper in (("mean_iou", scores, 50), ("pixel_accuracy", right, 60)):
        found = none[name]
        assert (found["mean"], found["sd"]) == pytest.approx((np.mean(expected), np.std(expected, ddof=1)))
        assert found["difference"] == pytest.approx(np.mean(expected) - paper)
    assert of_test["mean_iou"]["mean"] != none["mean_iou"]["mean"]
    # Records without the measure, such as those of another study in the directory.
    assert (depth["status"], depth["mean_iou"]["mean"]) == ("not run", None)


def test_numbers_of_training_images_need_their_measure(tmp_path):
    paper = "\npaper: {{cells: [{{initialisation: none, num_labelled: 2, images: train}}]}}\n"
    with pytest.raises(ValueError, match=r"paper.cells\[0\].images is train: add training_images to measures"):
        tiny_study(tmp_path, text=TEXT + paper)
    tiny_study(tmp_path, "measures=[training_images]", text=TEXT + paper)


def test_images_of_grad_cam_are_a_figure(tmp_path):
    out = write_study(tmp_path, measures=["grad_cam"])
    for init, colour in {"none": (200, 0, 0), "depth": (0, 200, 0)}.items():
        keep(out, images(colour), init, mode="frozen", num_labelled=8)
    report = write_report(out)
    section = report.read_text().partition("## Grad-CAM\n")[2].partition("\n## ")[0]
    assert "(figures/grad_cam2.png)" in section and "frozen, streets, 8 labels" in section
    figures = sorted(path.name for path in report.with_name("figures").glob("grad_cam*"))
    assert figures == ["grad_cam2.pdf", "grad_cam2.png"]
    pixels = np.array(Image.open(report.with_name("figures") / "grad_cam2.png").convert("RGB"))
    height, width = pixels.shape[:2]
    # A column of the image and its labels, then one of each initialisation, heat above the prediction.
    lower = pixels[height // 2 :]
    columns = [lower[:, place * width // 3 : (place + 1) * width // 3] for place in range(3)]
    shares = [[(column == colour).all(-1).mean() for colour in ((200, 0, 0), (0, 200, 0))] for column in columns]
    assert shares[0][0] > 0.4 and shares[1][0] > 0.4 and shares[2][1] > 0.4
    assert shares[2][0] == shares[1][1] == 0


def test_records_without_images_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("depthseg.study.report.write_figures", lambda *_: {})
    out = write_study(tmp_path, measures=["grad_cam"])
    assert "## Grad-CAM" not in write_report(out).read_text()
    assert "No record has images of Grad-CAM" in caplog.text
    caplog.clear()
    write_report(write_study(tmp_path / "other"))
    assert "Grad-CAM" not in caplog.text


def test_each_set_of_classes_has_a_table_and_many_classes_are_rows():
    few, many = ["road", "car"], [f"thing {number}" for number in range(30)]
    benchmarks = {"streets": few, "rooms": many}
    numbers = {
        "settings": [SETTING | {"benchmark": name} for name in benchmarks],
        "initialisations": {init: {"title": init.capitalize()} for init in ("none", "depth")},
        "per_class": [
            SETTING
            | {"benchmark": name, "initialisation": init, "records": []}
            | {"iou": {part: None if part == "car" else place + factor for place, part in enumerate(classes)}}
            for name, classes in benchmarks.items()
            for init, factor in (("none", 0.0), ("depth", 0.5))
        ],
    }
    streets, rooms = class_tables(numbers)
    assert [column.title for column in streets.columns] == ["Benchmark", "Initialisation", "road", "car"]
    assert [[column.text(row) for column in streets.columns] for row in streets.rows] == [
        ["streets", "None", "0.0", "\N{EN DASH}"],
        ["streets", "Depth", "0.5", "\N{EN DASH}"],
    ]
    assert [column.title for column in rooms.columns] == ["Class", "rooms, None", "rooms, Depth"]
    assert len(rooms.rows) == 30
    assert [column.text(rooms.rows[7]) for column in rooms.columns] == ["thing 7", "7.0", "7.5"]
