"""What an exported file computes: from the user's image to labels, logits or depth at the size of that image.

Shape letters: B batch, H and W image size, K logits (classes).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..choices import did_you_mean
from ..models import DepthSegImageProcessor
from ..models.image_processing_depthseg import check_input_scaling, ids_of

RETURNS = ("labels", "logits", "depth")
TAKES = ("images", "pixel_values")
# Ids above it do not fit into uint8.
LARGEST_UINT8 = 255


class ExportedNetwork(nn.Module):
    """A model with the work of its image processor before and after it, except resizing to a fixed size.

    Args:
        model: Segmenter or depth model in evaluation mode, in float32.
        processor: Its image processor.
        returns: Some of [`RETURNS`], in the order of the outputs.
        takes: `"images"` for RGB levels, uint8 `(B, H, W, 3)`, or `"pixel_values"` for what the image processor makes,
            float32 `(B, 3, H, W)`.

    Raises:
        ValueError: The model does not predict what is to be returned, or its images cannot be scaled in the file.
    """

    def __init__(self, model: Any, processor: DepthSegImageProcessor, returns: tuple[str, ...], takes: str) -> None:
        super().__init__()
        check_returns(model, returns)
        check_takes(processor, takes)
        check_input_scaling(model.config, processor)
        self.model, self.returns, self.takes = model, tuple(returns), takes
        normalises = takes == "images" and processor.do_normalize
        self.factor = processor.rescale_factor if processor.do_rescale else 1.0
        # Not buffers, which a file would hold as weights of its own.
        self.mean = tuple(processor.image_mean) if normalises else None
        self.std = tuple(processor.image_std) if normalises else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Predict.

        Args:
            images: As `takes` says.

        Returns:
            One tensor for each of `returns`: labels uint8 (int64 where ids are above 255) `(B, H, W)`, logits float32
            `(B, K, H, W)`, depth float32 `(B, H, W)`.
        """
        pixel_values = self.scale(images) if self.takes == "images" else images
        outputs = self.model(pixel_values=pixel_values)
        logits = outputs.get("logits")
        if logits is not None:
            logits = F.interpolate(logits, size=pixel_values.shape[-2:], mode="bilinear", align_corners=False)
        results = {
            "labels": lambda: self.ids(logits),
            "logits": lambda: logits,
            "depth": lambda: outputs["predicted_depth"],
        }
        return tuple(results[name]() for name in self.returns)

    def scale(self, images: Tensor) -> Tensor:
        """Turn RGB levels, uint8 `(B, H, W, 3)`, into the model's `pixel_values`, float32 `(B, 3, H, W)`."""
        pixel_values = images.permute(0, 3, 1, 2).float()
        # Divided where the image processor divides, so that both have the same bits.
        pixel_values = pixel_values / 255 if self.factor == 1 / 255 else pixel_values * self.factor
        if self.mean is None:
            return pixel_values
        mean, std = (pixel_values.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixel_values - mean) / std

    @staticmethod
    def ids(logits: Tensor) -> Tensor:
        """Return the class ids `(B, H, W)` of logits `(B, K, H, W)`."""
        ids = ids_of(logits)
        return ids.to(torch.uint8) if logits.shape[1] <= LARGEST_UINT8 + 1 else ids


def check_returns(model: Any, returns: tuple[str, ...]) -> None:
    """Raise a sentence unless the model predicts everything that is to be returned."""
    unknown = [name for name in returns if name not in RETURNS]
    if unknown or not returns or len(set(returns)) != len(returns):
        hint = did_you_mean(unknown[0], RETURNS) if unknown else ""
        raise ValueError(f"returns is {' '.join(returns) or 'empty'}; give some of {', '.join(RETURNS)}, once.{hint}")
    is_segmenter = hasattr(model, "classifier")
    has_depth = hasattr(model, "depth_predictor")
    if not is_segmenter and set(returns) - {"depth"}:
        raise ValueError("The model predicts depth and no labels; export it with --returns depth.")
    if not has_depth and "depth" in returns:
        raise ValueError(
            "The segmenter has no depth predictor, so it cannot return depth; export it with --returns labels or "
            "logits, or fine-tune with keep_depth=true."
        )


def check_takes(processor: DepthSegImageProcessor, takes: str) -> None:
    """Raise a sentence unless a file can take images in this form."""
    if takes not in TAKES:
        raise ValueError(f"takes is {takes!r}; allowed are {', '.join(TAKES)}.{did_you_mean(takes, TAKES)}")
    if takes == "images" and processor.value_range is not None:
        raise ValueError(
            f"The image processor reads pixel values of the range {list(processor.value_range)}, which 8-bit images "
            "do not have; export with --takes pixel_values, and scale images as the metadata of the file says."
        )
