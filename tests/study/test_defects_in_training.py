"""Switches that wrap the steps of a run, each against its definition, written out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models.tiny_models import tiny_model
from study.test_defects_in_data import Frames, frame

from depthseg.data.transforms import TrainTransform
from depthseg.engine.batches import StreamDataset
from depthseg.engine.config import compose_config
from depthseg.models import DepthSegImageProcessor
from depthseg.pretext import SupervisedObjective
from depthseg.study.defects.training import CroppedStream, GradientSum, RatePerPass, normalise_twice, wrapping_of

CONFIG = compose_config([("here", {"model": {"encoder": {"model_type": "depthseg_resnet", "depth": 18}}})])


@dataclass
class Parts:
    """What a wrapping reads of `Training`, and can replace."""

    objective: torch.nn.Module
    optimizer: torch.optim.Optimizer | None = None
    count_valid: object = None
    config: object = field(default_factory=lambda: CONFIG)
    progress: object = field(default_factory=lambda: SimpleNamespace(step=0))
    accelerator: object = field(default_factory=lambda: SimpleNamespace(unwrap_model=lambda module: module))


def wrapped(switched, parts, samples=(), processor=None):
    stream = SimpleNamespace(samples=samples)
    return wrapping_of(switched, names=tuple(switched)).wrap(stream, parts, processor)[1]


def steps(optimizer, weight, gradients, clip=None):
    """The weight after each step on losses whose gradients are given."""
    found = []
    for gradient in gradients:
        (gradient * weight).sum().backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([weight], clip)
        optimizer.step()
        optimizer.zero_grad()
        found.append(weight.item())
    return found


def test_gradients_are_summed_over_all_steps():
    """Gradients 1, 2, -5: sums 1, 3, -2; at a rate of 1 the weight goes to -1, -4, -2."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    assert steps(GradientSum(optimizer), weight, [1.0, 2.0, -5.0]) == [-1.0, -4.0, -2.0]
    plain = torch.nn.Parameter(torch.zeros(1))
    assert steps(torch.optim.SGD([plain], lr=1.0), plain, [1.0, 2.0, -5.0]) == [-1.0, -3.0, 2.0]


def test_clipping_shortens_the_step_and_not_the_sum():
    """Sums 4, 5, -1, each clipped to a length of 2: steps 2, 2, -1."""
    weight = torch.nn.Parameter(torch.zeros(1))
    found = steps(GradientSum(torch.optim.SGD([weight], lr=1.0)), weight, [4.0, 1.0, -6.0], clip=2.0)
    assert found == pytest.approx([-2.0, -4.0, -3.0], abs=1e-5)


@pytest.mark.parametrize(("images", "batch_size"), [(16, 4), (3, 2), (10, 4), (7, 3)])
def test_the_rate_is_that_of_the_first_step_of_the_pass(images, batch_size):
    """By its definition: a pass is all images once, and a step belongs to the pass of its first image."""
    config = compose_config(
        [
            ("here", CONFIG.to_dict()),
            ("more", {"optim": {"batch_size": batch_size}, "schedule": {"name": "cosine", "steps": 12}}),
        ]
    )
    pass_of = [step * batch_size // images for step in range(12)]
    expected = [0.5 * (1 + np.cos(np.pi * pass_of.index(number) / 12)) for number in pass_of]
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [weight], "lr": 0.3, "peak_lr": 0.3}])
    parts = Parts(torch.nn.Identity(), optimizer, config=config)
    parts.objective.model = SimpleNamespace()
    around, found = RatePerPass(parts, images), []
    for step in range(12):
        parts.progress.step = step
        optimizer.param_groups[0]["lr"] = 99.0  # what the loop has set
        around.step()
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.3 * factor for factor in expected])
    assert len(set(found)) == len(set(pass_of)) < 12


def test_images_are_normalised_twice():
    """By hand, of a red level of 0.5: ((0.5 - 0.485) / 0.229 - 0.45) / 0.225."""
    model = tiny_model("segmentation").eval()
    processor = DepthSegImageProcessor(image_mean=0.45, image_std=0.225, size={"height": 32, "width": 64})
    images = torch.rand(2, 3, 32, 64)
    images[:, 0, 0, 0] = 0.5
    pixel_values, seen = (images - 0.45) / 0.225, []
    expected_logits = model(pixel_values=_twice(images)).logits
    normalise_twice(model, processor)
    model.encoder.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    logits = model(pixel_values=pixel_values).logits
    assert seen[0][0, 0, 0, 0].item() == pytest.approx(((0.5 - 0.485) / 0.229 - 0.45) / 0.225, abs=1e-5)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=1e-4)


def _twice(images):
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((images - mean) / std - 0.45) / 0.225


def test_normalising_twice_knows_a_model_that_normalises_itself():
    model = tiny_model("segmentation").eval()
    model.config.input_mean, model.config.input_std = [0.45] * 3, [0.225] * 3
    images, seen = torch.rand(1, 3, 32, 64), []
    normalise_twice(model, DepthSegImageProcessor(do_normalize=False, size={"height": 32, "width": 64}))
    model.encoder.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(pixel_values=images)
    torch.testing.assert_close(seen[0], _twice(images), atol=1e-4, rtol=1e-4)


def test_a_frozen_encoder_trains_all_but_its_statistics():
    model = tiny_model("segmentation")
    objective = SupervisedObjective(model).train()
    wrapped({"freeze_mode": {}}, Parts(objective))
    before = {name: values.clone() for name, values in model.encoder.state_dict().items()}
    # A step so wide that the smallest gradient of a weight of 1 is not lost in rounding.
    optimizer = torch.optim.SGD(model.parameters(), lr=1000.0)
    batch = {"pixel_values": torch.randn(2, 3, 32, 64), "labels": torch.randint(0, 2, (2, 32, 64))}
    objective(batch)["loss"].backward()
    optimizer.step()
    moved = {name for name, values in model.encoder.state_dict().items() if not torch.equal(values, before[name])}
    assert moved and not any("running" in name or "num_batches" in name for name in moved)
    assert moved >= {name for name, _ in model.encoder.named_parameters() if "norm" in name or "bn" in name}
    assert model.head.training and not model.encoder.training


def test_the_error_of_depth_is_divided_by_all_pixels():
    """With a quarter of the pixels known, the loss and its gradient are a quarter of their mean over those."""
    model = tiny_model("depth").eval()
    objective = SupervisedObjective(model)
    depth = torch.zeros(1, 32, 64)
    depth[:, :16, :32] = 5.0
    batch = {"pixel_values": torch.randn(1, 3, 32, 64), "labels": depth}
    parts = wrapped({"depth_loss": {}}, Parts(objective, count_valid=objective.count_valid))
    assert objective.count_valid(batch).tolist() == [512, 0] and parts.count_valid(batch).tolist() == [2048, 0]
    losses = [objective(batch, count(batch))["loss"].item() for count in (objective.count_valid, parts.count_valid)]
    assert losses[1] == pytest.approx(losses[0] / 4)


# Crops


def stream_of(crop_scale=(0.5, 0.5), hflip=0.5, count=6):
    rng = np.random.default_rng(0)
    samples = [
        frame(
            f"a{index}",
            np.zeros((16, 24)),
            rng.integers(0, 255, (16, 24, 3)).astype(np.uint8),
            depth=rng.uniform(1, 9, (16, 24)).astype(np.float32),
        )
        for index in range(count)
    ]
    return StreamDataset(Frames(samples), TrainTransform((16, 24), hflip, crop_scale), seed=3)


def same(a, b, *parts):
    return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in parts)


def test_the_zoom_moves_the_image_alone():
    stream, whole = stream_of(), stream_of(crop_scale=(1.0, 1.0))
    zoomed = CroppedStream(stream, seed=3, image_only=True, batch_size=None)
    mirrored = 0
    for position in range(12):
        sample, both = zoomed[position], stream[position]
        assert same(sample, both, "image") and not same(sample, both, "depth")
        original = stream.samples[stream.stream.index(position)]
        assert same(sample, whole[position], "depth")  # at its own place: all of it, mirrored as the image is
        assert any(np.array_equal(sample.depth, depth) for depth in (original.depth, original.depth[:, ::-1]))
        mirrored += np.array_equal(sample.depth, original.depth[:, ::-1])
    assert 0 < mirrored < 12


def test_every_other_batch_is_not_cropped():
    stream, whole = stream_of(), stream_of(crop_scale=(1.0, 1.0))
    sparse = CroppedStream(stream, seed=3, image_only=False, batch_size=4)
    parts, cropped = ("image", "depth", "labels"), []
    for batch in range(60):
        samples = [(sparse[p], stream[p], whole[p]) for p in range(4 * batch, 4 * batch + 4)]
        as_stream = {same(sample, crop, *parts) for sample, crop, _ in samples}
        as_whole = {same(sample, full, *parts) for sample, _, full in samples}
        assert (as_stream, as_whole) in (({True}, {False}), ({False}, {True}))  # never within a batch
        cropped.append(as_stream == {True})
    assert 20 <= sum(cropped) <= 40 and len(set(zip(cropped, cropped[1:], strict=False))) == 4


def test_both_defects_of_crops_at_once():
    stream, whole = stream_of(), stream_of(crop_scale=(1.0, 1.0))
    both = CroppedStream(stream, seed=3, image_only=True, batch_size=4)
    images = {same(both[p], stream[p], "image") for p in range(40)}
    assert images == {True, False} and all(same(both[p], whole[p], "depth") for p in range(40))


def test_a_run_resumes_in_the_same_crops():
    """What a position gives depends on the position alone, so that checkpoints need not know of it."""
    first, second = (CroppedStream(stream_of(), 3, True, 4) for _ in range(2))
    forwards = [first[position].image for position in range(12)]
    backwards = [second[position].image for position in reversed(range(12))]
    assert all(map(np.array_equal, forwards, reversed(backwards)))
