"""One class against a background: one logit, a sigmoid, ids 0 and 1, from the loss to the pipeline."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import pipeline

from depthseg.data import LabelSpace, Sample
from depthseg.engine.analysis import MEASURES, measure_model
from depthseg.engine.config import load_config
from depthseg.engine.grad_cam import grad_cam
from depthseg.engine.predict import load_model, predict, predict_maps
from depthseg.engine.run import train
from depthseg.metrics import ConfusionMatrix, segmentation_scores
from depthseg.metrics.hf import SegmentationMetric
from depthseg.models import (
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForImageClassification,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)

ENCODER = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}


@pytest.mark.parametrize("classes", [{"num_labels": 1}, {"id2label": {0: "crack"}}, {"one_class": True}])
def test_one_class_has_one_logit_and_two_ids(classes):
    config = DepthSegConfig(encoder_config=ENCODER, **classes)
    name = "crack" if "id2label" in classes else "LABEL_1"
    assert (config.num_labels, config.id2label, config.one_class) == (1, {0: "background", 1: name}, True)


def test_the_count_of_classes_may_change(tmp_path):
    config = DepthSegConfig(encoder_config=ENCODER, num_labels=3)
    config.num_labels = 1
    assert (config.num_labels, config.one_class) == (1, True)
    config.save_pretrained(tmp_path)
    assert DepthSegConfig.from_pretrained(tmp_path).num_labels == 1
    several = DepthSegConfig.from_pretrained(tmp_path, num_labels=4)
    assert (several.num_labels, len(several.id2label), several.one_class) == (4, 4, False)
    with pytest.raises(ValueError, match="one class against a background"):
        DepthSegConfig(encoder_config=ENCODER, one_class=True, num_labels=3)


def test_the_loss_is_the_binary_cross_entropy_over_known_pixels():
    torch.manual_seed(0)
    model = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=ENCODER, num_labels=1)).eval()
    labels = torch.randint(0, 2, (2, 32, 64))
    labels[0, :9] = 255
    outputs = model(torch.rand(2, 3, 32, 64), labels=labels)
    logits = F.interpolate(outputs.logits.double(), size=(32, 64), mode="bilinear", align_corners=False)[:, 0]
    probability = 1 / (1 + torch.exp(-logits))
    by_hand = -torch.where(labels == 1, probability, 1 - probability).log()[labels != 255].mean()
    assert outputs.logits.shape[1] == 1 and by_hand > 0.1
    torch.testing.assert_close(outputs.loss.double(), by_hand, rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match="0 to 1 and ignores 255"):
        model(torch.rand(1, 3, 32, 64), labels=torch.full((1, 32, 64), 2))


def test_a_pixel_belongs_to_the_class_from_a_probability_on():
    outputs = SimpleNamespace(logits=torch.tensor([[[[-3.0, -0.1], [0.1, 3.0]]]]))
    ids_of = DepthSegImageProcessor().post_process_semantic_segmentation
    assert ids_of(outputs)[0].tolist() == [[0, 0], [1, 1]]
    assert ids_of(outputs, threshold=0.9)[0].tolist() == [[0, 0], [0, 1]]  # logit of 0.9 is 2.2
    assert ids_of(outputs, threshold=0.1)[0].tolist() == [[0, 1], [1, 1]]
    # The logits are resized, not the ids: between -3 and 3 the border is in the middle.
    wide = SimpleNamespace(logits=torch.tensor([[[[-3.0, 3.0]]]]))
    assert ids_of(wide, [(1, 8)])[0].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        ids_of(outputs, threshold=1.0)
    with pytest.raises(ValueError, match="the model has 3 classes, of which the most probable is taken"):
        ids_of(SimpleNamespace(logits=torch.zeros(1, 3, 2, 2)), threshold=0.9)


def test_scores_are_those_of_the_class():
    truth = np.array([[1, 1, 0, 0], [1, 255, 0, 0]])
    predicted = np.array([[1, 0, 1, 0], [1, 1, 0, 0]])
    matrix = ConfusionMatrix(1)
    matrix.update(predicted, truth)
    by_hand = {"mean_iou": 2 / 4, "mean_accuracy": 2 / 3, "pixel_accuracy": 5 / 7}
    for scores in (
        segmentation_scores(matrix.state, ["crack"]),
        SegmentationMetric(["crack"]).compute(predictions=[predicted], references=[truth]),
    ):
        assert {name: scores[name] for name in by_hand} == pytest.approx(by_hand)
        assert scores["per_class_iou"] == pytest.approx({"crack": 2 / 4})
    nothing = ConfusionMatrix(1)
    for predicted in (0, 1):
        nothing.update(np.full((2, 2), predicted), np.zeros((2, 2), int))
        with pytest.raises(ValueError, match="No pixel of the ground truth is 'crack'"):
            segmentation_scores(nothing.state, ["crack"])


def test_measures_are_those_of_the_class():
    truth = np.zeros((60, 80), np.uint8)
    truth[10:50, 20:60] = 1
    predicted = np.roll(truth, 1, axis=1)
    depth = np.where(np.arange(60)[:, None] < 30, 5.0, 15.0) * np.ones((60, 80))
    depth[:, 70:] = 30.0  # without any pixel of the class
    shifted = SimpleNamespace(config=SimpleNamespace(num_labels=1))
    samples = [Sample("square", np.zeros((60, 80, 3), np.uint8), truth, depth.astype(np.float32))]
    dataset = Listed(samples, LabelSpace("cracks", ("crack",), ((0, 255, 0),)))
    of_predictions = [name for name, measure in MEASURES.items() if measure.compute is None]
    found = measure_model(shifted, None, dataset, of_predictions, [predicted])
    iou = 39 / 41
    assert found["iou_by_depth"] == pytest.approx(
        {"0-10 m": iou, "10-20 m": iou, "20-40 m": None, "40-80 m": None, "over 80 m": None}
    )
    assert found["recall_by_scale"]["over 10 %"] == pytest.approx(39 / 40)
    # The diagonal is 100 pixels, so bands are 2 wide: two squares of 40 without their middle of 36, shifted by one.
    band, either = band_of(truth) & band_of(predicted), band_of(truth) | band_of(predicted)
    assert band_of(truth).sum() == 40 * 40 - 36 * 36
    assert found["boundary_iou"] == pytest.approx(band.sum() / either.sum())
    missed = measure_model(shifted, None, dataset, ["boundary_iou"], [np.zeros_like(truth)])
    assert missed == {"boundary_iou": 0.0}


def band_of(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask with a pixel beside it at most 2 rows and columns away, inside of the image."""
    near = np.zeros(mask.shape, bool)
    for row, column in zip(*np.nonzero(mask), strict=True):
        near[row, column] = (mask[row - 2 : row + 3, column - 2 : column + 3] == 0).any()
    return near


class Listed:
    """Samples in a list."""

    def __init__(self, samples, label_space):
        self.samples, self.label_space = samples, label_space

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def test_heat_is_of_what_is_predicted_class_or_background():
    """One logit z is the softmax over -z/2 and z/2: the heat is half of that of the model with these two."""
    torch.manual_seed(0)
    one = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=ENCODER, num_labels=1)).eval()
    two = DepthSegForSemanticSegmentation(DepthSegConfig(encoder_config=ENCODER, num_labels=2)).eval()
    weights = one.state_dict()
    for name in weights:
        if name.startswith("classifier."):
            weights[name] = torch.cat([-weights[name] / 2, weights[name] / 2])
    two.load_state_dict(weights)
    images = torch.randn(2, 3, 32, 64)
    logits = one(images).logits
    assert (logits > 0).any() and (logits < 0).any()
    heat = grad_cam(one, images)
    assert heat.max() > 0
    torch.testing.assert_close(grad_cam(two, images) * 2, heat, rtol=1e-3, atol=1e-5 * heat.max().item())


def test_names_of_one_class():
    space = LabelSpace("cracks", ("crack",), ((0, 255, 0),))
    assert (space.classes, space.num_labels) == (("background", "crack"), 1)
    assert replace(space, name="walls").num_labels == 1
    with pytest.raises(ValueError, match="both called 'background'"):
        DepthSegConfig(encoder_config=ENCODER, id2label={0: "background"})
    with pytest.raises(ValueError, match="needs two classes or more"):
        DepthSegForImageClassification(DepthSegConfig(encoder_config=ENCODER, num_labels=1))


class Blobs:
    """Bright squares on a dark ground."""

    label_space = LabelSpace("blobs", ("blob",), ((0, 255, 0),))
    names = [f"blob_{index}" for index in range(6)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        labels = np.zeros((32, 64), np.uint8)
        top, left = rng.integers(0, 16), rng.integers(0, 40)
        labels[top : top + 16, left : left + 24] = 1
        image = np.clip(labels[..., None] * 150.0 + rng.integers(0, 60, (32, 64, 3)), 0, 255).astype(np.uint8)
        return Sample(self.names[index], image, labels)


@pytest.mark.heavy
def test_from_a_depth_network_to_the_pipeline(tmp_path, monkeypatch):
    depth = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=ENCODER))
    for part in (depth, DepthSegImageProcessor()):
        part.save_pretrained(tmp_path / "depth")
    overrides = {
        **{"model.pretrained": tmp_path / "depth", "data.size": "[32,64]", "optim.batch_size": 3, "optim.lr": 3e-3},
        **{"schedule.steps": 120, "run.eval_every": 60, "run.select": "last", "run.cpu": "true"},
        **{"run.trackers": "[]", "run.report": "false", "run.output_dir": tmp_path / "run"},
    }
    config = load_config(None, [f"{name}={value}" for name, value in overrides.items()])
    result = train(config, Blobs(), Blobs())
    first, last = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert 0 < last["train_loss"] < first["train_loss"]
    model, processor = load_model(result.model_dir, device="cpu")
    both = either = 0
    for sample in (Blobs()[index] for index in range(6)):
        ids = predict_maps(model, processor, sample.image)[0]
        both += ((ids == 1) & (sample.labels == 1)).sum()
        either += ((ids == 1) | (sample.labels == 1)).sum()
    assert result.scores["mean_iou"] == pytest.approx(both / either) and both / either > 0.5
    assert result.scores["per_class_iou"] == {"blob": result.scores["mean_iou"]}

    Image.fromarray(Blobs()[0].image).save(tmp_path / "blob.png")
    predict(result.model_dir, [tmp_path / "blob.png"], tmp_path / "out")
    written = np.array(Image.open(tmp_path / "out" / "labels" / "blob.png"))
    assert set(np.unique(written)) == {0, 1}
    assert list(json.loads((tmp_path / "out" / "json" / "blob.json").read_text())["classes"]) == ["background", "blob"]

    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("transformers").addHandler(handler)
    try:
        segment = pipeline("image-segmentation", model=model, image_processor=processor)
        found = segment(Image.fromarray(Blobs()[0].image))
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    masks = {part["label"]: np.array(part["mask"]) > 0 for part in found}
    assert masks.keys() == {"background", "blob"} and np.array_equal(masks["blob"], written == 1)
    assert not [message for message in messages if "not supported" in message]


class Masks(Blobs):
    """The same with masks as drawing programs save them: 255 where the square is."""

    def __getitem__(self, index):
        sample = super().__getitem__(index)
        return Sample(sample.name, sample.image, np.where(sample.labels == 1, 255, 0).astype(np.uint8))


def test_masks_of_0_and_255_are_refused_before_the_first_step(tmp_path):
    overrides = [f"model.encoder={ENCODER}", "data.size=[32,64]", "run.cpu=true", f"run.output_dir={tmp_path / 'run'}"]
    with pytest.raises(
        ValueError, match="None of 6 training label maps has a pixel of class 'blob'.*write 1 in place"
    ):
        train(load_config(None, overrides), Masks(), Blobs())
    assert not (tmp_path / "run").exists()
