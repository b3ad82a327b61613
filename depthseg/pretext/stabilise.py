"""How a camera turned between two frames, found without learning anything.

A turn moves all pixels of a picture alike, whatever their depth, and by far more than driving does. So it hides the
differences in motion that depth is learned from, and a network that has to find it first is what holds up training.
Here it is found by aligning the pictures; a pose network then sees the pair without it.

Shape letters: B batch, H and W picture size, N pixels.

Source:
    Bian et al. 2020 (weak rectification), https://huggingface.co/papers/2006.02708, for taking turns out before depth
    is learned; Baker and Matthews 2004, "Lucas-Kanade 20 years on: a unifying framework", section 3.2, for the
    inverse compositional step, and section 3.1 of part 2 for robust weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..geometry import back_project, correspond, pose_from_axis_angle, resize_area, scale_intrinsics, warp

SMALLEST_SIDE = 8
"""Pixels of the shorter side of the coarsest pictures that are aligned."""

STEPS = (6, 4, 2)
"""Gauss-Newton steps on each size of pictures, coarse to fine."""

ROBUST_ABOVE = 0.2
"""Standard deviations of the picture; larger differences, of what is near or moves by itself, count less."""

DAMPING = 1e-3


@torch.no_grad()
def find_turn(target: Tensor, source: Tensor, intrinsics: Tensor) -> Tensor:
    """The rotation that makes one picture look most like another, as if all of the scene were far away.

    Robust Gauss-Newton from no turn at all, on pictures of three sizes; differences in brightness and contrast of the
    whole picture do not count. Works for turns of up to a tenth of the picture; where the camera drives, too, the
    result is off by what that looks like in most of the picture, a few tenths of a degree.

    Args:
        target: `(B, 3, H, W)`, in any range.
        source: `(B, 3, H, W)`, a neighbour in time.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, 3)`, axis times angle in radians, from the axes of the target camera to those of the source's. 0 where
        pictures have no texture.
    """
    full = tuple(target.shape[-2:])
    target, source = (normalise_brightness(picture) for picture in (target, source))
    turn = target.new_zeros(len(target), 3)
    with torch.autocast(target.device.type, enabled=False):
        for size, steps in zip(level_sizes(full), STEPS, strict=False):
            camera = scale_intrinsics(intrinsics.float(), full, size)
            template, other = resize_area(target, size), resize_area(source, size)
            jacobian = turn_jacobian(template[:, 0], camera)
            for _ in range(steps):
                seen, inside = warp(other, turned_pixels(turn, camera, size))
                difference = (seen - template)[:, 0].flatten(1)
                weights = inside.flatten(1) / difference.abs().clamp(min=ROBUST_ABOVE)
                weighted = jacobian * weights[:, None]
                hessian = weighted @ jacobian.mT
                diagonal = hessian.diagonal(dim1=1, dim2=2)
                floor = 1e-6 * hessian.shape[-1] * template[0].numel()  # no texture, no turn
                hessian = hessian + torch.diag_embed(DAMPING * diagonal + floor)
                step = torch.linalg.solve(hessian, weighted @ difference[..., None])[..., 0]
                # Turns between frames are small: composing them is adding their axes.
                turn = turn - step
    return turn


def stabilise(source: Tensor, turn: Tensor, intrinsics: Tensor) -> Tensor:
    """A picture as a camera would have seen it that had not turned.

    Args:
        source: `(B, C, H, W)`.
        turn: `(B, 3)`, as from `find_turn`.
        intrinsics: `(B, 3, 3)`, pixels.

    Returns:
        `(B, C, H, W)`; beyond the border of `source` its outer pixels go on.
    """
    return warp(source, turned_pixels(turn, intrinsics, tuple(source.shape[-2:])))[0].to(source.dtype)


def turned_pixels(turn: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a turned camera sees what each pixel shows, `(B, 2, H, W)`; depth plays no part."""
    anywhere = turn.new_ones(len(turn), *size)
    return correspond(anywhere, intrinsics, intrinsics, pose_from_axis_angle(turn, torch.zeros_like(turn)))[0]


def turn_jacobian(picture: Tensor, intrinsics: Tensor) -> Tensor:
    """How grey values change as the camera begins to turn: `(B, 3, N)` of `picture` `(B, H, W)`, per radian."""
    padded = F.pad(picture[:, None], [1] * 4, mode="replicate")[:, 0]
    right = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2 * intrinsics[:, 0, 0, None, None]
    down = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2 * intrinsics[:, 1, 1, None, None]
    x, y, _ = back_project(torch.ones_like(picture), intrinsics).unbind(1)
    about_x = -right * x * y - down * (1 + y.square())
    about_y = right * (1 + x.square()) + down * x * y
    about_z = down * x - right * y
    return torch.stack([about_x, about_y, about_z], 1).flatten(2)


def normalise_brightness(picture: Tensor) -> Tensor:
    """Grey `(B, 1, H, W)` float32 of mean 0 and, where there is any texture, standard deviation 1."""
    grey = picture.float().mean(1, keepdim=True)
    grey = grey - grey.mean((1, 2, 3), keepdim=True)
    return grey / grey.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)


def level_sizes(full: tuple[int, int]) -> list[tuple[int, int]]:
    """Up to three sizes, each twice the one before; the first has a shorter side of `SMALLEST_SIDE` to twice that."""
    coarsest = max((min(full) // SMALLEST_SIDE).bit_length() - 1, 0)
    factors = [2**level for level in range(coarsest, max(coarsest - len(STEPS), -1), -1)]
    return [tuple(-(-side // factor) for side in full) for factor in factors]
