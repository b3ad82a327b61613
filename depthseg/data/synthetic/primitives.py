"""The parts that objects are made of: a builder that collects them, and the arrays that the renderer reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .world import Colour, Draw

BOX, ELLIPSOID, CONE, PLATE = range(4)
RECTANGLE, DISC, TRIANGLE, OCTAGON, DIAMOND, PICKETS, RAILS, PLANKS = range(8)
SIGN_SHAPES = (RECTANGLE, DISC, TRIANGLE, OCTAGON, DIAMOND)
FAR = 1e6


@dataclass(frozen=True)
class Material:
    """A two-colour pattern of cells, and blotches over it.

    Attributes:
        ground: colour between the cells (walls, joints, borders).
        cell: colour inside the cells (window panes, slabs, planks).
        period: size of a cell along x, height and z in metres; `FAR` for one cell everywhere.
        fill: share of the period that a cell takes, along each axis.
        vary: how much brightness differs from cell to cell.
        blotch: size of the blotches in metres.
        contrast: strength of the blotches; 0 is flat colour.
        centred: whether a cell lies centred on the part's origin, else the pattern starts anywhere.
    """

    ground: Colour
    cell: Colour | None = None
    period: tuple[float, float, float] = (FAR, FAR, FAR)
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    vary: float = 0.0
    blotch: float = 1.0
    contrast: float = 0.2
    centred: bool = False


@dataclass(frozen=True)
class Parts:
    """All parts of a scene as arrays with one row per part (B rows for bodies).

    Attributes:
        kind: BOX, ELLIPSOID, CONE or PLATE.
        label: class id.
        body: row of the rigid body that carries the part.
        offset: `(P, 3)` of the part's origin in the body's axes: the middle of the base for boxes and cones, the
            centre for ellipsoids and plates.
        size: `(P, 3)` half width, height (half height for ellipsoids and plates), half length.
        taper: `(P, 2)` shrinking of half width and half length per metre of height.
        shear: `(P, 2)` shift along x and z per metre of height.
        shape: outline of a plate.
        ground, cell: `(P, 3)` colours; period, fill, phase: `(P, 3)` of the cell pattern; vary, blotch, contrast.
        noise_origin: `(P, 3)`.
        motion: `(B, 5)` x, z, heading, speed, turn of each body at time 0.
    """

    kind: np.ndarray
    label: np.ndarray
    body: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    taper: np.ndarray
    shear: np.ndarray
    shape: np.ndarray
    ground: np.ndarray
    cell: np.ndarray
    period: np.ndarray
    fill: np.ndarray
    phase: np.ndarray
    vary: np.ndarray
    blotch: np.ndarray
    contrast: np.ndarray
    noise_origin: np.ndarray
    motion: np.ndarray


@dataclass
class Builder:
    """Collects bodies and parts; `height` is how far above the road the current body stands."""

    draw: Draw
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    motion: list[tuple[float, ...]] = field(default_factory=list)
    height: float = 0.0

    def body(self, x: float, z: float, heading: float, height: float, speed: float = 0.0, turn: float = 0.0) -> None:
        """Start a rigid body; the parts that follow belong to it."""
        self.motion.append((x, z, heading, speed, turn))
        self.height = height

    def part(
        self,
        kind: int,
        label: int,
        at: tuple[float, float, float],
        size: tuple[float, float, float],
        material: Material,
        taper: tuple[float, float] = (0.0, 0.0),
        shear: tuple[float, float] = (0.0, 0.0),
        shape: int = RECTANGLE,
    ) -> None:
        """Add a part at `(x, height, z)` of the current body."""
        draw, look = self.draw, material
        phase = (0.5, 0.5, 0.5) if look.centred else (draw.unit(), 0.0, draw.unit())
        origin = (9.0 * draw.unit(), 9.0 * draw.unit(), 9.0 * draw.unit())
        self.rows.append(
            (kind, label, len(self.motion) - 1, shape, look.vary, look.blotch, look.contrast)
            + (at[0], -(at[1] + self.height), at[2], *size, *taper, *shear)
            + (*look.ground, *(look.cell or look.ground), *look.period, *look.fill, *phase, *origin)
        )

    def plain(self, colour: Colour | None = None, blotch: float = 0.6) -> Material:
        """A material of one colour with blotches of random strength."""
        return Material(colour or self.draw.colour(), blotch=blotch, contrast=self.contrast())

    def contrast(self) -> float:
        """A random strength of blotches."""
        return self.draw.between(self.draw.world.texture_contrast)

    def build(self) -> Parts:
        """The collected parts as arrays."""
        table = np.array(self.rows, np.float64)
        whole = {name: table[:, i].astype(np.int64) for i, name in enumerate(("kind", "label", "body", "shape"))}
        scalars = {name: table[:, 4 + i] for i, name in enumerate(("vary", "blotch", "contrast"))}
        columns, start = {}, 7
        for name, width in _COLUMNS:
            columns[name] = np.ascontiguousarray(table[:, start : start + width])
            start += width
        return Parts(**whole, **scalars, **columns, motion=np.array(self.motion, np.float64))


_COLUMNS = (
    ("offset", 3),
    ("size", 3),
    ("taper", 2),
    ("shear", 2),
    ("ground", 3),
    ("cell", 3),
    ("period", 3),
    ("fill", 3),
    ("phase", 3),
    ("noise_origin", 3),
)


def plate_level(shape: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 in the middle of a plate's outline, 1 on it; `x` and `y` (down) are shares of its half sizes."""
    if shape == DISC:
        return np.hypot(x, y)
    if shape == TRIANGLE:
        return np.maximum(y, 2.0 * np.abs(x) - y)
    if shape == DIAMOND:
        return np.abs(x) + np.abs(y)
    square = np.maximum(np.abs(x), np.abs(y))
    return np.maximum(square, (np.abs(x) + np.abs(y)) / np.sqrt(2.0)) if shape == OCTAGON else square
