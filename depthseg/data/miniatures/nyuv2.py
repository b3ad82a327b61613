"""The labelled part of NYU Depth V2 in small."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..official.nyuv2 import MAT_FILE, SPLITS_FILE, names_of_single_labels
from .scenes import encode_labels, scene

_CLASSES = {
    **{"Sky": "ceiling", "Building": "wall", "Pole": "lamp", "Road": "floor", "Pavement": "floor mat"},
    **{"Tree": "curtain", "SignSymbol": "picture", "Fence": "bookshelf", "Car": "sofa", "Pedestrian": "person"},
    "Bicyclist": "chair",
}
_HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, a miniature of NYU Depth V2 by depthseg HDF5 schema 1.00 ."


def write_nyuv2(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write 2 * `count` images: the odd numbers are `train`, the even ones `test`.

    Every label map has a stripe of 0 = unlabelled on top. The street is shrunk to a tenth, the size of a room:
    `rawDepths` has 0 beyond 10 m and in the sky, where `depths` has the nearest known depth. The file has no camera,
    so intrinsics are those of NYU's RGB camera all the same.
    """
    import scipy.io
    from scipy import ndimage

    ids = {name: number for number, name in names_of_single_labels().items()}
    file_ids = {name: ids[other] for name, other in _CLASSES.items()}
    scenes = []
    for number in range(2 * count):
        found = scene(("train", "test")[number % 2], number // 2, size, ("image", "labels", "depth"))
        labels = encode_labels(found["labels"], file_ids).astype(np.uint16)
        labels[0] = 0
        depth = found["depth"] / 10
        raw = np.where(depth > 10, np.float32(0), depth)
        scenes.append({"images": found["image"], "labels": labels, "rawDepths": raw})
        nearest = ndimage.distance_transform_edt(raw == 0, return_distances=False, return_indices=True)
        scenes[-1]["depths"] = raw[tuple(nearest)]
    write_mat(out / MAT_FILE, {field: np.stack([part[field] for part in scenes]) for field in scenes[0]})
    numbers = np.arange(1, 2 * count + 1, dtype=np.uint16)[:, None]
    scipy.io.savemat(out / SPLITS_FILE, {"trainNdxs": numbers[::2], "testNdxs": numbers[1::2]})


def write_mat(path: Path, fields: Mapping[str, np.ndarray]) -> None:
    """Write fields `(N, H, W[, 3])` as MATLAB 7.3 does: HDF5 with all axes reversed, and `names` as references."""
    import h5py

    singles = names_of_single_labels()
    with h5py.File(path, "w", userblock_size=512) as file:
        for field, values in fields.items():
            file[field] = values.transpose(0, *reversed(range(1, values.ndim)))
        references = file.create_dataset("names", (1, 894), h5py.ref_dtype)
        for index in range(894):
            letters = np.array([[ord(letter)] for letter in singles.get(index + 1, f"thing {index + 1}")], np.uint16)
            references[0, index] = file.create_dataset(f"#refs#/name{index}", data=letters).ref
    with path.open("r+b") as file:
        file.write(_HEADER.ljust(124) + b"\x00\x02IM")
