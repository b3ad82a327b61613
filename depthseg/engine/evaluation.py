"""Scoring a model on a data set, image by image, shared out over processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ..metrics import ConfusionMatrix, DepthErrors, segmentation_scores
from .batches import target_of
from .predict import predict_maps

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from ..data import SampleDataset

TRUTHS = {"segmentation": "labels", "depth": "depth"}
"""Task -> the attribute of a sample that it is scored on."""

RELATIVE_ALIGNMENTS = {"relative": "scale_shift", "relative_inverse": "scale_shift_inverse"}
"""Depth type without a unit -> the alignment that can score it."""


def evaluate_model(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    task: str,
    accelerator: Accelerator | None = None,
    depth_errors: DepthErrors | None = None,
) -> dict[str, Any]:
    """Score a model in float32 at the own size of every image.

    Images go through the network one at a time, so they may differ in size and the scores do not depend on how they
    are batched or shared out.

    Args:
        model: Task model of depthseg; left in the mode (train or eval) it came in.
        processor: Its image processor, which resizes the image and brings the prediction back to the truth's size.
        dataset: What to score on; every sample needs labels, or some of them depth.
        task: `segmentation` or `depth`.
        accelerator: Shares the images out over its processes; None = this process does all.
        depth_errors: How depth is measured; None = `default_depth_errors(model)`.

    Returns:
        Segmentation: `segmentation_scores` of the whole data set. Depth: `DepthErrors.compute()`, with the stamp of
        its alignment.

    Raises:
        ValueError: An empty data set, a sample without truth, or a model of another number of classes.
    """
    if len(dataset) == 0:
        raise ValueError("The data set to score on is empty.")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    meter = _class_meter(model, dataset) if task == "segmentation" else depth_errors or default_depth_errors(model)
    was_training = model.training
    model.eval()
    for index in range(rank, len(dataset), world):
        sample = dataset[index]
        if task == "depth" and sample.depth is None:
            meter.leave_out()
            continue
        target = torch.from_numpy(target_of(sample, TRUTHS[task]))
        labels, depth = predict_maps(model, processor, sample.image)
        meter.update(torch.from_numpy(labels if task == "segmentation" else depth), target)
    model.train(was_training)
    if task == "segmentation":
        return segmentation_scores(total(meter.matrix, accelerator), _class_names(model))
    meter.state = total(meter.state, accelerator)
    return meter.compute()


def default_depth_errors(model: nn.Module) -> DepthErrors:
    """Measure metric depth as it is, relative (inverse) depth after a fit of scale and shift; in the model's range."""
    depth_type = model.config.depth_type
    return DepthErrors(
        alignment=RELATIVE_ALIGNMENTS.get(depth_type, "none"),
        min_depth=model.config.min_depth,
        max_depth=model.config.max_depth,
        inverse=depth_type == "relative_inverse",
        relative=depth_type == "relative",
    )


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


def _class_meter(model: nn.Module, dataset: SampleDataset) -> ConfusionMatrix:
    space, count = dataset.label_space, model.config.num_labels
    if space is None:
        raise ValueError("The data set has no label space, so a segmentation cannot be scored on it.")
    if space.num_labels != count:
        raise ValueError(
            f"The model knows {count} classes, but label space {space.name!r} of the data set has {space.num_labels}."
        )
    return ConfusionMatrix(count, space.ignore_index)


def _class_names(model: nn.Module) -> list[str]:
    names = [name for _, name in sorted(model.config.id2label.items())]
    return names[1:] if model.config.one_class else names


def total(counts: torch.Tensor, accelerator: Accelerator | None) -> torch.Tensor:
    """Sum a tensor over the processes, on the CPU."""
    if accelerator is None or accelerator.num_processes == 1:
        return counts
    return accelerator.reduce(counts.to(accelerator.device), reduction="sum").cpu()
