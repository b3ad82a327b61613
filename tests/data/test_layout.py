"""Data folders that are laid out in another way: the check and the data set say what is where and what to do."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthseg.data import FolderDataset
from depthseg.data.check import check_dataset
from depthseg.data.layout import image_of

REAL = Path(os.environ.get("DEPTHSEG_DATA", "no data"))
NAMES = ("a", "b", "c", "d")


def save(folder, names=NAMES, values=None, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.array([[0, 1, 1]], np.uint8) if values is None else values).save(folder / f"{name}{ending}")


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "images", values=np.zeros((1, 3, 3), np.uint8), ending=".jpg")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return tmp_path


def problem_with(text, root):
    found = [problem for problem in check_dataset("folder", root).problems if text in problem]
    assert len(found) == 1, check_dataset("folder", root).problems
    return found[0]


@pytest.mark.parametrize(
    "name",
    ["masks", "mask", "Masks", "annotations", "label", "SegmentationClass", "labels/train", "anything", "gt/val/x"],
)
def test_label_maps_elsewhere_are_found(root, name):
    save(root / name)
    (root / "labels").mkdir(exist_ok=True)
    problem = problem_with(f"{root / name} holds 4 files with the names of images (a.png, b.png, c.png, ...)", root)
    assert f"label maps are read from {root}/labels alone" in problem
    with pytest.raises(ValueError, match=f"{root / name} holds 4 files with the names of images"):
        FolderDataset(root, "train")


def test_what_to_do_is_a_command_that_helps(root):
    save(root / "masks")
    problem = problem_with("masks holds 4 files", root)
    assert problem.endswith(f"rename masks to labels, or link it (ln -s masks {root}/labels).")
    (root / "labels").symlink_to("masks")
    assert check_dataset("folder", root).problems == []
    assert len(FolderDataset(root, "train")) == 3


def test_images_of_another_kind_are_not_taken_for_label_maps(root):
    save(root / "thumbnails", values=np.zeros((1, 3, 3), np.uint8))
    assert check_dataset("folder", root).problems == []


def test_label_maps_that_are_where_they_should_be_are_enough(root):
    save(root / "labels")
    save(root / "masks")
    assert check_dataset("folder", root).problems == []


@pytest.mark.parametrize("name", ["depths", "depth_maps", "something"])
def test_depth_elsewhere_is_found(root, name):
    save(root / name, values=np.array([[500, 600, 700]], np.uint16))
    assert f"depth maps are read from {root}/depth alone" in problem_with(f"{root / name} holds 4 files", root)
    with pytest.raises(ValueError, match=f"depth maps are read from {root}/depth alone"):
        FolderDataset(root, "train", truth="depth")


def test_names_with_an_ending_of_their_own_are_explained(root):
    save(root / "masks", [f"{name}_mask" for name in NAMES])
    problem = problem_with("masks holds 4 files with names longer than those of the images", root)
    assert "a_mask.png becomes labels/a.png" in problem
    (root / "masks").rename(root / "labels")
    problem = problem_with("a_mask.png has no image of the same stem", root)
    assert "a.png if it belongs to a.jpg, or give data.options.label_suffix=_mask. 4 files have this fault" in problem


def test_polygons_are_not_label_maps(root):
    (root / "annotations").mkdir()
    for name in NAMES:
        (root / "annotations" / f"{name}.json").write_text("{}")
    problem = problem_with("annotations holds 4 files of other formats (a.json, b.json, c.json, ...)", root)
    assert f"Write label maps into {root}/labels, one for each image" in problem


@pytest.mark.parametrize("name", ["image", "img", "JPEGImages", "photos", "whatever"])
def test_images_elsewhere_are_found_and_their_label_maps_with_them(root, name):
    (root / "images").rename(root / name)
    save(root / "SegmentationClass")
    problem = problem_with(f"There are images in {root / name} (4)", root)
    assert f"rename {name} to images, or link it (ln -s {name} {root}/images)" in problem
    assert f"{root}/SegmentationClass holds 4 files" in problem_with("label maps are read from", root)
    with pytest.raises(FileNotFoundError, match=f"images does not exist.* There are images in {root / name}"):
        FolderDataset(root, "train")


def test_images_in_other_folders_and_in_the_root_are_found(root):
    (root / "images" / "berlin").mkdir()
    for path in (root / "images").glob("*.jpg"):
        path.rename(path.parent / "berlin" / path.name)
    problem = problem_with("There are images in", root)
    assert f"{root}/images/berlin (4): move the files up into {root}/images, and list the names of each" in problem
    for path in (root / "images" / "berlin").glob("*.jpg"):
        path.rename(root / path.name)
    assert f"There are images in {root} (4): move them into {root}/images." == problem_with("There are images", root)


@pytest.mark.parametrize(
    ("stem", "image"),
    [("a_mask", "a"), ("a-b_mask", "a-b"), ("a.label", "a"), ("ab", None), ("a", None), ("x_a", None)],
)
def test_the_image_of_a_longer_name(stem, image):
    assert image_of(stem, {"a", "a-b"}) == image


@pytest.mark.skipif(not (REAL / "samples").is_dir(), reason="DEPTHSEG_DATA names no folder that holds samples/")
def test_another_layout_of_real_data_is_recognised():
    missing, images, labels = check_dataset("folder", REAL / "samples/voc").problems
    assert "voc/images does not exist" in missing and "rename JPEGImages to images" in images
    assert "rename SegmentationClass to labels" in labels
