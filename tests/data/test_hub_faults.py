"""What is wrong with data sets of the Hub, told with the data set, the split, the row and the column."""

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data.hub_files import CLASSES, FEATURES, encoded, row, table, truth, write_classes, write_tar

from depthseg.cli import main
from depthseg.data import HubDataset, load_dataset
from depthseg.data.check import check_dataset


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Copies that `datasets` makes go to a folder of the tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    patch.undo()


def broken(change, **options):
    """Saved rows of which the second one is altered."""

    def write(folder):
        altered = options.pop("features", FEATURES)
        table(0, 2, altered, lambda number, cell: cell | (change(cell) if number else {})).save_to_disk(folder)
        return folder, {"classes": list(CLASSES), **options}

    return write


def cell(values, ending="png"):
    return {"bytes": encoded(values, ending), "path": None}


def tar(members, **options):
    def write(folder):
        write_tar(folder / "a.tar", (), members)
        return folder, {"classes": list(CLASSES), **options}

    return write


def shards(change, streaming=True, **options):
    """Parquet whose file is altered as bytes."""

    def write(folder):
        folder.mkdir(exist_ok=True)
        table(0, 2).to_parquet(folder / "a.parquet")
        content = (folder / "a.parquet").read_bytes()
        (folder / "a.parquet").write_bytes(change(content))
        return folder, {"classes": list(CLASSES), "streaming": streaming, **options}

    return write


def no_images(folder):
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), folder / "a.parquet")
    return folder, {}


def gone(folder):
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "/gone.png"}]}), folder / "a.parquet")
    return folder, {"label_column": "none", "streaming": True}


def names_twice(folder):
    features = datasets.Features(FEATURES | {"id": datasets.Value("string")})
    table(0, 2, features, lambda number, cell: cell | {"id": "a"}).save_to_disk(folder)
    return folder, {"classes": list(CLASSES), "name_column": "id"}


def other_columns(folder):
    table(0, 2).to_parquet(folder / "a.parquet")
    table(0, 2).select_columns(["image"]).to_parquet(folder / "b.parquet")
    return folder, {"classes": list(CLASSES), "streaming": True}


def with_column(name, feature, value, **options):
    """Rows with a further column."""
    return broken(lambda cell: {name: value}, features=datasets.Features(FEATURES | {name: feature}), **options)


PARTS = {
    f"{index:04d}.{ending}": row(index)[column]
    for index in range(2)
    for ending, column in (("png", "image"), ("seg.png", "label"))
}
WITHOUT_PARTNER = {name: content for name, content in PARTS.items() if name != "0001.seg.png"}
NEGATIVE = {f"000{index}.depth.npy": encoded(np.full((32, 64), -1.0), "npy") for index in range(2)}
GREY = np.zeros((32, 64), np.uint8)
LABEL, IMAGE = (f"split 'train', row 1, column {name!r} " for name in ("label", "image"))
FAULTS = {
    "missing column": (
        broken(lambda old: {}, label_column="lable"),
        r"no column 'lable'.* Did you mean 'label'\? Its columns: image \(images\), ",
    ),
    "column of another kind": (
        with_column("x", datasets.Value("int64"), 1, label_column="x"),
        "column 'x' of .* holds int64, but the option label_column names one of images",
    ),
    "several columns": (
        with_column("mask", datasets.Image(), None),
        "several columns that may be the label column: label, mask. Give the option label_column",
    ),
    "another size": (
        broken(lambda old: {"label": cell(GREY[:, :63])}),
        LABEL + "is 63x32 pixels, but its image",
    ),
    "wrong ids": (
        broken(lambda old: {"label": cell(GREY + 9)}),
        LABEL + "holds class ids .*: 9. Allowed are 0 to 2 and 255",
    ),
    "corrupt bytes": (
        broken(lambda old: {"image": {"bytes": old["image"]["bytes"][:200]}}),
        IMAGE + "is truncated",
    ),
    "no image in a row": (broken(lambda old: {"image": None}), IMAGE + "is null"),
    "bytes of something else": (broken(lambda old: {"label": {"bytes": b"hello"}}), LABEL + "is not an image"),
    "a file that is gone": (gone, "row 0, column 'image' names the file /gone.png, which is not there"),
    "coloured labels": (broken(lambda old: {"label": old["image"]}), LABEL + "is a colour image"),
    "labels as JPEG": (
        broken(lambda old: {"label": cell(GREY, "jpeg")}),
        LABEL + "is a JPEG file, whatever its name",
    ),
    "negative depth": (tar(PARTS | NEGATIVE), "a.tar:0000.depth.npy holds negative values"),
    "no classes": (
        broken(lambda old: {}, classes=()),
        r"classes of the label column 'label' .* are not known.*data.options.classes=\[road,sky\]",
    ),
    "label_map of no class": (broken(lambda old: {}, label_map={1: 3}), "label_map: 1 -> 3 is no class"),
    "names twice": (names_twice, "column 'id' of .* names 1 samples more than once: a"),
    "a name that is null": (
        with_column("id", datasets.Value("string"), "a", name_column="id"),
        "column 'id' of .* is null in row 0",
    ),
    "truncated Parquet": (shards(lambda content: content[:-100]), "a.parquet is truncated or no Parquet file"),
    "truncated Parquet that is copied": (
        shards(lambda content: content[:-100], streaming=False),
        "a.parquet is truncated or no Parquet file",
    ),
    "damaged Parquet": (
        shards(lambda content: b"PAR1" + b"\xff" * 2000 + content[2004:]),
        "Row group 0 of .*a.parquet is damaged and cannot be read: .* Download the file again",
    ),
    "Parquet without images": (
        no_images,
        r"no column that looks like images. Give .* image_column. Its columns: text \(string\), label \(int64\)",
    ),
    "other columns in one file": (
        other_columns,
        "b.parquet has the columns image, but .*a.parquet has image, label, depth",
    ),
    "a member without partner": (
        tar(WITHOUT_PARTNER),
        "a.tar:0001.png has no partner 0001.seg.png in its archive. With the option missing=skip, the 1 complete",
    ),
    "two members of one name": (tar(PARTS | {"0000.PNG": b"x"}), "a.tar has two members 0000.PNG"),
    "names of an archive": (tar(PARTS, name_column="png"), "leave the option name_column out"),
    "nothing mixed": (tar(PARTS, shuffle_buffer=0), "shuffle_buffer=0 is out of range"),
    "depth without a unit": (tar(PARTS, depth_scale=0), "depth_scale=0.0 is out of range"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_told_with_its_place(tmp_path, fault):
    write, sentence = FAULTS[fault]
    root, options = write(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        data = load_dataset("hub", root, "train", **options)
        [data[index] for index in range(len(data))]


def test_an_array_that_is_no_image_or_map_is_refused(tmp_path):
    columns = {
        "image": [[[0, 300]], [[0, 1]], [[0, 1]], [[0, 1]]],
        "label": [[[0, 1]], [[0.5, 1]], [[0, 1], [1]], [[0, float("nan")]]],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    data = HubDataset(tmp_path, "train", streaming=True, classes=CLASSES)
    sentences = [
        "row 0, column 'image' is an array of int64 from 0 to 300; an image has whole",
        "row 1, column 'label' holds numbers that are not whole",
        "row 2, column 'label' is a list whose rows differ in length",
        "row 3, column 'label' holds numbers that are not whole",
    ]
    for index, sentence in enumerate(sentences):
        with pytest.raises(ValueError, match=sentence):
            data[index]


def test_the_check_counts_classes_and_names_rows(tmp_path, capsys):
    change = {
        1: lambda cell_: {"label": cell(GREY + 9)},
        3: lambda cell_: {"image": {"bytes": cell_["image"]["bytes"][:100]}},
        4: lambda cell_: {"label": cell(GREY + 8)},
    }
    rows = table(0, 6, change=lambda number, old: old | change.get(number, lambda _: {})(old))
    datasets.DatasetDict(train=rows, validation=table(6, 8)).save_to_disk(tmp_path)
    write_classes(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(["datasets", "check", "hub", str(tmp_path), "--option", "depth_column=none"])
    text = capsys.readouterr().out
    assert "train: 6 images, 3 label maps" in text and "validation: 2 images, 2 label maps" in text
    assert "2 problems:" in text
    assert "row 1, column 'label' holds class ids outside the label space: 9." in text and "2 files have this" in text
    assert "row 3, column 'image' is truncated" in text
    pixels = sum(np.bincount(np.minimum(truth(i)[1], 3).ravel(), minlength=4) for i in (0, 2, 5))
    report = check_dataset("hub", tmp_path)
    assert report.splits["train"].pixels.tolist() == pixels.tolist()
    share = 100 * pixels[2] / pixels.sum()
    assert next(line for line in text.splitlines() if " tree " in line).split()[2] == f"{share:.2f}"


def test_the_check_counts_members_without_partner(tmp_path):
    write_tar(tmp_path / "a.tar", (), WITHOUT_PARTNER | {"0002.png": PARTS["0000.png"]})
    report = check_dataset("hub", tmp_path, classes=CLASSES)
    assert report.splits["train"].images == 1
    assert len(report.problems) == 1 and "2 files have this fault: " in report.problems[0]
    assert "0001.png has no partner 0001.seg.png" in report.problems[0]
