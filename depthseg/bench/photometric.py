"""The photometric loss, forward and backward, against a plain transcription of the paper's formulae.

The transcription computes what the formulae say, where they say it: the error of the unwarped sources and the
statistics of the target anew at every scale and source. Tie-breaking noise is left out on both sides.

Source: Godard et al. 2019 (Monodepth2), https://huggingface.co/papers/1806.01260, section 3; Wang et al. 2004 (SSIM).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..pretext.photometric import PhotometricLoss
from .timing import Comparison, relative_difference, time_in_turns

NUM_SOURCES = 2
NUM_SCALES = 4


def compare(name: str, repeats: int, *, batch: int, size: tuple[int, int]) -> Iterator[Comparison]:
    """Compare both sides, with two sources and four scales; see `bench`. Their difference is that of the two losses.

    Args:
        name: Of the case.
        repeats: Timed runs of each side.
        batch: Number of images.
        size: Height and width.
    """
    inputs = make_inputs(batch, *size)
    losses = [loss(inputs).detach() for loss in SIDES.values()]
    runs = {side: partial(gradients, loss, inputs) for side, loss in SIDES.items()}
    yield Comparison(name, time_in_turns(runs, repeats), *size, difference=relative_difference(*losses))


@dataclass(frozen=True)
class Inputs:
    """One batch, as `PhotometricLoss` takes it."""

    target: Tensor
    sources: list[Tensor]
    warped: list[list[Tensor]]
    disparities: list[Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that want a gradient."""
        return [*(image for scale in self.warped for image in scale), *self.disparities]


def make_inputs(batch: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Inputs:
    """Smooth random images; the sources and the warped ones are the target with changes of their own."""
    generator = torch.Generator().manual_seed(0)

    def rand(channels: int, height: int, width: int) -> Tensor:
        return torch.rand(batch, channels, height, width, generator=generator, dtype=dtype)

    coarse = rand(3, max(2, height // 8), max(2, width // 8))
    target = F.interpolate(coarse, (height, width), mode="bilinear")

    def changed(share: float) -> Tensor:
        return torch.lerp(target, rand(3, height, width), share)

    sources = [changed(0.2) for _ in range(NUM_SOURCES)]
    warped = [[changed(0.2).requires_grad_() for _ in range(NUM_SOURCES)] for _ in range(NUM_SCALES)]
    disparities = [rand(1, -(-height // 2**s), -(-width // 2**s)).requires_grad_() for s in range(NUM_SCALES)]
    return Inputs(target, sources, warped, disparities)


def gradients(loss: Callable[[Inputs], Tensor], inputs: Inputs) -> tuple[Tensor, ...]:
    """Run forward and backward."""
    return torch.autograd.grad(loss(inputs), inputs.leaves)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of 3x3 windows with equal weights and mirrored borders, `(B, C, H, W)`."""

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), 3, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x**2) - mean_x**2, mean(y**2) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    return numerator / ((mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2))


def transcribed_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Photometric error `(B, H, W)`."""
    dissimilarity = ((1 - ssim(prediction, target)) / 2).clamp(0, 1)
    return 0.85 * dissimilarity.mean(1) + 0.15 * (prediction - target).abs().mean(1)


def transcribed_smoothness(disparity: Tensor, image: Tensor) -> Tensor:
    """Edge-aware smoothness of disparity divided by its mean."""
    image = F.interpolate(image, disparity.shape[-2:], mode="area")
    normalised = disparity / (disparity.mean((2, 3), keepdim=True) + 1e-7)
    step_x = (normalised[:, :, :, 1:] - normalised[:, :, :, :-1]).abs()
    step_y = (normalised[:, :, 1:] - normalised[:, :, :-1]).abs()
    edge_x = (image[:, :, :, 1:] - image[:, :, :, :-1]).abs().mean(1, keepdim=True)
    edge_y = (image[:, :, 1:] - image[:, :, :-1]).abs().mean(1, keepdim=True)
    return (step_x * torch.exp(-edge_x)).mean() + (step_y * torch.exp(-edge_y)).mean()


def transcribed_loss(inputs: Inputs) -> Tensor:
    """The loss of Monodepth2, scale by scale."""
    total = torch.zeros((), dtype=inputs.target.dtype)
    for scale, (images, disparity) in enumerate(zip(inputs.warped, inputs.disparities, strict=True)):
        candidates = [transcribed_error(image, inputs.target) for image in [*inputs.sources, *images]]
        photometric = torch.stack(candidates).min(0).values.mean()
        total = total + photometric + 1e-3 / 2**scale * transcribed_smoothness(disparity, inputs.target)
    return total / len(inputs.warped)


def fast_loss(inputs: Inputs) -> Tensor:
    """The same by the package."""
    return PhotometricLoss()(inputs.target, inputs.sources, inputs.warped, inputs.disparities).loss


SIDES = {"transcription": transcribed_loss, "depthseg": fast_loss}
