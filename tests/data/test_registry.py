import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from depthseg.data import DATASETS, DatasetEntry, declared_options, load_dataset


def test_the_table_is_complete():
    assert {"camvid", "folder", "hub", "stereo", "synthetic", "synthetic_crops", "video"} <= set(DATASETS)
    assert {"kitti_depth", "kitti_raw", "kitti_semantics"} <= set(DATASETS)
    assert {"ade20k", "cityscapes", "nyuv2", "nyuv2_raw", "voc"} <= set(DATASETS)
    for entry in DATASETS.values():
        assert entry.splits or entry is DATASETS["hub"]
        assert entry.summary
        assert entry.licence


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("camvit", "train", {}), "Unknown data set: 'camvit'. Did you mean 'camvid'"),
        (("camvid", "trian", {}), "Unknown split of data set 'camvid': 'trian'. Did you mean 'train'"),
        (("camvid", "train", {"exclude_sequence": 1}), "'exclude_sequence'. Did you mean 'exclude_sequences'"),
        (("folder", "tset", {}), "Unknown split of data set 'folder': 'tset'.* Known: train, val, test, all"),
        (("synthetic", "train", {"count": 3, "sise": 1}), "Unknown option of data set 'synthetic': 'sise'"),
        (("synthetic", "train", {"size": (2, 3)}), "'synthetic' needs the option 'count'"),
        (("x", "train", {}), "Unknown data set: 'x'. Known: .*ade20k, .*camvid, .*folder, .*synthetic"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(call, message):
    name, split, options = call
    with pytest.raises(ValueError, match=message):
        load_dataset(name, "root", split, **options)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("synthetic", {"count": "many", "size": (2, 3)}, "option count must be a whole number, got 'many'."),
        ("synthetic", {"count": 1.5, "size": (2, 3)}, "option count must be a whole number, got 1.5."),
        ("synthetic", {"count": None, "size": (2, 3)}, "option count must be a whole number, got null."),
        (
            "synthetic",
            {"count": 1, "size": 7},
            "option size must be a list of whole numbers, got 7. Write one entry as [7].",
        ),
        ("synthetic", {"count": 1, "size": (2, "x")}, "option size[1] must be a whole number, got 'x'."),
        (
            "synthetic",
            {"count": 1, "size": (2, 3), "stereo": "maybe"},
            "option stereo must be true or false (yes or no, ",
        ),
        (
            "camvid",
            {"sequences": "0001TP"},
            "option sequences must be a list of texts, got '0001TP'. Write one entry as",
        ),
        (
            "camvid",
            {"sequences": [1.6e6]},
            "option sequences[0] must be text, got 1600000.0. Write text that looks like",
        ),
        ("folder", {"val_fraction": "0,2"}, "option val_fraction must be a number, got '0,2'."),
        ("stereo", {"baseline": "wide"}, "option baseline must be a number or null, got 'wide'."),
        ("video", {"calibration": True}, "option calibration must be text or null, got true."),
    ],
)
def test_options_of_a_wrong_type_are_told(name, options, sentence):
    with pytest.raises(ValueError, match="^" + re.escape(f"Data set {name!r}: {sentence}")):
        load_dataset(name, "root", "train", **options)


@pytest.mark.parametrize("name", DATASETS)
def test_every_option_declares_its_type(name):
    assert Any not in declared_options(DATASETS[name].load).values() and declared_options(DATASETS[name].load)


def test_options_arrive_as_their_declared_types(monkeypatch):
    received = {}

    def load(
        root: str | Path,
        split: str,
        *,
        names: Sequence[str] = (),
        sizes: Sequence[int] | None = None,
        share: float = 0.0,
        on: bool = False,
        calibration: str | Path | None = None,
        mode: Literal["a", "b"] = "a",
        own=None,
    ):
        received.update(names=names, sizes=sizes, share=share, on=on, calibration=calibration, mode=mode, own=own)

    monkeypatch.setitem(DATASETS, "mine", DatasetEntry(load, ("train",), "", ""))
    mine = object()
    load_dataset(
        "mine",
        "x",
        "train",
        names=[16, "0016"],
        sizes=("1_000", 2.0),
        share=1,
        on="off",
        calibration=Path("c"),
        mode="b",
        own=mine,
    )
    assert received == {
        **{"names": ["16", "0016"], "sizes": [1000, 2], "share": 1.0, "on": False, "calibration": Path("c")},
        **{"mode": "b", "own": mine},
    }
    load_dataset("mine", "x", "train", names=mine, sizes=None)
    assert received["names"] is mine and received["sizes"] is None
    with pytest.raises(ValueError, match="^Data set 'mine': option mode must be one of a, b, got 'c'"):
        load_dataset("mine", "x", "train", mode="c")


def test_options_reach_the_data_set(tmp_path):
    with pytest.raises(ValueError, match="val_fraction=2"):
        load_dataset("folder", tmp_path, "train", val_fraction=2)
