"""The objective of inpainting: weights of scales by hand, and who is trained."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from models.tiny_models import tiny_model

from depthseg.pretext import InpaintingObjective


class GivenImages(torch.nn.Module):
    """A network that paints what it was told."""

    def __init__(self, *maps: torch.Tensor):
        super().__init__()
        self.maps = maps

    def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(reconstruction_maps=self.maps)


def batch_of(size: tuple[int, int], number: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(number, 3, *size, generator=generator)
    holes = torch.rand(number, *size, generator=generator) < 0.3
    return {"pixel_values": (image * ~holes[:, None] - 0.5) / 0.25, "image": image, "holes": holes}


def test_the_finest_scale_weighs_most_and_reversed_the_coarsest():
    image = torch.full((2, 3, 8, 16), 0.5)
    # Off by 0.1, 0.2, 0.3 and 0.4, finest first.
    maps = [torch.full((2, 3, 8 >> s, 16 >> s), 0.5 + 0.1 * (s + 1)) for s in range(4)]
    batch = {"pixel_values": image, "image": image}
    fine = InpaintingObjective(GivenImages(*maps))(batch)
    assert float(fine["loss"]) == pytest.approx(0.1 + 0.2 / 4 + 0.3 / 16 + 0.4 / 64, rel=1e-5)
    assert float(fine["finest_loss"]) == pytest.approx(0.1, rel=1e-5)
    compat = InpaintingObjective(GivenImages(*maps), "reversed")(batch)
    assert float(compat["loss"]) == pytest.approx(0.1 / 64 + 0.2 / 16 + 0.3 / 4 + 0.4, rel=1e-5)
    one = [InpaintingObjective(GivenImages(maps[0]), order)(batch)["loss"] for order in ("fine", "reversed")]
    assert one[0] == one[1] == pytest.approx(0.1, rel=1e-5)


def test_pixels_in_holes_and_beside_them_count_alike():
    batch = batch_of((6, 10), 1)
    for inside in (True, False):
        y, x = (batch["holes"][0] == inside).nonzero()[3].tolist()
        painted = batch["image"].clone()
        painted[0, 1, y, x] += 0.5
        loss = InpaintingObjective(GivenImages(painted))(batch)["loss"]
        assert float(loss) == pytest.approx(0.5 / (3 * 6 * 10), rel=1e-4)


def test_coarse_images_are_compared_at_full_resolution_by_pixel_centres():
    image = torch.zeros(1, 3, 1, 6)
    coarse = torch.tensor([0.0, 1.0, 0.0]).expand(1, 3, 1, 3)
    loss = InpaintingObjective(GivenImages(coarse))({"pixel_values": image, "image": image})["loss"]
    assert float(loss) == pytest.approx((0 + 0.25 + 0.75 + 0.75 + 0.25 + 0) / 6)


@pytest.mark.parametrize(("encoder", "head"), [("depthseg_resnet", "monodepth2"), ("vit", "dpt"), ("vit", "linear")])
def test_parts_of_a_batch_add_up_to_the_whole(encoder, head):
    objective = InpaintingObjective(tiny_model("reconstruction", encoder, head).eval())
    batch = batch_of((37, 50))
    counts = objective.count_valid(batch)
    assert counts.tolist() == [4 * 3 * 37 * 50] and counts.dtype == torch.int64
    with torch.no_grad():
        whole = objective(batch)
        parts = [objective({k: v[i : i + 2] for k, v in batch.items()}, counts) for i in (0, 2)]
    for name, value in whole.items():
        assert float(parts[0][name] + parts[1][name]) == pytest.approx(float(value), rel=1e-5), name


def test_exactly_the_trainable_parameters_get_a_gradient_with_autocast_too():
    model = tiny_model("reconstruction")
    model.freeze_encoder()
    model.train()
    objective, batch = InpaintingObjective(model), batch_of((37, 50), 2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = objective(batch)["loss"]
    rounded.backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in reached} == {"pretext_head"}
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, objective(batch)["loss"], rtol=0.02, atol=0)


def test_a_few_steps_fill_the_holes_of_one_image():
    torch.manual_seed(0)
    objective, batch = InpaintingObjective(tiny_model("reconstruction").train()), batch_of((32, 32), 2)
    batch["image"] = torch.nn.functional.interpolate(batch["image"][..., :2, :2], (32, 32), mode="bilinear")
    batch["pixel_values"] = (batch["image"] * ~batch["holes"][:, None] - 0.5) / 0.25
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    errors = []
    for _ in range(20):
        parts = objective(batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        errors.append(parts["finest_loss"].item())
    assert errors[-1] < 0.4 * errors[0]
