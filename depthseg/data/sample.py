"""What one item of every data set is: an image, and the labels and depth that go with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from .label_spaces import LabelSpace


@dataclass(frozen=True)
class Sample:
    """One image with its labels and depth, all of one size (H, W).

    Attributes:
        name: Stable, unique in its data set.
        image: uint8 `(H, W, 3)`, RGB.
        labels: uint8 `(H, W)`, class ids 0..K-1, 255 = ignored; None where the data set has none.
        depth: float32 `(H, W)`, metres, 0 = unknown; None where the data set has none.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray | None = None
    depth: np.ndarray | None = None


class SampleDataset(Protocol):
    """The form of every data set: ordered, indexable, named."""

    names: list[str]
    label_space: LabelSpace | None

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`, in the order of `names`."""
