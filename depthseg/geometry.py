"""Pin-hole cameras, rigid motion and warps as pure functions on batches of tensors.

All functions use one convention, that of the procedural world and of `grid_sample` with `align_corners=False`: the
centre of pixel (column x, row y) has the integer coordinates (x, y), counted from (0, 0); the image extends half a
pixel beyond the outer centres, to -0.5 and to width - 0.5. Pixels are (x right, y down); camera axes are x right,
y down, z forward. Depth is z, not the distance; 0, negative, NaN and infinite depth is unknown. Intrinsics are
`[[fx, skew, cx], [0, fy, cy], [0, 0, 1]]` in pixels with fx, fy > 0. A pose is `[[R, t], [0, 0, 0, 1]]` and transforms
points from the axes of one camera to those of another: `R p + t`.

All functions are differentiable, accept any float dtype (mixed ones promote) and disable autocast, because coordinates
in half precision are wrong by whole pixels. Metres stand for any unit of length.

Shape letters: B batch, C channels, H and W size of the target image, h and w size of the source image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PADDINGS = ("border", "zeros")
MIN_DEPTH = 1e-3
NOWHERE = -1e4
"""Both coordinates of a point outside of every image; finite in half precision."""


def pixel_grid(
    height: int, width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> Tensor:
    """Coordinates of all pixel centres, `(2, H, W)`: first x (0 to W - 1), then y (0 to H - 1)."""
    y = torch.arange(height, dtype=dtype, device=device)
    x = torch.arange(width, dtype=dtype, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def back_project(depth: Tensor, intrinsics: Tensor, pixels: Tensor | None = None) -> Tensor:
    """The 3D points of the pixels of a depth map.

    Args:
        depth: `(B, H, W)`, metres.
        intrinsics: `(B, 3, 3)`, of images of this size.
        pixels: `(B, 2, H, W)`, coordinates of these depths; None = the pixels of the map.

    Returns:
        `(B, 3, H, W)`, metres in the axes of the camera.

    Raises:
        ValueError: If the shapes are inconsistent.
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


def project(points: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """Project points to the pixels of a camera.

    Args:
        points: `(B, 3, H, W)`, metres in the axes of the camera.
        intrinsics: `(B, 3, 3)`.

    Returns:
        Pixels `(B, 2, H, W)` and depth `(B, H, W)` in metres. Points with a depth of at most `MIN_DEPTH` are
        behind the camera: they keep their depth, and their pixel is `NOWHERE`, without a gradient.

    Raises:
        ValueError: If the shapes are inconsistent.
    """
    _check_shape("points", points, (None, 3, None, None))
    _check_shape("intrinsics", intrinsics, (len(points), 3, 3))
    fx, fy, cx, cy, skew = _parts(intrinsics)
    depth = points[:, 2]
    ahead = depth > MIN_DEPTH
    # A harmless divisor for points behind the camera: infinity times a zero gradient would be NaN.
    divisor = torch.where(ahead, depth, 1.0)
    x, y = points[:, 0] / divisor, points[:, 1] / divisor
    pixels = torch.stack([fx * x + skew * y + cx, fy * y + cy], 1)
    return torch.where(ahead[:, None], pixels, NOWHERE), depth


def transform(points: Tensor, pose: Tensor) -> Tensor:
    """Transform points `(B, 3, ...)` by a pose `(B, 4, 4)`: `R p + t`, of the shape of `points`.

    Raises:
        ValueError: If the shapes are inconsistent.
    """
    if points.dim() < 3 or points.shape[1] != 3:
        raise ValueError(f"points has shape {tuple(points.shape)}; expected (batch, 3, ...).")
    _check_shape("pose", pose, (len(points), 4, 4))
    return (_multiply(pose[:, :3, :3], points.flatten(2)) + pose[:, :3, 3:]).view(points.shape)


def invert_pose(pose: Tensor) -> Tensor:
    """The inverse of a rigid pose `(B, 4, 4)`, same shape.

    Raises:
        ValueError: If the shape is different.
    """
    _check_shape("pose", pose, (None, 4, 4))
    rotation = pose[:, :3, :3].mT
    return rigid_pose(rotation, -_multiply(rotation, pose[:, :3, 3:]))


def compose_poses(second: Tensor, first: Tensor) -> Tensor:
    """The pose that applies `first` and then `second`, both and the result `(B, 4, 4)`.

    As in a matrix product, the right argument is applied first. For two cameras with camera-to-world poses `here` and
    `there`, `compose_poses(invert_pose(there), here)` transforms points from the first to the second.

    Raises:
        ValueError: If the shapes are inconsistent.
    """
    _check_shape("second", second, (None, 4, 4))
    _check_shape("first", first, (len(second), 4, 4))
    return _multiply(second, first)


def rigid_pose(rotation: Tensor, translation: Tensor) -> Tensor:
    """Pose `(B, 4, 4)` of a rotation matrix `(B, 3, 3)` and a translation `(B, 3, 1)`."""
    last = torch.eye(4, dtype=rotation.dtype, device=rotation.device)[3:].expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, translation], 2), last], 1)


def pose_from_axis_angle(rotation: Tensor, translation: Tensor) -> Tensor:
    """Pose of a rotation about an axis, then a translation.

    Rodrigues' formula, exact for every angle, with its power series for small angles, so that gradients of all orders
    are also correct at rotation zero.

    Args:
        rotation: `(B, 3)`, the axis times the angle in radians.
        translation: `(B, 3)`, metres.

    Returns:
        `(B, 4, 4)`.

    Raises:
        ValueError: If the shapes are inconsistent.
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
    return rigid_pose(unit + sine * cross + cosine * (outer - square * unit), translation[:, :, None])


def scale_intrinsics(intrinsics: Tensor, size: tuple[int, int], new_size: tuple[int, int]) -> Tensor:
    """Intrinsics of a resized image.

    Edges map to edges, as in `interpolate` with `align_corners=False`: x + 0.5 is proportional to the width.

    Args:
        intrinsics: `(B, 3, 3)`.
        size: Height and width of the original image, in pixels.
        new_size: Height and width after resizing.

    Returns:
        `(B, 3, 3)`.

    Raises:
        ValueError: If the shape is wrong or a size is not positive.
    """
    _check_shape("intrinsics", intrinsics, (None, 3, 3))
    for name, value in (("size", size), ("new_size", new_size)):
        if len(value) != 2 or min(value) <= 0:
            raise ValueError(f"{name} is {tuple(value)}; give (height, width) in pixels, both above 0.")
    sy, sx = new_size[0] / size[0], new_size[1] / size[1]
    first, second, third = intrinsics.unbind(1)
    # Row by row: a matrix of Python numbers would have to be copied to the device, and the host would wait for it.
    return torch.stack([first * sx + third * ((sx - 1) / 2), second * sy + third * ((sy - 1) / 2), third], 1)


def resize_area(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Downsample `(B, C, H, W)` to a size by averaging; images of this size are returned unchanged."""
    shape = tuple(images.shape[-2:])
    if shape == size:
        return images
    factor = shape[0] // size[0]
    if shape == (size[0] * factor, size[1] * factor):  # the same numbers in half of the time
        return F.avg_pool2d(images, factor)
    return F.interpolate(images, size=size, mode="area")


def warp(source: Tensor, pixels: Tensor, padding: str = "border") -> tuple[Tensor, Tensor]:
    """Sample an image at any coordinates, bilinearly.

    Args:
        source: `(B, C, h, w)`.
        pixels: `(B, 2, H, W)`, coordinates in `source`.
        padding: Values outside the image: "border" repeats the outer pixels, "zeros" fades to 0 within one pixel.

    Returns:
        `(B, C, H, W)`, and bool `(B, H, W)`: True where the coordinates are inside the image, including its edges.
        Coordinates that are NaN or infinite are outside and have no gradient.

    Raises:
        ValueError: If the shapes are inconsistent or the padding does not exist.
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
    # Beyond one image size outside, the result does not change and the numbers stay small.
    grid = grid.clamp(-3, 3)
    return F.grid_sample(source.to(dtype), grid, padding_mode=padding, align_corners=False), inside


def correspond(
    depth: Tensor, intrinsics: Tensor, source_intrinsics: Tensor, pose: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The corresponding pixels in another camera, in a static scene.

    Args:
        depth: `(B, H, W)`, metres.
        intrinsics: `(B, 3, 3)`, of the camera of `depth`.
        source_intrinsics: `(B, 3, 3)`, of the other camera.
        pose: `(B, 4, 4)`, from the axes of this camera to those of the other.

    Returns:
        Pixels `(B, 2, H, W)` in the other image or outside it; depth `(B, H, W)` there, in metres; bool `(B, H, W)`:
        True where depth is known and the point is in front of the other camera. Elsewhere the pixel is `NOWHERE`,
        without a gradient.

    Raises:
        ValueError: If the shapes are inconsistent.
    """
    known = _known(depth)
    points = back_project(torch.where(known, depth, 1.0), intrinsics)
    pixels, source_depth = project(transform(points, pose), source_intrinsics)
    known = known & (source_depth > MIN_DEPTH)
    return torch.where(known[:, None], pixels, NOWHERE), source_depth, known


def reproject(
    source: Tensor, depth: Tensor, intrinsics: Tensor, source_intrinsics: Tensor, pose: Tensor, padding: str = "border"
) -> tuple[Tensor, Tensor]:
    """Synthesise an image from that of another camera, given its depth.

    Args:
        source: `(B, C, h, w)`, the other camera's image.
        depth: `(B, H, W)`, metres, of the image to synthesise.
        intrinsics: `(B, 3, 3)`, of the camera of `depth`.
        source_intrinsics: `(B, 3, 3)`, of the other camera.
        pose: `(B, 4, 4)`, from the axes of the camera of `depth` to those of the other.
        padding: As in `warp`.

    Returns:
        `(B, C, H, W)`, and bool `(B, H, W)`: True where depth is known and the point is in front of the other camera
        and inside its image. Occlusion is not considered; see `occlusion_mask`.

    Raises:
        ValueError: If the shapes are inconsistent or the padding does not exist.
    """
    return warp(source, correspond(depth, intrinsics, source_intrinsics, pose)[0], padding)


def flow_from_depth(depth: Tensor, intrinsics: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Optical flow of a moving camera in a static scene.

    Args:
        depth: `(B, H, W)`, metres.
        intrinsics: `(B, 3, 3)`, before and after the motion.
        pose: `(B, 4, 4)`, from the axes of the camera before to those after the motion.

    Returns:
        `(B, 2, H, W)`, pixels right and down; bool `(B, H, W)`: True where depth is known and the point stays in front
        of the camera. Elsewhere the flow is 0.

    Raises:
        ValueError: If the shapes are inconsistent.
    """
    pixels, _, known = correspond(depth, intrinsics, intrinsics, pose)
    grid = pixel_grid(*depth.shape[-2:], dtype=pixels.dtype, device=pixels.device)
    return torch.where(known[:, None], pixels - grid, 0.0), known


def occlusion_mask(flow: Tensor, source_flow: Tensor, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Occlusion by the forward-backward check of optical flow.

    Forward and backward flow cancel where both images show the same point. The squared norm of their sum may be up to
    `relative` times the sum of their squared norms plus `absolute`.

    Args:
        flow: `(B, 2, H, W)`, from this image to the other, in pixels.
        source_flow: `(B, 2, H, W)`, from the other image to this one.
        relative: Factor of the squared flows.
        absolute: Pixels squared.

    Returns:
        Bool `(B, H, W)`: True where the point is occluded in the other image or outside it.

    Raises:
        ValueError: If the shapes are inconsistent.

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
    """Occlusion by the depth of another camera: a nearer surface there hides the point.

    Inverse depth is compared: on a plane it is linear over the image, and unknown depth (sky) occludes nothing.

    Args:
        depth: `(B, H, W)`, metres.
        source_depth: `(B, h, w)`, metres, of the other camera.
        intrinsics: `(B, 3, 3)`, of the camera of `depth`.
        source_intrinsics: `(B, 3, 3)`, of the other camera.
        pose: `(B, 4, 4)`, from the axes of the camera of `depth` to those of the other.
        tolerance: Fraction of the depth by which a surface must be nearer to occlude the point.

    Returns:
        Bool `(B, H, W)`: True where the point is occluded in the other camera, outside its image, or unknown.

    Raises:
        ValueError: If the shapes are inconsistent.
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


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Batched matrix product in the wider of both dtypes, with autocast disabled."""
    dtype = torch.promote_types(left.dtype, right.dtype)
    with torch.autocast(right.device.type, enabled=False):
        return left.to(dtype) @ right.to(dtype)


def _check_shape(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """Raise a ValueError unless `tensor` has the shape; None = any size."""
    fits = tensor.dim() == len(shape)
    if not fits or any(want not in (None, have) for want, have in zip(shape, tensor.shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected ({wanted}).")
