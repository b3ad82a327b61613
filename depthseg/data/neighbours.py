"""Which frames of a recording have the neighbours in time that a sample brings along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def steps_of(frames: Sequence[int], stride: int) -> dict[int, int]:
    """How many frames away each neighbour lies.

    Args:
        frames: Offsets, in steps of `stride`.
        stride: Frames from one step to the next.

    Raises:
        ValueError: An offset of 0 or given twice, or a stride below 1.
    """
    whole = all(isinstance(offset, int) and offset != 0 for offset in frames)
    if isinstance(frames, str) or not whole or len(set(frames)) < len(frames):
        raise ValueError(f"frames={frames} is not valid; give different whole offsets other than 0, such as [-1, 1].")
    if not isinstance(stride, int) or stride < 1:
        raise ValueError(f"stride={stride} is out of range; it is a number of frames, 1 or more.")
    return {offset: offset * stride for offset in frames}


def span_of(steps: Mapping[int, int]) -> int:
    """How many frames in a row a sample takes."""
    return max(0, *steps.values(), 0) - min(0, *steps.values(), 0) + 1


def with_neighbours(numbers: Sequence[int], steps: Mapping[int, int]) -> Sequence[int]:
    """The part of a run of frame numbers whose neighbours belong to the run as well."""
    before, after = -min(0, *steps.values(), 0), max(0, *steps.values(), 0)
    return numbers[before : max(len(numbers) - after, 0)]
