import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from depthseg.metrics import ConfusionMatrix, segmentation_scores


def brute_force(prediction, labels, num_classes):
    """Scores by the definition of the Jaccard index on sets of pixels, in plain Python."""
    scored = [(p, t) for p, t in zip(prediction.ravel().tolist(), labels.ravel().tolist(), strict=True) if t != 255]
    ious, recalls = {}, {}
    for c in range(num_classes):
        predicted = {i for i, (p, _) in enumerate(scored) if p == c}
        true = {i for i, (_, t) in enumerate(scored) if t == c}
        if predicted | true:
            ious[c] = len(predicted & true) / len(predicted | true)
        if true:
            recalls[c] = len(predicted & true) / len(true)
    accuracy = sum(p == t for p, t in scored) / len(scored)
    return ious, sum(ious.values()) / len(ious), accuracy, sum(recalls.values()) / len(recalls)


def random_pair(seed, shape=(13, 17), num_classes=5):
    rng = np.random.default_rng(seed)
    labels = rng.choice([*range(num_classes), 255], shape, p=[0.4, 0.3, 0.1, 0.1, 0.0, 0.1]).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, labels, rng.integers(0, num_classes, shape))
    return np.where(prediction == 255, 0, prediction).astype(np.uint8), labels


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_the_definition(seed):
    prediction, labels = random_pair(seed)
    confusion = ConfusionMatrix(5)
    confusion.update(prediction, torch.from_numpy(labels))
    scores = segmentation_scores(confusion.state, list("abcde"))
    ious, mean_iou, accuracy, mean_accuracy = brute_force(prediction, labels, 5)
    assert scores["mean_iou"] == pytest.approx(mean_iou, abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert scores["mean_accuracy"] == pytest.approx(mean_accuracy, abs=1e-12)
    assert {c: scores["per_class_iou"]["abcde"[c]] for c in ious} == pytest.approx(ious, abs=1e-12)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_scores_are_those_of_the_definition_whatever_is_absent_or_ignored(data):
    num_classes = data.draw(st.integers(2, 6))
    present = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, unique=True))
    size = data.draw(st.integers(1, 60))
    labels = np.array(data.draw(st.lists(st.sampled_from([*present, 255]), min_size=size, max_size=size)))
    prediction = np.array(data.draw(st.lists(st.integers(0, num_classes - 1), min_size=size, max_size=size)))
    kind = data.draw(st.sampled_from([np.uint8, np.int16, np.int64]))
    confusion = ConfusionMatrix(num_classes)
    confusion.update(prediction.astype(kind), labels.astype(kind))
    if (labels == 255).all():
        with pytest.raises(ValueError, match="No labelled pixel"):
            confusion.compute()
        return
    scores = confusion.compute()
    ious, mean_iou, accuracy, mean_accuracy = brute_force(prediction, labels, num_classes)
    assert scores["mean_iou"] == pytest.approx(mean_iou, abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert scores["mean_accuracy"] == pytest.approx(mean_accuracy, abs=1e-12)
    assert {int(name): iou for name, iou in scores["per_class_iou"].items() if iou == iou} == pytest.approx(ious)
    assert set(scores["absent_classes"]) == {str(c) for c in range(num_classes)} - set(map(str, ious))


def test_by_hand():
    # truth 0 0 0 1 1, prediction 0 0 1 1 2; IoU 2/3, 1/3, 0/1; class 3 absent
    confusion = ConfusionMatrix(4)
    confusion.update(torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1]))
    assert confusion.state.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    scores = segmentation_scores(confusion.state, ["a", "b", "c", "d"])
    assert scores["mean_iou"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert scores["pixel_accuracy"] == pytest.approx(3 / 5)
    assert scores["mean_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert scores["per_class_iou"]["c"] == 0
    assert math.isnan(scores["per_class_iou"]["d"])
    assert scores["absent_classes"] == ["d"]
    assert all(type(scores[key]) is float for key in ("mean_iou", "pixel_accuracy", "mean_accuracy"))


def test_ignored_pixels_count_nowhere():
    labels = torch.tensor([[0, 1, 255, 255]])
    one, other = ConfusionMatrix(2), ConfusionMatrix(2)
    one.update(torch.tensor([[0, 1, 0, 0]]), labels)
    other.update(torch.tensor([[0, 1, 1, 1]]), labels)
    assert torch.equal(one.state, other.state)
    assert one.state.sum() == 2
    assert segmentation_scores(one.state, ["a", "b"])["pixel_accuracy"] == 1


def test_parts_add_up_to_the_whole():
    pairs = [random_pair(seed) for seed in range(4)]
    whole, first, second = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5)
    for index, (prediction, labels) in enumerate(pairs):
        (first if index % 2 else second).update(prediction, labels)
    whole.update(np.stack([p for p, _ in pairs]), np.stack([t for _, t in pairs]))
    first.state += second.state
    assert torch.equal(first.state, whole.state)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_every_integer_type_and_read_only_arrays(dtype, recwarn):
    labels = np.array([0, 1, 255]).astype(dtype)
    labels.flags.writeable = False
    confusion = ConfusionMatrix(2)
    confusion.update(labels % 2, labels)
    assert confusion.state.tolist() == [[1, 0], [0, 1]]
    assert not list(recwarn)


@pytest.mark.parametrize(
    ("prediction", "labels", "message"),
    [
        ([0, 2], [0, 1], "predicted class ids are outside the label space: 2. Allowed are 0 to 1"),
        ([0, -1], [0, 1], "predicted class ids are outside the label space: -1"),
        ([0, 255], [0, 255], "predicted class ids are outside the label space: 255"),
        ([0, 1], [0, 7], "labelled class ids are outside the label space: 7. Allowed are 0 to 1, and 255"),
        ([0, 1], [0, 1, 1], r"shape \(2,\), the labels \(3,\)"),
        ([0.5, 1.0], [0, 1], "give integer ids"),
    ],
)
def test_bad_input_is_named_and_not_counted(prediction, labels, message):
    confusion = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=message):
        confusion.update(torch.tensor(prediction), torch.tensor(labels))
    assert confusion.state.sum() == 0


def test_flipped_views_and_ids_beyond_a_byte(recwarn):
    prediction, labels = random_pair(3)
    plain, flipped, wide = ConfusionMatrix(5), ConfusionMatrix(5), ConfusionMatrix(5, ignore_index=70_000)
    plain.update(prediction, labels)
    flipped.update(prediction[:, ::-1], labels[:, ::-1])
    wide.update(prediction, np.where(labels == 255, 70_000, labels.astype(np.int64)))
    assert torch.equal(plain.state, flipped.state)
    assert torch.equal(plain.state, wide.state)
    assert not list(recwarn)


@pytest.mark.parametrize("num_classes", [2, 19, 127, 128, 129, 254])
def test_many_classes_are_counted_like_few(num_classes):
    rng = np.random.default_rng(num_classes)
    prediction = rng.integers(0, num_classes, (40, 50)).astype(np.uint8)
    labels = rng.choice([*range(num_classes), 255], (40, 50)).astype(np.uint8)
    confusion = ConfusionMatrix(num_classes)
    confusion.update(prediction, labels)
    expected = np.zeros((num_classes, num_classes), int)
    scored = labels != 255
    np.add.at(expected, (labels[scored], prediction[scored]), 1)
    np.testing.assert_array_equal(confusion.state.numpy(), expected)


def test_an_ignored_class_among_the_others():
    confusion = ConfusionMatrix(3, ignore_index=0)
    confusion.update(np.uint8([0, 1, 2, 0]), np.uint8([0, 0, 2, 1]))
    assert confusion.state.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


class Waits(TorchDispatchMode):
    """Counts what makes a processor wait for its device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2", "index", "item"):
            self.names.append(name)
        return operation(*arguments, **(options or {}))


def test_counting_on_a_device_waits_for_nothing_and_gives_the_same():
    pairs = [random_pair(seed) for seed in range(3)]
    here, there = ConfusionMatrix(5), ConfusionMatrix(5)
    with Waits() as waits:
        for prediction, labels in pairs:
            there._count_on_device(torch.from_numpy(prediction), torch.from_numpy(labels))
    assert waits.names == []
    for prediction, labels in pairs:
        here.update(prediction, labels)
    assert torch.equal(there.state, here.state)


@pytest.mark.parametrize(
    ("prediction", "labels", "message"),
    [
        ([0, 2, 7], [0, 255, 1], "The predicted class ids of 2 pixels are outside .* Allowed are 0 to 1"),
        ([0, 1, 1], [0, 9, 255], "The labelled class ids of 1 pixels are outside .* 0 to 1, and 255 for ignored"),
    ],
)
def test_wrong_ids_on_a_device_are_an_error_when_the_state_is_read(prediction, labels, message):
    confusion = ConfusionMatrix(2)
    confusion._count_on_device(torch.tensor(prediction), torch.tensor(labels))
    with pytest.raises(ValueError, match=message):
        confusion.compute()


def test_nothing_scored_is_an_error_and_not_nan():
    confusion = ConfusionMatrix(2)
    confusion.update(torch.tensor([0, 1]), torch.tensor([255, 255]))
    with pytest.raises(ValueError, match="No labelled pixel was evaluated"):
        segmentation_scores(confusion.state, ["a", "b"])
    with pytest.raises(ValueError, match="does not match 3 class names"):
        segmentation_scores(confusion.state, ["a", "b", "c"])
