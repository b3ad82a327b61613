"""Some images with the Grad-CAM of a segmenter and its prediction, to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..data.subsets import evenly_spaced
from ..data.transforms import resize_nearest
from .evaluation import evaluation_mode
from .grad_cam import heat_on_input
from .predict import predict_maps
from .prediction_files import shown_image
from .visualization import colourise_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..data import SampleDataset
    from ..models import DepthSegForSemanticSegmentation

COUNT = 3
"""Number of images."""


@dataclass(frozen=True, eq=False)
class CamImages:
    """Images and maps, all at the size of the image that the network sees.

    Attributes:
        names: Of the N images.
        image: uint8 RGB `(N, H, W, 3)`.
        labels: The ground truth in colours, uint8 RGB `(N, H, W, 3)`.
        predicted: The prediction in colours, likewise.
        heat: uint8 `(N, H, W)`, 255 = the highest value of Grad-CAM in the image, 0 = none.
    """

    names: Sequence[str]
    image: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    heat: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything by name, as arrays."""
        return vars(self) | {"names": np.array(self.names)}


def cam_images(model: DepthSegForSemanticSegmentation, processor: Any, dataset: SampleDataset) -> CamImages | None:
    """Grad-CAM and prediction of `COUNT` images, evenly spread over a data set; see `depthseg.engine.grad_cam`.

    Args:
        model: The segmenter; left in the mode (train or eval) it came in.
        processor: Its image processor.
        dataset: Samples; those without labels are skipped.

    Returns:
        None where no chosen sample has labels.
    """
    size = processor.size["height"], processor.size["width"]
    palette, found = dataset.label_space.palette, []
    samples = (dataset[index] for index in evenly_spaced(len(dataset), COUNT))
    for sample in (sample for sample in samples if sample.labels is not None):
        heat = heat_on_input(model, processor, sample.image, size)
        with evaluation_mode(model):
            predicted, _ = predict_maps(model, processor, sample.image)
        shown = Image.fromarray(shown_image(processor, sample.image)).resize(size[::-1])
        maps = [
            colourise_labels(resize_nearest(ids.astype(np.uint8), size), palette) for ids in (sample.labels, predicted)
        ]
        heat = np.rint(255 * heat / max(heat.max(), 1e-12)).astype(np.uint8)
        found.append((sample.name, np.array(shown), *maps, heat))
    if not found:
        return None
    names, *arrays = zip(*found, strict=True)
    return CamImages(names, *map(np.stack, arrays))
