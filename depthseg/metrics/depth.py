"""Depth errors, averaged over images, with the alignment of the prediction to the ground truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..choices import ALIGNMENTS, CROPS
from .meter import Meter

SCORES = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta1", "delta2", "delta3")


class DepthErrors(Meter):
    """Mean over images of AbsRel, SqRel, RMSE, RMSElog and delta 1 to 3.

    A pixel is valid if it is in the crop and its true depth is strictly between `min_depth` and `max_depth`. The
    prediction is aligned on the valid pixels and then clamped to that range. Images without a valid pixel are counted
    and excluded.

    Args:
        alignment: One of `ALIGNMENTS`.
        factor: The factor of alignment `fixed`.
        min_depth: Metres, above 0.
        max_depth: Metres, above `min_depth`.
        inverse: The predictions are inverse depths up to scale and shift, which require `scale_shift_inverse`.
        relative: The predictions are depths up to scale and shift, which require `scale_shift`.

    Attributes:
        state: float64 `(9,)` on the CPU: sums over images in the order of `SCORES`, evaluated images, excluded images.

    Raises:
        ValueError: An option is out of range.

    Source:
        Eigen et al. 2014; with alignment `median` (stereo: `fixed`) and crop `garg` the protocol of Monodepth2
        (`evaluate_depth.py`).
    """

    def __init__(
        self,
        alignment: str = "none",
        factor: float | None = None,
        min_depth: float = 1e-3,
        max_depth: float = 80.0,
        inverse: bool = False,
        relative: bool = False,
        crop: str = "none",
    ) -> None:
        if alignment not in ALIGNMENTS:
            raise ValueError(f"alignment={alignment!r} is unknown; choose one of {', '.join(ALIGNMENTS)}.")
        if (alignment == "fixed") != (factor is not None) or (factor is not None and not factor > 0):
            raise ValueError(
                f"factor={factor} is not allowed with alignment={alignment!r}: give a factor above 0 with 'fixed', "
                "and none with the others."
            )
        if not 0 < min_depth < max_depth:
            raise ValueError(f"min_depth={min_depth}, max_depth={max_depth}: give 0 < min_depth < max_depth.")
        if inverse and alignment != "scale_shift_inverse":
            raise ValueError(
                f"Relative inverse depth has no scale, so alignment={alignment!r} cannot be used; set "
                "alignment='scale_shift_inverse'."
            )
        if relative and alignment != "scale_shift":
            raise ValueError(
                f"Relative depth has no scale, so alignment={alignment!r} cannot be used; set alignment='scale_shift'."
            )
        if crop not in CROPS:
            raise ValueError(f"crop={crop!r} is unknown; choose one of {', '.join(CROPS)}.")
        self.alignment = alignment
        self.factor = factor
        self.min_depth = min_depth
        self.max_depth = max_depth
        self.inverse = inverse
        self.relative = relative
        self.crop = crop
        self.state = torch.zeros(len(SCORES) + 2, dtype=torch.float64)

    def update(self, predicted: torch.Tensor | np.ndarray | None, truth: torch.Tensor | np.ndarray | None) -> None:
        """Evaluate one image `(H, W)` or a batch `(B, H, W)`.

        Args:
            predicted: Depth in metres (up to the alignment), or inverse depth if `inverse`.
            truth: Depth in metres; 0, NaN and values out of range are unknown, None = nothing is known.

        Raises:
            ValueError: Shapes differ, or a prediction is not finite (or not above 0 if it is inverted).
        """
        if truth is None:
            self.state[-1] += 1
            return
        assert predicted is not None, "where depth is known, it is predicted"
        predicted, truth = _as_array(predicted), _as_array(truth)
        if predicted.shape != truth.shape or truth.ndim not in (2, 3):
            raise ValueError(
                f"The predicted depth has shape {predicted.shape}, the true depth {truth.shape}; both must be "
                "(H, W) or (B, H, W) and equal."
            )
        if truth.ndim == 3:
            for one_predicted, one_truth in zip(predicted, truth, strict=True):
                self._update_image(one_predicted, one_truth)
        else:
            self._update_image(predicted, truth)

    def _update_image(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        inside = crop_slices(self.crop, truth.shape)
        truth, predicted = truth[inside], predicted[inside]
        known = (truth > self.min_depth) & (truth < self.max_depth)  # False for NaN as well
        if not known.any():
            self.state[-1] += 1
            return
        truth, predicted = truth[known], predicted[known]
        if not np.isfinite(predicted).all():
            raise ValueError("The predicted depth is not finite at some pixels with a true depth.")
        aligned = np.clip(self._align(predicted, truth), self.min_depth, self.max_depth)
        self.state[:-2] += torch.from_numpy(image_errors(aligned, truth))
        self.state[-2] += 1

    def _align(self, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
        if self.alignment == "fixed":
            return predicted * self.factor
        if self.alignment == "median":
            middle = np.median(predicted)
            if middle <= 0:
                raise ValueError(
                    f"The median of a predicted depth is {middle:g}; median alignment requires a median above 0."
                )
            return predicted * (np.median(truth) / middle)
        if self.alignment == "scale_shift":
            scale, shift = fit_scale_shift(predicted, truth)
            return scale * predicted + shift
        if self.alignment == "scale_shift_inverse":
            if not self.inverse and predicted.min() <= 0:
                raise ValueError(
                    "A predicted depth is 0 or below; alignment 'scale_shift_inverse' requires depths above 0."
                )
            inverse = predicted if self.inverse else 1 / predicted
            scale, shift = fit_scale_shift(inverse, 1 / truth)
            return 1 / np.maximum(scale * inverse + shift, 1 / self.max_depth)
        return predicted

    def stamp(self) -> dict[str, Any]:
        """Evaluation protocol: `alignment` (with its factor), `min_depth` and `max_depth` in metres, `crop`."""
        alignment = self.alignment if self.factor is None else f"{self.alignment} x{self.factor:g}"
        return {
            "alignment": alignment,
            "min_depth": self.min_depth,
            "max_depth": self.max_depth,
            "crop": self.crop,
        }

    def compute(self) -> dict[str, Any]:
        """Scores, numbers of images and the evaluation protocol.

        Returns:
            The `SCORES` as floats (RMSE and SqRel in metres, deltas in [0, 1]), `images`, `images_without_depth` and
            the entries of `stamp`.

        Raises:
            ValueError: No image with known depth was evaluated.
        """
        images, left_out = (int(value) for value in self.state[-2:])
        if images == 0:
            raise ValueError(
                f"No image was evaluated: none of {left_out} images has a true depth between {self.min_depth:g} "
                f"and {self.max_depth:g} metres" + ("." if self.crop == "none" else f" in the {self.crop} crop.")
            )
        scores = dict(zip(SCORES, (self.state[:-2] / images).tolist(), strict=True))
        return {**scores, "images": images, "images_without_depth": left_out, **self.stamp()}


def depth_scores_of_images(states: np.ndarray) -> dict[str, np.ndarray]:
    """The `SCORES` of single images.

    Args:
        states: `(N, 9)`, the state of `DepthErrors` for each image alone.

    Returns:
        `(N,)` by name; NaN for an image without known depth.
    """
    known = states[:, -2] > 0
    return {name: np.where(known, values, np.nan) for name, values in zip(SCORES, states.T, strict=False)}


def crop_slices(crop: str, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of one of `CROPS` in an image of `size` (height, width)."""
    top, bottom, left, right = CROPS[crop]
    height, width = size
    return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))


def _as_array(values: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def image_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The `SCORES` of one image; both `(N,)`, metres, above 0."""
    difference = predicted - truth
    ratio = np.maximum(predicted / truth, truth / predicted)
    return np.array(
        [
            np.mean(np.abs(difference) / truth),
            np.mean(difference**2 / truth),
            np.sqrt(np.mean(difference**2)),
            np.sqrt(np.mean(np.log(predicted / truth) ** 2)),
            *(np.mean(ratio < 1.25**power) for power in (1, 2, 3)),
        ]
    )


def fit_scale_shift(values: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Least-squares `scale * values + shift = target`; scale 0 if the values do not vary."""
    centred = values - values.mean()
    # The mean of equal numbers differs from them by rounding, so "does not vary" needs a margin.
    varies = np.ptp(values) > 1e-12 * np.abs(values).max()
    scale = np.mean(centred * target) / np.mean(centred**2) if varies else 0.0
    return float(scale), float(target.mean() - scale * values.mean())
