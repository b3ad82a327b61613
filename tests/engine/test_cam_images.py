"""Images with Grad-CAM against the parts that they are made of."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine.test_analysis import Listed
from PIL import Image

from depthseg.data import LabelSpace, Sample
from depthseg.engine.analysis import measure_model
from depthseg.engine.cam_images import cam_images
from depthseg.engine.grad_cam import grad_cam
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SIZE = (32, 64)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    head = {"decoder_channels": [8, 8, 8, 16, 16]}
    return DepthSegForSemanticSegmentation(
        DepthSegConfig(encoder_config=encoder, head_config=head, num_labels=3)
    ).train()


@pytest.fixture
def data():
    """Five images of twice the size that the network sees, of blocks of four pixels."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(5):
        blocks = rng.integers(0, 256, (16, 32, 4), np.uint8).repeat(4, 0).repeat(4, 1)
        samples.append(Sample(f"s{number}", blocks[..., :3], (blocks[..., 3] % 3).astype(np.uint8)))
    return Listed(samples, LabelSpace("abc", ("a", "b", "c"), COLOURS))


def test_first_middle_and_last_image_at_the_size_that_the_network_sees(model, data):
    processor = DepthSegImageProcessor(size={"height": SIZE[0], "width": SIZE[1]})
    found = cam_images(model, processor, data)
    assert model.training and found.names == ("s0", "s2", "s4")
    for name, part in found.arrays().items():
        assert len(part) == 3 and (name == "names" or part.dtype == np.uint8 and part.shape[1:3] == SIZE)
    for place, sample in enumerate(data.samples[::2]):
        assert np.array_equal(found.image[place], np.array(Image.fromarray(sample.image).resize(SIZE[::-1])))
        assert np.array_equal(found.labels[place], np.array(COLOURS)[sample.labels[::2, ::2]])
        pixels = processor(images=[sample.image], return_tensors="pt")["pixel_values"]
        heat = grad_cam(model, pixels)  # at half the size
        heat = torch.nn.functional.interpolate(heat[None], size=SIZE, mode="bilinear")[0, 0].numpy()
        assert (
            np.abs(found.heat[place] - 255 * heat / heat.max()).max() <= 0.5 + 1e-3 and found.heat[place].max() == 255
        )
        with torch.no_grad():
            outputs = model.eval()(pixels)
        labels = processor.post_process_semantic_segmentation(outputs, [sample.labels.shape])[0].numpy()
        assert np.array_equal(
            found.predicted[place], np.array(COLOURS)[labels[1::2, 1::2]]
        )  # the pixel under the middle
        model.train()


def test_the_measure_keeps_the_images_and_has_no_number(model, data):
    processor, kept = DepthSegImageProcessor(size={"height": SIZE[0], "width": SIZE[1]}), {}
    assert measure_model(model, processor, data, ["grad_cam"], kept=kept) == {"grad_cam": None}
    parts = ("names", "image", "labels", "predicted", "heat")
    assert set(kept) == {f"grad_cam/{part}" for part in parts}
    assert kept["grad_cam/names"].tolist() == ["s0", "s2", "s4"]


def test_without_labels_there_is_nothing_to_see(model, data):
    data.samples = [SimpleNamespace(labels=None)] * 5
    processor = DepthSegImageProcessor(size={"height": SIZE[0], "width": SIZE[1]})
    assert cam_images(model, processor, data) is None
