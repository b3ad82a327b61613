"""The ground plan: road coordinates along an arc, and where the pavement begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Road:
    """A road of constant curvature through the world's origin, heading along +z, with at most one crossing.

    Road coordinates are `s`, metres along the centre line, and `u`, metres to its right.

    Attributes:
        curvature: 1/metres, positive for a bend to the right.
        half_width: half the width of the carriageway.
        kerb: height of the pavement above the road.
        crossing: where the crossing road's axis meets `s`, None for no crossing.
        crossing_half_width: half the width of the crossing road.
    """

    curvature: float
    half_width: float
    kerb: float
    crossing: float | None
    crossing_half_width: float

    def place(self, s: float, u: float) -> tuple[float, float, float]:
        """World `(x, z, heading)` of a road coordinate; the heading is that of the road."""
        if self.curvature == 0.0:
            return u, s, 0.0
        radius, angle = 1.0 / self.curvature, self.curvature * s
        return radius + (u - radius) * math.cos(angle), (radius - u) * math.sin(angle), angle

    def locate(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Road coordinates `(s, u)` of world points."""
        if self.curvature == 0.0:
            return z, x
        radius, side = 1.0 / self.curvature, math.copysign(1.0, self.curvature)
        s = np.arctan2(side * z, side * (radius - x)) * radius
        return s, radius - side * np.hypot(radius - x, z)

    def pavement_depth(self, s: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Metres from the kerb into the pavement, negative on the carriageway."""
        depth = np.abs(u) - self.half_width
        if self.crossing is not None:
            depth = np.minimum(depth, np.abs(s - self.crossing) - self.crossing_half_width)
        return depth

    def on_crossing(self, s: float, margin: float) -> bool:
        """Whether `s` lies within `margin` metres of the crossing road."""
        return self.crossing is not None and abs(s - self.crossing) < self.crossing_half_width + margin
