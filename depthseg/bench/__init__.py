"""Speed of this package against transformers and against plain formulae: same numbers, same machine, taking turns.

Both sides take turns within each repetition, so what slows the machine down for a while slows both, and each goes
first in half of the repetitions.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..choices import did_you_mean

if TYPE_CHECKING:
    from .timing import Comparison

TINY_NECK = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}
TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
TINY_BACKBONE = {"backbone": TINY_VIT | {"out_indices": [1, 2, 3, 4]}}
TINY_DEPTH_ANYTHING = {"reassemble_hidden_size": 16, "head_hidden_size": 8, **TINY_BACKBONE, **TINY_NECK}
TINY_SIZES = {"intermediate_size": 32, "image_size": 32, "backbone_out_indices": [0, 1, 2, 3]}
ADE20K_SCORES = {"batch": 2, "classes": 150, "size": 128, "label_size": 512}
TINY_SCORES = {"batch": 1, "classes": 3, "size": 6, "label_size": 20}


@dataclass(frozen=True)
class Case:
    """One thing that can be compared; its module is imported when it is.

    Attributes:
        module: Module of this package whose function `compare` does it.
        options: Of that function.
        most_repeats: More repetitions are not done: one takes long and differs little from the next.
    """

    module: str
    options: dict[str, Any] = field(default_factory=dict)
    most_repeats: int = sys.maxsize

    def compare(self, name: str, repeats: int) -> Iterator[Comparison]:
        """Compare both sides; see `bench`."""
        module = import_module(f".{self.module}", __package__)
        return module.compare(name, min(repeats, self.most_repeats), **self.options)


CASES = {
    "startup": Case("startup", most_repeats=5),
    "depth-anything-small": Case("forward", {"model": "depth_anything", "sizes": ((252, 252), (182, 252))}),
    "dpt-vit-small": Case("forward", {"model": "dpt", "sizes": ((224, 224),)}),
    "training-step": Case("training_step", {"batch": 2, "size": (182, 252)}),
    "photometric": Case("photometric", {"batch": 4, "size": (96, 320)}),
    "align": Case("align", {"batch": 8, "size": (64, 192)}),
    "metric": Case("segmentation_metric", {"images": 16, "size": (512, 1024)}),
    "segmentation-loss": Case("lean", {"what": "loss", **ADE20K_SCORES}),
    "segmentation-prediction": Case("lean", {"what": "prediction", **ADE20K_SCORES}),
    "feature-cache": Case("feature_cache", {"images": 32, "batch": 8, "side": 224}),
    "reading": Case("reading", {"images": 24, "source": (360, 480), "size": (352, 480)}),
    "reading-tiny": Case("reading", {"images": 2, "source": (24, 36), "size": (16, 24)}),
    "depth-anything-tiny": Case(
        "forward",
        {
            "model": "depth_anything",
            "sizes": ((28, 42),),
            "config": TINY_DEPTH_ANYTHING,
        },
    ),
    "dpt-tiny": Case("forward", {"model": "dpt", "sizes": ((32, 32),), "config": TINY_SIZES | TINY_VIT | TINY_NECK}),
    "training-step-tiny": Case("training_step", {"config": TINY_DEPTH_ANYTHING, "batch": 1, "size": (28, 42)}),
    "photometric-tiny": Case("photometric", {"batch": 1, "size": (16, 24)}),
    "align-tiny": Case("align", {"batch": 1, "size": (16, 24)}),
    "feature-cache-tiny": Case(
        "feature_cache",
        {
            "images": 4,
            "batch": 2,
            "side": 28,
            "encoder": {**TINY_VIT, "image_size": 28, "out_indices": [4]},
        },
    ),
    "metric-tiny": Case("segmentation_metric", {"images": 2, "size": (20, 30)}),
    "segmentation-loss-tiny": Case("lean", {"what": "loss", **TINY_SCORES}),
    "segmentation-prediction-tiny": Case("lean", {"what": "prediction", **TINY_SCORES}),
}
"""What can be compared; those named tiny are there to try the command, their times mean nothing."""

DEFAULT_CASES = tuple(name for name in CASES if not name.endswith("-tiny"))


def bench(names: tuple[str, ...] = DEFAULT_CASES, repeats: int = 20, threads: int = 1) -> Iterator[Comparison]:
    """Compare one case after the other.

    Args:
        names: Keys of `CASES`.
        repeats: Timed runs of each side and size.
        threads: Threads of PyTorch.

    Returns:
        One comparison a size, as it is done.

    Raises:
        ValueError: An unknown name, fewer than two repetitions, or no thread.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown:
        near = did_you_mean(unknown[0], CASES)
        raise ValueError(f"There is no case {', '.join(unknown)} to bench.{near} Choose from {', '.join(CASES)}.")
    if repeats < 2 or threads < 1:
        raise ValueError(f"repeats is {repeats} and threads is {threads}; they must be at least 2 and 1.")
    return _compare(names, repeats, threads)


def _compare(names: tuple[str, ...], repeats: int, threads: int) -> Iterator[Comparison]:
    import torch

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for name in names:
            yield from CASES[name].compare(name, repeats)
    finally:
        torch.set_num_threads(threads_before)


def environment(threads: int) -> dict[str, Any]:
    """Return what the times depend on beside the code."""
    import torch
    import transformers

    return {
        "machine": platform.machine(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
