"""An interval and a p-value of every committed report, by the formulae of its text and without code of the package."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

RESULTS = Path(__file__).parents[2] / "training" / "studies" / "results"


def points(confusions):
    """Mean IoU in points of added confusion matrices, over the classes that occur."""
    total = np.sum(confusions, axis=0)
    ious = []
    for k in range(len(total)):
        union = total[k].sum() + total[:, k].sum() - total[k, k]
        if union:
            ious.append(total[k, k] / union)
    return 100 * sum(ious) / len(ious)


def leaving_out(path):
    """Mean IoU of a run, and the pseudo-values of its blocks: B x score - (B - 1) x score without the block."""
    stored = np.load(path)
    confusion, blocks = stored["confusion"], stored["blocks"]
    whole, labels = points(confusion), sorted(set(blocks))
    return whole, [len(labels) * whole - (len(labels) - 1) * points(confusion[blocks != one]) for one in labels]


def variance_of_mean(numbers):
    return sum((number - sum(numbers) / len(numbers)) ** 2 for number in numbers) / (len(numbers) - 1) / len(numbers)


def interaction(table):
    rows, columns = len(table), len(table[0])
    means = [sum(row) / columns for row in table]
    below = [sum(row[column] for row in table) / rows for column in range(columns)]
    left = [table[i][j] - means[i] - below[j] + sum(means) / rows for i in range(rows) for j in range(columns)]
    return sum(one**2 for one in left) / ((rows - 1) * (columns - 1)) / (rows * columns)


def of_levels(difference, levels, together):
    """95 % interval and p-value; `levels` are (variance of the mean, degrees of freedom)."""
    error, total = math.sqrt(max(together, *(variance for variance, _ in levels))), sum(one for one, _ in levels)

    def outside(x):
        return sum(variance / total * 2 * stats.t.sf(x / error, freedom) for variance, freedom in levels)

    half = optimize.brentq(lambda x: outside(x) - 0.05, 1e-9, 1000 * error)
    return (difference - half, difference + half), outside(abs(difference))


def records(name, **labels):
    """The main runs with these labels, by seeds."""
    found = {}
    for path in sorted((RESULTS / name / "trials").glob("*.json")):
        content = json.loads(path.read_text())
        wanted = {"kind": "finetune", "role": "main", **labels}
        if all(content.get(label) == value for label, value in wanted.items()):
            found[content["pretrain_seed"], content["finetune_seed"]] = path.with_suffix(".npz")
    return [found[run] for run in sorted(found)]


def reported(name, place, a, b):
    rows = json.loads((RESULTS / name / "report" / "results.json").read_text())["comparisons"]
    (row,) = [row for row in rows if {**row, **place, "a": a, "b": b} == row]
    return row


def test_camvid_two_pretrainings_of_three_runs():
    place = {"architecture": "resnet18_half", "mode": "full", "benchmark": "val", "num_labelled": 16}
    inits = json.loads((RESULTS / "camvid" / "report" / "results.json").read_text())["initialisations"]
    runs = {init: [leaving_out(path) for path in records("camvid", initialisation=init, **place)] for init in inits}
    assert {len(found) for found in runs.values()} == {6}
    # the variance over the two pre-training seeds is that of all initialisations together, after their own effects
    means = np.array([[np.mean([one for one, _ in found[3 * s :][:3]]) for s in (0, 1)] for found in runs.values()])
    left = means - means.mean(0) - means.mean(1)[:, None] + means.mean()
    freedom = len(inits) - 1
    seeds = 2 * (left**2).sum() / freedom / 2
    a, b = "depth_supervised", "none"
    table = [
        np.mean([np.subtract(runs[a][3 * seed + i][1], runs[b][3 * seed + i][1]) for i in range(3)], axis=0)
        for seed in (0, 1)
    ]
    blocks = variance_of_mean(list(np.mean(table, axis=0)))
    difference = np.mean([one for one, _ in runs[a]]) - np.mean([one for one, _ in runs[b]])
    interval, p_value = of_levels(
        difference, [(seeds, freedom), (blocks, len(table[0]) - 1)], seeds + blocks - interaction(table)
    )
    row = reported("camvid", place, a, b)
    assert row["difference"] == pytest.approx(difference, rel=1e-6)
    assert row["interval"] == pytest.approx(interval, rel=1e-4) and row["p_value"] == pytest.approx(p_value, rel=1e-4)


def between_pretrainings(rows):
    """Variance over three pre-trainings beyond that of their draws, added over rows of nine draws sorted by them."""
    between = within = 0
    for row in rows:
        means = [sum(row[first : first + 3]) / 3 for first in (0, 3, 6)]
        between += 3 * sum((mean - sum(row) / 9) ** 2 for mean in means) / 2
        within += sum((row[place] - means[place // 3]) ** 2 for place in range(9)) / 6
    return max(0, between - within) / 3, within


@pytest.mark.parametrize(
    ("a", "b", "pretrained"),
    [
        ("imagenet", "none", 0),
        ("film_imagenet", "imagenet", 1),
        ("film", "inpainting", 2),
        ("film_imagenet", "other_films_imagenet", 2),
    ],
)
def test_camvid_real_nine_draws_under_three_pretrainings(a, b, pretrained):
    place = {"architecture": "mobilenet_v2", "mode": "full", "benchmark": "val", "num_labelled": 16}
    inits = ("none", "imagenet", "film", "film_imagenet", "other_films_imagenet", "inpainting")
    paths = {init: records("camvid_real", initialisation=init, **place) for init in inits}
    runs = {init: [leaving_out(path) for path in found] for init, found in paths.items()}
    assert {len(found) for found in runs.values()} == {9}
    table = [np.subtract(first, second) for (_, first), (_, second) in zip(runs[a], runs[b], strict=True)]
    means = [float(np.mean(row)) for row in table]
    if pretrained:
        # the variance over pre-trainings is that of all that have one, after the effect of each draw on all
        scores = [[one for one, _ in runs[init]] for init in inits]
        left = [[row[draw] - sum(other[draw] for other in scores) / 6 for draw in range(9)] for row in scores]
        seeds = between_pretrainings(left)[0] / 5 * 6 / 4 / 3 * pretrained
        levels = [(seeds, 2 * 4), (between_pretrainings([means])[1] / 9, 6)]
    else:
        levels = [(variance_of_mean(means), 8)]
    blocks = variance_of_mean(list(np.mean(table, axis=0)))
    levels.append((blocks, len(table[0]) - 1))
    difference = np.mean([one for one, _ in runs[a]]) - np.mean([one for one, _ in runs[b]])
    together = sum(variance for variance, _ in levels) - interaction(table)
    interval, p_value = of_levels(difference, levels, together)
    row = reported("camvid_real", place, a, b)
    assert row["difference"] == pytest.approx(difference, rel=1e-6)
    assert row["interval"] == pytest.approx(interval, rel=1e-4) and row["p_value"] == pytest.approx(p_value, rel=1e-4)
