import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg.data import KittiSemantics, SegmentationSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.images import read_labels
from depthseg.data.label_spaces import CAMVID11, ENCODINGS, LABEL_SPACES
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.kitti_semantics import LABEL_IDS, image_size
from depthseg.data.miniatures.scenes import scene
from depthseg.data.subsets import shuffled_names

SIZE = (24, 80)
LABELS = "training/semantic/000001_10.png"
INSTANCES = "training/instance/000001_10.png"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_miniature("kitti_semantics", tmp_path_factory.mktemp("kitti") / "semantics", count=2, size=SIZE)


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "semantics")


# By name, so that the numbers of neither table are taken for granted.
SAME_CLASS = {
    **{"Sky": "sky", "Building": "building", "Pole": "pole", "Road": "road", "Pavement": "sidewalk"},
    **{"Tree": "vegetation", "SignSymbol": "traffic sign", "Fence": "fence", "Car": "car"},
    **{"Pedestrian": "person", "Bicyclist": "rider"},
}


@pytest.mark.parametrize("labels_from", ["semantic", "instance"])
@pytest.mark.parametrize("classes", [19, 34])
def test_a_miniature_is_read_as_it_was_rendered(written, classes, labels_from):
    dataset = load_dataset("kitti_semantics", written, "all", classes=classes, labels_from=labels_from)
    space = LABEL_SPACES["cityscapes19" if classes == 19 else "kitti34"]
    assert dataset.label_space is space and len(dataset) == 10
    assert SAME_CLASS.keys() == LABEL_IDS.keys() == set(CAMVID11.classes)
    ids = np.array([space.label2id[SAME_CLASS[name]] for name in CAMVID11.classes])
    for index in range(10):
        sample = dataset[index]
        truth = scene("train", index, image_size(index, SIZE), ("image", "labels"))
        assert isinstance(sample, SegmentationSample) and sample.labels.dtype == np.uint8
        np.testing.assert_array_equal(sample.image, truth["image"])
        np.testing.assert_array_equal(sample.labels[1:], ids[truth["labels"]][1:])
        assert (sample.labels[0] == (255 if classes == 19 else 3)).all()
    assert len({dataset[index].image.shape for index in (0, 1)}) == 2


def test_the_division_is_that_of_the_shuffled_names(written):
    splits = {split: load_dataset("kitti_semantics", written, split, seed=5) for split in ("train", "val", "all")}
    names = [f"{number:06d}_10" for number in range(10)]
    assert splits["all"].names == names
    assert splits["val"].names == sorted(shuffled_names(names, 5)[:2])
    assert sorted(splits["train"].names + splits["val"].names) == names
    assert len(load_dataset("kitti_semantics", written, "val", val_fraction=0.4)) == 4
    assert len(load_dataset("kitti_semantics", written, "train", val_fraction=0)) == 10


def test_test_images_have_no_labels(written):
    dataset = load_dataset("kitti_semantics", written, "test")
    assert len(dataset) == 2 and dataset[0].labels is None
    np.testing.assert_array_equal(dataset[1].image, scene("test", 1, image_size(1, SIZE), ("image",))["image"])


def test_the_frames_after_of_other_archives_are_left_aside(root):
    shutil.copy(root / "training/image_2/000001_10.png", root / "training/image_2/000001_11.png")
    assert len(load_dataset("kitti_semantics", root, "all")) == 10


def test_a_check_finds_nothing_wrong_with_a_miniature(written):
    report = check_dataset("kitti_semantics", written)
    assert report.problems == [] and report.splits["all"].labelled == 10 and report.splits["test"].labelled == 0
    assert "all has 10 samples; the official split has 200." in report.notes


def test_a_check_says_how_val_is_made(written):
    notes = "\n".join(check_dataset("kitti_semantics", written, val_fraction=0.3, seed=4).notes)
    assert "val is 3 of the 10 labelled images, drawn with val_fraction=0.3 and seed=4" in notes


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def with_id(value, dtype=np.uint8):
    def plant(root):
        ids = np.asarray(Image.open(root / LABELS)).astype(dtype)
        ids[3, 4] = value
        Image.fromarray(ids).save(root / LABELS)

    return plant


AGAIN = r".* [Uu]npack (training/semantic of )?data_semantics.zip again"
INSTANCE = {"labels_from": "instance"}
FAULTS = {
    "a label map is missing": (
        lambda root: (root / LABELS).unlink(),
        {},
        rf"image_2/000001_10.png has no label map: .*{LABELS} is missing\.{AGAIN}",
    ),
    "an image is missing": (
        lambda root: (root / "training/image_2/000001_10.png").unlink(),
        {},
        rf"has no image: .*image_2/000001_10.png is missing\.{AGAIN}",
    ),
    "an image is a JPEG": (
        lambda root: (
            Image.open(root / "training/image_2/000001_10.png").save(root / "training/image_2/000001_10.jpg")
            or (root / "training/image_2/000001_10.png").unlink()
        ),
        {},
        r"image_2/000001_10.png is missing\. .*000001_10.jpg is not read; convert it to .png",
    ),
    "a label map is cut off": (lambda root: cut(root / LABELS), {}, rf"{LABELS} is truncated{AGAIN}"),
    "a label map is empty": (lambda root: (root / LABELS).write_bytes(b""), {}, rf"{LABELS} is not an image{AGAIN}"),
    "an image is cut off": (
        lambda root: cut(root / "training/image_2/000001_10.png"),
        {},
        rf"image_2/000001_10.png is truncated{AGAIN}",
    ),
    "a label map has another size": (
        lambda root: Image.new("L", (80, 25)).save(root / LABELS),
        {},
        rf"{LABELS} is 80x25 pixels, but its image .* is 79x25;{AGAIN}",
    ),
    "an id that is no labelId": (with_id(34), {}, rf"{LABELS} holds .*: 34\. Allowed are 0 to 33\.{AGAIN}"),
    "trainIds": (with_id(255), {}, rf"{LABELS} holds .*: 255\. .* 255 is in maps of trainIds.*{AGAIN}"),
    "colours": (
        lambda root: shutil.copy(root / "training/semantic_rgb/000001_10.png", root / LABELS),
        {},
        rf"{LABELS} is a colour image \(mode RGB\){AGAIN}",
    ),
    "an instance map": (
        lambda root: shutil.copy(root / INSTANCES, root / LABELS),
        {},
        rf"{LABELS} holds .* those of an instance map, .* labels_from=instance{AGAIN}",
    ),
    "a label map as an instance map": (
        lambda root: shutil.copy(root / LABELS, root / INSTANCES),
        INSTANCE,
        rf"{INSTANCES} has 8 bits, .* labels_from=semantic, or{AGAIN}",
    ),
    "an instance map of an unknown class": (
        lambda root: Image.fromarray(np.full((25, 79), 40 * 256 + 1, np.uint16)).save(root / INSTANCES),
        INSTANCE,
        rf"{INSTANCES} holds .*: 40\. .* upper 8 bits{AGAIN}",
    ),
    "an instance map is missing": (
        lambda root: (root / INSTANCES).unlink(),
        INSTANCE,
        rf"has no label map: .*{INSTANCES} is missing\.{AGAIN}",
    ),
    "the label maps are missing": (
        lambda root: shutil.rmtree(root / "training/semantic"),
        {},
        r"training/image_2 is there but .*training/semantic is missing|training/semantic does not exist",
    ),
    "a test image is cut off": (
        lambda root: cut(root / "testing/image_2/000001_10.png"),
        {},
        rf"testing/image_2/000001_10.png is truncated{AGAIN}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_says_which_file_is_wrong_and_what_to_do(root, fault):
    plant, options, message = FAULTS[fault]
    plant(root)
    problems = check_dataset("kitti_semantics", root, **options).problems
    assert any(re.search(message, problem) for problem in problems), problems
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        for split in ("all", "test"):
            dataset = load_dataset("kitti_semantics", root, split, **options)
            [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 20}, "option classes must be one of 19, 34, got 20"),
        ({"labels_from": "semantic_rgb"}, "option labels_from must be one of semantic, instance"),
        ({"val_fraction": 1}, "val_fraction=1.0 is out of range"),
    ],
)
def test_options_out_of_range_are_told(written, options, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("kitti_semantics", written, "train", **options)
    with pytest.raises(ValueError, match="KittiSemantics has no split 'vall'. Did you mean 'val'"):
        KittiSemantics(written, "vall")


@pytest.mark.skipif("DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds samples/")
def test_real_label_ids_are_decoded_as_their_authors_do():
    """KITTI's encoding is that of Cityscapes, of which a genuine map of labelIds and one of trainIds are there."""
    folder = Path(os.environ["DEPTHSEG_DATA"]) / "samples/cityscapes/gtFine/val/frankfurt"
    path = folder / "frankfurt_000000_000294_gtFine_labelIds.png"
    found = ENCODINGS["cityscapes19"].decode(path, read_labels(path))
    expected = read_labels(folder / path.name.replace("labelIds", "labelTrainIds"))
    # The two maps were shrunk one by one, so borders may be a pixel apart.
    padded = np.pad(expected, 1, mode="edge")
    height, width = expected.shape
    shifts = [(row, column) for row in range(3) for column in range(3)]
    near = [padded[row : row + height, column : column + width] == found for row, column in shifts]
    assert np.any(near, axis=0).all()
    assert np.count_nonzero(found != expected) == 77
