"""Whether a network is right as often as its probabilities say."""

from __future__ import annotations

import numpy as np
import torch

from .meter import Meter

NUM_BINS = 15


class CalibrationError(Meter):
    """Expected calibration error: how far the confidence of a prediction is from the share that is right.

    Labelled pixels are sorted into bins of equal width by their confidence, the probability of the predicted class.
    The error is the mean over the pixels of |share that is right - mean confidence| of their bin.

    Args:
        ignore_index: Label of the pixels that are not evaluated.
        num_bins: Number of bins of [0, 1], at least 1.

    Attributes:
        state: float64 `(num_bins, 3)` on the CPU: pixels, sum of their confidence, and how many are right.

    Source:
        Guo et al. 2017, https://huggingface.co/papers/1706.04599, section 2.
    """

    def __init__(self, ignore_index: int = 255, num_bins: int = NUM_BINS) -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins={num_bins} is out of range; it must be at least 1.")
        self.ignore_index = ignore_index
        self.num_bins = num_bins
        self.state = torch.zeros(num_bins, 3, dtype=torch.float64)

    def update(
        self,
        prediction: torch.Tensor | np.ndarray,
        labels: torch.Tensor | np.ndarray,
        confidence: torch.Tensor | np.ndarray,
    ) -> None:
        """Add an image or batch.

        Args:
            prediction: Integer ids of any shape, such as `(H, W)`.
            labels: Integer ids of the same shape; `ignore_index` = not evaluated.
            confidence: Probabilities of the predicted classes in [0, 1], of the same shape.

        Raises:
            ValueError: Shapes differ, or a confidence is not in [0, 1].
        """
        prediction, labels, confidence = (torch.as_tensor(values) for values in (prediction, labels, confidence))
        if not prediction.shape == labels.shape == confidence.shape:
            shapes = [tuple(values.shape) for values in (prediction, labels, confidence)]
            raise ValueError(f"Prediction, labels and confidence have the shapes {shapes}; they must be equal.")
        scored = labels != self.ignore_index
        confidence = confidence[scored].double()
        if confidence.numel() and not (confidence.min() >= 0 and confidence.max() <= 1):
            raise ValueError(
                f"A confidence is {confidence.min():g} to {confidence.max():g}; probabilities are in [0, 1]: take the "
                "softmax of the logits first."
            )
        right = (prediction[scored] == labels[scored]).double()
        # A confidence on the border of two bins is in the lower one, as in the paper.
        bins = (torch.ceil(confidence * self.num_bins).long() - 1).clamp(0, self.num_bins - 1)
        sums = torch.stack([torch.ones_like(right), confidence, right], 1)
        self.state = self.state + torch.zeros_like(self.state).index_add_(0, bins.cpu(), sums.cpu())

    def compute(self) -> dict[str, float]:
        """`calibration_error`, and the `mean_confidence` that should equal the pixel accuracy; in [0, 1].

        Raises:
            ValueError: No pixel was evaluated.
        """
        pixels, confidence, right = self.state.unbind(1)
        total = pixels.sum()
        if total == 0:
            raise ValueError("No labelled pixel was evaluated: the data set is empty or every pixel is ignored.")
        return {
            "calibration_error": ((right - confidence).abs().sum() / total).item(),
            "mean_confidence": (confidence.sum() / total).item(),
        }
