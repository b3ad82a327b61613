import json
import socket
import subprocess
import sys

import evaluate
import numpy as np
import pytest
import torch

from depthseg.metrics import ConfusionMatrix, DepthErrors, segmentation_scores
from depthseg.metrics.hf import DepthMetric, SegmentationMetric

CLASSES = ("a", "b", "c", "d")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def label_pairs():
    rng = np.random.default_rng(0)
    sizes = [(4, 5), (6, 3), (7, 7), (1, 9)]
    labels = [rng.choice([0, 1, 2, 255], size).astype(np.uint8) for size in sizes]
    return [rng.integers(0, 3, size).astype(np.uint8) for size in sizes], labels


def test_segmentation_equals_the_plain_scores(tmp_path):
    predictions, references = label_pairs()
    metric = SegmentationMetric(CLASSES, cache_dir=str(tmp_path))
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    metric.add(prediction=torch.from_numpy(predictions[2]), reference=torch.from_numpy(references[2]))
    confusion = ConfusionMatrix(4)
    for prediction, labels in zip(predictions, references, strict=True):
        confusion.update(prediction, labels)
    expected = segmentation_scores(confusion.state, CLASSES)
    assert expected["absent_classes"] == ["d"]
    computed = metric.compute(predictions=predictions[3:], references=references[3:])
    np.testing.assert_equal(computed, expected)


def test_depth_equals_the_plain_errors(tmp_path):
    rng = np.random.default_rng(1)
    truth = [rng.uniform(0, 90, (5, 6)) for _ in range(4)] + [np.zeros((5, 6))]
    predictions = [depth * rng.uniform(0.5, 2) + 1 for depth in truth]
    protocol = {"alignment": "median", "max_depth": 60.0}
    metric = DepthMetric(protocol, cache_dir=str(tmp_path))
    metric.add_batch(predictions=predictions[:3], references=truth[:3])
    errors = DepthErrors(**protocol)
    for predicted, depth in zip(predictions, truth, strict=True):
        errors.update(predicted, depth)
    computed = metric.compute(predictions=predictions[3:], references=truth[3:])
    assert computed == pytest.approx(errors.compute())
    assert (computed["images"], computed["images_without_depth"]) == (4, 1)


def test_no_maps_are_kept(tmp_path):
    metric = SegmentationMetric(CLASSES, cache_dir=str(tmp_path))
    for _ in range(3):
        metric.add_batch(predictions=np.zeros((2, 300, 400), int), references=np.zeros((2, 300, 400), int))
    metric._finalize()
    rows = metric.data["predictions"][:]
    assert [len(row) for row in rows] == [16]
    assert sum(map(sum, rows)) == 6 * 300 * 400


def test_it_can_be_used_again_and_combined(tmp_path):
    predictions, references = label_pairs()
    one = SegmentationMetric(CLASSES, cache_dir=str(tmp_path), keep_in_memory=True)
    first = one.compute(predictions=predictions, references=references)
    second = one.compute(predictions=predictions, references=references)
    assert first["mean_iou"] == second["mean_iou"]
    both = evaluate.combine([one, SegmentationMetric(("x", "y", "z", "w"), cache_dir=str(tmp_path))])
    for prediction, labels in zip(predictions, references, strict=True):
        both.add_batch(predictions=[prediction], references=[labels])
    combined = both.compute()
    shared = [value for key, value in combined.items() if key.endswith("mean_iou")]
    assert shared
    assert all(value == first["mean_iou"] for value in shared)


def test_bad_input_is_named(tmp_path):
    metric = SegmentationMetric(CLASSES, cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="2 predictions but 1 references"):
        metric.add_batch(predictions=[np.zeros((2, 2), int)] * 2, references=[np.zeros((2, 2), int)])
    with pytest.raises(ValueError, match="outside the label space: 9"):
        metric.add(prediction=np.full((2, 2), 9), reference=np.zeros((2, 2), int))


ONE_OF_TWO = """
import json, sys
import numpy as np
from depthseg.metrics.hf import SegmentationMetric

folder, rank = sys.argv[1], int(sys.argv[2])
metric = SegmentationMetric("abcd", cache_dir=folder, num_process=2, process_id=rank, experiment_id="two")
rng = np.random.default_rng(0)
for index in range(7):
    labels, prediction = rng.choice([0, 1, 2, 255], (40, 30)), rng.integers(0, 3, (40, 30))
    if index % 2 == rank:
        metric.add(prediction=prediction, reference=labels)
scores = metric.compute()
assert (scores is None) == (rank > 0)
print(json.dumps(scores))
"""


@pytest.mark.heavy
def test_two_processes_give_the_scores_of_one_to_the_last_bit(tmp_path):
    found = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(tmp_path), str(rank)], stdout=subprocess.PIPE)
        for rank in (0, 1)
    ]
    printed = [process.communicate(timeout=120)[0] for process in found]
    assert [process.returncode for process in found] == [0, 0]
    alone, rng = SegmentationMetric(CLASSES, cache_dir=str(tmp_path)), np.random.default_rng(0)
    for _ in range(7):
        labels, prediction = rng.choice([0, 1, 2, 255], (40, 30)), rng.integers(0, 3, (40, 30))
        alone.add(prediction=prediction, reference=labels)
    np.testing.assert_equal(json.loads(printed[0]), alone.compute())
