"""The layout of one scene: road, camera drive, light, and every object in its place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from . import objects
from .camera import Trajectory, advance
from .primitives import Builder, Parts
from .road import Road
from .world import WORLD, Draw, WorldParameters


@dataclass(frozen=True)
class Light:
    """One sun and an even sky light: `direction` `(3,)` points towards the sun, `tint` scales RGB."""

    direction: np.ndarray
    ambient: float
    tint: np.ndarray


@dataclass(frozen=True)
class GroundLook:
    """Colours and pattern sizes of road, pavement and sky."""

    asphalt: np.ndarray
    patch: np.ndarray
    paint: np.ndarray
    slab: np.ndarray
    joint: np.ndarray
    kerb: np.ndarray
    horizon: np.ndarray
    zenith: np.ndarray
    cloud: np.ndarray
    noise_origin: np.ndarray
    contrast: float
    slab_size: tuple[float, float]
    dash: tuple[float, float]
    line_width: float
    lines: tuple[bool, bool, bool]
    zebra: float | None
    cloud_cover: float


@dataclass(frozen=True)
class Scene:
    """Everything that an image of the scene depends on besides time, view and size."""

    world: WorldParameters
    road: Road
    path: Trajectory
    parts: Parts
    light: Light
    look: GroundLook


@lru_cache(maxsize=4)
def build_scene(seed: int, index: int, world: WorldParameters = WORLD) -> Scene:
    """The scene `index` of world `seed`, drawn from the ranges of `world`."""
    draw = Draw(seed, index, world)
    road = _road(draw)
    path = _path(draw, road)
    light = _light(draw)
    look = _ground_look(draw, road)
    layout = _Layout(draw, road, path)
    layout.fill()
    return Scene(world, road, path, layout.builder.build(), light, look)


def _road(draw: Draw) -> Road:
    bend = 0.0 if draw.chance(draw.world.straight_share) else draw.sign() / draw.between(draw.world.curve_radius)
    crossing = draw.between(draw.world.crossing_distance) if draw.chance(draw.world.crossing_share) else None
    return Road(
        bend,
        draw.between(draw.world.road_half_width),
        draw.between(draw.world.kerb_height),
        crossing,
        draw.between(draw.world.crossing_half_width),
    )


def _path(draw: Draw, road: Road) -> Trajectory:
    if draw.chance(draw.world.camera_off_road_share):
        u = draw.sign() * (road.half_width + draw.between((0.5, 1.5)))
    else:
        u = draw.between((-1.0, 1.0)) * (road.half_width - 0.8)
    turned = draw.chance(draw.world.turned_share)
    yaw = draw.sign() * draw.between(draw.world.turned_yaw) if turned else draw.between(draw.world.yaw)
    standing = draw.chance(draw.world.standing_share)
    return Trajectory(
        x=u,
        z=0.0,
        heading=math.radians(yaw),
        speed=0.0 if standing else draw.between(draw.world.speed),
        turn=0.0 if standing else math.radians(draw.between(draw.world.yaw_rate)),
        height=draw.between(draw.world.camera_height),
        pitch=math.radians(draw.between(draw.world.pitch)),
        pitch_rate=0.0 if standing else math.radians(draw.between(draw.world.pitch_rate)),
        roll=math.radians(draw.between(draw.world.roll)),
        focal=draw.between(draw.world.focal),
        shift=(draw.between(draw.world.principal_shift), draw.between(draw.world.principal_shift)),
        baseline=draw.between(draw.world.baseline),
    )


def _light(draw: Draw) -> Light:
    azimuth, elevation = 2 * math.pi * draw.unit(), draw.between((0.4, 1.2))
    flat = math.cos(elevation)
    direction = np.array([flat * math.sin(azimuth), -math.sin(elevation), flat * math.cos(azimuth)])
    exposure = draw.between(draw.world.exposure)
    tint = np.array([exposure * draw.between((0.92, 1.08)) for _ in range(3)])
    return Light(direction, draw.between(draw.world.ambient), tint)


def _ground_look(draw: Draw, road: Road) -> GroundLook:
    muted = {"saturation": draw.world.muted_saturation}
    sky = {"saturation": draw.world.sky_saturation, "brightness": draw.world.sky_brightness}
    colours = {
        **dict.fromkeys(("asphalt", "patch"), {**muted, "brightness": draw.world.road_brightness}),
        **dict.fromkeys(("slab", "joint"), {**muted, "brightness": draw.world.pavement_brightness}),
        **dict.fromkeys(("kerb", "paint"), muted),
        **dict.fromkeys(("horizon", "zenith"), sky),
        "cloud": {**sky, **muted},
    }
    slab = draw.between((0.5, 1.6))
    zebra = road.crossing is not None and draw.chance(0.5)
    return GroundLook(
        **{name: np.array(draw.colour(**ranges)) for name, ranges in colours.items()},
        noise_origin=np.array([9.0 * draw.unit() for _ in range(3)]),
        contrast=draw.between(draw.world.texture_contrast),
        slab_size=(slab, slab * draw.between((0.6, 1.6))),
        dash=(draw.between((3.0, 8.0)), draw.between((0.35, 0.7))),
        line_width=draw.between((0.12, 0.25)),
        lines=(draw.chance(0.8), draw.chance(0.6), draw.chance(0.3)),
        zebra=road.crossing - road.crossing_half_width - 4.0 if zebra and road.crossing is not None else None,
        cloud_cover=draw.between((-0.6, 0.6)),
    )


class _Layout:
    """Places objects so that they neither stand in one another nor in the camera's way."""

    def __init__(self, draw: Draw, road: Road, path: Trajectory) -> None:
        self.draw, self.road = draw, road
        self.builder = Builder(draw)
        self.widths = {side: draw.between(draw.world.pavement_width) for side in (-1.0, 1.0)}
        self.setbacks = {side: draw.between(draw.world.setback) for side in (-1.0, 1.0)}
        drive = (advance(path.x, path.z, path.heading, path.speed, path.turn, t) for t in (-1.0, 0.0, 1.0))
        self.taken = [(x, z, draw.world.clearance) for x, z, _ in drive]

    def fill(self) -> None:
        """All objects, the large ones first."""
        draw = self.draw
        for side in (-1.0, 1.0):
            open_side = draw.chance(draw.world.open_side_share)
            self._buildings(side, draw.between(draw.world.backdrop_distance) if open_side else self.setbacks[side])
        if draw.chance(draw.world.street_end_share):
            self._street_end()
        self._several(draw.world.parked_cars, self._parked_car)
        self._several(draw.world.moving_cars, self._moving_car)
        self._several(draw.world.bicyclists, self._bicyclist)
        self._several(draw.world.fences, self._fence)
        self._several(draw.world.trees, self._tree)
        self._several(draw.world.poles, self._pole)
        self._several(draw.world.signs, self._sign)
        self._several(draw.world.pedestrians, self._pedestrian)

    def _several(self, bounds: tuple[float, float], place: Callable[[], None]) -> None:
        for _ in range(self.draw.count(bounds)):
            place()

    def _ahead(self, near: float, far: float) -> float:
        """A distance along the road, nearer ones more often."""
        return near + (far - near) * self.draw.unit() ** 1.6

    def _free(self, s: float, u: float, radius: float) -> tuple[float, float, float] | None:
        """Claim a disc of the ground; None where it is taken."""
        x, z, heading = self.road.place(s, u)
        if any(math.hypot(x - a, z - b) < radius + r for a, b, r in self.taken):
            return None
        self.taken.append((x, z, radius))
        return x, z, heading

    def _buildings(self, side: float, setback: float) -> None:
        draw, road = self.draw, self.road
        front = road.half_width + self.widths[side] + setback
        s, end = draw.world.street_extent
        while s < end:
            width, depth = draw.between(draw.world.building_width), draw.between(draw.world.building_depth)
            gap = draw.between(draw.world.building_gap) if draw.chance(draw.world.building_gap_share) else 0.15
            if not road.on_crossing(s + width / 2, width / 2 + 2.0):
                x, z, heading = road.place(s + width / 2, side * (front + depth / 2))
                self.builder.body(x, z, heading, 0.0)
                objects.building(self.builder, width, depth)
            s += width + gap

    def _street_end(self) -> None:
        draw = self.draw
        x, z, heading = self.road.place(draw.between((50.0, 110.0)), draw.between((-6.0, 6.0)))
        self.builder.body(x, z, heading + math.pi / 2, 0.0)
        objects.building(self.builder, draw.between((25.0, 50.0)), 10.0)

    def _parked_car(self) -> None:
        draw, road = self.draw, self.road
        side, s = draw.sign(), self._ahead(2.0, 36.0)
        place = None if road.on_crossing(s, 3.0) else self._free(s, side * (road.half_width - 1.05), 2.0)
        if place:
            x, z, heading = place
            self.builder.body(x, z, heading + (math.pi if draw.chance(0.5) else 0.0), 0.0)
            objects.car(self.builder)

    def _moving_car(self) -> None:
        draw, road = self.draw, self.road
        speed = draw.between(draw.world.car_speed)
        if road.crossing is not None and draw.chance(0.5):
            u = draw.between((-14.0, 14.0))
            direction = draw.sign()
            s, heading, turn = road.crossing - direction * road.crossing_half_width / 2, direction * math.pi / 2, 0.0
        else:
            direction = draw.sign()
            u, s, heading = direction * 0.4 * road.half_width, self._ahead(9.0, 40.0), 0.0
            if direction < 0:
                heading = math.pi
            turn = direction * speed * road.curvature / (1.0 - u * road.curvature)
        place = self._free(s, u, 2.2)
        if place:
            x, z, along = place
            self.builder.body(x, z, along + heading, 0.0, speed, turn)
            objects.car(self.builder)

    def _pavement_spot(
        self, near: float, far: float, first: float, last: float, radius: float
    ) -> tuple[float, float, float, float] | None:
        """A free spot between shares `first` and `last` of the pavement's width: x, z, heading, side."""
        draw, road = self.draw, self.road
        side, s = draw.sign(), self._ahead(near, far)
        u = side * (road.half_width + 0.3 + draw.between((first, last)) * (self.widths[side] - 0.4))
        place = None if road.on_crossing(s, 1.0) else self._free(s, u, radius)
        return (*place, side) if place else None

    def _tree(self) -> None:
        spot = self._pavement_spot(5.0, 45.0, 0.1, 1.6, 0.6)
        if spot:
            x, z, along, _ = spot
            self.builder.body(x, z, along, self.road.kerb)
            objects.tree(self.builder)

    def _pole(self) -> None:
        spot = self._pavement_spot(5.0, 30.0, 0.0, 0.3, 0.4)
        if spot:
            x, z, heading, side = spot
            self.builder.body(x, z, heading + (math.pi if side > 0 else 0.0), self.road.kerb)
            objects.pole(self.builder)

    def _sign(self) -> None:
        spot = self._pavement_spot(7.0, 20.0, 0.0, 0.5, 0.5)
        if spot:
            x, z, heading, _ = spot
            self.builder.body(x, z, heading + self.draw.between((-0.5, 0.5)), self.road.kerb)
            objects.sign(self.builder)

    def _fence(self) -> None:
        draw, road = self.draw, self.road
        side, s, length = draw.sign(), self._ahead(4.0, 26.0), draw.between(draw.world.fence_length)
        inner = draw.chance(0.3)
        u = side * (road.half_width + (0.4 if inner else self.widths[side] - 0.2))
        place = None if road.on_crossing(s, length / 2) else self._free(s, u, length * 0.4)
        if place:
            x, z, heading = place
            self.builder.body(x, z, heading + math.pi / 2, road.kerb)
            objects.fence(self.builder, length)

    def _pedestrian(self) -> None:
        draw, road = self.draw, self.road
        if draw.chance(draw.world.pedestrian_on_road_share):
            s, u = self._ahead(6.0, 20.0), draw.between((-1.0, 1.0)) * road.half_width
            place: tuple[float, ...] | None = self._free(s, u, 0.4)
            height = 0.0
        else:
            place = self._pavement_spot(5.0, 20.0, 0.0, 1.0, 0.4)
            height = road.kerb
        if place:
            heading = place[2] + draw.between((0.0, 2 * math.pi))
            self.builder.body(place[0], place[1], heading, height, draw.between(draw.world.pedestrian_speed))
            objects.pedestrian(self.builder)

    def _bicyclist(self) -> None:
        draw, road = self.draw, self.road
        side, s = draw.sign(), self._ahead(6.0, 20.0)
        place = self._free(s, side * (road.half_width - draw.between((0.5, 2.5))), 0.8)
        if place:
            x, z, heading = place
            heading += draw.between((-0.6, 0.6)) + (math.pi if draw.chance(0.4) else 0.0)
            self.builder.body(x, z, heading, 0.0, draw.between(draw.world.bicyclist_speed))
            objects.bicyclist(self.builder)
