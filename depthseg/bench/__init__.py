"""Speed of this package against transformers and against plain formulae: same numbers, same process, taking turns.

Both sides take turns within each repetition, so what slows the machine down for a while slows both, and each goes
first in half of the repetitions.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import transformers

from .forward import TINY_NECK, TINY_VIT, ForwardCase, build_depth_anything, build_dpt
from .photometric import PhotometricCase
from .timing import Comparison

CASES: dict[str, ForwardCase | PhotometricCase] = {
    "depth-anything-small": ForwardCase(build_depth_anything, ((252, 252), (182, 252))),
    "dpt-vit-small": ForwardCase(build_dpt, ((224, 224),)),
    "photometric": PhotometricCase(4, (96, 320)),
    "depth-anything-tiny": ForwardCase(
        partial(
            build_depth_anything,
            backbone=TINY_VIT | {"out_indices": [1, 2, 3, 4]},
            reassemble_hidden_size=16,
            head_hidden_size=8,
            **TINY_NECK,
        ),
        ((28, 42),),
    ),
    "dpt-tiny": ForwardCase(
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
    "photometric-tiny": PhotometricCase(1, (16, 24)),
}
"""What can be compared; those named tiny are there to try the command, their times mean nothing."""

DEFAULT_CASES = ("depth-anything-small", "dpt-vit-small", "photometric")


def bench(names: tuple[str, ...] = DEFAULT_CASES, repeats: int = 20, threads: int = 1) -> Iterator[Comparison]:
    """Compare one case after the other.

    Args:
        names: Keys of `CASES`.
        repeats: Timed runs of each side and size.
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
            yield from CASES[name].compare(name, repeats)
    finally:
        torch.set_num_threads(threads_before)


def environment(threads: int) -> dict[str, Any]:
    """Return what the times depend on beside the code."""
    return {
        "machine": platform.machine(),
        "threads": threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
