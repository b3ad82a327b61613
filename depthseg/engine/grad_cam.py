"""Grad-CAM of a segmenter: where a shallow map speaks for what is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..metrics.boundaries import BoundaryAlignment
from .evaluation import evaluation_mode

if TYPE_CHECKING:
    import numpy as np

    from ..data import SampleDataset
    from ..models import DepthSegForSemanticSegmentation
    from ..models.encoders_base_depthseg import EncoderFeatures

NEAR_BOUNDARY = 2
"""Rows and columns from a pixel near a class boundary to the boundary."""


def grad_cam(model: DepthSegForSemanticSegmentation, pixel_values: Tensor) -> Tensor:
    """Heat map of each image over the shallowest of the encoder's maps that the logits are computed from.

    That is the first map of every convolutional encoder, for the ResNet the stem at half resolution before its
    max-pool. The scalar is the sum, over all pixels of the logits, of the logit of the class that is predicted there.
    The weight of a channel is the mean over the map of the scalar's gradient, and the heat the positive part of the
    weighted sum of the channels.

    Parameters, their gradients and the modes (train or eval) of the model stay as they were; it is run in evaluation
    mode, so images do not depend on what else is in the batch. Frozen encoders work as well.

    Args:
        model: The segmenter.
        pixel_values: `(B, 3, H, W)` as its image processor makes them, on the model's device.

    Returns:
        float32 `(B, h, w)`, at least 0, at the size of the map; it covers the padded image.

    Source:
        Selvaraju et al. 2017, https://huggingface.co/papers/1610.02391, in the form of Lao et al. 2024,
        https://huggingface.co/papers/2203.13987, figure 6.
    """
    return _heat_and_features(model, pixel_values)[0]


def cam_boundary_alignment(
    model: DepthSegForSemanticSegmentation, processor: Any, dataset: SampleDataset
) -> float | None:
    """How well the Grad-CAM of a model separates pixels near class boundaries from others: `BoundaryAlignment`.

    Args:
        model: The segmenter.
        processor: Its image processor.
        dataset: Samples; those without labels are skipped. The heat is resized, bilinearly, to their labels.

    Returns:
        Mean over images of the area under the ROC curve; 0.5 = no relation, None = no image has a boundary.
    """
    meter = BoundaryAlignment(NEAR_BOUNDARY, model.config.semantic_loss_ignore_index)
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.labels is None:
            continue
        meter.update(heat_on_input(model, processor, sample.image, sample.labels.shape), sample.labels)
    return meter.compute()


def heat_on_input(
    model: DepthSegForSemanticSegmentation, processor: Any, image: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """The Grad-CAM of one image, resized bilinearly.

    Args:
        model: The segmenter.
        processor: Its image processor.
        image: As a sample holds it.
        size: Height and width of the result.

    Returns:
        float32 of this size, at least 0; without the padding of the image.
    """
    pixel_values = processor(images=[image], return_tensors="pt").to(model.device)["pixel_values"]
    heat, features = _heat_and_features(model, pixel_values)
    heat = F.interpolate(features.to_input(heat[:, None]), size=size, mode="bilinear", align_corners=False)
    return heat[0, 0].cpu().numpy()


def _heat_and_features(model: DepthSegForSemanticSegmentation, pixel_values: Tensor) -> tuple[Tensor, EncoderFeatures]:
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
    # Maps that the head does not use have no gradient.
    gradient, features = next(pair for pair in zip(gradients, caught[0].maps, strict=True) if pair[0] is not None)
    weights = gradient.float().mean((2, 3), keepdim=True)
    return (weights * features.detach().float()).sum(1).relu(), caught[0]
