"""Data sets of the Hub and on disk in its formats, against the arrays that they were made of."""

import io
import multiprocessing
import os
import pickle
import re

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.hub_files import (
    CLASSES,
    FEATURES,
    encoded,
    row,
    table,
    truth,
    write_all,
    write_classes,
    write_tar,
)
from PIL import Image

from depthseg.data import HubDataset, load_dataset
from depthseg.data.subsets import few_shot_subset
from depthseg.data.tables.open_files import OpenFiles, open_binary

FORMS = [("saved", False), ("parquet", False), ("parquet", True), ("tar", False), ("tar", True)]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Copies that `datasets` makes go to a folder of the tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    patch.undo()


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("formats"))


@pytest.mark.parametrize(("form", "streaming"), FORMS)
def test_every_form_gives_the_same_samples(roots, form, streaming):
    for split, first, count in (("train", 0, 11), ("validation", 11, 3), ("val", 11, 3)):
        data = load_dataset("hub", roots[form], split, streaming=streaming)
        assert len(data) == len(data.names) == count == len(set(data.names))
        assert data.label_space.classes == CLASSES
        assert sum(data.shard_lengths or [count]) == count
        for index in (count - 1, 0, 1):
            image, labels, depth = truth(first + index)
            sample = data[index]
            assert sample.name == data.names[index]
            np.testing.assert_array_equal(sample.image, image)
            np.testing.assert_array_equal(sample.labels, labels)
            np.testing.assert_array_equal(sample.depth, depth)
            assert (sample.labels.dtype, sample.depth.dtype) == (np.uint8, np.float32)


@pytest.mark.parametrize(("form", "streaming"), FORMS)
def test_names_are_stable_and_parts_keep_those_of_the_whole(roots, form, streaming):
    expected = [f"{index:04d}" if form == "tar" else f"train-{index:06d}" for index in range(11)]
    names = {
        part: list(HubDataset(roots[form], f"train{part}", streaming=streaming).names)
        for part in ("", "[:80%]", "[80%:]", "[-2:]", "[3:8]")
    }
    assert names == {
        "": expected,
        "[:80%]": expected[:9],
        "[80%:]": expected[9:],
        "[-2:]": expected[-2:],
        "[3:8]": expected[3:8],
    }
    part = HubDataset(roots[form], "train[3:8]", streaming=streaming)
    np.testing.assert_array_equal(part[4].labels, truth(7)[1])
    assert part.shard_lengths == ([2, 2, 1] if streaming else None)


def test_a_pattern_names_files_and_splits_are_kept_apart(roots):
    for form, pattern in (("parquet", "data/*.parquet"), ("tar", "[tv]*-0000?-of-*.tar")):
        for streaming in (True, False):
            root = f"{roots[form]}/{pattern}"
            train, val = (HubDataset(root, split, classes=CLASSES, streaming=streaming) for split in ("train", "val"))
            assert (len(train), len(val)) == (11, 3)
            np.testing.assert_array_equal(val[2].image, truth(13)[0])


def test_one_file_without_a_split_in_its_name_is_train(tmp_path):
    write_tar(tmp_path / "shard_0.tar", range(3))
    assert len(HubDataset(tmp_path / "shard_0.tar", "train", classes=CLASSES)) == 3
    with pytest.raises(ValueError, match=r"no split 'val'.* Its splits are train; a part .* like train\[:80%\]"):
        HubDataset(tmp_path / "shard_0.tar", "val", classes=CLASSES)


def test_rows_are_read_in_any_order_and_by_copies_of_the_data_set(roots):
    for form in ("parquet", "tar"):
        data = HubDataset(roots[form], "train", streaming=True, shuffle_buffer=1)
        copy = pickle.loads(pickle.dumps(data))
        for index in (10, 0, 6, 5, 10, 3):
            for one in (data, copy):
                np.testing.assert_array_equal(one[index].image, truth(index)[0])


def test_row_groups_that_are_kept_are_few(roots, monkeypatch):
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, number, **rest: (read.append(number), original(self, number, **rest))[1],
    )
    data = HubDataset(roots["parquet"], "train", streaming=True, shuffle_buffer=4)
    for index in range(11):
        data[index]
    assert len(read) == 3 + 1 + 2  # groups of two rows in files of 5, 2 and 4
    assert sum(kept.num_rows for kept in data._rows._tables.values()) <= 4 + 2 * 2


def test_the_few_shot_subset_is_that_of_the_names(roots):
    subset = few_shot_subset(HubDataset(roots["parquet"], "train", streaming=True), 3, seed=0)
    assert not hasattr(subset, "shard_lengths")
    index = int(subset.names[1].removeprefix("train-"))
    np.testing.assert_array_equal(subset[1].labels, truth(index)[1])


def test_arrays_are_read_as_nyu_on_the_hub_has_them(tmp_path):
    """Float images with the channels first, labels with -1 for void, depth with a channel."""
    shape = (4, 6)
    features = datasets.Features(
        {
            "image": datasets.Array3D((3, *shape), "float32"),
            "segmentation": datasets.Array2D(shape, "int64"),
            "depth": datasets.Array3D((1, *shape), "float32"),
            "normal": datasets.Array3D((3, *shape), "float32"),
        }
    )
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    labels = np.arange(24).reshape(shape) % 4 - 1
    depth = np.linspace(0, 5, 24, dtype=np.float32).reshape(1, *shape)
    rows = {
        "image": [(image / 255).astype(np.float32).transpose(2, 0, 1)],
        "segmentation": [labels],
        "depth": [depth],
        "normal": [np.zeros((3, *shape), np.float32)],
    }
    saved = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "shards").mkdir()
    saved.to_parquet(tmp_path / "shards" / "train.parquet")
    saved.save_to_disk(tmp_path / "saved")
    for root, streaming in (("saved", False), ("shards", False), ("shards", True)):
        options = {"classes": ["a", "b", "c"], "label_map": {-1: "ignore"}, "streaming": streaming}
        sample = load_dataset("hub", tmp_path / root, "train", **options)[0]
        np.testing.assert_array_equal(sample.image, image)
        np.testing.assert_array_equal(sample.labels, np.where(labels < 0, 255, labels))
        np.testing.assert_array_equal(sample.depth, depth[0])


def test_lists_with_class_names_are_label_maps_with_these_classes(tmp_path):
    features = datasets.Features(
        {
            "pixel_values": datasets.Image(),
            "label": datasets.List(datasets.List(datasets.ClassLabel(names=["dark", "bright"]))),
            "scene": datasets.ClassLabel(names=["indoor"]),
        }
    )
    image = np.zeros((2, 3, 3), np.uint8)
    rows = {"pixel_values": [{"bytes": encoded(image), "path": None}], "label": [[[0, 1, 1], [1, 0, 0]]], "scene": [0]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    data = HubDataset(tmp_path, "train")
    assert data.label_space.classes == ("dark", "bright")
    assert data[0].labels.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_label_images_keep_ids_in_every_mode(tmp_path):
    """Palette, grey and 16 bits; a conversion to grey would turn palette indices into brightness."""
    ids = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    palette = Image.fromarray(ids, "L").convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    files = [stream.getvalue(), encoded(ids), encoded(ids.astype(np.uint16))]
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    image = encoded(np.zeros((2, 3, 3), np.uint8))
    rows = {"image": [{"bytes": image}] * 3, "mask": [{"bytes": file} for file in files]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path)
    data = HubDataset(tmp_path, "train", classes=CLASSES)
    assert [data[index].labels.tolist() for index in range(3)] == [ids.tolist()] * 3


def test_plain_parquet_of_bytes_without_features(tmp_path):
    content = [row(index) for index in range(2)]
    columns = {"photo": [one["image"] for one in content], "gt": [{"bytes": one["label"]} for one in content]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for streaming in (False, True):
        data = HubDataset(tmp_path, "train", classes=CLASSES, streaming=streaming)
        np.testing.assert_array_equal(data[1].labels, truth(1)[1])
        assert data[1].depth is None


def test_names_come_from_a_column(tmp_path):
    features = FEATURES | {"id": datasets.Value("string")}
    named = table(0, 2, datasets.Features(features), lambda number, cell: cell | {"id": f"berlin_{number}"})
    named.save_to_disk(tmp_path / "saved")
    (tmp_path / "shards").mkdir()
    named.to_parquet(tmp_path / "shards" / "a.parquet")
    for root, streaming in (("saved", False), ("shards", True)):
        data = HubDataset(tmp_path / root, "train", name_column="id", classes=CLASSES, streaming=streaming)
        assert list(data.names) == ["berlin_0", "berlin_1"] and data[1].name == "berlin_1"


def test_keys_that_archives_repeat_are_told_apart_by_the_archive(tmp_path):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", range(2))
    assert HubDataset(tmp_path, "train", classes=CLASSES).names == ["a/0000", "a/0001", "b/0000", "b/0001"]


def test_rows_without_labels_and_images_alone(tmp_path):
    table(0, 2, change=lambda number, cell: cell | ({"label": None} if number else {})).save_to_disk(tmp_path)
    data = HubDataset(tmp_path, "train", classes=CLASSES)
    assert data[0].labels is not None and data[1].labels is None
    alone = HubDataset(tmp_path, "train", label_column="none", depth_column="none")
    assert alone.label_space is None and alone[0].labels is None and alone[0].depth is None


def test_a_truncated_or_compressed_archive_is_named(roots, tmp_path):
    content = next(roots["tar"].glob("*.tar")).read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="a.tar is truncated, compressed or no tar archive: .* Download it again"):
        HubDataset(tmp_path, "train", classes=CLASSES)


@pytest.mark.parametrize("form", ["saved", "parquet", "tar"])
def test_unknown_and_empty_splits_are_answered_with_those_there_are(roots, form):
    sentence = "no split 'trian'. Did you mean 'train'.* Its splits are train, validation"
    with pytest.raises(ValueError, match=sentence):
        load_dataset("hub", roots[form], "trian")
    with pytest.raises(ValueError, match="no split 'test'"):
        load_dataset("hub", roots[form], "test")
    with pytest.raises(ValueError, match=re.escape("The split 'train[5:5]' of ") + ".* is empty"):
        load_dataset("hub", roots[form], "train[5:5]")


def test_places_without_data_are_told(tmp_path):
    for root, error, sentence in (
        (tmp_path / "gone" / "data", FileNotFoundError, "no folder or file .*gone/data, and no data set on the Hub"),
        (tmp_path / "*.parquet", FileNotFoundError, r"No file matches .*\*.parquet"),
        (tmp_path, FileNotFoundError, "holds no data that can be read: give a folder of save_to_disk"),
    ):
        with pytest.raises(error, match=sentence):
            load_dataset("hub", root, "train")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="names files that end in .gz; a pattern names either Parquet"):
        load_dataset("hub", f"{tmp_path}/*.gz", "train")
    (tmp_path / "a.tar.gz").unlink()
    (tmp_path / "a.csv").write_text("image,label\n1,2\n")
    with pytest.raises(ValueError, match="consists of csv files, which cannot be streamed"):
        load_dataset("hub", tmp_path, "train", streaming=True)


@pytest.mark.parametrize(
    "write",
    [lambda path: write_tar(path / "a.tar", range(3)), lambda path: table(0, 3).to_parquet(path / "a.parquet")],
)
def test_class_names_are_not_taken_for_data(tmp_path, write):
    write_classes(tmp_path)
    write(tmp_path)
    for streaming in (False, True):
        data = HubDataset(tmp_path, "train", streaming=streaming)
        assert len(data) == 3 and data.label_space.classes == CLASSES


def test_a_process_that_is_forked_opens_files_of_its_own(tmp_path):
    """A shared position would give one process what another one has asked for."""
    (tmp_path / "file").write_bytes(bytes(100_000))
    files = OpenFiles(open_binary)
    ours = files[str(tmp_path / "file")]
    ours.read(1)
    before = os.lseek(ours.fileno(), 0, os.SEEK_CUR)

    def read_elsewhere():
        theirs = files[str(tmp_path / "file")]
        theirs.seek(90_000)
        theirs.read(1)

    child = multiprocessing.get_context("fork").Process(target=read_elsewhere)
    child.start()
    child.join()
    assert child.exitcode == 0 and os.lseek(ours.fileno(), 0, os.SEEK_CUR) == before


def test_few_files_stay_open(tmp_path):
    files, opened = OpenFiles(open_binary), []
    for number in range(20):
        (tmp_path / str(number)).write_bytes(b"x")
        opened.append(files[str(tmp_path / str(number))])
    assert [file.closed for file in opened] == [True] * 4 + [False] * 16
