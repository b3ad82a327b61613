import re

import numpy as np
import pytest
from data.map_files import ramp, save_depth, save_image, save_labels
from PIL import Image

from depthseg.cli import main
from depthseg.data.check import check_dataset


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
    assert "is not in the layout of camvid: none of" in only_problem(check_dataset("camvid", tmp_path))
    assert "images does not exist" in only_problem(check_dataset("folder", tmp_path))


def test_half_a_split(camvid):
    (camvid / "test").mkdir()
    assert "testannot does not exist. Unpack" in only_problem(check_dataset("camvid", camvid))


def test_image_without_label(camvid):
    (camvid / "trainannot" / "s_2.png").unlink()
    assert "train/s_2.png has no label map" in only_problem(check_dataset("camvid", camvid))


@pytest.mark.parametrize("name", ["camvid", "folder"])
def test_label_without_image(name, request):
    root = request.getfixturevalue(name)
    labels = root / ("valannot" if name == "camvid" else "labels")
    save_labels(labels / "stray.png", [[0]])
    assert "stray.png has no image" in only_problem(check_dataset(name, root))


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
    assert "f9.jpg is a JPEG or WebP file, and these formats alter ids" in problem and "as PNG: CVAT as" in problem


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
    message = (
        "'synthetic' data sets cannot be checked, only ade20k, camvid, .*stereo, video, .*: .* rendered by depthseg"
    )
    with pytest.raises(ValueError, match=message):
        check_dataset("synthetic", ".")
    with pytest.raises(SystemExit, match=message):
        main(["datasets", "check", "synthetic", "."])
    with pytest.raises(ValueError, match="'seed' is no option of checking 'camvid' data sets; its options are"):
        check_dataset("camvid", ".", seed=1)
    with pytest.raises(SystemExit):
        main(["datasets", "check", "--help"])
    assert re.search(r"folder,.* synthetic", " ".join(capsys.readouterr().out.split()))


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


def test_images_of_sixteen_bits_are_noted(folder):
    Image.fromarray(np.array([[400, 500, 600], [700, 800, 1000]], np.uint16)).save(folder / "images" / "thermal.png")
    notes = check_dataset("folder", folder).notes
    assert "Of 11 images, 1 have grey values of 16 bits, from 400 to 1000: 10 of the 16 bits are used." in notes


def test_a_binary_mask_of_0_and_255_is_a_problem(folder):
    for path in (folder / "labels").iterdir():
        save_labels(path, [[0, 0, 255], [255, 255, 0]])
    problem = only_problem(check_dataset("folder", folder))
    assert "hold only the ids 0 and 255, and 255 means ignored: class 1 'b' never occurs" in problem
    assert "data.options.label_map={255: 1}" in problem
    report = check_dataset("folder", folder, label_map={"255": 1})
    assert report.problems == [] and report.splits["all"].pixels.tolist() == [18, 18, 0]


def test_a_single_class_has_the_id_1(folder):
    (folder / "classes.txt").write_text("crack\n")
    for path in (folder / "labels").iterdir():
        save_labels(path, [[0, 0, 255], [255, 255, 0]])
    report = check_dataset("folder", folder)
    assert "class 1 'crack' never occurs" in only_problem(report)
    assert [line.split()[:2] for line in str(report).splitlines()[5:8]] == [
        *(["0", "background"], ["1", "crack"]),
        ["255", "(ignored)"],
    ]


def notes_of(folder, labels, **options):
    for name, ids in labels.items():
        save_labels(folder / "labels" / f"{name}.png", ids)
    return check_dataset("folder", folder, **options).notes


def test_classes_that_a_split_lacks_are_noted(folder):
    (folder / "classes.txt").write_text("a\nb\nc\n")
    (folder / "train.txt").write_text("f0\nf1\n")
    (folder / "val.txt").write_text("f2\nf3\n")
    notes = notes_of(folder, {f"f{index}": [[index // 2] * 3] * 2 for index in range(4)})
    assert "Class 2 'c' has no pixel in any label map, so nothing can be learned about it." in notes
    assert "Class 1 'b' has no pixel in train but some elsewhere, so nothing can be learned about it." in notes
    assert "Class 0 'a' has no pixel in val, so the mean IoU on val says nothing about it." in notes


def test_many_ignored_pixels_are_noted_with_their_share(folder):
    notes = notes_of(folder, {f"f{index}": [[0, 1, 255], [255, 255, 255]] for index in range(6)})
    assert "67% of all labelled pixels are ignored (id 255): they neither train nor count." in notes
    notes = notes_of(folder, {f"f{index}": [[255, 255, 255]] * 2 for index in range(2)})
    assert any("f0.png has ignored pixels only. 2 files have this fault: f0.png, f1.png." in note for note in notes)
    few = notes_of(folder, {f"f{index}": [[0, 1, 1], [0, 0, 255]] for index in range(6)})
    assert not any("ignored" in note for note in few)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([[1, 2, 2]], r"The ids run from 1 to 2, .* so subtract 1 from all, with data.options.label_map=\{1-2: 0-1\}"),
        (
            [[0, 1, 2]],
            r"The ids run from 0 to 2, .* If 2 means unlabelled, .* data.options.label_map=\{2: ignore\}",
        ),
        ([[0, 76, 150]], "The ids are 0, 76, 150, 3 different values far beyond 2 class names: .* grey levels"),
        ([[7, 24000, 24001]], "Ids of 1000 and more look like instance maps"),
    ],
)
def test_ids_beyond_the_names_are_explained(folder, ids, reason):
    for index in range(6):
        Image.fromarray(np.array(ids * 2, np.uint16)).save(folder / "labels" / f"f{index}.png")
    refused, explained = check_dataset("folder", folder).problems
    assert "holds class ids outside the label space" in refused and "6 files have this fault" in refused
    assert re.match(reason, explained)


def test_one_wrong_file_of_many_is_no_reason_to_guess(folder):
    save_labels(folder / "labels" / "f1.png", [[0, 1, 150], [0, 0, 0]])
    assert "outside the label space: 150" in only_problem(check_dataset("folder", folder))


@pytest.mark.parametrize(
    ("size", "reason"),
    [((6, 8), "The maps are 0.5 times the size"), ((16, 12), "The maps are turned by 90 degrees"), ((5, 9), None)],
)
def test_sizes_that_all_differ_in_one_way_are_explained(tmp_path, size, reason):
    for name in ("a", "b", "c"):
        save_image(tmp_path / "images" / f"{name}.png", (16, 12))
        save_labels(tmp_path / "labels" / f"{name}.png", np.arange(size[0] * size[1]).reshape(size) % 2)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    problems = check_dataset("folder", tmp_path).problems
    assert "3 files have this fault: a.png, b.png, c.png." in problems[0]
    assert [problem.startswith(reason or "") for problem in problems[1:]] == [True] * (reason is not None)


def test_unread_files_are_counted_and_those_that_are_images_are_a_problem(folder):
    for name in ("x.heic", "y.HEIC", "notes.txt", ".hidden", "Thumbs.db"):
        (folder / "images" / name).touch()
    report = check_dataset("folder", folder)
    assert f"2 files in {folder}/images are not read: x.heic, y.HEIC. Images end in" in only_problem(report)
    assert any(note.startswith(f"1 file in {folder}/images is not read: notes.txt.") for note in report.notes)


def test_images_that_camvid_does_not_read_are_a_problem(camvid):
    save_image(camvid / "train" / "s_9.jpg")
    save_labels(camvid / "trainannot" / "s_9.png", [[0]])
    problem = only_problem(check_dataset("camvid", camvid))
    assert "train/s_9.png is missing" in problem
    assert "train/s_9.jpg is not read; convert it to .png." in problem


def test_lists_with_endings_are_explained(folder):
    (folder / "train.txt").write_text("f0.jpg\nf1.jpg\nf2.jpg\nf3.jpg\n")
    (folder / "val.txt").write_text("f4\n")
    problem = only_problem(check_dataset("folder", folder))
    assert "train.txt lists 'f0.jpg', which has no readable image. Lists hold names without ending." in problem
    assert "4 files have this fault" in problem


def test_stereo_pairs(tmp_path):
    for name in ("a", "b"):
        save_image(tmp_path / "left" / f"{name}.png", (6, 4))
        save_image(tmp_path / "right" / f"{name}.png", (6, 4))
    save_depth(tmp_path / "disparity" / "a.png", ramp(256, 1280, (4, 6)))
    report = check_dataset("stereo", tmp_path)
    assert report.problems == []
    assert "all: 2 pairs, 1 disparity map" in str(report) and "disparity in pixels" in str(report)
    assert (report.splits["all"].depth.low, report.splits["all"].depth.high) == (1, 5)
    save_image(tmp_path / "right" / "b.png", (7, 4))
    save_image(tmp_path / "left" / "c.png", (6, 4))
    (tmp_path / "calib.txt").write_text("nonsense")
    partner, size, calibration = check_dataset("stereo", tmp_path).problems
    assert "left/c.png has no partner of the same name in" in partner
    assert "right/b.png is 7x4 pixels" in size and "calib.txt" in calibration
    (tmp_path / "right").rename(tmp_path / "other")
    problem = only_problem(check_dataset("stereo", tmp_path))
    assert "right does not exist; pairs are read from left/ and right/" in problem


def test_frames_of_videos(tmp_path):
    for clip in ("one", "two"):
        (tmp_path / clip).mkdir()
        for index in range(3):
            save_image(tmp_path / clip / f"{index}.png", (6, 4))
    save_depth(tmp_path / "range" / "1.png", ramp(256, 1280, (4, 6)))
    report = check_dataset("video", tmp_path, depth="range")
    assert report.problems == []
    assert [(name, count.images) for name, count in report.splits.items()] == [("one", 3), ("two", 3), ("all", 6)]
    assert "`depthseg datasets doctor" in str(report)
    save_image(tmp_path / "two" / "2.png", (5, 4))
    (tmp_path / "one" / "0.png").write_bytes(b"")
    unreadable, size = check_dataset("video", tmp_path, depth="range").problems
    assert "one/0.png is not an image" in unreadable and "two/2.png has another size than the first frame" in size
    assert "nowhere does not exist" in only_problem(check_dataset("video", tmp_path / "nowhere"))
