"""Camera motion between two frames by direct image alignment: Gauss-Newton on their grey values.

A rotation moves all pixels of an image in the same way, independent of depth, and usually by more than translation
does. A pose network must learn rotation before a depth network can be trained, and its errors remain larger than the
differences in motion that supervise depth. Rotations are therefore estimated by image alignment (`find_rotation`) and
removed (`stabilise`), a pose network predicts the residual motion, and rotation and speed are refined with the
predicted depth (`refine_motion`). A flow network uses the same alignment: it predicts the residual flow after the
rotation is removed, and `rotated_pixels` combines both.

Shape letters: B batch, H and W image size, N pixels.

Source:
    Bian et al. 2020 (weak rectification), https://huggingface.co/papers/2006.02708, for removing rotation before depth
    training; Wang et al. 2018 (direct visual odometry), https://huggingface.co/papers/1712.00175, for motion that is
    optimal for the current depth; Baker and Matthews 2004, "Lucas-Kanade 20 years on: a unifying framework", for the
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
    rigid_pose,
    scale_intrinsics,
    transform,
    warp,
)

SMALLEST_SIDE = 8
"""Pixels of the shorter side of the coarsest images that are aligned."""

ROTATION_STEPS = (6, 4, 2)
"""Gauss-Newton steps at each image size, coarse to fine, to estimate a rotation."""

REFINING_STEPS = (0, 2, 2)
"""Gauss-Newton steps at each image size, coarse to fine, to refine a motion."""

SPEED_RANGE = 3.0
"""Maximum factor by which a speed is refined. Without this limit, a flat scene with a rotating camera that moves
sideways explains most pairs as well as the true scene, and training can converge to it."""

ROBUST_ABOVE = 0.2
"""Standard deviations of the image; larger differences, as of near or moving objects, have a lower weight."""

DAMPING = 1e-3


@torch.no_grad()
def find_rotation(target: Tensor, source: Tensor, intrinsics: Tensor) -> Tensor:
    """Estimate the camera rotation between two images, as if the whole scene were far away.

    The initial rotation is zero; global differences in brightness and contrast are removed. The method works for
    rotations of up to a tenth of the image. If the camera also translates, the result has an error of a few tenths of
    a degree.

    Args:
        target: `(B, 3, H, W)`, in any range.
        source: `(B, 3, H, W)`, a neighbouring frame.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, 3)`, axis times angle in radians, from the axes of the target camera to those of the source's. 0 for
        images without texture.
    """
    rotation = target.new_zeros(len(target), 3, dtype=torch.float32)
    with torch.autocast(target.device.type, enabled=False):
        for template, other, camera, steps in levels(target, source, intrinsics, ROTATION_STEPS):
            jacobian = rotation_jacobian(template[:, 0], camera)
            grid = pixel_grid(*template.shape[-2:], device=template.device)
            for _ in range(steps):
                seen, inside = warp(other, rotated_pixels(rotation, camera, grid))
                # Rotations between frames are small, so composing them is adding their axis vectors.
                rotation = rotation - newton_step(jacobian, seen - template, inside)
    return rotation


@torch.no_grad()
def refine_motion(target: Tensor, source: Tensor, depth: Tensor, intrinsics: Tensor, pose: Tensor) -> Tensor:
    """Refine the rotation and the speed of a motion, given depth; the direction of translation is not changed.

    Args:
        target: `(B, 3, H, W)`, in any range.
        source: `(B, 3, H, W)`, a neighbouring frame.
        depth: `(B, H, W)` of `target`, in the unit of `pose`.
        intrinsics: `(B, 3, 3)`, pixels.
        pose: `(B, 4, 4)` from the axes of the target camera to those of the source's.

    Returns:
        `(B, 4, 4)`; its translation is that of `pose` times a factor from 1 / `SPEED_RANGE` to `SPEED_RANGE`.
    """
    inverse = 1 / depth.float()[:, None]
    unit = inverse.mean((1, 2, 3), keepdim=True)
    # Translation in units of depth, so that damping does not depend on the unit of length.
    inverse = inverse / unit
    translation = pose[:, :3, 3:].float() * unit[:, 0]
    speed = translation.norm(dim=1, keepdim=True)
    direction = translation / speed.clamp(min=1e-8)
    rotation = pose[:, :3, :3].float()
    factor = torch.ones_like(speed)
    with torch.autocast(target.device.type, enabled=False):
        for template, other, camera, steps in levels(target, source, intrinsics, REFINING_STEPS):
            nearness = resize_area(inverse, tuple(template.shape[-2:]))[:, 0]
            turning = rotation_jacobian(template[:, 0], camera)
            driving = drive_jacobian(template[:, 0], nearness, camera)
            for _ in range(steps):
                forward = (driving * (rotation.mT @ direction)).sum(1, keepdim=True)
                jacobian = torch.cat([turning, forward], 1)
                pixels = correspond(1 / nearness, camera, camera, rigid_pose(rotation, direction * speed * factor))[0]
                seen, inside = warp(other, pixels)
                step = newton_step(jacobian, seen - template, inside)
                rotation = rotation @ rotation_pose(-step[:, :3])[:, :3, :3]
                faster = factor - step[:, 3:, None] / speed.clamp(min=1e-8)
                factor = faster.clamp(1 / SPEED_RANGE, SPEED_RANGE)
    return rigid_pose(rotation, pose[:, :3, 3:].float() * factor)


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
    """For each size: both normalised images `(B, 1, h, w)`, intrinsics, and the number of steps."""
    full = tuple(target.shape[-2:])
    target, source = (normalise_brightness(image) for image in (target, source))
    sizes = level_sizes(full)
    for size, count in zip(sizes, steps[len(steps) - len(sizes) :], strict=True):
        if count:
            camera = scale_intrinsics(intrinsics.float(), full, size)
            yield resize_area(target, size), resize_area(source, size), camera, count


def stabilise(source: Tensor, rotation: Tensor, intrinsics: Tensor) -> Tensor:
    """Warp an image to the view of a camera that has not rotated.

    Args:
        source: `(B, C, H, W)`.
        rotation: `(B, 3)`, as from `find_rotation`.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, C, H, W)`; outside `source` its outer pixels are repeated.
    """
    grid = pixel_grid(*source.shape[-2:], device=source.device)
    return warp(source, rotated_pixels(rotation, intrinsics, grid))[0].to(source.dtype)


def rotated_pixels(rotation: Tensor, intrinsics: Tensor, pixels: Tensor) -> Tensor:
    """The positions of `pixels` in the image of a rotated camera, which are independent of depth.

    Args:
        rotation: `(B, 3)`, as from `find_rotation`.
        intrinsics: `(B, 3, 3)`, pixels.
        pixels: `(B, 2, H, W)` or, the same for all, `(2, H, W)`: x and y, also outside the image.

    Returns:
        `(B, 2, H, W)`, x and y.
    """
    pixels = pixels.expand(len(rotation), -1, -1, -1)
    anywhere = back_project(torch.ones_like(pixels[:, 0]), intrinsics, pixels)
    return project(transform(anywhere, rotation_pose(rotation)), intrinsics)[0]


def rotation_pose(rotation: Tensor) -> Tensor:
    """The pose `(B, 4, 4)` of a pure rotation `(B, 3)`."""
    return pose_from_axis_angle(rotation, torch.zeros_like(rotation))


def rotation_jacobian(image: Tensor, intrinsics: Tensor) -> Tensor:
    """Derivative `(B, 3, N)` of the grey values of `image` `(B, H, W)` by the camera rotation, per radian."""
    right, down = slopes(image, intrinsics)
    x, y, _ = back_project(torch.ones_like(image), intrinsics).unbind(1)
    about_x = -right * x * y - down * (1 + y.square())
    about_y = right * (1 + x.square()) + down * x * y
    about_z = down * x - right * y
    return torch.stack([about_x, about_y, about_z], 1).flatten(2)


def drive_jacobian(image: Tensor, nearness: Tensor, intrinsics: Tensor) -> Tensor:
    """Derivative `(B, 3, N)` of the grey values by the camera translation; `nearness` `(B, H, W)` is 1 / depth."""
    right, down = slopes(image, intrinsics)
    x, y, _ = back_project(torch.ones_like(image), intrinsics).unbind(1)
    return torch.stack([nearness * right, nearness * down, -nearness * (right * x + down * y)], 1).flatten(2)


def slopes(image: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of grey values `(B, H, W)` to the right and downwards, per focal length."""
    padded = F.pad(image[:, None], [1] * 4, mode="replicate")[:, 0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2 * intrinsics[:, 0, 0, None, None]
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2 * intrinsics[:, 1, 1, None, None]
    return right, down


def normalise_brightness(image: Tensor) -> Tensor:
    """Grey `(B, 1, H, W)` float32 of mean 0 and, for images with texture, standard deviation 1."""
    grey = image.float().mean(1, keepdim=True)
    grey = grey - grey.mean((1, 2, 3), keepdim=True)
    return grey / grey.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def level_sizes(full: tuple[int, int]) -> list[tuple[int, int]]:
    """Up to three sizes, each twice the one before; the first has a shorter side of `SMALLEST_SIDE` to twice that."""
    coarsest = max((min(full) // SMALLEST_SIDE).bit_length() - 1, 0)
    factors = [2**level for level in range(coarsest, max(coarsest - len(ROTATION_STEPS), -1), -1)]
    return [tuple(-(-side // factor) for side in full) for factor in factors]
