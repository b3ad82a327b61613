"""Optical flow without labels: a flow is right if the other picture, seen through it, looks like the picture at hand.

Shape letters: B batch, S sources, C channels, H and W picture size, h and w size of a flow map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import pixel_grid, warp
from .alignment import find_turn, stabilise, turned_pixels
from .photometric import SSIM_WEIGHT, TargetStatistics, edge_aware_roughness, photometric_error

if TYPE_CHECKING:
    from collections.abc import Mapping


class OpticalFlowObjective(nn.Module):
    """Photometric training of a flow network on pairs of pictures, the rival of depth in Lao et al.

    Each scale's flow is upsampled to full resolution, where the warped picture is compared and the flow is asked to be
    smooth, except at edges of the picture; a scale weighs half of the finer one before it. There is no mask for what
    the other picture hides or does not show, and no second source that could help out.

    The code of Lao et al. differs as follows. It sums the error over the three channels, where this takes the mean,
    and weighs smoothness by 2, which the default of 2/3 makes the same balance. Its scale weights are 1, 1/2, 1/4 and
    1/8; here they are divided by their sum, so that heads of fewer scales have losses of the same size. It upsamples
    and looks up with corners aligned and flows stretched to match, where this counts pixels from their centres as
    everything here does. It starts from ImageNet weights, which depth is then not compared with on equal terms; what a
    run starts from is decided elsewhere.

    Args:
        model: `DepthSegForOpticalFlow`.
        ssim_weight: Share of SSIM in the error, from 0 to 1; the rest is the absolute difference.
        smoothness_weight: Weight of the smoothness of flow in shares of the picture's size, at least 0.
        align: Find the turn of the camera by aligning the pictures (`find_turn`), as for depth from video: the network
            sees the other picture as a camera would have seen it that had not turned, and learns the flow that is
            left. Without a correlation volume it hardly learns flow of many pixels.

    Raises:
        ValueError: If a number is out of its range.

    Source: Lao et al. 2024, https://huggingface.co/papers/2203.13987.
    """

    def __init__(
        self,
        model: nn.Module,
        ssim_weight: float = SSIM_WEIGHT,
        smoothness_weight: float = 2.0 / 3,
        align: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= ssim_weight <= 1:
            raise ValueError(f"ssim_weight is {ssim_weight}; it must lie between 0 and 1.")
        if not 0 <= smoothness_weight < float("inf"):
            raise ValueError(f"smoothness_weight is {smoothness_weight}; it must be a finite number of at least 0.")
        self.model = model
        self.ssim_weight = ssim_weight
        self.smoothness_weight = smoothness_weight
        self.align = align

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Pixels of each scale, and images: int64 `(2,)`."""
        image = batch["image"]
        return torch.tensor([image[:, 0].numel(), len(image)], device=image.device)

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` `(B, 3, H, W)` and `source_pixel_values` `(B, S, 3, H, W)`, as the image processor
                makes them; `image` and `source_images` `(B, S, 3, H, W)` in [0, 1], the same pictures without colour
                jitter. The first source is the other picture. To align, `intrinsics` `(B, 3, 3)`, pixels.
            num_valid: `(2,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss` and its parts.
        """
        pixels, images = (self.count_valid(batch) if num_valid is None else num_valid).unbind()
        image, source = batch["image"], batch["source_images"][:, 0]
        target = TargetStatistics.of(image)
        height, width = image.shape[-2:]
        shares = torch.tensor([width, height], device=image.device)[:, None, None]
        photometric, smoothness = [], []
        for flow, learned in self.estimate(batch):
            warped = warp(source, pixel_grid(height, width, device=image.device) + flow)[0]
            photometric.append(photometric_error(warped, target, self.ssim_weight).sum() / pixels)
            smoothness.append(edge_aware_roughness(learned / shares, image).sum() / images)
        parts = [average_scales(values) for values in (photometric, smoothness)]
        smoothness_loss = self.smoothness_weight * parts[1]
        return {
            "loss": parts[0] + smoothness_loss,
            "photometric_loss": parts[0],
            "smoothness_loss": smoothness_loss,
        }

    def estimate(self, batch: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The flow of each scale, finest first, and what of it the network gives; see `forward` for the batch.

        Returns:
            Pairs of `(B, 2, H, W)`, pixels right and down. The two are the same unless pictures are aligned.
        """
        other, size = batch["source_pixel_values"][:, 0], tuple(batch["image"].shape[-2:])
        if self.align:
            camera = batch["intrinsics"].float()
            turn = find_turn(batch["image"], batch["source_images"][:, 0], camera)
            other = stabilise(other, turn, camera)
        flow_maps = self.model(batch["pixel_values"], other).flow_maps
        learned = [F.interpolate(flow, size=size, mode="bilinear", align_corners=False) for flow in flow_maps]
        if not self.align:
            return list(zip(learned, learned, strict=True))
        grid = pixel_grid(*size, device=other.device)
        return [(turned_pixels(turn, camera, grid + flow) - grid, flow) for flow in learned]


def average_scales(losses: list[Tensor]) -> Tensor:
    """Mean of the losses of the scales, finest first, each with half the weight of the one before."""
    weights = [0.5**scale for scale in range(len(losses))]
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
