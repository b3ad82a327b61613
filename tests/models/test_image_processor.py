"""The image processor against Pillow and NumPy by hand, and inside transformers' own tools."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.tiny_models import tiny_model
from PIL import Image
from rounding import assert_same_up_to_rounding
from torch.nn import functional as F
from transformers import AutoImageProcessor, DPTImageProcessor, pipeline
from transformers.image_utils import ChannelDimension, SizeDict

from depthseg.models import DepthSegImageProcessor, check_input_scaling, image_inputs_depthseg

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


FLOATS = (IMAGE / 255).astype(np.float32)
TENSOR = torch.from_numpy(IMAGE).permute(2, 0, 1)
RGBA = np.dstack([IMAGE, IMAGE[..., :1]])
LAST, FIRST = {"input_data_format": "channels_last"}, {"input_data_format": ChannelDimension.FIRST}
SCALED = {"do_rescale": False}
FORMS = {
    "Pillow": (Image.fromarray(IMAGE), {}),
    "array": (IMAGE, {}),
    "array, channels first": (TENSOR.numpy(), {}),
    "array, channels first by name": (TENSOR.numpy(), FIRST),
    "view": (IMAGE[:, ::-1][:, ::-1], {}),
    "tensor": (TENSOR, {}),
    "tensor, channels last": (torch.from_numpy(IMAGE), {}),
    "tensor, channels last by name": (torch.from_numpy(IMAGE), LAST),
    "RGBA array": (RGBA, {}),
    "RGBA Pillow": (Image.fromarray(RGBA), {}),
    "int64 tensor": (TENSOR.long(), {}),
    "uint16 of whole levels": (IMAGE.astype(np.uint16) * 257, {}),
    "floats from 0 to 255": (IMAGE.astype(np.float64), {}),
    "float array": (FLOATS, SCALED),
    "float64 array, channels first": ((IMAGE / 255).transpose(2, 0, 1), SCALED),
    "float tensor": (torch.from_numpy(FLOATS).permute(2, 0, 1).requires_grad_(), SCALED),
    "float tensor, channels last": (torch.from_numpy(FLOATS), SCALED | LAST),
}


@pytest.mark.parametrize("size", [None, SIZE, {"height": 90, "width": 71}])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_image_in_any_form_gives_the_same_values(form, size):
    image, options = FORMS[form]
    processor = DepthSegImageProcessor(size=size)
    expected = processor(IMAGE)["pixel_values"]
    assert torch.equal(processor([image], **options)["pixel_values"], expected)
    assert torch.equal(processor(image, **options)["pixel_values"], expected)


@pytest.mark.parametrize("kind", [str, Path, "as_uri"])
def test_files_are_read_upright_and_addresses_too(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; shown turned by 90 degrees clockwise
    Image.fromarray(IMAGE).save(tmp_path / "a.png", exif=exif)
    place = kind(tmp_path / "a.png") if callable(kind) else None
    if place is None:
        place = "data:image/png;base64," + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    processor = DepthSegImageProcessor()
    expected = processor(np.rot90(IMAGE, -1))["pixel_values"]
    assert torch.equal(processor(place)["pixel_values"], expected)
    assert torch.equal(processor([place, place])["pixel_values"][1:], expected)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    with pytest.raises(FileNotFoundError, match="There is no image file .*none.png"):
        DepthSegImageProcessor()(tmp_path / "none.png")
    with pytest.raises(ValueError, match="broken.png cannot be read as an image"):
        DepthSegImageProcessor()(str(tmp_path / "broken.png"))


def test_batches_and_nested_lists():
    processor, other = DepthSegImageProcessor(), IMAGE[::-1]
    expected = processor([IMAGE, other])["pixel_values"]
    stacked = np.stack([IMAGE, other])
    for batch in (
        stacked,
        torch.from_numpy(stacked).permute(0, 3, 1, 2),
        [[IMAGE], [Image.fromarray(other)]],
        [stacked[:1], other],
    ):
        assert torch.equal(processor(batch)["pixel_values"], expected)
    maps = np.arange(2 * 40 * 60).reshape(2, 40, 60)
    labels = processor(torch.from_numpy(stacked), segmentation_maps=torch.from_numpy(maps))["labels"]
    assert np.array_equal(labels.numpy(), maps)


def test_grey_is_repeated():
    processor, grey = DepthSegImageProcessor(), IMAGE[..., 0]
    expected = processor(np.stack([grey] * 3, axis=-1))["pixel_values"]
    for form in (grey, grey[..., None], grey[None], torch.from_numpy(grey), Image.fromarray(grey)):
        assert torch.equal(processor(form)["pixel_values"], expected)
    mask = grey > 100
    assert torch.equal(processor(mask)["pixel_values"], processor(Image.fromarray(mask))["pixel_values"])


def test_arrays_have_channels_last_where_the_shape_does_not_tell():
    small = IMAGE[:3, :3]
    processor = DepthSegImageProcessor(do_normalize=False)
    assert torch.equal(processor(small)["pixel_values"][0], torch.from_numpy(small).permute(2, 0, 1) / 255)
    assert torch.equal(processor(torch.from_numpy(small))["pixel_values"][0], torch.from_numpy(small) / 255)
    assert torch.equal(processor(small, **FIRST)["pixel_values"][0], torch.from_numpy(small) / 255)


THEIR_CALLS = [
    (IMAGE, {}),
    (IMAGE, {"do_normalize": False}),
    (IMAGE, {"do_rescale": False}),
    (IMAGE, {"do_rescale": False, "do_normalize": False}),
    (IMAGE, {"rescale_factor": 1 / 127.5}),
    (IMAGE, {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 2.0, 3.0]}),
    (TENSOR, {}),
    (TENSOR.long(), {}),
    (torch.from_numpy(IMAGE), LAST),
    (FLOATS, SCALED),
    (np.random.default_rng(3).random((40, 60, 3)), SCALED),
    (torch.rand(2, 3, 40, 60), SCALED),
    (torch.randn(3, 40, 60), SCALED | {"do_normalize": False}),
]


@pytest.mark.parametrize("number", range(len(THEIR_CALLS)))
def test_calls_mean_what_they_mean_for_a_processor_of_transformers(number):
    images, options = THEIR_CALLS[number]
    theirs = DPTImageProcessor(do_resize=False, image_mean=MEAN.tolist(), image_std=STD.tolist(), do_convert_rgb=True)
    expected = theirs(images, return_tensors="pt", **options)["pixel_values"]
    found = DepthSegImageProcessor()(images, return_tensors="pt", **options)["pixel_values"]
    # Float32 against their float64 rounded at the end: numbers up to 1000.
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


def test_fine_floats_are_resized_without_rounding():
    fine = np.random.default_rng(4).random((40, 60, 3)).astype(np.float32)
    found = DepthSegImageProcessor(size=SIZE, do_normalize=False)(fine, do_rescale=False)["pixel_values"]
    expected = F.interpolate(
        torch.from_numpy(fine).permute(2, 0, 1)[None], size=(32, 48), mode="bilinear", antialias=True
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    bicubic = DepthSegImageProcessor(size={"height": 90, "width": 120}, resample=3, do_normalize=False)
    overshooting = bicubic(np.rint(fine), do_rescale=False)["pixel_values"]
    assert overshooting.min() == 0 and overshooting.max() == 1


CHANGES = {
    "size": {"height": 24, "width": 36},
    "do_resize": False,
    "resample": 3,
    "do_rescale": False,
    "rescale_factor": 1 / 127.5,
    "value_range": [50, 200],
    "do_normalize": False,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.6, 0.7],
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_is_an_attribute_and_an_argument_of_calls_and_of_loading(name, tmp_path):
    plain = DepthSegImageProcessor(size=SIZE)
    changed = DepthSegImageProcessor(**{"size": SIZE, name: CHANGES[name]})
    assert getattr(changed, name) == CHANGES[name] != getattr(plain, name)
    expected = changed(IMAGE)["pixel_values"]
    assert expected.shape != plain(IMAGE)["pixel_values"].shape or not expected.equal(plain(IMAGE)["pixel_values"])
    assert torch.equal(plain(IMAGE, **{name: CHANGES[name]})["pixel_values"], expected)
    assert getattr(plain, name) != CHANGES[name], "a call changes nothing for the next one"
    plain.save_pretrained(tmp_path)
    loaded = DepthSegImageProcessor.from_pretrained(tmp_path, **{name: CHANGES[name]})
    assert torch.equal(loaded(IMAGE)["pixel_values"], expected)
    loaded.save_pretrained(tmp_path)
    assert getattr(DepthSegImageProcessor.from_pretrained(tmp_path), name) == CHANGES[name]


@pytest.mark.parametrize("size", [24, [24, 24], SizeDict(height=24, width=24)])
def test_sizes_come_as_transformers_takes_them(size):
    assert DepthSegImageProcessor()(IMAGE, size=size)["pixel_values"].shape == (1, 3, 24, 24)


def test_results_come_as_asked_for():
    processor = DepthSegImageProcessor()
    expected = processor(IMAGE)["pixel_values"]
    assert torch.equal(processor(IMAGE, data_format="channels_last")["pixel_values"], expected.permute(0, 2, 3, 1))
    assert isinstance(processor(IMAGE, return_tensors="np")["pixel_values"], np.ndarray)
    assert processor(IMAGE, device="meta")["pixel_values"].device.type == "meta"
    lists = processor([IMAGE, IMAGE[:20]], return_tensors=None)["pixel_values"]
    assert [values.shape for values in lists] == [(3, 40, 60), (3, 20, 60)]


def test_unknown_options_of_a_call_are_refused():
    processor = DepthSegImageProcessor()
    with pytest.raises(TypeError, match="cannot do do_normalise=False. Did you mean .do_normalize.*options are"):
        processor(IMAGE, do_normalise=False)
    with pytest.raises(TypeError, match="cannot do do_center_crop=True"):
        processor(IMAGE, do_center_crop=True)
    harmless = {"do_convert_rgb": True, "do_pad": False, "do_center_crop": None, "disable_grouping": True}
    assert torch.equal(processor(IMAGE, **harmless)["pixel_values"], processor(IMAGE)["pixel_values"])


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
        (FLOATS, None, "An image is float32 with values from 0 to 1, which are rescaled already; pass do_rescale=Fal"),
        (FLOATS * 2 - 1, None, "from -1 to 1, which are rescaled already"),
        (np.where(IMAGE > 250, np.nan, IMAGE), None, "An image holds NaN"),
        (
            IMAGE.astype(np.int32) * 9,
            None,
            "An image is int32 with values from 0 to 2295. Without value_range",
        ),
        (IMAGE.astype(np.int64) - 1, None, "An image is int64 with values from -1 to 254"),
        (IMAGE[..., :2], None, r"An image is uint8 of shape \(40, 60, 2\); allowed are"),
        (IMAGE[None, None], None, r"An image is uint8 of shape \(1, 1, 40, 60, 3\); allowed are"),
        (IMAGE[:0], None, r"An image is uint8 of shape \(0, 60, 3\); allowed are"),
        (IMAGE.astype(np.complex64), None, "An image is complex64"),
        (3, None, "An image is int; allowed are"),
        ([], None, "There is no image in the batch"),
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


def test_layouts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"An image is uint8 of shape \(40, 60, 3\); allowed are"):
        DepthSegImageProcessor()(IMAGE, **FIRST)
    with pytest.raises(ValueError, match="input_data_format is 'hwc'; allowed are channels_first and channels_last"):
        DepthSegImageProcessor()(IMAGE, input_data_format="hwc")
    with pytest.raises(ValueError, match="data_format is 'hwc'; allowed are"):
        DepthSegImageProcessor()(IMAGE, data_format="hwc")


@pytest.mark.parametrize("given", [[4095, 0], [0], 4095, [0, float("nan")], ["a", "b"], [3, 3]])
def test_ranges_that_are_none_are_refused(given):
    with pytest.raises(ValueError, match=r"value_range is .*; give \[low, high\]"):
        DepthSegImageProcessor(value_range=given)


RANGES = {8: [0, 255], 10: [0, 1023], 12: [0, 4095], 14: [0, 16383], 16: None, 13: [1000, 5000]}


@pytest.mark.parametrize("bits", RANGES)
@pytest.mark.parametrize("form", ["array", "int32", "float", "tensor", "Pillow", "Pillow 32", "PNG", "TIFF"])
def test_deep_images_are_scaled_by_their_range_once(bits, form, tmp_path):
    ramp = np.linspace(0, 2**bits - 1, 40 * 60).round().astype(np.uint16).reshape(40, 60)
    low, high = RANGES[bits] or (0, 65535)
    expected = np.clip((ramp.astype(np.float64) - low) / (high - low), 0, 1)
    if form in ("PNG", "TIFF"):
        Image.fromarray(ramp).save(tmp_path / f"ramp.{form.lower()}")
    image = {
        "array": ramp,
        "int32": ramp.astype(np.int32),
        "float": ramp.astype(np.float32),
        "tensor": torch.from_numpy(ramp)[None],
        "Pillow": Image.fromarray(ramp),
        "Pillow 32": Image.fromarray(ramp.astype(np.int32)),
        "PNG": tmp_path / "ramp.png",
        "TIFF": str(tmp_path / "ramp.tiff"),
    }[form]
    # 16 bits are the full range of uint16 alone.
    full = {"value_range": [0, 65535]} if bits == 16 and form in ("int32", "float") else {}
    processor = DepthSegImageProcessor(do_normalize=False, value_range=RANGES[bits])
    processor.save_pretrained(tmp_path)
    for scaled in (processor, AutoImageProcessor.from_pretrained(tmp_path)):
        values = scaled(image, **full)["pixel_values"]
        assert values.shape == (1, 3, 40, 60)
        np.testing.assert_allclose(values[0].numpy(), np.stack([expected] * 3), rtol=0, atol=1e-6)
    once = processor.to_rgb(image) if not full else processor._with_options(**full).to_rgb(image)
    again = processor(once, value_range=[0, 255])["pixel_values"]
    np.testing.assert_allclose(again[0].numpy(), np.stack([expected] * 3), rtol=0, atol=1e-6)


def test_images_of_8_bits_keep_their_scale_where_the_range_is_beyond_it():
    assert torch.equal(
        DepthSegImageProcessor(value_range=[0, 4095])(IMAGE)["pixel_values"],
        DepthSegImageProcessor()(IMAGE)["pixel_values"],
    )
    window = DepthSegImageProcessor(value_range=[50, 200], do_normalize=False)(IMAGE)["pixel_values"]
    expected = np.clip((IMAGE.astype(np.float64) - 50) / 150, 0, 1).transpose(2, 0, 1)
    np.testing.assert_allclose(window[0].numpy(), expected, atol=1e-6)


def test_values_are_clipped_before_they_are_resized():
    hot = np.full((8, 8), 100, np.uint16)
    hot[::2] = 60000
    values = DepthSegImageProcessor(size={"height": 4, "width": 4}, value_range=[0, 200], do_normalize=False)(hot)
    expected = Image.fromarray(np.where(hot > 200, 1, 0.5).astype(np.float32)).resize((4, 4), 2)
    np.testing.assert_allclose(values["pixel_values"][0, 0].numpy(), np.asarray(expected), atol=1e-6)


def test_a_warning_where_many_pixels_are_clipped_or_nothing_is_bright(monkeypatch):
    said = []
    monkeypatch.setattr(image_inputs_depthseg.logger, "warning_once", said.append)
    ramp = np.linspace(0, 4095, 2400).astype(np.uint16).reshape(40, 60)
    DepthSegImageProcessor(value_range=[0, 4000])(ramp)
    DepthSegImageProcessor()(np.full((4, 4), 20000, np.uint16))
    assert not said
    DepthSegImageProcessor(value_range=[0, 3000])(ramp)
    assert "More than 5 % of the pixels of an image are outside the value_range [0, 3000]" in said.pop()
    DepthSegImageProcessor()(ramp)
    assert "no value_range, so that it is dark" in said.pop()
    assert not said


def test_a_size_of_another_form_is_refused():
    with pytest.raises(ValueError, match="size is {'shortest_edge': 192}; give it as {'height'"):
        DepthSegImageProcessor(size={"shortest_edge": 192})


SETTINGS = [
    {},
    {"size": SIZE, "do_normalize": False},
    {"size": SIZE, "image_mean": [0.1, 0.2, 0.3], "image_std": (1, 2, 3), "resample": 3},
    {"do_resize": False, "rescale_factor": 1 / 127.5, "value_range": (10, 200)},
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


def test_the_backend_is_pillow_whatever_is_asked_for(tmp_path, caplog):
    DepthSegImageProcessor().save_pretrained(tmp_path)
    for options in ({}, {"backend": "pil"}, {"use_fast": False}, {"use_fast": True}, {"backend": "torchvision"}):
        for loader in (AutoImageProcessor, DepthSegImageProcessor):
            loaded = loader.from_pretrained(tmp_path, **options)
            assert type(loaded) is DepthSegImageProcessor and loaded.backend == "pil"
            assert torch.equal(loaded(IMAGE)["pixel_values"], DepthSegImageProcessor()(IMAGE)["pixel_values"])
    assert "DepthSegImageProcessor has one backend, 'pil'" in caplog.text


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
    segment = pipeline("image-segmentation", model=model, image_processor=processor, device="cpu")
    answers = segment(Image.fromarray(IMAGE))
    with torch.no_grad():
        logits = model(**processor(IMAGE)).logits
    ids = F.interpolate(logits, size=(40, 60), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    assert {answer["label"] for answer in answers} == {f"LABEL_{i}" for i in np.unique(ids)}
    for answer in answers:
        assert np.array_equal(np.asarray(answer["mask"]) > 0, ids == model.config.label2id[answer["label"]])


def test_depth_estimation_pipeline_gives_depth_at_the_size_of_the_image():
    model, processor = tiny_model("depth").eval(), DepthSegImageProcessor(size=SIZE)
    answer = pipeline("depth-estimation", model=model, image_processor=processor, device="cpu")(Image.fromarray(IMAGE))
    with torch.no_grad():
        depth = model(**processor(IMAGE)).predicted_depth
    expected = F.interpolate(depth[:, None], size=(40, 60), mode="bilinear", align_corners=False)[0, 0]
    assert_same_up_to_rounding(answer["predicted_depth"], expected)
    assert answer["depth"].size == (60, 40)
