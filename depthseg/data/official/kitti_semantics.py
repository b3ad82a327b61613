"""The semantic labels of KITTI (2015 images)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..image_folders import image_files
from ..images import check_same_size, read_image, read_labels
from ..label_encoding import LabelEncoding
from ..label_spaces import ENCODINGS, LABEL_SPACES
from ..sample import Sample, SegmentationSample
from .kitti_splits import divide_names
from .layout import Missing, OfficialLayout, advising, paired_files

ARCHIVE = "data_semantics.zip"
INSTANCES_PER_CLASS = 256
"""A value of an instance map is class x 256 + instance."""

_SPACES = {19: "cityscapes19", 34: "kitti34"}
_LABELLED = "_10"  # image_2 of other archives holds the frames after, `_11`, which have no labels


class KittiSemantics(OfficialLayout):
    """KITTI semantics: 200 labelled street images of five sizes, classes of Cityscapes.

    ```
    ROOT/training/image_2/000000_10.png     200 images
    ROOT/training/semantic/000000_10.png    labelIds 0 to 33; semantic_rgb/ holds the same in colours
    ROOT/training/instance/000000_10.png    16 bits, class x 256 + instance
    ROOT/testing/image_2/000000_10.png      200 images without labels
    ```

    There is no official validation split: `val` holds the first `val_fraction` of the 200 in the order of
    `shuffled_names`, so that seed and share say exactly which. `test` has images alone, to predict on.

    Args:
        root: Folder that holds training/ and testing/.
        split: `train`, `val`, `all` (both together) or `test`.
        classes: 19, those that Cityscapes evaluates, or 34, all labelIds.
        labels_from: `semantic`, or `instance` for the classes of the instance maps.
        val_fraction: Share of `val`, 0 <= f < 1; 0 = everything is `train`.
        seed: Of the division.
        missing: `refuse`, or `skip` to leave out images that lack their label map.

    Raises:
        FileNotFoundError: A folder is missing or holds no image, or an image lacks its label map.
        ValueError: An option out of range.

    Source:
        Alhaija et al. 2018 (CC BY-NC-SA 3.0).
    """

    splits = ("train", "val", "all", "test")
    checked_splits = ("all", "test")
    counts = {"all": 200, "test": 200}
    archives = {"image": ARCHIVE, "label map": ARCHIVE}

    def __init__(
        self,
        root: str | Path,
        split: str,
        classes: Literal[19, 34] = 19,
        labels_from: Literal["semantic", "instance"] = "semantic",
        val_fraction: float = 0.2,
        seed: int = 0,
        missing: Missing = "refuse",
    ) -> None:
        self.check_place(root, split)
        if classes not in _SPACES:
            raise ValueError(f"classes={classes} is not known; choose 19, those of Cityscapes, or 34, all labelIds.")
        self.label_space = LABEL_SPACES[_SPACES[classes]]
        self._encoding = ENCODINGS[_SPACES[classes]]
        self._labels_from = labels_from
        images = self.folders_of(root, split)[0]
        if split == "test":
            files, remarks = {name: {"image": path} for name, path in image_files(images).items()}, []
        else:
            folders = {"image": images, "label map": images.parent / labels_from}
            pairs = paired_files(folders, {"image": ".png", "label map": ".png"}, ARCHIVE)
            files = {name: pair for name, pair in pairs.items() if name.endswith(_LABELLED)}
            held_out = divide_names(sorted(files), "val", val_fraction, seed)
            remarks = [
                f"KITTI has no validation split: val is {len(held_out)} of the {len(files)} labelled images, drawn "
                f"with val_fraction={val_fraction:g} and seed={seed}. State both with every score."
            ]
            files = {name: files[name] for name in divide_names(sorted(files), split, val_fraction, seed)}
        super().__init__(root, split, files, missing)
        self.remarks += remarks

    @classmethod
    def folders_of(cls, root: str | Path, split: str) -> tuple[Path, ...]:
        """Folders of the images and, but for `test`, of the label maps."""
        if split == "test":
            return (Path(root) / "testing" / "image_2",)
        return Path(root) / "training" / "image_2", Path(root) / "training" / "semantic"

    def __getitem__(self, index: int) -> Sample:
        """Image and labels; a test image alone.

        Raises:
            ValueError: A file that cannot be read, a label map of another size, or an id that is no labelId.
        """
        name = self.names[index]
        files = self.files[name]
        with advising(f"Unpack {ARCHIVE} again."):
            image = read_image(files["image"])
            if "label map" not in files:
                return Sample(name=name, image=image)
            path = files["label map"]
            values = read_labels(path)
            check_same_size(files["image"], image, path, values)
        if self._labels_from == "instance":
            labels = decode_instances(path, values, self._encoding)
        else:
            with advising(_explain(values)):
                labels = self._encoding.decode(path, values)
        return SegmentationSample(name=name, image=image, labels=labels)


def decode_instances(path: str | Path, values: np.ndarray, encoding: LabelEncoding) -> np.ndarray:
    """Class ids of an instance map of KITTI.

    Args:
        path: The file, for messages.
        values: Integers `(H, W)`, class x 256 + instance.
        encoding: Of the classes.

    Returns:
        uint8 `(H, W)`, class ids, 255 = ignored.

    Raises:
        ValueError: The values are those of no instance map.
    """
    if values.dtype.itemsize == 1 and values.max() > 0:
        raise ValueError(
            f"{path} has 8 bits, but an instance map has 16: class x {INSTANCES_PER_CLASS} + instance. Read the label "
            f"maps with labels_from=semantic, or unpack {ARCHIVE} again."
        )
    with advising(f"These are the upper 8 bits of an instance map. Unpack {ARCHIVE} again."):
        return encoding.decode(path, values.astype(np.int64) // INSTANCES_PER_CLASS)


def _explain(values: np.ndarray) -> str:
    """What label maps with values that are no labelIds are, and what to do."""
    if values.max() >= INSTANCES_PER_CLASS:
        return (
            "Values of 256 and more are those of an instance map, class x 256 + instance: read it with the option "
            f"labels_from=instance from training/instance, and unpack training/semantic of {ARCHIVE} again."
        )
    if values.max() == 255:
        return f"255 is in maps of trainIds, and labelIds are read here: unpack training/semantic of {ARCHIVE} again."
    return f"Unpack training/semantic of {ARCHIVE} again; semantic_rgb holds colours."
