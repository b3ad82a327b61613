"""The alignment of images in a step of `pretrain_synthetic_mono`, against its plain formulae.

The plain side warps by pixel coordinates at every Gauss-Newton step and solves its systems by `torch.linalg.solve`.

Source: Baker and Matthews 2004, "Lucas-Kanade 20 years on: a unifying framework".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

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
from ..pretext.alignment import (
    DAMPING,
    REFINING_STEPS,
    ROBUST_ABOVE,
    ROTATION_STEPS,
    SPEED_RANGE,
    find_rotation,
    level_sizes,
    refine_motion,
    stabilise,
)
from .timing import Comparison, relative_difference, time_in_turns

NUM_SOURCES = 2
DEPTH = 10.0
SPEED = 0.3


def compare(name: str, repeats: int, *, batch: int, size: tuple[int, int]) -> Iterator[Comparison]:
    """Compare both sides, with two sources; see `bench`. Their difference is that of the images and poses found.

    Args:
        name: Of the case.
        repeats: Timed runs of each side.
        batch: Number of images.
        size: Height and width.
    """
    inputs = make_inputs(batch, *size)
    expected, found = (torch.cat([part.flatten() for part in side(*inputs)]) for side in SIDES.values())
    runs = {label: partial(side, *inputs) for label, side in SIDES.items()}
    yield Comparison(name, time_in_turns(runs, repeats), *size, difference=relative_difference(expected, found))


def make_inputs(batch: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Smooth random images, others that see them turned, intrinsics, and depth."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch * NUM_SOURCES, 3, height // 4, width // 4, generator=generator)
    target = F.interpolate(coarse, (height, width), mode="bicubic")
    camera = torch.tensor([[width, 0.0, (width - 1) / 2], [0.0, width, (height - 1) / 2], [0.0, 0.0, 1.0]])
    cameras = camera.expand(len(target), 3, 3)
    turns = torch.randn(len(target), 3, generator=generator) * 0.01
    depth = DEPTH * (0.5 + torch.rand(len(target), height, width, generator=generator))
    return target, plain_stabilise(target, turns, cameras), cameras, depth


@torch.no_grad()
def align(
    find: Callable[..., Tensor],
    turn_back: Callable[..., Tensor],
    refine: Callable[..., Tensor],
    target: Tensor,
    source: Tensor,
    cameras: Tensor,
    depth: Tensor,
) -> list[Tensor]:
    """Find rotations, turn the sources back, and refine a motion: what a training step does beside its network."""
    rotation = find(target, source, cameras)
    forwards = pose_from_axis_angle(rotation, torch.tensor([[0.0, 0.0, -SPEED]]).expand(len(target), 3))
    return [rotation, turn_back(source, rotation, cameras), refine(target, source, depth, cameras, forwards)]


def plain_find_rotation(target: Tensor, source: Tensor, intrinsics: Tensor) -> Tensor:
    """As `find_rotation`."""
    rotation = target.new_zeros(len(target), 3)
    for template, other, camera, steps in plain_levels(target, source, intrinsics, ROTATION_STEPS):
        jacobian = plain_rotation_jacobian(template[:, 0], camera)
        for _ in range(steps):
            seen, inside = warp(other, rotated_grid(rotation, camera, tuple(template.shape[-2:])))
            rotation = rotation - plain_newton_step(jacobian, seen - template, inside)
    return rotation


def plain_refine_motion(target: Tensor, source: Tensor, depth: Tensor, intrinsics: Tensor, pose: Tensor) -> Tensor:
    """As `refine_motion`."""
    inverse = 1 / depth[:, None]
    unit = inverse.mean((1, 2, 3), keepdim=True)
    inverse = inverse / unit
    translation = pose[:, :3, 3:] * unit[:, 0]
    speed = translation.norm(dim=1, keepdim=True)
    direction = translation / speed.clamp(min=1e-8)
    rotation, factor = pose[:, :3, :3], torch.ones_like(speed)
    for template, other, camera, steps in plain_levels(target, source, intrinsics, REFINING_STEPS):
        nearness = resize_area(inverse, tuple(template.shape[-2:]))[:, 0]
        turning = plain_rotation_jacobian(template[:, 0], camera)
        driving = plain_drive_jacobian(template[:, 0], nearness, camera)
        for _ in range(steps):
            jacobian = torch.cat([turning, (driving * (rotation.mT @ direction)).sum(1, keepdim=True)], 1)
            motion = rigid_pose(rotation, direction * speed * factor)
            seen, inside = warp(other, correspond(1 / nearness, camera, camera, motion)[0])
            step = plain_newton_step(jacobian, seen - template, inside)
            rotation = rotation @ pose_from_axis_angle(-step[:, :3], torch.zeros_like(step[:, :3]))[:, :3, :3]
            faster = factor - step[:, 3:, None] / speed.clamp(min=1e-8)
            factor = faster.clamp(1 / SPEED_RANGE, SPEED_RANGE)
    return rigid_pose(rotation, pose[:, :3, 3:] * factor)


def plain_stabilise(source: Tensor, rotation: Tensor, intrinsics: Tensor) -> Tensor:
    """As `stabilise`."""
    return warp(source, rotated_grid(rotation, intrinsics, tuple(source.shape[-2:])))[0]


def rotated_grid(rotation: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Positions `(B, 2, H, W)` of all pixels in the image of a rotated camera."""
    pixels = pixel_grid(*size).expand(len(rotation), -1, -1, -1)
    anywhere = back_project(torch.ones_like(pixels[:, 0]), intrinsics, pixels)
    return project(transform(anywhere, pose_from_axis_angle(rotation, torch.zeros_like(rotation))), intrinsics)[0]


def plain_newton_step(jacobian: Tensor, difference: Tensor, inside: Tensor) -> Tensor:
    """The damped, robust Gauss-Newton step `(B, K)`."""
    difference = difference[:, 0].flatten(1)
    weights = inside.flatten(1) / difference.abs().clamp(min=ROBUST_ABOVE)
    weighted = jacobian * weights[:, None]
    hessian = weighted @ jacobian.mT
    damping = torch.diag_embed(DAMPING * hessian.diagonal(dim1=1, dim2=2) + 1e-6 * difference.shape[1])
    return torch.linalg.solve(hessian + damping, weighted @ difference[..., None])[..., 0]


def plain_levels(
    target: Tensor, source: Tensor, intrinsics: Tensor, steps: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    """For each size: both normalised images, intrinsics, and the number of steps."""
    full = tuple(target.shape[-2:])
    target, source = (plain_normalise(image) for image in (target, source))
    sizes = level_sizes(full)
    for size, count in zip(sizes, steps[len(steps) - len(sizes) :], strict=True):
        if count:
            camera = scale_intrinsics(intrinsics, full, size)
            yield resize_area(target, size), resize_area(source, size), camera, count


def plain_normalise(image: Tensor) -> Tensor:
    """Grey of mean 0 and standard deviation 1."""
    grey = image.mean(1, keepdim=True)
    grey = grey - grey.mean((1, 2, 3), keepdim=True)
    return grey / grey.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def plain_rotation_jacobian(image: Tensor, intrinsics: Tensor) -> Tensor:
    """Derivative of the grey values by the camera rotation."""
    right, down = plain_slopes(image, intrinsics)
    x, y, _ = back_project(torch.ones_like(image), intrinsics).unbind(1)
    about_x = -right * x * y - down * (1 + y.square())
    about_y = right * (1 + x.square()) + down * x * y
    return torch.stack([about_x, about_y, down * x - right * y], 1).flatten(2)


def plain_drive_jacobian(image: Tensor, nearness: Tensor, intrinsics: Tensor) -> Tensor:
    """Derivative of the grey values by the camera translation."""
    right, down = plain_slopes(image, intrinsics)
    x, y, _ = back_project(torch.ones_like(image), intrinsics).unbind(1)
    return torch.stack([nearness * right, nearness * down, -nearness * (right * x + down * y)], 1).flatten(2)


def plain_slopes(image: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of grey values to the right and downwards, per focal length."""
    padded = F.pad(image[:, None], [1] * 4, mode="replicate")[:, 0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2 * intrinsics[:, 0, 0, None, None]
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2 * intrinsics[:, 1, 1, None, None]
    return right, down


SIDES = {
    "plain": partial(align, plain_find_rotation, plain_stabilise, plain_refine_motion),
    "depthseg": partial(align, find_rotation, stabilise, refine_motion),
}
