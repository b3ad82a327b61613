import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from faults_of_layouts import assert_reported, reported, rewrite, truncate
from PIL import Image

from depthseg.data import Cityscapes, DepthSample, SegmentationSample, VideoSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.scenes import scene
from depthseg.data.official.cityscapes import classes_of_instances, read_cityscapes_labels

SIZE = (32, 64)
NAME = "aachen_000000_000019"
SAMPLES = Path(os.environ.get("DEPTHSEG_DATA", "")) / "samples"
real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds samples/ to test on real data"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_miniature("cityscapes", tmp_path_factory.mktemp("city") / "root", count=2, size=SIZE)


@pytest.fixture
def root(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "root")


def file_of(root, kind, ending, name=NAME, split="train"):
    return root / kind / split / name.split("_")[0] / f"{name}_{ending}"


def test_a_miniature_is_read_as_it_was_rendered(pristine):
    outputs = ("image", "labels", "depth", "intrinsics", "baseline")
    cameras = []
    for split, place in (("train", "train"), ("val", "val"), ("train_extra", "train")):
        dataset = load_dataset("cityscapes", pristine, split, depth=True, stereo=True, frames=(-1, 1), max_depth=None)
        assert len(dataset) == 2
        for index in range(2):
            number = index + 2 * (split == "train_extra")
            truth, sample = scene(place, number, SIZE, outputs), dataset[index]
            assert isinstance(sample, SegmentationSample)
            np.testing.assert_array_equal(sample.image, truth["image"])
            np.testing.assert_allclose(sample.intrinsics, truth["intrinsics"], rtol=1e-12)
            assert sample.stereo_x == pytest.approx(float(truth["baseline"]))
            np.testing.assert_array_equal(sample.stereo, scene(place, number, SIZE, ("image",), view="right")["image"])
            for step in (-1, 1):
                np.testing.assert_array_equal(
                    sample.frames[step], scene(place, number, SIZE, ("image",), time=step)["image"]
                )
            product = truth["intrinsics"][0, 0] * truth["baseline"]
            known = (truth["depth"] > 0) & (256 * product / np.maximum(truth["depth"], 1e-3) >= 1)
            np.testing.assert_array_equal(sample.depth > 0, known)
            np.testing.assert_allclose(product / sample.depth[known], product / truth["depth"][known], atol=0.51 / 256)
            cameras.append(float(product))
            assert (sample.labels[0] == 255).all() and sample.labels[1:].max() <= 18
    assert len({round(camera, 6) for camera in cameras}) == len(cameras), "each frame has its own camera"


def test_labels_of_a_miniature_are_those_of_the_world(pristine):
    truth = scene("train", 0, SIZE, ("labels",))["labels"][1:]
    labels = load_dataset("cityscapes", pristine, "train")[0].labels[1:]
    # sky, building, pole, road, pavement, tree, sign, fence, car, person, rider as train ids of Cityscapes
    np.testing.assert_array_equal(labels, np.array([10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12])[truth])


def test_all_label_files_give_the_same_classes(pristine):
    found = [
        load_dataset("cityscapes", pristine, "train", label_files=kind)[1].labels
        for kind in ("labelIds", "labelTrainIds", "instanceIds")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    coarse = load_dataset("cityscapes", pristine, "train", annotations="gtCoarse")
    assert "gtCoarse" in str(coarse.files[NAME]["label map"])


def test_records_fit_what_is_there(pristine):
    assert type(load_dataset("cityscapes", pristine, "train")[0]) is SegmentationSample
    assert type(load_dataset("cityscapes", pristine, "test", depth=True)[0]) is DepthSample
    assert type(load_dataset("cityscapes", pristine, "test", intrinsics=True)[0]) is VideoSample
    bare = load_dataset("cityscapes", pristine, "val", annotations="none")[0]
    assert bare.labels is None and bare.depth is None and bare.intrinsics is None


def test_disparity_by_hand(root):
    camera = {"extrinsic": {"baseline": 0.209313}, "intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 40, "v0": 20}}
    file_of(root, "camera", "camera.json").write_text(json.dumps(camera))
    values = np.full(SIZE, 257, np.uint16)
    values[0, :5] = 0, 1, 2, 32257, 513
    Image.fromarray(values).save(file_of(root, "disparity", "disparity.png"))
    depth = load_dataset("cityscapes", root, "train", depth=True, max_depth=None)[0].depth
    product = 2262.52 * 0.209313
    np.testing.assert_allclose(depth[0, :6], [0, 0, product * 256, product / 126, product / 2, product], rtol=1e-6)
    limited = load_dataset("cityscapes", root, "train", depth=True)[0].depth
    assert limited[0, 2] == 0 and limited[1, 1] == 0, "121 km and 473.6 m are beyond 300 m"
    assert limited[0, 4] == pytest.approx(product / 2)


def test_the_image_without_disparity_is_left_out(root):
    for kind, ending in (("leftImg8bit", "leftImg8bit.png"), ("gtCoarse", "gtCoarse_labelIds.png")):
        source = file_of(root, kind, ending, "augsburg_000000_000019", "train_extra")
        target = file_of(root, kind, ending, "troisdorf_000000_000073", "train_extra")
        target.parent.mkdir(parents=True)
        shutil.copy(source, target)
    assert len(load_dataset("cityscapes", root, "train_extra")) == 3
    options = {"depth": True, "annotations": "none"}
    assert "troisdorf_000000_000073" not in load_dataset("cityscapes", root, "train_extra", **options).names


def test_a_check_reads_all_that_is_there(pristine):
    report = check_dataset("cityscapes", pristine)
    assert report.problems == []
    assert {split: (found.images, found.labelled, found.with_depth) for split, found in report.splits.items()} == {
        **dict.fromkeys(("train", "val", "train_extra"), (2, 2, 2)),
        "test": (2, 0, 2),
    }


def to_json(change):
    def edit(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def colours(path):
    shutil.copy(path.with_name(path.name.replace("labelIds", "color")), path)


def instances(path):
    shutil.copy(path.with_name(path.name.replace("labelIds", "instanceIds")), path)


LABELS = ("gtFine", "gtFine_labelIds.png")
CAMERA = ("camera", "camera.json")
DISPARITY = ("disparity", "disparity.png")
IMAGE = ("leftImg8bit", "leftImg8bit.png")
RIGHT = ("rightImg8bit", "rightImg8bit.png")
FAULTS = {
    "no label map": (LABELS, Path.unlink, "Unpack gtFine_trainvaltest.zip again"),
    "no image": (IMAGE, Path.unlink, "Unpack leftImg8bit_trainvaltest.zip again"),
    "no disparity": (DISPARITY, Path.unlink, "Unpack disparity_trainvaltest.zip again"),
    "no camera": (CAMERA, Path.unlink, "Unpack camera_trainvaltest.zip again"),
    "no right image": (RIGHT, Path.unlink, "Unpack rightImg8bit_trainvaltest.zip again"),
    "truncated image": (IMAGE, truncate, "Unpack leftImg8bit_trainvaltest.zip again"),
    "truncated label map": (LABELS, truncate, "gtFine_trainvaltest.zip"),
    "truncated disparity": (DISPARITY, truncate, "Unpack disparity_trainvaltest.zip again"),
    "empty right image": (RIGHT, lambda path: path.write_bytes(b""), "Unpack rightImg8bit_trainvaltest.zip again"),
    "small label map": (LABELS, lambda path: rewrite(path, lambda v: v[:-1]), "must have the same width and height"),
    "small disparity": (DISPARITY, lambda path: rewrite(path, lambda v: v[:, :-1]), "must have the same width"),
    "unknown id": (LABELS, lambda path: rewrite(path, lambda v: np.full_like(v, 34)), "Allowed are 0 to 33"),
    "train ids as ids": (LABELS, lambda path: rewrite(path, lambda v: v * 0 + 255), "label_files"),
    "colours": (LABELS, colours, "_labelIds.png; unpack it again"),
    "instances": (LABELS, instances, "label_files=instanceIds"),
    "8-bit disparity": (DISPARITY, lambda path: rewrite(path, lambda v: v.astype(np.uint8)), "16-bit single-channel"),
    "not JSON": (CAMERA, lambda path: path.write_text("fx = 2262"), "is not valid JSON"),
    "no fx": (CAMERA, to_json(lambda c: c["intrinsic"].pop("fx")), "must name fx, fy"),
    "fx of text": (CAMERA, to_json(lambda c: c["intrinsic"].update(fx="wide")), "it must be a number"),
    "baseline 0": (CAMERA, to_json(lambda c: c["extrinsic"].update(baseline=0)), "Unpack camera_trainvaltest.zip"),
    "no baseline": (CAMERA, to_json(lambda c: c.pop("extrinsic")), "must say the baseline in metres under extrinsic"),
    "camera of full size": (CAMERA, to_json(lambda c: c["intrinsic"].update(u0=1096.98)), "does not fit the images"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(root, fault):
    (kind, ending), plant, advice = FAULTS[fault]
    path = file_of(root, kind, ending)
    plant(path)
    assert_reported("cityscapes", root, [str(path), advice])


def test_missing_train_ids_say_who_makes_them(root):
    path = file_of(root, "gtFine", "gtFine_labelTrainIds.png")
    path.unlink()
    parts = [str(path), "csCreateTrainIdLabelImgs", "label_files=labelIds"]
    assert_reported("cityscapes", root, parts, label_files="labelTrainIds")


def test_other_layouts_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    text = reported("cityscapes", tmp_path)
    assert "is not in the layout of cityscapes" in text and "Unpack leftImg8bit_trainvaltest.zip there" in text
    with pytest.raises(FileNotFoundError, match="leftImg8bit/val holds no CITY/.*leftImg8bit_trainvaltest.zip"):
        load_dataset("cityscapes", tmp_path, "val")
    with pytest.raises(ValueError, match="max_depth=0.0 is out of range"):
        load_dataset("cityscapes", tmp_path, "val", max_depth=0)
    with pytest.raises(ValueError, match="frames=.* is not valid"):
        load_dataset("cityscapes", tmp_path, "val", frames=[0])


def test_incomplete_samples_are_skipped_on_request(root):
    file_of(root, *LABELS).unlink()
    assert load_dataset("cityscapes", root, "train", missing="skip").names == ["aachen_000001_000019"]


def test_samples_are_counted_not_their_missing_files(root):
    for kind in (IMAGE, DISPARITY, RIGHT):
        file_of(root, *kind).unlink()
    assert "train has 2 samples; the official split has 2975." in check_dataset("cityscapes", root).notes


def test_the_frame_without_disparity_is_left_out_and_told(root, monkeypatch):
    monkeypatch.setattr("depthseg.data.official.cityscapes._WITHOUT_DISPARITY", "augsburg_000001_000019")
    monkeypatch.setattr(Cityscapes, "counts", {"train_extra": 2})
    assert load_dataset("cityscapes", root, "train_extra", depth=True).names == ["augsburg_000000_000019"]
    notes = check_dataset("cityscapes", root).notes
    assert any("augsburg_000001_000019 is left out: its disparity was never published" in note for note in notes)
    assert not any("the official split has" in note for note in notes)


@real_data
def test_the_genuine_frame():
    root = SAMPLES / "cityscapes"
    found = {}
    for kind in ("labelIds", "labelTrainIds", "instanceIds"):
        dataset = load_dataset("cityscapes", root, "val", label_files=kind)
        assert dataset.names == ["frankfurt_000000_000294"]
        found[kind] = dataset[0].labels
        assert dataset[0].image.shape == (128, 256, 3)
    np.testing.assert_array_equal(found["labelIds"], found["instanceIds"])
    # The file of train ids was shrunk differently from the other two: 77 of its 32,768 pixels, at edges of classes.
    assert np.count_nonzero(found["labelIds"] != found["labelTrainIds"]) == 77
    assert np.unique(found["labelIds"]).tolist() == [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 255]
    assert np.unique(found["labelTrainIds"]).tolist() == [0, 1, 2, 4, 5, 7, 8, 10, 11, 13, 255]
    folder = root / "gtFine" / "val" / "frankfurt"
    stem = "frankfurt_000000_000294_gtFine"
    stored = {kind: np.asarray(Image.open(folder / f"{stem}_{kind}.png")) for kind in found}
    np.testing.assert_array_equal(classes_of_instances(stored["instanceIds"]), stored["labelIds"])
    assert stored["instanceIds"].max() >= 24000
    with pytest.raises(ValueError, match="is an instance map"):
        read_cityscapes_labels(folder / f"{stem}_instanceIds.png")
    assert check_dataset("cityscapes", root).problems == []
