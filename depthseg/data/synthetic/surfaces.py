"""Where rays meet parts and ground, in float64: exact up to rounding, so that views of one scene agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .camera import Camera, advance
from .primitives import BOX, CONE, ELLIPSOID, PICKETS, RAILS, Parts, plate_level
from .road import Road

SKY_SURFACE, ROAD_SURFACE, PAVEMENT_SURFACE = -1, -2, -3
_NEAR = 0.05
_SMALL = 400  # rays; parts met by fewer are met together
_KERB_STEPS = 16
_STRETCH = 1.25  # road coordinates change at most this many times as fast as places
_Faces = tuple[np.ndarray, np.ndarray]  # depths `(F, N)` at which rays enter by the faces of those numbers `(F,)`
_EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])


@dataclass(frozen=True)
class Hits:
    """What each of N rays meets first.

    Attributes:
        depth: float64 `(N,)` metres along the optical axis, infinite for sky.
        surface: int `(N,)`: row of the part, or one of the negative codes of sky, road and pavement.
        face: int `(N,)`: face of a box (+x, -x, +z, -z, top, bottom), else 0.
    """

    depth: np.ndarray
    surface: np.ndarray
    face: np.ndarray

    def update(self, rays: np.ndarray, rows: int | np.ndarray, depth: np.ndarray, faces: _Faces | None) -> None:
        """Enter parts `rows` met at `depth` by the rays of those numbers, where nothing is nearer."""
        nearer = np.flatnonzero(depth < self.depth[rays])
        rays, depth = rays[nearer], depth[nearer]
        np.minimum.at(self.depth, rays, depth)  # a ray may come more than once
        first = self.depth[rays] == depth
        where = rays[first]
        self.surface[where] = rows[nearer[first]] if isinstance(rows, np.ndarray) else rows
        if faces is not None:
            times, numbers = faces
            self.face[where] = ((np.take(times, nearer, 1) == depth) * numbers[:, None]).max(0)[first]


class PlacedParts:
    """The parts at one moment: axes and origin of each in the world, and their bounding boxes."""

    def __init__(self, parts: Parts, time: float) -> None:
        """Move the bodies of `parts` to where they are at `time`."""
        self.parts = parts
        x, z, heading, speed, turn = parts.motion.T
        x, z, heading = advance(x, z, heading, speed, turn, time)
        self.cos, self.sin = np.cos(heading)[parts.body], np.sin(heading)[parts.body]
        base = np.stack([x, np.zeros_like(x), z], 1)[parts.body]
        self.origin = base + self.to_world(parts.offset.T, slice(None)).T

    def to_world(self, vectors: np.ndarray, rows: Any) -> np.ndarray:
        """Turn vectors `(3, N)` from the axes of parts `rows` into those of the world."""
        c, s = self.cos[rows], self.sin[rows]
        return np.stack([c * vectors[0] + s * vectors[2], vectors[1], c * vectors[2] - s * vectors[0]])

    def to_part(self, vectors: np.ndarray, rows: Any) -> np.ndarray:
        """Turn vectors `(3, N)` from the axes of the world into those of parts `rows`."""
        c, s = self.cos[rows], self.sin[rows]
        return np.stack([c * vectors[0] - s * vectors[2], vectors[1], s * vectors[0] + c * vectors[2]])

    def screen_boxes(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Bounds `(P, 4)` of the parts in pixels, and the least depth `(P,)` that each may have.

        Bounds are left, top, right, bottom; left > right where nothing of the part is in front of the camera.
        """
        low, high = _local_bounds(self.parts)
        rows = np.repeat(np.arange(len(low)), 8)
        choose = (np.arange(8)[:, None] >> np.arange(3)) & 1
        corners = np.where(choose, high[:, None], low[:, None]).reshape(-1, 3).T
        seen = camera.pose[:3, :3].T @ (self.to_world(corners, rows) + (self.origin[rows] - camera.centre).T)
        seen = seen.T.reshape(-1, 8, 3)
        start, end = seen[:, _EDGES[:, 0]], seen[:, _EDGES[:, 1]]
        rise = end[..., 2] - start[..., 2]
        share = (_NEAR - start[..., 2]) / np.where(rise == 0.0, 1.0, rise)
        crossing = start + share[..., None] * (end - start)
        points = np.concatenate([seen, crossing], 1)
        crosses = (start[..., 2] < _NEAR) != (end[..., 2] < _NEAR)
        valid = np.concatenate([seen[..., 2] >= _NEAR, crosses], 1)[..., None]
        pixels = points[..., :2] / np.where(valid, points[..., 2:], 1.0)
        pixels = pixels * np.diag(camera.intrinsics)[:2] + camera.intrinsics[:2, 2]
        low, high = np.where(valid, pixels, np.inf).min(1), np.where(valid, pixels, -np.inf).max(1)
        return np.concatenate([low, high], 1), seen[..., 2].min(1)


def _local_bounds(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Corners `(P, 3)` of the bounding boxes in the parts' own axes (y down)."""
    size = parts.size
    upright = np.isin(parts.kind, (BOX, CONE))
    high, low = size.copy(), -size
    cone = parts.kind == CONE
    high[cone, 2], low[cone, 2] = size[cone, 0], -size[cone, 0]
    high[upright, 1] = 0.0
    for axis, column in ((0, 0), (2, 1)):
        shift = parts.shear[:, column] * size[:, 1] * upright
        grow = np.maximum(-parts.taper[:, column] * size[:, 1], 0.0) * upright
        high[:, axis] += np.maximum(shift, 0.0) + grow
        low[:, axis] += np.minimum(shift, 0.0) - grow
    return low, high


def box_planes(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Outward normals `(P, 6, 3)` in the parts' axes and offsets `(P, 6)` of six faces, all parts taken for boxes."""
    normals = np.zeros((len(parts.kind), 6, 3))
    for axis, column, first in ((0, 0, 0), (2, 1, 2)):
        taper, shear = parts.taper[:, column], parts.shear[:, column]
        normals[:, first, axis], normals[:, first + 1, axis] = 1.0, -1.0
        normals[:, first, 1], normals[:, first + 1, 1] = shear - taper, -shear - taper
    normals[:, 4, 1], normals[:, 5, 1] = -1.0, 1.0
    wide, tall, long = parts.size.T
    return normals, np.stack([wide, wide, long, long, tall, np.zeros_like(tall)], 1)


def _meet_box(slopes: np.ndarray, gaps: np.ndarray) -> tuple[np.ndarray, _Faces]:
    """Depth at which rays enter a box, and by which faces.

    `slopes` `(6, N)` is how steeply the rays go towards each face, `gaps` `(6, N)` or `(6, 1)` how far away it lies.
    """
    enter, leave = np.flatnonzero((gaps < 0.0).any(1)), np.flatnonzero((gaps >= 0.0).any(1))
    ahead, steep = gaps[enter], slopes[enter]
    times = np.where((ahead < 0.0) & (steep < 0.0), ahead / steep, np.where(ahead < 0.0, np.inf, 0.0))
    depth = times.max(0, initial=0.0)
    behind = gaps[leave]
    inside = ((slopes[leave] * depth <= behind) | (behind < 0.0)).all(0) & (depth > 0.0) & (depth < np.inf)
    return np.where(inside, depth, np.inf), (times, enter)


def _meet_ellipsoid(rays: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Depth at which rays enter the unit ball."""
    a, b, c = (rays * rays).sum(0), (rays * start).sum(0), (start * start).sum(0) - 1.0
    root = b * b - a * c
    depth = (-b - np.sqrt(np.maximum(root, 0.0))) / a
    return np.where((root > 0.0) & (depth > 0.0), depth, np.inf)


def _meet_cone(rays: np.ndarray, start: np.ndarray, size: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """Depth at which rays meet an upright round column of `size` (radius, height, -); it has no caps."""
    radius = size[0] + taper * start[1]
    widen = taper * rays[1]
    a = rays[0] ** 2 + rays[2] ** 2 - widen**2
    b = start[0] * rays[0] + start[2] * rays[2] - radius * widen
    c = start[0] ** 2 + start[2] ** 2 - radius**2
    root = b * b - a * c
    depth = (-b - np.sqrt(np.maximum(root, 0.0))) / a
    height = -(start[1] + depth * rays[1])
    valid = (root > 0.0) & (a > 0.0) & (depth > 0.0) & (height >= 0.0) & (height <= size[1])
    return np.where(valid, depth, np.inf)


def _meet_plate(parts: Parts, row: int | np.ndarray, rays: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Depth at which rays meet a flat plate; fences have holes."""
    depth = -start[2] / rays[2]
    x, y = start[0] + depth * rays[0], start[1] + depth * rays[1]
    wide, tall = parts.size[row, 0], parts.size[row, 1]
    shape = parts.shape[row]
    valid = (depth > 0.0) & (plate_level(shape, x / wide, y / tall) < 1.0)
    if shape in (PICKETS, RAILS):
        rails = np.abs(np.abs(y / tall) - 0.6) < 0.2
        along = x / parts.period[row, 0] + parts.phase[row, 0]
        planks = np.abs(along - np.floor(along) - 0.5) < parts.fill[row, 0] / 2
        valid &= rails | (planks if shape == PICKETS else False)
    return np.where(valid, depth, np.inf)


class _PartsSeen:
    """The parts in the terms in which rays from one camera meet them.

    World rays are multiplied with `maps` `(P, 6, 3)`: the six face normals of a box, the map to the unit ball of an
    ellipsoid, the turn into the part's axes for others. `starts` `(P, 6)` is how far away the six faces are, or the
    ray origin after that map.
    """

    def __init__(self, placed: PlacedParts, centre: np.ndarray) -> None:
        self.parts = parts = placed.parts
        turn = np.zeros((len(parts.kind), 3, 3))
        turn[:, 0, 0] = turn[:, 2, 2] = placed.cos
        turn[:, 0, 2], turn[:, 2, 0], turn[:, 1, 1] = -placed.sin, placed.sin, 1.0
        normals, offsets = box_planes(parts)
        self.maps = normals @ turn
        away = centre - placed.origin
        others = parts.kind != BOX
        balls = parts.kind == ELLIPSOID
        turn[balls] /= parts.size[balls, :, None]
        self.maps[others, :3] = turn[others]
        mapped = np.einsum("pij,pj->pi", self.maps, away)
        self.starts = np.where(others[:, None], mapped, offsets - mapped)

    def meet(self, kind: int, rows: int | np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, _Faces | None]:
        """Depth `(N,)` and face at which rays `(N, 3)` meet one part, or each a part of its own, all of one kind."""
        parts, used = self.parts, 6 if kind == BOX else 3
        if isinstance(rows, np.ndarray):
            maps = np.take(self.maps[:, :used], rows, 0)
            mapped = sum(maps[:, :, axis].T * rays[:, axis] for axis in range(3))
            start = np.take(self.starts[:, :used], rows, 0).T
        else:
            mapped = self.maps[rows, :used] @ rays.T
            start = self.starts[rows, :used, None]
        if kind == BOX:
            return _meet_box(mapped, start)
        if kind == ELLIPSOID:
            return _meet_ellipsoid(mapped, start), None
        if kind == CONE:
            return _meet_cone(mapped, start, parts.size[rows].T, parts.taper[rows, 0]), None
        return _meet_plate(parts, rows, mapped, start), None


def meet_parts(placed: PlacedParts, camera: Camera, rays: np.ndarray, pick: Any) -> Hits:
    """The nearest part along each ray.

    Args:
        placed: Parts of the moment.
        camera: The camera whose centre the rays start from.
        rays: `(3, N)` as `Camera.rays` makes them.
        pick: `pick(box)` -> indices of the rays inside screen bounds (left, top, right, bottom).
    """
    count = rays.shape[1]
    hits = Hits(np.full(count, np.inf), np.full(count, SKY_SURFACE), np.zeros(count, np.int64))
    bounds, nearest = placed.screen_boxes(camera)
    bounds = bounds.tolist()
    seen = _PartsSeen(placed, camera.centre)
    kinds = placed.parts.kind.tolist()
    by_ray = np.ascontiguousarray(rays.T)
    small: dict[int, list[tuple[int, np.ndarray]]] = {BOX: [], ELLIPSOID: [], CONE: []}
    with np.errstate(divide="ignore", invalid="ignore"):
        for row in np.argsort(nearest, kind="stable").tolist():  # near parts first: far ones then find few rays left
            if not bounds[row][0] <= bounds[row][2]:
                continue
            chosen = pick(bounds[row])
            kind = kinds[row]
            if kind in small and len(chosen) < _SMALL:
                small[kind].append((row, chosen))
                continue
            chosen = chosen[hits.depth[chosen] > nearest[row]]
            if len(chosen):
                hits.update(chosen, row, *seen.meet(kind, row, np.take(by_ray, chosen, 0)))
        for kind, group in small.items():  # small parts together: the calls would take longer than the numbers
            rows = np.repeat([row for row, _ in group], [len(chosen) for _, chosen in group])
            chosen = np.concatenate([np.empty(0, np.int64), *(chosen for _, chosen in group)])
            left = hits.depth[chosen] > nearest[rows.astype(np.int64)]
            rows, chosen = rows[left].astype(np.int64), chosen[left]
            if len(chosen):
                hits.update(chosen, rows, *seen.meet(kind, rows, np.take(by_ray, chosen, 0)))
    return hits


def meet_ground(road: Road, centre: np.ndarray, rays: np.ndarray, hits: Hits, limit: float) -> Hits:
    """Add road, pavement and kerb to `hits`, where no part is nearer; the ground ends `limit` metres away."""
    with np.errstate(divide="ignore"):
        upper = np.where(rays[1] > 0.0, (-road.kerb - centre[1]) / rays[1], np.inf)
    open_rays = np.flatnonzero((upper < hits.depth) & (upper < limit))
    down, first = rays[:, open_rays], upper[open_rays]
    second = -centre[1] / down[1]

    def edge(rows: Any, depth: np.ndarray) -> np.ndarray:
        """Metres into the pavement, below 0 on the road, straight under the rays `rows` at `depth`."""
        s, u = road.locate(centre[0] + depth * down[0, rows], centre[2] + depth * down[2, rows])
        return road.pavement_depth(s, u)

    everywhere = np.arange(len(open_rays))
    above = edge(everywhere, first)
    on_pavement = above > 0.0
    depth = np.where(on_pavement, first, second)
    below = np.flatnonzero(~on_pavement)
    span = (second - first)[below] * np.hypot(down[0, below], down[2, below])
    close = below[-above[below] - edge(below, second[below]) < _STRETCH * span]
    kerb, kerb_depth = _meet_kerb(lambda rows, depth: edge(rows, depth) > 0.0, close, first[close], second[close])
    depth[kerb] = kerb_depth
    on_pavement[kerb] = True
    nearer = depth < hits.depth[open_rays]
    where = open_rays[nearer]
    hits.depth[where] = depth[nearer]
    hits.surface[where] = np.where(on_pavement, PAVEMENT_SURFACE, ROAD_SURFACE)[nearer]
    return hits


def _meet_kerb(
    on_pavement: Callable[..., np.ndarray], rows: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the rays `rows` that run into the kerb on their way from pavement height down to the road, and where.

    Steps find the stretch in which the ground plan changes from road to pavement, bisection the place to the last bit.
    """
    near, far, found = first.copy(), second.copy(), np.zeros(len(rows), bool)
    for share in np.arange(1, _KERB_STEPS + 1) / _KERB_STEPS:
        here = first + share * (second - first)
        over = on_pavement(rows, here)
        far = np.where(over & ~found, here, far)
        found |= over
        near = np.where(found, near, here)
    rows, near, far = rows[found], near[found], far[found]
    for _ in range(48):
        middle = 0.5 * (near + far)
        over = on_pavement(rows, middle)
        near, far = np.where(over, near, middle), np.where(over, middle, far)
    return rows, far
