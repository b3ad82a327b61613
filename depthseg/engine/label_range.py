"""Class ids are checked where they are read, on the CPU: on the device the host would have to wait for the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models import DepthSegForSemanticSegmentation

if TYPE_CHECKING:
    from torch import nn

SHOWN = 5


@dataclass(frozen=True)
class LabelRange:
    """The class ids that a model can be trained on.

    Attributes:
        num_ids: They are 0 to this, without it.
        ignore_index: The id of pixels that do not count; None = there is none.
    """

    num_ids: int
    ignore_index: int | None

    @classmethod
    def of(cls, model: nn.Module) -> LabelRange:
        """The ids of a segmenter, where one class has a background beside it, or of a classifier."""
        if isinstance(model, DepthSegForSemanticSegmentation):
            return cls(max(model.config.num_labels, 2), model.config.semantic_loss_ignore_index)
        return cls(model.config.num_labels, None)

    def check(self, name: str, ids: np.ndarray) -> None:
        """Raise a sentence if an image has an id outside the range.

        Args:
            name: Of the image.
            ids: Its class ids, integers of any shape.

        Raises:
            ValueError: There is one.
        """
        wrong = (ids < 0) | (ids >= self.num_ids)
        if self.ignore_index is not None:
            wrong &= ids != self.ignore_index
        if not wrong.any():
            return
        found = np.unique(ids[wrong]).tolist()
        shown = ", ".join(map(str, found[:SHOWN])) + (", ..." if len(found) > SHOWN else "")
        ignored = "" if self.ignore_index is None else f" and ignores {self.ignore_index}"
        raise ValueError(
            f"Image {name!r} is labelled with the ids {shown}, but the model knows 0 to {self.num_ids - 1}{ignored}; "
            "map the labels to the model's classes (data.options.label_map of a folder), or set num_labels."
        )
