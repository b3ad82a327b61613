"""ADE20K SceneParsing in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..label_spaces import LABEL_SPACES
from ..official.ade20k import ADE20K
from .scenes import encode_labels, save, scene

_CLASSES = {
    **{"Sky": "sky", "Building": "building", "Pole": "pole", "Road": "road", "Pavement": "sidewalk", "Tree": "tree"},
    **{"SignSymbol": "signboard", "Fence": "fence", "Car": "car", "Pedestrian": "person", "Bicyclist": "bicycle"},
}
_FILE_IDS = {name: LABEL_SPACES["ade150"].label2id[other] + 1 for name, other in _CLASSES.items()}


def write_ade20k(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` images of each split, JPEG as the originals; every label map has a stripe of 0 = other on top."""
    for split in ADE20K.splits:
        images, labels = ADE20K.folders_of(out / "ADEChallengeData2016", split)
        for index in range(count):
            found = scene(split, index, size, ("image", "labels"))
            ids = encode_labels(found["labels"], _FILE_IDS).astype(np.uint8)
            ids[0] = 0
            name = f"ADE_{split}_{index + 1:08d}"
            save(images / f"{name}.jpg", found["image"], quality=95)
            save(labels / f"{name}.png", ids)
