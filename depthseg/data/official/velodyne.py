"""Sweeps of KITTI's laser scanner, and the depth that they give an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

SweepDepth = Literal["camera", "eigen"]
"""How a sweep becomes depth: as this package has depth, or as the ground truth of the Eigen evaluation was made."""

_POINT_BYTES = 16


def read_velodyne(path: str | Path) -> np.ndarray:
    """Read a sweep.

    Returns:
        float32 `(N, 4)`: x forward, y left, z up in metres, and the reflectance.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty or cut off, or holds NaN or infinite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no laser sweep {path}.")
    content = path.read_bytes()
    if not content or len(content) % _POINT_BYTES:
        raise ValueError(
            f"{path} has {len(content)} bytes, but a laser sweep has {_POINT_BYTES} for each point (float32 x, y, z, "
            "reflectance): the file is cut off or of another format."
        )
    points = np.frombuffer(content, "<f4").reshape(-1, 4).astype(np.float32)
    if not np.isfinite(points).all():
        wrong = np.count_nonzero(~np.isfinite(points).all(1))
        raise ValueError(f"{path} has {wrong} points of {len(points)} that are NaN or infinite.")
    return points


def project_velodyne(
    points: np.ndarray, projection: np.ndarray, size: Sequence[int], convention: SweepDepth = "camera"
) -> np.ndarray:
    """Depth of the pixels that points of a sweep are seen in; of several points in a pixel the closest one counts.

    Args:
        points: `(N, 3)` or `(N, 4)`, metres: x forward, y left, z up; further columns are not read.
        projection: float64 `(3, 4)`, from points to pixels x depth and depth, see `KittiRig.velodyne_projection`.
        size: Height and width of the image.
        convention: `camera` = depth along the optical axis, at the pixel whose centre is closest. `eigen` = the
            coordinate x of the scanner, at the rounded position minus 1, as public code makes the ground truth of the
            Eigen evaluation. That code takes the last pixel of a row and the first of the next for one, and so does
            this.

    Returns:
        float32 `(H, W)`, metres, 0 = unknown.
    """
    height, width = size
    eigen = convention == "eigen"
    points = points[points[:, 0] >= 0, :3].astype(np.float64)
    seen = points @ projection[:, :3].T + projection[:, 3]
    points, seen = points[seen[:, 2] > 0], seen[seen[:, 2] > 0]
    columns, rows = (np.round(seen[:, :2] / seen[:, 2:]).T - eigen).astype(np.int64)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    columns, rows = columns[inside], rows[inside]
    values = (points[:, 0] if eigen else seen[:, 2])[inside].astype(np.float32)
    depth = np.zeros((height, width), np.float32)
    depth[rows, columns] = values
    _, first, pixel = np.unique(rows * (width - eigen) + columns, return_index=True, return_inverse=True)
    nearest = np.full(len(first), np.inf, np.float32)
    np.minimum.at(nearest, pixel, values)
    depth[rows[first], columns[first]] = nearest
    return depth
