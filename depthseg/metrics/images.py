"""Metrics of whole images: inpainting errors and classification accuracy."""

from __future__ import annotations

from typing import Any

import torch

from .confusion import ConfusionMatrix
from .meter import Meter

PSNR_LIMIT = 100.0
"""Decibels of an image without error; 8-bit rounding corresponds to about 59."""

NO_CATEGORY = -1


class InpaintingErrors(Meter):
    """Mean over images of absolute error and PSNR, over all pixels and over the masked pixels.

    Attributes:
        state: float64 `(6,)` on the CPU: sums over images of L1 and PSNR of all pixels, number of images; the same
            three for the masked pixels of images that have some.
    """

    def __init__(self) -> None:
        self.state = torch.zeros(6, dtype=torch.float64)

    def update(self, predicted: torch.Tensor, truth: torch.Tensor, holes: torch.Tensor) -> None:
        """Evaluate one image `(C, H, W)` or a batch `(B, C, H, W)`.

        Args:
            predicted: The inpainted image, in [0, 1].
            truth: The original image, in [0, 1].
            holes: bool `(H, W)` or `(B, H, W)`: True = masked.

        Raises:
            ValueError: Shapes are inconsistent, or a prediction is not finite.
        """
        fits = predicted.shape == truth.shape and truth.dim() in (3, 4)
        if not fits or holes.shape != truth.shape[:-3] + truth.shape[-2:]:
            raise ValueError(
                f"The predicted image has shape {tuple(predicted.shape)}, the true image {tuple(truth.shape)}, the "
                f"mask {tuple(holes.shape)}; expected (C, H, W) for both images and (H, W) for the mask, or the same "
                "with a batch dimension."
            )
        if not predicted.isfinite().all():
            raise ValueError("The predicted image is not finite at some pixels.")
        error = predicted.detach().cpu().double() - truth.cpu().double()
        size = truth.shape[-3:]
        for one_error, one_holes in zip(error.reshape(-1, *size), holes.cpu().reshape(-1, *size[1:]), strict=True):
            self.state[:3] += _scores_of(one_error)
            if one_holes.any():
                self.state[3:] += _scores_of(one_error[:, one_holes])

    def compute(self) -> dict[str, Any]:
        """Scores and numbers of images.

        Returns:
            `l1` (values in [0, 1]) and `psnr` (decibels, at most 100 per image), `images`; `hole_l1` and `hole_psnr`
            of the masked pixels, None if there were none, and `images_with_holes`.

        Raises:
            ValueError: No image was evaluated.
        """
        l1, psnr, images, hole_l1, hole_psnr, with_holes = self.state.tolist()
        if images == 0:
            raise ValueError("No image was evaluated: the data set is empty.")
        return {
            "l1": l1 / images,
            "psnr": psnr / images,
            "images": int(images),
            "hole_l1": hole_l1 / with_holes if with_holes else None,
            "hole_psnr": hole_psnr / with_holes if with_holes else None,
            "images_with_holes": int(with_holes),
        }


def _scores_of(error: torch.Tensor) -> torch.Tensor:
    """L1, PSNR and the number of images, 1."""
    psnr = (-10 * error.square().mean().log10()).clamp(max=PSNR_LIMIT)
    return torch.stack([error.abs().mean(), psnr, torch.ones_like(psnr)])


class CategoryScores(ConfusionMatrix):
    """Accuracy of image classification; `update` takes class ids `()` or `(B,)`, of the truth -1 = unknown.

    Args:
        num_classes: Number of classes K.

    Attributes:
        state: int64 `(K, K)` on the CPU, images of each true (row) and predicted (column) class.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, ignore_index=NO_CATEGORY)

    def compute(self) -> dict[str, Any]:
        """Scores and number of images.

        Returns:
            `accuracy`, `mean_class_accuracy` (mean over the classes of the ground truth), both in [0, 1], `images`.

        Raises:
            ValueError: No image was evaluated.
        """
        counts = self.state.double()
        images, of_class = counts.sum(), counts.sum(1)
        if images == 0:
            raise ValueError("No image with a known class was evaluated.")
        shown = of_class > 0
        return {
            "accuracy": (counts.trace() / images).item(),
            "mean_class_accuracy": (counts.diagonal()[shown] / of_class[shown]).mean().item(),
            "images": int(images),
        }
