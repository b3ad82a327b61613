"""Objects of the street, each made of a few parts; every colour is drawn anew for every object."""

from __future__ import annotations

from ..label_spaces import LABEL_SPACES
from .primitives import (
    BOX,
    CONE,
    ELLIPSOID,
    FAR,
    PICKETS,
    PLANKS,
    PLATE,
    RAILS,
    RECTANGLE,
    SIGN_SHAPES,
    Builder,
    Material,
)

_IDS = LABEL_SPACES["camvid11"].label2id
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = (
    _IDS[name]
    for name in (
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    )
)


def building(b: Builder, width: float, depth: float) -> None:
    """A house with rows of windows, a ground floor of its own, and a flat or gabled roof; it faces x."""
    draw = b.draw
    height, storey = draw.between(draw.world.building_height), draw.between((2.6, 3.4))
    pitch = draw.between((1.8, 3.6))
    fill = (draw.between((0.35, 0.7)), draw.between((0.4, 0.65)))
    muted = {"saturation": draw.world.muted_saturation, "brightness": draw.world.wall_brightness}
    wall, pane = draw.colour(**muted), draw.colour(**muted)
    facade = Material(
        wall, pane, (pitch, storey, pitch), (fill[0], fill[1], fill[0]), draw.between((0.1, 0.5)), 1.6, b.contrast()
    )
    b.part(BOX, BUILDING, (0, 0, 0), (depth / 2, height, width / 2), facade)
    bay = draw.between((2.0, 4.5))
    shop = Material(draw.colour(**muted), draw.colour(), (bay, FAR, bay), (0.7, 1.0, 0.7), 0.3, 1.2, b.contrast())
    b.part(BOX, BUILDING, (0, 0, 0), (depth / 2 + 0.06, min(storey, height) - 0.4, width / 2 + 0.06), shop)
    rows, whole = (FAR, 0.6, FAR), (1.0, 0.7, 1.0)
    tiles = Material(draw.colour(**muted), draw.colour(**muted), rows, whole, 0.2, 1.2, b.contrast())
    if draw.chance(draw.world.gable_share):
        ridge = draw.between((1.2, 3.0))
        size = (depth / 2 + 0.3, ridge, width / 2 + 0.2)
        b.part(BOX, BUILDING, (0, height, 0), size, tiles, taper=(size[0] / ridge, 0.0))
    else:
        b.part(BOX, BUILDING, (0, height, 0), (depth / 2 + 0.2, 0.5, width / 2 + 0.2), tiles)


def tree(b: Builder) -> None:
    """A trunk under a crown of blobs, a conifer, or a bush."""
    draw = b.draw
    kind, leaves = draw.unit(), draw.colour(draw.world.leaf_hue, draw.world.leaf_saturation)
    crown = Material(
        leaves, blotch=draw.between(draw.world.leaf_blotch), contrast=draw.between(draw.world.leaf_contrast)
    )
    bark = Material(
        draw.colour(brightness=draw.world.dark), blotch=0.3, contrast=draw.between(draw.world.leaf_contrast)
    )
    if kind < 0.1:
        radius = draw.between((0.5, 1.1))
        b.part(ELLIPSOID, TREE, (0, 0.5 * radius, 0), (radius, 0.9 * radius, radius), crown)
        return
    height, radius = draw.between(draw.world.tree_height), draw.between(draw.world.crown_radius)
    trunk = draw.between((0.25, 0.5)) * height
    b.part(CONE, TREE, (0, 0, 0), (draw.between((0.12, 0.3)), height * 0.7, 0), bark, taper=(0.02, 0.0))
    if kind < 0.25:
        top = height - trunk * 0.5
        b.part(CONE, TREE, (0, trunk * 0.5, 0), (radius, top, 0), crown, taper=(radius / top, 0.0))
        return
    for _ in range(draw.count((2, 4))):
        r = radius * draw.between((0.6, 1.0))
        x, z = radius * draw.between((-0.6, 0.6)), radius * draw.between((-0.6, 0.6))
        at = (x, draw.between((trunk + r * 0.6, height)), z)
        b.part(ELLIPSOID, TREE, at, (r, r * draw.between((0.7, 1.0)), r), crown)


def _bands(b: Builder, period: float) -> Material:
    """Two colours that take turns with height."""
    fill = b.draw.between((0.4, 0.8))
    return Material(b.draw.colour(), b.draw.colour(), (FAR, period, FAR), (1.0, fill, 1.0), 0.0, 0.5, b.contrast())


def pole(b: Builder) -> None:
    """A street lamp, a plain mast, or a bollard."""
    draw = b.draw
    kind, radius = draw.unit(), draw.between(draw.world.pole_radius)
    plain = b.plain(draw.colour(saturation=draw.world.muted_saturation))
    look = _bands(b, draw.between((0.4, 1.5))) if draw.chance(0.2) else plain
    if kind < 0.1:
        b.part(BOX, POLE, (0, 0, 0), (radius, draw.between((0.8, 1.2)), radius), look)
        return
    height = draw.between(draw.world.pole_height)
    b.part(CONE, POLE, (0, 0, 0), (radius, height, 0), look, taper=(0.3 * radius / height, 0.0))
    if kind < 0.7:
        reach = draw.between((0.8, 2.0))
        b.part(BOX, POLE, (reach / 2, height - 0.15, 0), (reach / 2, 0.12, 0.07), look)
        b.part(BOX, POLE, (reach, height - 0.3, 0), (0.4, 0.22, 0.2), b.plain())


def sign(b: Builder) -> None:
    """A plate with a border and a symbol, or two, on a post; the plate faces along z."""
    draw = b.draw
    radius, height = draw.between(draw.world.sign_radius), draw.between((1.5, 2.4))
    post = draw.between((0.05, 0.09))
    top = height + 2 * radius
    b.part(CONE, POLE, (0, 0, 0.04 + post), (post, top + 0.1, 0), b.plain())
    for level in range(2 if draw.chance(0.25) else 1):
        shape = SIGN_SHAPES[draw.count((0, 4))]
        stripes = draw.between((0.5, 1.1)) * radius
        period, fill = (stripes, stripes, FAR), (0.6, 0.6, 1.0)
        vivid = {"saturation": draw.world.sign_saturation, "brightness": draw.world.sign_brightness}
        border, inside = draw.colour(**vivid), draw.colour(**vivid)
        face = Material(border, inside, period, fill, 0.6, 0.8, b.contrast(), centred=True)
        wide = radius * (draw.between((0.8, 1.6)) if shape == RECTANGLE else 1.0)
        at = (0, height + radius - level * 2.05 * radius, 0)
        b.part(PLATE, SIGN, at, (wide, radius, 0.0), face, shape=shape)


def fence(b: Builder, length: float) -> None:
    """A panel along x: planks, pickets, or rails between posts."""
    draw = b.draw
    height, kind = draw.between(draw.world.fence_height), draw.count((0, 6))
    step, fill = draw.between((0.25, 0.7)), draw.between((0.65, 0.85))
    planks = Material(draw.colour(), draw.colour(), (step, FAR, FAR), (fill, 1.0, 1.0), 0.4, 0.9, b.contrast())
    shape = (RAILS, PICKETS, PICKETS, PLANKS, PLANKS, PLANKS, PLANKS)[kind]
    half = height / 2
    b.part(PLATE, FENCE, (0, half, 0), (length / 2, half, 0.0), planks, shape=shape)
    posts = b.plain()
    for k in range(3):
        x = (k - 1) * (length / 2 - 0.1)
        b.part(BOX, FENCE, (x, 0, 0.12), (0.08, height + 0.1, 0.08), posts)


def car(b: Builder) -> None:
    """Body, cabin with windows, four wheels and lamps; it faces z."""
    draw = b.draw
    half, wide = draw.between(draw.world.car_length) / 2, draw.between(draw.world.car_width) / 2
    van = draw.chance(draw.world.van_share)
    belt = draw.between((0.6, 0.75))
    paint, glass = draw.colour(), draw.colour(brightness=draw.world.dark)
    body = Material(paint, paint, (FAR, FAR, half), (1.0, 1.0, 0.94), 0.15, 0.9, b.contrast())
    b.part(BOX, CAR, (0, 0.28, 0), (wide, belt, half), body, taper=(0.04, 0.06))
    roof = draw.between((0.9, 1.4)) if van else draw.between((0.5, 0.65))
    pane = (2 * wide, 2 * roof, half * 0.85)
    cabin = Material(paint, glass, pane, (0.8, 0.62, 0.84), 0.3, 0.6, b.contrast(), centred=True)
    slope, length, shift = (0.12, half * 0.96, 0.0) if van else (0.75, half * 0.72, -0.12 * half)
    b.part(BOX, CAR, (0, 0.28 + belt, shift), (wide * 0.95, roof, length), cabin, taper=(0.22, slope))
    tyre, lamp = b.plain(draw.colour(brightness=draw.world.dark)), b.plain()
    for side in (-1, 1):
        for end in (-0.62, 0.62):
            b.part(ELLIPSOID, CAR, (side * (wide - 0.08), 0.34, end * half), (0.13, 0.34, 0.34), tyre)
        for end in (-1, 1):
            b.part(ELLIPSOID, CAR, (side * wide * 0.7, 0.72, end * (half - 0.06)), (0.2, 0.11, 0.1), lamp)


def pedestrian(b: Builder) -> None:
    """Two legs, a torso, arms and a head; walks along z."""
    draw = b.draw
    k = draw.between(draw.world.pedestrian_height) / 1.75
    step = draw.between((0.05, 0.3))
    trousers, skin = b.plain(blotch=0.35), b.plain(blotch=0.3)
    shirt = _bands(b, draw.between((0.15, 0.4))) if draw.chance(0.4) else b.plain(blotch=0.35)
    for side in (-1, 1):
        foot, leg = (side * 0.1 * k, 0, side * step * 0.85 * k), (0.09 * k, 0.85 * k, 0.1 * k)
        b.part(BOX, PEDESTRIAN, foot, leg, trousers, shear=(0.0, -side * step))
        arm = (side * 0.27 * k, 0.8 * k, -side * step * 0.5 * k)
        b.part(BOX, PEDESTRIAN, arm, (0.06 * k, 0.6 * k, 0.07 * k), shirt, shear=(0.0, side * step * 0.8))
    b.part(BOX, PEDESTRIAN, (0, 0.8 * k, 0), (0.19 * k, 0.66 * k, 0.13 * k), shirt, taper=(-0.05, 0.0))
    b.part(ELLIPSOID, PEDESTRIAN, (0, 1.61 * k, 0), (0.11 * k, 0.15 * k, 0.12 * k), skin)


def bicyclist(b: Builder) -> None:
    """Two wheels, a frame and a rider who leans forward; rides along z."""
    draw = b.draw
    wheel = b.plain(draw.colour(brightness=draw.world.dark))
    frame, trousers, skin = b.plain(), b.plain(blotch=0.35), b.plain(blotch=0.3)
    shirt = _bands(b, draw.between((0.15, 0.4))) if draw.chance(0.4) else b.plain(blotch=0.35)
    for end in (-0.55, 0.55):
        b.part(ELLIPSOID, BICYCLIST, (0, 0.36, end), (0.045, 0.36, 0.36), wheel)
    b.part(BOX, BICYCLIST, (0, 0.4, 0.05), (0.035, 0.42, 0.06), frame, shear=(0.0, -0.5))
    b.part(BOX, BICYCLIST, (0, 0.5, 0.2), (0.035, 0.09, 0.42), frame)
    b.part(BOX, BICYCLIST, (0, 0.36, 0.55), (0.035, 0.72, 0.045), frame, shear=(0.0, -0.2))
    b.part(BOX, BICYCLIST, (0, 1.0, 0.4), (0.28, 0.06, 0.05), frame)
    for side in (-1, 1):
        foot = 0.12 * side
        b.part(BOX, BICYCLIST, (side * 0.12, 0.3 + foot, 0.1), (0.08, 0.62, 0.1), trousers, shear=(0.0, -0.45))
        b.part(BOX, BICYCLIST, (side * 0.23, 1.0, 0.42), (0.05, 0.42, 0.06), shirt, shear=(0.0, -0.75))
    b.part(BOX, BICYCLIST, (0, 0.9, -0.2), (0.18, 0.6, 0.13), shirt, taper=(-0.05, 0.0), shear=(0.0, 0.55))
    b.part(ELLIPSOID, BICYCLIST, (0, 1.66, 0.22), (0.11, 0.15, 0.13), skin)
