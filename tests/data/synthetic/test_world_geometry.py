"""The world's geometry against definitions written down independently here."""

import numpy as np
import pytest

from depthseg.data.synthetic import render
from depthseg.data.synthetic.camera import advance
from depthseg.data.synthetic.primitives import BOX, CONE, ELLIPSOID
from depthseg.data.synthetic.rendering import View
from depthseg.data.synthetic.scene import build_scene
from depthseg.data.synthetic.surfaces import PAVEMENT_SURFACE, ROAD_SURFACE
from depthseg.data.synthetic.world import WORLD

SIZE = (48, 144)
SCENES = ((0, 3), (1, 8), (5, 21))
EVERYTHING = (
    "radiance",
    "depth",
    "labels",
    "moving",
    "flow_next",
    "flow_previous",
    "visible_next",
    "visible_previous",
    "intrinsics",
    "pose",
)


def turned_scene():
    """A scene whose road bends, with a crossing and moving objects in sight."""
    for index in range(200):
        scene = build_scene(4, index)
        if scene.road.curvature and scene.road.crossing is not None and scene.path.speed > 0.3:
            seen = render(4, index, SIZE, outputs=("moving", "labels"))
            if seen["moving"].mean() > 0.05:
                return index
    raise AssertionError("no such scene among 200")


TURNED = turned_scene()


def world_points(frame):
    """World points (H, W, 3) from the returned depth, intrinsics and pose alone."""
    height, width = frame["depth"].shape
    v, u = np.mgrid[0:height, 0:width].astype(np.float64)
    pixels = np.stack([u, v, np.ones_like(u)], -1)
    local = pixels @ np.linalg.inv(frame["intrinsics"]).T * frame["depth"][..., None].astype(np.float64)
    return local @ frame["pose"][:3, :3].T + frame["pose"][:3, 3]


def project(points, frame):
    """Pixels (H, W, 2) of world points in another frame."""
    local = (points - frame["pose"][:3, 3]) @ frame["pose"][:3, :3]
    pixels = local @ frame["intrinsics"].T
    return pixels[..., :2] / pixels[..., 2:]


@pytest.mark.parametrize(("seed", "index"), [*SCENES, (4, TURNED)])
@pytest.mark.parametrize(("name", "step"), [("next", 1), ("previous", -1)])
def test_depth_and_pose_give_the_flow_of_what_stands(seed, index, name, step):
    here = render(seed, index, SIZE, outputs=EVERYTHING)
    there = render(seed, index, SIZE, time=step, outputs=EVERYTHING)
    v, u = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    expected = project(world_points(here), there) - np.stack([u, v], -1)
    check = here[f"visible_{name}"] & ~here["moving"] & (here["depth"] > 0)
    assert check.mean() > 0.2
    assert np.abs(expected - here[f"flow_{name}"])[check].max() < 1e-3


@pytest.mark.parametrize(("seed", "index"), [*SCENES, (4, TURNED)])
@pytest.mark.parametrize("step", [1, -1])
def test_the_matched_point_has_the_same_colour_and_surface(seed, index, step):
    here, there = (View(build_scene(seed, index), SIZE, time, "left") for time in (0, step))
    name = "next" if step == 1 else "previous"
    frame = render(seed, index, SIZE, outputs=("flow_" + name, "visible_" + name, "moving", "depth"))
    rays, hits = here.cast()
    pixels, depth = here.follow(rays, hits, there)
    seen = frame["visible_" + name].ravel()
    assert seen.mean() > 0.4
    rays_there, hits_there = there.cast(pixels[:, seen])
    finite = np.isfinite(hits.depth[seen])
    np.testing.assert_allclose(hits_there.depth[finite], depth[seen][finite], rtol=1e-9)
    difference = here.radiance(rays, hits)[seen] - there.radiance(rays_there, hits_there)
    assert np.abs(difference).max() < 1e-5
    moved = pixels.T.reshape(*SIZE, 2) - np.mgrid[0 : SIZE[0], 0 : SIZE[1]][::-1].transpose(1, 2, 0)
    assert np.abs(moved - frame["flow_" + name])[frame["visible_" + name]].max() < 1e-4


def test_moving_objects_move_rigidly_and_unlike_the_ground():
    here = render(4, TURNED, SIZE, outputs=EVERYTHING)
    there = render(4, TURNED, SIZE, time=1, outputs=EVERYTHING)
    scene = build_scene(4, TURNED)
    _, hits = View(scene, SIZE, 0, "left").cast()
    body = np.append(scene.parts.body, [-1, -1, -1])[hits.surface].reshape(SIZE)
    still = project(world_points(here), there) - np.mgrid[0 : SIZE[0], 0 : SIZE[1]][::-1].transpose(1, 2, 0)
    assert np.abs(still - here["flow_next"])[here["moving"] & here["visible_next"]].max() > 0.3
    checked = 0
    for number in np.unique(body[here["moving"]]):
        mask = (body == number) & here["visible_next"]
        start = world_points(here)[mask]
        if len(start) < 12:
            continue
        speed, turn = scene.parts.motion[number, 3:]
        x, z, heading = scene.parts.motion[number, :3]
        moments = np.linspace(0, 1, 20001)[:-1] + 0.5 / 20000  # the drive added up in small steps
        headings = heading + turn * moments
        shift = speed / 20000 * np.array([np.sin(headings).sum(), np.cos(headings).sum()])
        spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        end = start.copy()
        end[:, [0, 2]] = (start[:, [0, 2]] - (x, z)) @ spin.T + (x, z) + shift
        v, u = np.nonzero(mask)
        expected = project(end, there) - np.stack([u, v], -1)
        assert np.abs(expected - here["flow_next"][mask]).max() < 1e-3
        checked += 1
    assert checked


def test_right_view_is_one_baseline_aside():
    left, right = (render(0, 3, SIZE, view=view, outputs=EVERYTHING) for view in ("left", "right"))
    baseline = build_scene(0, 3).path.baseline
    assert WORLD.baseline[0] <= baseline <= WORLD.baseline[1]
    offset = left["pose"][:3, :3].T @ (right["pose"][:3, 3] - left["pose"][:3, 3])
    np.testing.assert_allclose(offset, [baseline, 0, 0], atol=1e-12)
    known = left["depth"] > 0
    disparity = left["intrinsics"][0, 0] * baseline / left["depth"][known]
    u = np.broadcast_to(np.arange(SIZE[1]), SIZE)[known]
    np.testing.assert_allclose(project(world_points(left), right)[known][:, 0], u - disparity, atol=1e-3)


def inside_solid(parts, row, local):
    """Whether points (N, 3) in the axes of a solid part lie inside it, from the words of `Parts`."""
    x, height, z = local[:, 0], -local[:, 1], local[:, 2]
    wide, tall, long = parts.size[row]
    if parts.kind[row] == ELLIPSOID:
        return (x / wide) ** 2 + (height / tall) ** 2 + (z / long) ** 2 < 1
    within = (height > 0) & (height < tall)
    if parts.kind[row] == CONE:
        return within & (np.hypot(x, z) < wide - parts.taper[row, 0] * height)
    across = np.abs(x - parts.shear[row, 0] * height) < wide - parts.taper[row, 0] * height
    return within & across & (np.abs(z - parts.shear[row, 1] * height) < long - parts.taper[row, 1] * height)


def occupied(scene, points):
    """Whether world points (N, 3) at time 0 lie inside any solid part or below the ground."""
    parts, road = scene.parts, scene.road
    s, u = road.locate(points[:, 0], points[:, 2])
    raised = np.where(road.pavement_depth(s, u) > 0, road.kerb, 0.0)
    found = -points[:, 1] < raised
    for row in np.flatnonzero(np.isin(parts.kind, (BOX, ELLIPSOID, CONE))):
        x, z, heading = parts.motion[parts.body[row], :3]
        away = points - (x, 0.0, z)
        right = np.array([np.cos(heading), 0.0, -np.sin(heading)])
        forward = np.array([np.sin(heading), 0.0, np.cos(heading)])
        local = np.stack([away @ right, away[:, 1], away @ forward], 1) - parts.offset[row]
        found |= inside_solid(parts, row, local)
    return found


@pytest.mark.parametrize(("seed", "index"), [(0, 3), (4, TURNED)])
def test_no_ray_passes_through_anything_before_it_ends(seed, index):
    scene = build_scene(seed, index)
    view = View(scene, SIZE, 0, "left")
    rays, hits = view.cast()
    chosen = np.random.default_rng(0).choice(rays.shape[1], 250, replace=False)
    end = np.minimum(hits.depth[chosen], 80.0)
    share = np.linspace(0.0, 1.0, 160)[:-1, None]
    points = view.camera.centre + (share * end)[..., None] * rays.T[chosen]
    assert not occupied(scene, points.reshape(-1, 3)).any()
    solid = np.isfinite(hits.depth[chosen]) & (np.append(scene.parts.kind, [BOX] * 3)[hits.surface[chosen]] == BOX)
    behind = view.camera.centre + ((hits.depth[chosen] + 1e-6)[:, None] * rays.T[chosen])[solid]
    assert solid.sum() > 50
    assert occupied(scene, behind).mean() > 0.98  # a ray may graze an edge


def test_culling_by_screen_boxes_loses_nothing(monkeypatch):
    view = View(build_scene(4, TURNED), SIZE, 0, "left")
    _, quick = view.cast()
    count = SIZE[0] * SIZE[1]
    monkeypatch.setattr(view, "_pick_grid", lambda bounds: np.arange(count))
    _, slow = view.cast()
    np.testing.assert_allclose(quick.depth, slow.depth, rtol=1e-12)
    assert (quick.surface != slow.surface).mean() < 1e-3


def test_driving_is_the_sum_of_small_steps():
    moments = (np.arange(100000) + 0.5) / 100000 * 2.5
    for speed, turn in [(0.7, 0.9), (1.0, -0.3), (0.4, 0.0), (0.0, 0.5)]:
        headings = 0.2 + turn * moments
        end = 3.0 + speed * 2.5 * np.sin(headings).mean(), -1.0 + speed * 2.5 * np.cos(headings).mean()
        np.testing.assert_allclose(advance(3.0, -1.0, 0.2, speed, turn, 2.5), (*end, 0.2 + 2.5 * turn), atol=1e-8)


def test_road_coordinates_turn_back_into_places():
    road = build_scene(4, TURNED).road
    for s, u in [(0.0, 0.0), (12.0, -3.0), (-5.0, 4.0), (40.0, 9.5)]:
        x, z, heading = road.place(s, u)
        np.testing.assert_allclose(road.locate(np.array(x), np.array(z)), (s, u), atol=1e-9)
        step = np.subtract(road.place(s + 1e-5, u)[:2], (x, z))
        np.testing.assert_allclose(step / np.linalg.norm(step), (np.sin(heading), np.cos(heading)), atol=1e-5)


def test_pavement_is_one_kerb_above_the_road_and_ends_upright():
    faces = 0
    for seed, index in (*SCENES, (4, TURNED)):
        scene = build_scene(seed, index)
        view = View(scene, SIZE, 0, "left")
        rays, hits = view.cast()
        points = view.camera.centre[:, None] + rays * np.where(np.isfinite(hits.depth), hits.depth, 0.0)
        assert np.abs(points[1, hits.surface == ROAD_SURFACE]).max() < 1e-9
        x, y, z = points[:, hits.surface == PAVEMENT_SURFACE]
        inside = scene.road.pavement_depth(*scene.road.locate(x, z))
        top = np.abs(-y - scene.road.kerb) < 1e-9
        assert top.mean() > 0.8 and inside[top].min() > 0
        assert ((-y[~top] > 0) & (-y[~top] < scene.road.kerb)).all()
        assert np.abs(inside[~top]).max(initial=0.0) < 1e-9
        faces += (~top).sum()
    assert faces > 20


def test_hidden_and_left_behind_points_are_not_visible():
    here, there = (render(4, TURNED, SIZE, time=time, outputs=EVERYTHING) for time in (0, 1))
    v, u = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    column, row = u + here["flow_next"][..., 0], v + here["flow_next"][..., 1]
    outside = (column < -0.51) | (column > SIZE[1] - 0.49) | (row < -0.51) | (row > SIZE[0] - 0.49)
    assert not here["visible_next"][outside].any()
    inside = ~outside & (here["depth"] > 0) & ~here["moving"]
    local = (world_points(here) - there["pose"][:3, 3]) @ there["pose"][:3, :3]
    at = np.clip(np.rint(row), 0, SIZE[0] - 1).astype(int), np.clip(np.rint(column), 0, SIZE[1] - 1).astype(int)
    covered = inside & (there["depth"][at] > 0) & (there["depth"][at] < 0.5 * local[..., 2])
    assert covered.sum() > 5
    assert here["visible_next"][covered].mean() < 0.3  # the nearest pixel may show the edge's other side


def test_same_arguments_same_image_whatever_was_rendered_between():
    first = render(2, 5, (16, 40))
    render(2, 6, (16, 40))
    build_scene.cache_clear()
    again = render(2, 5, (16, 40))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image"], render(2, 6, (16, 40))["image"])
    assert not np.array_equal(first["image"], render(3, 5, (16, 40))["image"])
