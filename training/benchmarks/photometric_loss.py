"""Time of the photometric loss, forward and backward, against a plain transcription of the paper's formulae.

    python training/benchmarks/photometric_loss.py

Both sides get the same images, take turns, and each goes first in half of the repetitions. The transcription computes
what the formulae say, where they say it: the error of the unwarped sources and the statistics of the target anew at
every scale and source. Tie-breaking noise is left out on both sides.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from depthseg.bench import milliseconds
from depthseg.pretext.photometric import PhotometricLoss

WARM_UPS = 2


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


def make_inputs(
    batch: int, height: int, width: int, num_sources: int = 2, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Smooth random images; the sources and the warped ones are the target with changes of their own."""
    generator = torch.Generator().manual_seed(0)

    def rand(channels: int, height: int, width: int) -> Tensor:
        return torch.rand(batch, channels, height, width, generator=generator, dtype=dtype)

    coarse = rand(3, max(2, height // 8), max(2, width // 8))
    target = F.interpolate(coarse, (height, width), mode="bilinear")

    def changed(share: float) -> Tensor:
        return torch.lerp(target, rand(3, height, width), share)

    sources = [changed(0.2) for _ in range(num_sources)]
    warped = [[changed(0.2).requires_grad_() for _ in range(num_sources)] for _ in range(4)]
    disparities = [rand(1, -(-height // 2**s), -(-width // 2**s)).requires_grad_() for s in range(4)]
    return Inputs(target, sources, warped, disparities)


def time_in_turns(inputs: Inputs, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each forward and backward, side by side."""
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for repetition in range(-WARM_UPS, repeats):
        turns = list(SIDES.items())
        for side, loss in turns if repetition % 2 == 0 else reversed(turns):
            started = time.perf_counter()
            torch.autograd.grad(loss(inputs), inputs.leaves)
            if repetition >= 0:
                seconds[side].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Print both sides, their ratio, and how far their values and gradients lie apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    inputs = make_inputs(options.batch, *options.size)
    seconds = time_in_turns(inputs, options.repeats)
    print(
        f"{options.batch} x 3 x {options.size[0]} x {options.size[1]}, 2 sources, 4 scales, {options.threads} thread"
    )
    for side, times in seconds.items():
        print(f"{side:<14} {milliseconds(times)}")
    ratios = [slow / fast for slow, fast in zip(*(seconds[side] for side in SIDES), strict=True)]
    print(f"{'times faster':<14} {median(ratios):.2f} [{min(ratios):.2f} - {max(ratios):.2f}]")
    values = [loss(inputs).item() for loss in SIDES.values()]
    exact = make_inputs(options.batch, *options.size, dtype=torch.float64)
    gradients = [torch.autograd.grad(loss(exact), exact.leaves) for loss in SIDES.values()]
    difference = max((a - b).abs().max() / a.abs().max() for a, b in zip(*gradients, strict=True))
    print(
        f"values differ by {abs(values[0] - values[1]):.1e}, gradients in float64 by {difference:.1e} of the largest"
    )


if __name__ == "__main__":
    main()
