"""Grad-CAM against closed forms and finite differences."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rounding import assert_same_up_to_rounding
from torch import nn
from transformers import BatchFeature

from depthseg.data import LabelSpace, Sample
from depthseg.engine.grad_cam import cam_boundary_alignment, grad_cam
from depthseg.models import DepthSegConfig, DepthSegForSemanticSegmentation
from depthseg.models.encoders_base_depthseg import EncoderFeatures


class LinearEncoder(nn.Module):
    """Three maps: one that nothing is computed from, a 1x1 convolution, and its 2x2 means; images become even."""

    def __init__(self, channels=4):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)

    def forward(self, pixel_values):
        height, width = pixel_values.shape[-2:]
        padded = nn.functional.pad(pixel_values, (0, width % 2, 0, height % 2), mode="replicate")
        shallow = self.stem(padded)
        maps = [padded.mean(1, keepdim=True), shallow, nn.functional.avg_pool2d(shallow, 2)]
        return EncoderFeatures(maps, None, (1.0, 1.0, 2.0), (height, width), tuple(padded.shape[-2:]))


class LinearModel(nn.Module):
    """Logits are a 1x1 convolution of the last map."""

    def __init__(self, channels=4, classes=3):
        super().__init__()
        self.encoder = LinearEncoder(channels)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.config = SimpleNamespace(num_labels=classes, semantic_loss_ignore_index=255)
        self.device = torch.device("cpu")

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.classifier(self.encoder(pixel_values).maps[-1]))


def closed_form(model, pixel_values):
    """Each pixel of the logits has the gradient of its class's weights; a mean hands a quarter of it down."""
    maps = model.encoder(pixel_values).maps
    predicted = model.classifier(maps[2]).argmax(1)
    weights = model.classifier.weight[:, :, 0, 0][predicted].mean((1, 2)) / 4
    return torch.einsum("bc,bchw->bhw", weights, maps[1]).clamp(min=0).detach()


def test_linear_model_in_closed_form_on_the_shallowest_map_that_counts():
    torch.manual_seed(2)
    model, pixel_values = LinearModel(), torch.randn(3, 3, 6, 8)
    with torch.no_grad():
        heat = grad_cam(model, pixel_values)
    expected = closed_form(model, pixel_values)
    assert heat.shape == (3, 6, 8) and heat.dtype == torch.float32
    assert 0.1 < (expected > 0).float().mean() < 0.9
    torch.testing.assert_close(heat, expected)
    assert not model.encoder._forward_hooks


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    encoder = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    model = DepthSegForSemanticSegmentation(
        DepthSegConfig(encoder_config=encoder, head_config={"decoder_channels": [8, 8, 8, 16, 16]}, num_labels=3)
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double()


def test_resnet_equals_finite_differences_at_its_stem(segmenter):
    pixel_values = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    backbone = segmenter.eval().encoder.backbone
    stem = torch.relu(backbone.bn1(backbone.conv1(pixel_values))).detach()
    push = torch.zeros_like(stem)
    hook = backbone.relu.register_forward_hook(lambda module, given, output: output + push)
    with torch.no_grad():
        predicted = segmenter(pixel_values).logits.argmax(1, keepdim=True)
        assert len(predicted.unique()) > 1
        weights = []
        for channel in range(stem.shape[1]):
            sums = []
            for step in (1e-6, -1e-6):
                push.zero_()[:, channel] = step
                sums.append(segmenter(pixel_values).logits.gather(1, predicted).sum().item())
            weights.append((sums[0] - sums[1]) / 2e-6 / (stem.shape[2] * stem.shape[3]))
    hook.remove()
    expected = (torch.tensor(weights)[:, None, None] * stem[0]).sum(0).clamp(min=0)
    heat = grad_cam(segmenter, pixel_values)[0]
    assert heat.shape == (16, 32) and expected.max() > 0
    torch.testing.assert_close(heat.double(), expected, rtol=1e-5, atol=1e-5 * expected.max().item())


def test_nothing_changes_in_the_model(segmenter):
    segmenter.train()
    segmenter.head.eval()  # apart from the rest
    modes = {name: module.training for name, module in segmenter.named_modules()}
    for parameter in segmenter.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    state = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    pixel_values = torch.randn(2, 3, 32, 64)
    heat = grad_cam(segmenter, pixel_values)
    assert {name: module.training for name, module in segmenter.named_modules()} == modes
    assert all((parameter.grad == 3).all() for parameter in segmenter.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in segmenter.state_dict().items())
    assert not pixel_values.requires_grad and not heat.requires_grad
    torch.testing.assert_close(heat[1:], grad_cam(segmenter, pixel_values[1:]))  # whatever else is in the batch


def test_frozen_encoders_have_a_map_too(segmenter):
    pixel_values = torch.randn(1, 3, 32, 64)
    heat = grad_cam(segmenter, pixel_values)
    segmenter.freeze_encoder()
    segmenter.requires_grad_(False)
    assert heat.max() > 0
    assert_same_up_to_rounding(grad_cam(segmenter, pixel_values), heat)
    assert not any(parameter.requires_grad for parameter in segmenter.parameters())


class Halves:
    """Two classes side by side, an odd number of columns; red is bright within 2 pixels of the boundary."""

    label_space = LabelSpace("halves", ("a", "b", "c"), ((0, 0, 0),) * 3)

    def __init__(self, bright):
        labels = np.zeros((8, 19), dtype=np.uint8)
        labels[:, 10:] = 1
        image = np.zeros((8, 19, 3), dtype=np.uint8)
        image[:, bright, 0] = 255
        self.samples = [Sample("one", image, labels), Sample("unlabelled", image), Sample("two", image, labels)]
        self.names = [sample.name for sample in self.samples]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class Processor:
    """Hands the image over as it is, in [0, 1]."""

    def __call__(self, images, return_tensors):
        pixels = torch.from_numpy(images[0].astype(np.float32) / 255)
        return BatchFeature({"pixel_values": pixels.permute(2, 0, 1)[None]})


@pytest.mark.parametrize(
    ("bright", "expected"),
    # Near the boundary are columns 8 to 11, 4 of 19. Of the 15 others the bright ones tie or win.
    [(slice(8, 12), 1.0), (slice(0, 0), 0.5), (slice(12, 19), (8 / 15) * 0.5), (slice(8, 10), 0.5 + 0.5 * 0.5)],
)
def test_alignment_with_boundaries(bright, expected):
    model = LinearModel(channels=1, classes=3)
    with torch.no_grad():
        model.encoder.stem.weight.copy_(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
        model.encoder.stem.bias.zero_()
        model.classifier.weight.copy_(torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1))
        model.classifier.bias.zero_()
    assert cam_boundary_alignment(model, Processor(), Halves(bright)) == pytest.approx(expected)


def test_without_boundaries_there_is_no_alignment():
    data = Halves(slice(0, 4))
    data.samples = [Sample("one", sample.image, sample.labels * 0) for sample in data.samples[:1]]
    assert cam_boundary_alignment(LinearModel(), Processor(), data) is None
