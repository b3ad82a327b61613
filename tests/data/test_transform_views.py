"""Neighbouring frames, the other camera of a pair and intrinsics through the training transform."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from depthseg import geometry
from depthseg.data import Sample
from depthseg.data.synthetic import render
from depthseg.data.transforms import TrainTransform

SIZE = (96, 288)
MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])
WAYS = {
    "patch": {"size": (64, 160), "hflip": 0.0, "random_crop": True},
    "mirror": {"size": SIZE, "hflip": 1.0},
    "mirrored patch": {"size": (64, 160), "hflip": 1.0, "random_crop": True},
    "resize": {"size": (80, 200), "hflip": 0.0},
    "mirrored crop": {"size": (72, 192), "hflip": 1.0, "crop_scale": (0.6, 0.9)},
}


def coded(height, width, **views):
    """A sample whose depth says which pixel it was, and whose intrinsics make pixels and rays the same numbers."""
    rows, columns = np.mgrid[:height, :width]
    image = np.dstack([columns % 256, rows % 256, (rows + columns) % 256]).astype(np.uint8)
    return Sample("a", image, depth=(rows * 1000 + columns).astype(np.float32), intrinsics=np.eye(3), **views)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("hflip", [0.0, 1.0])
@pytest.mark.parametrize("options", [{"crop_scale": (0.3, 1.0)}, {"random_crop": True}], ids=["resized", "patch"])
def test_intrinsics_say_from_where_each_pixel_was_taken(seed, hflip, options):
    sample = coded(231, 317)
    transform = TrainTransform((58, 93), hflip=hflip, **options)
    out = transform(sample, np.random.default_rng(seed))
    rows, columns = np.mgrid[:58, :93]
    x, y, _ = np.linalg.inv(out.intrinsics) @ np.stack([columns.ravel(), rows.ravel(), np.ones(58 * 93)])
    x = -x if hflip else x  # a mirrored image shows a mirrored scene
    # The nearest pixel is the one on whose square the place lies; places on its very edge may go either way.
    assert out.intrinsics[0, 0] > 0
    found = out.depth.ravel().astype(int)
    assert np.abs(x - found % 1000).max() < 0.5 + 1e-6
    assert np.abs(y - found // 1000).max() < 0.5 + 1e-6
    # All of the square is used: half a pixel more or less in the convention would be seen.
    if not transform.random_crop:
        assert 0.4 < (x - found % 1000).max() and (x - found % 1000).min() < -0.4


def test_intrinsics_of_a_resized_image_are_those_of_the_geometry():
    camera = np.array([[210.0, 3.0, 160.5], [0.0, 190.0, 110.25], [0.0, 0.0, 1.0]])
    sample = replace(coded(200, 300), intrinsics=camera)
    out = TrainTransform((64, 192), hflip=0)(sample, np.random.default_rng(0))
    expected = geometry.scale_intrinsics(torch.tensor(camera)[None], (200, 300), (64, 192))[0]
    np.testing.assert_allclose(out.intrinsics, expected, rtol=1e-12)
    mirrored = TrainTransform((200, 300), hflip=1)(sample, np.random.default_rng(0)).intrinsics
    np.testing.assert_allclose(mirrored, [[210.0, -3.0, 299 - 160.5], [0.0, 190.0, 110.25], [0.0, 0.0, 1.0]])
    assert out.intrinsics.dtype == mirrored.dtype == np.float64


@pytest.fixture(scope="module")
def street():
    """A sample of the world, the poses from it to its views, and its true flow; labels: 1 = stands still, visible."""
    outputs = ("image", "depth", "intrinsics", "pose", "flow_next", "visible_next", "moving", "baseline")
    here = render(1, 8, SIZE, outputs=outputs)
    there = render(1, 8, SIZE, time=1, outputs=("image", "pose"))
    right = render(1, 8, SIZE, view="right", outputs=("image", "pose"))
    still = here["visible_next"] & ~here["moving"] & (here["depth"] > 0)
    sample = Sample(
        "a",
        here["image"],
        labels=still.astype(np.uint8),
        depth=here["depth"],
        frames={1: there["image"]},
        stereo=right["image"],
        stereo_x=float(here["baseline"]),
        intrinsics=here["intrinsics"],
    )
    poses = {name: np.linalg.inv(view["pose"]) @ here["pose"] for name, view in (("next", there), ("right", right))}
    return sample, poses, here["flow_next"]


def tensor(values):
    return torch.from_numpy(np.asarray(values, np.float64))[None]


def mismatch(target, source, depth, intrinsics, pose, mask):
    """Mean difference in grey levels between an image and its neighbour warped to it."""
    image = tensor(source.transpose(2, 0, 1))
    warped, inside = geometry.reproject(image, tensor(depth), tensor(intrinsics), tensor(intrinsics), tensor(pose))
    difference = np.abs(warped[0].numpy().transpose(1, 2, 0) - target).mean(-1)
    return difference[inside[0].numpy() & mask].mean()


@pytest.mark.parametrize("way", WAYS)
def test_points_land_where_they_did(street, way):
    sample, poses, flow = street
    transform = TrainTransform(**WAYS[way])
    out = transform(sample, np.random.default_rng(3))
    # The same draws on other maps: the true flow at the very pixels that depth was taken from.
    along = [
        transform(replace(sample, depth=np.ascontiguousarray(flow[..., axis])), np.random.default_rng(3)).depth
        for axis in (0, 1)
    ]
    mirrored = transform.hflip == 1
    scale = np.diag(out.intrinsics)[:2] / np.diag(sample.intrinsics)[:2]
    expected = np.stack([along[0] * scale[0] * (-1 if mirrored else 1), along[1] * scale[1]])
    pose = MIRROR @ poses["next"] @ MIRROR if mirrored else poses["next"]
    found, known = geometry.flow_from_depth(tensor(out.depth), tensor(out.intrinsics), tensor(pose))
    mask = known[0].numpy() & (out.labels == 1)
    assert mask.mean() > 0.2
    error = np.linalg.norm(found[0].numpy() - expected, axis=0)[mask]
    # Resizing takes depth from up to half a pixel beside, where the true flow is a little different.
    resampled = way in ("resize", "mirrored crop")
    assert error.max() < (0.3 if resampled else 1e-3)
    assert error.mean() < (0.03 if resampled else 1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_views_reproject_onto_the_image(street, way):
    sample, poses, _ = street
    still, stereo_pose = sample.labels == 1, np.eye(4)
    transform = TrainTransform(**WAYS[way])
    out = transform(sample, np.random.default_rng(3))
    mask, mirrored = out.labels == 1, transform.hflip == 1

    def frame_error(s, pose, mask):
        return mismatch(s.image, s.frames[1], s.depth, s.intrinsics, pose, mask)

    def stereo_error(s, x, mask):
        stereo_pose[0, 3] = -x  # from this camera's axes to those of the camera at x
        return mismatch(s.image, s.stereo, s.depth, s.intrinsics, stereo_pose, mask)

    assert out.stereo_x == (-sample.stereo_x if mirrored else sample.stereo_x)
    pose = MIRROR @ poses["next"] @ MIRROR if mirrored else poses["next"]
    before, after = frame_error(sample, poses["next"], still), frame_error(out, pose, mask)
    assert after < 1.4 * before < 10
    assert frame_error(out, np.eye(4), mask) > 2 * after
    before, after = stereo_error(sample, sample.stereo_x, still), stereo_error(out, out.stereo_x, mask)
    assert after < 1.4 * before < 10
    assert stereo_error(out, -out.stereo_x, mask) > 2 * after


def test_all_images_go_through_the_same_geometry_and_colours():
    image = coded(60, 90).image
    sample = coded(60, 90, frames={-1: image, 2: image}, stereo=image, stereo_x=0.5)
    for options in ({}, {"colour_jitter": 0.5}):
        out = TrainTransform((40, 50), crop_scale=(0.3, 0.9), **options)(sample, np.random.default_rng(1))
        assert list(out.frames) == [-1, 2]
        for view in (*out.frames.values(), out.stereo):
            assert np.array_equal(view, out.image)


def test_clean_images_are_those_of_the_same_draws_without_jitter(street):
    sample = street[0]
    plain, jittered = (
        TrainTransform((40, 100), crop_scale=(0.4, 0.9), colour_jitter=amount)(sample, np.random.default_rng(4))
        for amount in (0.0, 0.4)
    )
    assert plain.clean is None
    for of in (lambda s: s.image, lambda s: s.frames[1], lambda s: s.stereo):
        assert np.array_equal(of(jittered.clean), of(plain))
        assert not np.array_equal(of(jittered), of(plain))
    assert np.array_equal(jittered.clean.depth, jittered.depth)
    assert np.array_equal(jittered.intrinsics, plain.intrinsics)
    alone = replace(sample, frames={}, stereo=None, stereo_x=None)
    out = TrainTransform((40, 100), crop_scale=(0.4, 0.9), colour_jitter=0.4)(alone, np.random.default_rng(4))
    assert out.clean is None, "nothing is compared, so nothing is made twice"
    assert np.array_equal(out.image, jittered.image)


def test_flow_is_dropped_and_the_rest_stays():
    sample = coded(20, 30, flow=np.zeros((20, 30, 2), np.float32), category=3)
    out = TrainTransform((10, 10))(sample, np.random.default_rng(0))
    assert (out.flow, out.category, out.name, out.holes, out.stereo_x) == (None, 3, "a", None, None)
    assert sample.flow is not None


def test_a_patch_is_cut_out_as_it_is_and_reaches_every_place():
    sample = coded(30, 40)
    transform = TrainTransform((20, 25), hflip=0, random_crop=True)
    corners = set()
    for seed in range(600):
        out = transform(sample, np.random.default_rng(seed))
        top, left = divmod(int(out.depth[0, 0]), 1000)
        corners.add((top, left))
        assert np.array_equal(out.image, sample.image[top : top + 20, left : left + 25])
        assert np.array_equal(out.depth, sample.depth[top : top + 20, left : left + 25])
    assert {top for top, _ in corners} == set(range(11))
    assert {left for _, left in corners} == set(range(16))


def test_a_patch_as_large_as_the_image_is_the_image():
    sample = coded(30, 40)
    out = TrainTransform((30, 40), hflip=0, random_crop=True)(sample, np.random.default_rng(0))
    assert np.array_equal(out.image, sample.image)


def test_a_hole_is_a_square_around_its_pixel_cut_off_at_the_border(monkeypatch):
    class Chosen:
        """A generator that puts holes at the flat places 0, 27 and 44 of an image of 5 x 10."""

        def uniform(self, low, high):
            return 0.06

        def choice(self, number, count, replace):
            assert (number, count, replace) == (50, 3, False)
            return np.array([0, 27, 44])

    drawn = {
        size: TrainTransform((5, 10), hole_share=(0, 1), hole_size=size)._draw_holes(Chosen()) for size in (1, 2, 3)
    }
    rows = {size: ["".join(".#"[cell] for cell in row.astype(int)) for row in holes] for size, holes in drawn.items()}
    assert rows[1] == ["#.........", "..........", ".......#..", "..........", "....#....."]
    assert rows[2] == ["#.........", "......##..", "......##..", "...##.....", "...##....."]
    assert rows[3] == ["##........", "##....###.", "......###.", "...######.", "...###...."]


def test_as_many_holes_as_asked_at_places_that_differ():
    sample = coded(64, 192)
    single = TrainTransform((64, 192), hole_share=(0.01, 0.1), hole_size=1)
    counts = [single(sample, np.random.default_rng(seed)).holes.sum() for seed in range(100)]
    # floor(p H W) different pixels with p even between 0.01 and 0.1
    assert int(0.01 * 64 * 192) <= min(counts) < 300
    assert 1050 < max(counts) <= int(0.1 * 64 * 192)
    assert abs(np.mean(counts) / (64 * 192) - 0.055) < 0.01
    exact = TrainTransform((64, 192), hole_share=(0.05, 0.05), hole_size=1)
    assert exact(sample, np.random.default_rng(0)).holes.sum() == int(0.05 * 64 * 192)


@pytest.mark.parametrize(("share", "erased"), [(0.001, 0.048), (0.01, 0.389)])
def test_squares_of_seven_erase_the_known_share(share, erased):
    transform = TrainTransform((192, 320), hole_share=(share, share), hole_size=7)
    holes = [transform(coded(192, 320), np.random.default_rng(seed)).holes for seed in range(12)]
    assert all(h.shape == (192, 320) and h.dtype == bool for h in holes)
    assert np.mean(holes) == pytest.approx(erased, rel=0.05)


def test_holes_move_nothing_else_and_the_generator_decides(street):
    sample = street[0]
    options = {"size": (40, 100), "crop_scale": (0.4, 0.9), "colour_jitter": 0.4}
    plain, holed, again, other = (
        TrainTransform(**options, hole_share=share)(sample, np.random.default_rng(seed))
        for share, seed in ((None, 2), ((0.01, 0.02), 2), ((0.01, 0.02), 2), ((0.01, 0.02), 3))
    )
    assert np.array_equal(plain.image, holed.image)
    assert np.array_equal(plain.intrinsics, holed.intrinsics)
    assert np.array_equal(holed.holes, again.holes)
    assert np.array_equal(holed.frames[1], again.frames[1])
    assert not np.array_equal(holed.holes, other.holes)


@pytest.mark.parametrize("size", [(31, 40), (30, 41)])
def test_a_image_smaller_than_the_patch_is_a_sentence(size):
    message = "'a' is 30 pixels high and 40 wide, too small to cut a patch of {} x {} out".format(*size)
    with pytest.raises(ValueError, match=message):
        TrainTransform(size, random_crop=True)(coded(30, 40), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("views", "name"),
    [
        ({"frames": {-1: np.zeros((20, 30, 3), np.uint8), 1: np.zeros((20, 31, 3), np.uint8)}}, r"frame \+1"),
        ({"stereo": np.zeros((21, 30, 3), np.uint8)}, "stereo"),
        ({"labels": np.zeros((20, 29), np.uint8)}, "labels"),
    ],
)
def test_parts_of_different_size_are_a_sentence(views, name):
    with pytest.raises(ValueError, match=f"The {name} of 'a' is .* its image 20 and 30; all parts"):
        TrainTransform((10, 10))(coded(20, 30, **views), np.random.default_rng(0))
