"""Inpainting: the network reconstructs an image from a version with masked regions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

SCALE_FACTOR = 4.0


class InpaintingObjective(nn.Module):
    """L1 loss against the original image, over all pixels inside and outside the masked regions.

    Each scale is upsampled to full resolution, bilinearly by pixel centres (the code of Lao et al. aligns corners),
    and has a quarter of the weight of the next finer one. Their code has the weights in reverse order, so that the
    image at an eighth of the resolution has 64 times the weight of the finest: `"reversed"`, for comparison.

    Args:
        model: `DepthSegForImageReconstruction`.
        scale_weights: `"fine"` (1, 1/4, 1/16, ...) or `"reversed"` (the coarsest scale has 1); for a head with one
            scale both are equal.

    Source: Lao et al. 2024, https://huggingface.co/papers/2203.13987.
    """

    def __init__(self, model: nn.Module, scale_weights: str = "fine") -> None:
        super().__init__()
        self.model = model
        self.scale_weights = scale_weights

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Colour values of all pixels, three per pixel: int64 `(1,)`."""
        image = batch["image"]
        return image.new_full((1,), image.numel(), dtype=torch.int64)

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` `(B, 3, H, W)`, the masked image from the image processor; `image` `(B, 3, H, W)` in
                [0, 1], the original image.
            num_valid: `(1,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss`, and `finest_loss`, the mean absolute difference of the finest scale.
        """
        count = (self.count_valid(batch) if num_valid is None else num_valid)[0]
        image = batch["image"].float()
        losses = []
        for painted in self.model(batch["pixel_values"]).reconstruction_maps:
            painted = F.interpolate(painted.float(), size=image.shape[-2:], mode="bilinear", align_corners=False)
            losses.append((painted - image).abs().sum() / count)
        weights = [SCALE_FACTOR**-scale for scale in range(len(losses))]
        if self.scale_weights == "reversed":
            weights.reverse()
        loss = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        return {"loss": loss, "finest_loss": losses[0]}
