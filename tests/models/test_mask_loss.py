"""The loss of mask heads against transformers' own, brute-force matching and numbers written out by hand."""

import sys
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from torch.nn import functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerLoss,
    dice_loss,
    sigmoid_cross_entropy_loss,
)

from depthseg.models.losses_masks_depthseg import MaskLossWeights, MaskPrediction, Segments, mask_loss, match

WEIGHTS = MaskLossWeights(2.0, 5.0, 4.0, 0.1, num_points=12544)
NUM_LABELS, QUERIES, SIZE = 4, 6, (5, 7)


def make_prediction(batch: int = 1, size=SIZE, queries: int = QUERIES) -> MaskPrediction:
    return MaskPrediction(2 * torch.randn(batch, queries, NUM_LABELS + 1), 3 * torch.randn(batch, queries, *size))


def make_labels(batch: int = 1, size=SIZE) -> torch.Tensor:
    """Three of the four classes in every image."""
    labels = torch.randint(0, NUM_LABELS - 1, (batch, *size))
    labels[:, 0, :3] = torch.arange(3)
    return labels


def centres(size=SIZE) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.stack([(columns + 0.5) / size[1], (rows + 0.5) / size[0]], -1).reshape(1, -1, 2)


def cost_of(prediction: MaskPrediction, masks: torch.Tensor, query: int, segment: int, class_id: int) -> float:
    """Cost of one pair, from transformers' losses of one mask each."""
    predicted, truth = prediction.masks[0, query].reshape(1, -1), masks[segment].reshape(1, -1)
    probability = prediction.classes[0, query].softmax(-1)[class_id]
    return float(
        -2 * probability + 5 * sigmoid_cross_entropy_loss(predicted, truth, 1) + 4 * dice_loss(predicted, truth, 1)
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_matching_is_the_cheapest_of_all_permutations(seed):
    torch.manual_seed(seed)
    prediction, labels = make_prediction(), make_labels()[0]
    segments = Segments.of(labels, labels != 255, (1.0, 1.0), 100)
    masks = torch.stack([labels == index for index in range(3)]).float()
    queries, matched = match(prediction.classes[0], prediction.masks[0], segments, WEIGHTS)
    cost = [[cost_of(prediction, masks, query, segment, segment) for segment in range(3)] for query in range(QUERIES)]
    best = min(permutations(range(QUERIES), 3), key=lambda chosen: sum(cost[q][s] for s, q in enumerate(chosen)))
    assert dict(zip(matched.tolist(), queries.tolist(), strict=True)) == dict(enumerate(best))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_loss_of_all_pixels_is_that_of_transformers(batch, monkeypatch):
    torch.manual_seed(0)
    layers, labels = [make_prediction(batch) for _ in range(2)], make_labels(batch)
    points = centres()
    config = Mask2FormerConfig(
        **{"num_labels": NUM_LABELS, "dice_weight": 4.0, "train_num_points": points.shape[1], "no_object_weight": 0.1}
    )
    names = ("loss_cross_entropy", "loss_mask", "loss_dice")
    criterion = Mask2FormerLoss(config, dict(zip(names, (2.0, 5.0, 4.0), strict=True)))
    criterion.sample_points_using_uncertainty = lambda logits, *others: points.expand(len(logits), -1, -1)
    masks = [torch.stack([image == index for index in range(3)]).float() for image in labels]
    with monkeypatch.context() as patch:
        # The matcher's random points are all pixels, too.
        patch.setattr(torch, "rand", lambda *shape, **options: points)
        parts = [criterion(one.masks, one.classes, masks, [torch.arange(3)] * batch) for one in layers]
    weights = dict(zip(names, (2.0, 5.0, 4.0), strict=True))
    expected = sum(weights[name] * value for part in parts for name, value in part.items())
    torch.testing.assert_close(mask_loss(layers, labels, WEIGHTS), expected)


def test_a_number_written_out_by_hand():
    """Two queries, two pixels that count and one that does not; each query has one mask."""
    masks = torch.tensor([[[[2.0, -2.0, 9.0]], [[-1.0, 3.0, -9.0]]]])
    classes = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    labels = torch.tensor([[[0, 1, 255]]])
    e = torch.exp(torch.tensor([-2.0, -1.0, -3.0], dtype=torch.float64))
    cross_entropies = [torch.log(1 + e[0]), (torch.log(1 + e[1]) + torch.log(1 + e[2])) / 2]
    inside = [(1 / (1 + e[0]), e[0] / (1 + e[0])), (1 / (1 + e[2]), e[1] / (1 + e[1]))]
    dices = [1 - (2 * hit + 1) / (hit + miss + 1 + 1) for hit, miss in inside]
    of_classes = -torch.log(torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 2))
    expected = 2 * of_classes + sum(5 * a + 4 * b for a, b in zip(cross_entropies, dices, strict=True)) / 2
    torch.testing.assert_close(mask_loss([MaskPrediction(classes, masks)], labels, WEIGHTS), expected.float())


@pytest.mark.parametrize("num_points", [3, 12544])
def test_ignored_pixels_change_nothing(num_points):
    torch.manual_seed(0)
    weights = replace(WEIGHTS, num_points=num_points)
    prediction, labels = make_prediction(), make_labels()
    labels[0, 2:] = 255
    other = prediction.masks.clone()
    other[:, :, 2:] = 100 * torch.randn(other[:, :, 2:].shape)
    losses = []
    for masks in (prediction.masks, other):
        torch.manual_seed(1)
        masks = masks.clone().requires_grad_()
        loss = mask_loss([MaskPrediction(prediction.classes, masks)], labels, weights)
        loss.backward()
        assert masks.grad[:, :, :2].any() and not masks.grad[:, :, 2:].any()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses, rtol=0, atol=0)
    # Nor does it matter what the number of an ignored pixel is.
    with_another_id = labels.where(labels != 255, torch.tensor(-1))
    torch.manual_seed(1)
    loss = mask_loss([prediction], with_another_id, weights, ignore_index=-1)
    torch.testing.assert_close(loss, losses[0], rtol=0, atol=0)


def test_parts_of_a_batch_add_up_to_the_whole():
    """Value and gradient, of processes with one image, one without labels, and two of unequal labels."""
    torch.manual_seed(0)
    prediction, labels = make_prediction(4), make_labels(4)
    labels[0, :4] = 255
    labels[1] = 255
    labels[3, 2:, 1:] = 255
    num_valid = (labels != 255).sum()
    prediction.masks.requires_grad_(), prediction.classes.requires_grad_()
    parts = [
        mask_loss([MaskPrediction(prediction.classes[part], prediction.masks[part])], labels[part], WEIGHTS,
                  num_valid=num_valid)
        for part in (slice(0, 1), slice(1, 2), slice(2, 4))
    ]  # fmt: skip
    whole = mask_loss([prediction], labels, WEIGHTS)
    torch.testing.assert_close(sum(parts), whole)
    inputs = (prediction.classes, prediction.masks)
    for ours, theirs in zip(torch.autograd.grad(sum(parts), inputs), torch.autograd.grad(whole, inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert parts[1] == 0


def test_nothing_but_ignored_pixels_is_zero_with_a_gradient_path():
    prediction = make_prediction(2)
    classes, masks = prediction.classes.requires_grad_(), prediction.masks.requires_grad_()
    loss = mask_loss([MaskPrediction(classes, masks)], torch.full((2, *SIZE), 255), WEIGHTS)
    loss.backward()
    assert loss == 0 and not classes.grad.any() and not masks.grad.any()


def test_labels_of_another_resolution_are_compared_with_masks_resized_to_them():
    torch.manual_seed(0)
    prediction, labels = make_prediction(), make_labels(size=(11, 20))
    resized = F.interpolate(prediction.masks, (11, 20), mode="bilinear", align_corners=False)
    expected = mask_loss([MaskPrediction(prediction.classes, resized)], labels, WEIGHTS)
    torch.testing.assert_close(mask_loss([prediction], labels, WEIGHTS), expected)


def test_masks_of_a_padded_image_are_compared_where_the_image_is():
    torch.manual_seed(0)
    prediction, labels = make_prediction(size=(6, 8)), make_labels(size=(5, 6))
    cropped = MaskPrediction(prediction.classes, prediction.masks[:, :, :5, :6])
    loss = mask_loss([prediction], labels, WEIGHTS, extent=(5 / 6, 6 / 8))
    torch.testing.assert_close(loss, mask_loss([cropped], labels, WEIGHTS))


def test_random_points_estimate_the_loss_of_all_pixels():
    """Every point of this mask is equally certain, so that the chosen ones are a sample of all pixels."""
    torch.manual_seed(0)
    masks = torch.where(torch.arange(40) < 20, 6.0, -6.0).expand(1, 1, 30, 40).clone()
    labels = torch.zeros(1, 30, 40, dtype=torch.long)
    prediction = MaskPrediction(torch.zeros(1, 1, NUM_LABELS + 1), masks)
    segments = Segments.of(labels[0], labels[0] != 255, (1.0, 1.0), num_points=1000)
    points = segments.uncertain_points(masks[0])
    assert points.shape == (1, 1000)
    exact = mask_loss([prediction], labels, WEIGHTS)
    drawn = mask_loss([prediction], labels, replace(WEIGHTS, num_points=1000))
    assert drawn != exact
    torch.testing.assert_close(drawn, exact, rtol=0.1, atol=0)


def test_uncertain_points_gather_at_the_border_of_the_mask():
    torch.manual_seed(0)
    masks = (torch.arange(100.0) - 49.5).expand(1, 20, 100).clone()
    segments = Segments.of(torch.zeros(20, 100).long(), torch.ones(20, 100).bool(), (1.0, 1.0), num_points=400)
    columns = segments.uncertain_points(masks) % 100
    near = ((columns - 49.5).abs() < 15).float().mean()
    # Three quarters are the 300 of 1200 drawn ones that are nearest, about 25 of 100 columns; the rest is uniform.
    assert near > 0.75


def test_more_segments_than_queries():
    torch.manual_seed(0)
    prediction, labels = make_prediction(queries=2), make_labels()
    assert len(labels.unique()) == 3
    assert mask_loss([prediction], labels, WEIGHTS).isfinite()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((1, 5, 7), NUM_LABELS), "holds the ids .* but the model knows 0 to 3 and ignores 255"),
        (torch.zeros(2, 5, 7), r"expected \(batch, height, width\) with a batch of 1"),
    ],
)
def test_wrong_labels_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        mask_loss([make_prediction()], labels.long(), WEIGHTS)


def test_scipy_is_needed_for_the_loss_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    make_prediction().class_scores()
    with pytest.raises(ImportError, match="matches queries with scipy: pip install scipy"):
        mask_loss([make_prediction()], make_labels(), WEIGHTS)


def test_class_scores_are_the_logarithm_of_the_sum_over_queries():
    torch.manual_seed(0)
    prediction = make_prediction(2)
    expected = torch.zeros(2, NUM_LABELS, *SIZE, dtype=torch.float64)
    for query in range(QUERIES):
        probable = prediction.classes[:, query].double().softmax(-1)[:, :NUM_LABELS, None, None]
        expected += probable * torch.sigmoid(prediction.masks[:, query].double())[:, None]
    scores = prediction.class_scores()
    torch.testing.assert_close(scores.double().exp(), expected, rtol=1e-5, atol=0)
    assert (scores.argmax(1) == expected.argmax(1)).all()
    torch.testing.assert_close(scores.softmax(1).double(), expected / expected.sum(1, keepdim=True), rtol=1e-5, atol=0)
