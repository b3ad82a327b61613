"""Losses on labels, averaged over the valid pixels of the *global* batch.

Every loss is a sum over the valid pixels of this batch divided by `num_valid`. Left out, `num_valid` is this batch's
own count, so the loss is the plain mean. A training loop that splits one optimiser step over micro-batches or
processes passes the count of the whole step; the parts then add up to exactly the loss of the undivided batch, which
means of means do not.

Shape letters: B batch, K classes, H and W label size, h and w prediction size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .lean_loss_depthseg import bilinear_taps, pixel_loss_sum, row_tiles, rows_per_tile

SILOG_VARIANCE_WEIGHT = 0.5
SSI_GRADIENT_WEIGHT = 0.5
SSI_GRADIENT_SCALES = 4
FOCUSING = 2.0
DICE_SMOOTHING = 1.0
EPSILON = 1e-6

# Meaning of the depth of a model that knows no loss -> the loss that it is fine-tuned by.
LOSS_OF_DEPTH = {"relative_inverse": "ssi", "relative": "ssi", "metric": "silog"}


def valid_depth(labels: Tensor) -> Tensor:
    """Return where depth labels `(B, H, W)`, in metres, are known: finite and above 0; bool `(B, H, W)`."""
    return torch.isfinite(labels) & (labels > 0)


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    num_valid: Tensor | int | None = None,
    kind: str = "cross_entropy",
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compare class scores with labels at their resolution: over a softmax, or by a sigmoid where there is one logit.

    Args:
        logits (`torch.Tensor` of shape `(B, K, h, w)`): Class scores; resized bilinearly to the labels.
        labels (`torch.LongTensor` of shape `(B, H, W)`): Class ids from 0 to K - 1, or `ignore_index`; with one logit
            0 is the background and 1 the class.
        ignore_index (`int`, *optional*, defaults to `255`): Pixels of this id do not count.
        num_valid (`torch.Tensor` or `int`, *optional*): Divisor; defaults to the valid pixels of this batch.
        kind (`str`, *optional*, defaults to `"cross_entropy"`): `"focal"` multiplies the cross-entropy of a pixel by
            `(1 - p)**2` with the probability p of its class; `"dice"` is that of `dice_sums`; `"cross_entropy_dice"`
            is the sum of both.
        class_weights (`Sequence[float]`, *optional*): A factor for the pixels of each class in cross-entropy and
            focal loss; with one logit those of background and class. The divisor stays the number of pixels.
        label_smoothing (`float`, *optional*, defaults to `0.0`): Share of the target of the cross-entropy that is
            spread evenly over the classes.

    Returns:
        `torch.Tensor` of shape `()`: float32; 0 with a gradient path where every pixel is ignored. Only the Dice loss
            has a second derivative.

    Raises:
        ValueError: If, without `num_valid` and on the CPU, an id lies outside the range. A training loop that gives
            the count checks ids where it reads them: here it would have to wait for the device.
    """
    if labels.dim() != 3 or labels.shape[0] != logits.shape[0]:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; expected (batch, height, width) with a batch of "
            f"{logits.shape[0]}."
        )
    labels = labels.long()
    valid = labels != ignore_index
    if num_valid is None and labels.device.type == "cpu":
        check_label_range(labels[valid], max(logits.shape[1], 2), ignore_index)
    one_class = logits.shape[1] == 1
    if one_class:
        # A sigmoid is the softmax over its logit and 0; so no device takes an id of another class for background.
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    total = torch.zeros((), device=logits.device)
    if kind != "dice":
        weights = None if class_weights is None else weights_on(logits.device, tuple(class_weights))
        focusing = FOCUSING if kind == "focal" else 0.0
        total = pixel_loss_sum(logits, labels, weights, label_smoothing, focusing, ignore_index).float()
    if kind in ("dice", "cross_entropy_dice"):
        total = total + dice_sums(logits, labels, valid, one_class).sum()
    return total / divisor(valid, num_valid)


@lru_cache(maxsize=16)
def weights_on(device: torch.device, class_weights: tuple[float, ...]) -> Tensor:
    """Return class weights as a tensor on a device, copied there once: the host waits for every such copy."""
    with torch.inference_mode(False):
        return torch.tensor(class_weights, device=device)


def dice_sums(logits: Tensor, labels: Tensor, valid: Tensor, one_class: bool) -> Tensor:
    """Per image its number of valid pixels times the soft Dice loss, shape `(B,)`.

    With the probability p of a class and the mask t of its pixels, over the valid pixels of the image, the loss of the
    class is `1 - (2 * sum(p * t) + 1) / (sum(p) + sum(t) + 1)`; that of the image is the mean over the classes that
    its labels contain, and of one class against a background that of the class alone. Images are weighted by their
    valid pixels, so that parts of a batch on several processes add up to the whole.

    Sums over pixels are in float64 where the device has it, and the resized scores are made, used and dropped tile by
    tile, once more in the backward pass.

    Source: Milletari et al. 2016 (V-Net), https://huggingface.co/papers/1606.04797, section 3, without the squares.

    Args:
        logits (`torch.Tensor` of shape `(B, K, h, w)`): Class scores, two classes or more.
        labels (`torch.LongTensor` of shape `(B, H, W)`): Class ids.
        valid (`torch.BoolTensor` of shape `(B, H, W)`): Pixels that count.
        one_class (`bool`): Whether class 0 is the background of the only class.
    """
    ids = torch.where(valid, labels, 0)
    counts = ids.new_zeros(logits.shape[:2]).scatter_add(1, ids.flatten(1), valid.flatten(1).long())
    height, width = labels.shape[-2:]
    rows = bilinear_taps(logits.shape[2], height, torch.float32).to(logits.device)
    both = total = torch.zeros_like(counts, dtype=sums_dtype(logits))
    for tile in row_tiles(height, rows_per_tile(len(logits) * logits.shape[1] * width, logits.device)):
        inputs = (logits, ids[:, tile], valid[:, tile], rows.index[tile], rows.weights[tile])
        overlap, share = checkpoint(overlap_and_share, *inputs, use_reentrant=False, preserve_rng_state=False)
        both, total = both + overlap, total + share
    losses = 1 - (2 * both + DICE_SMOOTHING) / (total + counts + DICE_SMOOTHING)
    counted = torch.arange(2, device=labels.device).bool().expand_as(losses) if one_class else counts > 0
    return ((losses * counted).sum(1) / counted.sum(1).clamp(min=1) * counts.sum(1)).float()


def overlap_and_share(
    logits: Tensor, ids: Tensor, valid: Tensor, rows: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum the probabilities of each class over its own pixels, and over all, of one tile: two of shape `(B, K)`.

    Args:
        logits (`torch.Tensor` of shape `(B, K, h, w)`): Class scores.
        ids (`torch.LongTensor` of shape `(B, R, W)`): Class ids of the R rows of the tile.
        valid (`torch.BoolTensor` of shape `(B, R, W)`): Pixels that count.
        rows (`torch.LongTensor` of shape `(R, T)`): The rows of the scores that those of the tile are the sums of.
        weights (`torch.Tensor` of shape `(R, T)`): Their weights in these sums.
    """
    taps = zip(rows.unbind(1), weights.unbind(1), strict=True)
    scores: Any = sum(logits.float().index_select(2, row) * weight[:, None] for row, weight in taps)
    if scores.shape[-1] != ids.shape[-1]:
        scores = F.interpolate(scores, size=ids.shape[-2:], mode="bilinear", align_corners=False)
    # Scores of a pixel that does not count may be infinite, and 0 times infinity is no number.
    shares = torch.where(valid[:, None], scores, 0).softmax(1) * valid[:, None]
    dtype = sums_dtype(logits)
    own = shares.gather(1, ids[:, None]).flatten(1).to(dtype)
    overlap = own.new_zeros(shares.shape[:2]).scatter_add(1, ids.flatten(1), own)
    return overlap, shares.sum((2, 3), dtype=dtype)


def sums_dtype(tensor: Tensor) -> torch.dtype:
    """Return the type of sums over many pixels: float64, or float32 on Apple's GPUs, which have no other."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def classification_loss(logits: Tensor, labels: Tensor, num_valid: Tensor | int | None = None) -> Tensor:
    """Cross-entropy of one class per image.

    Args:
        logits (`torch.Tensor` of shape `(B, K)`): Class scores.
        labels (`torch.LongTensor` of shape `(B,)`): Class ids from 0 to K - 1.
        num_valid (`torch.Tensor` or `int`, *optional*): Divisor; defaults to the number of images.

    Returns:
        `torch.Tensor` of shape `()`: float32.

    Raises:
        ValueError: If the labels are not one per image; or if, without `num_valid` and on the CPU, an id is outside
            the range.
    """
    if labels.shape != (len(logits),):
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(logits)},): one id per image.")
    num_labels = logits.shape[1]
    if num_valid is None and labels.device.type == "cpu" and ((labels < 0) | (labels >= num_labels)).any():
        raise ValueError(
            f"labels contains the ids {sorted(set(labels.tolist()))}, but the model has the ids 0 to "
            f"{num_labels - 1}; set num_labels, or map the labels to the model's classes."
        )
    total = F.cross_entropy(logits.float(), labels.long(), reduction="sum")
    return total / (len(labels) if num_valid is None else num_valid)


def check_label_range(ids: Tensor, num_labels: int, ignore_index: int) -> None:
    """Raise a sentence if any of the class ids is not one of `num_labels` classes."""
    if ids.numel() and (ids.min() < 0 or ids.max() >= num_labels):
        wrong = sorted(set(ids[(ids < 0) | (ids >= num_labels)].tolist()))[:5]
        raise ValueError(
            f"labels holds the ids {wrong} but the model knows 0 to {num_labels - 1} and ignores {ignore_index}; map "
            "the labels to the model's classes or set num_labels."
        )


def depth_loss(
    kind: str, prediction: Tensor, labels: Tensor, depth_type: str, num_valid: Tensor | int | None = None
) -> Tensor:
    """Compare predicted with measured depth.

    Args:
        kind (`str`): `"l1"`, `"silog"` (scale-invariant log) or `"ssi"` (scale-and-shift-invariant).
        prediction (`torch.Tensor` of shape `(B, H, W)`): Depth, or inverse depth for `"relative_inverse"`.
        labels (`torch.Tensor` of shape `(B, H, W)`): Depth in metres; 0, negative, NaN or infinite = unknown.
        depth_type (`str`): What the prediction means, as in [`DepthSegConfig`]. Inverse depth is compared with
            inverted labels. `"ssi"` compares inverse depths, except for `"relative"`: depth whose shift is unknown
            cannot be inverted.
        num_valid (`torch.Tensor` or `int`, *optional*): Divisor; defaults to the valid pixels of this batch.

    Returns:
        `torch.Tensor` of shape `()`: float32; 0 with a gradient path where no depth is known.

    Raises:
        ValueError: If prediction and labels differ in shape.
    """
    if labels.shape != prediction.shape:
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected {tuple(prediction.shape)}.")
    valid = valid_depth(labels)
    # Unknown pixels get a harmless value: a NaN times a zero mask would still be NaN.
    labels = torch.where(valid, labels, torch.ones_like(labels)).float()
    prediction = prediction.float()
    if kind == "ssi" and depth_type not in ("relative", "relative_inverse"):
        prediction, target = 1 / prediction.clamp(min=EPSILON), 1 / labels
    else:
        target = 1 / labels if depth_type == "relative_inverse" else labels
    sums = {"ssi": ssi_sums, "silog": silog_sums, "l1": l1_sums}[kind]
    total = sums(prediction, target, valid).sum()
    return total / divisor(valid, num_valid)


def l1_sums(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Per image the sum of absolute differences over the valid pixels, shape `(B,)`."""
    return ((prediction - target).abs() * valid).flatten(1).sum(1)


def silog_sums(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Per image its number of valid pixels times the scale-invariant log loss, shape `(B,)`.

    With d = log(prediction) - log(target) the loss of one image is `mean(d**2) - 0.5 * mean(d)**2`: half of a global
    scale error is forgiven.

    Source: Eigen et al. 2014, https://huggingface.co/papers/1406.2283, section 3.2.
    """
    difference = (prediction.clamp(min=EPSILON).log() - target.clamp(min=EPSILON).log()) * valid
    count = valid.flatten(1).sum(1).clamp(min=1)
    total = difference.flatten(1).sum(1)
    return difference.square().flatten(1).sum(1) - SILOG_VARIANCE_WEIGHT * total.square() / count


def ssi_sums(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Per image its number of valid pixels times the scale-and-shift-invariant loss, shape `(B,)`.

    Prediction and target, both depth or both inverse depth, are each shifted by their median and scaled by their mean
    absolute deviation; the loss is the mean absolute difference R plus half the mean absolute gradient of R at four
    scales.

    Source: Ranftl et al. 2020 (MiDaS), https://huggingface.co/papers/1907.01341, equations 5, 7 and 11.
    """
    count = valid.flatten(1).sum(1)
    residual = (standardise(prediction, valid) - standardise(target, valid)) * valid
    loss = residual.abs().flatten(1).sum(1) / count.clamp(min=1)
    for scale in range(SSI_GRADIENT_SCALES):
        step = 2**scale
        loss = loss + SSI_GRADIENT_WEIGHT * mean_gradient(residual[:, ::step, ::step], valid[:, ::step, ::step])
    return loss * count


def standardise(values: Tensor, valid: Tensor) -> Tensor:
    """Shift `(B, H, W)` by each image's median and divide by its mean absolute deviation over the valid pixels."""
    count = valid.flatten(1).sum(1).clamp(min=1)[:, None, None]
    shift = median(values, valid)[:, None, None]
    deviation = (torch.where(valid, values, shift) - shift).abs().flatten(1).sum(1)[:, None, None] / count
    return (values - shift) / deviation.clamp(min=EPSILON)


def median(values: Tensor, valid: Tensor) -> Tensor:
    """Return the lower median of each image of `(B, H, W)` over its valid pixels, 0 where it has none: shape `(B,)`.

    Its gradient is shared evenly by the pixels that equal it, as that of `torch.median` over the whole of a tensor.
    """
    known = torch.where(valid, values.detach(), torch.nan).flatten(1)
    found = known.nanmedian(1).values
    if values.requires_grad:
        ties = known == found[:, None]
        mean = torch.where(ties, values.flatten(1), 0).sum(1) / ties.sum(1).clamp(min=1)
        found = found + (mean - mean.detach())
    return found.nan_to_num(posinf=torch.inf, neginf=-torch.inf)


def mean_gradient(residual: Tensor, valid: Tensor) -> Tensor:
    """Per image the mean over its valid pixels of the absolute differences to the right and lower neighbour."""
    along_x = (residual[:, :, 1:] - residual[:, :, :-1]).abs() * (valid[:, :, 1:] & valid[:, :, :-1])
    along_y = (residual[:, 1:] - residual[:, :-1]).abs() * (valid[:, 1:] & valid[:, :-1])
    return (along_x.flatten(1).sum(1) + along_y.flatten(1).sum(1)) / valid.flatten(1).sum(1).clamp(min=1)


def divisor(valid: Tensor, num_valid: Tensor | int | None) -> Tensor:
    """Return the number to divide a sum by, at least 1."""
    count = valid.sum() if num_valid is None else torch.as_tensor(num_valid, device=valid.device)
    return count.clamp(min=1)
