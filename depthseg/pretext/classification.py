"""Classification of whole images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class ClassificationObjective(nn.Module):
    """Cross-entropy of one class per image.

    Args:
        model: `DepthSegForImageClassification`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Number of images: int64 `(1,)`."""
        labels = batch["labels"]
        return labels.new_full((1,), len(labels), dtype=torch.int64)

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` `(B, 3, H, W)`, as the image processor makes them; `labels` int64 `(B,)`, class ids.
            num_valid: `(1,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss`.

        Raises:
            ValueError: If there is not one label per image; or, without `num_valid` and on the CPU, if an id is out of
                range.
        """
        num_valid = None if num_valid is None else num_valid[0]
        return {"loss": self.model(batch["pixel_values"], labels=batch["labels"], num_valid=num_valid).loss}
