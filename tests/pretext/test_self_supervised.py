from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from depthseg.data.synthetic.rendering import render
from depthseg.geometry import invert_pose, pose_from_axis_angle
from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation
from depthseg.pretext import (
    LearnedCamera,
    PhotometricLoss,
    SelfSupervisedObjective,
    build_pose_network,
    photometric_error,
    start_far,
)
from depthseg.pretext.self_supervised import FAR_DISPARITY, depth_inconsistency, scale_anchor

SIZE = (64, 192)
TINY = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}


def to_batch(images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def world():
    """A still scene of the world with its exact depth and poses: frames before and after, and the right camera."""
    for index in range(40):
        here = render(3, index, SIZE, outputs=["image", "depth", "intrinsics", "pose", "moving"])
        views = [
            render(3, index, SIZE, time=t, view=v, outputs=["image", "pose"])
            for t, v in ((-1, "left"), (1, "left"), (0, "right"))
        ]
        speed = np.linalg.norm(views[1]["pose"][:3, 3] - here["pose"][:3, 3])
        if speed > 0.4 and here["moving"].mean() < 0.02:
            break
    poses = [torch.from_numpy(np.linalg.inv(view["pose"]) @ here["pose"]).float()[None] for view in views]
    image = to_batch([here["image"]])
    sources = to_batch([view["image"] for view in views])[None]
    return SimpleNamespace(
        depth=torch.from_numpy(here["depth"])[None],
        poses=poses,
        batch={
            "image": image,
            "pixel_values": image,
            "source_images": sources,
            "source_pixel_values": sources,
            "intrinsics": torch.from_numpy(here["intrinsics"]).float()[None],
            "stereo_x": -poses[2][:, 0, 3],
        },
    )


class KnownDepth(nn.Module):
    """Stands in for a depth network: says the depth it is given."""

    def __init__(self, depth):
        super().__init__()
        self.config = SimpleNamespace(depth_type="metric")
        self.disparity = nn.Parameter(1 / depth.clamp(min=1e-3)[:, None])

    def encode(self, pixel_values):
        size = tuple(pixel_values.shape[-2:])
        return SimpleNamespace(maps=[pixel_values], input_size=size, padded_size=size, to_input=lambda raw: raw)

    def head(self, features):
        return features

    def predict_raw_depth(self, maps):
        return (self.disparity,)

    def read_depth(self, raw):
        return 1 / raw


class KnownMotion(nn.Module):
    """Stands in for a pose network: the motions before and after, changed by an axis-angle and a shift."""

    reads_maps = False

    def __init__(self, poses, rotate=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0), unit=1.0):
        super().__init__()
        self.unit = unit
        change = pose_from_axis_angle(torch.tensor([rotate]), torch.tensor([shift]))
        # In the order of time: from the frame before to the target, from the target to the frame after.
        self.motions = torch.cat([change @ invert_pose(poses[0]), change @ poses[1]])

    def forward(self, first, second):
        matrix = self.motions[:, :3, :3]
        angle = torch.acos(((matrix.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1))
        axis = torch.stack(
            [matrix[:, 2, 1] - matrix[:, 1, 2], matrix[:, 0, 2] - matrix[:, 2, 0], matrix[:, 1, 0] - matrix[:, 0, 1]],
            1,
        )
        scale = angle / (2 * torch.sin(angle)).clamp(min=1e-12)
        return axis * scale[:, None], self.motions[:, :3, 3] / self.unit, torch.zeros(2, 4)


def mean_depth(depth):
    """The unit of motion: 1 over the mean inverse depth, the sky being infinitely far."""
    return 1 / torch.where(depth > 0, 1 / depth, 0.0).mean()


def loss_of(world, factor=1.0, smoothness=0.0, **change):
    depth = torch.where(world.depth > 0, world.depth * factor, 1e7)
    objective = SelfSupervisedObjective(
        KnownDepth(depth),
        PhotometricLoss(smoothness_weight=smoothness, auto_mask=False),
        pose_network=KnownMotion(world.poses, **change, unit=mean_depth(depth)),
        stereo=True,
    )
    return objective(world.batch)["photometric_loss"].item()


def test_the_truth_explains_the_neighbours_and_any_change_explains_them_worse(world):
    truth = loss_of(world)
    unwarped = [photometric_error(view, world.batch["image"]) for view in world.batch["source_images"].unbind(1)]
    assert truth < 0.2 * torch.stack(unwarped).amin(0).mean()
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert loss_of(world, factor) > 1.02 * truth, factor
    for axis in range(3):
        for sign in (-1, 1):
            turn, shift = [0.0] * 3, [0.0] * 3
            turn[axis], shift[axis] = sign * 0.01, sign * 0.1
            assert loss_of(world, rotate=turn) > 1.02 * truth, (axis, sign)
            assert loss_of(world, shift=shift) > 1.02 * truth, (axis, sign)


def test_poses_go_from_the_target_to_each_source(world):
    depth = world.depth.clamp(min=1)
    motion = KnownMotion(world.poses, unit=mean_depth(depth))
    objective = SelfSupervisedObjective(KnownDepth(depth), PhotometricLoss(), pose_network=motion, stereo=True)
    found = objective.explain(world.batch)
    for pose, expected in zip(found.poses, world.poses, strict=True):
        torch.testing.assert_close(pose, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(found.intrinsics, world.batch["intrinsics"])


def tiny_model(**options):
    torch.manual_seed(0)
    return DepthSegForDepthEstimation(DepthSegConfig(encoder_config=TINY, **options))


def tiny_batch(count=2, sources=2, size=(32, 64)):
    make = torch.Generator().manual_seed(1)
    image, other = torch.rand(count, 3, *size, generator=make), torch.rand(count, sources, 3, *size, generator=make)
    intrinsics = torch.tensor([[40.0, 0, 31.5], [0, 40.0, 15.5], [0, 0, 1]]).expand(count, 3, 3)
    return {
        "image": image,
        "pixel_values": image,
        "source_images": other,
        "source_pixel_values": other,
        "intrinsics": intrinsics,
        "stereo_x": torch.full((count,), 0.5),
    }


def tiny_objective(pose="separate", camera=None, stereo=False, weight=0.0, model=None, frames=(-1, 1)):
    model = model or tiny_model()
    network = build_pose_network(pose, {"depth": 18, "width_factor": 0.125}, model.encoder.channels[-1])
    if camera == "per_image":
        camera = LearnedCamera(network.channels)
    elif camera == "one_camera":
        camera = LearnedCamera()
    loss = PhotometricLoss(auto_mask=False)
    return SelfSupervisedObjective(model, loss, frames, network, camera, stereo, weight)


@pytest.mark.parametrize("pose", ["separate", "shared", "posecnn"])
@pytest.mark.parametrize("camera", [None, "one_camera", "per_image"])
def test_every_trainable_parameter_gets_a_finite_gradient(pose, camera):
    objective = tiny_objective(pose, camera)
    parts = objective(tiny_batch())
    parts["loss"].backward()
    trained = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in trained.values())


@pytest.mark.parametrize("pyramid", [False, True])
def test_micro_batches_add_up_to_the_batch(pyramid):
    objective = tiny_objective(stereo=True, weight=0.5).eval()
    objective.pyramid = pyramid
    batch = tiny_batch(count=4, sources=3)
    whole = objective(batch)
    counts = objective.count_valid(batch)
    halves = [objective({k: v[part] for k, v in batch.items()}, counts) for part in (slice(0, 1), slice(1, 4))]
    for name, value in whole.items():
        torch.testing.assert_close(sum(half[name] for half in halves), value)
    parts = whole["photometric_loss"] + whole["smoothness_loss"] + 0.5 * whole["scale_consistency_loss"]
    torch.testing.assert_close(whole["loss"], parts)


def test_one_frame_ahead_and_one_at_another_distance():
    objective = tiny_objective(frames=(2, -3, 1)).eval()
    found = objective.explain(tiny_batch(sources=3))
    assert len(found.poses) == 3
    assert [len(scale) for scale in found.warped] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("head", "scales"), [("monodepth2", 4), ("dpt", 1), ("linear", 1), ("upernet", 1), ("segformer", 1)]
)
def test_heads_train_at_the_scales_they_have(head, scales):
    options = {"head_config": {"fusion_hidden_size": 8, "neck_hidden_sizes": [8] * 5}} if head == "dpt" else {}
    try:
        model = tiny_model(head_type=head, **options)
    except ValueError:
        model = tiny_model(head_type=head)
    objective = tiny_objective(model=model)
    found = objective.explain(tiny_batch())
    assert len(found.disparities) == len(found.warped) == scales
    objective(tiny_batch())["loss"].backward()


def test_a_size_that_is_no_multiple_of_the_stride():
    objective = tiny_objective(stereo=True)
    batch = tiny_batch(size=(37, 53), sources=3)
    found = objective.explain(batch)
    assert found.depth.shape == (2, 37, 53)
    assert objective(batch)["loss"].isfinite()


def test_images_without_motion_keep_the_loss_finite():
    batch = tiny_batch()
    batch["source_images"] = batch["source_pixel_values"] = batch["image"][:, None].expand(-1, 2, -1, -1, -1)
    objective = tiny_objective()
    objective.photometric.auto_mask = True
    parts = objective(batch)
    parts["loss"].backward()
    assert parts["loss"].isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in objective.parameters())


def test_grey_images_of_one_value_keep_the_loss_finite():
    batch = {k: torch.full_like(v, 0.5) if v.dim() > 3 else v for k, v in tiny_batch().items()}
    assert tiny_objective()(batch)["loss"].isfinite()


def test_depth_of_another_unit_explains_as_much():
    """Without a baseline, motion is a share of depth: shrinking all depths cannot make up for a wrong motion."""
    objective = tiny_objective().eval()
    batch = tiny_batch()
    near = objective.explain(batch)
    objective.model.read_depth = lambda raw, read=objective.model.read_depth: 7 * read(raw)
    far = objective.explain(batch)
    torch.testing.assert_close(far.depth, 7 * near.depth)
    torch.testing.assert_close(far.pixels[0], near.pixels[0], atol=2e-3, rtol=1e-5)
    torch.testing.assert_close(far.poses[1][:, :3, 3], 7 * near.poses[1][:, :3, 3])


def test_anchor_by_hand():
    """Images whose mean is e and 1/e^2 times where depth begins: 1 and 4, whatever their contrast."""
    shares = torch.tensor([[0.5, 1.5], [2.0, 0.0]])[:, None, None] * FAR_DISPARITY
    factors = torch.tensor([1.0, -2.0]).exp()[:, None, None, None]
    assert scale_anchor(shares * factors).item() == pytest.approx(5.0, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "stereo", "anchored"),
    [({}, False, True), ({}, True, False), ({"depth_type": "metric"}, False, False)],
)
def test_only_depth_without_a_scale_is_anchored(options, stereo, anchored):
    objective = tiny_objective(model=tiny_model(**options), stereo=stereo)
    parts = objective(tiny_batch(sources=3 if stereo else 2))
    assert ("anchor_loss" in parts) == anchored


def test_depth_at_the_end_of_the_sigmoid_comes_back():
    """Without the anchor the layer gets no gradient that is worth the name, and depth stays flat for good."""
    objective = tiny_objective().eval()
    bias = objective.model.depth_predictor[0].conv.bias
    nn.init.constant_(bias, -12.0)
    parts = objective(tiny_batch())
    (photometric,) = torch.autograd.grad(parts["photometric_loss"], bias, retain_graph=True)
    (whole,) = torch.autograd.grad(parts["loss"], bias)
    assert abs(photometric.item()) < 1e-4 and whole.item() < -0.01


def test_scale_consistency_by_hand():
    own, given = torch.tensor([[[1.0, 3.0, 9.0]]]), torch.tensor([[[3.0, 3.0, float("nan")]]])
    seen = torch.tensor([[[True, True, False]]])
    assert depth_inconsistency([(own, given, seen)]).item() == pytest.approx(2 / 4)


def test_scale_consistency_is_nothing_where_all_views_have_the_true_depth():
    """A wall ahead, and a camera that drives towards it: 10 m, then 9 m."""
    model = KnownDepth(torch.full((1, 8, 8), 10.0))
    objective = SelfSupervisedObjective(
        model,
        PhotometricLoss(),
        (1,),
        KnownMotion([torch.eye(4)[None]] * 2, shift=(0.0, 0.0, -1.0), unit=10.0),
        scale_consistency_weight=1.0,
    )
    objective.pose_network.motions = objective.pose_network.motions[1:]
    batch = tiny_batch(count=1, sources=1, size=(8, 8))
    batch["intrinsics"] = torch.tensor([[[8.0, 0, 3.5], [0, 8.0, 3.5], [0, 0, 1]]])
    (own, given, seen), *_ = objective.explain(batch, with_source_depths=True).source_depths
    torch.testing.assert_close(given, torch.full((1, 8, 8), 9.0))
    torch.testing.assert_close(own[seen], torch.full((int(seen.sum()),), 10.0))
    assert objective(batch)["scale_consistency_loss"].item() == pytest.approx(
        seen.float().mean().item() / 19, rel=1e-5
    )


def test_monitor_shows_one_image_of_each():
    maps = tiny_objective().eval().monitor(tiny_batch())
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "target": (3, 32, 64),
        "warped": (3, 32, 64),
        "disparity": (32, 64),
        "auto_mask": (32, 64),
        "error": (32, 64),
    }


def test_a_pyramid_compares_coarse_scales_on_coarse_images(world):
    """Each scale is the loss of images of its size: a camera of half the pixels sees half of the flow."""
    motion = KnownMotion(world.poses, unit=mean_depth(world.depth))
    model = KnownDepth(torch.where(world.depth > 0, world.depth, 1e7))
    model.predict_raw_depth = lambda maps: (model.disparity,) * 3
    loss = PhotometricLoss(auto_mask=False, smoothness_weight=0.0)
    objective = SelfSupervisedObjective(model, loss, pose_network=motion, stereo=True, pyramid=True)
    found = objective.explain(world.batch)
    assert [tuple(target.shape[-2:]) for target in found.targets] == [(64, 192), (32, 96), (16, 48)]
    for scale in (0, 1, 2):
        inside = [p.abs().amax(1) < 1e3 for p in found.pixels[scale]]
        errors = [
            (image - found.targets[scale]).abs().mean(1)[seen].mean()
            for image, seen in zip(found.warped[scale], inside, strict=True)
        ]
        unwarped = [(image - found.targets[scale]).abs().mean() for image in found.sources[scale]]
        assert all(error < 0.5 * before for error, before in zip(errors, unwarped, strict=True)), scale
    each = [
        photometric_error(torch.cat(warped), target.expand(3, -1, -1, -1)).amin(0).mean()
        for warped, target in zip(found.warped, found.targets, strict=True)
    ]
    torch.testing.assert_close(objective(world.batch)["photometric_loss"], torch.stack(each).mean())


def test_a_new_network_begins_far_away():
    model = tiny_model(min_depth=1.0, max_depth=100.0).eval()
    image = torch.rand(1, 3, 32, 64)
    before = model(image).predicted_depth.median().item()
    start_far(model)
    after = model(image).predicted_depth.median().item()
    assert before < 3 < 10 < after
    metric = tiny_model(depth_type="metric").eval()
    expected = metric(image).predicted_depth
    start_far(metric)
    torch.testing.assert_close(metric(image).predicted_depth, expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"frames": ()}, "There are no source images"),
        ({"camera": "one_camera", "stereo": True}, "Stereo pairs are rectified with known intrinsics"),
        ({"model": "relative_inverse"}, "it cannot be used for warping"),
    ],
)
def test_parts_that_do_not_go_together(arguments, sentence):
    if "model" in arguments:
        arguments = {"model": tiny_model(depth_type=arguments["model"])}
    with pytest.raises(ValueError, match=sentence):
        tiny_objective(**arguments)


def test_frames_need_a_pose_network():
    with pytest.raises(ValueError, match="source_frames and pose_network must be given together"):
        SelfSupervisedObjective(tiny_model(), PhotometricLoss(), (-1, 1))
