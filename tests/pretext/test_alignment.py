"""Turns of a camera, against a scene infinitely far away whose grey value is a formula of the direction."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from depthseg.data.synthetic.rendering import render
from depthseg.geometry import warp
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation
from depthseg.pretext import LearnedCamera, PhotometricLoss, SelfSupervisedObjective
from depthseg.pretext.alignment import (
    find_rotation,
    level_sizes,
    levels,
    look,
    newton_step,
    normalise_brightness,
    rays_of,
    refine_motion,
    rotated_pixels,
    rotation_jacobian,
    rotation_matrix,
    sampling_camera,
    solve_positive,
    stabilise,
)
from depthseg.pretext.self_supervised import rotation_of, set_right

SIZE = (64, 192)
FOCAL = 160.0
CAMERA = torch.tensor([[[FOCAL, 0, 95.5], [0, FOCAL, 31.5], [0, 0, 1]]])


def rodrigues(turn):
    """Rodrigues' formula in numpy."""
    turn = np.asarray(turn, float)
    angle = np.linalg.norm(turn)
    if angle == 0:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def far_scene(turn=(0, 0, 0), size=SIZE, focal=FOCAL):
    """What a camera sees that turned: points go from the axes of the unturned camera to its own by the rotation."""
    height, width = size
    v, u = np.mgrid[:height, :width].astype(float)
    rays = np.stack([(u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal, np.ones_like(u)], -1)
    rays = rays @ rodrigues(turn)  # each row times R: R transposed times the ray, back to the unturned axes
    x, y, z = np.moveaxis(rays / np.linalg.norm(rays, axis=-1, keepdims=True), -1, 0)
    channels = [
        np.sin(23 * x + 5 * y) + np.sin(37 * y - 11 * x) + np.cos(61 * x * z) + 0.5 * np.sin(90 * x + 70 * y),
        np.cos(29 * x) + np.sin(31 * y + 17 * x * z),
        np.sin(41 * x - 19 * y),
    ]
    return torch.from_numpy(np.stack(channels) / 8 + 0.5).float()[None]


TURNS = [(0.0, 0.0, 0.0), (0.01, 0.06, -0.005), (-0.02, -0.03, 0.01), (0.0, 0.002, 0.03)]


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_found(turn):
    found = find_rotation(far_scene(), far_scene(turn), CAMERA)
    assert np.degrees(np.linalg.norm(found[0].numpy() - turn)) < 0.05


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_place_is_followed_through_a_turn(turn, autocast):
    """By Rodrigues' formula, for places between pixels and outside of the image."""
    places = np.random.default_rng(0).uniform([-40, -20], [230, 80], (5, 7, 2))
    rays = np.concatenate([(places - [95.5, 31.5]) / FOCAL, np.ones((5, 7, 1))], -1) @ rodrigues(turn).T
    expected = rays[..., :2] / rays[..., 2:] * FOCAL + [95.5, 31.5]
    pixels = torch.from_numpy(places).permute(2, 0, 1)[None].float()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = rotated_pixels(torch.tensor([turn]), CAMERA, pixels)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("turn", TURNS)
def test_a_stabilised_image_is_the_one_before_the_turn(turn):
    first, second = far_scene(), far_scene(turn)
    steady = stabilise(second, torch.tensor([turn]), CAMERA)
    inner = (..., slice(8, -8), slice(16, -16))
    left = (steady[inner] - first[inner]).abs().mean()
    assert left < 0.012
    if any(turn):
        assert left < 0.5 * (second[inner] - first[inner]).abs().mean()


def test_exposure_does_not_count():
    turn = (0.01, 0.03, 0.0)
    found = find_rotation(far_scene(), 0.6 * far_scene(turn) + 0.1, CAMERA)
    assert np.degrees(np.linalg.norm(found[0].numpy() - turn)) < 0.05


def test_each_image_of_a_batch_has_its_own_turn():
    alone = [find_rotation(far_scene(), far_scene(turn), CAMERA) for turn in TURNS]
    together = find_rotation(
        far_scene().expand(4, -1, -1, -1), torch.cat([far_scene(t) for t in TURNS]), CAMERA.expand(4, 3, 3)
    )
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_no_texture_no_turn():
    grey = torch.full((1, 3, *SIZE), 0.5)
    assert torch.equal(find_rotation(grey, grey, CAMERA), torch.zeros(1, 3))
    assert find_rotation(grey, far_scene(), CAMERA).isfinite().all()


def test_grey_values_change_by_the_jacobian():
    """A small turn, rendered."""
    before = far_scene().mean(1)
    jacobian = rotation_jacobian(before[:, None], CAMERA, rays_of(SIZE, CAMERA))
    for axis in range(3):
        turn = [0.0, 0.0, 0.0]
        turn[axis] = 1e-3
        # A camera that turns by w sees at each pixel what lies there after turning by -w in the unturned image.
        change = (far_scene([-t for t in turn]).mean(1) - before) / 1e-3
        inner = (slice(None), slice(8, -8), slice(8, -8))
        expected, found = change[inner], jacobian[:, axis].view_as(before)[inner]
        assert (expected - found).abs().mean() < 0.1 * expected.abs().mean()


def test_small_systems_are_solved_as_by_linalg_solve():
    for size in (1, 2, 3, 4, 6):
        factors = torch.randn(50, size, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
        matrices = factors @ factors.mT + 1e-3 * torch.eye(size, dtype=torch.float64)
        values = torch.randn(50, size, dtype=torch.float64)
        torch.testing.assert_close(solve_positive(matrices, values), torch.linalg.solve(matrices, values))


def test_nearly_singular_systems_in_float32_are_solved_about_as_well_as_by_linalg_solve():
    """Motions that cannot be told apart, such as of a camera that looks at a line: damping alone tells them apart."""
    factors = torch.randn(200, 4, 1, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [9], [1], [20]]
    )
    matrices = factors @ factors.mT
    matrices = matrices + torch.diag_embed(1e-3 * matrices.diagonal(dim1=1, dim2=2) + 1e-6)
    values = (matrices @ torch.ones(200, 4, 1))[..., 0]
    exact = torch.linalg.solve(matrices.double(), values.double())
    both = solve_positive(matrices, values), torch.linalg.solve(matrices, values)
    errors = [(found - exact).abs().amax() for found in both]
    assert errors[0] < 4 * errors[1] and errors[0] < 0.05


@pytest.mark.parametrize("motions", [3, 4])
def test_a_step_is_that_of_the_weighted_normal_equations(motions):
    generator = torch.Generator().manual_seed(0)
    jacobian = torch.randn(5, motions, 40, dtype=torch.float64, generator=generator)
    difference = torch.randn(5, 40, dtype=torch.float64, generator=generator)
    inside = torch.rand(5, 40, generator=generator) < 0.8
    found = newton_step(jacobian, difference, inside)
    for image in range(5):
        j, d = jacobian[image], difference[image]
        w = torch.where(inside[image], 1 / d.abs().clamp(min=0.2), 0.0)
        hessian = (j * w) @ j.T
        damped = hessian + torch.diag(1e-3 * hessian.diagonal() + 1e-6 * 40)
        torch.testing.assert_close(found[image], torch.linalg.solve(damped, (j * w) @ d))


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 0.7, 3.0])
def test_rotation_matrix_is_that_of_rodrigues(angle):
    axis = np.array([2.0, -1.0, 2.0]) / 3
    found = rotation_matrix(torch.from_numpy(angle * axis)[None])[0]
    np.testing.assert_allclose(found, rodrigues(angle * axis), atol=1e-12)


def test_looking_at_points_is_warping_to_their_pixels():
    """Also behind the camera, outside, at no number, and of a source of another size."""
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(2, 3, 6, 9, generator=generator, dtype=torch.float64)
    camera = torch.tensor([[[8.0, 0.2, 4.1], [0, 7, 2.7], [0, 0, 1]]] * 2, dtype=torch.float64)
    points = torch.randn(2, 3, 20, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [1], [0.5]])
    points[:, 2] += 1
    points[0, 0, 0], points[0, 2, 1] = torch.nan, 0.0
    projected = camera @ points
    depth = projected[:, 2:]
    pixels = torch.where(depth > 1e-3, projected[:, :2] / depth, -1e4).unflatten(2, (4, 5))
    expected, inside = warp(source, pixels)
    found, found_inside = look(source, sampling_camera(camera, (6, 9)) @ points, (4, 5), 1e-3)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found_inside, inside.flatten(1)) and 0 < inside.sum() < inside.numel()


@pytest.mark.parametrize("size", [(64, 192), (39, 78), (48, 100), (14, 30), (96, 96)])
def test_coarse_images_are_area_means_of_the_whole_ones(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    camera = CAMERA.expand(1, 3, 3)
    found = list(levels(images[:1], images[1:], camera, (1, 1, 1)))
    assert [tuple(level.target.shape[-2:]) for level in found] == level_sizes(size)
    for level in found:
        for image, seen in zip(images, (level.target, level.source), strict=True):
            whole = normalise_brightness(image[None])
            expected = F.interpolate(whole, size=tuple(seen.shape[-2:]), mode="area")
            torch.testing.assert_close(seen, expected, atol=2e-6, rtol=0)


@pytest.fixture(scope="module")
def drives():
    """Twelve pairs of frames of the world: images, intrinsics, exact depth (sky far away) and motion."""
    pairs = []
    for index in range(12):
        here = render(3, index, SIZE, outputs=["image", "intrinsics", "pose", "depth"])
        there = render(3, index, SIZE, time=1, outputs=["image", "pose"])
        images = [torch.from_numpy(view["image"]).permute(2, 0, 1)[None] for view in (here, there)]
        depth = torch.from_numpy(here["depth"])[None]
        motion = np.linalg.inv(there["pose"]) @ here["pose"]
        camera = torch.from_numpy(here["intrinsics"]).float()[None]
        pairs.append((*images, camera, torch.where(depth > 0, depth, 1e4), motion))
    return pairs


def degrees_between(found, expected):
    return np.degrees(np.arccos(np.clip((np.trace(np.asarray(found) @ np.asarray(expected).T) - 1) / 2, -1, 1)))


def test_turns_of_the_world_are_found_while_it_drives(drives):
    """Half of them within 0.4 degrees, where standing still is off by more than 1."""
    errors, still = [], []
    for target, source, camera, _, motion in drives:
        found = find_rotation(target, source, camera)
        errors.append(degrees_between(rodrigues(found[0].numpy()), motion[:3, :3]))
        still.append(degrees_between(np.eye(3), motion[:3, :3]))
    assert np.median(errors) < 0.4 < 1 < np.median(still)


@pytest.mark.parametrize("unit", [1.0, 0.05])
@pytest.mark.parametrize("speed", [0.6, 1.4])
def test_true_depth_sets_turn_and_speed_right(drives, speed, unit):
    """From half a degree and 40 % too slow or fast; where the camera goes stays as given, whatever the unit."""
    turned, ratios = [], []
    wrong = torch.from_numpy(rodrigues((0.004, -0.007, 0.003))).float()
    for target, source, camera, depth, motion in drives:
        if np.linalg.norm(motion[:3, 3]) < 0.2:
            continue
        start = torch.from_numpy(motion).float()[None]
        start[:, :3, :3] = wrong @ start[:, :3, :3]
        start[:, :3, 3] *= speed * unit
        found = refine_motion(target, source, depth * unit, camera, start)[0].numpy()
        turned.append(degrees_between(found[:3, :3], motion[:3, :3]))
        ratios.append(np.linalg.norm(found[:3, 3]) / np.linalg.norm(motion[:3, 3]) / unit)
        np.testing.assert_allclose(
            found[:3, 3] / np.linalg.norm(found[:3, 3]), motion[:3, 3] / np.linalg.norm(motion[:3, 3]), atol=1e-5
        )
    assert len(turned) >= 6
    assert np.median(turned) < 0.2
    assert abs(np.median(ratios) - 1) < 0.1


def test_speed_is_set_right_within_a_range(drives):
    target, source, camera, depth, motion = max(drives, key=lambda drive: np.linalg.norm(drive[-1][:3, 3]))
    start = torch.from_numpy(motion).float()[None]
    for factor in (0.02, 0.2, 5.0, 30.0):
        given = start.clone()
        given[:, :3, 3] *= factor
        found = refine_motion(target, source, depth, camera, given)
        changed = (found[:, :3, 3].norm() / given[:, :3, 3].norm()).item()
        assert 1 / 3 - 1e-5 < changed < 3 + 1e-5
        if factor == 0.02:
            assert changed == pytest.approx(3.0)


def test_without_texture_or_motion_it_stays_as_it_is():
    grey = torch.full((1, 3, *SIZE), 0.5)
    still = torch.eye(4)[None]
    torch.testing.assert_close(refine_motion(grey, grey, torch.full((1, *SIZE), 10.0), CAMERA, still), still)


@pytest.mark.parametrize(
    ("full", "sizes"),
    [
        ((64, 192), [(8, 24), (16, 48), (32, 96)]),
        ((192, 640), [(12, 40), (24, 80), (48, 160)]),
        ((37, 53), [(10, 14), (19, 27), (37, 53)]),
        ((10, 12), [(10, 12)]),
        ((4, 6), [(4, 6)]),
    ],
)
def test_sizes_of_images_that_are_aligned(full, sizes):
    assert level_sizes(full) == sizes


class StandsStill(nn.Module):
    """Stands in for a pose network that has learned nothing, and keeps what it was shown."""

    reads_maps = False

    def forward(self, first, second):
        self.shown = (first, second)
        nothing = first.new_zeros(len(first), 3)
        return nothing, nothing, first.new_zeros(len(first), 4)


def objective_and_batch(aligned, camera=None):
    torch.manual_seed(0)
    tiny = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    model = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=tiny)).eval()
    objective = SelfSupervisedObjective(
        model, PhotometricLoss(auto_mask=False), (-1, 1), StandsStill(), camera, derotate=aligned
    )
    here = far_scene()
    sources = torch.stack([far_scene((-0.01, -0.04, 0.0)), far_scene((0.005, 0.03, 0.01))], 1)
    batch = {"image": here, "pixel_values": here, "source_images": sources, "source_pixel_values": sources}
    return objective, batch | {"intrinsics": CAMERA}


def test_what_is_left_for_the_pose_network_is_nothing_where_a_camera_only_turns():
    losses = {}
    for aligned in (False, True):
        objective, batch = objective_and_batch(aligned)
        losses[aligned] = objective(batch)["photometric_loss"].item()
        first, second = objective.pose_network.shown
        difference = (first - second)[..., 8:-8, 20:-20].abs().mean().item()
        assert (difference < 0.02) == aligned
    assert losses[True] < 0.3 * losses[False]
    poses = objective.explain(batch).poses
    for pose, turn in zip(poses, [(-0.01, -0.04, 0.0), (0.005, 0.03, 0.01)], strict=True):
        torch.testing.assert_close(pose[0, :3, :3], torch.from_numpy(rodrigues(turn)).float(), atol=1e-3, rtol=0)


def test_a_turn_found_with_an_assumed_focal_length_moves_the_middle_of_the_image_as_seen():
    """An uncalibrated camera: aligned as if it were 192 pixels long, it is 160."""
    camera = LearnedCamera()
    assumed = camera.assume(far_scene())
    torch.testing.assert_close(assumed[0, 0, 0], torch.tensor(192.0))
    turn = (0.01, 0.04, 0.01)
    found = find_rotation(far_scene(), far_scene(turn), assumed)
    corrected = rotation_of(found, assumed, CAMERA)[0, :3, :3].numpy()
    wrong = np.degrees(np.arccos((np.trace(corrected @ rodrigues(turn).T) - 1) / 2))
    assert wrong < 0.15 < np.degrees(np.linalg.norm(found[0].numpy() - turn))


def test_learned_focal_lengths_get_a_gradient_from_turns():
    camera = LearnedCamera()
    objective, batch = objective_and_batch(True, camera)
    del batch["intrinsics"]
    objective(batch)["loss"].backward()
    # The image is as wide as 192, the camera 160 long: descending has to make the focal length shorter.
    assert camera.raw_focal.grad.item() > 0


def test_what_is_refined_keeps_the_gradient_of_what_was_learned():
    pose = torch.eye(4)[None].clone()
    pose[:, 0, 3] = 0.1
    pose.requires_grad_()
    refined = set_right(pose, far_scene(), far_scene((0, 0.02, 0)), torch.full((1, *SIZE), 10.0), CAMERA)
    assert degrees_between(refined[0, :3, :3].detach(), rodrigues((0, 0.02, 0))) < 0.1
    (gradient,) = torch.autograd.grad(refined[:, :3, 3].sum(), pose)
    torch.testing.assert_close(gradient[:, :3, 3], torch.ones(1, 3))
