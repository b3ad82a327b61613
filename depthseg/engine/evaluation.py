"""Evaluating a model on a data set, image by image, shared out over processes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from ..metrics import ConfusionMatrix, DepthErrors, Meter
from ..metrics.stamp import Stamp, file_ids_of, label_space_hash
from ..models import DepthSegForSemanticSegmentation
from .batches import target_of
from .predict import predict_maps
from .stopping import EvaluationStopped

if TYPE_CHECKING:
    import numpy as np
    from accelerate import Accelerator
    from torch import nn

    from ..data import LabelSpace, Sample, SampleDataset
    from .inference import Inference
    from .stopping import StopVotes

logger = logging.getLogger(__name__)

RELATIVE_ALIGNMENTS = {"relative": "scale_shift", "relative_inverse": "scale_shift_inverse"}
"""Depth type without a unit -> the alignment that can score it."""


def evaluate_images(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    meters: Mapping[str, Meter],
    accelerator: Accelerator | None = None,
    stopping: StopVotes | None = None,
) -> Iterator[tuple[np.ndarray | None, dict[str, torch.Tensor]]]:
    """Predict every image once, in float32 at its own size, and measure the prediction.

    Images go through the network one at a time, so they may differ in size and the scores do not depend on how they
    are batched or shared out.

    Args:
        model: Task model of depthseg; at the end in the mode (train or eval) it came in.
        processor: Its image processor, which resizes the image and brings the prediction back to the truth's size.
        dataset: What to evaluate on.
        meters: By task; they stay as they are. For `segmentation` every sample needs labels, for `depth` some depth.
        accelerator: Shares the images out over its processes, each of which gets its own; None = this process does
            all.
        stopping: As in `shared_out`.

    Yields:
        For each image, in the order of the data set: its predicted class ids uint8 `(H, W)`, None where the model
        predicts none; and by task the state of the meter for this image alone. States add up to that of the data set.

    Raises:
        ValueError: An empty data set, or a sample without labels.
    """
    with evaluation_mode(model):
        for sample in shared_out(dataset, accelerator, stopping):
            predicted = dict.fromkeys(("segmentation", "depth"))
            truths = {task: sample.depth if task == "depth" else target_of(sample, "labels") for task in meters}
            # Nobody asks for the prediction where only depth is measured, and this image has none.
            if not meters or any(truth is not None for truth in truths.values()):
                predicted = dict(zip(predicted, predict_maps(model, processor, sample.image), strict=True))
            states = {task: meter.state_of(predicted[task], truths[task]) for task, meter in meters.items()}
            yield predicted["segmentation"], states


def shared_out(
    dataset: SampleDataset, accelerator: Accelerator | None = None, stopping: StopVotes | None = None
) -> Iterator[Sample]:
    """Samples of this process: of N processes, number n reads sample n and every Nth after it.

    Args:
        dataset: The data set.
        accelerator: Its processes share them out; None = this process takes all.
        stopping: Knows whether a run was asked to stop; all processes then read to the end together.

    Raises:
        ValueError: The data set is empty.
        EvaluationStopped: The run was asked to stop: a process that was leaves at its next sample, the others after
            their last one.
    """
    if len(dataset) == 0:
        raise ValueError("The data set to score on is empty.")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    for index in range(rank, len(dataset), world):
        if stopping is not None and stopping.received:
            break
        yield dataset[index]
    # Before anything is exchanged: of processes that exchange, all have to come.
    if stopping is not None and stopping.agreed():
        raise EvaluationStopped


def in_order(items: list[Any], accelerator: Accelerator | None = None) -> list[Any]:
    """What the processes have found about the samples that `shared_out` gave them, in the order of the data set."""
    if accelerator is None or accelerator.num_processes == 1:
        return items
    found = gather_object([items])
    return [found[index % len(found)][index // len(found)] for index in range(sum(map(len, found)))]


def sum_up(
    meters: Mapping[str, Meter], states: Iterable[Mapping[str, torch.Tensor]], accelerator: Accelerator | None = None
) -> dict[str, Any]:
    """Scores of a data set from the states of its images, which the meters take up; arguments as of `add_up`."""
    add_up(meters, states, accelerator)
    return {name: score for meter in meters.values() for name, score in meter.compute().items()}


def add_up(
    meters: Mapping[str, Meter], states: Iterable[Mapping[str, torch.Tensor]], accelerator: Accelerator | None = None
) -> None:
    """Bring the states of the images of a data set into its meters.

    Args:
        meters: By task.
        states: Of this process, from `evaluate_images`, by task of any shape.
        accelerator: Sums over its processes.
    """
    # Floating-point sums depend on the order, so these are added in that of the data set, however many processes
    # there are. Counts do not, and matrices of many classes are too large to be kept.
    floating = {task: [] for task, meter in meters.items() if meter.state.is_floating_point()}
    for image in states:
        for task, meter in meters.items():
            if task in floating:
                floating[task].append(image[task])
            else:
                meter.state = meter.state + image[task]
    for task, meter in meters.items():
        if task in floating:
            meter.state = sum(in_order(floating[task], accelerator), meter.state)
        else:
            meter.state = total(meter.state, accelerator)


def evaluate_model(
    model: nn.Module,
    processor: Any,
    dataset: SampleDataset,
    task: str,
    accelerator: Accelerator | None = None,
    depth_errors: DepthErrors | None = None,
    stopping: StopVotes | None = None,
) -> dict[str, Any]:
    """Scores of one task on a whole data set, in all processes; arguments and errors as of `evaluate_images`.

    Args:
        model: The model.
        processor: Its image processor.
        dataset: What to evaluate on.
        task: `segmentation` or `depth`.
        accelerator: Shares the images out.
        depth_errors: How depth is measured; None = `default_depth_errors(model)`.
        stopping: As in `shared_out`.
    """
    meter = class_meter(model, dataset) if task == "segmentation" else depth_errors or default_depth_errors(model)
    images = evaluate_images(model, processor, dataset, {task: meter}, accelerator, stopping)
    scores = sum_up({task: meter}, (states for _, states in images), accelerator)
    return scores | ({"stamp": stamp_of(dataset.label_space).to_dict()} if task == "segmentation" else {})


def stamp_of(space: LabelSpace, how: Inference | None = None) -> Stamp:
    """The stamp of scores at the size of each label map, one matrix over the data set: the protocol `standard`.

    Args:
        space: The classes that are compared: those of the labels, because a model may call them otherwise.
        how: Windows, scales and flip; None = the whole image once, as in training.
    """
    parts = {name: getattr(how, name) for name in ("window", "stride", "scales", "flip")} if how else {}
    return Stamp(label_space_hash(space.id2label, file_ids_of(space)), space.ignore_index, **parts)


def depth_meter(model: nn.Module, dataset: SampleDataset, **protocol: Any) -> DepthErrors | None:
    """The meter of depth, if the model predicts it and, beside labels, the first sample knows it.

    Args:
        model: Segmenter or depth model of depthseg.
        dataset: What to evaluate on.
        **protocol: As in `default_depth_errors`.
    """
    if isinstance(model, DepthSegForSemanticSegmentation):
        known = model.config.keep_depth and len(dataset) > 0 and dataset[0].depth is not None
        return default_depth_errors(model, **protocol) if known else None
    return default_depth_errors(model, **protocol)


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
    _compare_names(names, space)
    return ConfusionMatrix(space.num_labels, space.ignore_index, names[1:] if config.one_class else names)


def _compare_names(names: Sequence[str], space: LabelSpace) -> None:
    """Say where the model and the data set call a class differently, and refuse the same classes in another order."""
    differing = [
        f"{index} is {ours!r} of the model and {theirs!r} of the data set"
        for index, (ours, theirs) in enumerate(zip(names, space.classes, strict=True))
        if ours != theirs
    ]
    if not differing or all(name == f"LABEL_{index}" for index, name in enumerate(names)):
        return
    shown = "; ".join(differing[:3]) + ("; ..." if len(differing) > 3 else "")
    if sorted(names) == sorted(space.classes):
        raise ValueError(
            f"The model and label space {space.name!r} of the data set have the same classes in another order: "
            f"{shown}. Bring the class names of the data into the order of the model, or translate its ids with the "
            "option label_map."
        )
    logger.warning("Class names differ: %s. Scores carry the names of the model.", shown)


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
    # Only NaN differs from itself.
    return {
        name: json_scores(value) if isinstance(value, dict) else value if value == value else None
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
