"""What annotation tools write beside images, read through options of a data folder."""

import numpy as np
import pytest
from PIL import Image

from depthseg.data import FolderDataset, load_dataset
from depthseg.data.check import check_dataset
from depthseg.reading import read_pairs

NAMES = ("a", "b", "c")
COLOURS = {"road": [128, 64, 128], "sky": [70, 130, 180], "ignore": [0, 0, 0]}


def save(path, values, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8), mode).save(path, **options)


@pytest.fixture
def root(tmp_path):
    """Three images of 3x1 pixels and two classes; no labels yet."""
    for name in NAMES:
        save(tmp_path / "images" / f"{name}.png", np.zeros((1, 3, 3)))
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    return tmp_path


def label(root, values, folder="labels", end=".png", names=NAMES):
    for name in names:
        save(root / folder / f"{name}{end}", values)


def read(root, **options):
    return load_dataset("folder", root, "all", **options)[0].labels.tolist()


@pytest.mark.parametrize(
    ("values", "label_map", "expected"),
    [
        ([0, 1, 11], {11: "ignore"}, [0, 1, 255]),
        ([0, 255, 7], {255: 1, 7: "ignore"}, [0, 1, 255]),
        ([0, 1, 2], {"0": "ignore", "1-2": "0-1"}, [255, 0, 1]),
        ([0, 200, 255], {"200-210": "sky"}, [0, 1, 255]),
        ([3, 4, 0], {"3-4": "1"}, [1, 1, 0]),
    ],
)
def test_a_label_map_says_what_values_mean(root, values, label_map, expected):
    label(root, [values])
    assert read(root, label_map=label_map) == [expected]
    assert check_dataset("folder", root, label_map=label_map).problems == []


def test_a_label_map_is_read_from_the_command_line(root):
    label(root, [[0, 11, 255]])
    options = read_pairs(["label_map={11: ignore, 255: 1}"], "--option", "a=1")
    assert read(root, **options) == [[0, 255, 1]]


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({11: 40}, "label_map: 11 -> 40 is no class of this data set.* from 0 to 1, a class name, or ignore"),
        ({11: "skyy"}, "label_map: 11 -> skyy is no class .* Did you mean 'sky'"),
        ({"x": 1}, "label_map: 'x' is no value of a label map"),
        ({"1-3": "0-1"}, "label_map: 1-3 -> 0-1 has 3 values on the left and 2 on the right"),
        ({"1-3": "ignore", 2: 0}, "label_map lists the value 2 twice"),
    ],
)
def test_errors_name_the_option(root, label_map, message):
    label(root, [[0, 1, 1]])
    with pytest.raises(ValueError, match=message):
        read(root, label_map=label_map)


def test_values_that_no_map_names_are_errors(root):
    label(root, [[0, 1, 9]])
    with pytest.raises(ValueError, match=r"labels/a.png holds .*: 9. Allowed are 0 to 1, 11 and 255"):
        read(root, label_map={11: "ignore"})


def test_colour_masks_are_read_by_their_colours(root):
    label(root, [[[128, 64, 128], [70, 130, 180], [0, 0, 0]]])
    data = load_dataset("folder", root, "all", label_colours=COLOURS)
    assert data[0].labels.tolist() == [[0, 1, 255]]
    assert data.label_space.palette == ((128, 64, 128), (70, 130, 180))
    assert check_dataset("folder", root, label_colours=COLOURS).problems == []
    # A brute-force translation of random pixels.
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (40, 50))
    palette = np.array(list(COLOURS.values()), np.uint8)
    save(root / "images" / "a.png", np.zeros((40, 50, 3)))
    save(root / "labels" / "a.png", palette[ids])
    assert (data[0].labels == np.where(ids == 2, 255, ids)).all()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:70,130,180::\nvoid:0,0,0::\n"),
        ("class_dict.csv", "name,r,g,b\nroad,128,64,128\nsky,70,130,180\nvoid,0,0,0\n"),
        ("colours.json", '{"road": [128, 64, 128], "sky": "#4682b4", "void": [0, 0, 0]}'),
        (
            "list.json",
            '[{"name": "road", "color": [128, 64, 128]}, {"name": "sky", "color": "#4682B4"},'
            ' {"name": "void", "color": [0, 0, 0]}]',
        ),
    ],
)
def test_colours_are_read_from_the_files_of_tools_which_name_the_classes(root, file, text):
    (root / "classes.txt").unlink()
    (root / file).write_text(text)
    label(root, [[[128, 64, 128], [70, 130, 180], [0, 0, 0]]])
    data = load_dataset("folder", root, "all", label_colours=file, label_map={"void": "ignore"})
    assert data.label_space.classes == ("road", "sky")
    assert data[0].labels.tolist() == [[0, 1, 255]]
    assert load_dataset("folder", root, "all", label_colours=file).label_space.classes == ("road", "sky", "void")


def test_unknown_colours_are_named_with_their_number_and_the_nearest(root):
    label(root, [[[128, 64, 128], [70, 130, 181], [70, 130, 181]]])
    message = r"a.png holds colours .* does not name: 70, 130, 181 \(2 pixels; the nearest is sky 70, 130, 180\)"
    with pytest.raises(ValueError, match=message):
        read(root, label_colours=COLOURS)
    # Borders that were smoothed have many mixed colours.
    save(root / "images" / "a.png", np.zeros((1, 20, 3)))
    save(root / "labels" / "a.png", [[[128 - 2 * i, 64 + 2 * i, 128] for i in range(20)]])
    with pytest.raises(ValueError, match="and 16 more colours. Mixed colours on the borders .* anti-aliasing"):
        read(root, label_colours=COLOURS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"label_colours": {"road": [1, 2]}},
            r"label_colours: the colour of 'road' is \[1, 2\], but a colour is three",
        ),
        ({"label_colours": {"road": [1, 2, 3], "sky": [1, 2, 3]}}, "'road' and 'sky' have the same colour 1, 2, 3"),
        ({"label_colours": {"raod": [1, 2, 3]}}, "'raod', which is no class of this folder. Did you mean 'road'"),
        ({"label_colours": "none.txt"}, "label_colours='none.txt': there is no file"),
        ({"label_colours": COLOURS, "label_channel": "red"}, "label_channel or label_colours, not both"),
        ({"label_channel": "infrared"}, "label_channel must be one of red, green, blue, alpha"),
        ({"exif": "no"}, "exif must be one of apply, ignore"),
    ],
)
def test_options_that_do_not_fit_are_named(root, options, message):
    label(root, [[0, 1, 1]])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(root, **options)


def test_ids_in_a_channel_of_a_colour_image(root):
    label(root, [[[0, 9, 9], [1, 8, 7], [255, 0, 0]]])
    assert read(root, label_channel="red") == [[0, 1, 255]]
    label(root, [[[9, 9, 9, 0], [9, 9, 9, 1], [9, 9, 9, 4]]])
    assert read(root, label_channel="alpha", label_map={4: "ignore"}) == [[0, 1, 255]]
    label(root, [[0, 1, 1]])
    with pytest.raises(ValueError, match="a.png has no red channel, its mode is L; check the option label_channel"):
        read(root, label_channel="red")


def test_a_colour_image_is_refused_with_the_option_that_reads_it(root):
    label(root, [[[0, 0, 0], [1, 0, 0], [1, 0, 0]]])
    with pytest.raises(ValueError, match="Only its red channel has values: .*data.options.label_channel=red"):
        read(root)
    label(root, [[[128, 64, 128], [70, 130, 180], [70, 130, 180]]])
    with pytest.raises(ValueError, match=r"label_colours=\{NAME1: \[70, 130, 180\], NAME2: \[128, 64, 128\]"):
        read(root)


@pytest.mark.parametrize("end", ["_gt", "_mask", "_gtFine_labelIds"])
def test_label_maps_with_longer_names(root, end):
    label(root, [[0, 1, 1]], end=f"{end}.png")
    with pytest.raises(ValueError, match=f"or give data.options.label_suffix={end}"):
        FolderDataset(root, "train")
    assert f"or give data.options.label_suffix={end}" in "".join(check_dataset("folder", root).problems)
    assert read(root, label_suffix=end) == [[0, 1, 1]]
    assert len(FolderDataset(root, "train", label_suffix=end, val_fraction=0)) == 3
    assert check_dataset("folder", root, label_suffix=end).problems == []


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("training", "validation"), ("train", "valid")])
def test_folders_of_splits_are_the_splits(tmp_path, train, val):
    for folder, names in ((train, ("a", "b")), (val, ("a",)), ("test", ("c",))):
        for name in names:
            save(tmp_path / "images" / folder / f"{name}.jpg", np.zeros((1, 3, 3)))
            save(tmp_path / "labels" / folder / f"{name}.png", [[0, 1, len(folder) % 2]])
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    assert FolderDataset(tmp_path, "train").names == [f"{train}/a", f"{train}/b"]
    assert FolderDataset(tmp_path, "val").names == [f"{val}/a"]
    assert FolderDataset(tmp_path, "test").names == ["test/c"]
    assert len(FolderDataset(tmp_path, "all")) == 4
    assert FolderDataset(tmp_path, "val")[0].labels.tolist() == [[0, 1, len(val) % 2]]
    report = check_dataset("folder", tmp_path)
    assert report.problems == []
    assert {name: count.labelled for name, count in report.splits.items()} == {
        "all": 4,
        "train": 2,
        "val": 1,
        "test": 1,
    }


@pytest.mark.parametrize(
    ("read", "unread"), [(["train"], ["train/city", "extra"]), (["train", "val"], ["val/b"]), ([""], ["train"])]
)
def test_images_in_folders_that_are_not_read_are_named(tmp_path, read, unread, caplog):
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    for folder in (*read, *unread):
        save(tmp_path / "images" / folder / "a.png", np.zeros((1, 3, 3)))
    (tmp_path / "images" / (read[0] or ".") / "empty").mkdir()
    assert len(load_dataset("folder", tmp_path, "all")) == len(read)
    (said,) = [message for message in caplog.messages if "not read" in message]
    assert all(str(tmp_path / "images" / folder) in said for folder in (*read, *unread)) and "empty" not in said


def test_a_train_folder_alone_is_divided_and_test_is_never_drawn_from(tmp_path):
    for folder, names in (("train", ("a", "b", "c", "d")), ("test", ("e",))):
        for name in names:
            save(tmp_path / "images" / folder / f"{name}.png", np.zeros((1, 3, 3)))
            save(tmp_path / "labels" / folder / f"{name}.png", [[0, 1, 1]])
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    both = FolderDataset(tmp_path, "train").names + FolderDataset(tmp_path, "val").names
    assert sorted(both) == ["train/a", "train/b", "train/c", "train/d"]


def test_a_test_split_needs_a_list_or_a_folder(root):
    label(root, [[0, 1, 1]])
    with pytest.raises(FileNotFoundError, match="has no split 'test': there is neither test.txt nor images/test"):
        FolderDataset(root, "test")
    (root / "test.txt").write_text("b\n")
    assert FolderDataset(root, "test").names == ["b"]


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".webp"])
def test_label_maps_of_formats_that_alter_ids_are_refused(root, ending):
    label(root, [[0, 1, 1]], end=ending)
    with pytest.raises(
        ValueError, match=r"3 label maps in .*labels are JPEG or WebP files \(.*formats alter ids.*CVAT"
    ):
        FolderDataset(root, "train")
    assert "formats alter ids" in "".join(check_dataset("folder", root).problems)
    label(root, [[0, 1, 1]])  # images of the label maps beside them do no harm
    assert len(FolderDataset(root, "train", val_fraction=0)) == 3


@pytest.mark.parametrize("orientation", [2, 3, 4, 6])
def test_images_that_were_turned_are_noted_beside_their_labels(root, orientation, caplog):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    save(root / "images" / "a.png", pixels, exif=exif)
    save(root / "labels" / "a.png", np.eye(3))
    stored = FolderDataset(root, "all", exif="ignore")[0].image
    assert (stored == pixels).all()
    assert "orientation" not in caplog.text
    data = FolderDataset(root, "all")
    assert not (data[0].image == pixels).all() and data[0] is not None
    assert caplog.text.count(f"by its EXIF orientation ({orientation}) and is read upright") == 1
    assert any("data.options.exif=ignore" in note for note in check_dataset("folder", root).notes)
    assert check_dataset("folder", root).problems == []


def test_depth_that_looks_like_millimetres_is_warned_of_once(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for name in NAMES:
        save(tmp_path / "images" / f"{name}.png", np.zeros((8, 8, 3)))
        (tmp_path / "depth").mkdir(exist_ok=True)
        depth = rng.integers(1500, 4000, (8, 8)).astype(np.uint16)
        Image.fromarray(depth).save(tmp_path / "depth" / f"{name}.png")
    for split in ("train", "val"):
        FolderDataset(tmp_path, split, truth="depth")
    assert caplog.text.count("data.options.depth_scale=1000 (millimetres)") == 1
    caplog.clear()
    FolderDataset(tmp_path, "train", truth="depth", depth_scale=1000)
    assert "Is the unit right" not in caplog.text


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_what_is_a_jpeg_inside_is_refused_whatever_its_name_says(root, kind):
    label(root, [[0, 1, 1]])
    save(root / "labels" / "b.png", [[0, 1, 1]], format=kind)
    problem = f"b.png is a {kind} file, whatever its name says: the format alters class ids"
    assert any(problem in found for found in check_dataset("folder", root).problems)
    dataset = load_dataset("folder", root, "all")
    with pytest.raises(ValueError, match="Export label maps as PNG again"):
        dataset[dataset.names.index("b")]


def test_a_number_of_images_is_no_share(root):
    label(root, [[0, 1, 1]])
    for open_it in (
        lambda **options: load_dataset("folder", root, "val", **options),
        lambda **o: check_dataset("folder", root, **o),
    ):
        with pytest.raises(ValueError, match="val_fraction=10.* is a share from 0 to below 1"):
            open_it(val_fraction=10)


def test_depth_maps_without_labels_are_answered_with_the_option(root):
    for name in NAMES:
        (root / "depth").mkdir(exist_ok=True)
        Image.fromarray(np.full((1, 3), 900, np.uint16)).save(root / "depth" / f"{name}.png")
    with pytest.raises(ValueError, match="There are depth maps: the option truth=depth divides"):
        load_dataset("folder", root, "train")
