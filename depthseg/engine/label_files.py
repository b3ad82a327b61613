"""Label maps that some other program predicted, evaluated from their files as a model's are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.images import check_ids, read_labels
from ..metrics.baselines import score_segmentation_baseline
from .evaluation import stamp_of

if TYPE_CHECKING:
    import numpy as np

    from ..data import Sample, SampleDataset

IN_THE_FILES = "that of the label maps"


class LabelFiles:
    """Predicts what the label maps in a folder say: `NAME.png` for each image, as `depthseg predict` writes them.

    Args:
        folder: The folder.
        count: Number of ids; a file with another id is refused.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.folder, self._count = Path(folder), count

    def predict(self, sample: Sample) -> np.ndarray:
        """Class ids `(H, W)`, at the size of the image.

        Raises:
            FileNotFoundError: The image has no label map.
            ValueError: The file is no label map, has another size, or an id that is no class.
        """
        path = self.folder / f"{sample.name}.png"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {path}. --predictions needs a label map for each evaluated image, a single-channel PNG "
                "of class ids with the name of the image."
            )
        ids = read_labels(path)
        if ids.shape != sample.image.shape[:2]:
            raise ValueError(
                f"{path} is {ids.shape[1]}x{ids.shape[0]} pixels, but its image is "
                f"{sample.image.shape[1]}x{sample.image.shape[0]}; resize the prediction to the size of the image."
            )
        check_ids(path, ids, self._count, ignore_index=None)
        return ids


def scores_of_label_files(folder: str | Path, dataset: SampleDataset) -> dict[str, Any]:
    """Scores of the protocol `standard` from label maps in a folder.

    Args:
        folder: Of the predicted label maps, see `LabelFiles`.
        dataset: With labels and a label space.

    Returns:
        What `evaluate_model` returns of a segmenter. Their stamp says that images and outputs were resized by whatever
        wrote the files.

    Raises:
        FileNotFoundError: An image has no label map.
        ValueError: A file does not fit its image or the classes, or the data set has no labels.
    """
    space = dataset.label_space
    if space is None:
        raise ValueError("The data set has no label space, so label maps cannot be evaluated on it.")
    stamp = replace(stamp_of(space), image_interpolation=IN_THE_FILES, logit_interpolation=IN_THE_FILES)
    scores = score_segmentation_baseline(LabelFiles(folder, len(space.classes)), dataset)
    return scores | {"stamp": stamp.to_dict()}
