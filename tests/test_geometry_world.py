"""Cameras and warps against the procedural world, which knows its depth, poses and flow, and against a real pair."""

import math
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthseg import geometry as g
from depthseg.data.synthetic import render
from depthseg.data.synthetic.camera import camera_at, rotation
from depthseg.data.synthetic.rendering import View
from depthseg.data.synthetic.scene import build_scene

SIZE = (48, 144)
SCENES = ((0, 3), (1, 8), (5, 21))
OTHERS = {"next": (1, "left"), "previous": (-1, "left"), "right": (0, "right")}
MOTORCYCLE = Path(os.environ.get("DEPTHSEG_DATA", "")) / "stereo_motorcycle"
ALL = ("depth", "moving", "flow_next", "flow_previous", "visible_next", "visible_previous")


def double(array):
    return torch.tensor(np.asarray(array), dtype=torch.float64)


@lru_cache
def still_pair(seed, index, other):
    """A view of the world, another one, and what ties them: double precision, batches of one.

    `visible` and `pixels` are the world's own answer: its rays, cast anew through the pixels it found.
    """
    time, side = OTHERS[other]
    scene = build_scene(seed, index)
    here, there = View(scene, SIZE, 0, "left"), View(scene, SIZE, time, side)
    rays, hits = here.cast()
    pixels, depth = here.follow(rays, hits, there)
    inside = depth > 0
    for axis, count in enumerate(SIZE[::-1]):
        inside &= (pixels[axis] >= -0.5) & (pixels[axis] <= count - 0.5)
    visible = inside.copy()
    seen = there.cast(pixels[:, inside])[1]
    same = np.isclose(seen.depth, depth[inside], rtol=1e-6) & (seen.surface == hits.surface[inside])
    visible[inside] = same
    moving = render(seed, index, SIZE, outputs=("moving",))["moving"].ravel()
    far = there.cast()[1].depth
    return {
        "views": (here, there),
        "hits": (rays, hits),
        "depth": double(hits.depth).view(1, *SIZE),
        "source_depth": double(far).view(1, *SIZE),
        "intrinsics": double(here.camera.intrinsics)[None],
        "source_intrinsics": double(there.camera.intrinsics)[None],
        "pose": g.compose_poses(g.invert_pose(double(there.camera.pose)[None]), double(here.camera.pose)[None]),
        "pixels": double(pixels).view(1, 2, *SIZE),
        "inside": torch.as_tensor(inside).view(1, *SIZE),
        "visible": torch.as_tensor(visible).view(1, *SIZE),
        "still": torch.as_tensor(np.isfinite(hits.depth) & ~moving).view(1, *SIZE),
    }


def cameras_of(pair):
    return pair["intrinsics"], pair["source_intrinsics"], pair["pose"]


def at_the_border(pixels):
    """Which of the pixels (B, 2, H, W) lie within one pixel of the border of an image of `SIZE`, or beyond."""
    x, y = pixels.unbind(1)
    return (x < 0.5) | (x > SIZE[1] - 1.5) | (y < 0.5) | (y > SIZE[0] - 1.5)


@pytest.mark.parametrize(("seed", "index"), SCENES)
@pytest.mark.parametrize("other", OTHERS)
def test_pixels_land_where_the_world_says_out_to_the_border(seed, index, other):
    pair = still_pair(seed, index, other)
    pixels, depth, known = g.correspond(pair["depth"], *cameras_of(pair))
    check = pair["still"] & pair["visible"]
    start, end = (at_the_border(places) for places in (g.pixel_grid(*SIZE).double()[None], pair["pixels"]))
    assert check.float().mean() > 0.3 and (check & (start | end)).sum() > 100
    assert known[check].all()
    assert (pixels - pair["pixels"]).abs().amax(1)[check].max() < 1e-6
    assert torch.equal(known, pair["depth"].isfinite() & (depth > g.MIN_DEPTH))


@pytest.mark.parametrize(("seed", "index"), SCENES)
@pytest.mark.parametrize("other", OTHERS)
def test_what_is_seen_there_has_the_same_colour(seed, index, other):
    pair = still_pair(seed, index, other)
    (here, there), (rays, hits) = pair["views"], pair["hits"]
    check = (pair["still"] & pair["visible"]).flatten()
    pixels = g.correspond(pair["depth"], *cameras_of(pair))[0].flatten(2)[0][:, check].numpy()
    seen = there.radiance(*there.cast(pixels))
    assert np.abs(seen - here.radiance(rays, hits)[check]).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("name", "step"), [("next", 1), ("previous", -1)])
def test_flow_of_a_batch_from_what_the_world_returns(name, step, dtype):
    here = [render(*scene, SIZE, outputs=(*ALL, "intrinsics", "pose")) for scene in SCENES]
    there = [render(*scene, SIZE, time=step, outputs=("pose", "intrinsics")) for scene in SCENES]
    pose, intrinsics, depth = (double([frame[key] for frame in here]) for key in ("pose", "intrinsics", "depth"))
    pose = g.compose_poses(g.invert_pose(double([frame["pose"] for frame in there])), pose)
    flow, known = g.flow_from_depth(depth.to(dtype), intrinsics.to(dtype), pose.to(dtype))
    expected = double([frame[f"flow_{name}"] for frame in here]).permute(0, 3, 1, 2)
    visible, moving = (torch.as_tensor(np.stack([f[key] for f in here])) for key in (f"visible_{name}", "moving"))
    check = visible & ~moving & (depth > 0)
    assert flow.dtype == dtype and check.float().mean() > 0.3
    assert (flow - expected).abs().amax(1)[check].max() < 1e-3
    assert not known[depth == 0].any() and (flow.abs().amax(1)[~known] == 0).all()


@pytest.mark.parametrize("other", OTHERS)
def test_the_mask_ends_where_the_image_ends(other):
    left = 0
    for scene in SCENES:
        pair = still_pair(*scene, other)
        _, mask = g.reproject(torch.zeros(1, 1, *SIZE).double(), pair["depth"], *cameras_of(pair))
        assert torch.equal(mask[pair["still"]], pair["inside"][pair["still"]])
        assert not mask[~pair["depth"].isfinite()].any()
        left += (pair["still"] & ~pair["inside"]).sum()
    assert left > {"next": 1000, "previous": 10, "right": 300}[other]  # driving back, little leaves the image


def test_right_view_is_one_disparity_aside():
    pair = still_pair(*SCENES[0], "right")
    pixels, depth, _ = g.correspond(pair["depth"], *cameras_of(pair))
    baseline = build_scene(*SCENES[0]).path.baseline
    shift = g.pixel_grid(*SIZE, dtype=torch.float64) - pixels
    expected = pair["intrinsics"][0, 0, 0] * baseline / pair["depth"]
    known = pair["depth"].isfinite()
    torch.testing.assert_close(shift[:, 0][known], expected[known], atol=1e-9, rtol=0)
    assert shift[:, 1][known].abs().max() < 1e-9
    torch.testing.assert_close(depth[known], pair["depth"][known])


@pytest.mark.parametrize(("seed", "index"), SCENES)
@pytest.mark.parametrize("other", OTHERS)
def test_a_smooth_image_is_rebuilt(seed, index, other):
    """Sampling the linear function x + 2 y of the source gives it at the world's own pixels, exactly."""
    pair = still_pair(seed, index, other)
    x, y = g.pixel_grid(*SIZE, dtype=torch.float64)
    warped, _ = g.reproject((x + 2 * y)[None, None], pair["depth"], *cameras_of(pair))
    x, y = pair["pixels"].unbind(1)
    check = pair["still"] & (x >= 0) & (x <= SIZE[1] - 1) & (y >= 0) & (y <= SIZE[0] - 1)
    assert check.float().mean() > 0.3
    torch.testing.assert_close(warped[:, 0][check], (x + 2 * y)[check], atol=1e-6, rtol=0)


def test_scaled_intrinsics_are_those_the_world_renders_with():
    for size, new_size in [((48, 144), (96, 288)), ((96, 288), (40, 120)), ((8, 24), (24, 72))]:
        here, there = (camera_at(build_scene(5, 21).path, s, 0, "left").intrinsics for s in (size, new_size))
        torch.testing.assert_close(g.scale_intrinsics(double(here)[None], size, new_size)[0], double(there))


def between_equals(depth, pixels):
    """Whether the four pixels about each place (2, H, W) show, within a tenth, one depth: no edge runs there."""
    x, y = (np.clip(np.floor(axis), 0, n - 2).astype(int) for axis, n in zip(pixels, depth.shape[::-1], strict=True))
    four = np.stack([depth[y, x], depth[y, x + 1], depth[y + 1, x], depth[y + 1, x + 1]])
    return four.max(0) < 1.1 * four.min(0)


@pytest.mark.parametrize("other", OTHERS)
def test_occlusion_by_depth_is_the_worlds(other):
    counts = np.zeros(4)
    for scene in SCENES:
        pair = still_pair(*scene, other)
        still, inside, hidden = pair["still"], pair["inside"], ~pair["visible"]
        found = g.occlusion_mask_from_depth(pair["depth"], pair["source_depth"], *cameras_of(pair))
        clear = between_equals(pair["source_depth"][0].numpy(), pair["pixels"][0].nan_to_num().numpy())
        check = still & inside & torch.as_tensor(clear)
        right = check & (found == hidden)
        counts += [(right & hidden).sum(), (check & hidden).sum(), (right & ~hidden).sum(), (check & ~hidden).sum()]
        assert found[still & ~inside].all() and found[~pair["depth"].isfinite()].all()
    assert counts[0] >= 0.95 * counts[1] > 50  # what is thinner than a pixel no depth map tells
    assert counts[2] >= 0.998 * counts[3] > 8000


def test_occlusion_by_flow_is_the_worlds():
    found = np.zeros(4)
    for scene in (*SCENES, (4, 11), (3, 2), (2, 2)):
        here = render(*scene, (96, 288), outputs=ALL)
        there = render(*scene, (96, 288), time=1, outputs=ALL)
        flows = [double(frame).permute(2, 0, 1)[None] for frame in (here["flow_next"], there["flow_previous"])]
        mask = g.occlusion_mask(*flows)[0].numpy()
        known = here["depth"] > 0
        visible = here["visible_next"]
        found += [mask[known & ~visible].sum(), (known & ~visible).sum(), (~mask)[visible].sum(), visible.sum()]
    assert found[0] > 0.9 * found[1]
    assert found[2] > 0.97 * found[3]


def test_axis_angle_turns_as_the_worlds_cameras_do():
    about = {"heading": (0, 1, 0), "pitch": (1, 0, 0), "roll": (0, 0, 1)}
    for name, axis in about.items():
        angles = {"heading": 0.0, "pitch": 0.0, "roll": 0.0, name: 0.3}
        pose = g.pose_from_axis_angle(0.3 * double([axis]), torch.zeros(1, 3).double())
        torch.testing.assert_close(pose[0, :3, :3], double(rotation(**angles)))


def test_autocast_does_not_coarsen_coordinates():
    pair = still_pair(*SCENES[0], "next")
    inputs = [pair["depth"].float(), *(part.float() for part in cameras_of(pair))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pixels = g.correspond(*inputs)[0]
    assert torch.equal(pixels, g.correspond(*inputs)[0])


@pytest.mark.skipif(not MOTORCYCLE.is_dir(), reason="DEPTHSEG_DATA names no folder that holds stereo_motorcycle/")
def test_the_motorcycle_is_rebuilt_from_its_right_view():
    left, right = (double(np.asarray(Image.open(MOTORCYCLE / f"motorcycle_{side}.png"))) for side in ("left", "right"))
    disparity = double(np.load(MOTORCYCLE / "motorcycle_disp.npz")["arr_0"])[None]
    intrinsics = double([[[1000.0, 0, 370], [0, 1000.0, 249.5], [0, 0, 1]]])
    pose = g.pose_from_axis_angle(torch.zeros(1, 3).double(), double([[-1.0, 0, 0]]))
    depth = torch.where(disparity.isfinite(), 1000.0 / disparity, math.inf)
    warped, mask = g.reproject(right.permute(2, 0, 1)[None], depth, intrinsics, intrinsics, pose)
    assert not mask[~disparity.isfinite()].any()
    difference = (warped[0].permute(1, 2, 0) - left).abs()[mask[0]].mean()
    assert (left - right).abs().mean().item() == pytest.approx(39.5, abs=0.05)
    assert difference.item() == pytest.approx(7.7, abs=0.05)
