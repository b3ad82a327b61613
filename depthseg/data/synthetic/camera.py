"""Pin-hole cameras and motion on the ground.

Axes: x right, y down, z forward, for the camera and for the world alike; the road surface is y = 0, so heights
are -y. Pixel centres have whole-numbered coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Trajectory:
    """A constant-turn drive, and the optics that go along; angles in radians, rates per frame."""

    x: float
    z: float
    heading: float
    speed: float
    turn: float
    height: float
    pitch: float
    pitch_rate: float
    roll: float
    focal: float
    shift: tuple[float, float]
    baseline: float


@dataclass(frozen=True)
class Camera:
    """Intrinsics `(3, 3)` in pixels and camera-to-world pose `(4, 4)` in metres."""

    intrinsics: np.ndarray
    pose: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        """The optical centre in the world, `(3,)`."""
        return self.pose[:3, 3]

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """World directions `(3, N)` through `pixels` `(2, N)`, as long as one metre of depth."""
        focal_x, focal_y = self.intrinsics[0, 0], self.intrinsics[1, 1]
        x = (pixels[0] - self.intrinsics[0, 2]) / focal_x
        y = (pixels[1] - self.intrinsics[1, 2]) / focal_y
        return self.pose[:3, :3] @ np.stack([x, y, np.ones_like(x)])

    def project(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels `(2, N)` and depths `(N,)` of vectors `(3, N)` from the optical centre, in world axes."""
        local = self.pose[:3, :3].T @ vectors
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = self.intrinsics[:2, :2] @ (local[:2] / local[2]) + self.intrinsics[:2, 2:]
        return pixels, local[2]


def advance(x: Any, z: Any, heading: Any, speed: Any, turn: Any, time: float) -> tuple[Any, Any, Any]:
    """Position and heading after `time` frames of driving at `speed` while turning at `turn` per frame.

    Works on numbers and on arrays alike.
    """
    angle = turn * time
    chord = speed * time * np.sinc(angle / (2 * math.pi))
    middle = heading + angle / 2
    return x + chord * np.sin(middle), z + chord * np.cos(middle), heading + angle


def rotation(heading: float, pitch: float, roll: float) -> np.ndarray:
    """Camera-to-world rotation `(3, 3)`: roll about the view axis, then pitch (up is positive), then heading."""
    ch, sh = math.cos(heading), math.sin(heading)
    cp, sp = math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    about_y = np.array([[ch, 0.0, sh], [0.0, 1.0, 0.0], [-sh, 0.0, ch]])
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, cp, -sp], [0.0, sp, cp]])
    about_z = np.array([[cr, -sr, 0.0], [sr, cr, 0.0], [0.0, 0.0, 1.0]])
    return about_y @ about_x @ about_z


def camera_at(path: Trajectory, size: tuple[int, int], time: float, view: str) -> Camera:
    """The camera of `path` at `time` for images of `size` (height, width); the right view is one baseline aside."""
    height, width = size
    focal = path.focal * width
    intrinsics = np.array(
        [
            [focal, 0.0, (0.5 + path.shift[0]) * width - 0.5],
            [0.0, focal, (0.5 + path.shift[1]) * height - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    x, z, heading = advance(path.x, path.z, path.heading, path.speed, path.turn, time)
    pose = np.eye(4)
    pose[:3, :3] = rotation(heading, path.pitch + path.pitch_rate * time, path.roll)
    pose[:3, 3] = x, -path.height, z
    if view == "right":
        pose[:3, 3] += path.baseline * pose[:3, 0]
    return Camera(intrinsics, pose)
