import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from faults_of_layouts import assert_reported, reported, rewrite, truncate
from PIL import Image

from depthseg.data import ADE20K, SegmentationSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.scenes import scene

SIZE = (32, 40)
SAMPLES = Path(os.environ.get("DEPTHSEG_DATA", "")) / "samples"
real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds samples/ to test on real data"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_miniature("ade20k", tmp_path_factory.mktemp("ade") / "root", count=2, size=SIZE)


@pytest.fixture
def root(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "root")


def image_of(root):
    return root / "ADEChallengeData2016" / "images" / "training" / "ADE_train_00000001.jpg"


def labels_of(root):
    return root / "ADEChallengeData2016" / "annotations" / "training" / "ADE_train_00000001.png"


def test_a_miniature_is_read_as_it_was_rendered(pristine):
    # wall 0, building 1, sky 2, ...: the eleven classes of the world, by their ids in the 150
    classes = np.array([2, 1, 93, 6, 11, 4, 43, 32, 20, 12, 127])
    for split in ("train", "val"):
        dataset = load_dataset("ade20k", pristine, split)
        assert dataset.label_space.classes[93] == "pole" and dataset.label_space.num_labels == 150
        for index in range(2):
            truth, sample = scene(split, index, SIZE, ("image", "labels")), dataset[index]
            assert type(sample) is SegmentationSample
            np.testing.assert_array_equal(sample.labels[1:], classes[truth["labels"][1:]])
            assert (sample.labels[0] == 255).all()
            error = np.abs(sample.image.astype(float) - truth["image"])
            assert error.mean() < 8, "JPEG at quality 95 with halved colours"
    assert check_dataset("ade20k", pristine).problems == []
    assert load_dataset("ade20k", pristine / "ADEChallengeData2016", "val").names == dataset.names


def test_ids_count_from_one(root):
    Image.fromarray(np.arange(151, dtype=np.uint8).reshape(1, 151)).save(labels_of(root))
    Image.new("RGB", (151, 1)).save(image_of(root))
    labels = load_dataset("ade20k", root, "train")[0].labels
    assert labels.tolist() == [[255, *range(150)]]


FAULTS = {
    "no label map": (labels_of, Path.unlink, "Unpack ADEChallengeData2016.zip again"),
    "no image": (image_of, Path.unlink, "Unpack ADEChallengeData2016.zip again"),
    "image as PNG": (image_of, lambda path: path.rename(path.with_suffix(".png")), "convert it to .jpg"),
    "label map as JPEG": (labels_of, lambda path: path.rename(path.with_suffix(".jpg")), "alters class ids"),
    "truncated image": (image_of, truncate, "Unpack ADEChallengeData2016.zip again"),
    "truncated label map": (labels_of, truncate, "Unpack ADEChallengeData2016.zip again"),
    "empty label map": (labels_of, lambda path: path.write_bytes(b""), "Unpack ADEChallengeData2016.zip again"),
    "empty image": (image_of, lambda path: path.write_bytes(b""), "Unpack ADEChallengeData2016.zip again"),
    "id 151": (labels_of, lambda path: rewrite(path, lambda v: v * 0 + 151), "Allowed are 0 to 150"),
    "reduced already": (labels_of, lambda path: rewrite(path, lambda v: v - 1), "label maps are PNG files of ids"),
    "colours": (labels_of, lambda path: rewrite(path, lambda v: np.stack([v] * 3, -1)), "holds one class id a pixel"),
    "no pixels": (labels_of, lambda path: path.write_text("P5"), "Unpack ADEChallengeData2016.zip again"),
    "small label map": (
        labels_of,
        lambda path: rewrite(path, lambda v: v[:-1]),
        "must have the same width and height",
    ),
    "turned label map": (labels_of, lambda path: rewrite(path, lambda v: v.T.copy()), "must have the same width"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(root, fault):
    path_of, plant, advice = FAULTS[fault]
    plant(path_of(root))
    assert_reported("ade20k", root, [str(path_of(root)), advice])


def test_absent_folders_are_named(root):
    shutil.rmtree(labels_of(root).parent)
    assert "annotations/training does not exist. Unpack ADEChallengeData2016.zip again" in reported("ade20k", root)
    shutil.rmtree(root / "ADEChallengeData2016" / "images")
    shutil.rmtree(root / "ADEChallengeData2016" / "annotations")
    assert "is not in the layout of ade20k" in reported("ade20k", root)
    with pytest.raises(ValueError, match="no split 'validation'.* Its splits are train, val"):
        ADE20K(root, "validation")


@real_data
def test_the_genuine_pairs():
    dataset = load_dataset("ade20k", SAMPLES / "ade20k", "val")
    assert dataset.names == [f"ADE_val_{number:08d}" for number in (1, 2, 3)]
    assert dataset[0].image.shape == (512, 683, 3)
    for index, name in enumerate(dataset.names):
        stored = np.asarray(Image.open(SAMPLES / "ade20k" / "annotations" / "validation" / f"{name}.png"))
        labels = dataset[index].labels
        np.testing.assert_array_equal(labels == 255, stored == 0)
        np.testing.assert_array_equal(labels[stored > 0], stored[stored > 0] - 1)
    assert any((sample.labels == 255).any() for sample in (dataset[i] for i in range(3))), "0 = other occurs"
    assert check_dataset("ade20k", SAMPLES / "ade20k").problems == []
