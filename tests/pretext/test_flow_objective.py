"""The objective of optical flow: its numbers by hand, and the world's true flow at its minimum."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.tiny_models import tiny_model

from depthseg.data.synthetic import render
from depthseg.geometry import pixel_grid
from depthseg.pretext import OpticalFlowObjective
from depthseg.pretext.alignment import find_rotation, rotated_pixels
from depthseg.pretext.flow import edge_aware_roughness


class GivenFlow(torch.nn.Module):
    """A network that says what it was told, and notes what it was shown."""

    def __init__(self, *flow_maps: torch.Tensor):
        super().__init__()
        self.flow_maps = tuple(torch.nn.Parameter(scale.clone()) for scale in flow_maps)

    def forward(self, pixel_values: torch.Tensor, other_pixel_values: torch.Tensor) -> SimpleNamespace:
        self.shown = pixel_values, other_pixel_values
        return SimpleNamespace(flow_maps=self.flow_maps)


def pair(image: torch.Tensor, source: torch.Tensor) -> dict[str, torch.Tensor]:
    # The second source is never to be looked at.
    sources = torch.stack([source, torch.full_like(source, torch.nan)], 1)
    return {
        "pixel_values": image - 0.5,
        "source_pixel_values": sources - 0.5,
        "image": image,
        "source_images": sources,
    }


def street(index: int, size: tuple[int, int] = (96, 128)) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A pair of the world's images, and the true flow to the earlier one, `(1, 2, H, W)`."""
    now = render(0, index, size, outputs=("image", "flow_previous"))
    before = render(0, index, size, time=-1, outputs=("image",))
    images = [torch.from_numpy(p["image"]).permute(2, 0, 1)[None].float() / 255 for p in (now, before)]
    return pair(*images), torch.from_numpy(now["flow_previous"]).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def streets():
    return [street(index) for index in range(4)]


def batch_of(size: tuple[int, int], number: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image, source = torch.rand(2, number, 3, *size, generator=generator).unbind()
    return pair(image, source.contiguous())


def test_error_and_smoothness_of_two_scales_by_hand():
    """An image that grows by 0.1 a column, and flows of which every number is known."""
    image = (0.1 * torch.arange(8.0)).expand(1, 3, 6, 8).contiguous()
    source = torch.cat([image[..., 1:], image[..., -1:]], -1)
    steps = torch.zeros(1, 2, 6, 8)
    steps[:, 0, :, 4:] = -1.0
    still = torch.full((1, 2, 3, 4), 0.0)
    parts = OpticalFlowObjective(GivenFlow(steps, still), ssim_weight=0.0, smoothness_weight=3.0)(pair(image, source))
    # Still: the source is 0.1 brighter in 7 of 8 columns, and equal in the last. Where the flow is -1, the four right
    # columns, it is equal.
    errors = [0.1 * 4 / 8, 0.1 * 7 / 8]
    # One step of 1 pixel, an eighth of the width, between columns 3 and 4 of 7 pairs, at an edge of 0.1.
    roughness = [1 / 8 * math.exp(-0.1) / 7, 0.0]
    parts = {name: value.detach() for name, value in parts.items()}
    assert float(parts["photometric_loss"]) == pytest.approx((errors[0] + 0.5 * errors[1]) / 1.5, rel=1e-5)
    assert float(parts["smoothness_loss"]) == pytest.approx(3 * (roughness[0] + 0.5 * roughness[1]) / 1.5, rel=1e-5)
    assert float(parts["loss"]) == pytest.approx(float(parts["photometric_loss"] + parts["smoothness_loss"]))


def test_coarse_flow_is_stretched_in_size_and_not_in_length():
    image = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    source = torch.roll(image, (2, -3), (2, 3))
    flow = torch.tensor([-3.0, 2.0])[:, None, None].expand(1, 2, 3, 4)
    parts = OpticalFlowObjective(GivenFlow(flow), ssim_weight=0.0)(pair(image, source))
    # What leaves the image is looked up at its border: left 3 columns, lower 2 rows.
    inside = (torch.arange(16) >= 3)[None] & (torch.arange(12) < 10)[:, None]
    expected = source[..., torch.arange(12).add(2).clamp(max=11), :][..., torch.arange(16).sub(3).clamp(min=0)]
    assert torch.equal(expected[..., inside], image[..., inside])
    assert parts["loss"].item() == pytest.approx((expected - image).abs().mean().item(), rel=1e-4)


def test_coarse_flow_is_upsampled_by_pixel_centres():
    image = (0.1 * torch.arange(6.0)).expand(1, 3, 1, 6).contiguous()
    flow = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 0.0]])[None, :, None]
    loss = OpticalFlowObjective(GivenFlow(flow), ssim_weight=0.0)(pair(image, image))["photometric_loss"]
    assert loss.item() == pytest.approx(0.1 * (0 + 0.25 + 0.75 + 0.75 + 0.25 + 0) / 6, rel=1e-5)


def test_roughness_equals_the_formula_in_numpy():
    rng = np.random.default_rng(0)
    values, image = rng.normal(size=(2, 2, 5, 7)), rng.random((2, 3, 5, 7))
    expected = np.zeros(2)
    for b in range(2):
        for step in ((1, 0), (0, 1)):
            terms = []
            for y in range(5 - step[0]):
                for x in range(7 - step[1]):
                    y2, x2 = y + step[0], x + step[1]
                    edge = np.exp(-np.abs(image[b, :, y2, x2] - image[b, :, y, x]).mean())
                    terms.append(edge * np.abs(values[b, :, y2, x2] - values[b, :, y, x]).sum())
            expected[b] += np.mean(terms)
    found = edge_aware_roughness(torch.from_numpy(values), torch.from_numpy(image))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("ssim_weight", [0.0, 0.85, 1.0])
@torch.no_grad()
def test_true_flow_beats_every_flow_beside_it(streets, ssim_weight):
    for batch, flow in streets:

        def loss(flow, batch=batch):
            return float(OpticalFlowObjective(GivenFlow(flow), ssim_weight)(batch)["photometric_loss"])

        best = loss(flow)
        right, down = (torch.tensor(step)[:, None, None] for step in ([1.0, 0.0], [0.0, 1.0]))
        others = {
            "right": flow + right,
            "left": flow - right,
            "down": flow + down,
            "up": flow - down,
            "none": 0 * flow,
            "back": -flow,
            "half": 0.5 * flow,
            "further": 1.5 * flow,
            "crossed": flow.flip(1),
        }
        for name, other in others.items():
            assert best < loss(other), name


def test_the_gradient_leads_towards_the_true_flow(streets):
    batch, flow = streets[0]
    model = GivenFlow(flow + 0.5)
    OpticalFlowObjective(model, smoothness_weight=0.0)(batch)["loss"].backward()
    towards = -model.flow_maps[0].grad
    # Less flow to the right and down: together over the image, and in most of its pixels.
    assert (towards.sum((0, 2, 3)) < 0).all()
    assert (towards < 0).float().sum() > 1.5 * (towards > 0).float().sum()


def test_true_flow_is_what_the_network_is_asked_for():
    """The other image is the first source, for the network as for the error."""
    batch, flow = street(0, (32, 48))
    model = GivenFlow(flow)
    OpticalFlowObjective(model)(batch)
    assert torch.equal(model.shown[0], batch["pixel_values"])
    assert torch.equal(model.shown[1], batch["source_pixel_values"][:, 0])


def turning_street(index: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A pair of the world with its camera, and the true flow."""
    batch, flow = street(index)
    camera = render(0, index, (96, 128), outputs=("intrinsics",))["intrinsics"]
    return batch | {"intrinsics": torch.from_numpy(camera)[None].float()}, flow


@torch.no_grad()
def test_of_aligned_images_far_things_are_no_work_for_the_network():
    """Where it finds no flow at all, the flow of what is far away is right by the turn alone."""
    errors = []
    for index in (0, 1, 3, 4):
        batch, flow = turning_street(index)
        model = GivenFlow(torch.zeros_like(flow))
        found, learned = OpticalFlowObjective(model, derotate=True).estimate(batch)[0]
        assert not learned.any()
        depth = torch.from_numpy(render(0, index, (96, 128), outputs=("depth",))["depth"])[None]
        far = ~(depth < 50)  # metres; the sky has none
        errors.append([e.norm(dim=1)[far].median() for e in (found - flow, flow)])
        # The network saw the other image turned back: it is more like the one at hand than before.
        first, seen, other = *model.shown, batch["source_pixel_values"][:, 0]
        assert (seen - first).abs().mean() < (other - first).abs().mean()
    errors = torch.tensor(errors)
    assert (errors[:, 0] < 0.6).all() and (errors[:, 1] > 1.2).all()


@torch.no_grad()
def test_what_a_turn_leaves_of_the_true_flow_gives_the_true_flow_and_its_loss():
    batch, flow = turning_street(1)
    camera = batch["intrinsics"]
    turn = find_rotation(batch["image"], batch["source_images"][:, 0], camera)
    assert turn.norm() > 0.01
    grid = pixel_grid(96, 128)
    left = rotated_pixels(-turn, camera, (grid + flow).float()) - grid  # the turn back
    objective = OpticalFlowObjective(GivenFlow(left.float()), derotate=True)
    torch.testing.assert_close(objective.estimate(batch)[0][0], flow.float(), atol=2e-3, rtol=0)
    plain = OpticalFlowObjective(GivenFlow(flow.float()))(batch)["photometric_loss"]
    assert objective(batch)["photometric_loss"].item() == pytest.approx(plain.item(), rel=1e-3)


@pytest.mark.parametrize("encoder", ["depthseg_resnet", "vit"])
def test_parts_of_a_batch_add_up_to_the_whole(encoder):
    model = tiny_model("flow", encoder, "monodepth2" if encoder == "depthseg_resnet" else "dpt").eval()
    objective, batch = OpticalFlowObjective(model), batch_of((37, 50))
    counts = objective.count_valid(batch)
    assert counts.tolist() == [4 * 37 * 50, 4] and counts.dtype == torch.int64
    with torch.no_grad():
        whole = objective(batch)
        parts = [objective({k: v[i : i + 2] for k, v in batch.items()}, counts) for i in (0, 2)]
    for name, value in whole.items():
        assert float(parts[0][name] + parts[1][name]) == pytest.approx(float(value), rel=1e-5), name


def test_exactly_the_trainable_parameters_get_a_gradient():
    model = tiny_model("flow")
    model.freeze_encoder()
    model.train()
    OpticalFlowObjective(model)(batch_of((37, 50), 2))["loss"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in reached} == {"pretext_head"}


def test_bfloat16_autocast_stays_near_float32():
    objective, batch = OpticalFlowObjective(tiny_model("flow").train()), batch_of((37, 50), 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective(batch)["loss"]
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.requires_grad)
    torch.testing.assert_close(rounded, objective(batch)["loss"], rtol=0.02, atol=0)


def test_a_still_pair_has_a_finite_loss_and_gradient():
    batch = batch_of((32, 48), 2)
    batch["source_images"][:, 0] = batch["image"]
    batch["source_pixel_values"][:, 0] = batch["pixel_values"]
    model = tiny_model("flow").train()
    loss = OpticalFlowObjective(model)(batch)["loss"]
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
