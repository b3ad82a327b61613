"""The loss of heads that predict masks: each segment of an image is compared with the query that matches it best.

A segment is all pixels of one class in one image. Pixels that are ignored belong to none and are compared with
nothing: every comparison is made at the centres of pixels that count.

Shape letters: B batch, Q queries, K classes, S segments of an image, P points, H and W label size, h and w mask size.

Source: Cheng et al. 2022 (Mask2Former), https://huggingface.co/papers/2112.01527, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .losses_depthseg import check_label_range, divisor

OVERSAMPLING = 3
UNCERTAIN_SHARE = 0.75


@dataclass(frozen=True)
class MaskLossWeights:
    """Weights of the parts of a mask loss, in the matching and in the loss itself.

    Args:
        class_weight (`float`): Cross-entropy of the classes of the queries; in the matching, their probability.
        mask_weight (`float`): Binary cross-entropy of a mask.
        dice_weight (`float`): Dice loss of a mask.
        no_object_weight (`float`): Weight of a query without segment, relative to one with a segment.
        num_points (`int`): Number of pixels at which masks are compared; all, where an image has no more.
    """

    class_weight: float
    mask_weight: float
    dice_weight: float
    no_object_weight: float
    num_points: int


@dataclass(frozen=True)
class MaskPrediction:
    """What one decoder layer predicts.

    Args:
        classes (`torch.Tensor` of shape `(B, Q, K + 1)`): Scores before the softmax; the last one is "no object".
        masks (`torch.Tensor` of shape `(B, Q, h, w)`): Scores before the sigmoid; they cover the padded image.
    """

    classes: Tensor
    masks: Tensor

    def detach(self) -> MaskPrediction:
        """Return the same without gradient."""
        return MaskPrediction(self.classes.detach(), self.masks.detach())

    def class_scores(self) -> Tensor:
        """Return the logarithm of the semantic scores `(B, K, h, w)`, in float32.

        The score of a class at a pixel is the sum over queries of class probability times mask probability. Its
        logarithm keeps the order of the classes, and the softmax over it is the share of a class in all scores.
        """
        with torch.autocast(self.masks.device.type, enabled=False):
            probable = self.classes.float().softmax(-1)[..., :-1]
            scores = torch.einsum("bqk,bqhw->bkhw", probable, self.masks.float().sigmoid())
        return scores.clamp(min=torch.finfo(torch.float32).tiny).log()


def mask_loss(
    layers: list[MaskPrediction],
    labels: Tensor,
    weights: MaskLossWeights,
    extent: tuple[float, float] = (1.0, 1.0),
    ignore_index: int = 255,
    num_valid: Tensor | int | None = None,
) -> Tensor:
    """Compare the predictions of every decoder layer with the segments of the labels.

    The loss of one image is the weighted mean over queries of the cross-entropy of their classes, plus the mean over
    its segments of binary cross-entropy and Dice loss. Images are averaged in proportion to their valid pixels, so
    that the parts of a batch add up to the loss of the whole batch, and an image without labels has no say.

    Args:
        layers (`list[MaskPrediction]`): The predictions, all of the same batch; their losses are added.
        labels (`torch.LongTensor` of shape `(B, H, W)`): Class ids from 0 to K - 1, or `ignore_index`, of the image
            at any resolution.
        weights ([`MaskLossWeights`]): Weights and the number of points.
        extent (`tuple[float, float]`, *optional*): Height and width of the image in shares of what the masks cover.
        ignore_index (`int`, *optional*, defaults to `255`): Pixels of this id do not count.
        num_valid (`torch.Tensor` or `int`, *optional*): Divisor; defaults to the valid pixels of this batch.

    Returns:
        `torch.Tensor` of shape `()`: float32; 0 with a gradient path where every pixel is ignored.

    Raises:
        ValueError: If the labels have another batch size; or if, without `num_valid`, an id is outside the range.
        ImportError: If scipy is not installed.
    """
    batch, num_labels = layers[0].masks.shape[0], layers[0].classes.shape[-1] - 1
    if labels.dim() != 3 or labels.shape[0] != batch:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; expected (batch, height, width) with a batch of {batch}."
        )
    labels = labels.long()
    valid = labels != ignore_index
    if num_valid is None:
        check_label_range(labels[valid], num_labels, ignore_index)
    total = layers[0].masks.new_zeros((), dtype=torch.float32)
    with torch.autocast(labels.device.type, enabled=False):
        for index in range(batch):
            segments = Segments.of(labels[index], valid[index], extent, weights.num_points)
            for layer in layers:
                classes, masks = layer.classes[index].float(), layer.masks[index].float()
                total = total + segments.count * image_loss(classes, masks, segments, weights)
    return total / divisor(valid, num_valid)


@dataclass(frozen=True)
class Segments:
    """The segments of one image, at the centres of its valid pixels.

    Args:
        count (`int`): Number V of valid pixels.
        classes (`torch.LongTensor` of shape `(S,)`): Class of each segment.
        ids (`torch.LongTensor` of shape `(V,)`): Class of each valid pixel.
        positions (`torch.Tensor` of shape `(V, 2)`): Its x and y, from -1 to 1 over what the masks cover.
        num_points (`int`): Number of points that are drawn where there are more pixels.
    """

    count: int
    classes: Tensor
    ids: Tensor
    positions: Tensor
    num_points: int

    @classmethod
    def of(cls, labels: Tensor, valid: Tensor, extent: tuple[float, float], num_points: int) -> Segments:
        """Find the segments of labels `(H, W)`."""
        rows, columns = valid.nonzero(as_tuple=True)
        shares = [(columns + 0.5) / labels.shape[1] * extent[1], (rows + 0.5) / labels.shape[0] * extent[0]]
        ids = labels[valid]
        return cls(len(ids), ids.unique(), ids, 2 * torch.stack(shares, dim=-1) - 1, num_points)

    def draw(self, num_points: int) -> Tensor:
        """Return the indices `(num_points,)` of random valid pixels, with replacement."""
        return torch.randint(self.count, (num_points,), device=self.ids.device)

    def points(self) -> Tensor:
        """Return the indices of the pixels at which all masks are compared."""
        if self.count <= self.num_points:
            return torch.arange(self.count, device=self.ids.device)
        return self.draw(self.num_points)

    def truth(self, points: Tensor, segments: Tensor | slice = slice(None)) -> Tensor:
        """Return 1 where a pixel belongs to a segment and 0 elsewhere: `(S, P)` for points `(P,)` or `(S, P)`."""
        return (self.ids[points] == self.classes[segments, None]).float()

    def at(self, masks: Tensor, points: Tensor) -> Tensor:
        """Interpolate masks `(N, h, w)` at points `(P,)`, or at others for each mask `(N, P)`: `(N, P)`."""
        grid = self.positions[points].to(masks.dtype)
        if points.dim() == 1:
            grid = grid.expand(1, 1, *grid.shape)
            # Equal points are interpolated for all masks together.
            return F.grid_sample(masks[None], grid, padding_mode="border", align_corners=False)[0, :, 0]
        return F.grid_sample(masks[:, None], grid[:, None], padding_mode="border", align_corners=False)[:, 0, 0]

    @torch.no_grad()
    def uncertain_points(self, masks: Tensor) -> Tensor:
        """Return, for each mask `(N, h, w)`, the pixels at which it is compared: `(P,)`, or `(N, P)` where drawn.

        Of three times as many random pixels as needed, the ones nearest to the border of the predicted mask are three
        quarters of the points; the rest is random.
        """
        if self.count <= self.num_points:
            return self.points()
        drawn = self.draw(len(masks) * OVERSAMPLING * self.num_points).view(len(masks), -1)
        uncertain = int(UNCERTAIN_SHARE * self.num_points)
        nearest = self.at(masks, drawn).abs().topk(uncertain, dim=1, largest=False).indices
        others = self.draw(len(masks) * (self.num_points - uncertain)).view(len(masks), -1)
        return torch.cat([drawn.gather(1, nearest), others], dim=1)


def image_loss(classes: Tensor, masks: Tensor, segments: Segments, weights: MaskLossWeights) -> Tensor:
    """Loss of one layer on one image, from class scores `(Q, K + 1)` and masks `(Q, h, w)`."""
    if segments.count == 0:
        return 0 * (classes.sum() + masks.sum())
    queries, matched = match(classes, masks, segments, weights)
    no_object = classes.shape[-1] - 1
    target = torch.full((len(classes),), no_object, device=classes.device)
    target[queries] = segments.classes[matched]
    class_weights = torch.ones(no_object + 1, device=classes.device)
    class_weights[no_object] = weights.no_object_weight
    loss = weights.class_weight * F.cross_entropy(classes, target, class_weights)
    chosen = masks[queries]
    points = segments.uncertain_points(chosen)
    predicted, truth = segments.at(chosen, points), segments.truth(points, matched)
    cross_entropy = F.binary_cross_entropy_with_logits(predicted, truth, reduction="none").mean(1)
    overlap = 2 * (predicted.sigmoid() * truth).sum(1) + 1
    dice = 1 - overlap / (predicted.sigmoid().sum(1) + truth.sum(1) + 1)
    of_masks = weights.mask_weight * cross_entropy + weights.dice_weight * dice
    return loss + of_masks.sum() / len(segments.classes)


@torch.no_grad()
def match(classes: Tensor, masks: Tensor, segments: Segments, weights: MaskLossWeights) -> tuple[Tensor, Tensor]:
    """Assign each segment a query of its own, at the least total cost; with fewer queries some segments get none.

    The host waits for the device: the Hungarian algorithm is that of scipy, on the CPU.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: indices of queries and of their segments.
    """
    points = segments.points()
    predicted, truth = segments.at(masks, points), segments.truth(points)
    # Cross-entropy with a target t is softplus(x) - x * t.
    cross_entropy = (F.softplus(predicted).sum(1)[:, None] - predicted @ truth.T) / len(points)
    probable = predicted.sigmoid()
    dice = 1 - (2 * probable @ truth.T + 1) / (probable.sum(1)[:, None] + truth.sum(1) + 1)
    cost = weights.mask_weight * cross_entropy + weights.dice_weight * dice
    cost = cost - weights.class_weight * classes.softmax(-1)[:, segments.classes]
    queries, targets = assign(cost)
    return torch.as_tensor(queries, device=masks.device), torch.as_tensor(targets, device=masks.device)


def assign(cost: Tensor) -> tuple[Any, Any]:
    """Return the rows and columns of the assignment of least cost, as two arrays.

    Raises:
        ImportError: If scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError("The loss of a mask head matches queries with scipy: pip install scipy.") from error
    # The loss of numbers that are not finite is not finite either, and training stops there.
    return linear_sum_assignment(cost.nan_to_num(posinf=1e9, neginf=-1e9).cpu().numpy())
