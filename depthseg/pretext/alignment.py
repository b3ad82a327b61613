"""Motion of a camera between two frames from the frames themselves: Gauss-Newton on their grey values.

A turn moves all pixels of a picture alike, whatever their depth, and by far more than driving does. A pose network has
to learn that before a depth network can learn anything, and its errors stay larger than the differences in motion
that depth is learned from. So turns are found by aligning pictures (`find_turn`) and taken out (`stabilise`), a pose
network says where the camera went, and with the depth at hand its turn and its speed are set right (`refine_motion`).
A flow network is helped in the same way: it learns the flow that a turn leaves over, and `turned_pixels` puts both
together.

Shape letters: B batch, H and W picture size, N pixels.

Source:
    Bian et al. 2020 (weak rectification), https://huggingface.co/papers/2006.02708, for taking turns out before depth
    is learned; Wang et al. 2018 (direct visual odometry), https://huggingface.co/papers/1712.00175, for motion that is
    optimal for the depth at hand; Baker and Matthews 2004, "Lucas-Kanade 20 years on: a unifying framework", for the
    inverse compositional step and robust weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import (
    back_project,
    correspond,
    pixel_grid,
    pose_from_axis_angle,
    project,
    resize_area,
    scale_intrinsics,
    transform,
    warp,
)

SMALLEST_SIDE = 8
"""Pixels of the shorter side of the coarsest pictures that are aligned."""

TURN_STEPS = (6, 4, 2)
"""Gauss-Newton steps on each size of pictures, coarse to fine, to find a turn."""

REFINING_STEPS = (0, 2, 2)
"""The same, to set a motion right that is nearly so."""

SPEED_RANGE = 3.0
"""By what factor a speed may be set right. Were it free, a flat scene seen by a camera that turns and slides sideways
would explain most pairs as well as the truth, and training could end there."""

ROBUST_ABOVE = 0.2
"""Standard deviations of the picture; larger differences, of what is near or moves by itself, count less."""

DAMPING = 1e-3


@torch.no_grad()
def find_turn(target: Tensor, source: Tensor, intrinsics: Tensor) -> Tensor:
    """The rotation that makes one picture look most like another, as if all of the scene were far away.

    Begins with no turn at all; differences in brightness and contrast of the whole picture do not count. Works for
    turns of up to a tenth of the picture; where the camera drives, too, the result is off by what that looks like in
    most of the picture, a few tenths of a degree.

    Args:
        target: `(B, 3, H, W)`, in any range.
        source: `(B, 3, H, W)`, a neighbour in time.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, 3)`, axis times angle in radians, from the axes of the target camera to those of the source's. 0 where
        pictures have no texture.
    """
    turn = target.new_zeros(len(target), 3, dtype=torch.float32)
    with torch.autocast(target.device.type, enabled=False):
        for template, other, camera, steps in levels(target, source, intrinsics, TURN_STEPS):
            jacobian = turn_jacobian(template[:, 0], camera)
            grid = pixel_grid(*template.shape[-2:], device=template.device)
            for _ in range(steps):
                seen, inside = warp(other, turned_pixels(turn, camera, grid))
                # Turns between frames are small: composing them is adding their axes.
                turn = turn - newton_step(jacobian, seen - template, inside)
    return turn


@torch.no_grad()
def refine_motion(target: Tensor, source: Tensor, depth: Tensor, intrinsics: Tensor, pose: Tensor) -> Tensor:
    """Set the turn and the speed of a motion right, given depth; where the camera goes stays as it is.

    Args:
        target: `(B, 3, H, W)`, in any range.
        source: `(B, 3, H, W)`, a neighbour in time.
        depth: `(B, H, W)` of `target`, in the unit of `pose`.
        intrinsics: `(B, 3, 3)`, pixels.
        pose: `(B, 4, 4)` from the axes of the target camera to those of the source's.

    Returns:
        `(B, 4, 4)`; its translation is that of `pose` times a factor from 1 / `SPEED_RANGE` to `SPEED_RANGE`.
    """
    inverse = 1 / depth.float()[:, None]
    unit = inverse.mean((1, 2, 3), keepdim=True)
    # Translation as a share of depth, so that damping does not depend on the unit.
    inverse = inverse / unit
    translation = pose[:, :3, 3:].float() * unit[:, 0]
    speed = translation.norm(dim=1, keepdim=True)
    direction = translation / speed.clamp(min=1e-8)
    rotation = pose[:, :3, :3].float()
    factor = torch.ones_like(speed)
    with torch.autocast(target.device.type, enabled=False):
        for template, other, camera, steps in levels(target, source, intrinsics, REFINING_STEPS):
            nearness = resize_area(inverse, tuple(template.shape[-2:]))[:, 0]
            turning = turn_jacobian(template[:, 0], camera)
            driving = drive_jacobian(template[:, 0], nearness, camera)
            for _ in range(steps):
                forward = (driving * (rotation.mT @ direction)).sum(1, keepdim=True)
                jacobian = torch.cat([turning, forward], 1)
                pixels = correspond(1 / nearness, camera, camera, rigid(rotation, direction * speed * factor))[0]
                seen, inside = warp(other, pixels)
                step = newton_step(jacobian, seen - template, inside)
                rotation = rotation @ turn_pose(-step[:, :3])[:, :3, :3]
                faster = factor - step[:, 3:, None] / speed.clamp(min=1e-8)
                factor = faster.clamp(1 / SPEED_RANGE, SPEED_RANGE)
    return rigid(rotation, pose[:, :3, 3:].float() * factor)


def newton_step(jacobian: Tensor, difference: Tensor, inside: Tensor) -> Tensor:
    """The damped, robust Gauss-Newton step `(B, K)` of motion `(B, K, N)` that explains differences `(B, 1, H, W)`."""
    difference = difference[:, 0].flatten(1)
    weights = inside.flatten(1) / difference.abs().clamp(min=ROBUST_ABOVE)
    weighted = jacobian * weights[:, None]
    hessian = weighted @ jacobian.mT
    floor = 1e-6 * difference.shape[1]  # no texture, no motion
    damping = torch.diag_embed(DAMPING * hessian.diagonal(dim1=1, dim2=2) + floor)
    return torch.linalg.solve(hessian + damping, weighted @ difference[..., None])[..., 0]


def levels(
    target: Tensor, source: Tensor, intrinsics: Tensor, steps: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """Both pictures `(B, 1, h, w)`, normalised, and intrinsics of each size that steps are done on, and how many."""
    full = tuple(target.shape[-2:])
    target, source = (normalise_brightness(picture) for picture in (target, source))
    sizes = level_sizes(full)
    for size, count in zip(sizes, steps[len(steps) - len(sizes) :], strict=True):
        if count:
            camera = scale_intrinsics(intrinsics.float(), full, size)
            yield resize_area(target, size), resize_area(source, size), camera, count


def stabilise(source: Tensor, turn: Tensor, intrinsics: Tensor) -> Tensor:
    """A picture as a camera would have seen it that had not turned.

    Args:
        source: `(B, C, H, W)`.
        turn: `(B, 3)`, as from `find_turn`.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, C, H, W)`; beyond the border of `source` its outer pixels go on.
    """
    grid = pixel_grid(*source.shape[-2:], device=source.device)
    return warp(source, turned_pixels(turn, intrinsics, grid))[0].to(source.dtype)


def turned_pixels(turn: Tensor, intrinsics: Tensor, pixels: Tensor) -> Tensor:
    """Where a turned camera sees what lies at `pixels`; depth plays no part.

    Args:
        turn: `(B, 3)`, as from `find_turn`.
        intrinsics: `(B, 3, 3)`, pixels.
        pixels: `(B, 2, H, W)` or, the same for all, `(2, H, W)`: x and y, anywhere.

    Returns:
        `(B, 2, H, W)`, x and y.
    """
    pixels = pixels.expand(len(turn), -1, -1, -1)
    anywhere = back_project(torch.ones_like(pixels[:, 0]), intrinsics, pixels)
    return project(transform(anywhere, turn_pose(turn)), intrinsics)[0]


def turn_pose(turn: Tensor) -> Tensor:
    """The pose `(B, 4, 4)` of a turn `(B, 3)` on the spot."""
    return pose_from_axis_angle(turn, torch.zeros_like(turn))


def rigid(rotation: Tensor, translation: Tensor) -> Tensor:
    """The pose `(B, 4, 4)` of a matrix `(B, 3, 3)` and a translation `(B, 3, 1)`."""
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, translation], 2), last], 1)


def turn_jacobian(picture: Tensor, intrinsics: Tensor) -> Tensor:
    """How grey values change as the camera begins to turn: `(B, 3, N)` of `picture` `(B, H, W)`, per radian."""
    right, down = slopes(picture, intrinsics)
    x, y, _ = back_project(torch.ones_like(picture), intrinsics).unbind(1)
    about_x = -right * x * y - down * (1 + y.square())
    about_y = right * (1 + x.square()) + down * x * y
    about_z = down * x - right * y
    return torch.stack([about_x, about_y, about_z], 1).flatten(2)


def drive_jacobian(picture: Tensor, nearness: Tensor, intrinsics: Tensor) -> Tensor:
    """How they change as it begins to move along its axes: `(B, 3, N)`; `nearness` `(B, H, W)` is 1 / depth."""
    right, down = slopes(picture, intrinsics)
    x, y, _ = back_project(torch.ones_like(picture), intrinsics).unbind(1)
    return torch.stack([nearness * right, nearness * down, -nearness * (right * x + down * y)], 1).flatten(2)


def slopes(picture: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Change of grey values `(B, H, W)` to the right and downwards, per focal length."""
    padded = F.pad(picture[:, None], [1] * 4, mode="replicate")[:, 0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2 * intrinsics[:, 0, 0, None, None]
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2 * intrinsics[:, 1, 1, None, None]
    return right, down


def normalise_brightness(picture: Tensor) -> Tensor:
    """Grey `(B, 1, H, W)` float32 of mean 0 and, where there is any texture, standard deviation 1."""
    grey = picture.float().mean(1, keepdim=True)
    grey = grey - grey.mean((1, 2, 3), keepdim=True)
    return grey / grey.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def level_sizes(full: tuple[int, int]) -> list[tuple[int, int]]:
    """Up to three sizes, each twice the one before; the first has a shorter side of `SMALLEST_SIDE` to twice that."""
    coarsest = max((min(full) // SMALLEST_SIDE).bit_length() - 1, 0)
    factors = [2**level for level in range(coarsest, max(coarsest - len(TURN_STEPS), -1), -1)]
    return [tuple(-(-side // factor) for side in full) for factor in factors]
