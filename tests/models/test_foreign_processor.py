"""Settings of transformers' own image processors, read from the files that they write, and their pixel values."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DPTImageProcessor, GLPNImageProcessor, ZoeDepthImageProcessor

from depthseg.models import DepthSegImageProcessor

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
SCALING = {"do_resize", "do_rescale", "rescale_factor"}
# Not saved while they are None: value_range.
OURS = {"size", "resample", "do_normalize", "image_mean", "image_std"} | SCALING


def saved(folder, processor):
    processor.save_pretrained(folder)
    return folder


def write(folder, **entries):
    (folder / "preprocessor_config.json").write_text(json.dumps(entries))
    return folder


@pytest.mark.parametrize("resample", [2, 3])
def test_pixel_values_are_those_of_dpt(tmp_path, resample):
    theirs = DPTImageProcessor(
        size={"height": 28, "width": 42}, image_mean=MEAN, image_std=STD, resample=resample, keep_aspect_ratio=False
    )
    ours = DepthSegImageProcessor.from_pretrained(saved(tmp_path, theirs))
    expected = theirs(images=Image.fromarray(IMAGE), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours(images=IMAGE)["pixel_values"], expected, rtol=0, atol=1e-5)
    # Nothing is carried along that this processor does not do.
    assert set(vars(ours)) == OURS | {"value_range"}


def test_a_size_that_is_asked_for_wins_and_nothing_is_said(tmp_path, caplog):
    theirs = DPTImageProcessor(size={"height": 518, "width": 518}, keep_aspect_ratio=True, ensure_multiple_of=14)
    folder = saved(tmp_path, theirs)
    with caplog.at_level(logging.WARNING):
        ours = DepthSegImageProcessor.from_pretrained(folder, size={"height": 28, "width": 42})
        assert not caplog.records
        assert ours(images=IMAGE)["pixel_values"].shape == (1, 3, 28, 42)
        assert DepthSegImageProcessor.from_pretrained(folder).size == {"height": 518, "width": 518}
    assert "keeps the aspect ratio" in caplog.text and "518 x 518" in caplog.text


def test_it_is_the_same_after_saving(tmp_path):
    theirs = DPTImageProcessor(size={"height": 28, "width": 42}, image_mean=MEAN, image_std=STD, resample=3)
    (tmp_path / "a").mkdir()
    ours = DepthSegImageProcessor.from_pretrained(saved(tmp_path / "a", theirs))
    again = DepthSegImageProcessor.from_pretrained(saved(tmp_path / "b", ours))
    assert all(getattr(again, name) == getattr(ours, name) for name in OURS)
    stored = json.loads((tmp_path / "b" / "preprocessor_config.json").read_text())
    assert set(stored) == OURS | {"image_processor_type", "auto_map"}


def test_glpn_does_not_normalise(tmp_path):
    ours = DepthSegImageProcessor.from_pretrained(saved(tmp_path, GLPNImageProcessor()))
    pixels = ours(images=IMAGE)["pixel_values"]
    np.testing.assert_array_equal(pixels[0].permute(1, 2, 0).numpy(), IMAGE.astype(np.float32) / 255)
    assert ours.size is None  # the next multiple of 32 of each image


def test_zoedepth_normalises_to_plus_minus_one(tmp_path):
    ours = DepthSegImageProcessor.from_pretrained(saved(tmp_path, ZoeDepthImageProcessor()))
    pixels = ours(images=IMAGE, do_resize=False)["pixel_values"]
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0).numpy(), IMAGE / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "size"),
    [
        ({"size": 384}, {"height": 384, "width": 384}),  # as DPTFeatureExtractor wrote it
        ({"size": {"shortest_edge": 256}}, None),
        ({"size": {"height": 8, "width": 9}, "do_resize": False}, None),
    ],
)
def test_sizes_of_older_and_other_files(tmp_path, entries, size):
    normalisation = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
    write(tmp_path, feature_extractor_type="DPTFeatureExtractor", **normalisation, **entries)
    ours = DepthSegImageProcessor.from_pretrained(tmp_path)
    assert (ours.size, ours.image_mean, set(vars(ours))) == (size, MEAN, OURS | {"value_range"})


@pytest.mark.parametrize(
    "entries", [{"do_rescale": False}, {"rescale_factor": 1 / 127.5}, {"do_normalize": True}, {"image_mean": MEAN}]
)
def test_other_scalings_are_refused(tmp_path, entries):
    write(tmp_path, image_processor_type="SomeImageProcessor", **entries)
    with pytest.raises(ValueError, match="SomeImageProcessor does not divide pixels by 255, or normalises without"):
        DepthSegImageProcessor.from_pretrained(tmp_path)
