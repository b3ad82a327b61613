"""Colour of surface points.

A colour depends on the point in its object's own axes and on the light as it fell at time 0, on nothing that a
view or a later moment changes: neighbouring frames see the same colour at the same point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .primitives import BOX, CONE, ELLIPSOID, PLATE, SIGN_SHAPES, Parts, plate_level
from .scene import Scene
from .surfaces import PAVEMENT_SURFACE, ROAD_SURFACE, Hits, PlacedParts, box_planes

_WAVES = np.array([[0.31, 0.17, 0.12], [-0.23, 0.41, 0.33], [0.47, -0.36, 0.52], [-0.61, 0.55, -0.74]])
_SWEEPS = np.array([[0.11, -0.27, 0.35], [0.39, 0.22, -0.31], [-0.53, 0.49, 0.28], [0.68, 0.71, 0.57]])
_WEIGHTS = np.array([0.3, 0.3, 0.25, 0.15])
_BORDER = 0.78
_TINY = 1e-9


def noise(points: np.ndarray) -> np.ndarray:
    """Smooth blotches about 0 and within -1..1 at `points` `(3, N)`; the smallest are about one unit across."""
    return _WEIGHTS @ _wave(_SWEEPS @ points + 0.22 * _wave(_WAVES @ points))


def _wave(turns: np.ndarray) -> np.ndarray:
    """A sine made of parabolas: cheaper, and the same on every machine."""
    rest = turns - np.rint(turns)
    return rest * (8.0 - 16.0 * np.abs(rest))


def _cell_hash(cells: np.ndarray) -> np.ndarray:
    """A number in 0..1 for each triple of whole numbers `(3, N)`."""
    value = np.sin(cells[0] * 12.9898 + cells[1] * 78.233 + cells[2] * 37.719 + 4.1) * 43758.5453
    return value - np.floor(value)


def _ignored_axes() -> np.ndarray:
    """`(24, 3)`: which axes of the cell pattern do not count on face `f` of kind `k`, at row 6 k + f."""
    table = np.zeros((24, 3), bool)
    for face, axis in enumerate((0, 0, 2, 2, 1, 1)):
        table[6 * BOX + face, axis] = True
    table[6 * ELLIPSOID, [0, 2]] = table[6 * CONE, [0, 2]] = True
    table[6 * PLATE, 2] = True
    return table


_IGNORED = _ignored_axes()


def _sun_share(scene: Scene, placed_at_start: PlacedParts, rows: Any, face: Any, local: np.ndarray) -> np.ndarray:
    """How squarely the sun hits points `local` `(3, N)` of parts `rows`, 0..1, parts standing as at time 0."""
    parts = scene.parts
    everyone = np.arange(len(parts.kind))
    sun = placed_at_start.to_part(np.repeat(scene.light.direction[:, None], len(everyone), 1), everyone).T
    normals, _ = box_planes(parts)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    flat = np.einsum("pfc,pc->pf", normals, sun)
    plates = parts.kind == PLATE
    flat[plates] = np.abs(sun[plates, 2:])
    share = flat[rows, face]
    curved = np.flatnonzero(np.isin(parts.kind, (ELLIPSOID, CONE))[rows])
    part, point = rows[curved], local[:, curved]
    round_normal = point / np.maximum(parts.size[part].T, _TINY) ** 2
    column_normal = np.stack([point[0], -parts.taper[part, 0] * np.hypot(point[0], point[2]), point[2]])
    normal = np.where(parts.kind[part] == CONE, column_normal, round_normal)
    share[curved] = (normal * sun[part].T).sum(0) / np.linalg.norm(normal, axis=0)
    return np.maximum(share, 0.0)


def _parts_albedo(parts: Parts, rows: Any, face: Any, local: np.ndarray) -> np.ndarray:
    """Colours `(3, N)` of points `local` `(3, N)` on parts `rows`, before light."""
    kind = parts.kind[rows]
    period, fill, phase, origin, cell, ground = (
        np.take(table.T, rows, 1)
        for table in (parts.period, parts.fill, parts.phase, parts.noise_origin, parts.cell, parts.ground)
    )
    along = local / period
    np.negative(along[1], out=along[1])
    along += phase
    cells = np.floor(along)
    ignored = np.take(_IGNORED.T, 6 * kind + face, 1)
    filled = (ignored | (np.abs(along - cells - 0.5) < 0.5 * fill)).all(0)
    plates = np.flatnonzero(kind == PLATE)
    for shape in SIGN_SHAPES:
        signs = plates[parts.shape[rows[plates]] == shape]
        size = parts.size[rows[signs]]
        filled[signs] &= plate_level(shape, local[0, signs] / size[:, 0], local[1, signs] / size[:, 1]) < _BORDER
    shade = 1.0 + parts.vary[rows] * (_cell_hash(np.where(ignored, 0.0, cells)) - 0.5) * filled
    shade *= 1.0 + parts.contrast[rows] * noise(local / parts.blotch[rows] + origin)
    return np.where(filled, cell, ground) * shade


def _road_albedo(scene: Scene, s: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Asphalt with patches, lane markings and a zebra crossing at road coordinates."""
    look, road = scene.look, scene.road
    origin = look.noise_origin[:, None]
    spots = np.stack([s, u, np.zeros_like(s)])
    patched = noise(spots / 5.0 + origin) > 0.5
    shade = 1.0 + look.contrast * noise(spots / 0.9 + origin + 3.0)
    phase = s / look.dash[0]
    dashed = phase - np.floor(phase) < look.dash[1]
    across = np.abs(u)
    centre, edge, lanes = look.lines
    painted = centre & (across < look.line_width) & dashed
    painted |= edge & (np.abs(across - road.half_width + 0.4) < look.line_width / 2)
    painted |= lanes & (np.abs(across - road.half_width / 2) < look.line_width / 2) & dashed
    if road.crossing is not None:
        painted &= np.abs(s - road.crossing) > road.crossing_half_width + 1.0
    if look.zebra is not None:
        bars = np.abs(u - np.floor(u) - 0.5) < 0.25
        strip = (s > look.zebra) & (s < look.zebra + 3.0)
        painted = np.where(strip, bars & (across < road.half_width - 0.3), painted)
    colour = np.where(patched, look.patch[:, None] * 0.5 + look.asphalt[:, None] * 0.5, look.asphalt[:, None])
    return np.where(painted, look.paint[:, None], colour) * shade


def _pavement_albedo(scene: Scene, s: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Slabs with joints, and a kerb stone along the edge, at road coordinates."""
    look = scene.look
    along = np.stack([s / look.slab_size[0], u / look.slab_size[1], np.zeros_like(s)])
    cells = np.floor(along)
    slab = (np.abs(along[:2] - cells[:2] - 0.5) < 0.46).all(0)
    shade = 1.0 + look.contrast * noise(np.stack([s, u, np.zeros_like(s)]) / 0.9 + look.noise_origin[:, None])
    shade *= 1.0 + 0.2 * (_cell_hash(cells) - 0.5) * slab
    stone = scene.road.pavement_depth(s, u) < 0.2
    colour = np.where(slab, look.slab[:, None], 0.6 * look.slab[:, None] + 0.2 * look.joint[:, None])
    return np.where(stone, look.kerb[:, None], colour) * shade


def _sky(scene: Scene, rays: np.ndarray) -> np.ndarray:
    """A gradient from horizon to zenith with clouds, from the direction alone."""
    look = scene.look
    up = np.abs(rays[1]) / np.linalg.norm(rays, axis=0)
    mix = np.sqrt(up)
    colour = look.horizon[:, None] * (1.0 - mix) + look.zenith[:, None] * mix
    flat = np.stack([rays[0], rays[2]]) / np.hypot(rays[0], rays[2])
    dome = np.stack([3.0 * flat[0], 9.0 * up, 3.0 * flat[1]])
    cover = noise(dome + look.noise_origin[:, None]) + 0.4 * noise(2.7 * dome + look.noise_origin[:, None])
    cloud = np.clip(2.5 * (cover + look.cloud_cover), 0.0, 1.0)
    return (colour * (1.0 - cloud) + look.cloud[:, None] * cloud) * (1.0 + 0.06 * cover)


def shade(scene: Scene, placed: PlacedParts, centre: np.ndarray, rays: np.ndarray, hits: Hits) -> np.ndarray:
    """Radiance float64 `(N, 3)`, 1 = white, of what the rays from `centre` meet."""
    colour = np.empty((3, rays.shape[1]))
    light = scene.light
    on_part = np.flatnonzero(hits.surface >= 0)
    rows, face = hits.surface[on_part], hits.face[on_part]
    relative = rays[:, on_part] * hits.depth[on_part] + (centre - placed.origin[rows]).T
    local = placed.to_part(relative, rows)
    sun = _sun_share(scene, PlacedParts(scene.parts, 0.0), rows, face, local)
    albedo = _parts_albedo(scene.parts, rows, face, local)
    colour[:, on_part] = albedo * (light.ambient + (1.0 - light.ambient) * sun)
    ground_light = light.ambient - (1.0 - light.ambient) * light.direction[1]
    for code, albedo_of in ((ROAD_SURFACE, _road_albedo), (PAVEMENT_SURFACE, _pavement_albedo)):
        where = np.flatnonzero(hits.surface == code)
        point = rays[:, where] * hits.depth[where] + centre[:, None]
        colour[:, where] = albedo_of(scene, *scene.road.locate(point[0], point[2])) * ground_light
    sky = np.flatnonzero(np.isinf(hits.depth))
    colour[:, sky] = _sky(scene, rays[:, sky])
    return (colour * light.tint[:, None]).T
