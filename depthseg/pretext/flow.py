"""Unsupervised optical flow: the other image, warped by the flow, must match the first image.

Shape letters: B batch, S sources, C channels, H and W image size, h and w size of a flow map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..geometry import pixel_grid, warp
from .alignment import find_rotation, rotated_pixels, stabilise
from .photometric import SSIM_WEIGHT, TargetStatistics, edge_aware_roughness, photometric_error

if TYPE_CHECKING:
    from collections.abc import Mapping


class OpticalFlowObjective(nn.Module):
    """Photometric training of a flow network on image pairs, one of the other pre-training tasks of Lao et al.

    The flow of each scale is upsampled to full resolution. There the warped image is compared with the target, and the
    edge-aware smoothness of the flow is computed; each scale has half the weight of the next finer one. Occluded
    pixels are not masked, and there is no second source.

    The code of Lao et al. differs as follows. It sums the error over the three channels, whereas this objective takes
    the mean; its smoothness weight is 2, which corresponds to the default of 2/3 here. Its scale weights are 1, 1/2,
    1/4 and 1/8; here they are divided by their sum, so that heads with fewer scales have losses of the same size. It
    upsamples and samples with aligned corners and scaled flows, whereas coordinates here refer to pixel centres. It is
    initialised with ImageNet weights, which is not a fair comparison with depth; here the initialisation is an option
    of the run.

    Args:
        model: `DepthSegForOpticalFlow`.
        ssim_weight: Weight of SSIM in the error, from 0 to 1; the rest is the absolute difference.
        smoothness_weight: Weight of the smoothness of flow relative to the image size, at least 0.
        derotate: Estimate the rotation of the camera by image alignment (`find_rotation`), as for depth from video.
            The other image is warped to the view of a camera that has not rotated, and the network predicts the
            residual flow. Without a correlation volume, training for flow of many pixels does not converge well.

    Source: Lao et al. 2024, https://huggingface.co/papers/2203.13987.
    """

    def __init__(
        self,
        model: nn.Module,
        ssim_weight: float = SSIM_WEIGHT,
        smoothness_weight: float = 2.0 / 3,
        derotate: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.ssim_weight = ssim_weight
        self.smoothness_weight = smoothness_weight
        self.derotate = derotate

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Pixels of each scale, and images: int64 `(2,)`."""
        image = batch["image"]
        counts = image[:, 0].numel(), len(image)
        return torch.stack([image.new_full((), count, dtype=torch.int64) for count in counts])

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` `(B, 3, H, W)` and `source_pixel_values` `(B, S, 3, H, W)`, as the image processor
                makes them; `image` and `source_images` `(B, S, 3, H, W)` in [0, 1], the same images without colour
                jitter. The first source is the other image. To derotate, `intrinsics` `(B, 3, 3)`, pixels.
            num_valid: `(2,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss` and its parts.
        """
        pixels, images = (self.count_valid(batch) if num_valid is None else num_valid).unbind()
        image, source = batch["image"], batch["source_images"][:, 0]
        target = TargetStatistics.of(image)
        height, width = image.shape[-2:]
        photometric, smoothness = [], []
        for flow, learned in self.estimate(batch):
            warped = warp(source, pixel_grid(height, width, device=image.device) + flow)[0]
            photometric.append(photometric_error(warped, target, self.ssim_weight).sum() / pixels)
            shares = torch.stack([learned[:, 0] / width, learned[:, 1] / height], 1)
            smoothness.append(edge_aware_roughness(shares, image).sum() / images)
        parts = [average_scales(values) for values in (photometric, smoothness)]
        smoothness_loss = self.smoothness_weight * parts[1]
        return {
            "loss": parts[0] + smoothness_loss,
            "photometric_loss": parts[0],
            "smoothness_loss": smoothness_loss,
        }

    def estimate(self, batch: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The flow of each scale, finest first, and the part that the network predicts; see `forward` for the batch.

        Returns:
            Pairs of `(B, 2, H, W)`, pixels right and down. The two are equal unless images are aligned.
        """
        other, size = batch["source_pixel_values"][:, 0], tuple(batch["image"].shape[-2:])
        if self.derotate:
            camera = batch["intrinsics"].float()
            rotation = find_rotation(batch["image"], batch["source_images"][:, 0], camera)
            other = stabilise(other, rotation, camera)
        flow_maps = self.model(batch["pixel_values"], other).flow_maps
        learned = [F.interpolate(flow, size=size, mode="bilinear", align_corners=False) for flow in flow_maps]
        if not self.derotate:
            return list(zip(learned, learned, strict=True))
        grid = pixel_grid(*size, device=other.device)
        return [(rotated_pixels(rotation, camera, grid + flow) - grid, flow) for flow in learned]


def average_scales(losses: list[Tensor]) -> Tensor:
    """Mean of the losses of the scales, finest first, each with half the weight of the one before."""
    weights = [0.5**scale for scale in range(len(losses))]
    return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
