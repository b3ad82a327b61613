"""Scores of whole pictures: how well they were painted in, and whether their class was found."""

from __future__ import annotations

from typing import Any

import torch

from .confusion import ConfusionMatrix

PSNR_LIMIT = 100.0
"""Decibels of a picture without error; 8 bits alone leave about 59."""

NO_CATEGORY = -1


class ReconstructionErrors:
    """Mean over images of absolute error and PSNR, everywhere and inside the holes.

    Attributes:
        state: float64 `(6,)` on the CPU: sums over images of L1 and PSNR everywhere, images; the same three of the
            holes, over the images that have some. States add up, so several processes all-reduce them by sum.
    """

    def __init__(self) -> None:
        self.state = torch.zeros(6, dtype=torch.float64)

    def update(self, predicted: torch.Tensor, truth: torch.Tensor, holes: torch.Tensor) -> None:
        """Score one image `(C, H, W)` or a batch `(B, C, H, W)`.

        Args:
            predicted: The picture painted in, in [0, 1].
            truth: The picture before anything was erased, in [0, 1].
            holes: bool `(H, W)` or `(B, H, W)`: True = erased.

        Raises:
            ValueError: Shapes do not fit together, or a prediction is not a finite number.
        """
        fits = predicted.shape == truth.shape and truth.dim() in (3, 4)
        if not fits or holes.shape != truth.shape[:-3] + truth.shape[-2:]:
            raise ValueError(
                f"The predicted picture has shape {tuple(predicted.shape)}, the true one {tuple(truth.shape)}, the "
                f"holes {tuple(holes.shape)}; give twice (C, H, W) and (H, W), or the same with a batch before."
            )
        if not predicted.isfinite().all():
            raise ValueError("The predicted picture is not a finite number at some pixels.")
        error = predicted.detach().cpu().double() - truth.cpu().double()
        size = truth.shape[-3:]
        for one_error, one_holes in zip(error.reshape(-1, *size), holes.cpu().reshape(-1, *size[1:]), strict=True):
            self.state[:3] += _scores_of(one_error)
            if one_holes.any():
                self.state[3:] += _scores_of(one_error[:, one_holes])

    def compute(self) -> dict[str, Any]:
        """Scores and numbers of images.

        Returns:
            `l1` (values in [0, 1]) and `psnr` (decibels, at most 100 an image), `images`; `hole_l1` and `hole_psnr`,
            None if there was no hole, and `images_with_holes`.

        Raises:
            ValueError: No image was scored.
        """
        l1, psnr, images, hole_l1, hole_psnr, with_holes = self.state.tolist()
        if images == 0:
            raise ValueError("No image was scored: the data set is empty.")
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


class CategoryScores:
    """Accuracy of the class of whole pictures.

    Args:
        num_classes: Number of classes K.

    Attributes:
        state: int64 `(K, K)` on the CPU, pictures of each true (row) and predicted (column) class. States add up, so
            several processes all-reduce them by sum.
    """

    def __init__(self, num_classes: int) -> None:
        self._confusion = ConfusionMatrix(num_classes, ignore_index=NO_CATEGORY)

    @property
    def state(self) -> torch.Tensor:
        """The counts."""
        return self._confusion.matrix

    @state.setter
    def state(self, counts: torch.Tensor) -> None:
        self._confusion.matrix = counts

    def update(self, predicted: torch.Tensor, truth: torch.Tensor) -> None:
        """Count one picture `()` or a batch `(B,)`.

        Args:
            predicted: Class ids, 0..K-1.
            truth: The same; -1 = unknown, left out.

        Raises:
            ValueError: Shapes differ, an id is out of range, or ids are not integers.
        """
        self._confusion.update(predicted, truth)

    def compute(self) -> dict[str, Any]:
        """Scores and number of pictures.

        Returns:
            `accuracy`, `mean_class_accuracy` (mean over the classes that the truth shows), both in [0, 1], `images`.

        Raises:
            ValueError: No picture was scored.
        """
        counts = self.state.double()
        images, of_class = counts.sum(), counts.sum(1)
        if images == 0:
            raise ValueError("No picture with a known class was scored.")
        shown = of_class > 0
        return {
            "accuracy": (counts.trace() / images).item(),
            "mean_class_accuracy": (counts.diagonal()[shown] / of_class[shown]).mean().item(),
            "images": int(images),
        }
