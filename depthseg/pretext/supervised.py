"""Supervised training on class labels or ground-truth depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..models import valid_depth

if TYPE_CHECKING:
    from collections.abc import Mapping


class SupervisedObjective(nn.Module):
    """The loss that a task model computes from its labels.

    Like every objective it owns the model, counts the valid pixels of a batch, and computes the loss of a batch. The
    training loop uses only these methods.

    Args:
        model: `DepthSegForSemanticSegmentation` or `DepthSegForDepthEstimation`.
        depth_weight: Weight of the depth loss of a segmenter that keeps its depth predictor; 0 = labels only.
    """

    def __init__(self, model: nn.Module, depth_weight: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.depth_weight = depth_weight
        if depth_weight:
            model.train_depth_predictor()

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Number of valid pixels in the loss, int64 `(2,)`: of labels, and of depth used together with labels."""
        labels = self.model.count_valid(batch["labels"])
        return torch.stack([labels, valid_depth(batch["depth"]).sum() if self.depth_weight else labels.new_zeros(())])

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` float32 `(B, 3, H, W)`; `labels` int64 `(B, H, W)` class ids with 255 = ignored, or
                float32 `(B, H, W)` metres with 0 = unknown; with `depth_weight` also `depth` in metres.
            num_valid: `(2,)`; divide the sums over valid pixels by these, the counts of the whole optimiser step;
                None = the counts of this batch.

        Returns:
            `loss`, a scalar; with `depth_weight`, also its parts.
        """
        num_valid, num_valid_depth = (None, None) if num_valid is None else num_valid.unbind()
        inputs = {"pixel_values": batch["pixel_values"], "labels": batch["labels"], "num_valid": num_valid}
        if not self.depth_weight:
            return {"loss": self.model(**inputs).loss}
        output = self.model(**inputs, depth_target=batch["depth"], num_valid_depth=num_valid_depth)
        loss = output.loss + self.depth_weight * output.depth_loss
        return {"loss": loss, "label_loss": output.loss, "depth_loss": output.depth_loss}
