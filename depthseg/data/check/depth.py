"""Depth maps that no camera would have measured, or whose unit is doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..depth_units import DepthRange, has_whole_numbers, unit_sentence

if TYPE_CHECKING:
    from pathlib import Path

    from .report import DatasetReport

_SATURATED = 0.01
_CLIPPED = 0.05


def examine_depth(report: DatasetReport, path: Path, depth: np.ndarray, scale: float | None) -> DepthRange:
    """Measure a depth map and report what no camera would have measured.

    Args:
        report: Takes the problems.
        path: The file.
        depth: float32 `(H, W)`, 0 = unknown.
        scale: Units of 16-bit files per unit of depth; None where the values are not those of the file.

    Returns:
        Its range.
    """
    found = DepthRange.of(depth)
    if found.high is None:
        report.problem(f"{path} has no known depth: all of its pixels are 0 or not finite.", path, "unknown")
        return found
    known = depth[depth > 0]
    if found.low == found.high and known.size > 1:
        report.problem(f"{path} has the same depth, {found.high:g}, in all known pixels.", path, "constant")
        return found
    highest = np.count_nonzero(depth == depth.max())
    code = _highest_code(path, found.high, scale)
    if code and highest > _SATURATED * depth.size:
        report.problem(
            f"{path} is saturated: {highest / depth.size:.0%} of its pixels have the largest value of "
            f"{code.bit_length()} bits, {code}, which reads as {found.high:g}. That value usually means "
            "'not measured' or 'too far'; write 0, which means unknown.",
            path,
            "saturated",
        )
    elif highest > _CLIPPED * known.size:
        report.note(
            f"{path}: {highest / known.size:.0%} of the known pixels have the largest value of the file, "
            f"{found.high:g}. If depth was cut off there, write 0, which means unknown.",
            path,
            "clipped",
        )
    return found


def _highest_code(path: Path, high: float, scale: float | None) -> int | None:
    """The largest value of a file of whole numbers where it is the largest of 10 bits or more."""
    if scale is None or not has_whole_numbers(path):
        return None
    code = round(high * scale)
    return code if code >= 1023 and (code + 1) & code == 0 else None


def examine_unit(report: DatasetReport, found: DepthRange | None, example: Path | None, scale: float) -> None:
    """Report depths that suggest another unit.

    Args:
        report: Takes the problems and notes.
        found: The range of all depth maps, in metres.
        example: One of the files.
        scale: Units of 16-bit files per metre, as they were read.
    """
    if found is None or found.high is None or example is None:
        return
    sentence, impossible = unit_sentence(found, has_whole_numbers(example), scale)
    if sentence:
        (report.problem if impossible else report.note)(sentence)
