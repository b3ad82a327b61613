"""Turns of a camera, against a scene infinitely far away whose grey value is a formula of the direction."""

import numpy as np
import pytest
import torch
from torch import nn

from depthseg.data.synthetic.rendering import render
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation
from depthseg.pretext import LearnedCamera, PhotometricLoss, SelfSupervisedObjective
from depthseg.pretext.self_supervised import turn_of
from depthseg.pretext.stabilise import find_turn, level_sizes, stabilise, turn_jacobian

SIZE = (64, 192)
FOCAL = 160.0
CAMERA = torch.tensor([[[FOCAL, 0, 95.5], [0, FOCAL, 31.5], [0, 0, 1]]])


def rotation_matrix(turn):
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
    rays = rays @ rotation_matrix(turn)  # each row times R: R transposed times the ray, back to the unturned axes
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
    found = find_turn(far_scene(), far_scene(turn), CAMERA)
    assert np.degrees(np.linalg.norm(found[0].numpy() - turn)) < 0.05


@pytest.mark.parametrize("turn", TURNS)
def test_a_stabilised_picture_is_the_one_before_the_turn(turn):
    first, second = far_scene(), far_scene(turn)
    steady = stabilise(second, torch.tensor([turn]), CAMERA)
    inner = (..., slice(8, -8), slice(16, -16))
    left = (steady[inner] - first[inner]).abs().mean()
    assert left < 0.012
    if any(turn):
        assert left < 0.5 * (second[inner] - first[inner]).abs().mean()


def test_exposure_does_not_count():
    turn = (0.01, 0.03, 0.0)
    found = find_turn(far_scene(), 0.6 * far_scene(turn) + 0.1, CAMERA)
    assert np.degrees(np.linalg.norm(found[0].numpy() - turn)) < 0.05


def test_each_picture_of_a_batch_has_its_own_turn():
    alone = [find_turn(far_scene(), far_scene(turn), CAMERA) for turn in TURNS]
    together = find_turn(
        far_scene().expand(4, -1, -1, -1), torch.cat([far_scene(t) for t in TURNS]), CAMERA.expand(4, 3, 3)
    )
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_no_texture_no_turn():
    grey = torch.full((1, 3, *SIZE), 0.5)
    assert torch.equal(find_turn(grey, grey, CAMERA), torch.zeros(1, 3))
    assert find_turn(grey, far_scene(), CAMERA).isfinite().all()


def test_grey_values_change_by_the_jacobian():
    """A small turn, rendered."""
    before = far_scene().mean(1)
    jacobian = turn_jacobian(before, CAMERA)
    for axis in range(3):
        turn = [0.0, 0.0, 0.0]
        turn[axis] = 1e-3
        # A camera that turns by w sees at each pixel what lies there after turning by -w in the unturned picture.
        change = (far_scene([-t for t in turn]).mean(1) - before) / 1e-3
        inner = (slice(None), slice(8, -8), slice(8, -8))
        expected, found = change[inner], jacobian[:, axis].view_as(before)[inner]
        assert (expected - found).abs().mean() < 0.1 * expected.abs().mean()


def test_turns_of_the_world_are_found_while_it_drives():
    """Half of them within 0.4 degrees, where standing still is off by more than 1."""
    errors, still = [], []
    for index in range(12):
        here = render(3, index, SIZE, outputs=["image", "intrinsics", "pose"])
        there = render(3, index, SIZE, time=1, outputs=["image", "pose"])
        pictures = [torch.from_numpy(view["image"]).permute(2, 0, 1)[None] for view in (here, there)]
        found = find_turn(*pictures, torch.from_numpy(here["intrinsics"]).float()[None])
        true = (np.linalg.inv(there["pose"]) @ here["pose"])[:3, :3]
        wrong = rotation_matrix(found[0].numpy()) @ true.T
        errors.append(np.degrees(np.arccos(np.clip((np.trace(wrong) - 1) / 2, -1, 1))))
        still.append(np.degrees(np.arccos(np.clip((np.trace(true) - 1) / 2, -1, 1))))
    assert np.median(errors) < 0.4 < 1 < np.median(still)


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
def test_sizes_of_pictures_that_are_aligned(full, sizes):
    assert level_sizes(full) == sizes


class StandsStill(nn.Module):
    """Stands in for a pose network that has learned nothing, and keeps what it was shown."""

    reads_maps = False

    def forward(self, first, second):
        self.shown = (first, second)
        nothing = first.new_zeros(len(first), 3)
        return nothing, nothing, first.new_zeros(len(first), 4)


def objective_and_batch(stabilised, camera=None):
    torch.manual_seed(0)
    tiny = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
    model = DepthSegForDepthEstimation(DepthSegConfig(encoder_config=tiny)).eval()
    objective = SelfSupervisedObjective(
        model, PhotometricLoss(auto_mask=False), (-1, 1), StandsStill(), camera, stabilise=stabilised
    )
    here = far_scene()
    sources = torch.stack([far_scene((-0.01, -0.04, 0.0)), far_scene((0.005, 0.03, 0.01))], 1)
    batch = {"image": here, "pixel_values": here, "source_images": sources, "source_pixel_values": sources}
    return objective, batch | {"intrinsics": CAMERA}


def test_what_is_left_for_the_pose_network_is_nothing_where_a_camera_only_turns():
    losses = {}
    for stabilised in (False, True):
        objective, batch = objective_and_batch(stabilised)
        losses[stabilised] = objective(batch)["photometric_loss"].item()
        first, second = objective.pose_network.shown
        difference = (first - second)[..., 8:-8, 20:-20].abs().mean().item()
        assert (difference < 0.02) == stabilised
    assert losses[True] < 0.3 * losses[False]
    poses = objective.explain(batch).poses
    for pose, turn in zip(poses, [(-0.01, -0.04, 0.0), (0.005, 0.03, 0.01)], strict=True):
        torch.testing.assert_close(pose[0, :3, :3], torch.from_numpy(rotation_matrix(turn)).float(), atol=1e-3, rtol=0)


def test_a_turn_found_with_an_assumed_focal_length_moves_the_middle_of_the_picture_as_seen():
    """An uncalibrated camera: aligned as if it were 192 pixels long, it is 160."""
    camera = LearnedCamera()
    assumed = camera.assume(far_scene())
    torch.testing.assert_close(assumed[0, 0, 0], torch.tensor(192.0))
    turn = (0.01, 0.04, 0.01)
    found = find_turn(far_scene(), far_scene(turn), assumed)
    corrected = turn_of(found, assumed, CAMERA)[0, :3, :3].numpy()
    wrong = np.degrees(np.arccos((np.trace(corrected @ rotation_matrix(turn).T) - 1) / 2))
    assert wrong < 0.15 < np.degrees(np.linalg.norm(found[0].numpy() - turn))


def test_learned_focal_lengths_get_a_gradient_from_turns():
    camera = LearnedCamera()
    objective, batch = objective_and_batch(True, camera)
    del batch["intrinsics"]
    objective(batch)["loss"].backward()
    # The picture is as wide as 192, the camera 160 long: descending has to make the focal length shorter.
    assert camera.raw_focal.grad.item() > 0
