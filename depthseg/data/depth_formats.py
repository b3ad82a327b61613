"""What the whole numbers of depth files mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .memory_file import MemoryFile

DEPTH_FORMATS = {
    "scaled": "of metres x depth_scale",
    "sun": "of millimetres with rotated bits",
    "kinect": "of raw numbers of a Kinect",
}
"""Formats of whole numbers v in depth files, in words; 0 = unknown in all of them.

`scaled` = v / `depth_scale` metres: 256 for KITTI, 1000 for millimetres as RealSense, phones and most recorders write
them, 5000 for TUM RGB-D. `sun` = SUN RGB-D: millimetres whose 16 bits are rotated by three. `kinect` = raw numbers of
the first Kinect, 11 bits, as in the raw scenes of NYU Depth V2: 351.3 / (1092.5 - v) metres, unknown beyond 10 m.
"""

KINECT_NONE = 2047
"""Raw number of a Kinect where nothing was measured, the largest of 11 bits."""


def check_depth_format(depth_format: str) -> None:
    """Refuse a format that is not one of `DEPTH_FORMATS`."""
    if depth_format not in DEPTH_FORMATS:
        raise ValueError(f"depth_format={depth_format!r} is not known; choose one of {', '.join(DEPTH_FORMATS)}.")


def metres_of(path: str | Path | MemoryFile, values: np.ndarray, scale: float, depth_format: str) -> np.ndarray:
    """Depth of the whole numbers of a file.

    Args:
        path: The file, for messages; a PGM may have its two bytes in either order.
        values: Integers `(H, W)` from 0 up, as decoded.
        scale: Units per metre, for the format `scaled`.
        depth_format: One of `DEPTH_FORMATS`.

    Returns:
        float32 `(H, W)`, metres, 0 = unknown.

    Raises:
        ValueError: Numbers that the format does not have.
    """
    if depth_format == "sun":
        return (np.bitwise_or(values >> 3, values << 13 & 0xFFFF) / 1000).astype(np.float32)
    swapped = values.max() > KINECT_NONE and _swap_bytes(values).max() <= KINECT_NONE
    if depth_format == "kinect":
        return _kinect_metres(path, _swap_bytes(values) if swapped else values)
    if swapped and Path(str(path)).suffix.lower() == ".pgm":
        raise ValueError(
            f"{path} holds the raw numbers of a Kinect with the lowest byte first, against the rule of PGM, as the "
            "raw scenes of NYU Depth V2 do. Give the option depth_format=kinect."
        )
    return (values / scale).astype(np.float32)


def _swap_bytes(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16).byteswap().astype(np.int32)


def _kinect_metres(path: str | Path | MemoryFile, numbers: np.ndarray) -> np.ndarray:
    """Metres of raw numbers, with the parameters of the toolbox of NYU Depth V2 (Silberman et al. 2012)."""
    if numbers.max() > KINECT_NONE:
        raise ValueError(
            f"{path} holds {numbers.max()}, but raw numbers of a Kinect are at most {KINECT_NONE}. Give another "
            f"depth_format: {', '.join(DEPTH_FORMATS)}."
        )
    metres = 351.3 / (1092.5 - numbers)
    return np.where((numbers > 0) & (metres > 0) & (metres <= 10), metres, 0).astype(np.float32)
