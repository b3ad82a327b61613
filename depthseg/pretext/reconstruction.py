"""Inpainting: the network sees a picture with holes and paints the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

SCALE_WEIGHTS = ("fine", "reversed")
SCALE_FACTOR = 4.0


class ReconstructionObjective(nn.Module):
    """The absolute difference to the picture without holes, over all pixels: in the holes and beside them.

    Each scale is upsampled to full resolution, bilinearly by pixel centres (the code of Lao et al. aligns corners),
    and weighs a quarter of the finer one before it. Their code has the weights the wrong way round, so that the
    picture at an eighth of the resolution counts 64 times as much as the finest: `"reversed"`, for comparison.

    Args:
        model: `DepthSegForImageReconstruction`.
        scale_weights: `"fine"` (1, 1/4, 1/16, ...) or `"reversed"` (the coarsest scale has 1); of a head with one
            scale both are the same.

    Raises:
        ValueError: If there are no such scale weights.

    Source: Lao et al. 2024, https://huggingface.co/papers/2203.13987.
    """

    def __init__(self, model: nn.Module, scale_weights: str = "fine") -> None:
        super().__init__()
        if scale_weights not in SCALE_WEIGHTS:
            raise ValueError(f"scale_weights is {scale_weights!r}; allowed are {', '.join(SCALE_WEIGHTS)}.")
        self.model = model
        self.scale_weights = scale_weights

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Colours of all pixels, three a pixel: int64 `(1,)`."""
        image = batch["image"]
        return torch.tensor([image.numel()], device=image.device)

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` `(B, 3, H, W)`, the picture with holes as the image processor makes it; `image`
                `(B, 3, H, W)` in [0, 1], without holes.
            num_valid: `(1,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss`, and `finest_loss`, the mean absolute difference of the finest scale alone.
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
