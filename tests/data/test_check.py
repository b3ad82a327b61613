import numpy as np
import pytest
from PIL import Image

from depthseg.cli import main
from depthseg.data.check import check_dataset


def save_labels(path, ids):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.array(ids, np.uint8)).save(path)


def save_depth(path, values):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.array(values, np.uint16)).save(path)


def save_image(path, size=(3, 2)):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path)


@pytest.fixture
def camvid(tmp_path):
    for split, names in (("train", ("s_1", "s_2")), ("val", ("s_3",))):
        for name in names:
            save_image(tmp_path / split / f"{name}.png")
            save_labels(tmp_path / f"{split}annot" / f"{name}.png", [[0, 0, 3], [10, 11, 11]])
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    """Ten images, six of them labelled."""
    for index in range(10):
        save_image(tmp_path / "images" / f"f{index}.jpg")
        if index < 6:
            save_labels(tmp_path / "labels" / f"f{index}.png", [[0, 1, 1], [1, 255, 255]])
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return tmp_path


def test_camvid_counts(camvid):
    report = check_dataset("camvid", camvid)
    assert report.problems == []
    assert list(report.splits) == ["train", "val"]
    train = report.splits["train"]
    assert (train.images, train.labelled, train.with_depth) == (2, 2, 0)
    assert train.pixels.tolist() == [4, 0, 0, 2, 0, 0, 0, 0, 0, 0, 2, 4]
    text = str(report)
    assert "train: 2 images, 2 label maps" in text
    assert text.endswith("No problems found, but read the notes above.")
    assert "has no pixel in any label map" not in text and "8 classes (1 'Building', 2 'Pole', 4" in text
    road = next(line for line in text.splitlines() if " Road " in line)
    assert road.split() == ["3", "Road", "16.67", "16.67"]


def test_folder_counts(folder):
    report = check_dataset("folder", folder, val_fraction=0.5)
    assert report.problems == []
    counts = {split: (count.images, count.labelled) for split, count in report.splits.items()}
    assert counts == {"all": (10, 6), "train": (3, 3), "val": (3, 3)}
    assert report.splits["all"].pixels.tolist() == [6, 18, 12]
    assert "4 of 10 images have no readable label map." in str(report)


def only_problem(report):
    assert len(report.problems) == 1, report.problems
    assert report.problems[0] in report.render()
    return report.problems[0]


def test_missing_root(tmp_path):
    assert "nowhere does not exist" in only_problem(check_dataset("camvid", tmp_path / "nowhere"))


def test_another_layout(tmp_path):
    assert "is not in the SegNet layout" in only_problem(check_dataset("camvid", tmp_path))
    assert "images does not exist" in only_problem(check_dataset("folder", tmp_path))


def test_half_a_split(camvid):
    (camvid / "test").mkdir()
    assert "testannot is missing" in only_problem(check_dataset("camvid", camvid))


def test_image_without_label(camvid):
    (camvid / "trainannot" / "s_2.png").unlink()
    assert "train/s_2.png has no label map" in only_problem(check_dataset("camvid", camvid))


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_label_without_image(name, request):
    root = request.getfixturevalue(name)
    labels = root / ("valannot" if name == "camvid" else "labels")
    save_labels(labels / "stray.png", [[0]])
    assert "stray.png has no image of the same stem" in only_problem(check_dataset(name, root))


def test_sizes_differ(camvid):
    save_labels(camvid / "trainannot" / "s_1.png", [[0, 1, 2, 3]])
    assert "s_1.png is 4x1 pixels" in only_problem(check_dataset("camvid", camvid))


@pytest.mark.parametrize(("name", "path"), [("camvid", "trainannot/s_1.png"), ("folder", "labels/f1.png")])
def test_ids_out_of_range(name, path, request):
    root = request.getfixturevalue(name)
    save_labels(root / path, [[0, 1, 77], [0, 0, 0]])
    assert f"{path} holds class ids outside the label space: 77" in only_problem(check_dataset(name, root))
    assert check_dataset(name, root).splits["train"].labelled == (1 if name == "camvid" else 4)


@pytest.mark.parametrize("path", ["images/f1.jpg", "labels/f1.png"])
def test_truncated_files(folder, path):
    path = folder / path
    noise = np.random.default_rng(0).integers(0, 2, (40, 40), dtype=np.uint8)
    for other in (folder / "images" / "f1.jpg", folder / "labels" / "f1.png"):
        Image.fromarray(noise).save(other)
    path.write_bytes(path.read_bytes()[:-60])
    assert f"{path} is truncated or damaged" in only_problem(check_dataset("folder", folder))


def test_no_images(folder):
    for path in (folder / "images").iterdir():
        path.unlink()
    problems = check_dataset("folder", folder).problems
    assert "images holds no image" in problems[0]
    assert "f0.png has no image of the same stem" in problems[1]
    assert problems[1].endswith("6 files have this fault: f0.png, f1.png, f2.png, ....")
    assert len(problems) == 2


def test_duplicate_stems(folder):
    save_image(folder / "images" / "f1.png")
    assert "have the same stem" in only_problem(check_dataset("folder", folder))


def test_jpeg_labels(folder):
    save_image(folder / "labels" / "f9.jpg")
    problem = only_problem(check_dataset("folder", folder))
    assert "labels is not read: f9.jpg." in problem and "JPEG and WebP alter ids" in problem


def test_class_names_that_are_missing(folder):
    (folder / "classes.txt").unlink()
    assert "neither classes.txt" in only_problem(check_dataset("folder", folder))


def test_lists(folder):
    (folder / "train.txt").write_text("f0\nf1\n")
    (folder / "val.txt").write_text("f1\nf8\nf11\n")
    report = check_dataset("folder", folder)
    assert (report.splits["train"].images, report.splits["val"].images) == (2, 1)
    text = " ".join(report.problems)
    assert len(report.problems) == 3
    assert "val.txt lists 'f8', which has no readable label map" in text
    assert "val.txt lists 'f11', which has no readable image" in text
    assert "1 image is in train.txt and in val.txt, the first is 'f1'" in text


def test_depth_alone(tmp_path):
    save_image(tmp_path / "images" / "a.png")
    save_image(tmp_path / "images" / "b.png")
    (tmp_path / "depth").mkdir()
    save_depth(tmp_path / "depth" / "a.png", [[512, 600, 700], [512, 0, 900]])
    report = check_dataset("folder", tmp_path)
    assert report.problems == []
    assert report.splits["train"].with_depth == report.splits["all"].with_depth == 1
    Image.new("L", (3, 2)).save(tmp_path / "depth" / "b.png")
    assert "b.png has mode L" in only_problem(check_dataset("folder", tmp_path))


def test_files_with_the_same_fault_are_one_problem_with_a_count_and_three_names(folder):
    for index in range(4):
        save_labels(folder / "labels" / f"f{index}.png", [[0, 1, 70 + index], [0, 0, 0]])
    save_labels(folder / "labels" / "f5.png", [[0, 1]])
    report = check_dataset("folder", folder)
    assert [fault.path.name for fault in report.faults] == ["f0.png", "f1.png", "f2.png", "f3.png", "f5.png"]
    same, other = report.problems[:2]
    assert same.startswith(f"{folder}/labels/f0.png holds class ids outside the label space: 70. Allowed are")
    assert same.endswith("4 files have this fault: f0.png, f1.png, f2.png, ....")
    assert "f5.png is 2x1 pixels" in other and "files have this fault" not in other


def test_data_that_cannot_be_checked_here(capsys):
    message = "'synthetic' data sets cannot be checked, only camvid, folder, stereo, video: .* rendered by depthseg"
    with pytest.raises(ValueError, match=message):
        check_dataset("synthetic", ".")
    with pytest.raises(SystemExit, match=message):
        main(["datasets", "check", "synthetic", "."])
    with pytest.raises(ValueError, match="'seed' is no option of checking 'camvid' data sets; it has none"):
        check_dataset("camvid", ".", seed=1)
    with pytest.raises(SystemExit):
        main(["datasets", "check", "--help"])
    assert "folder, synthetic" in capsys.readouterr().out


def test_depth_in_arrays_is_counted_and_examined(tmp_path):
    for folder in ("images", "depth"):
        (tmp_path / folder).mkdir()
    for name, metres in (("good", 2.0), ("bad", -1.0)):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        depth = np.linspace(metres, 2 * metres, 24, dtype=np.float32).reshape(4, 6)
        np.save(tmp_path / "depth" / f"{name}.npy", depth)
    report = check_dataset("folder", tmp_path)
    assert report.splits["all"].with_depth == 1
    assert any("bad.npy" in problem and "negative" in problem for problem in report.problems)
