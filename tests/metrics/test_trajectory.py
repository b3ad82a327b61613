"""Trajectory errors against numbers worked out by hand, brute force and a numerical optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthseg.geometry import pose_from_axis_angle
from depthseg.metrics import chain_poses, straight_line, trajectory_errors
from depthseg.metrics.trajectory import align_positions, fit_similarity


def pose(rotation=(0.0, 0.0, 0.0), position=(0.0, 0.0, 0.0)):
    """Camera to world, `(4, 4)`."""
    numbers = (torch.from_numpy(np.array([values], dtype=np.float64)) for values in (rotation, position))
    return pose_from_axis_angle(*numbers)[0].numpy()


def standing_at(*positions):
    return np.stack([pose(position=position) for position in positions])


def random_drive(seed, length=12):
    """A path that bends and climbs; the camera looks about."""
    rng = np.random.default_rng(seed)
    positions = np.cumsum(rng.normal((0.1, 0.0, 1.0), 0.2, (length, 3)), axis=0)
    return np.stack([pose(rng.normal(0, 0.3, 3), position) for position in positions])


def moved(poses, rotation=(0.3, -1.0, 0.4), position=(5.0, -2.0, 7.0), scale=1.0):
    """The same drive in another world, of another unit."""
    result = pose(rotation, position) @ poses
    result[:, :3, 3] *= scale
    return result


def test_by_hand():
    # One metre ahead, then one to the right; the estimate has no bend and twice the unit.
    truth = standing_at((0, 0, 0), (0, 0, 1), (1, 0, 1))
    predicted = standing_at((0, 0, 0), (0, 0, 2), (0, 0, 4))
    errors = trajectory_errors(predicted, truth)
    # (2 * 1 + 4 * 1) / (4 + 16) = 0.3: at 0.6 and 1.2, off by 0.4 and by (1, -0.2).
    assert errors["scale"] == pytest.approx(0.3)
    assert errors["ate"] == pytest.approx(np.sqrt((0.4**2 + 1 + 0.2**2) / 3))
    assert (errors["path_length"], errors["frames"], errors["alignment"]) == (2.0, 3, "scale")
    assert errors["rotation_error"] == 0 and errors["direction_error"] == pytest.approx((0 + 90) / 2)
    assert errors["snippet_ate"] is None
    plain = trajectory_errors(predicted, truth, "none")
    assert plain["ate"] == pytest.approx(np.sqrt((1 + 1 + 9) / 3)) and plain["scale"] == 1


def test_turns_are_compared_between_neighbours():
    truth = np.stack([pose(), pose((0, 0.1, 0)), pose((0, 0.3, 0))])
    predicted = np.stack([pose(), pose((0, 0.1, 0)), pose((0, 0.25, 0))])
    errors = trajectory_errors(predicted, truth)
    assert errors["rotation_error"] == pytest.approx(np.degrees(0.05) / 2)
    assert errors["direction_error"] is None and errors["ate"] == 0 and errors["scale"] == 0
    half = trajectory_errors(np.stack([pose(), pose((0, np.pi, 0))]), np.stack([pose(), pose()]))
    assert half["rotation_error"] == pytest.approx(180)


@pytest.mark.parametrize("alignment", ["scale", "similarity"])
def test_unit_and_world_of_the_estimate_do_not_matter(alignment):
    truth = random_drive(0)
    predicted = moved(random_drive(0), scale=0.02)
    errors = trajectory_errors(predicted, truth, alignment)
    assert errors["ate"] == pytest.approx(0, abs=1e-12) and errors["snippet_ate"] == pytest.approx(0, abs=1e-12)
    assert errors["scale"] == pytest.approx(50)
    assert max(errors["rotation_error"], errors["direction_error"]) < 1e-5
    worse = [trajectory_errors(moved(random_drive(1), scale=unit), truth, alignment) for unit in (1.0, 0.02)]
    assert worse[0]["ate"] == pytest.approx(worse[1]["ate"]) and worse[0]["ate"] > 0.1


def test_scale_is_that_of_least_squares():
    found, expected = np.random.default_rng(0).normal(size=(2, 9, 3))
    (scale,), (squares,), *_ = np.linalg.lstsq(found.reshape(-1, 1), expected.ravel(), rcond=None)
    aligned, ours = align_positions(found, expected, "scale")
    assert ours == pytest.approx(scale)
    assert np.sum((aligned - expected) ** 2) == pytest.approx(squares)


def best_by_optimiser(found, expected):
    """Least sum of squares over rotation, translation and scale, from several starts."""
    found, expected = torch.from_numpy(found), torch.from_numpy(expected)
    starts = torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    sums = []
    for start in starts:
        rotation = start.clone().requires_grad_()
        # The logarithm of the scale: a negative one would make a mirror image.
        other = torch.tensor([0.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([rotation, other], max_iter=200, line_search_fn="strong_wolfe")

        def closure(rotation=rotation, other=other, optimiser=optimiser):
            optimiser.zero_grad()
            turn = pose_from_axis_angle(rotation[None], torch.zeros(1, 3, dtype=torch.float64))[0, :3, :3]
            loss = (other[3].exp() * found @ turn.T + other[:3] - expected).square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        sums.append(closure().item())
    return min(sums)


@pytest.mark.parametrize("seed", range(3))
def test_similarity_is_the_best_there_is(seed):
    # Of the last pair one is nearly the mirror image of the other, which no rotation can reach.
    rng = np.random.default_rng(seed)
    expected = rng.normal(size=(10, 3))
    found = expected * (1, 1, -1) + rng.normal(0, 0.05, (10, 3)) if seed == 2 else rng.normal(size=(10, 3))
    rotation, translation, scale = fit_similarity(found, expected)
    assert np.linalg.det(rotation) == pytest.approx(1) and scale > 0
    squares = np.sum((scale * found @ rotation.T + translation - expected) ** 2)
    assert squares == pytest.approx(best_by_optimiser(found, expected), rel=1e-6)
    assert squares > 0.1


def test_similarity_of_a_straight_path():
    truth = standing_at((0, 0, 0), (1, 1, 0), (2, 2, 0))
    assert trajectory_errors(standing_at((0, 0, 0), (0, 0, 3), (0, 0, 6)), truth, "similarity")["ate"] < 1e-12


@pytest.mark.parametrize("alignment", ["none", "scale", "similarity"])
def test_who_stands_still_is_off_by_the_whole_way(alignment):
    truth = standing_at((0, 0, 0), (0, 0, 1), (0, 0, 2))
    expected = np.sqrt(2 / 3) if alignment == "similarity" else np.sqrt(5 / 3)
    assert trajectory_errors(standing_at(*[(0, 0, 0)] * 3), truth, alignment)["ate"] == pytest.approx(expected)


def test_chain_goes_where_its_motions_came_from():
    drive = random_drive(3)
    relative = np.stack([np.linalg.inv(there) @ here for here, there in zip(drive, drive[1:], strict=False)])
    np.testing.assert_allclose(drive[0] @ chain_poses(relative), drive, atol=1e-12)
    # Points come 2 m nearer: the camera has gone 2 m ahead.
    assert chain_poses(pose(position=(0, 0, -2))[None])[1, 2, 3] == 2


def test_straight_line_goes_ahead_by_the_mean_step():
    truth = moved(standing_at((0, 0, 0), (0, 0, 1), (3, 0, 1), (3, 0, 2)))
    line = straight_line(truth)
    np.testing.assert_allclose(line[:, :3, 3], np.outer(np.arange(4) * 5 / 3, (0, 0, 1)))
    assert (line[:, :3, :3] == np.eye(3)).all()
    errors = trajectory_errors(line, truth)
    # By hand: positions z = 0, 1, 1, 2 on a line of steps 1: scale (1 + 2 + 6) / 14; x = 0, 0, 3, 3 is missed.
    unit = 9 / 14
    assert errors["ate"] == pytest.approx(
        np.sqrt(((1 - unit) ** 2 + (1 - 2 * unit) ** 2 + (2 - 3 * unit) ** 2 + 18) / 4)
    )


def test_snippets_are_aligned_one_by_one():
    # The unit drifts: the whole has one scale for all, each run of five its own.
    truth = random_drive(4, 9)
    predicted = truth.copy()
    found = [trajectory_errors(predicted[i : i + 5], truth[i : i + 5])["ate"] for i in range(5)]
    assert trajectory_errors(predicted, truth)["snippet_ate"] == pytest.approx(np.mean(found), abs=1e-12)
    predicted[5:, :3, 3] *= 1.5
    found = [trajectory_errors(predicted[i : i + 5], truth[i : i + 5])["ate"] for i in range(5)]
    assert trajectory_errors(predicted, truth)["snippet_ate"] == pytest.approx(np.mean(found)) and np.mean(found) > 0.1


@pytest.mark.parametrize(
    ("predicted", "truth", "alignment", "words"),
    [
        (np.eye(4)[None], np.eye(4)[None], "scale", "at least two poses"),
        (np.zeros((3, 4, 4)), np.zeros((2, 4, 4)), "scale", r"\(3, 4, 4\), the true one \(2, 4, 4\)"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), "scale", r"must be \(N, 4, 4\)"),
        (np.full((2, 4, 4), np.nan), np.zeros((2, 4, 4)), "scale", "The predicted trajectory"),
        (np.zeros((2, 4, 4)), np.full((2, 4, 4), np.inf), "scale", "The true trajectory"),
        (np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), "sim3", "alignment='sim3' is unknown"),
    ],
)
def test_what_cannot_be_compared_is_named(predicted, truth, alignment, words):
    with pytest.raises(ValueError, match=words):
        trajectory_errors(predicted, truth, alignment)
