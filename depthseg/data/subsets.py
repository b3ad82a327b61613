"""Few-shot subsets: reproducible, nested, the same on every machine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .sample import Sample, SampleDataset


def shuffled_names(names: Iterable[str], seed: int) -> list[str]:
    """Names in a random order that depends on the names and the seed alone.

    They are sorted by the SHA-256 of `"{seed}/{name}"`. So the order is the same on every machine and with every
    version of Python and NumPy, does not depend on the order given, and taking a name out does not move the others.

    Raises:
        ValueError: A name is given twice.
    """
    names = list(names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"The name {twice!r} is in the pool more than once; names must be unique.")
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def few_shot_names(names: Iterable[str], size: int, seed: int) -> list[str]:
    """The first `size` of the shuffled names, so the subset of 8 is part of that of 16 of the same seed.

    Raises:
        ValueError: `size` is not between 1 and the number of names.
    """
    order = shuffled_names(names, seed)
    if not 1 <= size <= len(order):
        raise ValueError(f"A subset of {size} images was asked for, but the pool has {len(order)}; ask for 1 to that.")
    return order[:size]


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 to `count` - 1, evenly spaced and increasing, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


SAMPLES_IN_MEMORY = 64
"""Subsets up to this size keep their decoded samples: few-shot training reads each of them hundreds of times."""


class Subset:
    """The named samples of a data set, in the order given; each is read once if there are few.

    Where the data set has `categories`, `stride`, `frame_rate`, `value_range`, `poses`, `has_depth` or `pixel_aspect`,
    so has the subset, the last three for its own samples.

    Args:
        dataset: The pool.
        names: Which samples; each must be in the pool.

    Raises:
        ValueError: A name is not in the pool.
    """

    def __init__(self, dataset: SampleDataset, names: Sequence[str]) -> None:
        position = {name: index for index, name in enumerate(dataset.names)}
        unknown = [name for name in names if name not in position]
        if unknown:
            raise ValueError(f"{len(unknown)} names are not in the data set, the first is {unknown[0]!r}.")
        self.names = list(names)
        self.label_space = dataset.label_space
        self._dataset = dataset
        self._indices = [position[name] for name in names]
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        position = self._indices[index]
        if len(self) > SAMPLES_IN_MEMORY:
            return self._dataset[position]
        if position not in self._kept:
            self._kept[position] = self._dataset[position]
        return self._kept[position]

    def __getattr__(self, name: str) -> Any:
        """What only some data sets have, and the subset exactly if its data set has it."""
        if name in ("categories", "stride", "frame_rate", "value_range"):
            return getattr(self._dataset, name)
        if name == "poses":
            poses = getattr(self._dataset, name)
            return None if poses is None else poses[self._indices]
        if name in ("has_depth", "pixel_aspect"):
            ask = getattr(self._dataset, name)
            return lambda index: ask(self._indices[index])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def few_shot_subset(dataset: SampleDataset, size: int, seed: int) -> Subset:
    """`size` samples of a data set, chosen by `few_shot_names`."""
    return Subset(dataset, few_shot_names(dataset.names, size, seed))
