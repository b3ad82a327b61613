import re
import shutil

import numpy as np
import pytest
from PIL import Image

from depthseg.data import DepthSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.kitti_raw import DRIVES, drive_frame

SIZE = (24, 80)
FIRST, SECOND, THIRD = (drive.name for drive in DRIVES)
BY_NAME = {drive.name: drive for drive in DRIVES}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_miniature("kitti_depth", tmp_path_factory.mktemp("kitti") / "depth", count=2, size=SIZE)


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "depth")


def truth_of(drive, number, right, outputs=("image", "depth", "intrinsics")):
    return drive_frame(BY_NAME[drive], number, SIZE, outputs, right)


@pytest.mark.parametrize(("split", "count"), [("train", 8), ("val", 4)])
def test_a_miniature_is_read_as_it_was_rendered(written, split, count):
    dataset = load_dataset("kitti_depth", written, split)
    assert len(dataset) == count
    for sample in (dataset[index] for index in range(count)):
        drive, camera, number = sample.name.split("/")
        truth = truth_of(drive, int(number), camera == "image_03")
        assert isinstance(sample, DepthSample) and sample.depth.dtype == np.float32
        np.testing.assert_array_equal(sample.image, truth["image"])
        near = truth["depth"] < 255
        np.testing.assert_allclose(sample.depth[near], truth["depth"][near], rtol=0, atol=1 / 512 + 1e-5)
        np.testing.assert_array_equal(sample.depth > 0, truth["depth"] > 0)
        np.testing.assert_allclose(sample.intrinsics, truth["intrinsics"], rtol=1e-6)
    assert len(load_dataset("kitti_depth", written, split, side="left")) == count // 2


def test_the_selection_is_matched_by_drive_number_and_camera(written):
    dataset = load_dataset("kitti_depth", written, "val_selection_cropped")
    assert len(dataset) == 4 and dataset.names[1] == f"val_selection_cropped/{THIRD}_0000000001_image_03"
    sample, truth = dataset[1], truth_of(THIRD, 1, True)
    height, width = sample.image.shape[:2]
    assert height % 2 == width % 2 == 0
    np.testing.assert_array_equal(sample.image, truth["image"][:height, :width])
    np.testing.assert_allclose(sample.depth, truth["depth"][:height, :width], rtol=0, atol=1 / 512 + 1e-5)
    np.testing.assert_allclose(sample.intrinsics, truth["intrinsics"], atol=1e-6)
    sweep = load_dataset("kitti_depth", written, "val_selection_cropped", maps="velodyne_raw")[1].depth
    assert not sweep[::2].any()
    np.testing.assert_array_equal(sweep[1::2], sample.depth[1::2])


def test_test_images_have_no_depth(written):
    completion = load_dataset("kitti_depth", written, "test_completion")[1]
    assert completion.depth is None and completion.intrinsics.shape == (3, 3)
    assert load_dataset("kitti_depth", written, "test_completion", maps="velodyne_raw")[1].depth.any()
    prediction = load_dataset("kitti_depth", written, "test_prediction")
    assert prediction[0].depth is None and len(prediction) == 2
    (written / "benchmark.txt").write_text("image 1\n")
    listed = load_dataset("kitti_depth", written, "test_prediction", split_file=str(written / "benchmark.txt"))
    assert listed.names == ["test_depth_prediction_anonymous/0000000001"]
    np.testing.assert_array_equal(listed[0].image, prediction[1].image)


def test_a_list_is_looked_up_in_train_and_val(root):
    lines = [f"2011_10_03/{THIRD} 1 r", f"2011_09_26/{FIRST} 0000000002 l", f"2011_09_26/{FIRST} 0 l"]
    (root / "eigen.txt").write_text("\n".join(lines))
    with pytest.raises(
        FileNotFoundError, match=r"has no depth map: .*train/.*0000000000.png is missing\. Unpack data_d"
    ):
        load_dataset("kitti_depth", root, "train", split_file="eigen.txt")
    for split in ("train", "val"):
        dataset = load_dataset("kitti_depth", root, split, split_file="eigen.txt", missing="skip")
        assert dataset.names == [f"{THIRD}/image_03/0000000001", f"{FIRST}/image_02/0000000002"]
        assert len(dataset.missing) == 1
    assert dataset[0].depth.any()


def test_raw_drives_take_annotated_depth(written):
    dataset = load_dataset("kitti_raw", written / "raw", "all", depth="annotated", depth_root=str(written))
    annotated = load_dataset("kitti_depth", written, "val", side="left")
    assert [dataset.has_depth(index) for index in range(4)] == [False, True, True, False]
    place = dataset.names.index(annotated.names[0])
    np.testing.assert_array_equal(dataset[place].depth, annotated[0].depth)
    assert "6 frames have no annotated depth" in dataset.remarks[0]


def test_images_are_found_beside_the_maps_or_where_the_option_says(root, tmp_path):
    names = load_dataset("kitti_depth", root, "train").names
    for date in (root / "raw").iterdir():
        date.rename(root / date.name)
    (root / "raw").rmdir()
    assert load_dataset("kitti_depth", root, "train").names == names
    (tmp_path / "elsewhere").mkdir()
    for date in root.glob("2011_*"):
        date.rename(tmp_path / "elsewhere" / date.name)
    assert load_dataset("kitti_depth", root, "train", raw_root=str(tmp_path / "elsewhere")).names == names


def test_a_check_finds_nothing_wrong_with_a_miniature(written):
    report = check_dataset("kitti_depth", written)
    assert report.problems == []
    assert {split: count.images for split, count in report.splits.items()} == {
        **{"train": 8, "val": 4, "val_selection_cropped": 4},
        **{"test_completion": 2, "test_prediction": 2},
    }


MAP = f"train/{FIRST}/proj_depth/groundtruth/image_02/0000000001.png"
SELECTED = f"depth_selection/val_selection_cropped/{{}}/{THIRD}_{{}}_0000000001_image_02"
TEST = "depth_selection/test_depth_completion_anonymous"
IMAGE = f"raw/2011_09_26/{FIRST}/image_02/data/0000000001.png"


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def shrink(path):
    Image.fromarray(np.asarray(Image.open(path))[:-2]).save(path)


def with_8_bits(path):
    Image.fromarray((np.asarray(Image.open(path)) // 256).astype(np.uint8)).save(path)


def with_colours(path):
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)


def without_values(path):
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)


def listed(*lines):
    return lambda root: (root / "list.txt").write_text("\n".join(lines))


AGAIN = r".* Unpack data_depth_annotated.zip again"
SELECTION = r".* Unpack data_depth_selection.zip"
LIST = {"split_file": "list.txt"}
FAULTS = {
    "a map has 8 bits": (lambda root: with_8_bits(root / MAP), {}, rf"{MAP} has mode L, {AGAIN}; programs"),
    "a map has colours": (lambda root: with_colours(root / MAP), {}, rf"{MAP} has mode RGB, {AGAIN}"),
    "a map is cut off": (lambda root: cut(root / MAP), {}, rf"{MAP} is truncated {AGAIN}"),
    "a map has another size": (lambda root: shrink(root / MAP), {}, rf"{MAP} is 80x22 pixels, .* 80x24; {AGAIN}"),
    "a map is empty": (lambda root: (root / MAP).write_bytes(b""), {}, rf"{MAP} is not an image {AGAIN}"),
    "the image of a map is missing": (
        lambda root: (root / IMAGE).unlink(),
        {},
        rf"groundtruth/.* has no image: .*{IMAGE} is missing\. Unpack {FIRST}.zip again",
    ),
    "the image of a map is cut off": (
        lambda root: cut(root / IMAGE),
        {},
        rf"{IMAGE} is truncated .* Unpack {FIRST}.zip again",
    ),
    "the raw drive of the maps is missing": (
        lambda root: shutil.rmtree(root / "raw" / "2011_09_26" / SECOND),
        {},
        rf"The folder .*{SECOND} is missing\. Unpack {SECOND}.zip into .*raw",
    ),
    "the calibration is missing": (
        lambda root: (root / "raw" / "2011_09_26" / "calib_cam_to_cam.txt").unlink(),
        {},
        r"no calibration file .*2011_09_26/calib_cam_to_cam.txt\. Unpack 2011_09_26_calib.zip again",
    ),
    "KITTI raw is missing": (
        lambda root: shutil.rmtree(root / "raw"),
        {},
        r"has no drive of KITTI raw, .* say with the option raw_root where KITTI raw is",
    ),
    "raw_root is wrong": (
        lambda root: None,
        {"raw_root": "nowhere"},
        r"The folder nowhere of KITTI raw does not exist; .* raw_root",
    ),
    "a part has no map": (
        lambda root: (shutil.rmtree(root / "val"), (root / "val").mkdir()),
        {},
        r"val has no depth map\. Unpack data_depth_annotated.zip into",
    ),
    "half a line in the list": (
        listed(f"2011_09_26/{FIRST} 1 l", f"2011_09_26/{FIRST}"),
        LIST,
        r"Line 2 of .*list.txt is .*; a line is .* Complete or remove it",
    ),
    "a map of the list is missing": (
        listed(f"2011_09_26/{FIRST} 0 l"),
        LIST,
        r"has no depth map: .*groundtruth/image_02/0000000000.png is missing\. Unpack data_depth_annotated.zip again",
    ),
    "a map of the selection is missing": (
        lambda root: (root / f"{SELECTED.format('groundtruth_depth', 'groundtruth_depth')}.png").unlink(),
        {},
        rf"has no depth map: .*/{THIRD}_groundtruth_depth_\d+_image_02.png is missing\.{SELECTION} again",
    ),
    "a map of the selection has 8 bits": (
        lambda root: with_8_bits(root / f"{SELECTED.format('groundtruth_depth', 'groundtruth_depth')}.png"),
        {},
        rf"groundtruth_depth/{THIRD}.* has mode L,{SELECTION} again",
    ),
    "intrinsics of the selection are damaged": (
        lambda root: (root / f"{SELECTED.format('intrinsics', 'image')}.txt").write_text("720 0 600"),
        {},
        rf"intrinsics/{THIRD}.* is not the matrix of a camera: nine numbers,{SELECTION} again",
    ),
    "a test image is missing": (
        lambda root: (root / TEST / "image" / "0000000001.png").unlink(),
        {},
        rf"has no image: .*{TEST}/image/0000000001.png is missing\.{SELECTION} again",
    ),
}
SPLITS = ("train", "val", "val_selection_cropped", "test_completion", "test_prediction")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_says_which_file_is_wrong_and_what_to_do(root, fault):
    plant, options, message = FAULTS[fault]
    plant(root)
    problems = check_dataset("kitti_depth", root, **options).problems
    assert any(re.search(message, problem) for problem in problems), problems
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        for split in SPLITS:
            dataset = load_dataset("kitti_depth", root, split, **options)
            [dataset[index] for index in range(len(dataset))]


def test_a_map_without_values_is_found_by_a_check(root):
    without_values(root / MAP)
    (problem,) = check_dataset("kitti_depth", root).problems
    assert re.search(rf"{MAP} has no known depth", problem)


def test_folders_that_are_missing_are_named(root):
    shutil.rmtree(root / "depth_selection")
    report = check_dataset("kitti_depth", root)
    assert report.problems == [] and "val_selection_cropped" in report.notes[-1]
    with pytest.raises(
        FileNotFoundError, match=r"test_depth_prediction_anonymous does not exist\. Unpack data_depth_sel"
    ):
        load_dataset("kitti_depth", root, "test_prediction")
    shutil.rmtree(root / "val")
    with pytest.raises(FileNotFoundError, match=r"depth/val does not exist\. Unpack data_depth_annotated.zip into"):
        load_dataset("kitti_depth", root, "val")


def test_the_official_count_is_that_of_both_cameras(written):
    assert any("official split has 85898" in note for note in check_dataset("kitti_depth", written).notes)
    assert not any("85898" in note for note in check_dataset("kitti_depth", written, side="left").notes)
