"""Training on given labels or given depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping


class SupervisedObjective(nn.Module):
    """The loss that a task model computes from its labels.

    Like every objective it owns the model, tells how many label pixels of a batch count, and turns a batch into a
    loss. The training loop knows nothing else.

    Args:
        model: `DepthSegForSemanticSegmentation` or `DepthSegForDepthEstimation`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Number of label pixels that enter the loss, int64 `()`."""
        return self.model.count_valid(batch["labels"])

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` float32 `(B, 3, H, W)`; `labels` int64 `(B, H, W)` class ids with 255 = ignored, or
                float32 `(B, H, W)` metres with 0 = unknown.
            num_valid: Divide the sum over valid pixels by this, the count of the whole optimiser step; None = the
                count of this batch.

        Returns:
            `loss`, a scalar.
        """
        output = self.model(pixel_values=batch["pixel_values"], labels=batch["labels"], num_valid=num_valid)
        return {"loss": output.loss}
