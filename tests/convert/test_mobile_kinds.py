"""MobileNetV2 and EfficientNet-Lite after conversion, with random weights and with the real ImageNet ones."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from convert.published_convnets import EfficientNetLite, MobileNetV2, randomise
from engine.tiny_run import SIZE, Blocks
from PIL import Image

from depthseg import (
    DepthSegForImageClassification,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)
from depthseg.cli import main
from depthseg.convert.saving import convert
from depthseg.engine.config import load_config
from depthseg.engine.run import train

DATA = Path(os.environ.get("DEPTHSEG_DATA", ""))
PUBLISHED = DATA / "weights" / "mobilenet_v2-b0353104.pth"
STREET = {468, 475, 656, 705, 717, 751, 817, 829, 864, 867, 874, 919, 920}
"""Ids of ImageNet-1k: cab, car mirror, minivan, passenger car, pickup, racer, sports car, tram, tow truck, lorry,
trolleybus, street sign, traffic light."""
IMAGE = torch.rand(1, 3, 65, 98, generator=torch.Generator().manual_seed(1))

needs_data = pytest.mark.skipif(not PUBLISHED.is_file(), reason="DEPTHSEG_DATA names no folder with real weights")


def kind_of(folder: Path) -> str:
    return json.loads((folder / "conversion.json").read_text())["kind"]


@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (MobileNetV2(), "torchvision-mobilenet-v2"),
        (MobileNetV2(0.35), "torchvision-mobilenet-v2"),
        (MobileNetV2(1.4), "torchvision-mobilenet-v2"),
        (EfficientNetLite(0), "efficientnet-lite"),
        (EfficientNetLite(1), "efficientnet-lite"),
        (EfficientNetLite(2), "efficientnet-lite"),
    ],
    ids=["MobileNetV2", "MobileNetV2 0.35", "MobileNetV2 1.4", "Lite0", "Lite1", "Lite2"],
)
def test_class_scores_are_those_of_the_published_network(network, kind, tmp_path):
    randomise(network, 5)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    convert([tmp_path / "weights.pth"], tmp_path / "out")
    assert kind_of(tmp_path / "out") == kind
    model = DepthSegForImageClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        found, expected = model(IMAGE).logits, network(IMAGE)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_efficientnet_lite_is_scaled_as_in_its_training(tmp_path):
    torch.save(EfficientNetLite(0).state_dict(), tmp_path / "weights.pth")
    convert([tmp_path / "weights.pth"], tmp_path / "out")
    processor = DepthSegImageProcessor.from_pretrained(tmp_path / "out")
    image = np.full((8, 8, 3), 255, np.uint8)
    pixel_values = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixel_values, torch.full((1, 3, 8, 8), (255 - 127) / 128), rtol=1e-5, atol=0)


def test_efficientnet_of_no_known_size_is_refused(tmp_path):
    state = {k: v for k, v in EfficientNetLite(0).state_dict().items() if not k.startswith("_blocks.15.")}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="EfficientNet of 15 blocks, the last of 192 channels"):
        convert([tmp_path / "weights.pth"], tmp_path / "out")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """The real weights, converted by the command."""
    folder = tmp_path_factory.mktemp("imagenet") / "mobilenet_v2"
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(PUBLISHED), "--output-dir", str(folder)])
    assert not ended.value.code
    return folder


@needs_data
def test_real_mobilenet_sees_a_street(imagenet):
    # torchvision's protocol: short side 256, the middle 224; classes of ImageNet-1k that are vehicles or street signs.
    paths = sorted((DATA / "camvid" / "val").glob("*.png"))
    image = Image.open(paths[0]).convert("RGB").resize((341, 256), Image.Resampling.BILINEAR).crop((58, 16, 282, 240))
    pixel_values = DepthSegImageProcessor.from_pretrained(imagenet)(image, return_tensors="pt")["pixel_values"]
    model = DepthSegForImageClassification.from_pretrained(imagenet)
    with torch.no_grad():
        logits = model(pixel_values).logits
    network = MobileNetV2(num_classes=1000).eval()
    network.load_state_dict(torch.load(PUBLISHED, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(logits, network(pixel_values), rtol=1e-4, atol=1e-4)
    assert set(logits.topk(3).indices[0].tolist()) & STREET


@needs_data
def test_real_mobilenet_becomes_a_segmenter(imagenet):
    model = DepthSegForSemanticSegmentation.from_pretrained(imagenet, num_labels=11)
    assert {part.part: part.status for part in model.transfer_report.parts if part.part == "encoder"} == {
        "encoder": "taken"
    }
    stem = torch.load(PUBLISHED, weights_only=True)["features.0.0.weight"]
    assert torch.equal(model.encoder.backbone.features[0][0].weight, stem)
    with torch.no_grad():
        assert model(IMAGE).logits.shape == (1, 11, 65, 98)
    licences = [entry["licence"] for entry in model.config.weight_lineage if "licence" in entry]
    assert licences == ["BSD-3-Clause; trained on ImageNet, whose terms allow non-commercial research"]


@pytest.mark.parametrize("head_type", ["monodepth2", "linear"])
def test_converted_classifier_is_fine_tuned_by_a_run(head_type, tmp_path):
    torch.save(randomise(MobileNetV2(0.1), 5).state_dict(), tmp_path / "weights.pth")
    convert([tmp_path / "weights.pth"], tmp_path / "out")
    options = [f"model.pretrained={tmp_path / 'out'}", f"model.head_type={head_type}", f"data.size={list(SIZE)}"]
    options += ["optim.batch_size=2", "schedule.steps=2", "run.trackers=[]", "run.cpu=true"]
    config = load_config(None, [*options, f"run.output_dir={tmp_path / 'run'}"])
    result = train(config, Blocks(4), Blocks(2, seed=1))
    model = DepthSegForSemanticSegmentation.from_pretrained(result.model_dir)
    assert model.config.id2label == {0: "left", 1: "right", 2: "far"}
    assert model.config.weight_lineage[0]["source_class"] == "torchvision-mobilenet-v2"
    assert DepthSegImageProcessor.from_pretrained(result.model_dir).image_mean == [0.485, 0.456, 0.406]
