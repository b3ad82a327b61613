"""The motion report against numbers worked out by hand, brute force, and the world's exact depth and poses."""

from __future__ import annotations

import json
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from depthseg import geometry as g
from depthseg.data.sample import Sample
from depthseg.data.synthetic import render
from depthseg.engine import motion
from depthseg.engine.motion import best_step, compare_trajectories, longest_clip, write_motion_report

SIZE = (40, 120)
TURNING_SCENE = (1, 4)


class Drive:
    """A video of which everything is known; `motions` holds for each sample the poses to its sources."""

    def __init__(self, samples, motions, depths, poses=None):
        self.samples, self.motions, self.depths = samples, motions, depths
        self.names = [sample.name for sample in samples]
        self.label_space = None
        if poses is not None:
            self.poses = poses

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def make_batch(self, sample):
        def as_tensor(image):
            return torch.from_numpy(np.asarray(image)).permute(2, 0, 1).float() / 255

        index = self.names.index(sample.name)
        return {
            "image": as_tensor(sample.image)[None],
            "source_images": torch.stack([as_tensor(frame) for frame in sample.frames.values()])[None],
            "true_depth": torch.from_numpy(self.depths[index])[None],
            "true_poses": torch.from_numpy(np.stack(self.motions[index])).float()[None],
            "true_intrinsics": torch.from_numpy(sample.intrinsics).float()[None],
        }


class Oracle(nn.Module):
    """Explains with what the batch says, in a unit of its own, and with another focal length if asked."""

    def __init__(self, source_frames, unit=1.0, camera=None, focal_factor=1.0):
        super().__init__()
        self.source_frames, self.unit, self.camera, self.focal_factor = source_frames, unit, camera, focal_factor
        self.modes = set()

    def explain(self, batch):
        self.modes.add((self.training, torch.is_grad_enabled()))
        depth, intrinsics = batch["true_depth"] * self.unit, batch["true_intrinsics"].clone()
        intrinsics[:, 0, 0] *= self.focal_factor
        poses = [pose.clone() for pose in batch["true_poses"].unbind(1)]
        for pose in poses:
            pose[:, :3, 3] *= self.unit
        pixels = [g.correspond(depth, intrinsics, intrinsics, pose)[0] for pose in poses]
        return SimpleNamespace(depth=depth, poses=poses, intrinsics=intrinsics, pixels=[pixels])


@pytest.fixture
def undrawn(monkeypatch):
    """Leave out the panel, which takes longer than all of the rest."""
    monkeypatch.setattr(motion, "write_panel", lambda path, *_: path.touch())


def report_of(folder, oracle, drive):
    report = write_motion_report(folder, oracle, drive, drive.make_batch, "cpu")
    assert json.loads((folder / "motion.json").read_text()) == report
    assert (folder / "warped.png").exists()
    return report


@lru_cache
def frame(t):
    return render(*TURNING_SCENE, SIZE, time=t, outputs=("image", "depth", "pose", "intrinsics"))


def drive_through_the_world(offsets=(-1, 1), length=4):
    """The middle frames of a drive, with exact depth and poses."""
    frames = [frame(t) for t in range(length + 2)]
    samples, motions, depths = [], [], []
    for t in range(1, length + 1):
        here = frames[t]
        others = {offset: frames[t + offset] for offset in offsets}
        images = {offset: other["image"] for offset, other in others.items()}
        samples.append(Sample(f"{t:03d}", here["image"], frames=images, intrinsics=here["intrinsics"]))
        motions.append([np.linalg.inv(other["pose"]) @ here["pose"] for other in others.values()])
        depths.append(here["depth"])
    return Drive(samples, motions, depths, np.stack([frames[t]["pose"] for t in range(1, length + 1)]))


def test_truth_explains_the_world_better_than_what_needs_no_network(tmp_path):
    oracle = Oracle((-1, 1)).train()
    report = report_of(tmp_path, oracle, drive_through_the_world())
    # Four columns and two rows of images three times as wide as high.
    width, height = Image.open(tmp_path / "warped.png").size
    assert width > 5 * height / 2 > 1000
    errors = report["warp_error"]
    # Moving objects, hidden pixels and leaves finer than a pixel are left over.
    assert errors["model"] < 0.6 * errors["straight_line"] < 0.6 * errors["identity"]
    assert 0.5 < report["seen_share"] < 1 and report["straight_line_step"] > 0.3
    model, line = report["trajectory"]["model"], report["trajectory"]["straight_line"]
    assert max(model["ate"], model["rotation_error"]) < 1e-3 and model["frames"] == 4
    assert line["ate"] > 0.05 and line["rotation_error"] == pytest.approx(3.49, abs=0.05)
    assert report["focal_length"] is None and report["samples"] == 4
    assert oracle.training and oracle.modes == {(False, False)}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("offsets", [(-1,), (1,)])
def test_one_source_says_how_the_camera_went(tmp_path, offsets):
    oracle, drive = Oracle(offsets), drive_through_the_world(offsets)
    assert report_of(tmp_path, oracle, drive)["trajectory"]["model"]["ate"] < 1e-3


@pytest.mark.usefixtures("undrawn")
def test_the_unit_of_depth_does_not_matter(tmp_path):
    drive = drive_through_the_world()
    metres, others = (report_of(tmp_path, Oracle((-1, 1), unit), drive) for unit in (1.0, 0.05))
    assert others["warp_error"] == pytest.approx(metres["warp_error"], rel=1e-3)
    assert others["straight_line_step"] == pytest.approx(0.05 * metres["straight_line_step"], rel=0.02)
    assert others["trajectory"]["model"]["ate"] < 1e-3


@pytest.mark.usefixtures("undrawn")
def test_learned_focal_lengths_stand_beside_given_ones(tmp_path):
    drive = drive_through_the_world()
    given = drive[0].intrinsics.diagonal()[:2]
    focal = report_of(tmp_path, Oracle((-1, 1), camera="learned", focal_factor=1.2), drive)["focal_length"]
    assert focal["given"] == pytest.approx(list(given)) and focal["relative_error"] == pytest.approx(
        [0.2, 0], abs=1e-6
    )
    assert focal["learned"] == pytest.approx([1.2 * given[0], given[1]])


WIDTH, HEIGHT, FOCAL, DEPTH = 24, 8, 20.0, 10.0


def sliding_drive(names, shift=2.0, offset=1, **options):
    """A ramp of 4 grey levels a pixel, far and flat, that slides to the right by `shift` a frame."""
    ramp = 60 + 4.0 * np.arange(WIDTH)
    image, source = (
        np.tile(levels[None, :, None], (HEIGHT, 1, 3)).astype(np.uint8) for levels in (ramp, ramp - 4 * shift)
    )
    intrinsics = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1.0]])
    motion = np.eye(4)
    motion[0, 3] = shift * DEPTH / FOCAL
    depth = np.full((HEIGHT, WIDTH), DEPTH, np.float32)
    samples = [Sample(name, image, frames={offset: source}, intrinsics=intrinsics) for name in names]
    return Drive(samples, [[motion]] * len(names), [depth] * len(names), **options)


def straight_line_by_brute_force(drive):
    """Least error over finely spaced steps, rows alike: numpy's interpolation, border pixels beyond the border."""
    sample = drive[0]
    target, source = (image[0, :, 0].astype(float) for image in (sample.image, sample.frames[1]))
    columns = np.arange(WIDTH)
    errors = []
    for step in np.linspace(-9, 9, 3601):
        places = (columns - (WIDTH - 1) / 2) * DEPTH / (DEPTH - step) + (WIDTH - 1) / 2
        found = np.interp(places, columns, source)
        errors.append(np.abs(found - target)[: WIDTH - 2].mean())
    return min(errors)


@pytest.mark.usefixtures("undrawn")
def test_by_hand(tmp_path):
    report = report_of(tmp_path, Oracle((1,)), drive := sliding_drive(["0", "1", "2"]))
    errors = report["warp_error"]
    # Two columns of 24 slide out of the image; the others are found again, where they had been off by 8.
    assert errors["model"] == pytest.approx(0, abs=1e-3) and errors["identity"] == pytest.approx(8, abs=1e-4)
    assert report["seen_share"] == pytest.approx((WIDTH - 2) / WIDTH)
    assert errors["straight_line"] == pytest.approx(straight_line_by_brute_force(drive), rel=1e-3)
    assert errors["straight_line"] < 7.9
    assert report["trajectory"] is None


@pytest.mark.usefixtures("undrawn")
def test_a_drive_straight_ahead_is_found(tmp_path):
    # The plane comes nearer by 1.3 of 10: an image that widens by 10 / 8.7 about its centre.
    drive = sliding_drive(["0", "1"], 0.0)
    columns = (np.arange(WIDTH) - 11.5) * 8.7 / 10 + 11.5
    image, source = (
        np.tile(10 * values[None, :, None], (HEIGHT, 1, 3)).round().astype(np.uint8)
        for values in (np.arange(WIDTH), columns)
    )
    drive.samples = [Sample(name, image, frames={1: source}, intrinsics=drive[0].intrinsics) for name in drive.names]
    assert report_of(tmp_path, Oracle((1,)), drive)["straight_line_step"] == pytest.approx(1.3, abs=0.05)


@pytest.mark.parametrize("valley", [-0.51, 0.2, 0.93])
def test_the_best_step_is_that_of_the_least_error(valley):
    asked = []

    def guess(step):
        asked.append(step)
        return step

    view = SimpleNamespace(depth=torch.ones(1, 2, 2), guess=guess, error=lambda step: abs(step - valley) ** 1.5)
    # The coarse search tries 21 steps; the interval around the best is at most 0.75 wide, the precision 0.004 of it.
    assert best_step(lambda number: view, 1) == pytest.approx(valley, abs=0.003)
    assert len(asked) <= 21 + 14 + 2


@pytest.mark.usefixtures("undrawn")
def test_only_neighbours_of_one_clip_are_joined(tmp_path):
    # A metre to the right in camera axes is a camera that went to the left: 0, -1, -2 in the longer clip.
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[2:, 0, 3] = 7 - np.arange(3)
    report = report_of(tmp_path, Oracle((1,)), sliding_drive(["a/0", "a/1", "b/0", "b/1", "b/2"], poses=poses))
    trajectory = report["trajectory"]
    assert trajectory["clip"] == "b" and trajectory["model"]["frames"] == 3
    assert trajectory["model"]["ate"] == pytest.approx(0, abs=1e-6) and trajectory["model"]["scale"] == pytest.approx(
        1
    )
    # Straight ahead it never comes a step nearer.
    assert trajectory["straight_line"]["ate"] == pytest.approx(np.sqrt((1 + 4) / 3))
    assert longest_clip(["1", "2"]) == ("", [0, 1])


@pytest.mark.usefixtures("undrawn")
def test_a_stride_joins_every_other_sample(tmp_path):
    poses = np.tile(np.eye(4), (6, 1, 1))
    poses[:, 0, 3] = -0.5 * np.arange(6)
    drive = sliding_drive([str(number) for number in range(6)], poses=poses)
    drive.stride = 2
    trajectory = report_of(tmp_path, Oracle((1,)), drive)["trajectory"]["model"]
    assert trajectory["frames"] == 3 and trajectory["scale"] == pytest.approx(1)
    drive.stride = 6
    assert report_of(tmp_path, Oracle((1,)), drive)["trajectory"] is None


@pytest.mark.usefixtures("undrawn")
def test_frames_farther_away_count_by_their_distance(tmp_path):
    # Two frames ahead, at constant speed: the step of one frame is half of the way.
    near = report_of(tmp_path, Oracle((1,)), sliding_drive(["0"], 2.0, 1))
    far = report_of(tmp_path, Oracle((2,)), sliding_drive(["0"], 2.0, 2))
    back = report_of(tmp_path, Oracle((-1,)), sliding_drive(["0"], 2.0, -1))
    assert far["straight_line_step"] == pytest.approx(near["straight_line_step"] / 2, rel=0.01)
    assert back["straight_line_step"] == pytest.approx(-near["straight_line_step"], rel=0.01)


@pytest.mark.usefixtures("undrawn")
def test_nothing_seen_is_no_number(tmp_path):
    report = report_of(tmp_path, Oracle((1,)), sliding_drive(["0"], shift=2 * WIDTH / 2.0))
    assert report["seen_share"] == 0 and set(report["warp_error"].values()) == {None}


def test_what_is_no_video_is_named(tmp_path):
    drive = sliding_drive(["0", "1"], poses=np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="2 samples, but 3 poses"):
        write_motion_report(tmp_path, Oracle((1,)), drive, drive.make_batch, "cpu")
    with pytest.raises(ValueError, match="needs a video"):
        write_motion_report(tmp_path, Oracle(()), drive, drive.make_batch, "cpu")
    with pytest.raises(ValueError, match="at least one sample"):
        write_motion_report(tmp_path, Oracle((1,)), Drive([], [], []), drive.make_batch, "cpu")


def test_motions_of_shuffled_frames_are_not_joined():
    steps = [np.eye(4) for _ in range(4)]
    for number, pose in enumerate(steps):
        pose[2, 3] = number
    forward = np.linalg.inv(steps[0]) @ steps[1]
    motions = [{1: forward, -1: np.linalg.inv(forward)} for _ in steps]

    class Film(list):
        names = [f"a/{number}" for number in range(4)]
        poses = np.stack(steps)

    film = Film(range(4))
    assert compare_trajectories(motions, film)["model"]["ate"] == pytest.approx(0, abs=1e-9)
    film.is_continuous = False
    assert compare_trajectories(motions, film) is None
