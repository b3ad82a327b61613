"""KITTI semantics, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..label_spaces import LABEL_SPACES
from ..official.kitti_semantics import INSTANCES_PER_CLASS
from .scenes import encode_labels, save, scene

LABEL_IDS = {
    **{"Sky": 23, "Building": 11, "Pole": 17, "Road": 7, "Pavement": 8, "Tree": 21},
    **{"SignSymbol": 20, "Fence": 13, "Car": 26, "Pedestrian": 24, "Bicyclist": 25},
}
"""Class of the world -> labelId of Cityscapes."""

IMAGES_PER_SCENE = 5
"""Two divisions need several images; the genuine layout has 200 of five sizes."""


def write_kitti_semantics(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write 5 x `count` labelled images of two sizes, their top row 3 = out of roi, and `count` tests."""
    palette = np.array(LABEL_SPACES["kitti34"].palette, np.uint8)
    for index in range(IMAGES_PER_SCENE * count):
        found = scene("train", index, image_size(index, size), ("image", "labels"))
        ids = encode_labels(found["labels"], LABEL_IDS).astype(np.uint8)
        ids[0] = 3
        # Cars, pedestrians and riders are things: they have instances, here one for each class.
        instances = ids.astype(np.uint16) * INSTANCES_PER_CLASS + np.isin(ids, (24, 25, 26))
        maps = {"image_2": found["image"], "semantic": ids, "semantic_rgb": palette[ids], "instance": instances}
        for part, values in maps.items():
            save(out / "training" / part / f"{index:06d}_10.png", values)
    for index in range(count):
        image = scene("test", index, image_size(index, size), ("image",))["image"]
        save(out / "testing" / "image_2" / f"{index:06d}_10.png", image)


def image_size(index: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image: every second one is a pixel higher and narrower."""
    return size if index % 2 == 0 else (size[0] + 1, size[1] - 1)
