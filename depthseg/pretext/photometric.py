"""The photometric loss of Monodepth2 between warped source frames and a target frame, without its networks.

The caller warps the sources. The loss takes the minimum error over the sources per pixel, masks pixels that move with
the camera (auto-masking) and adds the edge-aware smoothness of disparity.

The plain formulae compute the error of the unwarped sources and the window statistics of the target again for every
scale and source. Here both are computed once, windows are sums along one axis and then the other, and the gradient of
SSIM is implemented explicitly; the values are those of the formulae.

Shape letters: B batch, C channels, H and W image size, h and w size of a disparity map, S scales.

Source: Godard et al. 2019 (Monodepth2), https://huggingface.co/papers/1806.01260, section 3; Wang et al. 2004 (SSIM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..models.losses_depthseg import divisor

if TYPE_CHECKING:
    from collections.abc import Sequence

SSIM_WEIGHT = 0.85
WINDOW_PIXELS = 9
# SSIM's two constants for values in [0, 1], times the square of the window's pixels: means and variances below are
# sums over the window, which avoids divisions.
MEAN_CONSTANT = 0.01**2 * WINDOW_PIXELS**2
VARIANCE_CONSTANT = 0.03**2 * WINDOW_PIXELS**2
EPSILON = 1e-7


@dataclass(frozen=True)
class TargetStatistics:
    """Statistics of the target that the error of every prediction uses.

    Attributes:
        image: The target, `(B, C, H, W)` in [0, 1].
        total: Its sums over 3x3 windows.
        mean_term: Its term in the first denominator of SSIM, including the constant.
        variance_term: Its term in the second denominator.
    """

    image: Tensor
    total: Tensor
    mean_term: Tensor
    variance_term: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, image: Tensor) -> TargetStatistics:
        """Compute the statistics of a target `(B, C, H, W)`."""
        image = at_least_float32(image.detach())
        total = sum_windows(image)
        squared = total * total
        variance = sum_windows(image * image).mul_(WINDOW_PIXELS).sub_(squared)
        return cls(image, total, squared.add_(MEAN_CONSTANT), variance.add_(VARIANCE_CONSTANT))


def sum_windows(images: Tensor, transposed: bool = False) -> Tensor:
    """Sum over 3x3 windows; the border is mirrored without repeating it.

    Args:
        images: `(..., H, W)`. Along an axis of one pixel there is nothing to mirror, so the pixel is repeated.
        transposed: Apply the transposed operation, which backpropagates a gradient of the sums.

    Returns:
        The sums, of the same shape.
    """
    return sum_neighbours(sum_neighbours(images, -2, transposed), -1, transposed)


def sum_neighbours(values: Tensor, axis: int, transposed: bool) -> Tensor:
    """Sum each value with the one before and the one after it; see `sum_windows`."""
    size = values.shape[axis]
    if size == 1:
        return values * 3
    sums = torch.empty_like(values)
    torch.add(values.narrow(axis, 0, size - 2), values.narrow(axis, 2, size - 2), out=sums.narrow(axis, 1, size - 2))
    sums.select(axis, 0).copy_(values.select(axis, 1))
    sums.select(axis, -1).copy_(values.select(axis, -2))
    sums += values
    # At an end the only neighbour also replaces the missing one.
    for end, neighbour in ((0, 1), (-1, -2)):
        to, source = (neighbour, end) if transposed else (end, neighbour)
        sums.select(axis, to).add_(values.select(axis, source))
    return sums


class PhotometricError(Function):
    """The error map of one prediction, with an explicit gradient of SSIM."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: TargetStatistics, ssim_weight: float) -> Tensor:
        """Return the error `(B, H, W)` of a prediction `(B, C, H, W)`."""
        total = sum_windows(prediction)
        squared, cross = total * total, (total * target.total).mul_(2)
        # Differences of similar numbers are computed before small constants are added, which rounding would lose.
        variance_numerator = sum_windows(prediction * target.image).mul_(2 * WINDOW_PIXELS).sub_(cross)
        variance_numerator.add_(VARIANCE_CONSTANT)
        mean_numerator = cross.add_(MEAN_CONSTANT)
        variance_denominator = sum_windows(prediction * prediction).mul_(WINDOW_PIXELS).sub_(squared)
        variance_denominator.add_(target.variance_term)
        mean_denominator = squared.add_(target.mean_term)
        inverse = (mean_denominator * variance_denominator).reciprocal_()
        ssim = (mean_numerator * variance_numerator).mul_(inverse)
        ctx.ssim_weight = ssim_weight
        if ctx.needs_input_grad[0]:
            # Derivatives of SSIM by the window's sum, sum of squares and sum of products with the target; `backward`
            # applies the factor of 2, and of 2 x WINDOW_PIXELS for the last two.
            by_product = mean_numerator * inverse
            by_square = (ssim * mean_denominator).mul_(inverse).neg_()
            by_total = variance_numerator.sub_(mean_numerator).mul_(target.total)
            by_total.sub_(variance_denominator.sub_(mean_denominator).mul_(total).mul_(ssim)).mul_(inverse)
            ctx.save_for_backward(prediction, target.image, by_total, by_square, by_product)
        # SSIM is in [-1, 1] except for rounding.
        dissimilarity = ssim.clamp_(-1, 1).mean(1).mul_(-0.5).add_(0.5)
        absolute = torch.sub(prediction, target.image).abs_().mean(1)
        return dissimilarity.mul_(ssim_weight).add_(absolute, alpha=1 - ssim_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient by the prediction."""
        prediction, target, by_total, by_square, by_product = ctx.saved_tensors
        gradient = gradient.unsqueeze(1) / prediction.shape[1]
        by_ssim = gradient * -ctx.ssim_weight
        result = sum_windows(by_total * by_ssim, transposed=True)
        by_ssim = by_ssim * WINDOW_PIXELS
        # A square has a derivative of 2 x, of which the 2 is in `by_ssim`.
        result.addcmul_(sum_windows(by_square * by_ssim, transposed=True), prediction)
        result.addcmul_(sum_windows(by_product * by_ssim, transposed=True), target)
        sign = torch.sub(prediction, target).sign_()
        return result.addcmul_(sign, gradient * (1 - ctx.ssim_weight)), None, None


def photometric_error(
    prediction: Tensor, target: Tensor | TargetStatistics, ssim_weight: float = SSIM_WEIGHT
) -> Tensor:
    """Compare two images: `ssim_weight * (1 - SSIM) / 2 + (1 - ssim_weight) * |difference|`, mean over the channels.

    SSIM is that of 3x3 windows with equal weights and mirrored borders.

    Args:
        prediction: `(B, C, H, W)` in [0, 1].
        target: `(B, C, H, W)` in [0, 1], or its statistics if it is compared more than once. It is treated as data,
            without a gradient. The error is symmetric, so swap the two to differentiate by the other.
        ssim_weight: From 0 to 1.

    Returns:
        `(B, H, W)`, from 0 to 1; float64 if the target is float64, else float32.

    Raises:
        ValueError: If the shapes differ or the target requires a gradient.
    """
    statistics = target if isinstance(target, TargetStatistics) else None
    image = target if statistics is None else statistics.image
    if prediction.shape != image.shape or prediction.dim() != 4:
        raise ValueError(
            f"prediction and target have shapes {tuple(prediction.shape)} and {tuple(image.shape)}; expected two "
            "equal shapes (batch, channels, height, width)."
        )
    if image.requires_grad:
        raise ValueError("target requires a gradient but is treated as data; detach it, or swap it and prediction.")
    if statistics is None:
        statistics = TargetStatistics.of(image)
    return PhotometricError.apply(prediction.to(statistics.image.dtype).contiguous(), statistics, ssim_weight)


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32, because variances lose all digits in it; others are unchanged."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def edge_aware_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Edge-aware smoothness of disparity: mean of `|d'| * exp(-|I'|)` along x plus along y.

    Args:
        disparity: `(B, 1, h, w)` of any unit; each map is divided by its mean first, so that shrinking all disparities
            does not reduce the loss.
        image: `(B, C, H, W)` in [0, 1]; downsampled to the size of the disparity by averaging.

    Returns:
        `(B,)`. An axis of one pixel counts as 0.
    """
    image = at_least_float32(image)
    if image.shape[-2:] != disparity.shape[-2:]:
        image = F.interpolate(image, size=disparity.shape[-2:], mode="area")
    disparity = at_least_float32(disparity)
    disparity = disparity / (disparity.mean((2, 3), keepdim=True) + EPSILON)
    return edge_aware_roughness(disparity, image)


def edge_aware_roughness(values: Tensor, image: Tensor) -> Tensor:
    """Edge-aware smoothness of values: mean of `|v'| * exp(-|I'|)` along x plus along y.

    Args:
        values: `(B, C, H, W)`; the result is summed over the channels.
        image: `(B, 3, H, W)` in [0, 1].

    Returns:
        `(B,)`. An axis of one pixel counts as 0.
    """
    roughness = values.new_zeros(len(values))
    for axis in (-1, -2):
        edges = torch.diff(image, dim=axis).abs().mean(1, keepdim=True).neg().exp()
        steps = torch.diff(values, dim=axis).abs() * edges
        roughness = roughness + steps.flatten(1).sum(1) / max(1, steps[0, 0].numel())
    return roughness


@dataclass(frozen=True)
class PhotometricOutput:
    """The result of `PhotometricLoss`.

    Attributes:
        loss: `()`; `photometric + smoothness`.
        photometric: `()`; mean over the scales.
        smoothness: `()`; mean over the scales, including the weights.
        error: `(S, B, H, W)`, no gradient; the minimum error of each pixel.
        auto_mask: bool `(S, B, H, W)`; True where a warped source has a lower error than all unwarped ones, so that
            the pixel has a gradient. Without auto-masking: everywhere.
    """

    loss: Tensor
    photometric: Tensor
    smoothness: Tensor
    error: Tensor
    auto_mask: Tensor


class PhotometricLoss(nn.Module):
    """The photometric loss of Monodepth2 on warped images.

    The loss is the minimum error over the sources per pixel, averaged over pixels and scales, plus edge-aware
    smoothness, in which each scale has half the weight of the one before. With auto-masking the minimum includes the
    *unwarped* sources: a pixel where an unwarped source has the lowest error, as on a car at constant distance or in a
    static video, has a constant error and no gradient.

    Args:
        ssim_weight: Weight of SSIM in the error, from 0 to 1; the rest is the absolute difference.
        smoothness_weight: Weight of the smoothness of the first scale, at least 0.
        auto_mask: Whether the minimum includes the unwarped sources; of equal errors theirs is the lowest.
    """

    def __init__(
        self, ssim_weight: float = SSIM_WEIGHT, smoothness_weight: float = 1e-3, auto_mask: bool = True
    ) -> None:
        super().__init__()
        self.ssim_weight = ssim_weight
        self.smoothness_weight = smoothness_weight
        self.auto_mask = auto_mask

    def forward(
        self,
        target: Tensor,
        sources: Sequence[Tensor],
        warped: Sequence[Sequence[Tensor]],
        disparities: Sequence[Tensor],
        num_valid: Tensor | None = None,
    ) -> PhotometricOutput:
        """Compare a target with its sources.

        Args:
            target: `(B, 3, H, W)` in [0, 1], without colour augmentation.
            sources: One or more `(B, 3, H, W)` in [0, 1]; read only for auto-masking.
            warped: For each scale, finest first, each source warped to the target, `(B, 3, H, W)`: full resolution at
                every scale.
            disparities: For each scale `(B, 1, h, w)`.
            num_valid: `(S + 1,)`, the divisors of the sums: the pixels of each scale, then the images, of all parts of
                an optimiser step; None = those of this batch.

        Raises:
            ValueError: If the numbers of scales, sources or counts, or the shapes, are inconsistent.
        """
        check_arguments(target, sources, warped, disparities)
        if num_valid is None:
            counts = [target[:, 0].numel()] * len(warped) + [len(target)]
            num_valid = torch.stack([target.new_full((), count, dtype=torch.int64) for count in counts])
        elif len(num_valid) != len(warped) + 1:
            raise ValueError(
                f"num_valid contains {len(num_valid)} counts; expected one for each of {len(warped)} scales, and the "
                "images."
            )
        statistics = TargetStatistics.of(target)
        unwarped = self.unwarped_error(statistics, sources) if self.auto_mask else None
        photometric, smoothness, errors, kept = [], [], [], []
        for scale, (images, disparity) in enumerate(zip(warped, disparities, strict=True)):
            error, wins = self.least_error(statistics, images, unwarped)
            photometric.append(error.sum() / divisor(wins, num_valid[scale]))
            rough = edge_aware_smoothness(disparity, target).sum() / divisor(wins, num_valid[-1])
            smoothness.append(rough * self.smoothness_weight / 2**scale)
            errors.append(error.detach())
            kept.append(wins)
        parts = [torch.stack(values).mean() for values in (photometric, smoothness)]
        return PhotometricOutput(parts[0] + parts[1], *parts, torch.stack(errors), torch.stack(kept))

    @torch.no_grad()
    def unwarped_error(self, target: TargetStatistics, sources: Sequence[Tensor]) -> Tensor:
        """Return the minimum error `(B, H, W)` of the unwarped sources; the same for all scales."""
        errors = [photometric_error(source.detach(), target, self.ssim_weight) for source in sources]
        return torch.stack(errors).amin(0)

    def least_error(
        self, target: TargetStatistics, warped: Sequence[Tensor], unwarped: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the minimum error of one scale, `(B, 1, H, W)`, and where a warped source attains it."""
        errors = [photometric_error(image, target, self.ssim_weight) for image in warped]
        # `min` returns the first of equal errors, which is the unwarped one.
        least, winner = torch.stack(errors if unwarped is None else [unwarped, *errors]).min(0)
        return least, torch.ones_like(least, dtype=torch.bool) if unwarped is None else winner > 0


def check_arguments(
    target: Tensor, sources: Sequence[Tensor], warped: Sequence[Sequence[Tensor]], disparities: Sequence[Tensor]
) -> None:
    """Raise a ValueError if numbers of scales or sources, or the shape of a disparity, are inconsistent."""
    if len(warped) != len(disparities) or not warped:
        raise ValueError(
            f"warped and disparities contain {len(warped)} and {len(disparities)} scales; they must contain the same "
            "number, at least one."
        )
    counts = [len(images) for images in warped]
    if not sources or any(count != len(sources) for count in counts):
        raise ValueError(
            f"sources contains {len(sources)} images and warped {counts} at its scales; give at least one source, and "
            "one image per source at every scale."
        )
    for disparity in disparities:
        if disparity.dim() != 4 or disparity.shape[:2] != (len(target), 1):
            raise ValueError(f"A disparity has shape {tuple(disparity.shape)}; expected ({len(target)}, 1, h, w).")
