"""Depth and disparity from files of every form, alone and in a folder of images."""

import numpy as np
import pytest
from PIL import Image

from depthseg.data import FolderDataset, Sample
from depthseg.data.image_folders import MapFiles
from depthseg.data.images import depth_from_disparity, read_depth, read_disparity
from depthseg.data.transforms import TrainTransform


@pytest.fixture
def root(tmp_path):
    """Three images of 6x4 without labels."""
    for folder in ("images", "depth", "disparity"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        Image.new("RGB", (6, 4)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path


def save_png(path, values):
    Image.fromarray(np.array(values, np.uint16)).save(path)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_arrays_are_metres(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([[0, 1, 2]], dtype))
    depth = read_depth(tmp_path / "a.npy", scale=1000)
    assert depth.dtype == np.float32 and depth.tolist() == [[0, 1, 2]]


def test_nan_and_infinity_are_unknown(tmp_path):
    values = np.array([[np.nan, np.inf, 1.5, 0]])
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", values)
    for name in ("a.npy", "b.npz"):
        assert read_depth(tmp_path / name).tolist() == read_disparity(tmp_path / name).tolist() == [[0, 0, 1.5, 0]]


def test_pfm_rows_go_from_bottom_to_top_in_either_byte_order(tmp_path):
    for scale, order in (("-1.0", "<f4"), ("1", ">f4")):
        body = np.array([[3, 4], [1, 2]], order).tobytes()
        (tmp_path / "a.pfm").write_bytes(f"Pf\n2 2\n{scale}\n".encode() + body)
        assert read_disparity(tmp_path / "a.pfm").tolist() == [[1, 2], [3, 4]]


def test_disparity_formats_of_16_bit_files(tmp_path):
    save_png(tmp_path / "a.png", [[0, 1, 257, 513]])
    assert read_disparity(tmp_path / "a.png").tolist() == [[0, 1 / 256, 257 / 256, 513 / 256]]
    # In Cityscapes 1 is the disparity 0 of a point infinitely far away: no depth.
    assert read_disparity(tmp_path / "a.png", "cityscapes").tolist() == [[0, 0, 1, 2]]
    with pytest.raises(ValueError, match="'kity' is not known; choose one of kitti, cityscapes"):
        read_disparity(tmp_path / "a.png", "kity")
    assert depth_from_disparity(np.array([[0, 0.5, 4]]), 8).tolist() == [[0, 16, 2]]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_a_sentence_or_changes_a_number(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, np.random.default_rng(0).random((2, 3)))
    whole, refused = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            read_depth(path)
        except ValueError as error:
            assert "a.npz" in str(error)
            refused += 1
    assert refused > len(whole) / 2
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="a.npz is damaged or no NumPy file"):
            read_depth(path)


def test_a_header_that_does_not_end_is_damage(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole.replace(b"}", b" "))
    with pytest.raises(ValueError, match="a.npy is damaged or no NumPy file"):
        read_depth(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.array([[1, -0.5]]), "holds negative values, the lowest is -0.5"),
        ("a.npy", np.zeros((2, 3, 1)), r"shape \(2, 3, 1\) .*expected one real number a pixel"),
        ("a.npy", np.zeros((2, 3), complex), "complex128; expected one real number"),
        ("a.npy", np.array([[{}]]), "is damaged or no NumPy file of numbers"),
        ("a.npy", b"", "is damaged or no NumPy file"),
        ("a.npz", b"PK nonsense", "is damaged or no NumPy file"),
        ("a.pfm", b"PF\n1 1\n1\n" + bytes(12), "not a PFM file of one channel"),
        ("a.pfm", b"Pf\n2 2\n1\n" + bytes(12), "is truncated: it has 12 bytes"),
    ],
)
def test_what_is_no_depth_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=f"{name} .*{message}"):
        read_depth(path)


def test_one_array_must_be_the_only_one(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((1, 1)), y=np.zeros((1, 1)))
    with pytest.raises(ValueError, match="must hold exactly one array; its arrays are: x, y"):
        read_depth(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match="no file .*b.npy"):
        read_depth(tmp_path / "b.npy")


def test_two_files_of_one_image_are_one_too_many(tmp_path):
    assert MapFiles(tmp_path).find("a") is None
    save_png(tmp_path / "a.png", [[1]])
    assert MapFiles(tmp_path).find("a") == tmp_path / "a.png"
    np.save(tmp_path / "a.npy", np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"a.npy and .*a.png belong to the same image"):
        MapFiles(tmp_path).find("a")


def test_a_folder_takes_arrays_and_images_of_depth(root):
    np.save(root / "depth/a.npy", np.full((4, 6), 2.5))
    save_png(root / "depth/b.png", np.full((4, 6), 512))
    data = FolderDataset(root, "train", truth="depth", val_fraction=0)
    everything = FolderDataset(root, "all")
    assert [everything.has_depth(index) for index in range(3)] == [True, True, False]
    assert data.names == ["a", "b"] and [sample.depth[0, 0] for sample in data] == [2.5, 2]
    np.save(root / "depth/a.npy", np.full((4, 6), -1.0))
    with pytest.raises(ValueError, match="depth/a.npy holds negative values"):
        data[0]
    np.save(root / "depth/a.npy", np.full((4, 5), 1.0))
    with pytest.raises(ValueError, match="depth/a.npy is 5x4 pixels"):
        data[0]


def test_a_folder_makes_depth_of_disparity(root):
    save_png(root / "disparity/a.png", np.full((4, 6), 257))
    save_png(root / "depth/b.png", np.full((4, 6), 256))
    options = {"truth": "depth", "val_fraction": 0, "focal_times_baseline": 514.0}
    kitti = FolderDataset(root, "train", **options)
    both = FolderDataset(root, "all", focal_times_baseline=514.0), FolderDataset(root, "all")
    assert [[data.has_depth(index) for index in range(3)] for data in both] == [[1, 0, 0], [0, 1, 0]]
    cityscapes = FolderDataset(root, "train", disparity_format="cityscapes", **options)
    assert kitti.names == cityscapes.names == ["a"]
    assert kitti[0].depth[0, 0] == 512 and cityscapes[0].depth[0, 0] == 514
    assert FolderDataset(root, "train", truth="depth", val_fraction=0).names == ["b"]
    (root / "depth/b.png").unlink()
    with pytest.raises(ValueError, match=r"Add files to depth/.*disparity/, give the option focal_times_baseline"):
        FolderDataset(root, "train", truth="depth")
    for wrong in ({"focal_times_baseline": 0}, {"disparity_format": "middlebury"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FolderDataset(root, "all", **wrong)


def test_sparse_depth_stays_sparse_and_true(tmp_path):
    """Points of a laser scanner: what a resize keeps is a measurement, what it does not know stays 0."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((40, 60)) < 0.05, rng.integers(256, 20000, (40, 60)), 0)
    for folder in ("images", "depth"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images/a.png")
    save_png(tmp_path / "depth/a.png", values)
    sample = FolderDataset(tmp_path, "all")[0]
    assert np.array_equal(sample.depth > 0, values > 0) and (sample.depth > 0).sum() > 50
    for size in ((20, 30), (32, 48), (80, 120)):
        small = TrainTransform(size, hflip=0)(Sample("a", sample.image, depth=sample.depth), np.random.default_rng(0))
        assert set(np.unique(small.depth)) <= set(np.unique(sample.depth))
        assert 0.02 < (small.depth > 0).mean() < 0.1
