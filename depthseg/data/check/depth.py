"""Depth maps: their ranges, and the signs that their values are not what they are taken for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..float_maps import FLOAT_SUFFIXES
from ..images import KITTI_DEPTH_SCALE, image_mode, read_depth

if TYPE_CHECKING:
    from pathlib import Path

    from .report import DatasetReport

QUANTILES = (0.05, 0.5, 0.95)

_SAMPLE = 1000
_LEAST_METRES, _MOST_METRES = 0.2, 200
_SATURATED = 0.01
_CLIPPED = 0.05
# A camera that measures every pixel, in contrast to a projected LiDAR sweep.
_DENSE = 0.3
# Depth cameras for rooms measure to about 10 m and write millimetres, as Kinect and RealSense do.
_MOST_MILLIMETRES = 10_500
# Read as KITTI's 1/256 m, the middle of a room is then this far away, and that of TUM's 1/5000 m further still.
_FAR_FOR_A_ROOM, _FAR_FOR_A_DENSE_MAP = 5, 25
_SCALES = {256: "KITTI", 1000: "millimetres", 5000: "TUM RGB-D"}


@dataclass
class DepthRange:
    """The values of one or several depth maps.

    Attributes:
        low: Smallest known depth; None if nothing is known.
        high: Largest known depth; None if nothing is known.
        known: Fraction of pixels with a known depth, the mean over the files.
        sample: float32 `(N,)`, known depths, at most 1000 of each file, evenly spread.
    """

    low: float | None
    high: float | None
    known: float
    sample: np.ndarray

    def quantiles(self) -> list[float | None]:
        """The depths that the `QUANTILES` of the known pixels do not exceed; every file weighs the same."""
        return np.quantile(self.sample, QUANTILES).tolist() if self.sample.size else [None] * len(QUANTILES)

    @classmethod
    def of(cls, depth: np.ndarray) -> DepthRange:
        """The range of one map `(H, W)` with 0 = unknown."""
        values = depth[depth > 0]
        if not values.size:
            return cls(None, None, 0.0, values)
        return cls(
            low=float(values.min()),
            high=float(values.max()),
            known=values.size / depth.size,
            sample=values[:: -(-values.size // _SAMPLE)],
        )

    @classmethod
    def joined(cls, ranges: Sequence[DepthRange]) -> DepthRange | None:
        """The range of several maps together; None of none."""
        if not ranges:
            return None
        return cls(
            low=min((found.low for found in ranges if found.low is not None), default=None),
            high=max((found.high for found in ranges if found.high is not None), default=None),
            known=float(np.mean([found.known for found in ranges])),
            sample=np.concatenate([found.sample for found in ranges]),
        )


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
    if scale is None or not _is_whole(path):
        return None
    code = round(high * scale)
    return code if code >= 1023 and (code + 1) & code == 0 else None


def _is_whole(path: Path) -> bool:
    return path.suffix.lower() not in FLOAT_SUFFIXES and image_mode(path) != "F"


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
    sentence, impossible = _unit_sentence(found, _is_whole(example), scale)
    if sentence:
        (report.problem if impossible else report.note)(sentence)


def doubtful_unit(files: Sequence[Path], scale: float) -> str | None:
    """Why the unit of depth maps is doubtful, as told by a few of them; None if it is not.

    Args:
        files: Some of the files; those that cannot be read say nothing here.
        scale: Units of 16-bit files per metre.
    """
    ranges = []
    for path in files:
        with contextlib.suppress(ValueError, OSError):
            ranges.append(DepthRange.of(read_depth(path, scale)))
    found = DepthRange.joined(ranges)
    return None if found is None or found.high is None else _unit_sentence(found, _is_whole(files[0]), scale)[0]


def _unit_sentence(found: DepthRange, whole: bool, scale: float) -> tuple[str | None, bool]:
    """What is doubtful about a unit, and whether no camera measures such depths."""
    median = float(np.median(found.sample))
    as_read = f"at depth_scale={scale:g}" if whole else "as the files have it"
    others = _other_scales(median, scale) if whole else ""
    if not _LEAST_METRES <= median <= _MOST_METRES:
        return (
            f"The median depth is {median:.3g} m {as_read}, so the unit is probably another one. "
            + (others or "The files must hold metres; 16-bit files may have any unit with the option depth_scale.")
        ), True
    in_room = found.high * scale <= _MOST_MILLIMETRES and median >= _FAR_FOR_A_ROOM
    if whole and scale == KITTI_DEPTH_SCALE and found.known > _DENSE and (in_room or median > _FAR_FOR_A_DENSE_MAP):
        kind = "as a depth camera for rooms writes them in millimetres" if in_room else "far for maps this dense"
        return (
            f"Is the unit right? The median depth is {median:.3g} m {as_read}; the values are at most "
            f"{found.high * scale:.0f}, {kind}. {others} Nothing is to be done if {median:.3g} m is right."
        ), False
    return None, False


def _other_scales(median: float, scale: float) -> str:
    """What usual scales would make of the median."""
    medians = {other: median * scale / other for other in _SCALES if other != scale}
    fits = [
        f"data.options.depth_scale={other} ({_SCALES[other]}) makes it {value:.3g} m"
        for other, value in medians.items()
        if _LEAST_METRES <= value <= _MOST_METRES
    ]
    return f"{', '.join(fits)}." if fits else "Give the file units per metre as data.options.depth_scale."
