"""Images of more than 8 bits: one scale in training, scoring, prediction and the processor by itself."""

from __future__ import annotations

import argparse
import json
import logging

import numpy as np
import pytest
import torch
from engine.tiny_run import tiny_config
from PIL import Image

from depthseg.data import FolderDataset, Sample, StereoPairs, VideoSequences
from depthseg.data import value_range as value_ranges
from depthseg.data.images import read_image
from depthseg.data.subsets import few_shot_subset
from depthseg.data.video_motion import measure_pair
from depthseg.engine.batches import BatchContent, Collate
from depthseg.engine.evaluation_command import add_evaluation_options, run_evaluation
from depthseg.engine.panel import write_prediction_panel
from depthseg.engine.predict import load_model, predict, predict_maps
from depthseg.engine.run import build_transform, train
from depthseg.models import DepthSegImageProcessor

SIZE = (32, 64)


def find_value_range(dataset):
    return value_ranges.find_value_range(dataset, dataset[0])


class Deep:
    """Grey samples of one dtype, made in memory."""

    label_space = None

    def __init__(self, images, **attributes):
        self.images = images
        self.names = [f"image_{index}" for index in range(len(images))]
        vars(self).update(attributes)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Sample(self.names[index], self.images[index])


def ramp(bits, size=SIZE):
    return np.linspace(0, 2**bits - 1, size[0] * size[1]).round().astype(np.uint16).reshape(size)


@pytest.fixture(scope="module")
def thermal(tmp_path_factory):
    """Six images of 12 bits in 16-bit PNGs, the warm half of each of them labelled."""
    root = tmp_path_factory.mktemp("thermal")
    for name in ("images", "labels"):
        (root / name).mkdir()
    (root / "classes.txt").write_text("cold\nwarm\n")
    for index in range(6):
        warm = np.zeros(SIZE, np.uint8)
        warm[:, 8 * (index + 1) :] = 1
        noise = np.random.default_rng(index).integers(0, 800, SIZE)
        Image.fromarray((300 + np.int32(2900) * warm + noise).astype(np.uint16)).save(root / "images" / f"{index}.png")
        Image.fromarray(warm).save(root / "labels" / f"{index}.png")
    return root


def thermal_run(output_dir, root, *overrides):
    return train(tiny_config(output_dir, "data.name=folder", f"data.root={root}", "schedule.steps=4", *overrides))


@pytest.fixture(scope="module")
def run(thermal, tmp_path_factory):
    return thermal_run(tmp_path_factory.mktemp("run") / "run", thermal, "data.colour_jitter=0.2")


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_training_prediction_and_processor_see_the_same_values(bits, ending, tmp_path):
    path = tmp_path / f"ramp.{ending}"
    Image.fromarray(ramp(bits)).save(path)
    white = find_value_range(Deep([read_image(path)]))
    assert white == [0, 2**bits - 1]
    size = {"height": SIZE[0], "width": SIZE[1]}
    DepthSegImageProcessor(size=size, do_normalize=False, value_range=white).save_pretrained(tmp_path)
    processor = DepthSegImageProcessor.from_pretrained(tmp_path)
    seen = []

    def network(pixel_values):
        """A network that only looks."""
        seen.append(pixel_values)
        return {}

    network.device = torch.device("cpu")
    predict_maps(network, processor, read_image(path))
    sample = Sample("a", read_image(path), frames={1: read_image(path)}, stereo=read_image(path), stereo_x=1.0)
    trained = build_transform(tiny_config(tmp_path, "data.hflip=0"), processor)(sample, np.random.default_rng(0))
    content = BatchContent(images=True, source_frames=(1,), stereo=True)
    batch = Collate(processor, content)([trained])
    seen += [batch["pixel_values"], batch["image"], batch["source_pixel_values"][:, 0], batch["source_images"][:, 1]]
    seen += [processor(path)["pixel_values"], processor(ramp(bits))["pixel_values"]]
    expected = np.broadcast_to(ramp(bits).astype(np.float64) / (2**bits - 1), (1, 3, *SIZE))
    for values in seen:
        np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value_range", [[0, 51], [0, 4095], None])
def test_a_range_is_applied_once_in_training_of_8_bits_too(value_range, tmp_path):
    image = np.random.default_rng(0).integers(0, 50, (*SIZE, 3), np.uint8)
    processor = DepthSegImageProcessor(value_range=value_range)
    trained = build_transform(tiny_config(tmp_path, "data.hflip=0"), processor)
    sample = trained(Sample("a", image), np.random.default_rng(0))
    batch = Collate(processor, BatchContent())([sample])
    assert torch.equal(batch["pixel_values"], processor(image)["pixel_values"])
    assert sample.image.dtype == np.uint8


def test_a_batch_of_8_and_of_16_bits(tmp_path):
    processor = DepthSegImageProcessor(do_normalize=False, value_range=[0, 4095])
    transform = build_transform(tiny_config(tmp_path, "data.hflip=0"), processor)
    images = [ramp(12), np.dstack([np.uint8(np.round(ramp(8)))] * 3)]
    samples = [transform(Sample("a", image), np.random.default_rng(0)) for image in images]
    batch = Collate(processor, BatchContent(images=True))(samples)
    for values in (batch["pixel_values"], batch["image"]):
        np.testing.assert_allclose(values[0, 0].numpy(), ramp(12) / 4095, atol=1e-6)
        np.testing.assert_allclose(values[1, 0].numpy(), ramp(8) / 255, atol=1e-6)


def test_holes_are_black_in_deep_images_too(tmp_path):
    processor = DepthSegImageProcessor(do_normalize=False, value_range=[0, 4095])
    config = tiny_config(tmp_path, "task=inpainting", "pretext.hole_share=[0.05,0.05]")
    sample = build_transform(config, processor)(Sample("a", ramp(12) // 2 + 2000), np.random.default_rng(0))
    batch = Collate(processor, BatchContent(images=True, holes=True))([sample])
    assert 0 < batch["holes"].sum() < batch["holes"].numel()
    black = (batch["pixel_values"] == 0).all(1)
    assert torch.equal(black, batch["holes"])


@pytest.mark.parametrize(("largest", "white"), [(200, 255), (1000, 1023), (1024, 4095), (9000, 16383), (20000, 65535)])
def test_the_range_is_the_smallest_depth_that_holds_the_images(largest, white, caplog):
    caplog.set_level(logging.INFO, "depthseg")
    images = [np.full((4, 4), value, np.uint16) for value in (3, largest, 7)]
    assert find_value_range(Deep(images)) == [0, white]
    assert f"value_range=[0, {white}]: the largest pixel value of 3 of 3 training images is {largest} (" in caplog.text


def test_at_most_64_images_are_read_and_one_of_8_bits():
    read = []

    class Counted(Deep):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    assert find_value_range(Counted([np.zeros((2, 2, 3), np.uint8)] * 300)) is None
    assert read == [0]
    find_value_range(Counted([np.zeros((2, 2), np.uint16)] * 300))
    assert len(set(read)) == 64 and max(read) == 299


def test_a_run_finds_its_range_and_saves_it_with_its_processor(run, thermal, tmp_path):
    stored = json.loads((run.model_dir / "preprocessor_config.json").read_text())
    assert stored["value_range"] == [0, 4095]
    done = predict(run.model_dir, [thermal / "images"], tmp_path / "out", device="cpu")
    assert len(done.names) == 6 and not done.failures
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlay" / "0.png"))
    assert overlay.std() > 10
    model, processor = load_model(run.model_dir, device="cpu")
    values = read_image(thermal / "images" / "0.png")
    given = np.dstack([np.clip(values / 4095, 0, 1).astype(np.float32)] * 3)
    with torch.no_grad():
        ours = model(**processor(values)).logits
        by_hand = model(**processor(given, do_rescale=False)).logits
    torch.testing.assert_close(ours, by_hand, rtol=0, atol=1e-5)
    write_prediction_panel(tmp_path / "panel.png", model, processor, FolderDataset(thermal, "val"))
    assert np.asarray(Image.open(tmp_path / "panel.png")).std() > 10


def test_evaluation_takes_the_range_of_the_model(run, thermal, caplog):
    parser = argparse.ArgumentParser()
    add_evaluation_options(parser)
    words = ["--model", str(run.model_dir), "--dataset", "folder", "--root", str(thermal)]
    scores = run_evaluation(parser.parse_args(words))
    assert abs(scores["mean_iou"] - run.scores["mean_iou"]) < 1e-6 and not caplog.text
    assert run_evaluation(parser.parse_args([*words, "--option", "value_range=[0,100]"])) == scores
    assert "value_range=[0, 100] is not used: images are scaled as in training, by [0, 4095]" in caplog.text


def test_a_run_takes_the_range_of_its_data_set(thermal, run, tmp_path, caplog):
    option = "data.options={value_range: [200, 4000]}"
    again = thermal_run(tmp_path / "run", thermal, option, f"model.pretrained={run.model_dir}", "data.subset_size=2")
    assert DepthSegImageProcessor.from_pretrained(again.model_dir).value_range == [200, 4000]
    assert "trained with value_range=[0, 4095]; this run takes [200, 4000], as its data set says" in caplog.text


def test_the_range_of_a_checkpoint_stays(thermal, run, tmp_path, caplog):
    root = tmp_path / "bright"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text("cold\nwarm\n")
    for index in range(2):
        Image.fromarray(ramp(14)).save(root / "images" / f"{index}.png")
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "labels" / f"{index}.png")
    again = thermal_run(tmp_path / "run", root, f"model.pretrained={run.model_dir}", "schedule.steps=1")
    assert DepthSegImageProcessor.from_pretrained(again.model_dir).value_range == [0, 4095]
    assert (
        "look like value_range=[0, 16383], but the checkpoint was trained with [0, 4095], which stays" in caplog.text
    )


def test_images_of_8_bits_set_no_range(tmp_path, caplog):
    root = tmp_path / "plain"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text("cold\nwarm\n")
    for index in range(2):
        Image.fromarray(np.uint8(ramp(8))).save(root / "images" / f"{index}.png")
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "labels" / f"{index}.png")
    plain = thermal_run(tmp_path / "run", root, "schedule.steps=1")
    assert "value_range" not in json.loads((plain.model_dir / "preprocessor_config.json").read_text())
    thermal_run(tmp_path / "other", root, "schedule.steps=1", "data.options={value_range: [0, 4095]}")
    assert "value_range=[0, 4095] has no effect on images of 8 bits, such as '1'" in caplog.text


def test_floats_want_a_range(tmp_path):
    root = tmp_path / "celsius"
    for name in ("left", "right"):
        (root / name).mkdir(parents=True)
        for index in range(2):
            Image.fromarray(np.float32(ramp(8) / 5 - 10)).save(root / name / f"{index}.tiff")
    images = [read_image(root / "left" / f"{index}.tiff") for index in range(2)]
    with pytest.raises(
        ValueError, match="Image 'image_0' has floating-point values, from -10 to 41. Give the values of"
    ):
        find_value_range(Deep(images))
    values = DepthSegImageProcessor(do_normalize=False, value_range=[-10, 41])(root / "left" / "0.tiff")
    np.testing.assert_allclose(values["pixel_values"][0, 0].numpy(), ramp(8) / 255, atol=1e-6)


def test_every_data_set_of_files_has_the_option(thermal, tmp_path):
    option = {"value_range": [0, 4095]}
    folder = FolderDataset(thermal, "train", **option)
    assert few_shot_subset(folder, 2, 0).value_range == [0, 4095]
    video = VideoSequences(thermal / "images", size=(16, 32), **option)
    assert video.value_range == [0, 4095]
    assert (video[0].image.dtype, video[0].image.shape) == (np.uint16, (16, 32))
    for side in ("left", "right"):
        (tmp_path / side).symlink_to(thermal / "images")
    pairs = StereoPairs(tmp_path, **option)
    assert pairs.value_range == [0, 4095]
    assert np.array_equal(pairs[0].stereo, read_image(thermal / "images" / "0.png"))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_motion_of_deep_frames_is_that_of_8_bits(kind):
    pytest.importorskip("cv2")
    pattern = np.kron(np.random.default_rng(0).integers(0, 256, (30, 40)), np.ones((8, 8))).astype(np.uint8)
    first, second = pattern[:, :300], pattern[:, 3:303]
    expected = measure_pair(*(np.dstack([grey] * 3) for grey in (first, second)))
    found = measure_pair(first.astype(kind) * kind(16), second.astype(kind) * kind(16))
    assert expected.followed and found.followed
    assert abs(found.motion - expected.motion) < 0.1 / 300 and abs(expected.motion * 300 - 3) < 0.1
