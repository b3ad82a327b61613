"""The panel of a run: input, depth, prediction and truth of a few images, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.label_spaces import LabelSpace, default_palette
from ..data.subsets import evenly_spaced
from ..models import DepthSegForSemanticSegmentation
from .evaluation import evaluation_mode
from .predict import predict_maps
from .prediction_files import shown_image
from .report import write_panel
from .visualization import colourise_depth, colourise_labels, colourise_predicted_depth, legend_of

if TYPE_CHECKING:
    from torch import nn

    from ..data import SampleDataset

NUM_ROWS = 4


def write_prediction_panel(path: Path, model: nn.Module, processor: Any, dataset: SampleDataset) -> None:
    """Write a PNG of predictions on evenly spaced images of a data set.

    A column that would be empty for every image is left out.

    Args:
        path: The PNG file.
        model: Segmenter or depth network; left in the mode (train or eval) it came in.
        processor: Its image processor.
        dataset: Samples with labels or depth.
    """
    samples = [dataset[index] for index in evenly_spaced(len(dataset), NUM_ROWS)]
    with evaluation_mode(model):
        predictions = [predict_maps(model, processor, sample.image) for sample in samples]
    label_maps, depth_maps = zip(*predictions, strict=True)
    space = dataset.label_space or LabelSpace("none", ("none",), default_palette(1))
    columns = {
        "input": [shown_image(processor, sample.image) for sample in samples],
        "predicted depth": [
            None if depth is None else colourise_predicted_depth(depth, model.config.depth_type)
            for depth in depth_maps
        ],
        "true depth": [None if sample.depth is None else colourise_depth(sample.depth) for sample in samples],
        "prediction": [None if labels is None else colourise_labels(labels, space.palette) for labels in label_maps],
    }
    if isinstance(model, DepthSegForSemanticSegmentation):
        columns["truth"] = [
            None if sample.labels is None else colourise_labels(sample.labels, space.palette) for sample in samples
        ]
    shown = {title: column for title, column in columns.items() if any(image is not None for image in column)}
    maps = [labels for labels in [*label_maps, *(sample.labels for sample in samples)] if labels is not None]
    write_panel(
        path,
        rows=list(zip(*shown.values(), strict=True)),
        titles=list(shown),
        names=[sample.name for sample in samples],
        legend=legend_of(maps, space) if "prediction" in shown else None,
    )
