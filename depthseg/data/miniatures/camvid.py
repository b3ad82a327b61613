"""CamVid in its SegNet layout, in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..official.camvid import CamVid
from .scenes import save, scene


def write_camvid(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` frames of each split; every label map has a stripe of 11 = unlabelled at its top."""
    for split in CamVid.splits:
        images, labels = CamVid.folders_of(out, split)
        for index in range(count):
            found = scene(split, index, size, ("image", "labels"))
            ids = found["labels"].astype(np.uint8)
            ids[0] = 11
            name = f"{split}_{index:06d}.png"
            save(images / name, found["image"])
            save(labels / name, ids)
