"""Exported files: that they compute what model and image processor do, at any size, and say what they hold."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export.exported_models import PAIRS, noise, save_model
from models.tiny_models import tiny_model
from PIL import Image

from depthseg.cli import main
from depthseg.engine.predict import load_model, predict_maps
from depthseg.export import check, formats
from depthseg.export.command import describe, export
from depthseg.export.network import ExportedNetwork
from depthseg.models import DepthSegImageProcessor

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'depthseg[export]'")
PAGE = Path(__file__).parents[2] / "training" / "guides" / "exporting.md"


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def test_a_file_predicts_what_depthseg_predicts(vit):
    """Sizes with and without padding, and that of the native position embeddings, against `depthseg predict`."""
    folder, done = vit
    model, processor = load_model(folder, device="cpu")
    session = onnxruntime.InferenceSession(str(done.path))
    for height, width in ((56, 56), (100, 131), (112, 140), (61, 56), (43, 200)):
        image = noise(height, width, 3, seed=height)
        labels, logits, depth = session.run(None, {"images": image[None]})
        expected_labels, expected_depth = predict_maps(model, processor, image)
        assert labels.dtype == np.uint8 and labels.shape == (1, height, width)
        assert logits.shape == (1, 5, height, width)
        assert (labels[0] == expected_labels).mean() > 0.999  # ties apart
        np.testing.assert_allclose(depth[0], expected_depth, rtol=1e-4)


def test_a_batch_is_its_images(vit):
    session = onnxruntime.InferenceSession(str(vit[1].path))
    images = noise(3, 60, 75, 3)
    together = session.run(["depth"], {"images": images})[0]
    alone = [session.run(["depth"], {"images": image[None]})[0][0] for image in images]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5)


def test_a_file_says_what_it_is(vit):
    session = onnxruntime.InferenceSession(str(vit[1].path))
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", "height", "width", 3])
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes == {
        "labels": ["batch", "height", "width"],
        "logits": ["batch", 5, "height", "width"],
        "depth": ["batch", "height", "width"],
    }
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == [f"LABEL_{index}" for index in range(5)]
    assert np.shape(json.loads(about["palette"])) == (5, 3)
    assert json.loads(about["scaling"])["mean"] == [0.485, 0.456, 0.406]
    assert about["depth_type"] == "disparity"


def test_the_example_of_the_page_needs_no_torch(vit, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 22
    image = noise(70, 90, 3)
    Image.fromarray(image).save(tmp_path / "image.png")
    # What is set to None cannot be imported.
    blocked = "import sys\nfor name in ('torch', 'transformers', 'depthseg', 'onnx'): sys.modules[name] = None\n"
    words = [str(vit[1].path), str(tmp_path / "image.png"), str(tmp_path / "labels.png")]
    done = subprocess.run(
        [sys.executable, "-c", blocked + example, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "LABEL_4: " in done.stdout
    model, processor = load_model(vit[0], device="cpu")
    written = np.asarray(Image.open(tmp_path / "labels.png"))
    assert (written == predict_maps(model, processor, image)[0]).mean() > 0.999


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    """The older file stays as it was."""
    folder = save_model(tmp_path / "model", "depth", "depthseg_resnet", "linear")
    (tmp_path / "model.pt2").write_text("older")
    monkeypatch.setattr(check, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="differs from the model at 1 images of .* no file is written"):
        export(folder, tmp_path / "model.pt2", format="torch-export", overwrite=True)
    assert (tmp_path / "model.pt2").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.pt2"]


@pytest.mark.heavy
def test_labels_alone_are_checked_by_their_logits(tmp_path, monkeypatch):
    """Logits that are 1 % larger give the same labels, and are found all the same."""
    folder = save_model(tmp_path / "model", "segmentation", "depthseg_resnet", "linear")
    level = logging.getLogger("torch.onnx").level
    done = export(folder, tmp_path / "model.onnx", takes="pixel_values")
    assert logging.getLogger("torch.onnx").level == level
    assert [sorted(found) for found in done.differences.values()] == [["labels", "logits"]] * 5
    assert 0 < done.worst["logits"] <= 1e-4 and "in logits, relative to the largest value" in done.summary()
    session = onnxruntime.InferenceSession(str(done.path))
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.shape, returned.name) == ("pixel_values", ["batch", 3, "height", "width"], "labels")
    about = session.get_modelmeta().custom_metadata_map
    assert about["input"] == "pixel_values" and "already scaled and normalised" in about["input_values"]

    exact = check.reference
    larger = {"logits": 1.01, "depth": 1.0}
    monkeypatch.setattr(
        check, "reference", lambda *given: {name: larger[name] * value for name, value in exact(*given).items()}
    )
    with pytest.raises(ValueError, match="differs from the model .* in logits, relative to the largest value"):
        export(folder, tmp_path / "model.pt2", format="torch-export")
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize(
    ("options", "size", "resample"),
    [
        ({}, {"height": 192, "width": 640}, "bicubic"),
        ({"do_resize": False}, None, None),
        ({"size": None}, None, None),
    ],
)
def test_a_file_says_how_images_were_resized_in_training(options, size, resample):
    options = {"size": {"height": 192, "width": 640}, "resample": Image.Resampling.BICUBIC} | options
    processor = DepthSegImageProcessor(**options)
    model = tiny_model("segmentation", "depthseg_resnet", "linear")
    about = describe(ExportedNetwork(model, processor, ("labels",), "images"), processor, None)
    assert (about["trained_size"], about["resample"]) == (size, resample)


def refusal(run, images) -> str:
    with pytest.raises(Exception) as caught:  # each runtime has its own types
        run(images)
    return str(caught.value)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["model.onnx", "model.pt2"])
def test_a_file_for_one_size(tmp_path, name, capsys):
    """Of an encoder that has one; images of other sizes are refused, never resized or answered wrongly."""
    folder = save_model(tmp_path / "model", "segmentation", "hiera", "linear")
    path = tmp_path / name
    (format,) = (format for format, kind in formats.FORMATS.items() if kind.suffix == path.suffix)
    with pytest.raises(SystemExit) as ended:
        main(["export", str(folder), "--output", str(path), "--format", format, "--size", "64x64"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "(batch, 64, 64, 3)" in said and "Images of other sizes are refused." in said
    kind = formats.FORMATS[format]
    about = kind.describe(path)
    assert about["image_size"] == {"height": 64, "width": 64} and about["input_layout"] == ["batch", 64, 64, 3]
    model, processor = load_model(folder, device="cpu")
    images = noise(3, 64, 64, 3)
    expected = np.stack([predict_maps(model, processor, image)[0] for image in images])
    assert (kind.load(path)(images)[0] == expected).mean() > 0.999
    for height, width in ((64, 96), (96, 64), (128, 128)):
        assert str(max(height, width)) in refusal(kind.load(path), noise(1, height, width, 3))


@pytest.mark.heavy
def test_a_program_of_torch_export(tmp_path):
    folder = save_model(tmp_path / "model", "depth", "dinov2", "linear", depth_type="metric")
    done = export(folder, tmp_path / "model.pt2", format="torch-export", takes="pixel_values")
    extra = {formats.METADATA_FILE: ""}
    program = torch.export.load(done.path, extra_files=extra).module(check_guards=False)
    assert json.loads(extra[formats.METADATA_FILE])["depth_unit"] == "metres"
    model, _ = load_model(folder, device="cpu")
    for height, width in ((56, 56), (61, 99)):
        pixel_values = torch.rand(2, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(program(pixel_values)[0], model(pixel_values=pixel_values).predicted_depth)


@pytest.mark.parametrize(
    ("task", "encoder", "head", "words", "sentence"),
    [
        ("depth", "depthseg_resnet", "linear", ["--returns", "labels"], "predicts depth and no labels"),
        ("segmentation", "depthseg_resnet", "linear", ["--returns", "depth"], "has no depth predictor"),
        ("segmentation", "depthseg_resnet", "mask2former", [], "keep the size of the image that is traced"),
        (
            "segmentation",
            "hiera",
            "linear",
            [],
            "any size: .* only images of 64x64 pixels.* with --size 64x64",
        ),
        (
            "segmentation",
            "hiera",
            "linear",
            ["--size", "64x96"],
            "this size: .* only images of 64x64 pixels",
        ),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path, task, encoder, head, words, sentence):
    folder = save_model(tmp_path / "model", task, encoder, head)
    with pytest.raises(SystemExit, match=sentence):
        main(["export", str(folder), "--output", str(tmp_path / "model.onnx"), *words])
    assert not (tmp_path / "model.onnx").exists()


def test_an_existing_file_is_not_replaced(tmp_path):
    (tmp_path / "model.onnx").write_text("older")
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        export(tmp_path, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("name", "format", "sentence"),
    [
        ("model.pt2", "onnx", r"does not end in \.onnx, .* name it model\.onnx or pass --format torch-export\."),
        ("model.onnx", "torch-export", r"does not end in \.pt2, .* name it model\.pt2 or pass --format onnx\."),
        ("model", "onnx", r"does not end in \.onnx, as files of the format onnx do; name it model\.onnx\."),
    ],
)
def test_the_name_of_a_file_agrees_with_its_format(tmp_path, name, format, sentence):
    with pytest.raises(ValueError, match=sentence):
        export(tmp_path, tmp_path / name, format=format)


def test_a_missing_package_is_named_with_the_line_to_type(tmp_path, monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"needs onnx, onnxscript, onnxruntime; install with `pip install 'depthseg\["
    ):
        export(tmp_path, tmp_path / "model.onnx")


def test_the_difference_of_labels_is_that_of_their_logits():
    logits = np.array([[[[1.0, 4.0]], [[3.0, 2.0]]]])  # one image, two classes, two pixels: ids 1 and 0
    assert check.relative_difference("labels", np.array([[[1, 0]]]), {"logits": logits}) == 0
    assert check.relative_difference("labels", np.array([[[0, 0]]]), {"logits": logits}) == 0.5
    assert check.relative_difference("labels", np.array([[[1]]]), {"logits": logits}) == float("inf")


@pytest.mark.heavy
def test_swin_as_a_program_of_torch_export(tmp_path):
    folder = save_model(tmp_path / "model", "segmentation", "swin", "linear")
    done = export(folder, tmp_path / "model.pt2", format="torch-export", returns=["logits"])
    assert len(done.differences) == 5
    assert done.worst["logits"] <= 1e-4


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("encoder", "head", "head_config"), PAIRS, ids=[f"{encoder}-{head}" for encoder, head, _ in PAIRS]
)
def test_every_encoder_and_every_head(tmp_path, encoder, head, head_config):
    """`-s` prints the differences, as they are in the table of the guide."""
    has_depth = head != "mask_queries"
    folder = save_model(
        tmp_path / "model", "segmentation", encoder, head, head_config=head_config, keep_depth=has_depth
    )
    # Where EfficientNet is exported for any size, PyTorch reckons for minutes with the sizes of its padding.
    size = (64, 96) if encoder == "depthseg_efficientnet_lite" else None
    returns = ["logits", "depth"] if has_depth else ["logits"]
    done = export(folder, tmp_path / "model.onnx", returns=returns, size=size)
    print(f"\n| {encoder} | {head} |", " | ".join(f"{name} {value:.1e}" for name, value in done.worst.items()), "|")
    assert len(done.differences) == (5 if size is None else 3)
    assert max(done.worst.values()) <= 1e-4
