"""Losses on labels, averaged over the valid pixels of the *global* batch.

Every loss is a sum over the valid pixels of this batch divided by `num_valid`. Left out, `num_valid` is this batch's
own count, so the loss is the plain mean. A training loop that splits one optimiser step over micro-batches or
processes passes the count of the whole step; the parts then add up to exactly the loss of the undivided batch, which
means of means do not.

Shape letters: B batch, K classes, H and W label size, h and w prediction size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .lean_loss_depthseg import pixel_loss_sum

SILOG_VARIANCE_WEIGHT = 0.5
SSI_GRADIENT_WEIGHT = 0.5
SSI_GRADIENT_SCALES = 4
EPSILON = 1e-6


def valid_depth(labels: Tensor) -> Tensor:
    """Return where depth labels, in metres, are known: finite and above 0, as a boolean tensor of the same shape."""
    return torch.isfinite(labels) & (labels > 0)


def segmentation_loss(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, num_valid: Tensor | int | None = None
) -> Tensor:
    """Cross-entropy at the resolution of the labels: over a softmax, or of a sigmoid where there is one logit.

    Args:
        logits (`torch.Tensor` of shape `(B, K, h, w)`): Class scores; resized bilinearly to the labels.
        labels (`torch.LongTensor` of shape `(B, H, W)`): Class ids from 0 to K - 1, or `ignore_index`; with one logit
            0 is the background and 1 the class.
        ignore_index (`int`, *optional*, defaults to `255`): Pixels of this id do not count.
        num_valid (`torch.Tensor` or `int`, *optional*): Divisor; defaults to the valid pixels of this batch.

    Returns:
        `torch.Tensor` of shape `()`: float32; 0 with a gradient path where every pixel is ignored. It has no second
            derivative.

    Raises:
        ValueError: If an id lies outside the range (checked on the CPU, where it is cheap).
    """
    if labels.dim() != 3 or labels.shape[0] != logits.shape[0]:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; expected (batch, height, width) with a batch of "
            f"{logits.shape[0]}."
        )
    labels = labels.long()
    valid = labels != ignore_index
    if labels.device.type == "cpu":
        check_label_range(labels[valid], max(logits.shape[1], 2), ignore_index)
    if logits.shape[1] == 1:
        # A sigmoid is the softmax over its logit and 0; so no device takes an id of another class for background.
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return pixel_loss_sum(logits, labels, ignore_index=ignore_index).float() / divisor(valid, num_valid)


def classification_loss(logits: Tensor, labels: Tensor, num_valid: Tensor | int | None = None) -> Tensor:
    """Cross-entropy of one class per image.

    Args:
        logits (`torch.Tensor` of shape `(B, K)`): Class scores.
        labels (`torch.LongTensor` of shape `(B,)`): Class ids from 0 to K - 1.
        num_valid (`torch.Tensor` or `int`, *optional*): Divisor; defaults to the number of images.

    Returns:
        `torch.Tensor` of shape `()`: float32.

    Raises:
        ValueError: If the labels are not one per image, or an id is outside the range (checked on the CPU, where it
            is cheap).
    """
    if labels.shape != (len(logits),):
        raise ValueError(f"labels has shape {tuple(labels.shape)}; expected ({len(logits)},): one id per image.")
    num_labels = logits.shape[1]
    if labels.device.type == "cpu" and ((labels < 0) | (labels >= num_labels)).any():
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
    result = []
    for image, mask in zip(values, valid, strict=True):
        known = image[mask]
        shift = known.median() if known.numel() else image.sum() * 0
        scale = (known - shift).abs().mean() if known.numel() else image.sum() * 0
        result.append((image - shift) / scale.clamp(min=EPSILON))
    return torch.stack(result)


def mean_gradient(residual: Tensor, valid: Tensor) -> Tensor:
    """Per image the mean over its valid pixels of the absolute differences to the right and lower neighbour."""
    along_x = (residual[:, :, 1:] - residual[:, :, :-1]).abs() * (valid[:, :, 1:] & valid[:, :, :-1])
    along_y = (residual[:, 1:] - residual[:, :-1]).abs() * (valid[:, 1:] & valid[:, :-1])
    return (along_x.flatten(1).sum(1) + along_y.flatten(1).sum(1)) / valid.flatten(1).sum(1).clamp(min=1)


def divisor(valid: Tensor, num_valid: Tensor | int | None) -> Tensor:
    """Return the number to divide a sum by, at least 1."""
    count = valid.sum() if num_valid is None else torch.as_tensor(num_valid, device=valid.device)
    return count.clamp(min=1)
