"""Images of the world and everything that is exactly known about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from . import objects
from .camera import Camera, camera_at
from .scene import Scene, build_scene
from .shading import shade
from .surfaces import PAVEMENT_SURFACE, ROAD_SURFACE, SKY_SURFACE, Hits, PlacedParts, meet_ground, meet_parts
from .world import WORLD, WorldParameters

VIEWS = ("left", "right")
OUTPUTS = (
    "image",
    "radiance",
    "depth",
    "labels",
    "moving",
    "flow_next",
    "flow_previous",
    "visible_next",
    "visible_previous",
    "intrinsics",
    "pose",
    "baseline",
)
"""What `render` can return."""

_CAMERA_OUTPUTS = {"intrinsics", "pose", "baseline"}
_VISIBLE_DEPTH_TOLERANCE = 1e-6


class View:
    """A scene at one moment from one camera; rays may be cast through any pixels, whole-numbered or not."""

    def __init__(self, scene: Scene, size: tuple[int, int], time: float, side: str) -> None:
        """Place camera and objects for images of `size` (height, width)."""
        self.scene, self.size = scene, size
        self.camera: Camera = camera_at(scene.path, size, time, side)
        self.placed = PlacedParts(scene.parts, time)

    def cast(self, pixels: np.ndarray | None = None) -> tuple[np.ndarray, Hits]:
        """Rays `(3, N)` and what they meet, through `pixels` `(2, N)` or, by default, through all pixel centres."""
        rays = self.camera.rays(_grid(*self.size)[0] if pixels is None else pixels)
        pick = self._pick_grid if pixels is None else _Picker(pixels)
        hits = meet_parts(self.placed, self.camera, rays, pick)
        return rays, meet_ground(self.scene.road, self.camera.centre, rays, hits, self.scene.world.ground_limit)

    def radiance(self, rays: np.ndarray, hits: Hits) -> np.ndarray:
        """Unquantised colours `(N, 3)`, 1 = white."""
        return shade(self.scene, self.placed, self.camera.centre, rays, hits)

    def follow(self, rays: np.ndarray, hits: Hits, other: View) -> tuple[np.ndarray, np.ndarray]:
        """Pixels `(2, N)` and depths `(N,)` in `other` of the surface points that `hits` of this view describe."""
        known = np.isfinite(hits.depth)
        vectors = rays.copy()
        points = rays[:, known] * hits.depth[known] + self.camera.centre[:, None]
        rows = hits.surface[known]
        carried = np.flatnonzero(rows >= 0)
        part = rows[carried]
        local = self.placed.to_part(points[:, carried] - self.placed.origin[part].T, part)
        points[:, carried] = other.placed.to_world(local, part) + other.placed.origin[part].T
        vectors[:, known] = points - other.camera.centre[:, None]
        pixels, depth = other.camera.project(vectors)
        return pixels, np.where(known, depth, np.where(depth > 0.0, np.inf, -np.inf))

    def _pick_grid(self, bounds: Sequence[float]) -> np.ndarray:
        height, width = self.size
        left, top = max(math.ceil(bounds[0]), 0), max(math.ceil(bounds[1]), 0)
        right, bottom = min(math.floor(bounds[2]), width - 1), min(math.floor(bounds[3]), height - 1)
        return _grid(height, width)[1][top : max(bottom + 1, 0), left : max(right + 1, 0)].ravel()


class _Picker:
    """Finds the given pixels inside screen bounds."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.order = np.argsort(pixels[0], kind="stable")
        self.column, self.row = pixels[0, self.order], pixels[1, self.order]

    def __call__(self, bounds: Sequence[float]) -> np.ndarray:
        first, last = np.searchsorted(self.column, (bounds[0], bounds[2]))
        rows = self.row[first:last]
        return self.order[first:last][(rows >= bounds[1]) & (rows <= bounds[3])]


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel centres `(2, H W)` and their running numbers `(H, W)`."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([columns.ravel(), rows.ravel()]).astype(np.float64)
    return pixels, np.arange(height * width).reshape(height, width)


def render(
    seed: int,
    index: int,
    size: tuple[int, int],
    *,
    time: float = 0,
    view: str = "left",
    outputs: Sequence[str] = ("image", "depth", "labels"),
    world: WorldParameters = WORLD,
) -> dict[str, np.ndarray]:
    """Image number `index` of world `seed`: a pure function of its arguments.

    Args:
        seed: World, an integer >= 0.
        index: Scene, an integer >= 0; every scene has its own street, light, camera and drive.
        size: Height and width in pixels, at least 8 each.
        time: Moment in frames; -1, 0 and 1 are a triplet, fractions are moments between.
        view: "left", or "right" for the camera one baseline to the right.
        outputs: Which of `OUTPUTS` to return.
        world: The ranges that scenes are drawn from.

    Returns:
        image: uint8 `(H, W, 3)` RGB. radiance: float64 `(H, W, 3)`, the same without clipping or rounding, 1 = white.
        depth: float32 `(H, W)`, metres along the optical axis; 0 = sky, which has none.
        labels: uint8 `(H, W)`, ids of "camvid11". moving: bool `(H, W)`, objects with a motion of their own.
        flow_next, flow_previous: float32 `(H, W, 2)`, pixels right and down that the surface point moves on its way
        to the image one frame later or earlier, by camera and own motion; 0 where it gets behind the camera.
        visible_next, visible_previous: bool `(H, W)`, whether it is inside that image and not hidden.
        intrinsics: float64 `(3, 3)` in pixels, pixel centres whole-numbered. pose: float64 `(4, 4)`, camera to world,
        metres, x right, y down, z forward. baseline: float64 `()`, metres from the left camera to the right one.

    Raises:
        ValueError: An argument outside of what is listed here.
    """
    _check(seed, index, size, view, outputs)
    if not math.isfinite(time):
        raise ValueError(f"time is {time!r}; give a moment in frames, such as -1, 0 or 1.")
    height, width = size
    scene = build_scene(seed, index, world)
    here = View(scene, (height, width), time, view)
    found: dict[str, np.ndarray] = {"intrinsics": here.camera.intrinsics, "pose": here.camera.pose}
    found["baseline"] = np.array(scene.path.baseline)
    if _CAMERA_OUTPUTS.issuperset(outputs):
        return {name: found[name] for name in outputs}
    rays, hits = here.cast()
    if "image" in outputs or "radiance" in outputs:
        found["radiance"] = here.radiance(rays, hits).reshape(height, width, 3)
        found["image"] = quantise(found["radiance"])
    known = np.isfinite(hits.depth)
    found["depth"] = np.where(known, hits.depth, 0.0).astype(np.float32).reshape(height, width)
    found["labels"] = _labels(scene, hits).reshape(height, width)
    found["moving"] = _moving(scene, hits).reshape(height, width)
    for name, step in (("next", 1), ("previous", -1)):
        if f"flow_{name}" in outputs or f"visible_{name}" in outputs:
            there = View(scene, (height, width), time + step, view)
            flow, visible = _flow(here, rays, hits, there, f"visible_{name}" in outputs)
            found[f"flow_{name}"], found[f"visible_{name}"] = flow, visible
    return {name: found[name] for name in outputs}


def quantise(radiance: np.ndarray) -> np.ndarray:
    """Radiance, 1 = white, as the uint8 of an image."""
    return np.round(np.clip(radiance, 0.0, 1.0) * 255.0).astype(np.uint8)


def _labels(scene: Scene, hits: Hits) -> np.ndarray:
    """Class ids `(N,)`."""
    codes = {SKY_SURFACE: objects.SKY, ROAD_SURFACE: objects.ROAD, PAVEMENT_SURFACE: objects.PAVEMENT}
    tail = [codes[code] for code in sorted(codes)]
    return np.concatenate([scene.parts.label, tail]).astype(np.uint8)[hits.surface]


def _moving(scene: Scene, hits: Hits) -> np.ndarray:
    """Whether each ray meets a body that moves by itself, `(N,)`."""
    moves = scene.parts.motion[scene.parts.body, 3] != 0.0
    return np.concatenate([moves, [False] * 3])[hits.surface]


def _flow(
    here: View, rays: np.ndarray, hits: Hits, there: View, with_visibility: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Optical flow `(H, W, 2)` from one view to another, and where its end is seen `(H, W)`."""
    height, width = here.size
    pixels, depth = here.follow(rays, hits, there)
    in_front = depth > 0.0
    flow = np.where(in_front, pixels - _grid(height, width)[0], 0.0)
    visible = in_front & (np.abs(pixels[0] - (width - 1) / 2) <= width / 2)
    visible &= np.abs(pixels[1] - (height - 1) / 2) <= height / 2
    if with_visibility:
        inside = np.flatnonzero(visible)
        _, seen = there.cast(pixels[:, inside])
        same = seen.surface == hits.surface[inside]
        with np.errstate(invalid="ignore"):
            close = np.abs(seen.depth - depth[inside]) <= _VISIBLE_DEPTH_TOLERANCE * depth[inside]
        visible[inside] = same & (close | np.isinf(depth[inside]))
    return flow.T.reshape(height, width, 2).astype(np.float32), visible.reshape(height, width)


def _check(seed: int, index: int, size: tuple[int, int], view: str, outputs: Sequence[str]) -> None:
    """Raise a ValueError for arguments of `render` that mean nothing."""
    for name, value in (("seed", seed), ("index", index)):
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} is {value!r}; the procedural world counts from 0 in whole numbers.")
    check_size(size)
    if view not in VIEWS:
        raise ValueError(f"view is {view!r}; the procedural world has the views {', '.join(VIEWS)}.")
    check_outputs(outputs, OUTPUTS)


def check_size(size: Sequence[int]) -> None:
    """Raise a ValueError unless `size` is (height, width) in whole numbers from 8 up."""
    pair = isinstance(size, Sequence) and len(size) == 2
    if not pair or any(not isinstance(n, (int, np.integer)) or n < 8 for n in size):
        raise ValueError(f"size is {size!r}; give (height, width) in whole pixels, 8 or more, such as (64, 192).")


def check_outputs(outputs: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise a ValueError for an output that does not exist, or for a bare string."""
    names = [outputs] if isinstance(outputs, str) else list(outputs)
    unknown = [name for name in names if name not in allowed]
    if isinstance(outputs, str) or unknown or not names:
        raise ValueError(f"outputs is {outputs!r}; give a list with any of: {', '.join(allowed)}.")
