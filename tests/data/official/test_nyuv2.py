import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from faults_of_layouts import assert_reported, reported, truncate
from PIL import Image
from torch.utils.data import DataLoader

from depthseg.data import DepthSample, NYUv2, SegmentationSample, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.depth_formats import DEPTH_FORMATS
from depthseg.data.images import read_depth, read_image
from depthseg.data.label_spaces import ENCODINGS, LABEL_SPACES
from depthseg.data.miniatures import write_miniature
from depthseg.data.miniatures.scenes import scene
from depthseg.data.official.nyu_raw import DEPTH_LENS, RGB_LENS, register, undistort
from depthseg.data.official.nyuv2 import RGB_INTRINSICS, read_splits

SIZE = (24, 32)
SAMPLES = Path(os.environ.get("DEPTHSEG_DATA", "")) / "samples"
real_data = pytest.mark.skipif(
    "DEPTHSEG_DATA" not in os.environ, reason="set DEPTHSEG_DATA to a folder that holds samples/ to test on real data"
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_miniature("nyuv2", tmp_path_factory.mktemp("nyu") / "root", count=2, size=SIZE)


@pytest.fixture
def root(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "root")


def mat_of(root):
    return root / "nyu_depth_v2_labeled.mat"


def splits_of(root):
    return root / "splits.mat"


def test_a_miniature_is_read_as_it_was_rendered(pristine):
    # ceiling, wall, lamp, floor, floor mat, curtain, picture, bookshelf, sofa, person, chair, counted from 0
    classes = {40: [21, 0, 34, 1, 19, 15, 10, 9, 5, 30, 4], 13: [2, 11, 6, 4, 4, 12, 7, 5, 8, 6, 3]}
    for number, split in enumerate(("train", "test")):
        for kind in ("depths", "rawDepths"):
            dataset = load_dataset("nyuv2", pristine, split, depth=kind)
            assert dataset.names == [f"{1 + number:04d}", f"{3 + number:04d}"]
            for index in range(2):
                truth, sample = scene(split, index, SIZE, ("image", "labels", "depth")), dataset[index]
                assert type(sample) is SegmentationSample
                np.testing.assert_array_equal(sample.image, truth["image"])
                known = (truth["depth"] > 0) & (truth["depth"] <= 100)
                np.testing.assert_allclose(sample.depth[known], truth["depth"][known] / 10, rtol=1e-6)
                assert kind == "depths" or (sample.depth[~known] == 0).all()
                assert kind == "rawDepths" or (sample.depth > 0).all()
        for count, ids in classes.items():
            labels = load_dataset("nyuv2", pristine, split, classes=count)[1].labels
            np.testing.assert_array_equal(labels[1:], np.array(ids)[truth["labels"][1:]])
            assert (labels[0] == 255).all()
    assert load_dataset("nyuv2", pristine, "train", depth="none")[0].depth is None
    assert check_dataset("nyuv2", pristine).problems == []


def test_the_mat_file_itself_is_a_root(pristine):
    assert load_dataset("nyuv2", mat_of(pristine), "test").names == ["0002", "0004"]
    assert check_dataset("nyuv2", mat_of(pristine)).problems == []


def test_intrinsics_and_crop_of_the_full_size(tmp_path):
    root = write_miniature("nyuv2", tmp_path / "nyu", count=1, size=(480, 640))
    whole, part = (load_dataset("nyuv2", root, "train", crop=crop)[0] for crop in (False, True))
    np.testing.assert_allclose(whole.intrinsics, RGB_INTRINSICS)
    assert part.image.shape == (427, 561, 3) and part.labels.shape == part.depth.shape == (427, 561)
    np.testing.assert_array_equal(part.image, whole.image[44:471, 40:601])
    np.testing.assert_allclose(whole.intrinsics[:2, 2] - part.intrinsics[:2, 2], (40, 44))


def _names_and_sum(dataset):
    return [int(dataset[index].image.sum()) for index in range(len(dataset))]


def test_every_process_opens_the_file_itself(pristine):
    dataset = load_dataset("nyuv2", pristine, "train")
    expected = _names_and_sum(dataset)  # the file is open here before any process begins
    assert _names_and_sum(pickle.loads(pickle.dumps(dataset))) == expected
    loader = DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=lambda sample: int(sample.image.sum()))
    assert list(loader) == expected
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_names_and_sum, [dataset] * 2) == [expected] * 2
    assert _names_and_sum(dataset) == expected


def change_field(name, change):
    def edit(path):
        with h5py.File(path, "r+") as file:
            values = file[name][()]
            del file[name]
            if (changed := change(values)) is not None:
                file[name] = changed

    return edit


def save_splits(**lists):
    return lambda path: scipy.io.savemat(path, {name: np.array(numbers, int) for name, numbers in lists.items()})


def as_hdf5(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["trainNdxs"], file["testNdxs"] = [[1, 3]], [[2, 4]]


def damage_data(path):
    """Cut the end off, but leave a file that opens."""
    with h5py.File(path, "r+") as file:
        values = file["images"][()]
        del file["images"]
        file.create_dataset("images", data=values, chunks=(1, *values.shape[1:]), compression="gzip")
    with h5py.File(path, "r") as file:
        place = file["images"].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(place.byte_offset + 512)
        file.write(b"\xff" * (place.size // 2))


def set_label(values):
    values[0, 5, 5] = 895
    return values


def set_depth(values):
    values[0, 5, 5] = -1
    return values


FAULTS = {
    "no splits": (splits_of, Path.unlink, "splits.mat of github.com/ankurhanda/nyuv2-meta-data"),
    "splits of HDF5": (splits_of, as_hdf5, "is an HDF5 file (MATLAB 7.3), but the official one is of MATLAB 5"),
    "truncated splits": (splits_of, truncate, "Put the file splits.mat"),
    "splits of text": (splits_of, lambda path: path.write_text("1 2 3"), "Put the file splits.mat"),
    "splits from 0": (splits_of, save_splits(trainNdxs=[0, 2], testNdxs=[1, 3]), "The official lists count from 1"),
    "number too large": (splits_of, save_splits(trainNdxs=[1, 5], testNdxs=[2]), "but the images are 1 to 4"),
    "overlapping splits": (splits_of, save_splits(trainNdxs=[1, 2], testNdxs=[2, 3]), "1 images in both splits"),
    "repeated number": (splits_of, save_splits(trainNdxs=[1, 1], testNdxs=[2]), "lists an image twice in trainNdxs"),
    "no test list": (splits_of, save_splits(trainNdxs=[1, 3]), "lacks the list testNdxs"),
    "truncated .mat": (mat_of, truncate, "Download nyu_depth_v2_labeled.mat (2.8 GB) again"),
    "empty .mat": (mat_of, lambda path: path.write_bytes(b""), "Download nyu_depth_v2_labeled.mat (2.8 GB) again"),
    "damaged data": (mat_of, damage_data, "is damaged: images of image 1 cannot be read"),
    "no labels": (mat_of, change_field("labels", lambda v: None), "lacks the field labels"),
    "no depths": (mat_of, change_field("depths", lambda v: None), "lacks the field depths"),
    "fewer labels": (mat_of, change_field("labels", lambda v: v[:3]), "expected (N, 3, width, height) for images"),
    "turned images": (mat_of, change_field("images", lambda v: v.transpose(0, 2, 3, 1)), "expected (N, 3, width"),
    "label 895": (mat_of, change_field("labels", set_label), "(labels of image 1)"),
    "negative depth": (mat_of, change_field("depths", set_depth), "holds negative depth in depths of image 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_with_what_to_do(root, fault):
    path_of, plant, advice = FAULTS[fault]
    plant(path_of(root))
    assert_reported("nyuv2", root, [str(path_of(root)), advice])


def test_names_in_another_order_are_refused(root):
    def turn(values):
        return values[:, ::-1]

    with h5py.File(mat_of(root), "r+") as file:
        file["names"][...] = turn(file["names"][()])
    assert_reported("nyuv2", root, [str(mat_of(root)), "has its names of labels in another order"])


def test_wrong_options_are_refused(pristine, tmp_path):
    with pytest.raises(ValueError, match="classes=41 is not known"):
        load_dataset("nyuv2", pristine, "train", classes=41)
    with pytest.raises(ValueError, match="crop=true is for images of 640x480, but those of .* are 32x24"):
        load_dataset("nyuv2", pristine, "train", crop=True)
    with pytest.raises(ValueError, match="no split 'val'.* Its splits are train, test"):
        NYUv2(pristine, "val")
    with pytest.raises(FileNotFoundError, match="labeled.mat is missing; the root is the folder of"):
        load_dataset("nyuv2", tmp_path, "train")
    assert "is not in the layout of nyuv2" in reported("nyuv2", tmp_path)


@real_data
def test_the_genuine_splits():
    splits = read_splits(SAMPLES / "nyuv2" / "splits.mat", 1449)
    assert (len(splits["train"]), len(splits["test"])) == (795, 654)
    assert splits["train"][:5] == [3, 4, 5, 6, 7] and splits["test"][:5] == [1, 2, 9, 14, 15]
    assert {*splits["train"], *splits["test"]} == set(range(1, 1450))


@real_data
def test_the_genuine_class_mappings_are_ours():
    forty = scipy.io.loadmat(SAMPLES / "nyuv2" / "classMapping40.mat")
    of_894 = forty["mapClass"].ravel()
    thirteen = scipy.io.loadmat(SAMPLES / "nyuv2" / "class13Mapping.mat")["classMapping13"][0, 0]
    of_40 = thirteen["labels13"].ravel()
    assert ENCODINGS["nyu40"].class_ids == {0: 255} | {i + 1: int(c) - 1 for i, c in enumerate(of_894)}
    assert ENCODINGS["nyu13"].class_ids == {0: 255} | {i + 1: int(of_40[c - 1]) - 1 for i, c in enumerate(of_894)}
    assert LABEL_SPACES["nyu40"].classes == tuple(str(name[0]) for name in forty["className"].ravel())
    assert [str(name[0]).lower() for name in thirteen["classNames"].ravel()] == [*LABEL_SPACES["nyu13"].classes]


@real_data
def test_the_genuine_pair_has_depth_in_millimetres(tmp_path):
    for folder, place in (("images", "images"), ("annotations", "depth")):
        shutil.copytree(SAMPLES / "nyuv2" / folder, tmp_path / place)
    sample = load_dataset("folder", tmp_path, "all", depth_scale=1000)[0]
    assert sample.image.shape == (120, 160, 3) and sample.depth.shape == (120, 160)
    known = sample.depth[sample.depth > 0]
    assert known.min() == pytest.approx(1.485) and known.max() == pytest.approx(10)


RAW_SIZE = (24, 32)


@pytest.fixture
def raw(tmp_path):
    return write_miniature("nyuv2_raw", tmp_path / "raw", count=3, size=RAW_SIZE)


def test_raw_scenes_are_read_as_they_were_recorded(raw):
    dataset = load_dataset("nyuv2_raw", raw, "all", registered=False)
    assert len(dataset) == 6 and dataset.names[0].startswith("street_0001/d-1294886360.000000")
    for index in range(3):
        truth, sample = scene("train", index, RAW_SIZE, ("image", "depth")), dataset[index]
        assert type(sample) is DepthSample
        np.testing.assert_array_equal(sample.image, truth["image"])
        known = sample.depth > 0
        assert known.any() and not known[truth["depth"] > 10.5].any()
        # A number is rounded to 0.5, which is half of that over 351.3 in inverse depth.
        np.testing.assert_allclose(1 / sample.depth[known], 1 / truth["depth"][known], atol=0.51 / 351.3)
    assert check_dataset("nyuv2_raw", raw).problems == []


def test_whole_scenes_are_val(raw):
    train, val = (load_dataset("nyuv2_raw", raw, split, val_fraction=0.5) for split in ("train", "val"))
    assert {name.split("/")[0] for name in train.names} == {"street_0001"}
    assert {name.split("/")[0] for name in val.names} == {"street_0002"}
    assert load_dataset("nyuv2_raw", raw, "all", exclude_scenes=["street_0001"]).names == val.names
    assert len(load_dataset("nyuv2_raw", raw / "street_0001", "all")) == 3
    with pytest.raises(ValueError, match="has no scene 'street_0003'"):
        load_dataset("nyuv2_raw", raw, "all", scenes=["street_0003"])


def test_depth_goes_with_the_nearest_image(raw):
    folder = raw / "street_0001"
    for path in folder.glob("r-*.ppm"):
        path.unlink()
    for seconds in ("1294886359.990000", "1294886360.020000", "1294886360.200000"):
        Image.new("RGB", RAW_SIZE[::-1]).save(folder / f"r-{seconds}-1.ppm")
    files = load_dataset("nyuv2_raw", raw, "all", scenes=["street_0001"]).files
    found = {name.split("-")[1]: parts["image"].name.split("-")[1] for name, parts in files.items()}
    assert found == {
        "1294886360.000000": "1294886359.990000",
        "1294886360.033333": "1294886360.020000",
        "1294886360.066667": "1294886360.020000",
    }


def remove_images(path):
    for image in path.parent.glob("r-*"):
        image.unlink()


RAW_FAULTS = {
    "truncated depth": ("d-*", truncate, "missing=skip"),
    "truncated image": ("r-*", truncate, "missing=skip"),
    "empty depth": ("d-*", lambda path: path.write_bytes(b""), "missing=skip"),
    "empty image": ("r-*", lambda path: path.write_bytes(b""), "missing=skip"),
    "depth of text": ("d-*", lambda path: path.write_text("600 601 602"), "missing=skip"),
    "number beyond 2047": (
        "d-*",
        lambda path: path.write_bytes(b"P5\n32 24\n65535\n" + b"\x12\x34" * 768),
        f"depth_format: {', '.join(DEPTH_FORMATS)}",
    ),
    "small depth": ("d-*", lambda path: path.write_bytes(b"P5\n2 1\n65535\n" + b"\x58\x02" * 2), "must have the same"),
    "small image": ("r-*", lambda path: path.write_bytes(b"P6\n2 1\n255\n" + b"\0" * 6), "must have the same"),
    "8-bit depth": ("d-*", lambda path: path.write_bytes(b"P5\n32 24\n255\n" + b"\5" * 768), "Unpack the scene again"),
    "colours as depth": ("d-*", lambda path: path.write_bytes(b"P6\n32 24\n255\n" + b"\5" * 2304), "Unpack the scene"),
    "no images": ("d-*", remove_images, "no image r-TIME-TICKS.ppm. Unpack the archive of this scene again"),
    "name without a time": ("d-*", lambda path: path.rename(path.with_name("d-first.pgm")), "named r-TIME-TICKS.ppm"),
    "image without a time": (
        "r-*",
        lambda path: path.rename(path.with_name("r-1.2.3-4.ppm")),
        "named r-TIME-TICKS.ppm",
    ),
}


@pytest.mark.parametrize("fault", RAW_FAULTS)
def test_damaged_raw_frames_are_named_or_skipped(raw, fault):
    pattern, plant, advice = RAW_FAULTS[fault]
    path = sorted((raw / "street_0001").glob(pattern))[0]
    before = set(raw.rglob("*"))
    plant(path)
    named = path if path.exists() else next(iter(set(raw.rglob("*")) - before))
    named = path.parent if advice.startswith("no image") else named
    with pytest.raises((ValueError, FileNotFoundError), match=named.name) as caught:
        [load_dataset("nyuv2_raw", raw, "all")[index] for index in range(3)]
    assert advice in str(caught.value)
    text = reported("nyuv2_raw", raw)
    assert named.name in text and advice in text
    if advice == "missing=skip":
        assert len(load_dataset("nyuv2_raw", raw, "all", missing="skip")) == 5


def test_depth_maps_without_an_image_of_their_moment_are_counted(raw):
    path = sorted((raw / "street_0001").glob("d-*"))[0]
    path.rename(path.with_name("d-1294880000.000000-1.pgm"))
    assert len(load_dataset("nyuv2_raw", raw, "all")) == 5
    assert any("1 depth maps are left out" in note for note in check_dataset("nyuv2_raw", raw).notes)


def test_lenses_undo_each_other():
    for lens in (RGB_LENS, DEPTH_LENS):
        seen = lens.rays((480, 640))
        np.testing.assert_allclose(lens.distorted(lens.undistorted_rays((480, 640))), seen, atol=1e-9)
        assert np.abs(lens.distorted(seen) - seen).max() > 0.003, "a distortion of pixels"


def test_registration_of_one_point_by_hand():
    depth = np.zeros((480, 640), np.float32)
    depth[238, 313] = 2.0
    rows, columns = np.nonzero(register(depth))
    # Near the axis of the depth camera: the RGB camera is 2.5 cm to its right, so the point moves to the left there.
    expected = 325.58 + 518.86 * (-0.0250 / 2 - 5.04e-3), 253.74 + 519.47 * (0.00029 / 2 + 5.05e-3 * 0 + 3.67e-3)
    assert abs(columns[0] - expected[0]) < 3 and abs(rows[0] - expected[1]) < 3
    assert register(depth)[rows[0], columns[0]] == pytest.approx(2.0, abs=0.01)


@real_data
def test_registration_aligns_the_genuine_pair():
    from scipy import ndimage

    image = read_image(SAMPLES / "rgbd" / "NYU_color.ppm")
    depth = read_depth(SAMPLES / "rgbd" / "NYU_depth.pgm", depth_format="kinect")

    def gradient_at_edges(image, depth):
        nearest = ndimage.distance_transform_edt(depth == 0, return_distances=False, return_indices=True)
        smooth = ndimage.median_filter(np.log(depth[tuple(nearest)]), 5)
        edges = (ndimage.gaussian_gradient_magnitude(smooth, 1.5) > 0.03)[60:-60, 60:-60]
        return ndimage.gaussian_gradient_magnitude(image.mean(2), 1.5)[60:-60, 60:-60][edges].mean()

    before, after = gradient_at_edges(image, depth), gradient_at_edges(undistort(image), register(depth))
    assert after > 1.2 * before, "edges of depth are edges of the image"
