"""Evaluating a model on a data set, image by image, shared out over processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..metrics import ConfusionMatrix, DepthErrors, Meter
from ..models import DepthSegForSemanticSegmentation
from .batches import target_of
from .predict import predict_maps

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from ..data import Sample, SampleDataset

RELATIVE_ALIGNMENTS = {"relative": "scale_shift", "relative_inverse": "scale_shift_inverse"}
"""Depth type without a unit -> the alignment that can score it."""


@dataclass(frozen=True, eq=False)
class EvaluatedImage:
    """What `evaluate_images` finds for one image.

    Attributes:
        sample: The image and its ground truth.
        labels: Predicted class ids uint8 `(H, W)`; None where the model predicts none.
        states: Task -> the state of its meter for this image alone, see `depthseg.metrics.Meter`.
    """

    sample: Sample
    labels: np.ndarray | None
    states: dict[str, torch.Tensor]


def evaluate_images(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    meters: Mapping[str, Meter],
    accelerator: Accelerator | None = None,
) -> Iterator[EvaluatedImage]:
    """Predict every image once, in float32 at its own size, and measure the prediction.

    Images go through the network one at a time, so they may differ in size and the scores do not depend on how they
    are batched or shared out. The sum of the states is that of the data set.

    Args:
        model: Task model of depthseg; at the end in the mode (train or eval) it came in.
        processor: Its image processor, which resizes the image and brings the prediction back to the truth's size.
        dataset: What to evaluate on.
        meters: By task, `segmentation` or `depth`; they stay as they are. For `segmentation` every sample needs
            labels.
        accelerator: Shares the images out over its processes, each of which gets its own; None = this process does
            all.

    Raises:
        ValueError: An empty data set, or a sample without labels.
    """
    if len(dataset) == 0:
        raise ValueError("The data set to score on is empty.")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    with evaluation_mode(model):
        for index in range(rank, len(dataset), world):
            sample = dataset[index]
            truths = {task: sample.depth if task == "depth" else target_of(sample, "labels") for task in meters}
            # Without any ground truth there is nothing to predict for, as long as nobody asks for the labels.
            found = dict.fromkeys(("segmentation", "depth"))
            if not meters or any(truth is not None for truth in truths.values()):
                found = dict(zip(found, predict_maps(model, processor, sample.image), strict=True))
            states = {task: meter.state_of(found[task], truths[task]) for task, meter in meters.items()}
            yield EvaluatedImage(sample, found["segmentation"], states)


def evaluate_model(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    task: str,
    accelerator: Accelerator | None = None,
    depth_errors: DepthErrors | None = None,
) -> dict[str, Any]:
    """Scores of a model on a whole data set.

    Args:
        model: As in `evaluate_images`.
        processor: As there.
        dataset: What to evaluate on; every sample needs labels, or some of them depth.
        task: `segmentation` or `depth`.
        accelerator: Shares the images out over its processes, all of which get the scores; None = this process does
            all.
        depth_errors: How depth is measured; None = `default_depth_errors(model)`.

    Returns:
        Segmentation: `segmentation_scores` of the whole data set. Depth: `DepthErrors.compute()`, with the stamp of
        its alignment.

    Raises:
        ValueError: An empty data set, a sample without truth, or a model of another number of classes.
    """
    meter = class_meter(model, dataset) if task == "segmentation" else depth_errors or default_depth_errors(model)
    images = evaluate_images(model, processor, dataset, {task: meter}, accelerator)
    return sum_up({task: meter}, (image.states for image in images), accelerator)


def sum_up(
    meters: Mapping[str, Meter], states: Iterable[Mapping[str, torch.Tensor]], accelerator: Accelerator | None = None
) -> dict[str, Any]:
    """Scores of a data set from the states of its images.

    Args:
        meters: By task; they take up the images.
        states: `EvaluatedImage.states`, in the order of the data set.
        accelerator: Sums over its processes; None = the states are those of all images.

    Raises:
        ValueError: No image could be evaluated.
    """
    # One by one: floating-point sums depend on the order, and matrices of many classes are large.
    for image in states:
        for task, meter in meters.items():
            meter.state = meter.state + image[task]
    scores: dict[str, Any] = {}
    for meter in meters.values():
        meter.state = total(meter.state, accelerator)
        scores |= meter.compute()
    return scores


def meters_of(model: nn.Module, dataset: SampleDataset, **protocol: Any) -> dict[str, Meter]:
    """The meters of all that a model predicts and a data set knows, by task.

    Args:
        model: Segmenter or depth model of depthseg.
        dataset: What to evaluate on; its first sample tells whether a segmenter's depth can be evaluated as well.
        **protocol: As in `default_depth_errors`.
    """
    if not isinstance(model, DepthSegForSemanticSegmentation):
        return {"depth": default_depth_errors(model, **protocol)}
    joint = model.config.keep_depth and len(dataset) > 0 and dataset[0].depth is not None
    depth = {"depth": default_depth_errors(model, **protocol)} if joint else {}
    return {"segmentation": class_meter(model, dataset)} | depth


def class_meter(model: nn.Module, dataset: SampleDataset) -> ConfusionMatrix:
    """An empty confusion matrix for the classes of a model.

    Raises:
        ValueError: The data set has no classes, or another number of them.
    """
    space, config = dataset.label_space, model.config
    if space is None:
        raise ValueError("The data set has no label space, so a segmentation cannot be scored on it.")
    if space.num_labels != config.num_labels:
        raise ValueError(
            f"The model knows {config.num_labels} classes, but label space {space.name!r} of the data set has "
            f"{space.num_labels}."
        )
    names = [name for _, name in sorted(config.id2label.items())]
    return ConfusionMatrix(space.num_labels, space.ignore_index, names[1:] if config.one_class else names)


def default_depth_errors(model: nn.Module, **protocol: Any) -> DepthErrors:
    """Measure metric depth as it is, relative (inverse) depth after a fit of scale and shift; in the model's range.

    Args:
        model: Depth model, or segmenter that also predicts depth.
        **protocol: Keyword arguments of `DepthErrors` that differ; None = the default.
    """
    depth_type = model.config.depth_type
    default = {
        "alignment": RELATIVE_ALIGNMENTS.get(depth_type, "none"),
        "min_depth": model.config.min_depth,
        "max_depth": model.config.max_depth,
        "inverse": depth_type == "relative_inverse",
        "relative": depth_type == "relative",
    }
    return DepthErrors(**default | {name: value for name, value in protocol.items() if value is not None})


def json_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores as they are written to files: JSON knows no NaN, so the IoU of an absent class becomes null."""
    return {
        name: json_scores(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and math.isnan(value)
        else value
        for name, value in scores.items()
    }


def total(counts: torch.Tensor, accelerator: Accelerator | None) -> torch.Tensor:
    """Sum a tensor over the processes, on the CPU."""
    if accelerator is None or accelerator.num_processes == 1:
        return counts
    return accelerator.reduce(counts.to(accelerator.device), reduction="sum").cpu()


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module gets its own mode back, those that were set apart from the others included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
