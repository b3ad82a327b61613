"""Where the car was, from the packets of its inertial and satellite navigation unit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

EARTH_RADIUS = 6378137.0
"""Metres, at the equator."""

OXTS_NUMBERS = 30
"""Numbers in a packet: latitude, longitude, altitude, roll, pitch, yaw, and 24 that are not needed here."""


def read_oxts(path: str | Path) -> np.ndarray:
    """Read the packet of a frame.

    Returns:
        float64 `(6,)`: latitude and longitude in degrees, altitude in metres, roll, pitch and yaw in radians; yaw is 0
        to the east and grows to the north.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no packet.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no navigation packet {path}.")
    try:
        values = np.array([float(word) for word in path.read_text(encoding="utf-8", errors="replace").split()])
    except ValueError:
        values = np.array([])
    if len(values) != OXTS_NUMBERS or not np.isfinite(values[:6]).all() or abs(values[0]) >= 90:
        raise ValueError(
            f"{path} is not a navigation packet: {OXTS_NUMBERS} numbers are expected, latitude, longitude, altitude, "
            f"roll, pitch and yaw first. Unpack {path.parents[2].name}.zip again."
        )
    return values[:6]


def imu_pose(packet: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Pose of the inertial unit, float64 `(4, 4)`, to a world with x east, y north and z up, in metres.

    Places are those of a Mercator map, at the scale that is right at the latitude of `origin`.

    Args:
        packet: As `read_oxts` returns it.
        origin: The first packet of the drive; its place is the origin of the world.

    Source:
        Geiger et al. 2013, "Vision meets robotics: the KITTI dataset", and the devkit of KITTI raw.
    """
    scale = math.cos(math.radians(origin[0]))
    roll, pitch, yaw = packet[3:]
    pose = np.eye(4)
    pose[:3, :3] = _about(2, yaw) @ _about(1, pitch) @ _about(0, roll)
    pose[:3, 3] = _place(packet, scale) - _place(origin, scale)
    return pose


def _place(packet: np.ndarray, scale: float) -> np.ndarray:
    latitude, longitude, altitude = packet[:3]
    north = math.log(math.tan(math.radians(90 + latitude) / 2))
    return np.array([scale * EARTH_RADIUS * math.radians(longitude), scale * EARTH_RADIUS * north, altitude])


def _about(axis: int, angle: float) -> np.ndarray:
    """Rotation `(3, 3)` about an axis."""
    first, second = [place for place in range(3) if place != axis]
    matrix, sign = np.eye(3), -1 if axis == 1 else 1
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -sign * math.sin(angle), sign * math.sin(angle)
    return matrix
