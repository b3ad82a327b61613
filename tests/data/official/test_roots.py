"""A root that is a folder too high or too low: the message names the right one."""

import re

import pytest

from depthseg.data import load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import write_miniature

INNER = {
    "camvid": "train",
    "cityscapes": "leftImg8bit",
    "kitti_semantics": "training",
    "voc": "VOCdevkit/VOC2012/JPEGImages",
}
BELOW = ("camvid", "cityscapes", "kitti_semantics", "voc", "nyuv2", "ade20k")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Miniatures side by side."""
    folder = tmp_path_factory.mktemp("data")
    for name in BELOW:
        write_miniature(name, folder / name, count=1)
    return folder


@pytest.mark.parametrize("name", BELOW)
def test_the_folder_above_all_data_is_answered_with_the_root(name, folder):
    with pytest.raises(FileNotFoundError, match=re.escape(f"{folder / name} has these folders: give it as the root")):
        load_dataset(name, folder, "train")
    problems = check_dataset(name, folder).problems
    assert any(f"{folder / name} has these folders: give it as the root." in problem for problem in problems)
    assert len(load_dataset(name, folder / name, "train")) >= 1


@pytest.mark.parametrize("name", INNER)
def test_a_folder_inside_is_answered_with_the_root(name, folder):
    root = folder / name
    with pytest.raises(FileNotFoundError, match=rf"{re.escape(str(root))}\S* has these folders: give it as the root"):
        load_dataset(name, root / INNER[name], "train")


def test_folders_that_are_only_called_alike_are_not_named(folder):
    # train/ of CamVid is not that of the depth benchmark.
    with pytest.raises(FileNotFoundError) as caught:
        load_dataset("kitti_depth", folder, "train")
    assert "has these folders" not in str(caught.value)
