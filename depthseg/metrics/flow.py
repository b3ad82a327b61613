"""Errors of optical flow, averaged over images."""

from __future__ import annotations

from typing import Any

import torch

from .meter import Meter

OUTLIER_PIXELS = 3.0
OUTLIER_SHARE = 0.05
"""A pixel is an outlier if its error exceeds both, in pixels and as a fraction of the true flow."""


class FlowErrors(Meter):
    """Mean over images of the end-point error and of the fraction of outliers.

    Images without any true flow are counted and excluded.

    Attributes:
        state: float64 `(4,)` on the CPU: sums over images of end-point error and outlier fraction, evaluated images,
            excluded images.

    Source:
        Menze and Geiger 2015 (KITTI 2015) for outliers, "Fl", which they average over the pixels of all images.
    """

    def __init__(self) -> None:
        self.state = torch.zeros(4, dtype=torch.float64)

    def update(self, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Evaluate one image `(2, H, W)` or a batch `(B, 2, H, W)`.

        Args:
            predicted: Pixels right and down.
            truth: The same; NaN or infinite in one of both = unknown.

        Raises:
            ValueError: Shapes differ or are wrong, or a prediction is not finite at a pixel with known flow.
        """
        if predicted.shape != truth.shape or truth.dim() not in (3, 4) or truth.shape[-3] != 2:
            raise ValueError(
                f"The predicted flow has shape {tuple(predicted.shape)}, the true flow {tuple(truth.shape)}; both "
                "must be (2, H, W) or (B, 2, H, W) and equal."
            )
        size = (-1, *truth.shape[-3:])
        for pair in zip(predicted.reshape(size), truth.reshape(size), strict=True):
            self._update_image(*(flow.detach().cpu().double() for flow in pair))

    def _update_image(self, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        known = truth.isfinite().all(0)
        if not known.any():
            self.state[3] += 1
            return
        predicted, truth = predicted[:, known], truth[:, known]
        if not predicted.isfinite().all():
            raise ValueError("The predicted flow is not finite at some pixels with a true flow.")
        error = (predicted - truth).norm(dim=0)
        outlier = (error > OUTLIER_PIXELS) & (error > OUTLIER_SHARE * truth.norm(dim=0))
        self.state[:2] += torch.stack([error.mean(), outlier.double().mean()])
        self.state[2] += 1

    def compute(self) -> dict[str, Any]:
        """Scores and numbers of images.

        Returns:
            `end_point_error` in pixels, `outliers` in [0, 1], `images`, `images_without_flow`.

        Raises:
            ValueError: No image with known flow was evaluated.
        """
        error, outliers, images, left_out = self.state.tolist()
        if images == 0:
            raise ValueError(f"No image was evaluated: none of {left_out:.0f} images has a true flow.")
        return {
            "end_point_error": error / images,
            "outliers": outliers / images,
            "images": int(images),
            "images_without_flow": int(left_out),
        }
