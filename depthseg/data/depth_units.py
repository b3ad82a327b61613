"""Depths that maps hold, and the signs that their unit is another one than it is taken for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .float_maps import FLOAT_SUFFIXES
from .images import KITTI_DEPTH_SCALE, image_mode, read_depth

QUANTILES = (0.05, 0.5, 0.95)

_SAMPLE = 1000
_LEAST_METRES, _MOST_METRES = 0.2, 200
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


def has_whole_numbers(path: Path) -> bool:
    """Whether a depth file has whole numbers, in a unit of its own, rather than metres."""
    return path.suffix.lower() not in FLOAT_SUFFIXES and image_mode(path) != "F"


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
    return None if found is None or found.high is None else unit_sentence(found, has_whole_numbers(files[0]), scale)[0]


def unit_sentence(found: DepthRange, whole: bool, scale: float) -> tuple[str | None, bool]:
    """What is doubtful about a unit, and whether no camera measures such depths."""
    median = float(np.median(found.sample))
    as_read = f"at depth_scale={scale:g}" if whole else "as the files have it"
    others = _other_scales(median, scale) if whole else ""
    if not _LEAST_METRES <= median <= _MOST_METRES:
        return (
            f"The median depth is {median:.3g} m {as_read}, so the unit is probably another one. "
            + (others or "The files must hold metres; 16-bit files may have any unit with the option depth_scale.")
        ), True
    assert found.high is not None, "maps with a median have a highest value"
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
