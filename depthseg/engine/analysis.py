"""Why a fine-tuned model is better, in numbers: one call on a model and a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..choices import did_you_mean
from ..metrics.blocks import mean_iou
from ..metrics.boundaries import BoundaryIou
from ..metrics.code_length import code_length
from ..metrics.groups import IouByDepth, RecallBySize
from .cam_images import CamImages, cam_images
from .evaluation import evaluate_images, evaluation_mode
from .grad_cam import cam_boundary_alignment
from .robustness import ImageCounts, corrupted_counts, training_counts

if TYPE_CHECKING:
    from ..data import SampleDataset
    from ..models import DepthSegForSemanticSegmentation

Value = float | None | dict[str, float | None]


def measure_code_length(
    model: DepthSegForSemanticSegmentation, processor: Any, dataset: SampleDataset
) -> dict[str, float]:
    """`bits_per_pixel` of the labels given the features of the encoder, and `uniform_bits_per_pixel` given nothing.

    See `depthseg.metrics.code_length.code_length` and `frozen_features`.
    """
    features, labels = frozen_features(model, processor, dataset)
    space = dataset.label_space
    cost = code_length(features, labels, len(space.classes), ignore_index=space.ignore_index)
    return {name: getattr(cost, name) for name in ("bits_per_pixel", "uniform_bits_per_pixel")}


@dataclass(frozen=True)
class Measure:
    """One measure of a segmenter.

    Attributes:
        title: Its name in reports.
        unit: Unit of its numbers in reports.
        factor: From its values to that unit.
        digits: Digits after the decimal point.
        compute: Takes model, image processor and data set, and perhaps options by name. Confusion matrices by group
            stand for their mean IoU. None = it is read off predicted label maps, all of which cost one prediction an
            image.
    """

    title: str
    unit: str = "points"
    factor: float = 100.0
    digits: int = 1
    compute: Callable[..., Value | dict[str, ImageCounts] | CamImages] | None = None


MEASURES = {
    "iou_by_depth": Measure("Mean IoU by depth"),
    "recall_by_scale": Measure("Recall by object size"),
    "boundary_iou": Measure("Boundary IoU"),
    "boundary_iou_by_edge": Measure("Boundary IoU by edge type"),
    "cam_boundary_alignment": Measure(
        *("Alignment of Grad-CAM with class boundaries", "AUROC, 0.5 = no relation", 1, 3), cam_boundary_alignment
    ),
    "grad_cam": Measure("Grad-CAM and predictions of some test images", compute=cam_images),
    "code_length": Measure(
        *("Code length of the labels given the features", "bits per pixel, lower is better", 1, 3), measure_code_length
    ),
    "robustness": Measure("Mean IoU on corrupted images", compute=corrupted_counts),
    "training_images": Measure("Mean IoU on the training images", compute=training_counts),
}
"""Name -> measure. Of one class against a background those of predictions are of the class alone."""


def measure_model(
    model: DepthSegForSemanticSegmentation,
    processor: Any,
    dataset: SampleDataset,
    names: Sequence[str] = tuple(MEASURES),
    predictions: Iterable[np.ndarray] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    kept: dict[str, np.ndarray] | None = None,
) -> dict[str, Value]:
    """Measure a segmenter on a data set, image by image at the labels' own size.

    Args:
        model: The segmenter; left in the mode (train or eval) it came in.
        processor: Its image processor.
        dataset: Samples; those without labels are passed over.
        names: Which of `MEASURES`.
        predictions: Predicted label maps, one per sample, where they are known already.
        options: Those of measures, by name.
        kept: Receives the matrices of measures that count: `MEASURE/GROUP` int64 `(N, K, K)`, and
            `MEASURE/GROUP/names`; and the images of `grad_cam`, see `CamImages`.

    Returns:
        A number, or numbers by group, for each name; None where there was nothing to measure, such as depth edges
        without any known depth, and for images. Ready for JSON.

    Raises:
        ValueError: An unknown measure, a label space of another size than the model's, or no labelled sample.
    """
    require_measures(names)
    space = dataset.label_space
    if space is None or space.num_labels != model.config.num_labels:
        classes = "no label space" if space is None else f"{space.num_labels} classes"
        raise ValueError(f"The data set has {classes}, the model {model.config.num_labels} classes; they must agree.")
    found: dict[str, Value] = {}
    computed = {name: compute for name in names if (compute := MEASURES[name].compute) is not None}
    if not computed.keys() >= set(names):
        if predictions is None:
            predictions = (labels for labels, _ in evaluate_images(model, processor, dataset, {}))
        found |= _measure_predictions(predictions, dataset)
    for name, compute in computed.items():
        value = compute(model, processor, dataset, **(options or {}).get(name, {}))
        found[name], arrays = _score_and_arrays(value)
        if kept is not None:
            kept |= {f"{name}/{part}": array for part, array in arrays.items()}
    return {name: found[name] for name in names}


def require_measures(names: Iterable[str]) -> None:
    """Raise a ValueError for a name that is not in `MEASURES`."""
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        hint = did_you_mean(unknown[0], MEASURES)
        raise ValueError(f"There is no measure {', '.join(unknown)}.{hint} There are {', '.join(MEASURES)}.")


def frozen_features(
    model: DepthSegForSemanticSegmentation, processor: Any, dataset: SampleDataset, level: int | None = None
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """One map of the encoder and the labels of its cells, for every labelled image.

    The labels come to the map and not the map to the labels: a cell has the label of the pixel under its middle
    (nearest, never a mixture). Cells whose middle lies in the padding have the ignored label.

    Args:
        model: The segmenter; left in the mode (train or eval) it came in.
        processor: Its image processor.
        dataset: Samples; those without labels are passed over.
        level: Number of the encoder's map, shallow to deep, negative ones from the end. None = the middle one, of
            stride 8 for a ResNet: deep enough for meaning and fine enough for boundaries.

    Returns:
        Per image float32 `(C, h, w)` and int64 `(h, w)`, on the CPU.

    Raises:
        ValueError: There is no such map, or no sample has labels.
    """
    maps_of_encoder = len(model.encoder.channels)
    level = maps_of_encoder // 2 if level is None else level
    if not -maps_of_encoder <= level < maps_of_encoder:
        raise ValueError(f"level={level} is out of range; the encoder has {maps_of_encoder} maps, 0 the shallowest.")
    features, labels = [], []
    with evaluation_mode(model), torch.no_grad():
        for index in range(len(dataset)):
            sample = dataset[index]
            if sample.labels is None:
                continue
            encoded = model.encode(processor(images=[sample.image], return_tensors="pt").to(model.device).pixel_values)
            features.append(encoded.maps[level][0].float().cpu())
            cells, sizes = tuple(features[-1].shape[1:]), (encoded.input_size, encoded.padded_size)
            ids = labels_of_cells(sample.labels, cells, *sizes, model.config.semantic_loss_ignore_index)
            labels.append(torch.from_numpy(ids))
    if not labels:
        raise ValueError("No sample of the data set has labels, so there is nothing to measure features against.")
    return features, labels


def labels_of_cells(
    labels: np.ndarray,
    cells: tuple[int, int],
    input_size: tuple[int, int],
    padded_size: tuple[int, int],
    ignore_index: int = 255,
) -> np.ndarray:
    """Label under the middle of each cell of a map that covers the padded image.

    Args:
        labels: Integer ids `(H, W)`, of the whole image at any size.
        cells: Height and width of the map.
        input_size: Height and width of the image that was encoded.
        padded_size: The same after padding at the right and bottom.
        ignore_index: Label of the cells in the padding.

    Returns:
        int64 of size `cells`.
    """
    inside, nearest = [], []
    for size, count, seen, padded in zip(labels.shape, cells, input_size, padded_size, strict=True):
        # In whole numbers: middle of a cell over the height or width of the image, times that of the labels.
        places = (2 * np.arange(count) + 1) * padded * size // (2 * count * seen)
        inside.append(places < size)
        nearest.append(np.minimum(places, size - 1))
    chosen = labels[np.ix_(*nearest)].astype(np.int64)
    return np.where(np.logical_and.outer(*inside), chosen, ignore_index)


def _score_and_arrays(value: Any) -> tuple[Value, dict[str, np.ndarray]]:
    """What a measure found, and what is kept of it: of counts the mean IoU of all images of each group together."""
    if isinstance(value, CamImages):
        return None, value.arrays()
    if not isinstance(value, dict) or not any(isinstance(images, ImageCounts) for images in value.values()):
        return value, {}
    scores, arrays = {}, {}
    for group, images in value.items():
        scores[group] = float(mean_iou(images.confusion.sum(0))) if images.confusion.any() else None
        arrays |= {group: images.confusion, f"{group}/names": np.array(images.names)}
    return scores, arrays


def _measure_predictions(predictions: Iterable[np.ndarray], dataset: SampleDataset) -> dict[str, Value]:
    """All measures that are read off label maps; see their classes."""
    settings = (dataset.label_space.num_labels, dataset.label_space.ignore_index)
    by_depth, by_size, boundary = IouByDepth(*settings), RecallBySize(*settings), BoundaryIou(*settings)
    labelled = depth_known = False
    for index, prediction in enumerate(predictions):
        sample = dataset[index]
        if sample.labels is None:
            continue
        labelled = True
        by_size.update(prediction, sample.labels)
        boundary.update(prediction, sample.labels, sample.depth)
        if sample.depth is not None:
            depth_known = depth_known or bool((sample.depth > 0).any())
            by_depth.update(prediction, sample.labels, sample.depth)
    if not labelled:
        raise ValueError("No sample of the data set has labels, so there is nothing to measure.")
    scores = boundary.compute()
    found = {"recall_by_scale": by_size.compute(), "boundary_iou": scores.pop("all")}
    of_depth = {"iou_by_depth": by_depth.compute(), "boundary_iou_by_edge": scores}
    return found | (of_depth if depth_known else dict.fromkeys(of_depth))
