"""Protocols of segmentation against plain loops that are written from the description of the released scorer."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine.kitti_like import FILE_IDS_OF_19, KittiLike, PixelModel, prediction_of, processor_of
from PIL import Image

from depthseg.data import LabelSpace
from depthseg.engine import evaluation
from depthseg.engine.evaluation import evaluate_model
from depthseg.engine.inference import Inference
from depthseg.engine.one_pass import evaluate_protocols, read_pass, write_pass
from depthseg.engine.protocols import rules_of
from depthseg.metrics import Stamp, scores_of_images
from depthseg.metrics.boundaries import BoundaryIou

ALL = ("standard", "paper-text", "paper-release")
PAPER = (192, 640)
SURVIVORS = {7: "road", 8: "sidewalk", 11: "building", 21: "vegetation", 22: "terrain", 23: "sky", 26: "car"}


def evaluated(model, data, names=ALL, processor=None, how=None, **options):
    rules = rules_of(names, model, data, how)
    return evaluate_protocols(model.eval(), processor or processor_of((32, 96)), data, rules, **options)


def released_scorer(prediction, file_ids):
    """One image by the released scorer: mean IoU, pixel accuracy, IoU of each id."""
    label = np.array(Image.fromarray(file_ids).convert("L").resize((640, 192)))
    for void in (-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30):
        label[label == void] = 0
    label[label > 33] = 0
    iou = np.full(34, np.nan)
    for c in range(1, 34):
        hits = np.sum((prediction == c) & (label == c))
        union = np.sum(prediction == c) + np.sum(label == c) - hits
        iou[c] = hits / union if union else np.nan
    ignore_list = [-1, 0, 1, 2, 3, 4, 5, 6, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 25, 27, 28, 29, 30, 31, 32]
    iou[ignore_list] = np.nan
    return np.nanmean(iou), np.sum(prediction == label) / np.sum(label > 0), iou


def to_file_ids(prediction, classes):
    return prediction if classes == 34 else np.array(FILE_IDS_OF_19, np.uint8)[prediction]


@pytest.mark.parametrize("classes", [34, 19])
@pytest.mark.parametrize("shrink", [1, 4])
def test_paper_release_is_the_released_scorer(classes, shrink):
    model, data = PixelModel(classes, shrink), KittiLike()
    scores = evaluated(model, data, ("paper-release",)).scores["paper-release"]
    images = []
    for sample, file_ids in zip(data.samples, data.file_ids, strict=True):
        prediction = prediction_of(model, sample.image, PAPER, Image.Resampling.BICUBIC)
        images.append(released_scorer(to_file_ids(prediction, classes), file_ids))
    means, accuracies, ious = (np.array(part) for part in zip(*images, strict=True))
    assert scores["mean_iou"] == pytest.approx(np.nanmean(means), abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(accuracies.mean(), abs=1e-12)
    with np.errstate(all="ignore"):
        expected = {name: np.nanmean(ious[:, id]) for id, name in SURVIVORS.items() if not np.isnan(ious[:, id]).all()}
    found = {name: value for name, value in scores["per_class_iou"].items() if not math.isnan(value)}
    assert found == pytest.approx(expected, abs=1e-12) and set(scores["per_class_iou"]) == set(SURVIVORS.values())


class Told(PixelModel):
    """Predicts the id that the red channel names."""

    def __init__(self, classes=34):
        super().__init__(classes)

    def forward(self, pixel_values):
        levels = ((pixel_values[:, 0] * 0.229 + 0.485) * 255).round().long()
        logits = torch.nn.functional.one_hot(levels.clamp(0, self.config.num_labels - 1), self.config.num_labels)
        return super().forward(pixel_values) | {"logits": logits.permute(0, 3, 1, 2).float()}


def of_maps(*pairs):
    """A data set whose images tell the model the first map of each pair; the second are the ids of the files."""
    data = KittiLike(count=len(pairs))
    for index, (told, ids) in enumerate(pairs):
        image = np.repeat(np.asarray(told, np.uint8)[..., None], 3, 2)
        data.samples[index] = SimpleNamespace(name=str(index), image=image, labels=np.uint8(ids), depth=None)
    return data


def flat(id, right=None):
    """A map of 192x640 of one id, or of two halves."""
    ids = np.full(PAPER, id)
    if right is not None:
        ids[:, 320:] = right
    return ids


def test_every_quirk_of_the_released_scorer_by_hand():
    # A perfect prediction, half of it void: the hits on void count, the pixels do not.
    perfect = evaluated(Told(), of_maps((flat(0, 7), flat(0, 7))), ("paper-release",)).scores["paper-release"]
    assert perfect["pixel_accuracy"] == pytest.approx(2.0, abs=0.02) and perfect["mean_iou"] > 0.97
    # A prediction on void is a false alarm: road on the void half halves its IoU.
    void = evaluated(Told(), of_maps((flat(7), flat(0, 7))), ("paper-release",)).scores["paper-release"]
    assert void["mean_iou"] == pytest.approx(0.5, abs=0.01)
    # Id 33 is the last of 34 and goes with the -1 of the ignore list; walls, 12, are on the list.
    for id in (33, 12):
        found = evaluated(Told(), of_maps((flat(id), flat(id)), (flat(7), flat(7))), ("paper-release",))
        scores = found.scores["paper-release"]
        assert scores["mean_iou"] == 1 and scores["per_class_iou"]["road"] == 1 and scores["pixel_accuracy"] == 1
    # Images weigh the same: one all wrong, one all right, whatever their classes.
    both = evaluated(Told(), of_maps((flat(7), flat(8)), (flat(7), flat(7))), ("paper-release",)).scores
    assert both["paper-release"]["mean_iou"] == 0.5


def test_interpolated_ids_are_those_of_other_classes():
    """Between road, 7, and car, 26, the bicubic filter makes up ids that are neither."""
    ids = np.full((384, 1280), 7)
    ids[:, 641:] = 26
    told = evaluated(
        Told(), of_maps((np.where(ids == 7, 7, 26), ids)), ("paper-text", "paper-release"), keep_matrices=True
    )
    truth = told.matrices["paper-release"][0].sum(1)
    # Pillow's own answer on what is between them.
    found, counts = np.unique(np.array(Image.fromarray(np.uint8(ids)).resize((640, 192))), return_counts=True)
    kept = {id: count for id, count in zip(found.tolist(), counts.tolist(), strict=True) if id in FILE_IDS_OF_19}
    assert {id: count for id, count in enumerate(truth.tolist()) if count and id} == kept and len(kept) > 2
    text = told.matrices["paper-text"][0].sum(1)
    assert {id for id, count in enumerate(text.tolist()) if count} == {0, 13}


@pytest.mark.parametrize(("model_classes", "data_classes"), [(34, 34), (19, 34), (34, 19), (19, 19)])
def test_paper_text_is_a_loop_over_pixels(model_classes, data_classes):
    model, data = PixelModel(model_classes), KittiLike(data_classes)
    scores = evaluated(model, data, ("paper-text",)).scores["paper-text"]
    hits, union, labelled = np.zeros(34), np.zeros(34), 0
    for sample, file_ids in zip(data.samples, data.file_ids, strict=True):
        prediction = prediction_of(model, sample.image, PAPER, Image.Resampling.BICUBIC)
        prediction = to_file_ids(prediction, model_classes)
        label = np.array(Image.fromarray(file_ids).resize((640, 192), Image.Resampling.NEAREST))
        known = np.isin(label, FILE_IDS_OF_19)
        labelled += known.sum()
        for c in FILE_IDS_OF_19:
            hits[c] += np.sum(known & (prediction == c) & (label == c))
            union[c] += np.sum(known & ((prediction == c) | (label == c)))
    found = [hits[c] / union[c] for c in FILE_IDS_OF_19 if union[c]]
    assert scores["mean_iou"] == pytest.approx(np.mean(found), abs=1e-12)
    assert scores["pixel_accuracy"] == pytest.approx(hits.sum() / labelled, abs=1e-12)
    assert len(scores["per_class_iou"]) == 19


@pytest.mark.parametrize("model_classes", [34, 19])
def test_standard_is_what_training_evaluates(model_classes):
    model, data = PixelModel(model_classes, shrink=2), KittiLike(model_classes)
    found = evaluated(model, data, ("standard",)).scores["standard"]
    expected = evaluate_model(model.eval(), processor_of((32, 96)), data, "segmentation")
    assert str(found) == str(expected) and found["mean_iou"] > 0
    # The same labels with all their ids: a model of 19 classes meets the same 19, and the stamp says so.
    again = evaluated(PixelModel(19, shrink=2), KittiLike(34), ("standard",)).scores["standard"]
    assert model_classes == 34 or str(again) == str(found)


def test_equal_inputs_share_a_forward_and_each_image_is_read_once():
    model, data = PixelModel(), KittiLike()
    evaluated(model, data)
    # The checkpoint's own size, and 192x640 for both protocols of the paper.
    assert data.reads == [0, 1, 2] and len(model.inputs) == 6
    assert {tuple(pixels.shape[-2:]) for pixels in model.inputs} == {(32, 96), PAPER}
    model, data = PixelModel(), KittiLike()
    evaluated(model, data, processor=processor_of(PAPER, Image.Resampling.BICUBIC))
    assert data.reads == [0, 1, 2] and len(model.inputs) == 3


def test_scores_of_one_pass_are_those_of_three():
    together = evaluated(PixelModel(), KittiLike()).scores
    for name in ALL:
        assert str(evaluated(PixelModel(), KittiLike(), (name,)).scores[name]) == str(together[name])
    digests = {scores["stamp"]["digest"] for scores in together.values()}
    assert len(digests) == 3
    assert Stamp.from_dict(together["paper-release"]["stamp"]).resolution == "192x640"


@pytest.mark.heavy
def test_several_processes_find_the_same_to_the_last_bit(tmp_path):
    """Five images over two processes; depth is a sum of floating-point numbers."""
    script = Path(__file__).with_name("kitti_like.py")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment = {name: value for name, value in environment.items() if not name.startswith("ACCELERATE")}
    for command, folder in (([*start, "2"], "two"), ([sys.executable], "one")):
        done = subprocess.run([*command, script, tmp_path / folder], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (two, names, ours), (one, expected, theirs) = (read_pass(tmp_path / folder) for folder in ("two", "one"))
    assert (two.pop("processes"), one.pop("processes")) == (2, 1)
    assert two == one and names == expected and len(one["protocols"]) == 3 and one["abs_rel"] > 0
    assert all(np.array_equal(ours[name], theirs[name]) for name in ALL)


def test_what_was_written_gives_the_scores_again(tmp_path):
    data = KittiLike()
    model = PixelModel()
    rules = rules_of(ALL, model, data)
    found = evaluate_protocols(model.eval(), processor_of((32, 96)), data, rules, keep_matrices=True)
    write_pass(tmp_path / "new", found, rules, data.names, {"dataset": "kitti"})
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"scores.json", "per_image.npz"}
    written, names, matrices = read_pass(tmp_path / "new")
    assert names == data.names and written["dataset"] == "kitti"
    for name, scores in written["protocols"].items():
        reduction = Stamp.from_dict(scores["stamp"]).reduction
        again = scores_of_images(matrices[name], scores["classes"], reduction, scores["evaluated"])
        assert again["mean_iou"] == scores["mean_iou"] and again["pixel_accuracy"] == scores["pixel_accuracy"]
    with (tmp_path / "new" / "per_image.npz").open("wb") as file:
        np.savez(file, names=np.array(names), standard=matrices["standard"])
    with pytest.raises(ValueError, match="of two evaluations; evaluate again"):
        read_pass(tmp_path / "new")


def test_boundaries_are_measured_at_the_size_of_standard():
    model, data = PixelModel(), KittiLike()
    found = evaluated(model, data, boundary=BoundaryIou(34)).scores
    expected = BoundaryIou(34)
    for sample in data.samples:
        small = torch.nn.functional.interpolate(
            model.head(torch.from_numpy(np.asarray(processor_of((32, 96))(sample.image)["pixel_values"]))),
            sample.labels.shape,
            mode="bilinear",
        )
        expected.update(small[0].argmax(0).numpy(), sample.labels)
    assert found["standard"]["boundary_iou"] == expected.compute()["all"] > 0
    assert "boundary_iou" not in found["paper-text"]


def test_images_without_labels_leave_the_accuracy_undefined(caplog):
    found = evaluated(Told(), of_maps((flat(7), flat(7)), (flat(7), flat(0))), ("paper-release",))
    scores = found.scores["paper-release"]
    assert math.isnan(scores["pixel_accuracy"]) and scores["mean_iou"] == 0.5
    assert "1 of the images have none" in caplog.text


SPACE = LabelSpace("abc", ("a", "b", "c"), ((0, 0, 0),) * 3)


class Abc(KittiLike):
    def __init__(self):
        super().__init__(ids=(0, 1, 2))
        self.label_space = SPACE


FAULTS = {
    "unknown": (PixelModel(), KittiLike(), ("paper-txt",), {}, "no protocol 'paper-txt'. Did you mean 'paper-text'"),
    "twice": (PixelModel(), KittiLike(), ("standard",) * 2, {}, "standard is named twice"),
    "none": (PixelModel(), KittiLike(), (), {}, "No protocol is named"),
    "model": (PixelModel(3), KittiLike(), ("paper-text",), {}, "paper-text needs a model of the classes cityscapes19"),
    "data": (PixelModel(19), Abc(), ("paper-text",), {}, "'abc' with 3 classes"),
    "ids": (PixelModel(19), KittiLike(19), ("paper-release",), {}, "Open the data set with the option classes=34"),
    "standard": (PixelModel(34), KittiLike(19), ("standard",), {}, "The model knows 34 classes"),
    "inference": (PixelModel(), KittiLike(), ("paper-text",), {"flip": True}, "belong to the protocol standard"),
}


@pytest.mark.parametrize(("model", "data", "names", "how", "sentence"), FAULTS.values(), ids=FAULTS)
def test_what_cannot_be_is_said(model, data, names, how, sentence):
    with pytest.raises(ValueError, match=sentence):
        rules_of(names, model, data, Inference(**how))


def test_the_image_at_fault_is_named():
    data = KittiLike()
    data.samples[1].labels[0, 0] = 77
    with pytest.raises(ValueError, match="Image '000001_10', protocol standard: .*outside the label space: 77"):
        evaluated(PixelModel(), data, ("standard",))


def test_sums_of_floating_point_numbers_follow_the_order_of_the_data_set(monkeypatch):
    """Two shares, gathered: 1e16 + 1 - 1e16 depends on the order, and must be that of one process."""
    monkeypatch.setattr(evaluation, "gather_object", lambda items: [[1e16, -1e16], [1.0]])
    accelerator = SimpleNamespace(num_processes=2)
    assert evaluation.in_order([1e16, -1e16], accelerator) == [1e16, 1.0, -1e16]
