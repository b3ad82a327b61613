"""Weights of classes from how often they are in the labels of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from . import SampleDataset


def balanced_weights(dataset: SampleDataset) -> list[float]:
    """Return one weight a class, inversely proportional to its number of pixels in all label maps.

    The mean weight of a labelled pixel is 1: the weight is the number of labelled pixels, divided by that of the class
    and by the number of classes that occur. A class without a pixel gets the largest weight of those that occur.

    Args:
        dataset: With a label space; every label map is read once.

    Raises:
        ValueError: No pixel is labelled, or a label map holds an id without a class.
    """
    space = dataset.label_space
    assert space is not None, "only data sets with classes have weights of classes"
    counts = np.zeros(len(space.classes), np.int64)
    for index in range(len(dataset)):
        sample = dataset[index]
        if sample.labels is not None:
            known = sample.labels[sample.labels != space.ignore_index]
            wrong = np.unique(known[(known < 0) | (known >= len(counts))]).tolist()
            if wrong:
                raise ValueError(
                    f"The label map of image {sample.name!r} holds the ids {wrong[:5]}, but the classes of "
                    f"{space.name!r} have the ids 0 to {len(counts) - 1}, and {space.ignore_index} is ignored. "
                    "Correct the labels or the list of classes; `depthseg datasets check` names all such files."
                )
            counts += np.bincount(known.ravel(), minlength=len(counts))
    present = counts > 0
    if not present.any():
        raise ValueError(
            f"None of the {len(dataset)} training label maps has a labelled pixel, so the classes cannot be balanced: "
            "set model.class_weights=none, or check the labels with `depthseg datasets check`."
        )
    weights = counts.sum() / (present.sum() * np.maximum(counts, 1))
    return np.where(present, weights, weights[present].max()).tolist()
