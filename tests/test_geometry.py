"""Cameras and warps against loops in numpy, finite differences, and definitions written down here."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from depthseg import geometry as g

double = partial(torch.tensor, dtype=torch.float64)


def random_cameras(batch, seed=0, skew=True):
    """Intrinsics (B, 3, 3) that differ from each other in everything."""
    draw = torch.Generator().manual_seed(seed)
    found = torch.eye(3, dtype=torch.float64).repeat(batch, 1, 1)
    found[:, [0, 1], [0, 1]] = 4 + 3 * torch.rand(batch, 2, generator=draw, dtype=torch.float64)
    found[:, :2, 2] = 1 + 3 * torch.rand(batch, 2, generator=draw, dtype=torch.float64)
    if skew:
        found[:, 0, 1] = torch.rand(batch, generator=draw, dtype=torch.float64) - 0.5
    return found


def rand(*shape, seed=0, low=0.0, high=1.0):
    draw = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=draw, dtype=torch.float64)


# By hand and by loops


def test_pixel_centres_are_whole_numbers():
    grid = g.pixel_grid(2, 3)
    assert grid.tolist() == [[[0, 1, 2], [0, 1, 2]], [[0, 0, 0], [1, 1, 1]]]
    source = rand(2, 3, 5, 7)
    for padding in g.PADDINGS:
        warped, inside = g.warp(source, g.pixel_grid(5, 7, dtype=torch.float64).expand(2, 2, 5, 7), padding)
        torch.testing.assert_close(warped, source)
        assert inside.all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 3), (3, 6)])
def test_there_and_back_by_a_loop(size):
    intrinsics, source_intrinsics = random_cameras(3), random_cameras(3, seed=1)
    depth = rand(3, *size, low=1.0, high=9.0)
    pose = g.pose_from_axis_angle(rand(3, 3, seed=2, low=-0.2, high=0.2), rand(3, 3, seed=3, low=-0.5, high=0.5))
    pixels, found_depth, known = g.correspond(depth, intrinsics, source_intrinsics, pose)
    points = g.back_project(depth, intrinsics)
    flow, _ = g.flow_from_depth(depth, intrinsics, pose)
    assert known.all()
    for b, y, x in np.ndindex(3, *size):
        ray = np.linalg.inv(intrinsics[b].numpy()) @ (x, y, 1.0)
        point = ray * depth[b, y, x].item()
        moved = pose[b].numpy() @ (*point, 1.0)
        seen = source_intrinsics[b].numpy() @ moved[:3]
        moved_here = intrinsics[b].numpy() @ moved[:3]
        np.testing.assert_allclose(points[b, :, y, x], point, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(pixels[b, :, y, x], seen[:2] / seen[2], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found_depth[b, y, x], seen[2], rtol=1e-12)
        np.testing.assert_allclose(
            flow[b, :, y, x], moved_here[:2] / moved_here[2] - np.array([x, y]), rtol=1e-10, atol=1e-10
        )


def bilinear(image, x, y, padding):
    """One value of an image (h, w) at (x, y), from the definition: four neighbours, weighed by nearness."""
    height, width = image.shape
    if padding == "border":
        x, y = min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(x - column)) * (1 - abs(y - row)) * image[row, column]
    return total


@pytest.mark.parametrize("padding", g.PADDINGS)
@pytest.mark.parametrize("size", [(1, 1), (4, 9), (7, 2)])
def test_warp_by_a_loop(size, padding):
    source = rand(2, 3, *size)
    pixels = torch.stack(
        [rand(2, 5, 6, seed=1, low=-3, high=size[1] + 2), rand(2, 5, 6, seed=2, low=-3, high=size[0] + 2)], 1
    )
    pixels[0, :, 0, 0] = torch.tensor([-0.5, size[0] - 0.5])  # a corner of the image, still inside
    warped, inside = g.warp(source, pixels, padding)
    assert warped.shape == (2, 3, 5, 6) and inside.shape == (2, 5, 6)
    assert inside[0, 0, 0] and not inside.all()
    for b, c, i, j in np.ndindex(*warped.shape):
        x, y = pixels[b, :, i, j].tolist()
        assert warped[b, c, i, j].item() == pytest.approx(bilinear(source[b, c].numpy(), x, y, padding), abs=1e-12)
        assert inside[b, i, j] == (-0.5 <= x <= size[1] - 0.5 and -0.5 <= y <= size[0] - 0.5)


def test_a_resized_image_fits_its_scaled_intrinsics():
    """The image x + 2 y, resized by torch, shows the same at the pixel where the same ray comes through."""
    size, new_size = (12, 20), (30, 25)
    intrinsics = random_cameras(1)
    x, y = g.pixel_grid(*size, dtype=torch.float64)
    resized = torch.nn.functional.interpolate((x + 2 * y)[None, None], new_size, mode="bilinear", align_corners=False)
    rays = g.back_project(torch.ones(1, *new_size).double(), g.scale_intrinsics(intrinsics, size, new_size))
    u, v = g.project(rays, intrinsics)[0].unbind(1)
    inner = (u >= 0) & (u <= size[1] - 1) & (v >= 0) & (v <= size[0] - 1)
    assert inner.float().mean() > 0.8
    torch.testing.assert_close(resized[:, 0][inner], (u + 2 * v)[inner])
    torch.testing.assert_close(
        g.scale_intrinsics(g.scale_intrinsics(intrinsics, size, new_size), new_size, size), intrinsics
    )


def test_occlusion_of_two_walls_is_that_of_a_z_buffer():
    """A near square in front of a far wall, whole disparities: every pixel is decided by painting."""
    height, width, near, far = 9, 24, 5, 2
    disparity = np.full((height, width), far)
    disparity[2:7, 8:14] = near
    nearest = np.full((height, width), far)  # the right image, painted from the left one, walls without end
    nearest[2:7, 8 - near : 14 - near] = near
    hidden = np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        column = x - disparity[y, x]
        hidden[y, x] = column < 0 or nearest[y, column] != disparity[y, x]
    assert hidden.sum() == 2 * height + 5 * (near - far)
    focal, baseline = 10.0, 0.5
    intrinsics = double([[[focal, 0, 11.5], [0, focal, 4], [0, 0, 1]]])
    pose = g.pose_from_axis_angle(torch.zeros(1, 3).double(), double([[-baseline, 0, 0]]))
    depth, source_depth = (double(focal * baseline / d)[None] for d in (disparity, nearest))
    found = g.occlusion_mask_from_depth(depth, source_depth, intrinsics, intrinsics, pose)
    assert np.array_equal(found[0], hidden)
    flow, source_flow = (
        torch.stack([sign * double(d), torch.zeros(height, width).double()])[None]
        for sign, d in ((-1, disparity), (1, nearest))
    )
    assert np.array_equal(g.occlusion_mask(flow, source_flow)[0], hidden)


@pytest.mark.parametrize(("miss", "hidden"), [(1.1, False), (1.3, True), (-1.1, False), (-1.3, True)])
def test_flows_may_differ_by_a_share_and_half_a_pixel(miss, hidden):
    """There by 6 px, back by 6 px and a miss: at most about sqrt(0.01 * (36 + 36) + 0.5) = 1.10 px is forgiven."""
    flow = double([6.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 3, 20)
    back = double([-6.0, miss]).view(1, 2, 1, 1).expand(1, 2, 3, 20)
    assert (g.occlusion_mask(flow, back)[..., :14] == hidden).all()
    assert (g.occlusion_mask(flow, back, relative=0.0)[..., :14]).all()
    assert (g.occlusion_mask(flow, back, absolute=0.0)[..., :14]).all()
    assert not g.occlusion_mask(flow, back, relative=0.0, absolute=2.0)[..., :14].any()


def test_sky_hides_nothing_and_unknown_depth_is_not_seen():
    depth = torch.full((1, 4, 6), 5.0)
    depth[0, 1, 2], depth[0, 2, 3], depth[0, 3, 3] = 0.0, math.inf, math.nan
    same = torch.eye(4)[None]
    intrinsics = random_cameras(1).float()
    unknown = ~(depth.isfinite() & (depth > 0))
    for sky in (0.0, math.inf, math.nan):
        found = g.occlusion_mask_from_depth(depth, torch.full((1, 4, 6), sky), intrinsics, intrinsics, same)
        assert torch.equal(found, unknown)


# Poses


def skew_matrix(v):
    x, y, z = v.tolist()
    return double([[0, -z, y], [z, 0, -x], [-y, x, 0]])


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-5, 0.0316, 0.0317, 0.4, 2.0, math.pi, 5.0, 2 * math.pi])
def test_axis_angle_is_the_series_of_the_matrix_exponential(angle):
    axis = double([0.48, -0.6, 0.64])
    series = term = torch.eye(3, dtype=torch.float64)
    for n in range(1, 60):
        term = term @ skew_matrix(angle * axis) / n
        series = series + term
    pose = g.pose_from_axis_angle(angle * axis[None], double([[1, 2, 3]]))[0]
    torch.testing.assert_close(pose[:3, :3], series, atol=1e-13, rtol=0)
    assert pose[:3, 3].tolist() == [1, 2, 3] and pose[3].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-20, 1e-9, 0.03, 0.5, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_a_rotation_is_finite_everywhere(scale, dtype):
    turn = (scale * torch.tensor([[0.6, 0.0, -0.8]], dtype=dtype)).requires_grad_()
    pose = g.pose_from_axis_angle(turn, torch.zeros(1, 3, dtype=dtype))
    slopes = [torch.autograd.grad(pose[0, i, j], turn, retain_graph=True)[0] for i, j in ((2, 1), (0, 2), (1, 0))]
    assert pose.dtype == dtype and torch.stack(slopes).isfinite().all()
    if scale < 1e-8:  # to first order a rotation is 1 + the cross product
        torch.testing.assert_close(torch.cat(slopes), torch.eye(3, dtype=dtype))


@pytest.mark.parametrize("scale", [0.0, 0.02, 0.7, math.pi])
def test_gradients_of_poses(scale):
    turn = (scale * double([[0.48, -0.6, 0.64], [0.0, 1.0, 0.0]])).requires_grad_()
    shift = rand(2, 3).requires_grad_()
    assert gradcheck(g.pose_from_axis_angle, (turn, shift))
    assert gradgradcheck(g.pose_from_axis_angle, (turn, shift))
    assert gradcheck(lambda r, t: g.invert_pose(g.pose_from_axis_angle(r, t)), (turn, shift))


def test_inverses_and_products_of_poses():
    first = g.pose_from_axis_angle(rand(4, 3, seed=1, low=-2, high=2), rand(4, 3, seed=2))
    second = g.pose_from_axis_angle(rand(4, 3, seed=3, low=-2, high=2), rand(4, 3, seed=4))
    points = rand(4, 3, 2, 5, seed=5)
    torch.testing.assert_close(g.invert_pose(first), torch.linalg.inv(first))
    both = g.transform(points, g.compose_poses(second, first))
    torch.testing.assert_close(both, g.transform(g.transform(points, first), second))
    by_hand = torch.einsum("bij,bjhw->bihw", first[:, :3, :3], points) + first[:, :3, 3, None, None]
    torch.testing.assert_close(g.transform(points, first), by_hand)
    torch.testing.assert_close(g.transform(points.flatten(2), first), by_hand.flatten(2))


# Gradients


def test_gradients_of_cameras_and_warps():
    intrinsics, source_intrinsics = random_cameras(2).requires_grad_(), random_cameras(2, seed=1).requires_grad_()
    depth, source = rand(2, 3, 4, low=2, high=6).requires_grad_(), rand(2, 2, 4, 5, seed=6).requires_grad_()
    turn, shift = rand(2, 3, seed=7, high=0.1).requires_grad_(), rand(2, 3, seed=8, high=0.3).requires_grad_()
    assert gradcheck(g.back_project, (depth, intrinsics))
    assert gradcheck(lambda p, k: g.project(p, k), (rand(2, 3, 2, 2, low=1, high=3).requires_grad_(), intrinsics))
    assert gradcheck(partial(g.scale_intrinsics, size=(4, 6), new_size=(3, 9)), (intrinsics,))
    assert gradcheck(
        lambda d, k, r, t: g.flow_from_depth(d, k, g.pose_from_axis_angle(r, t))[0], (depth, intrinsics, turn, shift)
    )
    for padding in g.PADDINGS:

        def rebuild(source, depth, k, k_source, r, t, padding=padding):
            return g.reproject(source, depth, k, k_source, g.pose_from_axis_angle(r, t), padding)[0]

        inputs = (source, depth, intrinsics, source_intrinsics, turn, shift)
        pixels, _, _ = g.correspond(depth, intrinsics, source_intrinsics, g.pose_from_axis_angle(turn, shift))
        assert (pixels - pixels.round()).abs().min() > 1e-4  # bilinear sampling has kinks at whole numbers
        assert gradcheck(rebuild, inputs)


def test_gradients_stay_finite_where_nothing_can_be_seen():
    """Unknown depth, points behind the camera and at its centre: masked out, no NaN forward or backward."""
    depth = torch.tensor([[[0.0, -1.0, math.nan], [math.inf, 0.5, 2.0]]], requires_grad=True)
    turn, shift = torch.zeros(1, 3, requires_grad=True), torch.tensor([[0.0, 0.0, -0.5]], requires_grad=True)
    intrinsics = torch.tensor([[[3.0, 0, 1], [0, 3, 0.5], [0, 0, 1]]], requires_grad=True)
    source = torch.rand(1, 3, 2, 3, requires_grad=True)
    pose = g.pose_from_axis_angle(turn, shift)
    warped, mask = g.reproject(source, depth, intrinsics, intrinsics, pose)
    flow, known = g.flow_from_depth(depth, intrinsics, pose)
    assert known.tolist() == [[[False, False, False], [False, False, True]]]
    assert not mask[0, 0].any() and not mask[0, 1, :2].any()
    assert warped.isfinite().all() and flow.isfinite().all()
    (warped.sum() + flow.sum()).backward()
    for leaf in (depth, turn, shift, intrinsics, source):
        assert leaf.grad.isfinite().all()
    assert (depth.grad[0, 0] == 0).all() and (depth.grad[0, 1, :2] == 0).all()


# Ends


def test_points_behind_the_camera_are_nowhere():
    points = torch.tensor([[1.0, 1.0, -2.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1e-3], [1.0, 1.0, 2.0]]).T.view(1, 3, 1, 4)
    points.requires_grad_()
    pixels, depth = g.project(points, torch.tensor([[[4.0, 0, 1], [0, 6, 2], [0, 0, 1]]]))
    assert pixels[0, :, 0, :3].unique().tolist() == [g.NOWHERE]
    assert pixels[0, :, 0, 3].tolist() == [3.0, 5.0]
    torch.testing.assert_close(depth, points[:, 2])
    (slope,) = torch.autograd.grad(pixels.sum(), points)
    assert (slope[..., :3] == 0).all() and slope[..., 3].abs().min() > 0
    warped, inside = g.warp(torch.ones(1, 1, 4, 5), pixels, "zeros")
    assert warped[0, 0, 0].tolist()[:3] == [0, 0, 0] and not inside.any()


def test_wild_coordinates_are_outside():
    wild = [math.nan, math.inf, -math.inf, 1e30, -1e30]
    pixels = torch.tensor([[wild, [0.0] * 5]])[..., None].requires_grad_()
    source = torch.ones(1, 1, 2, 3)
    for padding, value in (("border", 1.0), ("zeros", 0.0)):
        warped, inside = g.warp(source, pixels, padding)
        assert warped.unique().tolist() == [value] and not inside.any()
        (slope,) = torch.autograd.grad(warped.sum(), pixels)
        assert slope.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_float_type(dtype):
    depth = torch.full((1, 4, 6), 2.0, dtype=dtype)
    intrinsics = torch.tensor([[[4.0, 0, 2], [0, 4, 1], [0, 0, 1]]], dtype=dtype)
    pose = g.pose_from_axis_angle(torch.zeros(1, 3, dtype=dtype), torch.tensor([[0.5, 0.0, 0.0]], dtype=dtype))
    source = torch.arange(24, dtype=dtype).view(1, 1, 4, 6)
    warped, mask = g.reproject(source, depth, intrinsics, intrinsics, pose)  # one pixel to the right
    assert warped.dtype == dtype and g.flow_from_depth(depth, intrinsics, pose)[0].dtype == dtype
    torch.testing.assert_close(warped[..., :5].float(), source[..., 1:].float(), atol=0.2, rtol=0)
    assert mask[..., :5].all() and not mask[..., 5].any()
    mixed, _ = g.reproject(source, depth.float(), intrinsics, intrinsics.double(), pose)
    assert mixed.dtype == torch.float64
    wide, _ = g.warp(source.double(), g.pixel_grid(4, 6, dtype=dtype)[None])
    torch.testing.assert_close(wide, source.double())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: g.back_project(torch.ones(2, 3), torch.eye(3)[None]), r"depth has shape \(2, 3\); expected"),
        (lambda: g.back_project(torch.ones(2, 3, 3), torch.eye(3)[None]), r"intrinsics has .* expected \(2, 3, 3\)"),
        (lambda: g.project(torch.ones(1, 2, 3, 3), torch.eye(3)[None]), "points has shape"),
        (lambda: g.transform(torch.ones(3, 4), torch.eye(4)[None]), r"expected \(batch, 3, \.\.\.\)"),
        (lambda: g.transform(torch.ones(1, 3, 4), torch.eye(3)[None]), r"pose has .* expected \(1, 4, 4\)"),
        (lambda: g.invert_pose(torch.eye(4)), r"pose has shape \(4, 4\)"),
        (lambda: g.compose_poses(torch.eye(4)[None], torch.eye(3)[None]), "first has shape"),
        (lambda: g.pose_from_axis_angle(torch.ones(2, 3), torch.ones(1, 3)), r"translation has .* expected \(2, 3\)"),
        (lambda: g.scale_intrinsics(torch.eye(3)[None], (0, 4), (2, 2)), r"size is \(0, 4\); give \(height, width\)"),
        (lambda: g.warp(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, 2), "wrap"), "choose one of: border, zeros"),
        (lambda: g.warp(torch.ones(2, 1, 2, 2), torch.ones(1, 2, 2, 2)), r"pixels has .* expected \(2, 2, any, any\)"),
        (lambda: g.occlusion_mask(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 3)), "source_flow has shape"),
    ],
)
def test_what_does_not_fit_is_told(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
