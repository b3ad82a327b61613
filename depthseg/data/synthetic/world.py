"""Every number that shapes the procedural world, the hash that freezes them, and the stream of draws."""

from __future__ import annotations

import colorsys
import hashlib
import json
from dataclasses import asdict, dataclass

import numpy as np

Range = tuple[float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class WorldParameters:
    """Ranges that scenes are drawn from: metres, degrees, metres or degrees per frame, shares of one.

    `revision` counts changes of the code that alter an image without altering a number here.
    """

    revision: int = 1
    # the street
    straight_share: float = 0.5
    curve_radius: Range = (60.0, 160.0)
    road_half_width: Range = (3.0, 6.5)
    kerb_height: Range = (0.08, 0.18)
    pavement_width: Range = (1.8, 5.0)
    crossing_share: float = 0.4
    crossing_distance: Range = (6.0, 40.0)
    crossing_half_width: Range = (2.5, 4.5)
    ground_limit: float = 250.0
    street_extent: Range = (-24.0, 85.0)
    open_side_share: float = 0.2
    setback: Range = (0.0, 6.0)
    # the camera
    camera_height: Range = (1.2, 2.6)
    camera_off_road_share: float = 0.1
    focal: Range = (0.72, 0.98)
    principal_shift: Range = (-0.02, 0.02)
    baseline: Range = (0.45, 0.55)
    yaw: Range = (-6.0, 6.0)
    turned_share: float = 0.2
    turned_yaw: Range = (10.0, 25.0)
    pitch: Range = (-3.0, 2.0)
    roll: Range = (-2.0, 2.0)
    standing_share: float = 0.04
    speed: Range = (0.2, 1.0)
    yaw_rate: Range = (-3.5, 3.5)
    pitch_rate: Range = (-0.3, 0.3)
    clearance: float = 2.2
    # buildings
    building_width: Range = (6.0, 18.0)
    building_depth: Range = (7.0, 13.0)
    building_height: Range = (3.5, 15.0)
    building_gap_share: float = 0.3
    building_gap: Range = (1.0, 12.0)
    gable_share: float = 0.4
    street_end_share: float = 0.5
    backdrop_distance: Range = (12.0, 45.0)
    # what stands on the pavement
    trees: Range = (7, 11)
    tree_height: Range = (3.5, 8.0)
    crown_radius: Range = (0.9, 2.2)
    poles: Range = (4, 7)
    pole_height: Range = (3.0, 7.5)
    pole_radius: Range = (0.15, 0.28)
    signs: Range = (5, 8)
    sign_radius: Range = (0.55, 0.95)
    fences: Range = (8, 12)
    fence_length: Range = (3.0, 9.0)
    fence_height: Range = (1.1, 2.0)
    # who moves
    parked_cars: Range = (2, 5)
    moving_cars: Range = (1, 3)
    car_length: Range = (3.6, 5.0)
    car_width: Range = (1.65, 1.95)
    van_share: float = 0.2
    car_speed: Range = (0.15, 1.0)
    pedestrians: Range = (9, 13)
    pedestrian_height: Range = (1.45, 1.95)
    pedestrian_speed: Range = (0.03, 0.12)
    pedestrian_on_road_share: float = 0.25
    bicyclists: Range = (4, 7)
    bicyclist_speed: Range = (0.1, 0.4)
    # light and colour
    saturation: Range = (0.0, 0.85)
    brightness: Range = (0.12, 0.95)
    ambient: Range = (0.4, 0.7)
    exposure: Range = (0.8, 1.2)
    muted_saturation: Range = (0.0, 0.2)
    sky_brightness: Range = (0.65, 1.0)
    road_brightness: Range = (0.1, 0.36)
    pavement_brightness: Range = (0.3, 0.8)
    sign_saturation: Range = (0.4, 1.0)
    sign_brightness: Range = (0.35, 1.0)
    wall_brightness: Range = (0.15, 0.75)
    sky_saturation: Range = (0.0, 0.5)
    leaf_hue: Range = (0.12, 0.45)
    leaf_saturation: Range = (0.2, 0.8)
    dark: Range = (0.04, 0.2)
    texture_contrast: Range = (0.06, 0.16)
    leaf_contrast: Range = (0.5, 0.85)
    leaf_blotch: Range = (0.2, 0.4)


def parameter_hash(parameters: WorldParameters) -> str:
    """Twelve hexadecimal digits that change with any number of `parameters`."""
    text = json.dumps(asdict(parameters), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


WORLD = WorldParameters()
"""Parameters of the first world."""

WORLD_VERSION = parameter_hash(WORLD)
"""Changes with every parameter of the first world, and so with its images."""


class Draw:
    """Random numbers of one scene, a pure function of `(seed, index)`, and the ranges that they are drawn from.

    Only uniform draws of the bit generator are used: numpy may change the streams of its other distributions.
    """

    _BLOCK = 2048

    def __init__(self, seed: int, index: int, world: WorldParameters = WORLD) -> None:
        """Start the stream of scene `index` of world `seed` (both integers >= 0)."""
        self.world = world
        self._generator = np.random.Generator(np.random.PCG64([seed, index]))
        self._block: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(self._BLOCK).tolist()
        return self._block.pop()

    def between(self, bounds: Range) -> float:
        """Uniform between two bounds."""
        return bounds[0] + (bounds[1] - bounds[0]) * self.unit()

    def count(self, bounds: Range) -> int:
        """A whole number between two bounds, both included."""
        return int(bounds[0] + (bounds[1] - bounds[0] + 1) * self.unit())

    def chance(self, share: float) -> bool:
        """True with probability `share`."""
        return self.unit() < share

    def sign(self) -> float:
        """-1 or +1."""
        return -1.0 if self.unit() < 0.5 else 1.0

    def colour(
        self,
        hue: Range = (0.0, 1.0),
        saturation: Range | None = None,
        brightness: Range | None = None,
    ) -> Colour:
        """Linear RGB in 0..1; the ranges of different classes overlap, so that none has a colour of its own."""
        low, high = saturation or self.world.saturation
        brightness = brightness or self.world.brightness
        return colorsys.hsv_to_rgb(self.between(hue), low + (high - low) * self.unit() ** 2, self.between(brightness))
