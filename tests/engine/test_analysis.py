"""Measures of a model against the meters fed by hand, and features against their definition."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import BatchFeature

from depthseg.data import LabelSpace, Sample
from depthseg.engine.analysis import MEASURES, frozen_features, labels_of_cells, measure_model
from depthseg.metrics.boundaries import BoundaryIou
from depthseg.metrics.code_length import code_length
from depthseg.metrics.groups import IouByDepth, RecallBySize
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor


class Listed:
    """Samples in a list."""

    def __init__(self, samples, label_space):
        self.samples, self.label_space = samples, label_space
        self.names = [sample.name for sample in samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Echo(nn.Module):
    """Predicts the red channel; must be in eval mode and without gradients."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.config = SimpleNamespace(num_labels=3, semantic_loss_ignore_index=255)
        self.device = torch.device("cpu")

    def forward(self, pixel_values):
        assert not self.training and not torch.is_grad_enabled()
        return {"logits": self.weight * pixel_values[0, 0]}


class EchoProcessor:
    """Hands the image over as it is."""

    def __call__(self, images, return_tensors):
        return BatchFeature({"pixel_values": torch.from_numpy(images[0].astype(np.float32)).permute(2, 0, 1)[None]})

    def post_process_semantic_segmentation(self, outputs, target_sizes):
        assert tuple(outputs["logits"].shape) == tuple(target_sizes[0])
        return [outputs["logits"].long()]


SPACE = LabelSpace("abc", ("a", "b", "c"), ((0, 0, 0),) * 3)


def echoed(sizes=((20, 30), (24, 17)), depth=True):
    """Blocks of classes; the red channel has some of them moved."""
    rng = np.random.default_rng(0)
    samples = []
    for number, size in enumerate(sizes):
        blocks = rng.integers(0, 3, (6, 8)).repeat(5, 0).repeat(5, 1)[: size[0], : size[1]].astype(np.uint8)
        image = np.zeros((*size, 3), dtype=np.uint8)
        image[..., 0] = np.roll(blocks, 1, axis=1)
        labels = np.where(rng.random(size) < 0.05, 255, blocks).astype(np.uint8)
        metres = (np.array([5.0, 5.5, 50.0])[blocks] * (rng.random(size) < 0.9)).astype(np.float32)
        samples.append(Sample(f"s{number}", image, labels, metres if depth else None))
    return Listed([*samples, Sample("unlabelled", image)], SPACE)


PREDICTED = ["boundary_iou_by_edge", "recall_by_scale", "boundary_iou", "iou_by_depth"]


def test_predictions_are_measured_by_the_meters():
    data, model = echoed(), Echo().train()
    found = measure_model(model, EchoProcessor(), data, PREDICTED)
    assert model.training and list(found) == PREDICTED
    by_depth, by_size, boundary = IouByDepth(3), RecallBySize(3), BoundaryIou(3)
    for sample in data.samples[:2]:
        pair = (sample.image[..., 0], sample.labels)
        by_depth.update(*pair, sample.depth)
        by_size.update(*pair)
        boundary.update(*pair, sample.depth)
    edges = boundary.compute()
    assert found["iou_by_depth"] == by_depth.compute() and found["iou_by_depth"]["0-10 m"] < 1
    assert found["recall_by_scale"] == by_size.compute()
    assert found["boundary_iou"] == edges.pop("all")
    assert found["boundary_iou_by_edge"] == edges and len(set(edges.values()) - {None}) == 2


def test_without_depth_what_needs_it_is_none():
    data = echoed(depth=False)
    with_depth, found = (measure_model(Echo(), EchoProcessor(), each, PREDICTED) for each in (echoed(), data))
    assert found["iou_by_depth"] is found["boundary_iou_by_edge"] is None
    assert found["recall_by_scale"] == with_depth["recall_by_scale"]
    assert found["boundary_iou"] == with_depth["boundary_iou"]
    data.samples[0] = replace(data.samples[0], depth=np.zeros_like(echoed()[0].depth))  # a map without a known pixel
    assert measure_model(Echo(), EchoProcessor(), data, ["iou_by_depth"]) == {"iou_by_depth": None}


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    return DepthSegForSemanticSegmentation(
        DepthSegConfig(encoder_config=encoder, head_config={"decoder_channels": [8, 8, 8, 16, 16]}, num_labels=3)
    )


def test_all_measures_of_a_network_are_json(tiny, segmenter):
    data, processor = tiny.Blocks(6), DepthSegImageProcessor(size={"height": 32, "width": 64})
    segmenter.train()
    found = measure_model(segmenter, processor, data)
    assert segmenter.training and tuple(found) == tuple(MEASURES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found == measure_model(segmenter, processor, data)
    assert 0 <= found["cam_boundary_alignment"] <= 1 and set(found["boundary_iou_by_edge"]) == {"depth", "texture"}
    features, labels = frozen_features(segmenter, processor, data)
    cost = code_length(features, labels, 3)
    assert found["code_length"] == {
        "bits_per_pixel": cost.bits_per_pixel,
        "uniform_bits_per_pixel": pytest.approx(np.log2(3)),
    }


def test_features_that_know_the_colours_make_labels_cheap(tiny, segmenter):
    # The colour of a block tells its class; the stem sees colours, though it was never trained.
    data, processor = tiny.Blocks(15), DepthSegImageProcessor(size={"height": 32, "width": 64})
    features, labels = frozen_features(segmenter, processor, data, level=0)
    assert features[0].shape == (8, 16, 32) and labels[0].shape == (16, 32) and labels[0].dtype == torch.int64
    told = code_length(features, labels, 3).portions[-1].bits_per_pixel
    shuffled = code_length(features[1:] + features[:1], labels, 3).portions[-1].bits_per_pixel
    assert told < 0.5 * shuffled


def test_features_are_the_encoder_s_own(tiny, segmenter):
    data, processor = tiny.Blocks(2), DepthSegImageProcessor(size={"height": 32, "width": 64})
    features, _ = frozen_features(segmenter, processor, data)
    images = torch.stack([torch.from_numpy(data[index].image).permute(2, 0, 1) / 255 for index in range(2)])
    mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
    with torch.no_grad():
        expected = segmenter.eval().encoder.backbone((images - mean) / std)[2]
    torch.testing.assert_close(torch.stack(features), expected, rtol=1e-4, atol=1e-5)


def test_cells_take_the_label_under_their_middle():
    labels = np.random.default_rng(0).integers(0, 9, (45, 61)).astype(np.uint8)
    for cells in ((45, 61), (9, 61), (23, 31), (4, 7)):
        nearest = np.array(Image.fromarray(labels).resize(cells[::-1], Image.Resampling.NEAREST))
        assert np.array_equal(labels_of_cells(labels, cells, (45, 61), (45, 61)), nearest)
        # The image may have been encoded at another size than that of its labels.
        assert np.array_equal(labels_of_cells(labels, cells, (90, 122), (90, 122)), nearest)


def test_cells_in_the_padding_are_ignored():
    # 5 x 6 pixels padded to 8 x 8, cells of 2: middles at 1, 3, 5, 7 (edges between pixels, the pixel behind counts).
    labels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    expected = np.full((4, 4), 255)
    expected[:2, :3] = labels[np.ix_([1, 3], [1, 3, 5])]
    assert np.array_equal(labels_of_cells(labels, (4, 4), (5, 6), (8, 8)), expected)


@pytest.mark.parametrize(
    ("change", "names", "part"),
    [
        (lambda data: None, ["iou"], "no measure iou. There are iou_by_depth"),
        (lambda data: setattr(data, "label_space", None), MEASURES, "no label space"),
        (
            lambda data: setattr(data, "label_space", LabelSpace("two", ("x", "y"), ((0, 0, 0),) * 2)),
            MEASURES,
            "has 2 classes, the model 3",
        ),
        (lambda data: data.samples.__delitem__(slice(2)), ["boundary_iou"], "No sample of the data set has labels"),
    ],
)
def test_what_cannot_be_measured_is_said(change, names, part):
    data = echoed()
    change(data)
    with pytest.raises(ValueError, match=part):
        measure_model(Echo(), EchoProcessor(), data, names)


def test_a_level_that_is_not_there_is_said(tiny, segmenter):
    with pytest.raises(ValueError, match="level=5 is out of range; the encoder has 5 maps"):
        frozen_features(segmenter, DepthSegImageProcessor(), tiny.Blocks(1), level=5)
