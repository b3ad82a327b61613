"""The numbers in the pages of training/guides are those of their scripts."""

from __future__ import annotations

import numpy as np
import pytest
from guide_scripts import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("is_this_iou_right")


def test_the_page_has_the_numbers_of_its_script(script):
    page = script.PAGE.read_text()
    assert page == script.fill(page), "run training/guides/is_this_iou_right.py"
    assert len(page.splitlines()) <= 90


def test_two_of_the_numbers_by_counting_pixels(script):
    """Own size with void excluded, and void as false alarms, of all classes that are labelled or predicted."""
    ids = [id for id, train_id in script.ENCODINGS["cityscapes19"].class_ids.items() if 0 <= train_id < 19]
    pairs = [(predicted.ravel(), labels.ravel()) for predicted, labels in script.example()]
    predicted, labels = map(np.concatenate, zip(*pairs, strict=True))
    found = {}
    for name, known in (("standard", np.isin(labels, ids)), ("void as false alarms", np.ones(len(labels), bool))):
        unions = {id: np.sum(known & ((predicted == id) | (labels == id))) for id in ids}
        ious = [np.sum((predicted == id) & (labels == id)) / union for id, union in unions.items() if union]
        found[name] = 100 * np.mean(ious)
    numbers = script.numbers()
    assert {name: numbers[name] for name in found} == pytest.approx(found)


def test_a_page_without_a_row_is_named(script):
    with pytest.raises(ValueError, match="has 0 rows named 'standard'"):
        script.fill("| name | mean IoU (%) |\n")


def test_the_page_of_frames_to_label_has_the_scores_of_its_runs():
    """Every random draw counted by hand for one row."""
    frames = load_script("which_frames_to_label")
    page = frames.PAGE.read_text(encoding="utf-8")
    assert page == frames.fill(page), "run training/guides/which_frames_to_label.py"
    runs = [run for run in frames.read().values() if run["count"] == 16]
    drawn = [run["mean_iou"] for run in runs if run["choice"] == "random"]
    chosen = [run["mean_iou"] for run in runs if run["choice"] == "coverage"]
    assert len(drawn) == 30 and len({tuple(run["frames"]) for run in runs if run["choice"] == "random"}) == 30
    below = sum(score < sum(chosen) / 3 for score in drawn)
    assert f"| {100 * sum(chosen) / 3:.1f} | {below} of 30 |" in page
    assert {run["run"] for run in frames.planned()} == set(frames.read())
