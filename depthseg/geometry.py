"""Pin-hole cameras, rigid motion and warps as pure functions on batches of tensors.

One convention holds throughout, that of the procedural world and of `grid_sample` with `align_corners=False`: the
centre of pixel (column x, row y) has the coordinates (x, y), whole numbers that begin at (0, 0); the picture ends half
a pixel beyond the outer centres, at -0.5 and at width - 0.5. Pixels are (x right, y down); camera axes are x right,
y down, z forward. Depth is z, not the distance; 0, negative, NaN and infinite depth is unknown. Intrinsics are
`[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]` in pixels with fx, fy > 0. A pose is `[[R, t], [0, 0, 0, 1]]` and carries
points from the axes of one camera to those of another: `R p + t`.

Everything is differentiable, works in any float dtype (mixed ones promote) and leaves autocast aside: coordinates that
are rounded to half precision are off by whole pixels. Metres stand for any unit of length.

Shape letters: B batch, C channels, H and W size of the picture that asks, h and w size of the picture it asks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PADDINGS = ("border", "zeros")
MIN_DEPTH = 1e-3
NOWHERE = -1e4
"""Both coordinates of a point that no pixel shows: outside of every picture, and finite in half precision."""


def pixel_grid(
    height: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Coordinates of all pixel centres, `(2, H, W)`: first x (0 to W - 1), then y (0 to H - 1)."""
    y = torch.arange(height, dtype=dtype, device=device)
    x = torch.arange(width, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def back_project(depth: Tensor, intrinsics: Tensor, pixels: Tensor | None = None) -> Tensor:
    """The points that the pixels of a depth map show.

    Args:
        depth: `(B, H, W)`, metres.
        intrinsics: `(B, 3, 3)`, of pictures of this size.
        pixels: `(B, 2, H, W)`, coordinates of the places that have these depths; None = the pixels of the map.

    Returns:
        `(B, 3, H, W)`, metres in the axes of the camera.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check_shape("depth", depth, (None, None, None))
    _check_shape("intrinsics", intrinsics, (len(depth), 3, 3))
    fx, fy, cx, cy, skew = _parts(intrinsics)
    if pixels is None:
        u, v = pixel_grid(*depth.shape[-2:], dtype=intrinsics.dtype, device=depth.device)
    else:
        _check_shape("pixels", pixels, (len(depth), 2, *depth.shape[-2:]))
        u, v = pixels.unbind(1)
    y = (v - cy) / fy
    x = (u - cx - skew * y) / fx
    return torch.stack([x * depth, y * depth, depth], 1)


def project(points: Tensor, intrinsics: Tensor, eps: float = MIN_DEPTH) -> tuple[Tensor, Tensor]:
    """Where a camera sees points.

    Args:
        points: `(B, 3, H, W)`, metres in the axes of the camera.
        intrinsics: `(B, 3, 3)`.
        eps: Metres; what is not farther ahead than this is behind the camera.

    Returns:
        Pixels `(B, 2, H, W)` and depth `(B, H, W)` in metres. Points behind the camera keep their depth, and their
        pixel is `NOWHERE`, without a gradient.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check_shape("points", points, (None, 3, None, None))
    _check_shape("intrinsics", intrinsics, (len(points), 3, 3))
    fx, fy, cx, cy, skew = _parts(intrinsics)
    depth = points[:, 2]
    ahead = depth > eps
    # A harmless divisor where it does not count: infinity times a zero gradient would be NaN.
    divisor = torch.where(ahead, depth, 1.0)
    x, y = points[:, 0] / divisor, points[:, 1] / divisor
    pixels = torch.stack([fx * x + skew * y + cx, fy * y + cy], 1)
    return torch.where(ahead[:, None], pixels, NOWHERE), depth


def transform(points: Tensor, pose: Tensor) -> Tensor:
    """Carry points `(B, 3, ...)` to other axes by a pose `(B, 4, 4)`: `R p + t`, of the shape of `points`.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    if points.dim() < 3 or points.shape[1] != 3:
        raise ValueError(f"points has shape {tuple(points.shape)}; expected (batch, 3, ...).")
    _check_shape("pose", pose, (len(points), 4, 4))
    return (_multiply(pose[:, :3, :3], points.flatten(2)) + pose[:, :3, 3:]).view(points.shape)


def invert_pose(pose: Tensor) -> Tensor:
    """The way back of a rigid pose `(B, 4, 4)`, same shape.

    Raises:
        ValueError: If the shape is another one.
    """
    _check_shape("pose", pose, (None, 4, 4))
    rotation = pose[:, :3, :3].mT
    return _pose(rotation, -_multiply(rotation, pose[:, :3, 3:]))


def compose_poses(second: Tensor, first: Tensor) -> Tensor:
    """The pose that does `first` and then `second`, both and the result `(B, 4, 4)`.

    As in a product of matrices the right one acts first. Between two cameras with camera-to-world poses `here` and
    `there`, points go by `compose_poses(invert_pose(there), here)`.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check_shape("second", second, (None, 4, 4))
    _check_shape("first", first, (len(second), 4, 4))
    return _multiply(second, first)


def pose_from_axis_angle(rotation: Tensor, translation: Tensor) -> Tensor:
    """Pose of a rotation about an axis, then a translation.

    The formula of Rodrigues, exact for every angle, with its power series where the angle is small: gradients of all
    orders are right at rotation zero too.

    Args:
        rotation: `(B, 3)`, the axis, as long as the angle in radians.
        translation: `(B, 3)`, metres.

    Returns:
        `(B, 4, 4)`.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check_shape("rotation", rotation, (None, 3))
    _check_shape("translation", translation, (len(rotation), 3))
    square = rotation.square().sum(1)[:, None, None]
    small = square < 1e-3
    angle = torch.where(small, 1.0, square).sqrt()
    sine = torch.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), angle.sin() / angle)
    # 1 - cos as a squared sine, which loses no digits at small angles.
    cosine = torch.where(
        small,
        0.5 - square / 24 * (1 - square / 30 * (1 - square / 56)),
        2 * (angle / 2).sin().square() / angle.square(),
    )
    x, y, z = rotation.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    outer = rotation[:, :, None] * rotation[:, None, :]
    unit = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return _pose(unit + sine * cross + cosine * (outer - square * unit), translation[:, :, None])


def scale_intrinsics(intrinsics: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Intrinsics of a resized picture.

    Edges go to edges, as `interpolate` with `align_corners=False` resizes: x + 0.5 grows with the width.

    Args:
        intrinsics: `(B, 3, 3)`.
        size: Height and width that they belong to, in pixels.
        new_size: Height and width after resizing.

    Returns:
        `(B, 3, 3)`.

    Raises:
        ValueError: If the shape does not fit or a size is not positive.
    """
    _check_shape("intrinsics", intrinsics, (None, 3, 3))
    for name, value in (("size", size), ("new_size", new_size)):
        if len(value) != 2 or min(value) <= 0:
            raise ValueError(f"{name} is {tuple(value)}; give (height, width) in pixels, both above 0.")
    sy, sx = new_size[0] / size[0], new_size[1] / size[1]
    scale = [[sx, 0.0, (sx - 1) / 2], [0.0, sy, (sy - 1) / 2], [0.0, 0.0, 1.0]]
    return _multiply(intrinsics.new_tensor(scale).expand_as(intrinsics), intrinsics)


def resize_area(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Average `(B, C, H, W)` down to a size; the same size leaves them as they are."""
    shape = tuple(pictures.shape[-2:])
    if shape == size:
        return pictures
    factor = shape[0] // size[0]
    if shape == (size[0] * factor, size[1] * factor):  # the same numbers in half of the time
        return F.avg_pool2d(pictures, factor)
    return F.interpolate(pictures, size=size, mode="area")


def warp(source: Tensor, pixels: Tensor, padding: str = "border") -> tuple[Tensor, Tensor]:
    """Look a picture up at any coordinates, bilinearly.

    Args:
        source: `(B, C, h, w)`.
        pixels: `(B, 2, H, W)`, coordinates in `source`.
        padding: What lies outside: "border" goes on with the outer pixels, "zeros" fades to 0 within one pixel.

    Returns:
        `(B, C, H, W)`, and bool `(B, H, W)`: True where the coordinates lie inside of the picture, edges included.
        Coordinates that are NaN or infinite lie outside, and have no gradient.

    Raises:
        ValueError: If the shapes do not fit together or the padding does not exist.
    """
    _check_shape("source", source, (None, None, None, None))
    _check_shape("pixels", pixels, (len(source), 2, None, None))
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; choose one of: {', '.join(PADDINGS)}.")
    dtype = torch.promote_types(source.dtype, pixels.dtype)
    height, width = source.shape[-2:]
    x, y = pixels[:, 0], pixels[:, 1]
    inside = ((x - (width - 1) / 2).abs() <= width / 2) & ((y - (height - 1) / 2).abs() <= height / 2)
    # A NaN coordinate crashes the process in the backward pass of grid_sample on the CPU (torch 2.13).
    pixels = torch.nan_to_num(pixels, NOWHERE, NOWHERE, NOWHERE).to(dtype)
    grid = torch.stack([(2 * pixels[:, 0] + 1) / width - 1, (2 * pixels[:, 1] + 1) / height - 1], -1)
    # Nothing changes farther outside than one picture size, and numbers stay tame.
    grid = grid.clamp(-3, 3)
    return F.grid_sample(source.to(dtype), grid, padding_mode=padding, align_corners=False), inside


def correspond(
    depth: Tensor, intrinsics: Tensor, source_intrinsics: Tensor, pose: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where another camera sees what each pixel shows, if nothing moves.

    Args:
        depth: `(B, H, W)`, metres.
        intrinsics: `(B, 3, 3)`, of the camera of `depth`.
        source_intrinsics: `(B, 3, 3)`, of the other camera.
        pose: `(B, 4, 4)`, from the axes of this camera to those of the other.

    Returns:
        Pixels `(B, 2, H, W)` in the other picture, or beyond it; depth `(B, H, W)` there, in metres; bool `(B, H, W)`:
        True where depth is known and the point lies ahead of the other camera. Elsewhere the pixel is `NOWHERE`,
        without a gradient.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    known = _known(depth)
    points = back_project(torch.where(known, depth, 1.0), intrinsics)
    pixels, source_depth = project(transform(points, pose), source_intrinsics)
    known = known & (source_depth > MIN_DEPTH)
    return torch.where(known[:, None], pixels, NOWHERE), source_depth, known


def reproject(
    source: Tensor, depth: Tensor, intrinsics: Tensor, source_intrinsics: Tensor, pose: Tensor, padding: str = "border"
) -> tuple[Tensor, Tensor]:
    """Rebuild a picture from another camera's, given its depth.

    Args:
        source: `(B, C, h, w)`, the other camera's picture.
        depth: `(B, H, W)`, metres, of the picture to rebuild.
        intrinsics: `(B, 3, 3)`, of the camera of `depth`.
        source_intrinsics: `(B, 3, 3)`, of the other camera.
        pose: `(B, 4, 4)`, from the axes of the camera of `depth` to those of the other.
        padding: As in `warp`.

    Returns:
        `(B, C, H, W)`, and bool `(B, H, W)`: True where depth is known and the point lies ahead of the other camera
        and inside of its picture. What hides it there is not asked; see `occlusion_mask`.

    Raises:
        ValueError: If the shapes do not fit together or the padding does not exist.
    """
    return warp(source, correspond(depth, intrinsics, source_intrinsics, pose)[0], padding)


def flow_from_depth(depth: Tensor, intrinsics: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Optical flow of a camera that moves through a still scene.

    Args:
        depth: `(B, H, W)`, metres.
        intrinsics: `(B, 3, 3)`, before and after the motion.
        pose: `(B, 4, 4)`, from the axes of the camera before to those after the motion.

    Returns:
        `(B, 2, H, W)`, pixels right and down; bool `(B, H, W)`: True where depth is known and the point stays ahead of
        the camera. Elsewhere the flow is 0.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    pixels, _, known = correspond(depth, intrinsics, intrinsics, pose)
    grid = pixel_grid(*depth.shape[-2:], dtype=pixels.dtype, device=pixels.device)
    return torch.where(known[:, None], pixels - grid, 0.0), known


def occlusion_mask(flow: Tensor, source_flow: Tensor, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Where a point cannot be seen in the other picture, by going there and back.

    Forward and backward flow cancel where both see the same point; they may differ, squared, by `relative` of the sum
    of their squares plus `absolute`.

    Args:
        flow: `(B, 2, H, W)`, from this picture to the other, in pixels.
        source_flow: `(B, 2, H, W)`, from the other picture to this one.
        relative: Share of the squared flows.
        absolute: Pixels squared.

    Returns:
        Bool `(B, H, W)`: True where the point is hidden in the other picture or lies outside of it.

    Raises:
        ValueError: If the shapes do not fit together.

    Source:
        Sundaram, Brox, Keutzer 2010, "Dense point trajectories by GPU-accelerated large displacement optical flow",
        equation 5.
    """
    _check_shape("flow", flow, (None, 2, None, None))
    _check_shape("source_flow", source_flow, tuple(flow.shape))
    grid = pixel_grid(*flow.shape[-2:], dtype=flow.dtype, device=flow.device)
    back, inside = warp(source_flow, grid + flow)
    allowed = relative * (flow.square().sum(1) + back.square().sum(1)) + absolute
    return ~(inside & ((flow + back).square().sum(1) <= allowed))


def occlusion_mask_from_depth(
    depth: Tensor,
    source_depth: Tensor,
    intrinsics: Tensor,
    source_intrinsics: Tensor,
    pose: Tensor,
    tolerance: float = 0.05,
) -> Tensor:
    """Where a point cannot be seen by another camera, because that one sees something nearer there.

    Inverse depth is compared: on a plane it is linear over the picture, and unknown depth (sky) hides nothing.

    Args:
        depth: `(B, H, W)`, metres.
        source_depth: `(B, h, w)`, metres, of the other camera.
        intrinsics: `(B, 3, 3)`, of the camera of `depth`.
        source_intrinsics: `(B, 3, 3)`, of the other camera.
        pose: `(B, 4, 4)`, from the axes of the camera of `depth` to those of the other.
        tolerance: Share of the depth by which something must be nearer to hide.

    Returns:
        Bool `(B, H, W)`: True where the point is hidden from the other camera, lies outside of its picture, or is
        unknown.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    _check_shape("source_depth", source_depth, (len(depth), None, None))
    pixels, there, _ = correspond(depth, intrinsics, source_intrinsics, pose)
    usable = _known(source_depth)
    inverse = torch.where(usable, 1 / torch.where(usable, source_depth, 1.0), 0.0)
    nearest, inside = warp(inverse[:, None], pixels)
    return ~(inside & (there * nearest[:, 0] <= 1 + tolerance))


def _known(depth: Tensor) -> Tensor:
    return torch.isfinite(depth) & (depth > 0)


def _parts(intrinsics: Tensor) -> tuple[Tensor, ...]:
    """Focal lengths, principal point and skew, `(B, 1, 1)` each."""
    places = ((0, 0), (1, 1), (0, 2), (1, 2), (0, 1))
    return tuple(intrinsics[:, row, column, None, None] for row, column in places)


def _pose(rotation: Tensor, translation: Tensor) -> Tensor:
    """Pose `(B, 4, 4)` of a rotation `(B, 3, 3)` and a translation `(B, 3, 1)`."""
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, translation], 2), last], 1)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix product in the wider of both dtypes, whatever autocast says."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    with torch.autocast(right.device.type, enabled=False):
        return left.to(dtype) @ right.to(dtype)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise a sentence unless `tensor` has the shape; None stands for any size."""
    fits = tensor.dim() == len(shape)
    if not fits or any(want not in (None, have) for want, have in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected ({wanted}).")
