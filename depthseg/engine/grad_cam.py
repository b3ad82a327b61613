"""Grad-CAM of a segmenter: where a shallow map speaks for what is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..metrics.boundaries import BoundaryAlignment
from .evaluation import evaluation_mode

if TYPE_CHECKING:
    from ..data import SampleDataset
    from ..models import DepthSegForSemanticSegmentation
    from ..models.encoders_base_depthseg import EncoderFeatures


def grad_cam(model: DepthSegForSemanticSegmentation, pixel_values: Tensor, level: int | None = None) -> Tensor:
    """Heat map of each image over one of the encoder's maps.

    The scalar is the sum, over all pixels, of the logit of the class that is predicted there; pixels are those of the
    logits. The weight of a channel is the mean over the map of the scalar's gradient, and the heat the positive part
    of the weighted sum of the channels.

    Parameters, their gradients and the modes (train or eval) of the model stay as they were; it is run in evaluation
    mode, so images do not depend on what else is in the batch. Frozen encoders work as well.

    Args:
        model: The segmenter.
        pixel_values: `(B, 3, H, W)` as its image processor makes them, on the model's device.
        level: Number of the encoder's map, shallow to deep, negative ones from the end. None = the shallowest that the
            logits are computed from: the first of every convolutional encoder, for the ResNet the stem at half
            resolution before its max-pool.

    Returns:
        float32 `(B, h, w)`, at least 0, at the size of the map; it covers the padded image.

    Raises:
        ValueError: There is no such map, or the logits are not computed from it.

    Source:
        Selvaraju et al. 2017, https://huggingface.co/papers/1610.02391, in the form of Lao et al. 2024,
        https://huggingface.co/papers/2203.13987, figure 6.
    """
    return _heat_and_features(model, pixel_values, level)[0]


def cam_boundary_alignment(
    model: DepthSegForSemanticSegmentation,
    processor: Any,
    dataset: SampleDataset,
    level: int | None = None,
    distance: int = 2,
) -> float | None:
    """How well the Grad-CAM of a model tells pixels near class boundaries from others: `BoundaryAlignment`.

    Args:
        model: The segmenter.
        processor: Its image processor.
        dataset: Samples; those without labels are passed over. The heat is resized, bilinearly, to their labels.
        level: As for `grad_cam`.
        distance: Rows and columns to the boundary, pixels of the labels.

    Returns:
        Mean over images of the area under the ROC curve; 0.5 = no relation, None = no image has a boundary.
    """
    meter = BoundaryAlignment(distance, model.config.semantic_loss_ignore_index)
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.labels is None:
            continue
        pixel_values = processor(images=[sample.image], return_tensors="pt").to(model.device)["pixel_values"]
        heat, features = _heat_and_features(model, pixel_values, level)
        heat = features.to_input(heat[:, None])
        heat = F.interpolate(heat, size=sample.labels.shape, mode="bilinear", align_corners=False)
        meter.update(heat[0, 0].cpu().numpy(), sample.labels)
    return meter.compute()


def _heat_and_features(
    model: DepthSegForSemanticSegmentation, pixel_values: Tensor, level: int | None
) -> tuple[Tensor, EncoderFeatures]:
    caught: list[EncoderFeatures] = []
    hook = model.encoder.register_forward_hook(lambda module, given, features: caught.append(features))
    try:
        with evaluation_mode(model), torch.enable_grad():
            # The image asks for a gradient, so that maps of a frozen encoder have one too.
            logits = model(pixel_values.detach().clone().requires_grad_()).logits
            # Of one class against a background the logit of the background is the negative one.
            predicted = logits.abs() if logits.shape[1] == 1 else logits.max(1).values
            gradients = torch.autograd.grad(predicted.sum(), caught[0].maps, allow_unused=True)
    finally:
        hook.remove()
    level = _level(gradients, level)
    weights = gradients[level].float().mean((2, 3), keepdim=True)
    return (weights * caught[0].maps[level].detach().float()).sum(1).relu(), caught[0]


def _level(gradients: tuple[Tensor | None, ...], level: int | None) -> int:
    """The map that was asked for, or the first with a gradient."""
    reached = [number for number, gradient in enumerate(gradients) if gradient is not None]
    if level is None:
        return reached[0]
    if not -len(gradients) <= level < len(gradients):
        raise ValueError(f"level={level} is out of range; the encoder has {len(gradients)} maps, 0 the shallowest.")
    level %= len(gradients)
    if level not in reached:
        raise ValueError(
            f"The logits are not computed from map {level} of the encoder; with this head they are from {reached}."
        )
    return level
