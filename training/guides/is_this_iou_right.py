"""The numbers of is_this_iou_right.md: one prediction, evaluated in ten ways.

    python training/guides/is_this_iou_right.py

Writes them into the table of the page beside this file.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from depthseg.data import LABEL_SPACES
from depthseg.data.label_spaces import ENCODINGS
from depthseg.data.miniatures.scenes import encode_labels, scene
from depthseg.engine.protocols import RELEASE_IGNORED
from depthseg.metrics import ConfusionMatrix
from depthseg.metrics.reductions import image_mean_scores, matrix_scores

PAGE = Path(__file__).with_suffix(".md")
IDS34, CLASSES19 = LABEL_SPACES["kitti34"], LABEL_SPACES["cityscapes19"]
NUM_CLASSES, IGNORED = CLASSES19.num_labels, CLASSES19.ignore_index
SIZES = ((375, 1242), (370, 1226), (376, 1241), (374, 1238))
SMALL = (192, 640)
SHIFT, HOOD = 6, 60
"""Columns by which the prediction is off, and rows of the car that carries the camera, at the size of the image."""

FILE_IDS = {
    **{"Sky": 23, "Building": 11, "Pole": 17, "Road": 7, "Pavement": 8, "Tree": 21, "SignSymbol": 20, "Fence": 13},
    **{"Car": 26, "Pedestrian": 24, "Bicyclist": 25},
}
EGO_VEHICLE, CAR, TRUCK, ROAD = 1, 26, 27, 7
KEPT = np.array([id if ENCODINGS["cityscapes19"].class_ids.get(id, IGNORED) != IGNORED else 0 for id in range(256)])
TRAIN_IDS = np.array([ENCODINGS["cityscapes19"].class_ids.get(id, IGNORED) for id in range(256)])

Maps = list[tuple[np.ndarray, np.ndarray]]


def example() -> Maps:
    """Predicted and true ids of the label files, four images of the procedural world at the sizes of KITTI."""
    maps = []
    for index, size in enumerate(SIZES):
        labels = encode_labels(scene("val", index, size, ["labels"])["labels"], FILE_IDS).astype(np.uint8)
        predicted = np.roll(labels, SHIFT, axis=1)
        predicted[:, :SHIFT] = labels[:, :1]
        labels[-HOOD:], predicted[-HOOD:] = EGO_VEHICLE, ROAD
        if index == 0:
            predicted[predicted == CAR] = TRUCK
        maps.append((predicted, labels))
    return maps


def small(maps: Maps, label_filter: Image.Resampling) -> Maps:
    """The same at 192x640: the prediction by nearest neighbour, the labels by a filter."""
    filters = (Image.Resampling.NEAREST, label_filter)
    return [
        tuple(
            np.asarray(Image.fromarray(ids).resize(SMALL[::-1], chosen))
            for ids, chosen in zip(pair, filters, strict=True)
        )
        for pair in maps
    ]


def matrices_of(maps: Maps, counts_void: bool = False) -> np.ndarray:
    """One matrix of each image; with void counted, of 20 ids, of which the last is void."""
    meter = ConfusionMatrix(NUM_CLASSES + counts_void)
    ids = np.where(TRAIN_IDS == IGNORED, NUM_CLASSES, TRAIN_IDS) if counts_void else TRAIN_IDS
    return np.stack([meter.state_of(TRAIN_IDS[predicted], ids[labels]).numpy() for predicted, labels in maps])


def numbers() -> dict[str, float]:
    """Mean IoU in percent by the name of its way, in the order of the table."""
    maps = example()
    nearest, bicubic = (small(maps, kind) for kind in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC))
    own, total = matrices_of(maps), matrices_of(maps).sum(0)
    iou = np.array(list(matrix_scores(total, CLASSES19.classes)["per_class_iou"].values()))
    labelled = total.sum(1) > 0
    void = matrices_of(maps, counts_void=True).sum(0)
    unions = void.sum(0) + void.sum(1) - void.diagonal()
    release = ConfusionMatrix(IDS34.num_labels)
    quirks = np.stack([release.state_of(KEPT[predicted], KEPT[labels]).numpy() for predicted, labels in bicubic])
    left_out = {id % IDS34.num_labels for id in RELEASE_IGNORED}
    survivors = [name for id, name in IDS34.id2label.items() if id not in left_out]
    found = {
        "standard": matrix_scores(total, CLASSES19.classes)["mean_iou"],
        "absent as 0": np.nan_to_num(iou, nan=0.0).mean(),
        "absent as 1": np.nan_to_num(iou, nan=1.0).mean(),
        "labelled only": iou[labelled].mean(),
        "void as false alarms": (void.diagonal()[:-1] / np.maximum(unions[:-1], 1))[unions[:-1] > 0].mean(),
        "nearest": matrix_scores(matrices_of(nearest), CLASSES19.classes)["mean_iou"],
        "bicubic": matrix_scores(matrices_of(bicubic), CLASSES19.classes)["mean_iou"],
        "image mean": image_mean_scores(_with_void(own), ("void", *CLASSES19.classes), CLASSES19.classes)["mean_iou"],
        "seven classes": np.nanmean(iou[[CLASSES19.label2id[name] for name in survivors]]),
        "released scorer": image_mean_scores(quirks, IDS34.classes, survivors)["mean_iou"],
    }
    return {name: 100 * float(value) for name, value in found.items()}


def _with_void(matrices: np.ndarray) -> np.ndarray:
    """The same with an id 0 in front that no pixel has."""
    return np.pad(matrices, ((0, 0), (1, 0), (1, 0)))


def fill(page: str) -> str:
    """The page with the numbers in its table: the last cell of each row, by the name in its first cell."""
    for name, value in numbers().items():
        page, count = re.subn(rf"^(\| {re.escape(name)} \|.*\|) [^|]* \|$", rf"\1 {value:.1f} |", page, flags=re.M)
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} rows named {name!r}; it needs one.")
    return page


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
