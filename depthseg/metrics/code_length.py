"""Prequential (online) code length of the labels in bits, given the features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROBE_PIXELS = 16_384
"""Pixels that a probe is fitted on, sampled from all previous portions: a convex problem that takes seconds."""

PROBE_STEPS = 100

UNIFORM_SHARE = 0.01
"""Weight of the uniform distribution in the code, so that a confident error costs at most log2(100 K)."""


@dataclass(frozen=True)
class Portion:
    """Images whose labels are encoded together.

    Attributes:
        images: Number of images.
        pixels: Number of labelled pixels.
        bits_per_pixel: Mean cost per labelled pixel.
    """

    images: int
    pixels: int
    bits_per_pixel: float


@dataclass(frozen=True)
class CodeLength:
    """Code length of all labels.

    Attributes:
        bits_per_pixel: Mean over the labelled pixels.
        uniform_bits_per_pixel: log2 K, the cost without any features.
        portions: In the order of encoding; their costs are the learning curve of the probe.
    """

    bits_per_pixel: float
    uniform_bits_per_pixel: float
    portions: tuple[Portion, ...]


def code_length(
    features: Sequence[torch.Tensor],
    labels: Sequence[torch.Tensor],
    num_classes: int,
    seed: int = 0,
    ignore_index: int = 255,
) -> CodeLength:
    """Length of the labels in an online code with a linear probe; shorter = more informative features.

    Images are encoded in portions of 1, 2, 4, 8, ... and the remainder, in an order given by the seed. The first
    portion costs log2 K bits per pixel. For every later one a softmax probe is fitted on the portions before, and a
    pixel costs -log2 of the probability of its class, mixed with 1 % of the uniform distribution.

    The features of all images are known to both encoder and decoder: each channel is normalised to mean 0 and variance
    1 over all pixels. The probe is the maximum a posteriori estimate with a normal prior of variance 1 on every weight
    and bias, so it depends neither on an initialisation nor on a learning rate.

    Args:
        features: Per image float `(C, h, w)`.
        labels: Per image integer ids `(h, w)`, 0..K-1 or `ignore_index`.
        num_classes: Number of classes K, at least 2.
        seed: Of the order of the images and of the pixels that probes are fitted on.
        ignore_index: Label of the pixels that are not encoded.

    Returns:
        Bits per labelled pixel; images without a labelled pixel are excluded.

    Raises:
        ValueError: Sizes differ, a feature is not finite, an id is out of range, or no pixel is labelled.

    Source:
        Voita and Titov 2020, https://huggingface.co/papers/2003.12298, section 2.2.2.
    """
    images = _pixels_of(features, labels, num_classes, ignore_index)
    rng = np.random.default_rng(seed)
    images = [images[index] for index in rng.permutation(len(images))]
    uniform = math.log2(num_classes)
    portions = []
    for start, stop in _portion_bounds(len(images)):
        x, y = (torch.cat(parts) for parts in zip(*images[start:stop], strict=True))
        bits = uniform
        if start:
            known = [torch.cat(parts) for parts in zip(*images[:start], strict=True)]
            drawn = torch.from_numpy(rng.permutation(len(known[1]))[:PROBE_PIXELS])
            bits = _cost(x, y, _fit_probe(known[0][drawn], known[1][drawn], num_classes))
        portions.append(Portion(stop - start, len(y), bits))
    pixels = sum(portion.pixels for portion in portions)
    total = sum(portion.pixels * portion.bits_per_pixel for portion in portions)
    return CodeLength(total / pixels, uniform, tuple(portions))


def _portion_bounds(count: int) -> Iterator[tuple[int, int]]:
    start, size = 0, 1
    while start < count:
        yield start, min(start + size, count)
        start, size = start + size, 2 * size


def _pixels_of(
    features: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], num_classes: int, ignore_index: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Standardised features `(N, C)` and classes `(N,)` of the labelled pixels of each image that has some."""
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes} is out of range; the code length requires at least 2 classes.")
    if len(features) != len(labels):
        raise ValueError(
            f"There are {len(features)} feature maps for {len(labels)} label maps; give one feature map per label map."
        )
    for maps, ids in zip(features, labels, strict=True):
        _check(maps, ids, num_classes, ignore_index)
    if not any((ids != ignore_index).any() for ids in labels):
        raise ValueError("No pixel is labelled, so there is no code length.")
    every = sum(ids.numel() for ids in labels)
    mean: Any = sum(maps.double().sum((1, 2)) for maps in features) / every
    variance: Any = sum((maps.double() - mean[:, None, None]).square().sum((1, 2)) for maps in features) / every
    # A constant channel carries no information, and stays 0.
    scale = torch.where(variance > 1e-12 * mean.square(), variance, math.inf).rsqrt()
    images = []
    for maps, ids in zip(features, labels, strict=True):
        known = ids != ignore_index
        if known.any():
            x = (maps.double() - mean[:, None, None]) * scale[:, None, None]
            images.append((x[:, known].T.float(), ids[known].long()))
    return images


def _check(maps: torch.Tensor, ids: torch.Tensor, num_classes: int, ignore_index: int) -> None:
    if maps.dim() != 3 or maps.shape[1:] != ids.shape:
        raise ValueError(
            f"A feature map has shape {tuple(maps.shape)}, its labels {tuple(ids.shape)}; expected (C, h, w) and "
            "(h, w)."
        )
    if not maps.isfinite().all():
        raise ValueError("A feature map contains numbers that are not finite; the model's weights may be damaged.")
    wrong = torch.unique(ids[(ids != ignore_index) & ((ids < 0) | (ids >= num_classes))]).tolist()
    if wrong:
        raise ValueError(f"The labels contain the class ids {wrong[:8]}; allowed are 0 to {num_classes - 1}.")


def _fit_probe(x: torch.Tensor, y: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximum a posteriori weights `(K, C)` and biases `(K,)`; at most a few hundred passes over the pixels."""
    x = x.double()
    weights = torch.zeros(num_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    # The prior's curvature, 1 / N, bounds the remaining gain at this gradient: 1e-12 nats per pixel and weight.
    optimiser = torch.optim.LBFGS(
        [weights, biases],
        max_iter=PROBE_STEPS,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def negative_log_posterior() -> torch.Tensor:
        """In nats per pixel, with its gradient."""
        optimiser.zero_grad()
        prior = (weights.square().sum() + biases.square().sum()) / (2 * len(y))
        loss = F.cross_entropy(F.linear(x, weights, biases), y) + prior
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(negative_log_posterior)
    return weights.detach(), biases.detach()


def _cost(x: torch.Tensor, y: torch.Tensor, probe: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Mean bits per pixel."""
    probabilities = F.linear(x.double(), *probe).softmax(1)
    paid = (1 - UNIFORM_SHARE) * probabilities + UNIFORM_SHARE / probabilities.shape[1]
    return -paid.gather(1, y[:, None]).log2().mean().item()
