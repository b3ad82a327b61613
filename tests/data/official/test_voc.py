import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from faults_of_layouts import assert_reported, reported, rewrite, truncate
from PIL import Image

from depthseg.data import SegmentationSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.scenes import scene
from depthseg.data.miniatures.voc import with_border
from depthseg.data.official.voc import read_sbd_labels, trainaug_names

SIZE = (32, 40)
# The eleven classes of the world as classes of VOC.
CLASSES = np.array([0, 0, 5, 0, 0, 16, 20, 9, 7, 15, 2])
SAMPLES = Path(os.environ.get("DEPTHSEG_DATA", "")) / "samples"
real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds samples/ to test on real data"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_miniature("voc", tmp_path_factory.mktemp("voc") / "root", count=2, size=SIZE)


@pytest.fixture
def root(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "root")


def test_a_miniature_is_read_as_it_was_rendered(pristine):
    for split in ("train", "val"):
        dataset = load_dataset("voc", pristine, split)
        for index in range(2):
            truth, sample = scene(split, index, SIZE, ("image", "labels")), dataset[index]
            assert type(sample) is SegmentationSample
            expected = CLASSES[truth["labels"]]
            border = sample.labels == 255
            np.testing.assert_array_equal(sample.labels[~border], expected[~border])
            np.testing.assert_array_equal(border, with_border(expected) == 255)
            error = np.abs(sample.image.astype(float) - truth["image"])
            assert error.mean() < 8, "JPEG at quality 95 with halved colours"
    assert check_dataset("voc", pristine).problems == []
    for inner in ("VOCdevkit", "VOCdevkit/VOC2012"):
        assert load_dataset("voc", pristine / inner, "val").names == dataset.names


def test_trainaug_has_the_labels_of_both(pristine):
    dataset = load_dataset("voc", pristine, "trainaug")
    assert dataset.names == ["2007_000001", "2007_000002", "2010_000001", "2010_000002"], "without SBD's image of val"
    suffixes = [path.suffix for files in dataset.files.values() for path in files.values()]
    assert suffixes == [".jpg", ".png", ".jpg", ".png", ".jpg", ".mat", ".jpg", ".mat"]
    truth = scene("test", 1, SIZE, ("labels",))["labels"]
    np.testing.assert_array_equal(dataset[3].labels, CLASSES[truth])
    assert (dataset[0].labels == 255).any(), "the labels of VOC have a border"


def test_png_files_of_sbd_are_used_where_they_are(root):
    folder = root / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    folder.mkdir()
    for name in ("2007_000001", "2008_000001", "2010_000001", "2010_000002"):
        Image.fromarray(np.full(SIZE, 3, np.uint8)).save(folder / f"{name}.png")
    with_lists = load_dataset("voc", root, "trainaug")
    shutil.rmtree(root / "benchmark_RELEASE")
    without = load_dataset("voc", root, "trainaug")
    assert without.names == with_lists.names == ["2007_000001", "2007_000002", "2010_000001", "2010_000002"]
    assert (without[2].labels == 3).all() and (without[0].labels != 3).any()


def test_the_official_count_follows_from_the_lists():
    # Sizes of the official lists: 1,464 and 1,449 of VOC, 8,498 and 2,857 of SBD, 9,118 of which VOC train lacks.
    train, val = [f"t{i}" for i in range(1464)], [f"v{i}" for i in range(1449)]
    new = [f"s{i}" for i in range(9118)]
    sbd = [*new, *train[:1133], *val[: 8498 + 2857 - 9118 - 1133]]
    assert len(trainaug_names(train, val, sbd[:8498], sbd[8498:])) == 10582


def test_a_check_says_that_the_count_is_not_official(pristine):
    notes = check_dataset("voc", pristine).notes
    assert "trainaug has 4 samples; the official split has 10582." in notes


def test_sbd_may_be_anywhere(root):
    place = root.parent / "elsewhere"
    (root / "benchmark_RELEASE").rename(place)
    assert len(load_dataset("voc", root, "trainaug", sbd_root=place)) == 4
    with pytest.raises(FileNotFoundError, match="needs the labels of SBD.*benchmark.tgz.*sbd_root"):
        load_dataset("voc", root, "trainaug")
    with pytest.raises(ValueError, match="sbd_root=nowhere has no folder cls/"):
        load_dataset("voc", root, "trainaug", sbd_root="nowhere")
    report = check_dataset("voc", root)
    assert report.problems == [] and any("trainaug" in note for note in report.notes)


BASE = "VOCdevkit/VOC2012"
IMAGE = f"{BASE}/JPEGImages/2007_000001.jpg"
LABELS = f"{BASE}/SegmentationClass/2007_000001.png"
LIST = f"{BASE}/ImageSets/Segmentation/train.txt"
SBD = "benchmark_RELEASE/dataset"
MAT = f"{SBD}/cls/2010_000001.mat"


def add_line(path):
    path.write_text(path.read_text() + "2007_999999\n")


def save_mat(**content):
    return lambda path: scipy.io.savemat(path, content)


FAULTS = {
    "no label map": (LABELS, Path.unlink, "Unpack VOCtrainval_11-May-2012.tar again"),
    "no image": (IMAGE, Path.unlink, "Unpack VOCtrainval_11-May-2012.tar again"),
    "no list": (LIST, Path.unlink, "Unpack VOCtrainval_11-May-2012.tar again"),
    "empty list": (LIST, lambda path: path.write_text("\n"), "is empty"),
    "unknown image in list": (LIST, add_line, "'2007_999999'"),
    "image in capitals": (IMAGE, lambda path: path.rename(path.with_suffix(".JPG")), "rename it to .jpg"),
    "truncated image": (IMAGE, truncate, "Unpack VOCtrainval_11-May-2012.tar again"),
    "truncated label map": (LABELS, truncate, "Unpack VOCtrainval_11-May-2012.tar again"),
    "unknown id": (LABELS, lambda path: rewrite(path, lambda v: v * 0 + 21), "Allowed are 0 to 20 and 255"),
    "colours": (LABELS, lambda path: rewrite(path, lambda v: np.stack([v] * 3, -1)), "palette PNG files"),
    "small label map": (LABELS, lambda path: rewrite(path, lambda v: v[:-1]), "must have the same width and height"),
    "no file of SBD": (MAT, Path.unlink, "Unpack benchmark.tgz (SBD) again"),
    "truncated .mat": (MAT, truncate, "Unpack benchmark.tgz (SBD) again"),
    "no .mat": (MAT, lambda path: path.write_text("labels"), "Unpack benchmark.tgz (SBD) again"),
    "GTinst": (MAT, save_mat(GTinst={"Segmentation": np.zeros(SIZE, np.uint8)}), "in cls/, not in inst/"),
    "no Segmentation": (MAT, save_mat(GTcls={"Boundaries": np.zeros(SIZE, np.uint8)}), "GTcls with a Segmentation"),
    "unknown id in .mat": (
        MAT,
        save_mat(GTcls={"Segmentation": np.full(SIZE, 21, np.uint8)}),
        "Unpack benchmark.tgz (SBD) again",
    ),
    "small .mat": (MAT, save_mat(GTcls={"Segmentation": np.zeros((3, 4), np.uint8)}), "must have the same width"),
    "SBD without list": (f"{SBD}/val.txt", Path.unlink, "Unpack benchmark.tgz (SBD) again"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(root, fault):
    place, plant, advice = FAULTS[fault]
    plant(root / place)
    assert_reported("voc", root, [str(root / place), advice], "trainaug" if place.startswith(SBD) else "train")


def test_a_fault_of_several_splits_is_reported_once(root):
    truncate(root / LABELS)
    text = reported("voc", root)
    assert text.count("2007_000001.png") == 1, text


def test_other_folders_are_refused(tmp_path):
    assert "the root is VOC2012, VOCdevkit or the folder that holds it" in reported("voc", tmp_path)


@real_data
def test_the_genuine_pairs(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass"):
        shutil.copytree(SAMPLES / "voc" / folder, base / folder)
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2011_000003\n2011_000006\n")
    dataset = load_dataset("voc", tmp_path, "val")
    for index, name in enumerate(("2011_000003", "2011_000006")):
        sample = dataset[index]
        stored = Image.open(SAMPLES / "voc" / "SegmentationClass" / f"{name}.png")
        assert stored.mode == "P"
        np.testing.assert_array_equal(sample.labels, np.asarray(stored))
        assert {0, 15, 255} <= set(np.unique(sample.labels).tolist()), "background, person, border"
        assert sample.image.shape[:2] == sample.labels.shape


def test_sbd_labels_by_hand(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"GTcls": {"Segmentation": np.array([[0, 7], [20, 1]], np.uint8)}})
    assert read_sbd_labels(tmp_path / "a.mat").tolist() == [[0, 7], [20, 1]]
    with pytest.raises(FileNotFoundError, match="b.mat is missing"):
        read_sbd_labels(tmp_path / "b.mat")
