"""A segmenter on other images than those of its test: corrupted ones, other films, and those it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.corruptions import CORRUPTIONS, STRENGTHS, CorruptedImages
from ..data.subsets import Subset
from .evaluation import class_meter, evaluation_mode, shared_out
from .predict import predict_maps

if TYPE_CHECKING:
    from ..data import SampleDataset
    from ..models import DepthSegForSemanticSegmentation

TRAINED_ON = "train"
"""The group of training images."""

CLEAN = "clean"
"""The condition that all others are compared with."""

EVERY = 5
"""One of so many test images is corrupted, as twelve conditions cost twelve evaluations."""


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Confusion matrices of images.

    Attributes:
        names: Of the N images.
        confusion: int64 `(N, K, K)`, rows = truth, columns = prediction.
    """

    names: Sequence[str]
    confusion: np.ndarray


def corrupted_counts(
    model: DepthSegForSemanticSegmentation,
    processor: Any,
    dataset: SampleDataset,
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    strengths: Sequence[int] = STRENGTHS,
    every: int = EVERY,
    others: Mapping[str, SampleDataset] | None = None,
) -> dict[str, ImageCounts]:
    """Evaluate a segmenter on clear images, on the same ones corrupted, and on other data sets.

    Args:
        model: The segmenter; left in the mode (train or eval) it came in.
        processor: Its image processor.
        dataset: Images; those without labels are passed over. Number 0, `every`, 2 `every`, ... in the order of the
            data set are used, the same for all conditions and networks.
        corruptions: Some of `depthseg.data.corruptions.CORRUPTIONS`.
        strengths: Some of 1 to 3.
        every: Of so many images one is used; 1 = all.
        others: Further data sets of the same classes by name, such as another film; all their images are used.

    Returns:
        By condition: `clean`, `noise 1` and so on, and the names of `others`.

    Raises:
        ValueError: No image with labels, one that is not RGB of 8 bits, or other classes than the model's.
    """
    clear = Subset(dataset, list(dataset.names)[::every])
    conditions: dict[str, SampleDataset] = {CLEAN: clear}
    for kind in corruptions:
        conditions |= {condition(kind, strength): CorruptedImages(clear, kind, strength) for strength in strengths}
    conditions |= others or {}
    return {name: image_counts(model, processor, images) for name, images in conditions.items()}


def training_counts(
    model: DepthSegForSemanticSegmentation,
    processor: Any,
    dataset: SampleDataset,
    *,
    images: SampleDataset | None = None,
) -> dict[str, ImageCounts] | None:
    """Evaluate a segmenter on its training images as on any others: whole, and without augmentation.

    Args:
        model: The segmenter; left in the mode (train or eval) it came in.
        processor: Its image processor.
        dataset: The test images, which are not used.
        images: The training images; None = they are not known, and neither is the measure.
    """
    return None if images is None else {TRAINED_ON: image_counts(model, processor, images)}


def condition(kind: str, strength: int) -> str:
    """The name of a corruption at a strength among the conditions."""
    return f"{kind} {strength}"


def image_counts(model: DepthSegForSemanticSegmentation, processor: Any, dataset: SampleDataset) -> ImageCounts:
    """The confusion matrices of the labelled images of a data set.

    Raises:
        ValueError: None of them has labels, or the classes are others than the model's.
    """
    meter, names, states = class_meter(model, dataset), [], []
    with evaluation_mode(model):
        for sample in shared_out(dataset):
            if sample.labels is not None:
                names.append(sample.name)
                states.append(meter.state_of(predict_maps(model, processor, sample.image)[0], sample.labels))
    if not names:
        raise ValueError("None of the images to evaluate has labels; of a measure with `every`, take more (every=1).")
    return ImageCounts(names, torch.stack(states).numpy())
