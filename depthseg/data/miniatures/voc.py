"""Pascal VOC 2012 and SBD in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..label_spaces import LABEL_SPACES, default_palette
from .scenes import encode_labels, save, scene, write_bytes

_CLASSES = {
    **{"Sky": "background", "Building": "background", "Road": "background", "Pavement": "background"},
    **{"Pole": "bottle", "Tree": "pottedplant", "SignSymbol": "tvmonitor", "Fence": "chair", "Car": "car"},
    **{"Pedestrian": "person", "Bicyclist": "bicycle"},
}
_FILE_IDS = {name: LABEL_SPACES["voc21"].label2id[other] for name, other in _CLASSES.items()}
_YEARS = {"train": 2007, "val": 2008, "sbd": 2010}
_BORDER = 255
_VOID_COLOUR = (224, 224, 192)


def write_voc(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write `count` images of train and of val with palette PNG files, and `count` more that SBD alone has labels of.

    SBD's train.txt has them and the first image of train, its val.txt the first image of val.
    """
    import scipy.io

    base, sbd = out / "VOCdevkit" / "VOC2012", out / "benchmark_RELEASE" / "dataset"
    names: dict[str, list[str]] = {"train": [], "val": [], "sbd": []}
    for part, world in (("train", "train"), ("val", "val"), ("sbd", "test")):
        for index in range(count):
            name = f"{_YEARS[part]}_{index + 1:06d}"
            names[part].append(name)
            found = scene(world, index, size, ("image", "labels"))
            ids = encode_labels(found["labels"], _FILE_IDS).astype(np.uint8)
            save(base / "JPEGImages" / f"{name}.jpg", found["image"], quality=95)
            if part != "sbd":
                _save_palette(base / "SegmentationClass" / f"{name}.png", with_border(ids))
            if part == "sbd" or index == 0:
                path = sbd / "cls" / f"{name}.mat"
                path.parent.mkdir(parents=True, exist_ok=True)
                scipy.io.savemat(path, {"GTcls": {"Segmentation": ids, "CategoriesPresent": np.unique(ids[ids > 0])}})
    lists = base / "ImageSets" / "Segmentation"
    _write_list(lists / "train.txt", names["train"])
    _write_list(lists / "val.txt", names["val"])
    _write_list(lists / "trainval.txt", sorted([*names["train"], *names["val"]]))
    _write_list(sbd / "train.txt", [names["train"][0], *names["sbd"]])
    _write_list(sbd / "val.txt", names["val"][:1])


def with_border(ids: np.ndarray) -> np.ndarray:
    """Ids `(H, W)` with 255 where the pixel on the left or above is of another class, as VOC draws outlines."""
    edge = np.zeros(ids.shape, bool)
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    return np.where(edge, _BORDER, ids).astype(np.uint8)


def _save_palette(path: Path, ids: np.ndarray) -> None:
    image = Image.fromarray(ids, "P")
    image.putpalette([value for colour in (*default_palette(_BORDER), _VOID_COLOUR) for value in colour])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _write_list(path: Path, names: list[str]) -> None:
    write_bytes(path, "".join(f"{name}\n" for name in names).encode())
