"""A root that is one or two folders too high or too low: what users are told."""

import re

import pytest

from depthseg.data import DATASETS, load_dataset
from depthseg.data.check import check_dataset
from depthseg.data.miniatures import MINIATURES, write_miniature

INSIDE = {
    "ade20k": "ADEChallengeData2016/images",
    "camvid": "train",
    "cityscapes": "leftImg8bit/train",
    "kitti_depth": "train",
    "kitti_raw": "2011_09_26",
    "kitti_semantics": "training/image_2",
    "nyuv2": "below",
    "nyuv2_raw": "street_0001/below",
    "voc": "VOCdevkit/VOC2012/JPEGImages",
}
"""A folder below the root that is none itself, but for CamVid and others one of the archive's folders."""


@pytest.mark.parametrize("name", MINIATURES)
def test_the_right_root_is_named(tmp_path, name):
    root = write_miniature(name, tmp_path / "data" / "place", count=1)
    (root / INSIDE[name]).mkdir(exist_ok=True)
    (tmp_path / "data" / "unrelated").mkdir()
    split = (DATASETS[name].load.checked_splits or DATASETS[name].splits)[0]
    for wrong in (tmp_path, tmp_path / "data", root / INSIDE[name]):
        with pytest.raises(FileNotFoundError) as caught:
            load_dataset(name, wrong, split)
        problems = "\n".join(check_dataset(name, wrong).problems)
        for text in (str(caught.value), problems):
            (named,) = set(re.findall(r"Did you mean (\S+)\? Give it as the root", text))
            load_dataset(name, named, split)


def test_nothing_is_suggested_where_nothing_is(tmp_path):
    (tmp_path / "empty" / "place").mkdir(parents=True)
    for name in MINIATURES:
        with pytest.raises(FileNotFoundError) as caught:
            load_dataset(name, tmp_path / "empty" / "place", DATASETS[name].splits[0])
        assert "Did you mean" not in str(caught.value)


def test_archives_in_folders_of_their_own_are_to_be_brought_together(tmp_path):
    root = write_miniature("cityscapes", tmp_path / "city", count=1)
    for kind in ("leftImg8bit", "gtFine"):
        (root / f"{kind}_trainvaltest").mkdir()
        (root / kind).rename(root / f"{kind}_trainvaltest" / kind)
    moved = rf"move {root}/gtFine_trainvaltest/gtFine, {root}/leftImg8bit_trainvaltest/leftImg8bit into {root}"
    with pytest.raises(FileNotFoundError, match=moved):
        load_dataset("cityscapes", root, "train")
    assert re.search(moved, check_dataset("cityscapes", root).problems[0])
    (root / "leftImg8bit_trainvaltest" / "leftImg8bit").rename(root / "leftImg8bit")
    moved = rf"has no label map: .* move {root}/gtFine_trainvaltest/gtFine to {root}/gtFine\."
    with pytest.raises(FileNotFoundError, match=moved):
        load_dataset("cityscapes", root, "train")
    assert len(load_dataset("cityscapes", root, "train", annotations="none")) == 1
