"""The image processor against Pillow and NumPy by hand, and inside transformers' own tools."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.tiny_models import tiny_model
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, pipeline

from depthseg.models import DepthSegImageProcessor, check_input_scaling

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
SIZE = {"height": 32, "width": 48}


def test_scaling_by_hand():
    values = DepthSegImageProcessor()(IMAGE)["pixel_values"]
    assert values.dtype == torch.float32 and values.shape == (1, 3, 40, 60)
    expected = ((IMAGE / 255 - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(values[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_resizing_is_pillows_bilinear_with_antialiasing():
    values = DepthSegImageProcessor(size=SIZE, do_normalize=False)([IMAGE, IMAGE[:, ::-1]])["pixel_values"]
    expected = np.asarray(Image.fromarray(IMAGE).resize((48, 32), Image.Resampling.BILINEAR)) / 255
    assert values.shape == (2, 3, 32, 48)
    np.testing.assert_allclose(values[0].numpy(), expected.transpose(2, 0, 1), atol=1e-6)
    # Another implementation rounds elsewhere, by at most one grey level.
    tensor = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float()
    resized = F.interpolate(tensor, size=(32, 48), mode="bilinear", antialias=True, align_corners=False)[0]
    assert (values[0] * 255 - resized).abs().max() <= 1.0


def test_resizing_can_be_left_out():
    assert DepthSegImageProcessor(size=SIZE)(IMAGE, do_resize=False)["pixel_values"].shape == (1, 3, 40, 60)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_any_pillow_mode_becomes_rgb(mode):
    image = Image.fromarray(IMAGE).convert(mode)
    values = DepthSegImageProcessor(do_normalize=False)(image)["pixel_values"]
    expected = np.asarray(image.convert("RGB")) / 255
    np.testing.assert_allclose(values[0].permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_the_same_image_in_any_form_gives_the_same_values():
    processor = DepthSegImageProcessor()
    forms = [IMAGE, Image.fromarray(IMAGE), torch.from_numpy(IMAGE).permute(2, 0, 1), IMAGE[:, ::-1][:, ::-1]]
    values = [processor([form])["pixel_values"] for form in forms]
    assert all(torch.equal(value, values[0]) for value in values)
    grey = processor(IMAGE[..., 0])["pixel_values"]
    assert torch.equal(grey, processor(np.stack([IMAGE[..., 0]] * 3, axis=-1))["pixel_values"])


@pytest.mark.parametrize("size", [(7, 9), (32, 48), (33, 47), (80, 120), (1, 1), (361, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_label_maps_never_get_an_id_they_did_not_have(size, dtype):
    labels = np.random.default_rng(1).choice([1, 4, 9, 255], (40, 60)).astype(dtype)
    processor = DepthSegImageProcessor(size={"height": size[0], "width": size[1]})
    resized = processor(IMAGE, segmentation_maps=labels)["labels"]
    assert resized.shape == (1, *size) and resized.dtype == torch.int64
    assert set(resized.unique().tolist()) <= {1, 4, 9, 255}


@pytest.mark.parametrize("size", [(7, 9), (33, 47), (80, 120), (361, 5)])
def test_label_maps_are_resized_to_the_nearest_pixel(size):
    numbered = np.arange(40 * 60, dtype=np.int32).reshape(40, 60)
    processor = DepthSegImageProcessor(size={"height": size[0], "width": size[1]})
    rows, columns = np.divmod(processor(IMAGE, segmentation_maps=numbered)["labels"][0].numpy(), 60)
    centres = ((np.arange(size[0]) + 0.5) * 40 / size[0])[:, None], (np.arange(size[1]) + 0.5) * 60 / size[1]
    assert np.abs(rows + 0.5 - centres[0]).max() <= 0.5 + 1e-6
    assert np.abs(columns + 0.5 - centres[1]).max() <= 0.5 + 1e-6


def test_label_maps_follow_do_resize_and_come_as_pillow_images_too():
    ids = np.random.default_rng(2).integers(0, 11, (40, 60), dtype=np.uint8)
    processor = DepthSegImageProcessor(size=SIZE)
    kept = processor([IMAGE, IMAGE], segmentation_maps=[ids, Image.fromarray(ids)], do_resize=False)["labels"]
    assert kept.shape == (2, 40, 60)
    assert np.array_equal(kept[0], ids) and np.array_equal(kept[1], ids)


@pytest.mark.parametrize(
    ("images", "maps", "message"),
    [
        (IMAGE.astype(np.float32), None, r"An image is float32 of shape \(40, 60, 3\); allowed are"),
        (IMAGE[..., :2], None, r"An image is uint8 of shape \(40, 60, 2\); allowed are"),
        ("photo.png", None, "An image is str; allowed are"),
        ([IMAGE, IMAGE[:20]], None, "have different sizes"),
        (IMAGE, np.zeros((40, 60, 3), dtype=np.uint8), r"segmentation map is uint8 of shape \(40, 60, 3\)"),
        (IMAGE, np.zeros((40, 60)), "segmentation map is float64"),
        ([IMAGE, IMAGE], [np.zeros((40, 60), dtype=np.uint8)], "1 segmentation maps for 2 images"),
        (IMAGE, np.zeros((40, 61), dtype=np.uint8), r"segmentation map has the size \(40, 61\), its image \(40, 60\)"),
    ],
)
def test_what_is_no_image_or_label_map_is_refused(images, maps, message):
    with pytest.raises(ValueError, match=message):
        DepthSegImageProcessor()(images, segmentation_maps=maps)


def test_a_size_of_another_form_is_refused():
    with pytest.raises(ValueError, match="size is {'shortest_edge': 192}; give it as {'height'"):
        DepthSegImageProcessor(size={"shortest_edge": 192})


SETTINGS = [
    {},
    {"size": SIZE, "do_normalize": False},
    {"size": SIZE, "image_mean": [0.1, 0.2, 0.3], "image_std": (1, 2, 3), "resample": 3},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("loader", [DepthSegImageProcessor, AutoImageProcessor])
def test_saving_and_loading_gives_the_same_processor(settings, loader, tmp_path):
    processor = DepthSegImageProcessor(**settings)
    processor.save_pretrained(tmp_path / "first")
    loaded = loader.from_pretrained(tmp_path / "first")
    assert type(loaded) is DepthSegImageProcessor
    assert torch.equal(loaded(IMAGE)["pixel_values"], processor(IMAGE)["pixel_values"])
    loaded.save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / name / "preprocessor_config.json").read_bytes() for name in ("first", "second"))
    assert first == second
    assert json.loads(first)["auto_map"] == {"AutoImageProcessor": "image_processing_depthseg.DepthSegImageProcessor"}
    assert (tmp_path / "first" / "image_processing_depthseg.py").is_file()


def test_logits_are_resized_before_the_class_is_chosen():
    logits = torch.randn(2, 5, 8, 12)
    processor, outputs = DepthSegImageProcessor(), SimpleNamespace(logits=logits)
    plain = processor.post_process_semantic_segmentation(outputs)
    assert all(torch.equal(ids, logits[i].argmax(0)) for i, ids in enumerate(plain))
    resized = processor.post_process_semantic_segmentation(outputs, target_sizes=[(16, 24), (7, 9)])
    assert [tuple(ids.shape) for ids in resized] == [(16, 24), (7, 9)] and resized[0].dtype == torch.int64
    for index, ids in enumerate(resized):
        scores = F.interpolate(logits, size=ids.shape, mode="bilinear", align_corners=False)[index]
        assert torch.equal(ids, scores.argmax(0))


def test_depth_is_resized():
    depth = torch.arange(8.0).reshape(1, 2, 4)
    processor, outputs = DepthSegImageProcessor(), SimpleNamespace(predicted_depth=depth)
    assert torch.equal(processor.post_process_depth_estimation(outputs)[0]["predicted_depth"], depth[0])
    resized = processor.post_process_depth_estimation(outputs, target_sizes=[(1, 2)])[0]["predicted_depth"]
    assert resized.tolist() == [[2.5, 4.5]]


@pytest.mark.parametrize("method", ["post_process_semantic_segmentation", "post_process_depth_estimation"])
def test_one_target_size_an_image_is_needed(method):
    outputs = SimpleNamespace(logits=torch.randn(2, 3, 4, 4), predicted_depth=torch.randn(2, 4, 4))
    with pytest.raises(ValueError, match="target_sizes has 1 entries for 2 images"):
        getattr(DepthSegImageProcessor(), method)(outputs, target_sizes=[(8, 8)])


def test_scaling_twice_is_refused():
    inside = tiny_model("depth", input_mean=[0.45] * 3, input_std=[0.225] * 3).config
    outside = tiny_model("depth").config
    with pytest.raises(ValueError, match="images would be scaled twice"):
        check_input_scaling(inside, DepthSegImageProcessor())
    check_input_scaling(inside, DepthSegImageProcessor(do_normalize=False))
    check_input_scaling(outside, DepthSegImageProcessor())


def test_image_segmentation_pipeline_gives_the_masks_of_the_arg_max():
    model, processor = tiny_model("segmentation").eval(), DepthSegImageProcessor(size=SIZE)
    answers = pipeline("image-segmentation", model=model, image_processor=processor)(Image.fromarray(IMAGE))
    with torch.no_grad():
        logits = model(**processor(IMAGE)).logits
    ids = F.interpolate(logits, size=(40, 60), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    assert {answer["label"] for answer in answers} == {f"LABEL_{i}" for i in np.unique(ids)}
    for answer in answers:
        assert np.array_equal(np.asarray(answer["mask"]) > 0, ids == model.config.label2id[answer["label"]])


def test_depth_estimation_pipeline_gives_depth_at_the_size_of_the_image():
    model, processor = tiny_model("depth").eval(), DepthSegImageProcessor(size=SIZE)
    answer = pipeline("depth-estimation", model=model, image_processor=processor)(Image.fromarray(IMAGE))
    with torch.no_grad():
        depth = model(**processor(IMAGE)).predicted_depth
    expected = F.interpolate(depth[:, None], size=(40, 60), mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(answer["predicted_depth"], expected)
    assert answer["depth"].size == (60, 40)
