"""A data set to copy from: stripes, some of them labelled as such, with depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .label_spaces import LabelSpace
from .sample import Sample, sample_of


class Stripes:
    """Images of one stripe each, nearer than what surrounds it.

    Args:
        root: Not read: this data set has no files.
        split: `train` or `val`.
        count: Number of images.
        metres: Depth of the stripe.
    """

    splits = ("train", "val")

    def __init__(self, root: str | Path, split: str, *, count: int = 6, metres: float = 2.0) -> None:
        self.names = [f"{split}_{index}" for index in range(count)]
        self.label_space = LabelSpace("stripes", ("ground", "stripe"), ((0, 0, 0), (255, 255, 255)))
        self._seed, self._metres = self.splits.index(split), metres

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name, rng = self.names[index], np.random.default_rng([self._seed, index])
        labels = np.zeros((32, 64), dtype=np.uint8)
        first = rng.integers(8, 40)
        labels[:, first : first + 16] = 1
        image = rng.integers(0, 60, (32, 64, 3), dtype=np.uint8) + 150 * labels[..., None]
        depth = np.where(labels == 1, self._metres, 4 * self._metres).astype(np.float32)
        return sample_of(name=name, image=image, labels=labels, depth=depth)
