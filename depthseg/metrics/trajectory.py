"""Errors of an estimated camera trajectory.

A trajectory is a stack of poses `(N, 4, 4)`, each from the axes of a camera to those of the world, in temporal order.
The estimated trajectory has its own world axes and unit of length; the two trajectories are aligned at their first
camera.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ALIGNMENTS = ("none", "scale", "similarity")
"""`none`: the first cameras coincide. `scale`: in addition, lengths are multiplied by the least-squares scale.
`similarity`: least-squares rotation, translation and scale; the first cameras need not coincide."""

SNIPPET_FRAMES = 5
STANDSTILL = 1e-3
"""Fraction of the mean step length; a shorter step has no direction."""


def chain_poses(relative: np.ndarray) -> np.ndarray:
    """Chain the motions between consecutive images to a trajectory.

    Args:
        relative: `(N - 1, 4, 4)`; number i transforms points from the axes of camera i to those of camera i + 1.

    Returns:
        `(N, 4, 4)`, in the axes of the first camera.
    """
    poses = [np.eye(4)]
    for motion in np.asarray(relative, dtype=np.float64):
        poses.append(poses[-1] @ np.linalg.inv(motion))
    return np.stack(poses)


def straight_line(truth: np.ndarray) -> np.ndarray:
    """Baseline trajectory: straight forward motion with the mean length of the true steps, without rotation.

    Args:
        truth: `(N, 4, 4)`.

    Returns:
        `(N, 4, 4)`, in the axes of its first camera.
    """
    steps = np.linalg.norm(np.diff(_positions(truth), axis=0), axis=1)
    poses = np.tile(np.eye(4), (len(truth), 1, 1))
    poses[:, 2, 3] = steps.mean() * np.arange(len(truth))
    return poses


def trajectory_errors(predicted: np.ndarray, truth: np.ndarray, alignment: str = "scale") -> dict[str, Any]:
    """Compare an estimated trajectory with the true one.

    Args:
        predicted: `(N, 4, 4)`.
        truth: `(N, 4, 4)`, metres.
        alignment: One of `ALIGNMENTS`, fitted by least squares.

    Returns:
        `ate`, the absolute trajectory error: root of the mean squared distance of the positions, metres;
        `snippet_ate`, its mean over all snippets of 5 frames, each aligned separately, None if there are fewer;
        `path_length` of the ground truth, metres; `scale`, the factor of the prediction; `rotation_error`, the mean
        angle in degrees between estimated and true rotations of neighbouring frames, and `direction_error`, the same
        for their directions of translation, None if no step moved; `frames`; `alignment`.

    Raises:
        ValueError: Shapes differ or are wrong, fewer than two poses, numbers that are not finite, or an unknown
            alignment.

    Source:
        Sturm et al. 2012 for the error, Umeyama 1991 for the similarity; alignment `scale` and snippets of 5 as in
        SfMLearner and Monodepth2; their code, however, divides the root of the sum by N, not by the root of N.
    """
    predicted, truth = _checked(predicted, truth, alignment)
    found, expected = _positions(predicted), _positions(truth)
    aligned, scale = align_positions(found, expected, alignment)
    steps, true_steps = _motions(predicted), _motions(truth)
    return {
        "ate": _rms_distance(aligned, expected),
        "snippet_ate": _snippet_error(predicted, truth, alignment),
        "path_length": float(np.linalg.norm(true_steps[:, :3, 3], axis=1).sum()),
        "scale": scale,
        "rotation_error": float(np.degrees(_turns_between(steps[:, :3, :3], true_steps[:, :3, :3])).mean()),
        "direction_error": _mean_direction_error(steps[:, :3, 3], true_steps[:, :3, 3]),
        "frames": len(truth),
        "alignment": alignment,
    }


def align_positions(found: np.ndarray, expected: np.ndarray, alignment: str) -> tuple[np.ndarray, float]:
    """Align positions to others by least squares.

    Args:
        found: `(N, 3)`.
        expected: `(N, 3)`.
        alignment: One of `ALIGNMENTS`; without `similarity` the origins are not moved.

    Returns:
        The aligned positions and their scale; 0 for positions that are all equal.
    """
    if alignment == "none":
        return found, 1.0
    if alignment == "scale":
        square = np.sum(found**2)
        scale = float(np.sum(found * expected) / square) if square else 0.0
        return scale * found, scale
    rotation, translation, scale = fit_similarity(found, expected)
    return scale * found @ rotation.T + translation, scale


def fit_similarity(found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Rotation `(3, 3)`, translation `(3,)` and scale with the minimum sum of |expected - (s R found + t)|^2.

    Args:
        found: `(N, 3)`.
        expected: `(N, 3)`.

    Source:
        Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".
    """
    centre, target_centre = found.mean(0), expected.mean(0)
    centred, target = found - centre, expected - target_centre
    left, strengths, right = np.linalg.svd(target.T @ centred)
    # A reflection may have a lower error, but is not a rotation.
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left * signs @ right
    square = np.sum(centred**2)
    scale = float(np.sum(strengths * signs) / square) if square else 0.0
    return rotation, target_centre - scale * rotation @ centre, scale


def _checked(predicted: np.ndarray, truth: np.ndarray, alignment: str) -> tuple[np.ndarray, np.ndarray]:
    if alignment not in ALIGNMENTS:
        raise ValueError(f"alignment={alignment!r} is unknown; choose one of {', '.join(ALIGNMENTS)}.")
    predicted, truth = (np.asarray(poses, dtype=np.float64) for poses in (predicted, truth))
    if predicted.shape != truth.shape or truth.shape[1:] != (4, 4) or len(truth) < 2:
        raise ValueError(
            f"The predicted trajectory has shape {predicted.shape}, the true one {truth.shape}; both must be "
            "(N, 4, 4) and equal, with at least two poses."
        )
    for name, poses in (("predicted", predicted), ("true", truth)):
        if not np.isfinite(poses).all():
            raise ValueError(f"The {name} trajectory contains numbers that are not finite.")
    return predicted, truth


def _positions(poses: np.ndarray) -> np.ndarray:
    """Positions of the cameras, `(N, 3)`, in the axes of the first one."""
    return (np.linalg.inv(poses[0]) @ poses)[:, :3, 3]


def _motions(poses: np.ndarray) -> np.ndarray:
    """Pose of each camera in the axes of the one before, `(N - 1, 4, 4)`."""
    return np.linalg.inv(poses[:-1]) @ poses[1:]


def _rms_distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum((found - expected) ** 2, axis=1))))


def _snippet_error(predicted: np.ndarray, truth: np.ndarray, alignment: str) -> float | None:
    starts = range(len(truth) - SNIPPET_FRAMES + 1)
    errors = []
    for start in starts:
        found, expected = (_positions(poses[start : start + SNIPPET_FRAMES]) for poses in (predicted, truth))
        errors.append(_rms_distance(align_positions(found, expected, alignment)[0], expected))
    return float(np.mean(errors)) if errors else None


def _turns_between(rotation: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angles between rotations `(N, 3, 3)`, radians; from the chord length, which is accurate for small angles."""
    chord = np.linalg.norm(rotation - other, axis=(1, 2))
    return 2 * np.arcsin(np.clip(chord / np.sqrt(8), 0.0, 1.0))


def _mean_direction_error(steps: np.ndarray, true_steps: np.ndarray) -> float | None:
    lengths = (np.linalg.norm(some, axis=1) for some in (steps, true_steps))
    moved = np.all([length > STANDSTILL * length.mean() for length in lengths], axis=0)
    if not moved.any():
        return None
    steps, true_steps = steps[moved], true_steps[moved]
    across = np.linalg.norm(np.cross(steps, true_steps), axis=1)
    return float(np.degrees(np.arctan2(across, np.sum(steps * true_steps, axis=1))).mean())
