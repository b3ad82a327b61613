"""Speed of our forward pass against transformers' own, on the same weights, in one process.

Both sides take turns within each repetition, so what slows the machine down for a while slows both, and each goes
first in half of the repetitions.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    PreTrainedModel,
)

from .models import DepthSegForDepthEstimation

WARM_UPS = 2
SIDES = ("transformers", "depthseg")


@dataclass(frozen=True)
class Case:
    """One architecture.

    Attributes:
        build: Makes transformers' model, with random weights.
        sizes: Heights and widths of the images.
    """

    build: Callable[[], PreTrainedModel]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Comparison:
    """Both sides on one architecture and size.

    Attributes:
        name: Key of `CASES`.
        height: Of the image.
        width: Of the image.
        seconds: Side -> time of one forward of each repetition.
        difference: Largest difference between the two predicted depths, as a share of the largest depth.
    """

    name: str
    height: int
    width: int
    seconds: dict[str, list[float]]
    difference: float

    @property
    def ratio(self) -> float:
        """Median over the repetitions of our time by transformers' time; below 1 we are faster."""
        pairs = zip(*(self.seconds[side] for side in SIDES), strict=True)
        return median(ours / theirs for theirs, ours in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return asdict(self) | {"ratio": self.ratio, "medians": {side: median(self.seconds[side]) for side in SIDES}}

    def __str__(self) -> str:
        sides = "  ".join(f"{side} {milliseconds(self.seconds[side])}" for side in SIDES)
        return (
            f"{self.name:<22} {self.height:>4}x{self.width:<4} {sides}  ratio {self.ratio:.3f}  "
            f"difference {self.difference:.0e}"
        )


def build_depth_anything(**sizes: Any) -> PreTrainedModel:
    """Return Depth Anything with random weights; by default with the sizes of the small one."""
    backbone = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
        "out_indices": [3, 6, 9, 12],
        "reshape_hidden_states": False,
        **sizes.pop("backbone", {}),
    }
    neck = {"reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64} | sizes
    return DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=Dinov2Config(**backbone), **neck))


def build_dpt(**sizes: Any) -> PreTrainedModel:
    """Return DPT on a plain ViT with random weights; by default on a ViT-Small."""
    small = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "image_size": 224,
        "backbone_out_indices": [2, 5, 8, 11],
        "is_hybrid": False,
    }
    return DPTForDepthEstimation(DPTConfig(**(small | sizes)))


TINY_NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
CASES: dict[str, Case] = {
    "depth-anything-small": Case(build_depth_anything, ((252, 252), (182, 252))),
    "dpt-vit-small": Case(build_dpt, ((224, 224),)),
    "depth-anything-tiny": Case(
        partial(
            build_depth_anything,
            backbone=TINY_VIT | {"out_indices": [1, 2, 3, 4]},
            reassemble_hidden_size=16,
            head_hidden_size=8,
            **TINY_NECK,
        ),
        ((28, 42),),
    ),
    "dpt-tiny": Case(
        partial(
            build_dpt,
            intermediate_size=32,
            image_size=32,
            backbone_out_indices=[0, 1, 2, 3],
            **TINY_VIT,
            **TINY_NECK,
        ),
        ((32, 32),),
    ),
}
"""Architectures to compare; those named tiny are there to try the command, their times mean nothing."""

DEFAULT_CASES = ("depth-anything-small", "dpt-vit-small")


def bench(names: tuple[str, ...] = DEFAULT_CASES, repeats: int = 20, threads: int = 1) -> Iterator[Comparison]:
    """Compare architectures one after the other.

    Args:
        names: Keys of `CASES`.
        repeats: Timed forwards of each side and size.
        threads: Threads of PyTorch.

    Yields:
        One comparison a size.

    Raises:
        ValueError: An unknown name, fewer than two repetitions, or no thread.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"There is no case {', '.join(unknown)} to bench; choose from {', '.join(CASES)}.")
    if repeats < 2 or threads < 1:
        raise ValueError(f"repeats is {repeats} and threads is {threads}; they must be at least 2 and 1.")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in names:
            yield from compare(name, repeats)
    finally:
        torch.set_num_threads(threads_before)


def compare(name: str, repeats: int) -> Iterator[Comparison]:
    """Compare both sides on the sizes of one architecture."""
    torch.manual_seed(0)
    theirs = CASES[name].build().eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = DepthSegForDepthEstimation.from_depth_pretrained(folder)
    models = dict(zip(SIDES, (theirs, ours), strict=True))
    for height, width in CASES[name].sizes:
        pixels = torch.randn(1, 3, height, width)
        depths = [predict(model, pixels) for model in models.values()]
        yield Comparison(name, height, width, time_in_turns(models, pixels, repeats), relative_difference(*depths))


@torch.inference_mode()
def predict(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the predicted depth `(1, H, W)` of an image `(1, 3, H, W)`."""
    return model(pixels).predicted_depth


def time_in_turns(models: dict[str, nn.Module], pixels: Tensor, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each forward, side by side; the side that goes first changes every time."""
    seconds: dict[str, list[float]] = {side: [] for side in models}
    for repetition in range(-WARM_UPS, repeats):
        turns = list(models.items())
        for side, model in turns if repetition % 2 == 0 else reversed(turns):
            started = time.perf_counter()
            predict(model, pixels)
            if repetition >= 0:
                seconds[side].append(time.perf_counter() - started)
    return seconds


def relative_difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference of two maps as a share of the largest value."""
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def milliseconds(seconds: list[float]) -> str:
    """Return the median and the middle half of some times as text."""
    low, _, high = (1000 * value for value in quantiles(seconds, n=4, method="inclusive"))
    return f"{1000 * median(seconds):8.1f} ms [{low:.1f} - {high:.1f}]"


def environment(threads: int) -> dict[str, Any]:
    """Return what the times depend on beside the code."""
    return {
        "machine": platform.machine(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
