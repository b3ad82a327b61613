"""Timing two ways to the same numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 2


@dataclass(frozen=True)
class Comparison:
    """Both sides on one case and size.

    Attributes:
        name: Key of `CASES`, and what of it.
        seconds: Side -> time of each repetition; first the other side, then ours.
        height: Of the image; None = there is no image.
        width: Of the image.
        difference: Largest difference between the two results, as a fraction of the largest value; None = there are
            no results to compare.
        memory: Side -> extra peak memory of one run in bytes; None = it was not measured.
    """

    name: str
    seconds: dict[str, list[float]]
    height: int | None = None
    width: int | None = None
    difference: float | None = None
    memory: dict[str, int] | None = None

    @property
    def ratios(self) -> list[float]:
        """Our time by the other side's in each repetition; below 1 we are faster."""
        return [ours / theirs for theirs, ours in zip(*self.seconds.values(), strict=True)]

    @property
    def ratio(self) -> float:
        """Their median."""
        return median(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        medians = {side: median(seconds) for side, seconds in self.seconds.items()}
        spread = {"ratio_min": min(self.ratios), "ratio_max": max(self.ratios)}
        return asdict(self) | {"ratio": self.ratio, **spread, "medians": medians}

    def __str__(self) -> str:
        sides = "  ".join(f"{side} {milliseconds(seconds)}" for side, seconds in self.seconds.items())
        size = "" if self.height is None else f"{self.height:>4}x{self.width:<4} "
        difference = "" if self.difference is None else f"  difference {self.difference:.0e}"
        ratio = f"ratio {self.ratio:.3f} [{min(self.ratios):.2f} - {max(self.ratios):.2f}]"
        return f"{self.name:<24} {size}{sides}  {ratio}{difference}{self._memory_text()}"

    def _memory_text(self) -> str:
        if self.memory is None:
            return ""
        theirs, ours = self.memory.values()
        return f"  peak memory {theirs / 1e6:.1f} MB, {ours / 1e6:.1f} MB"


def time_in_turns(
    sides: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each run by a clock, side by side; the side that goes first changes every time."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for repetition in range(-WARM_UPS, repeats):
        turns = list(sides.items())
        for side, run in turns if repetition % 2 == 0 else reversed(turns):
            started = clock()
            run()
            if repetition >= 0:
                seconds[side].append(clock() - started)
    return seconds


def relative_difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference of two tensors as a share of the largest value."""
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=torch.finfo(torch.float32).tiny))


def milliseconds(seconds: list[float]) -> str:
    """Return the median and the middle half of some times as text."""
    low, _, high = (1000 * value for value in quantiles(seconds, n=4, method="inclusive"))
    return f"{1000 * median(seconds):8.1f} ms [{low:.1f} - {high:.1f}]"
