"""Colours, geometry and levels of a batch of 8-bit images on any device, to the very bytes that Pillow makes.

What is to be done is drawn where samples are read, and all sums here are of whole numbers, or of single operations
that IEEE 754 defines to the last bit. So it makes no difference to a run which device, or how many processes, did it.
Shape letters: N images, H and W their largest height and width, h and w the size of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data.pixel_changes import CONTRAST, SATURATION, Geometry, PixelChange

if TYPE_CHECKING:
    from ..data.pixel_changes import ColourChange

_BITS = 22
"""Of the fraction of a weight, in Pillow's filters for bytes."""

_LUMA, _LUMA_BITS = (19595, 38470, 7471), 16
"""Of red, green and blue in Pillow's grey images, and the bits of their fraction."""


def pack_changes(images: Sequence[np.ndarray], changes: Sequence[PixelChange]) -> dict[str, Any]:
    """Images as they were read, and what is to be done to them, as tensors for `change_pixels`.

    Args:
        images: uint8 `(H, W, 3)`; they may differ in size.
        changes: One for each image, all with one size of the result.

    Returns:
        `values`, uint8 `(N, H, W, 3)`, and the tensors of `pack_plan`.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    values = np.zeros((len(images), height, width, 3), np.uint8)
    for place, image in zip(values, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return {"values": torch.from_numpy(values), **pack_plan(images, changes)}


def pack_plan(images: Sequence[np.ndarray], changes: Sequence[PixelChange]) -> dict[str, Any]:
    """What is to be done to some images: `sizes` `(N, 2)`, their colours, and the pixels that each result mixes.

    `rows_first` is no tensor, because the process that asks a device for a value waits for it.
    """
    sizes = [image.shape[:2] for image in images]
    rows_first = [_rows_first(size, change.geometry.inner) for size, change in zip(sizes, changes, strict=True)]
    plan: dict[str, Any] = {"sizes": torch.tensor(sizes), "rows_first": rows_first}
    if any(change.colours for change in changes):
        plan |= _pack_colours([change.colours for change in changes])
    return plan | _pack_geometry(sizes, changes)


def _pack_geometry(sizes: Sequence[tuple[int, int]], changes: Sequence[PixelChange]) -> dict[str, Tensor]:
    plan = {}
    for axis, name in enumerate(("rows", "columns")):
        mixed = [_mixed(change.geometry, size, axis) for change, size in zip(changes, sizes, strict=True)]
        count = max(weights.shape[1] for _, weights in mixed)
        for suffix, arrays in zip(("", "_weights"), zip(*mixed, strict=True), strict=True):
            together = np.zeros((len(arrays), len(arrays[0]), count), arrays[0].dtype)
            for place, each in zip(together, arrays, strict=True):
                place[:, : each.shape[1]] = each
            plan[name + suffix] = torch.from_numpy(together)
    return plan


def change_pixels(packed: dict[str, Any]) -> Tensor:
    """Do what `pack_changes` packed.

    Returns:
        uint8 `(N, h, w, 3)`, on the device of the images, as `PixelChange.of` makes them.
    """
    values = packed["values"]
    if "order" in packed:
        values = _change_colours(values, packed)
    made = {order: _resample(values, packed, order) for order in set(packed["rows_first"])}
    if len(made) == 1:
        return made.popitem()[1]
    return torch.stack([made[order][number] for number, order in enumerate(packed["rows_first"])])


def levels(values: Tensor, table: Tensor) -> Tensor:
    """What a table `(3, 256)` of floats has for the bytes `(..., H, W, 3)` of images; `(..., 3, H, W)`."""
    planes = values.movedim(-1, -3)
    return (_levels_on_cpu if values.device.type == "cpu" else _levels_elsewhere)(planes, table)


def _levels_on_cpu(planes: Tensor, table: Tensor) -> Tensor:
    found = torch.empty(planes.shape, dtype=table.dtype)
    # NumPy takes bytes for indices as they are, a plane at a time, which stays in the cache of the processor.
    for image, place in zip(planes.flatten(0, -4).numpy(), found.flatten(0, -4).numpy(), strict=True):
        for plane, of_channel, target in zip(image, table.numpy(), place, strict=True):
            np.take(of_channel, plane, out=target, mode="clip")
    return found


def _levels_elsewhere(planes: Tensor, table: Tensor) -> Tensor:
    channels = zip(table, planes.unbind(-3), strict=True)
    return torch.stack([of_channel[plane.long()] for of_channel, plane in channels], -3)


def _pack_colours(changes: Sequence[ColourChange | None]) -> dict[str, Any]:
    order = [(0, 1, 2) if change is None else change.order for change in changes]
    factors = [(1.0, 1.0, 1.0) if change is None else change.factors for change in changes]
    placed = [[of[which] for which in first_to_last] for of, first_to_last in zip(factors, order, strict=True)]
    return {"order": torch.tensor(order), "factors": torch.tensor(np.array(placed, np.float32))}


def _change_colours(values: Tensor, packed: dict[str, Any]) -> Tensor:
    rows, columns = (torch.arange(side, device=values.device) for side in values.shape[1:3])
    height, width = packed["sizes"].T[..., None]
    inside = (rows < height)[:, :, None] & (columns < width)[:, None]
    for which, factor in zip(packed["order"].T[..., None, None, None], packed["factors"].T, strict=True):
        grey = sum(share * values[..., channel].int() for channel, share in enumerate(_LUMA))
        grey = (grey + (1 << (_LUMA_BITS - 1))) >> _LUMA_BITS
        mean = torch.where(inside, grey, 0).sum((1, 2)).double() / packed["sizes"].prod(1)
        level = torch.where(which == CONTRAST, (mean + 0.5).int()[:, None, None, None], 0)
        mixed_with = torch.where(which == SATURATION, grey[..., None], level).float()
        # Two operations, not one: a fused one would round once where Pillow rounds twice.
        apart = factor[:, None, None, None] * (values.float() - mixed_with)
        values = (mixed_with + apart).clamp(0, 255).to(torch.uint8)
    return values


def _resample(values: Tensor, packed: dict[str, Any], rows_first: bool) -> Tensor:
    axes = {"rows": 1, "columns": 2}
    for name in axes if rows_first else reversed(axes):
        mixed = _mix(values.transpose(1, axes[name]), packed[name], packed[f"{name}_weights"])
        values = mixed.transpose(1, axes[name])
    return values


def _rows_first(size: tuple[int, int], inner: tuple[int, int]) -> bool:
    """Whether Pillow mixes rows before it mixes columns; each pass rounds, so the order counts."""
    fewer_rows, fewer_columns = (before - after for before, after in zip(size, inner, strict=True))
    return _pillow_chooses() and fewer_rows > max(2 * fewer_columns, 0)


@cache
def _pillow_chooses() -> bool:
    """Whether this Pillow mixes rows first where that is less work, as from version 13 on."""
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    change = PixelChange(Geometry((0.5, 0.5, 15.5, 15.5), (4, 16), (4, 16), False))
    found = _resample(torch.from_numpy(values)[None], _pack_geometry([values.shape[:2]], [change]), rows_first=True)
    return np.array_equal(found[0].numpy(), change.of(values))


def _mixed(geometry: Geometry, size: tuple[int, int], axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels along an axis each pixel of the result mixes: int64 `(n, K)`, and int32 weights `(n, K)`."""
    # Pillow takes the box in single precision, and all else in double.
    low, high = np.float32(geometry.box[1 - axis]), np.float32(geometry.box[3 - axis])
    inner, whole = geometry.inner[axis], geometry.size[axis]
    scale = float(high - low) / inner
    reach = max(scale, 1.0)
    centre = float(low) + (np.arange(inner) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + reach + 0.5).astype(np.int64), size[axis])
    pixels = first[:, None] + np.arange((last - first).max())
    weights = np.maximum(1 - np.abs((pixels - centre[:, None] + 0.5) / reach), 0) * (pixels < last[:, None])
    weights = weights / np.cumsum(weights, 1)[:, -1:]
    weights = (0.5 + weights * (1 << _BITS)).astype(np.int32)
    pixels = np.minimum(pixels, size[axis] - 1)
    if whole > inner:  # no weight at all makes black
        pixels, weights = (np.pad(values, ((0, whole - inner), (0, 0))) for values in (pixels, weights))
    mirrored = np.s_[::-1] if axis == 1 and geometry.mirrored else np.s_[:]
    return pixels[mirrored].copy(), weights[mirrored].copy()


def _mix(values: Tensor, pixels: Tensor, weights: Tensor) -> Tensor:
    """Filter uint8 `(N, S, T, 3)` along S; pixels and weights `(N, n, K)`."""
    image = torch.arange(len(values), device=values.device)[:, None]
    shape = (*pixels.shape[:2], *values.shape[2:])
    total = torch.full(shape, 1 << (_BITS - 1), dtype=torch.int32, device=values.device)
    for tap in range(weights.shape[-1]):
        total += weights[:, :, tap, None, None] * values[image, pixels[..., tap]].int()
    return (total >> _BITS).to(torch.uint8)
