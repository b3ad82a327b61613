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
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import (
    MIN_DEPTH,
    back_project,
    pose_from_axis_angle,
    project,
    resize_area,
    rigid_pose,
    scale_intrinsics,
    transform,
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

OUTSIDE = 3.0
"""Beyond one image size outside, in the units of `grid_sample`, what is seen does not change."""


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
        for level in levels(target, source, intrinsics, ROTATION_STEPS):
            jacobian = rotation_jacobian(level.target, level.intrinsics, level.rays)
            for _ in range(level.steps):
                seen = level.look(level.rays, rotation_matrix(rotation), MIN_DEPTH)
                # Rotations between frames are small, so composing them is adding their axis vectors.
                rotation = rotation - newton_step(jacobian, *seen)
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
        for level in levels(target, source, intrinsics, REFINING_STEPS):
            nearness = resize_area(inverse, tuple(level.target.shape[-2:])).flatten(2)
            turning = rotation_jacobian(level.target, level.intrinsics, level.rays)
            driving = drive_jacobian(level.target, level.intrinsics, level.rays, nearness)
            # Points over depth: rays plus what translation adds to near ones. Unknown depth is never ahead.
            points = torch.cat([level.rays, nearness], 1)
            floor = torch.where(nearness > 0, MIN_DEPTH * nearness, torch.inf)
            for _ in range(level.steps):
                forward = (driving * (rotation.mT @ direction)).sum(1, keepdim=True)
                jacobian = torch.cat([turning, forward], 1)
                motion = torch.cat([rotation, direction * speed * factor], 2)
                step = newton_step(jacobian, *level.look(points, motion, floor))
                rotation = rotation @ rotation_matrix(-step[:, :3])
                faster = factor - step[:, 3:, None] / speed.clamp(min=1e-8)
                factor = faster.clamp(1 / SPEED_RANGE, SPEED_RANGE)
    return rigid_pose(rotation, pose[:, :3, 3:].float() * factor)


@dataclass(frozen=True)
class Level:
    """Two images at one size.

    Attributes:
        target: Normalised grey values `(B, 1, h, w)`.
        source: Likewise, of the other image.
        intrinsics: `(B, 3, 3)`, pixels.
        rays: `(B, 3, h * w)`, as from `rays_of`.
        camera: `(B, 3, 3)`, as from `sampling_camera`.
        steps: Number of Gauss-Newton steps.
    """

    target: Tensor
    source: Tensor
    intrinsics: Tensor
    rays: Tensor
    camera: Tensor
    steps: int

    def look(self, points: Tensor, motion: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
        """Differences `(B, h * w)` of the source, seen at moved points, to the target; and where it was seen."""
        seen, inside = look(self.source, self.camera @ motion @ points, tuple(self.target.shape[-2:]), floor)
        return (seen - self.target).flatten(1), inside


def levels(target: Tensor, source: Tensor, intrinsics: Tensor, steps: tuple[int, ...]) -> Iterator[Level]:
    """Both images at each size that has steps, coarse to fine."""
    full = tuple(target.shape[-2:])
    images = [normalise_brightness(torch.cat([target, source]))]
    sizes = level_sizes(full)
    counts = steps[len(steps) - len(sizes) :]
    for size in reversed(sizes):
        factor = full[0] // size[0]
        # A mean of means is the mean where each is that of equally many pixels.
        in_halves = factor % 2 == 0 and full == (factor * size[0], factor * size[1])
        is_next = tuple(images[-1].shape[-2:]) == (2 * size[0], 2 * size[1])
        images.append(resize_area(images[-1] if in_halves and is_next else images[0], size))
    for size, views, count in zip(sizes, reversed(images), counts, strict=False):
        if count:
            scaled = scale_intrinsics(intrinsics.float(), full, size)
            yield Level(*views.chunk(2), scaled, rays_of(size, scaled), sampling_camera(scaled, size), count)


def rays_of(size: tuple[int, int], intrinsics: Tensor) -> Tensor:
    """The points `(B, 3, H * W)` at depth 1 that the pixels of an image show."""
    return back_project(intrinsics.new_ones(1, 1, 1).expand(len(intrinsics), *size), intrinsics).flatten(2)


def sampling_camera(intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Intrinsics `(B, 3, 3)` in the units of `grid_sample`: -1 and 1 are the edges of an image of height and width."""
    first, second, third = intrinsics.unbind(1)
    height, width = size
    x, y = first * (2 / width) + third * (1 / width - 1), second * (2 / height) + third * (1 / height - 1)
    return torch.stack([x, y, third], 1)


def look(images: Tensor, points: Tensor, size: tuple[int, int], floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Sample images at points; the same as `warp` at their pixels, in fewer passes over memory.

    Args:
        images: `(B, C, h, w)`.
        points: `(B, 3, H * W)`, projected by a `sampling_camera` but not divided by their depth.
        size: H and W.
        floor: Points whose depth is not above it, a number or `(B, 1, H * W)`, are behind the camera.

    Returns:
        `(B, C, H, W)`, and bool `(B, H * W)`: True where a point is ahead and inside the image.
    """
    depth = points[:, 2:]
    places = torch.where(depth > floor, points[:, :2] / depth, -OUTSIDE)
    # As in `warp`: numbers stay small, and NaN does not reach grid_sample.
    places = torch.nan_to_num(places, -OUTSIDE).clamp(-OUTSIDE, OUTSIDE)
    grid = places.mT.unflatten(1, size)
    seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return seen, places.abs().amax(1) <= 1


def newton_step(jacobian: Tensor, difference: Tensor, inside: Tensor) -> Tensor:
    """The damped, robust Gauss-Newton step `(B, K)` of motion `(B, K, N)` that explains differences `(B, N)`."""
    weights = inside / difference.abs().clamp(min=ROBUST_ABOVE)
    weighted = jacobian * weights[:, None]
    hessian = weighted @ jacobian.mT
    floor = 1e-6 * difference.shape[1]  # no texture, no motion
    hessian.diagonal(dim1=1, dim2=2).mul_(1 + DAMPING).add_(floor)
    return solve_positive(hessian, (weighted @ difference[..., None])[..., 0])


def solve_positive(matrices: Tensor, values: Tensor) -> Tensor:
    """Solve a batch of small positive definite systems by elimination, all of them at once.

    Without pivoting, which such matrices do not need. `torch.linalg.solve` takes many more calls for a batch, and on a
    GPU makes the host wait to see whether a matrix is singular.

    Args:
        matrices: `(B, K, K)`.
        values: `(B, K)`, right-hand sides.

    Returns:
        `(B, K)`.
    """
    rest, rows = torch.cat([matrices, values[..., None]], 2), []
    for _ in range(values.shape[1]):
        row = rest[:, :1] / rest[:, :1, :1]
        rows.append(row[:, 0])
        rest = torch.baddbmm(rest[:, 1:, 1:], rest[:, 1:, :1], row[:, :, 1:], alpha=-1)
    found = rows[-1][:, 1:]
    for row in rows[-2::-1]:
        found = torch.cat([row[:, -1:] - (row[:, 1:-1] * found).sum(1, keepdim=True), found], 1)
    return found


def stabilise(source: Tensor, rotation: Tensor, intrinsics: Tensor) -> Tensor:
    """Warp an image to the view of a camera that has not rotated.

    Args:
        source: `(B, C, H, W)`.
        rotation: `(B, 3)`, as from `find_rotation`.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, C, H, W)`; outside `source` its outer pixels are repeated.
    """
    size = tuple(source.shape[-2:])
    with torch.autocast(source.device.type, enabled=False):
        camera = intrinsics.to(rotation.dtype)
        turned = sampling_camera(camera, size) @ rotation_matrix(rotation) @ rays_of(size, camera)
        return look(source.to(turned.dtype), turned, size, MIN_DEPTH)[0].to(source.dtype)


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


def rotation_matrix(rotation: Tensor) -> Tensor:
    """The matrix `(B, 3, 3)` of a rotation `(B, 3)`, as axis times angle in radians; by its quaternion."""
    angle = rotation.norm(dim=1, keepdim=True)
    axis = rotation * (torch.sinc(angle / (2 * torch.pi)) / 2)
    unit = torch.eye(3, dtype=rotation.dtype, device=rotation.device).expand(len(rotation), 3, 3)
    cross = torch.linalg.cross(unit, axis[:, None], dim=2)
    return unit + 2 * (torch.cos(angle / 2)[..., None] * cross + cross @ cross)


def rotation_jacobian(image: Tensor, intrinsics: Tensor, rays: Tensor) -> Tensor:
    """Derivative `(B, 3, N)` of grey values `(B, 1, H, W)` by the camera rotation, per radian."""
    right, down = slopes(image, intrinsics)
    x, y, _ = rays.unbind(1)
    forward = right * x + down * y
    return torch.stack([-down - forward * y, right + forward * x, down * x - right * y], 1)


def drive_jacobian(image: Tensor, intrinsics: Tensor, rays: Tensor, nearness: Tensor) -> Tensor:
    """Derivative `(B, 3, N)` of the grey values by the camera translation; `nearness` `(B, 1, N)` is 1 / depth."""
    right, down = slopes(image, intrinsics)
    x, y, _ = rays.unbind(1)
    return nearness * torch.stack([right, down, -(right * x + down * y)], 1)


def slopes(image: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients `(B, H * W)` of grey values `(B, 1, H, W)` to the right and downwards, per focal length."""
    padded = F.pad(image, [1] * 4, mode="replicate")[:, 0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]).flatten(1) * (intrinsics[:, 0, 0, None] / 2)
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]).flatten(1) * (intrinsics[:, 1, 1, None] / 2)
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
