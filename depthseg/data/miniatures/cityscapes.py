"""Cityscapes in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..label_spaces import ENCODINGS, LABEL_SPACES
from ..official.cityscapes import Cityscapes
from .kitti_semantics import LABEL_IDS
from .scenes import encode_labels, save, scene, write_bytes

_COUNTED = ("person", "rider", "car")
_OUT_OF_ROI = 3
_CITIES = {"train": "aachen", "val": "frankfurt", "test": "berlin"}
# World and split of the scenes; coarse frames are further scenes of the training world.
_SCENES = {"train": "train", "val": "val", "test": "test", "train_extra": "train"}


def write_cityscapes(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` frames of each split with all that Cityscapes has of them.

    Every frame has its own camera. Of the labels of `test`, only the border is written, as in the original; the frames
    of `train_extra` have coarse labels.
    """
    for split in Cityscapes.splits:
        city = _CITIES.get(split, "augsburg")
        for index in range(count):
            number = index + (count if split == "train_extra" else 0)
            _write_frame(out, split, city, f"{city}_{index:06d}_000019", (_SCENES[split], number), size)


def _write_frame(out: Path, split: str, city: str, name: str, place: tuple[str, int], size: tuple[int, int]) -> None:
    outputs = ("image", "labels", "depth", "intrinsics", "baseline")
    found = scene(*place, size, outputs)
    file_of = {kind: out / kind / split / city for kind in ("leftImg8bit", "rightImg8bit", "camera", "disparity")}
    save(file_of["leftImg8bit"] / f"{name}_leftImg8bit.png", found["image"])
    right = scene(*place, size, ("image",), view="right")["image"]
    save(file_of["rightImg8bit"] / f"{name}_rightImg8bit.png", right)
    for step in (-1, 0, 1):
        sequence = out / "leftImg8bit_sequence" / split / city
        image = found["image"] if step == 0 else scene(*place, size, ("image",), time=step)["image"]
        save(sequence / f"{name.rpartition('_')[0]}_{19 + step:06d}_leftImg8bit.png", image)
    _write_camera(file_of["camera"] / f"{name}_camera.json", found["intrinsics"], float(found["baseline"]))
    stored = disparity_values(found["depth"], float(found["intrinsics"][0, 0] * found["baseline"]))
    save(file_of["disparity"] / f"{name}_disparity.png", stored)
    ids = encode_labels(found["labels"], LABEL_IDS)
    ids[0] = _OUT_OF_ROI
    if split == "test":
        ids[1:] = 0
    _write_labels(out, split, city, name, ids)


def disparity_values(depth: np.ndarray, focal_times_baseline: float) -> np.ndarray:
    """uint16 `(H, W)`: disparity x 256 + 1, 0 = unknown, of depth in metres with 0 = unknown."""
    known = depth > 0
    disparity = focal_times_baseline / np.where(known, depth, 1)
    return np.where(known, np.clip(np.round(256 * disparity) + 1, 1, 65535), 0).astype(np.uint16)


def _write_camera(path: Path, intrinsics: np.ndarray, baseline: float) -> None:
    numbers = {"fx": intrinsics[0, 0], "fy": intrinsics[1, 1], "u0": intrinsics[0, 2], "v0": intrinsics[1, 2]}
    extrinsic = {"baseline": baseline, "pitch": 0.038, "roll": 0.0, "x": 1.7, "y": 0.1, "yaw": -0.0195, "z": 1.22}
    write_bytes(path, json.dumps({"extrinsic": extrinsic, "intrinsic": numbers}, indent=4).encode())


def _write_labels(out: Path, split: str, city: str, name: str, ids: np.ndarray) -> None:
    kinds = {"train": ("gtFine", "gtCoarse"), "val": ("gtFine", "gtCoarse"), "test": ("gtFine",)}
    table = np.array([ENCODINGS["cityscapes19"].class_ids[index] for index in range(34)], np.uint8)
    palette = np.array([(*colour, 255) for colour in LABEL_SPACES["kitti34"].palette], np.uint8)
    for kind in kinds.get(split, ("gtCoarse",)):
        stem = out / kind / split / city
        save(stem / f"{name}_{kind}_labelIds.png", ids.astype(np.uint8))
        save(stem / f"{name}_{kind}_labelTrainIds.png", table[ids])
        save(stem / f"{name}_{kind}_instanceIds.png", _instances(ids))
        save(stem / f"{name}_{kind}_color.png", palette[ids])


def _instances(ids: np.ndarray) -> np.ndarray:
    """uint16 `(H, W)`: class x 1000 + number of the connected region for what is counted, else the class."""
    from scipy import ndimage

    found = ids.astype(np.uint16)
    for name in _COUNTED:
        index = LABEL_SPACES["kitti34"].label2id[name]
        regions, _ = ndimage.label(ids == index)
        found[regions > 0] = index * 1000 + regions[regions > 0] - 1
    return found
