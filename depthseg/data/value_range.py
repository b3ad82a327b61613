"""The range of pixel values of a data set whose images have more than 8 bits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from .images import bit_depth_of
from .subsets import evenly_spaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .sample import Sample, SampleDataset

logger = logging.getLogger(__name__)

IMAGES_EXAMINED = 64


def given_value_range(dataset: SampleDataset) -> Sequence[float] | None:
    """The option `value_range` of a data set, whole numbers as such; None where it has none or left it out."""
    given = getattr(dataset, "value_range", None)
    return None if given is None else [int(value) if value == int(value) else value for value in given]


def find_value_range(dataset: SampleDataset, first: Sample) -> list[float] | None:
    """Values of black and white of images of more than 8 bits, from the images.

    Black is 0. White is the largest value of the smallest of 8, 10, 12, 14 and 16 bits that holds every value of the
    images; at most 64, evenly spread, are examined.

    Args:
        dataset: The training set.
        first: Its first sample.

    Returns:
        Such as `[0, 4095]`; None where the first image has 8 bits.

    Raises:
        ValueError: The images have floating-point values, which no number of bits follows from.
    """
    if first.image.dtype == np.uint8:
        return None
    if first.image.dtype.kind == "f":
        low, high = first.image.min(), first.image.max()
        raise ValueError(
            f"Image {first.name!r} has floating-point values, from {low:g} to {high:g}. Give the values of "
            "black and white as an option of the data set, such as data.options.value_range=[0, 1]."
        )
    chosen = evenly_spaced(len(dataset), IMAGES_EXAMINED)
    images = (dataset[index].image for index in chosen)
    largest = max((int(image.max()) for image in images if image.dtype != np.uint8), default=0)
    bits = bit_depth_of(largest)
    white = 2**bits - 1
    logger.info(
        "value_range=[0, %d]: the largest pixel value of %d of %d training images is %d (%d bits)",
        *(white, len(chosen), len(dataset), largest, bits),
    )
    return [0, white]
