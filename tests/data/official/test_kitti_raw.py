import re
import shutil

import numpy as np
import pytest
from PIL import Image

from depthseg.data import KittiRaw, VideoSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.kitti_raw import DRIVES, drive_frame, size_of
from depthseg.data.official.kitti_splits import KittiFrame, divide_drives, read_split_file

SIZE = (24, 80)
FIRST, SECOND, THIRD = (drive.name for drive in DRIVES)
BY_NAME = {drive.name: drive for drive in DRIVES}
DATE = "2011_09_26"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_miniature("kitti_raw", tmp_path_factory.mktemp("kitti") / "raw", count=2, size=SIZE)


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "raw")


def split_file(root, *lines):
    (root / "list.txt").write_text("\n".join(lines) + "\n")
    return "list.txt"


def truth_of(name, outputs, step=0, right=False):
    drive, _, number = name.split("/")
    return drive_frame(BY_NAME[drive], int(number) + step, SIZE, outputs, right)


def test_a_miniature_is_read_as_it_was_rendered(written):
    dataset = load_dataset("kitti_raw", written, "all", frames=[-1, 1], stereo=True, depth="velodyne")
    assert len(dataset) == 6 and dataset.left_out == 6
    sizes = set()
    for index, sample in enumerate(dataset[i] for i in range(6)):
        assert isinstance(sample, VideoSample) and sample.name == dataset.names[index]
        truth = truth_of(sample.name, ("image", "depth", "intrinsics", "baseline"))
        sizes.add(sample.image.shape[:2])
        assert sample.image.shape[:2] == size_of(sample.name[:10], SIZE)
        np.testing.assert_array_equal(sample.image, truth["image"])
        for step in (-1, 1):
            np.testing.assert_array_equal(sample.frames[step], truth_of(sample.name, ("image",), step)["image"])
        np.testing.assert_array_equal(sample.stereo, truth_of(sample.name, ("image",), right=True)["image"])
        # Calibration files have seven digits, sweeps are float32.
        np.testing.assert_allclose(sample.intrinsics, truth["intrinsics"], rtol=1e-6)
        assert sample.stereo_x == pytest.approx(float(truth["baseline"]), abs=1e-6)
        expected = truth["depth"].copy()
        expected[::2] = 0
        np.testing.assert_allclose(sample.depth, expected, rtol=1e-5)
    assert len(sizes) == 2
    assert check_dataset("kitti_raw", written, depth="velodyne", frames=[-1, 1], stereo=True).problems == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_poses_are_those_of_the_world(written, side):
    dataset = load_dataset("kitti_raw", written, "all", side=side)
    assert dataset.poses.shape == (len(dataset), 4, 4)
    moved = 0.0
    for drive in BY_NAME:
        places = [index for index, name in enumerate(dataset.names) if name.startswith(drive)]
        expected = [truth_of(dataset.names[i], ("pose",), right=side == "right")["pose"] for i in places]
        for place, pose in zip(places[1:], expected[1:], strict=True):
            motion = np.linalg.inv(dataset.poses[places[0]]) @ dataset.poses[place]
            np.testing.assert_allclose(motion, np.linalg.inv(expected[0]) @ pose, atol=2e-5)
            moved = max(moved, np.linalg.norm(motion[:3, 3]))
    assert moved > 0.5


@pytest.mark.parametrize(
    ("lines", "continuous"),
    [
        ([(FIRST, 1, "l"), (FIRST, 2, "l"), (SECOND, 1, "l"), (SECOND, 2, "l"), (SECOND, 1, "r")], True),
        ([(FIRST, 2, "l"), (FIRST, 1, "l")], False),
        ([(FIRST, 0, "l"), (FIRST, 2, "l")], False),
        ([(SECOND, 1, "l"), (FIRST, 1, "l"), (SECOND, 2, "l")], False),
    ],
)
def test_motions_are_joined_over_whole_stretches_alone(root, lines, continuous):
    path = split_file(root, *(f"{drive[:10]}/{drive} {number} {side}" for drive, number, side in lines))
    dataset = load_dataset("kitti_raw", root, "val", split_file=path)
    assert dataset.is_continuous is continuous


def test_without_navigation_there_are_no_poses(root):
    (root / DATE / FIRST / "oxts" / "data" / "0000000001.txt").unlink()
    assert load_dataset("kitti_raw", root, "all", drives=[SECOND]).poses is not None
    assert load_dataset("kitti_raw", root, "all", drives=[FIRST]).poses is None
    shutil.rmtree(root / DATE / FIRST / "oxts")
    assert load_dataset("kitti_raw", root, "all").poses is None


def test_sweeps_are_paired_by_number(written):
    """Of the second drive the sweep of frame 0 is missing: nothing moves up in its place."""
    dataset = load_dataset("kitti_raw", written, "all", drives=[SECOND], depth="velodyne")
    assert [dataset.has_depth(index) for index in range(4)] == [False, True, True, True]
    assert dataset[0].depth is None
    expected = truth_of(dataset.names[1], ("depth",))["depth"]
    np.testing.assert_allclose(dataset[1].depth[1::2], expected[1::2], rtol=1e-5)
    assert "1 frames have no velodyne depth" in dataset.remarks[0]


def test_the_depth_of_eigens_evaluation_is_the_forward_coordinate(written):
    options = {"drives": [FIRST], "depth": "velodyne"}
    own = load_dataset("kitti_raw", written, "all", **options)[1].depth
    eigen = load_dataset("kitti_raw", written, "all", sweep_depth="eigen", **options)[1].depth
    shifted = own[1:, 1:]
    known = (shifted > 0) & (eigen[:-1, :-1] > 0)
    assert known.sum() > 0.95 * (shifted > 0).sum()
    ahead = eigen[:-1, :-1][known] - shifted[known]
    assert 0.15 < np.median(ahead) < 0.4  # the scanner is 27 cm behind the camera
    assert not (own[::2] > 0).any() and not (eigen[1::2] > 0).any()


def test_cameras_are_chosen(written):
    left = load_dataset("kitti_raw", written, "all")
    right = load_dataset("kitti_raw", written, "all", side="right", stereo=True)
    assert len(load_dataset("kitti_raw", written, "all", side="both")) == len(left) + len(right) == 24
    sample = right[0]
    assert sample.stereo_x == pytest.approx(-0.54, abs=1e-6)
    np.testing.assert_array_equal(sample.stereo, left[0].image)
    grey = load_dataset("kitti_raw", written, "all", camera="grey")[0]
    assert grey.name == f"{FIRST}/image_00/0000000000"
    assert (grey.image == grey.image[..., :1]).all() and grey.image.std() > 5


@pytest.mark.parametrize("ending", [".jpg", ".JPG"])
def test_jpg_copies_are_read(root, ending):
    folder = root / DATE / FIRST / "image_02" / "data"
    for path in sorted(folder.iterdir())[1:]:
        Image.open(path).save(path.with_suffix(ending), quality=92)
        path.unlink()
    dataset = load_dataset("kitti_raw", root, "all", drives=[FIRST], frames=[-1, 1])
    assert len(dataset) == 2 and dataset.files[dataset.names[0]]["image"].suffix == ending


def test_whole_drives_are_divided(written):
    splits = {split: load_dataset("kitti_raw", written, split, seed=3) for split in ("train", "val", "all")}
    drives = {split: {name.split("/")[0] for name in dataset.names} for split, dataset in splits.items()}
    assert not drives["train"] & drives["val"]
    assert drives["train"] | drives["val"] == drives["all"] == set(BY_NAME)
    names = [f"drive{number}" for number in range(20)]
    assert len(divide_drives(names, "val", 0.1, 0)) == 2
    assert divide_drives(names, "val", 0.1, 0) != divide_drives(names, "val", 0.1, 1)
    with pytest.raises(ValueError, match="'val' has no drive: .* of 1 whole drives .* split_file, or take the split"):
        divide_drives(names[:1], "val", 0.1, 0)


def test_a_list_is_followed_exactly(root):
    lines = (f"{DATE}/{FIRST} 0000000002 l", "", f"{DATE}/{SECOND} 1 r", f"2011_10_03/{THIRD} 0 l")
    name = split_file(root, *lines)
    frames = [KittiFrame(FIRST, 2, False), KittiFrame(SECOND, 1, True), KittiFrame(THIRD, 0, False)]
    assert read_split_file(name, root) == frames
    for split in ("train", "val", "all"):
        dataset = load_dataset("kitti_raw", root, split, split_file=name)
        assert dataset.names == [
            f"{FIRST}/image_02/0000000002",
            f"{SECOND}/image_03/0000000001",
            f"{THIRD}/image_02/0000000000",
        ]
    triplets = load_dataset("kitti_raw", root, "all", split_file=str(root / name), frames=[-1, 1])
    assert len(triplets) == 2 and triplets.left_out == 1
    assert triplets.remarks == ["1 frames are left out, since they lack a neighbour in time."]
    chosen = load_dataset("kitti_raw", root, "all", split_file=name, drives=[SECOND])
    assert chosen.names == [f"{SECOND}/image_03/0000000001"]


def test_a_list_of_paths_is_followed(root):
    pair = f"{DATE}/{FIRST}/image_03/data/0000000002.png {DATE}/{FIRST}/image_02/data/0000000002.png"
    assert read_split_file(split_file(root, pair), root) == [KittiFrame(FIRST, 2, True)]


def folder_of(root, part="image_02", drive=FIRST):
    return root / DATE / drive / part / "data"


def replace(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def with_nan(path):
    points = np.fromfile(path, "<f4")
    points[5] = np.nan
    points.tofile(path)


CALIBRATION = f"{DATE}/calib_cam_to_cam.txt"
SWEEP = f"{DATE}/{FIRST}/velodyne_points/data/0000000001.bin"
LIDAR = {"depth": "velodyne"}
FAULTS = {
    "an image is missing": (
        lambda root: (folder_of(root) / "0000000001.png").unlink(),
        {},
        r"image_02/data/0000000001.png is missing\. Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "an image of the other camera is missing": (
        lambda root: (folder_of(root, "image_03") / "0000000003.png").unlink(),
        {"stereo": True},
        r"has no image of the other camera: .*image_03/data/0000000003.png is missing\. Unpack 2011_09_26_drive_0001",
    ),
    "an image has another format": (
        lambda root: (folder_of(root) / "0000000001.png").rename(folder_of(root) / "0000000001.webp"),
        {},
        r"0000000001.png is missing\. .*0000000001.webp is not read; convert it to .png",
    ),
    "an image is cut off": (
        lambda root: (folder_of(root) / "0000000001.png").write_bytes(
            (folder_of(root) / "0000000001.png").read_bytes()[:400]
        ),
        {},
        r"image_02/data/0000000001.png is truncated .* Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "an image has another size": (
        lambda root: Image.new("RGB", (40, 24)).save(folder_of(root) / "0000000001.png"),
        {},
        r"calib_cam_to_cam.txt does not fit the images of camera 2, 40x24 pixels: it is for 80x24\. Use",
    ),
    "a right image has another size": (
        lambda root: Image.new("RGB", (80, 20)).save(folder_of(root, "image_03") / "0000000001.png"),
        {"stereo": True},
        r"image_03/data/0000000001.png is 80x20 pixels, but .* 80x24; .* Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "the calibration is missing": (
        lambda root: (root / CALIBRATION).unlink(),
        {},
        r"no calibration file .*2011_09_26/calib_cam_to_cam.txt\. Unpack 2011_09_26_calib.zip again",
    ),
    "the calibration is that of another date": (
        lambda root: shutil.copy(root / "2011_10_03" / "calib_cam_to_cam.txt", root / CALIBRATION),
        {},
        r"2011_09_26/calib_cam_to_cam.txt does not fit .* 80x24 pixels: it is for 79x25\. Use the calibration of",
    ),
    "the calibration is damaged": (
        lambda root: replace(root / CALIBRATION, "P_rect_02: ", "P_rect_02: x"),
        {},
        r"Line \d+ of .*2011_09_26/calib_cam_to_cam.txt is damaged: .* Unpack 2011_09_26_calib.zip again",
    ),
    "the place of the scanner is missing": (
        lambda root: (root / DATE / "calib_velo_to_cam.txt").unlink(),
        LIDAR,
        r"calib_cam_to_cam.txt does not say where the laser scanner is.* put calib_velo_to_cam.txt",
    ),
    "a sweep is cut off": (
        lambda root: (root / SWEEP).write_bytes((root / SWEEP).read_bytes()[:-5]),
        LIDAR,
        r"0000000001.bin has \d+ bytes, but a laser sweep has 16 .* Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "a sweep is empty": (
        lambda root: (root / SWEEP).write_bytes(b""),
        LIDAR,
        r"0000000001.bin has 0 bytes, .* Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "a sweep has NaN": (
        lambda root: with_nan(root / SWEEP),
        LIDAR,
        r"0000000001.bin has 1 points of \d+ that are NaN or infinite\. Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "the sweeps of a drive are missing": (
        lambda root: shutil.rmtree(root / DATE / FIRST / "velodyne_points"),
        LIDAR,
        r"The folder .*velodyne_points/data is missing\. Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "a drive of the list is missing": (
        lambda root: shutil.rmtree(root / "2011_10_03" / THIRD),
        {"split_file": ("list", f"2011_10_03/{THIRD} 1 l", f"{DATE}/{FIRST} 1 l")},
        r"The folder .*2011_10_03_drive_0027_sync is missing\. Unpack 2011_10_03_drive_0027_sync.zip into",
    ),
    "a frame of the list is missing": (
        lambda root: None,
        {"split_file": ("list", f"{DATE}/{FIRST} 77 l", f"{DATE}/{FIRST} 1 l")},
        r"image_02/data/0000000077.png is missing\. Unpack 2011_09_26_drive_0001_sync.zip again",
    ),
    "half a line in the list": (
        lambda root: None,
        {"split_file": ("list", f"{DATE}/{FIRST} 1 l", f"{DATE}/{FIRST} 2")},
        r"Line 2 of .*list.txt is '.* 2'; a line is .* Complete or remove it",
    ),
    "a line twice in the list": (
        lambda root: None,
        {"split_file": ("list", f"{DATE}/{FIRST} 1 l", f"{DATE}/{FIRST} 0000000001 l")},
        r"Line 2 of .*list.txt repeats line 1, .* remove one of them",
    ),
    "a list of the benchmark's test images": (
        lambda root: None,
        {"split_file": ("list", "image 3 l")},
        r"Line 1 of .*list.txt is 'image 3 l', .* read such a list with the data set kitti_depth",
    ),
    "the list is missing": (
        lambda root: None,
        {"split_file": "lost.txt"},
        r"There is no list lost.txt, .* check split_file",
    ),
    "an unknown drive": (
        lambda root: None,
        {"drives": ["2011_09_26_drive_0002_sync"]},
        r"has no drive '2011_09_26_drive_0002_sync'; it has 2011_09_26_drive_0001_sync, .* Check the option drives",
    ),
    "the annotated maps are missing": (
        lambda root: None,
        {"depth": "annotated"},
        r"raw has neither train nor val with annotated depth maps\. Unpack data_depth_annotated.zip there",
    ),
    "all dates are missing": (
        lambda root: [shutil.rmtree(root / date) for date in (DATE, "2011_10_03")],
        {},
        r"raw has no drive of KITTI raw, such as .* unpacked into one folder",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_check_says_which_file_is_wrong_and_what_to_do(root, fault):
    plant, options, message = FAULTS[fault]
    plant(root)
    options = dict(options)
    if isinstance(options.get("split_file"), tuple):
        options["split_file"] = split_file(root, *options["split_file"][1:])
    (problem,) = check_dataset("kitti_raw", root, **options).problems[:1]
    assert re.search(message, problem), problem
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        dataset = load_dataset("kitti_raw", root, "all", **options)
        [dataset[index] for index in range(len(dataset))]


def test_a_folder_of_a_date_is_told_from_its_parent(written):
    for wrong in (DATE, f"{DATE}/{FIRST}", ".."):
        with pytest.raises(FileNotFoundError, match=r"no drive of KITTI raw, .* Did you mean .*/raw\?"):
            KittiRaw(written / wrong, "all")


def test_what_is_complete_can_be_used(root):
    (folder_of(root) / "0000000001.png").unlink()
    shutil.rmtree(root / "2011_10_03" / THIRD)
    name = split_file(root, f"2011_10_03/{THIRD} 1 l", f"{DATE}/{FIRST} 1 l", f"{DATE}/{FIRST} 2 l")
    dataset = load_dataset("kitti_raw", root, "all", split_file=name, missing="skip")
    assert dataset.names == [f"{FIRST}/image_02/0000000002"]
    assert len(dataset.missing) == 2
