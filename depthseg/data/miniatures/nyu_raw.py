"""Raw scenes of NYU Depth V2 in small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..depth_formats import KINECT_NONE
from .scenes import scene

_BEGIN = 1294886360.0


def write_nyu_raw(out: Path, count: int, size: tuple[int, int]) -> None:
    """Write two scenes of `count` frames: the world as raw numbers of a Kinect, images a little later than depth."""
    for number, world in enumerate(("train", "val")):
        folder = out / f"street_{number + 1:04d}"
        folder.mkdir(parents=True)
        for index in range(count):
            found = scene(world, index, size, ("image", "depth"))
            Image.fromarray(found["image"]).save(folder / f"r-{_BEGIN + index / 30 + 0.011:.6f}-{index + 7}.ppm")
            numbers = kinect_numbers(found["depth"]).astype("<u2")
            header = f"P5\n{size[1]} {size[0]}\n65535\n".encode()
            path = folder / f"d-{_BEGIN + index / 30:.6f}-{index + 3}.pgm"
            path.write_bytes(header + numbers.tobytes())


def kinect_numbers(depth: np.ndarray) -> np.ndarray:
    """Raw numbers of a Kinect of depth in metres; 2047 where it is unknown or beyond 10 m."""
    known = (depth > 0.4) & (depth < 10)
    return np.where(known, np.rint(1092.5 - 351.3 / np.where(known, depth, 1)), KINECT_NONE).astype(np.uint16)
