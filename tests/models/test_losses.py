"""Losses against loops over pixels in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models.tiny_models import make_labels, tiny_model
from torch.nn import functional as F

from depthseg.models import lean_loss_depthseg, losses_depthseg
from depthseg.models.losses_depthseg import depth_loss, segmentation_loss

RNG = np.random.default_rng(0)


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Half-pixel centres, border repeated."""
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            sx = min(max((x + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
            top = image[y0, x0] * (1 - sx + x0) + image[y0, x1] * (sx - x0)
            bottom = image[y1, x0] * (1 - sx + x0) + image[y1, x1] * (sx - x0)
            result[y, x] = top * (1 - sy + y0) + bottom * (sy - y0)
    return result


def cross_entropy_by_hand(logits: np.ndarray, labels: np.ndarray) -> float:
    losses = []
    for scores, ids in zip(logits, labels, strict=True):
        scores = [resize_bilinear(s, *ids.shape) for s in scores]
        for y in range(ids.shape[0]):
            for x in range(ids.shape[1]):
                if ids[y, x] != 255:
                    at_pixel = [s[y, x] for s in scores]
                    losses.append(math.log(sum(map(math.exp, at_pixel))) - at_pixel[ids[y, x]])
    return sum(losses) / len(losses)


def dice_by_hand(logits: np.ndarray, labels: np.ndarray) -> float:
    """Images weighted by their valid pixels; one logit is the class against a background."""
    total = 0.0
    for scores, ids in zip(logits, labels, strict=True):
        scores = np.stack([resize_bilinear(s, *ids.shape) for s in scores])
        shares = np.exp(scores) / np.exp(scores).sum(0) if len(scores) > 1 else np.exp(scores) / (1 + np.exp(scores))
        known, losses = ids != 255, []
        for number, share in enumerate(shares, start=len(scores) == 1):
            mask = ids == number
            if mask.any() or len(scores) == 1:
                common, both = share[mask].sum(), share[known].sum() + mask.sum()
                losses.append(1 - (2 * common + 1) / (both + 1))
        total += known.sum() * (sum(losses) / len(losses) if losses else 0)
    return total / (labels != 255).sum()


def known_pixels(depth: np.ndarray) -> list[tuple[int, int]]:
    return [(y, x) for y, x in np.ndindex(*depth.shape) if math.isfinite(depth[y, x]) and depth[y, x] > 0]


def l1_by_hand(prediction: np.ndarray, target: np.ndarray, known) -> float:
    return sum(abs(prediction[p] - target[p]) for p in known) / len(known)


def silog_by_hand(prediction: np.ndarray, target: np.ndarray, known) -> float:
    d = [math.log(prediction[p]) - math.log(target[p]) for p in known]
    return sum(v**2 for v in d) / len(d) - 0.5 * (sum(d) / len(d)) ** 2


def standardised(values: np.ndarray, known) -> np.ndarray:
    listed = sorted(values[p] for p in known)
    median = listed[(len(listed) - 1) // 2]
    deviation = sum(abs(v - median) for v in listed) / len(listed)
    return (values - median) / deviation


def ssi_by_hand(prediction: np.ndarray, target: np.ndarray, known) -> float:
    residual = standardised(prediction, known) - standardised(target, known)
    loss = sum(abs(residual[p]) for p in known) / len(known)
    for step in (1, 2, 4, 8):
        grid = {p for p in known if p[0] % step == 0 and p[1] % step == 0}
        total = 0.0
        for y, x in grid:
            total += sum(abs(residual[q] - residual[y, x]) for q in ((y, x + step), (y + step, x)) if q in grid)
        loss += 0.5 * total / max(len(grid), 1)
    return loss


SEGMENTATION_OPTIONS = (
    {},
    {"segmentation_loss": "dice"},
    {"segmentation_loss": "focal"},
    {"segmentation_loss": "cross_entropy_dice", "label_smoothing": 0.1},
    {"class_weights": [0.5, 2.0, 1.0, 0.0, 3.0]},
)
BY_HAND = {"l1": l1_by_hand, "silog": silog_by_hand, "ssi": ssi_by_hand}


def depth_loss_by_hand(kind: str, predictions: np.ndarray, depths: np.ndarray, depth_type: str) -> float:
    """The mean over all known pixels: each image weighs as many as it has."""
    total = pixels = 0
    for prediction, depth in zip(predictions, depths, strict=True):
        known = known_pixels(depth)
        safe = np.where(np.isfinite(depth) & (depth > 0), depth, 1.0)
        # Inverse depth is compared where the network gives that, and by ssi, which wants it, where it can be had.
        target = 1 / safe if depth_type == "relative_inverse" else safe
        if kind == "ssi" and depth_type == "metric":
            prediction, target = 1 / prediction, 1 / safe
        if known:
            total += len(known) * BY_HAND[kind](prediction, target, known)
            pixels += len(known)
    return total / pixels


def depth_pair(batch: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels with unknown pixels of every sort, the last image wholly unknown."""
    prediction, depth = RNG.uniform(0.5, 20, (batch, 9, 14)), RNG.uniform(0.5, 20, (batch, 9, 14))
    depth[0, :3] = 0
    depth[0, 5, 5:9] = np.nan
    depth[1, 2, :4] = np.inf
    depth[1, 4:, 3] = -1
    depth[2] = 0
    return prediction, depth


@pytest.mark.parametrize("depth_type", ["metric", "relative", "relative_inverse"])
@pytest.mark.parametrize("kind", BY_HAND)
def test_depth_losses_equal_loops_over_pixels(kind, depth_type):
    prediction, depth = depth_pair()
    loss = depth_loss(kind, torch.from_numpy(prediction).float(), torch.from_numpy(depth).float(), depth_type)
    assert loss.item() == pytest.approx(depth_loss_by_hand(kind, prediction, depth, depth_type), rel=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (4, 3), (10, 14)])
def test_cross_entropy_equals_a_loop_over_pixels_at_the_size_of_the_labels(size):
    logits, labels = RNG.normal(size=(2, 4, 5, 7)), RNG.integers(0, 4, (2, *size))
    labels[0, 1:3, :2] = 255
    loss = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(cross_entropy_by_hand(logits, labels), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 4])
def test_dice_equals_a_loop_over_classes_and_images(classes):
    logits, labels = RNG.normal(size=(3, classes, 5, 7)), RNG.integers(0, max(classes, 2) - 1, (3, 10, 14))
    labels[0, 1:3, :2] = 255
    labels[1, :4] = 1
    labels[2, :9] = 255
    loss = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(labels), kind="dice")
    assert loss.item() == pytest.approx(dice_by_hand(logits, labels), rel=1e-5)
    both = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(labels), kind="cross_entropy_dice")
    cross_entropy = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert both.item() == pytest.approx(loss.item() + cross_entropy.item(), rel=1e-6)


def plain_dice(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The Dice loss of a batch by masks at the size of the labels, in float64."""
    up = F.interpolate(logits.double(), labels.shape[-2:], mode="bilinear", align_corners=False).softmax(1)
    total = 0
    for shares, ids in zip(up, labels, strict=True):
        known = ids != 255
        present = [k for k in range(len(shares)) if (ids == k).any()]
        masks = [(ids == k).double() for k in present]
        losses = [
            1 - (2 * (shares[k] * mask).sum() + 1) / ((shares[k] * known).sum() + mask.sum() + 1)
            for k, mask in zip(present, masks, strict=True)
        ]
        total = total + torch.stack(losses).mean() * known.sum()
    return total / (labels != 255).sum()


@pytest.mark.parametrize("tile", [1, 1 << 19])
@pytest.mark.parametrize("size", [(5, 7), (20, 24), (40, 9)])
def test_dice_in_tiles_has_the_gradient_and_curvature_of_the_whole(monkeypatch, tile, size):
    monkeypatch.setattr(lean_loss_depthseg, "CPU_TILE", tile)
    torch.manual_seed(0)
    logits = (2 * torch.randn(2, 5, *size)).requires_grad_()
    labels = torch.randint(0, 4, (2, 20, 24))
    labels[0, :6], labels[1, :, 20:] = 255, 255
    found, expected = segmentation_loss(logits, labels, kind="dice"), plain_dice(logits, labels)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=0)
    ours, theirs = (torch.autograd.grad(loss, logits, create_graph=True)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)
    ours, theirs = (torch.autograd.grad(each.square().sum(), logits)[0] for each in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-10)


def test_dice_of_millions_of_pixels_is_exact():
    """In float32 the sum over the pixels of a class stops growing as it should long before."""
    labels = torch.zeros(1, 1500, 3000, dtype=torch.int64)
    labels[0, 0, 0] = 1
    share, count = 1 / (1 + math.exp(-0.7)), labels.numel() - 1
    first = 1 - (2 * share * count + 1) / (share * labels.numel() + count + 1)
    second = 1 - (2 * (1 - share) + 1) / ((1 - share) * labels.numel() + 1 + 1)
    loss = segmentation_loss(torch.tensor([0.7, 0.0]).view(1, 2, 1, 1), labels, kind="dice")
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_dice_never_keeps_the_resized_scores():
    logits, labels = torch.randn(1, 20, 8, 8, requires_grad=True), torch.randint(0, 20, (1, 256, 256))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        segmentation_loss(logits, labels, kind="dice").backward()
    assert kept and max(kept) < 20 * 256 * 256 / 10


@pytest.mark.parametrize("kind", ["cross_entropy", "dice", "cross_entropy_dice", "focal"])
def test_losses_are_compiled_whole_where_ids_are_not_checked(monkeypatch, kind):
    """As on accelerators."""
    monkeypatch.setattr(losses_depthseg, "check_label_range", lambda *arguments: None)
    logits, labels = torch.randn(1, 5, 8, 8), torch.randint(0, 5, (1, 20, 24))
    compiled = torch.compile(segmentation_loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, labels, kind=kind), segmentation_loss(logits, labels, kind=kind))


def test_dice_does_not_see_an_infinite_score_of_an_ignored_pixel():
    logits, labels = torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    logits[:, :, 0], labels[:, 0] = torch.tensor([-math.inf, math.inf, 0.0]).view(1, 3, 1), 255
    logits.requires_grad_()
    loss = segmentation_loss(logits, labels, kind="dice")
    loss.backward()
    assert loss.item() == pytest.approx(1 - (2 * 12 / 3 + 1) / (12 / 3 + 12 + 1))
    assert logits.grad.isfinite().all() and not logits.grad[:, :, 0].any() and logits.grad[:, :, 1:].any()


def test_class_weights_smoothing_and_focus_of_one_pixel_by_hand():
    logits, share = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1), 0.75
    label = torch.ones(1, 1, 1, dtype=torch.long)
    weighted = segmentation_loss(logits, label, class_weights=[5.0, 2.0])
    assert weighted.item() == pytest.approx(-2 * math.log(share))
    smoothed = segmentation_loss(logits, label, label_smoothing=0.2)
    assert smoothed.item() == pytest.approx(-0.9 * math.log(share) - 0.1 * math.log(1 - share))
    focused = segmentation_loss(logits, label, kind="focal")
    assert focused.item() == pytest.approx(-((1 - share) ** 2) * math.log(share))
    single = segmentation_loss(torch.full((1, 1, 1, 1), math.log(3)), label, kind="focal", class_weights=[5.0, 2.0])
    assert single.item() == pytest.approx(2 * focused.item())


def test_another_ignored_id():
    logits, labels = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 2]]])
    kept = torch.tensor([[[0, 1], [255, 255]]])
    torch.testing.assert_close(segmentation_loss(logits, labels, ignore_index=2), segmentation_loss(logits, kept))


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (0.2, 0.05), (7.0, 1.0)])
def test_ssi_forgives_scale_and_shift_of_inverse_depth(scale, shift):
    depth = torch.rand(2, 16, 24, dtype=torch.float64) * 20 + 1
    prediction = torch.rand(2, 16, 24, dtype=torch.float64) + 0.1
    moved = depth_loss("ssi", scale * prediction + shift, depth, "relative_inverse")
    torch.testing.assert_close(moved, depth_loss("ssi", prediction, depth, "relative_inverse"), rtol=1e-4, atol=0)
    assert depth_loss("ssi", scale / depth + shift, depth, "relative_inverse") < 1e-4
    assert moved > 0.1


def test_silog_forgives_half_of_a_global_scale():
    depth = torch.rand(1, 8, 8) + 1
    assert depth_loss("silog", 2 * depth, depth, "metric").item() == pytest.approx(math.log(2) ** 2 / 2, rel=1e-4)


@pytest.mark.parametrize("kind", BY_HAND)
def test_depth_gradients_equal_finite_differences(kind):
    prediction, depth = depth_pair()
    leaf = torch.from_numpy(prediction).float().requires_grad_()
    depth_loss(kind, leaf, torch.from_numpy(depth).float(), "metric").backward()
    assert (leaf.grad[2] == 0).all() and (leaf.grad[0, :3] == 0).all() and leaf.grad.isfinite().all()
    for pixel in ((0, 4, 4), (1, 0, 1), (1, 8, 13)):
        step = np.zeros_like(prediction)
        step[pixel] = 1e-6
        upper, lower = (depth_loss_by_hand(kind, prediction + s * step, depth, "metric") for s in (1, -1))
        assert leaf.grad[pixel].item() == pytest.approx((upper - lower) / 2e-6, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize("unknown", [0.0, math.nan, math.inf])
def test_no_known_depth_gives_zero_with_a_gradient_path(kind, unknown):
    prediction = torch.rand(2, 6, 8, requires_grad=True)
    loss = depth_loss(kind, prediction, torch.full((2, 6, 8), unknown), "metric")
    loss.backward()
    assert loss.item() == 0
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("task", ["depth", "segmentation"])
def test_a_batch_without_labels_leaves_a_model_as_it_is(task):
    model = tiny_model(task)
    empty = torch.full((2, 57, 101), 255 if task == "segmentation" else 0.0)
    loss = model(torch.randn(2, 3, 57, 101), labels=empty.long() if task == "segmentation" else empty).loss
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("task", "options"),
    [("segmentation", options) for options in SEGMENTATION_OPTIONS]
    + [("depth", {"depth_loss": kind, "depth_type": "metric"}) for kind in BY_HAND],
)
def test_parts_of_a_batch_with_the_global_count_add_up_to_the_whole(task, options):
    model = tiny_model(task, **options).eval()
    pixel_values, labels = torch.randn(4, 3, 32, 64), make_labels(task, 4, 24, 48)
    labels[0, 2:] = labels[0, 0, 0]
    labels[2, :, 10:] = labels[0, 0, 0]
    counts = [model.count_valid(labels[:1]), model.count_valid(labels[1:3]), model.count_valid(labels[3:])]
    known = labels != 255 if task == "segmentation" else labels > 0
    by_hand = [int(part.sum()) for part in known.split([1, 2, 1])]
    assert [int(count) for count in counts] == by_hand and len(set(by_hand)) == 3
    assert counts[0].dtype == torch.int64 and counts[0].shape == ()

    whole = model(pixel_values, labels=labels).loss
    whole.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad()
    total = 0.0
    for part in (slice(0, 1), slice(1, 3), slice(3, 4)):
        loss = model(pixel_values[part], labels=labels[part], num_valid=sum(counts)).loss
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole.item(), rel=1e-5)
    largest = max(gradient.abs().max() for gradient in gradients)
    for gradient, parameter in zip(gradients, (p for p in model.parameters() if p.requires_grad), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5 * largest)


def test_num_valid_is_the_divisor():
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    mean = segmentation_loss(logits, labels)
    for count in (64, torch.tensor(64)):
        torch.testing.assert_close(segmentation_loss(logits, labels, num_valid=count), mean * 16 / 64)


@pytest.mark.parametrize("wrong", [-1, 3, 254])
def test_ids_outside_the_classes_are_refused(wrong):
    labels = torch.tensor([[[0, 1], [wrong, 255]]])
    with pytest.raises(ValueError, match=rf"holds the ids \[{wrong}\] but the model knows 0 to 2 and ignores 255"):
        segmentation_loss(torch.randn(1, 3, 2, 2), labels)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2), (1, 1, 2, 2)])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="labels has shape"):
        segmentation_loss(torch.randn(1, 3, 2, 2), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (4, 4), (1, 4, 4), (2, 4, 5)])
def test_depth_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"labels has shape .*; expected \(2, 4, 4\)"):
        depth_loss("l1", torch.ones(2, 4, 4), torch.ones(shape), "metric")


def test_depth_is_compared_in_the_units_of_its_type_at_every_scale():
    model = tiny_model("depth", depth_type="metric", depth_loss="l1").eval()
    pixel_values, labels = torch.randn(1, 3, 32, 64), make_labels("depth", 1, 32, 64)
    output = model(pixel_values, labels=labels)
    known = known_pixels(labels[0].numpy())
    losses = []
    for raw in output.raw_maps:
        metres = 100 * resize_bilinear(raw[0, 0].detach().double().numpy(), 32, 64)
        losses.append(l1_by_hand(metres, labels[0].numpy(), known))
    assert len(losses) == 4
    assert output.loss.item() == pytest.approx(sum(losses) / 4, rel=1e-5)
