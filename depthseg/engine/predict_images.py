"""Predictions for image files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.faults import Fault, fault_of
from ..data.images import read_image
from ..data.label_spaces import LabelSpace
from .prediction_files import Maps, Place, shown_image, write_maps
from .prediction_progress import PredictionProgress
from .stopping import StopRequest
from .tiling import MapPredictor


def predict_images(
    network: MapPredictor,
    paths: Sequence[Path],
    places: Mapping[Path, Place],
    space: LabelSpace,
    progress: PredictionProgress,
    origin: dict[str, str],
    stop: StopRequest,
) -> list[Fault]:
    """Predict images and write their files.

    Args:
        network: Predicts them; those of one size that follow each other together, as many as its batch size.
        paths: The images.
        places: Where the outputs of each go.
        space: Classes and colours.
        progress: Knows which are done.
        origin: Which model it is, for the records.
        stop: Asks to leave after the images at work.

    Returns:
        What is wrong with those that could not be done.
    """
    faults: list[Fault] = []
    wanted = [path for path in paths if not progress.is_done(path)]
    with tqdm(total=len(wanted), unit="image", disable=None) as bar:
        for batch in _batches(wanted, network.batch_size, faults):
            for path, image, maps in _each_of_batch(network, batch, faults):
                shown = shown_image(network.processor, image)
                write_maps(places[path].files, path, shown, maps, space, network.model.config, origin)
                progress.note(path, places[path].name)
            bar.update(len(batch))
            if stop.received:
                break
    return faults


def _batches(paths: Sequence[Path], batch_size: int, faults: list[Fault]) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Images that follow each other and have one size and type, at most `batch_size`; faults are collected."""
    batch: list[tuple[Path, np.ndarray]] = []
    for path in paths:
        try:
            image = read_image(path)
        except (ValueError, OSError) as error:
            faults.append(fault_of(error, path))
            continue
        if batch and (len(batch) == batch_size or image.shape != batch[0][1].shape):
            yield batch
            batch = []
        batch.append((path, image))
    if batch:
        yield batch


def _each_of_batch(
    network: MapPredictor, batch: list[tuple[Path, np.ndarray]], faults: list[Fault]
) -> Iterator[tuple[Path, np.ndarray, Maps]]:
    try:
        found = network.maps([image for _, image in batch])
    except (ValueError, OSError) as error:
        if len(batch) == 1:
            faults.append(fault_of(error, batch[0][0]))
            return
        # One of them is at fault, and the others are not.
        for pair in batch:
            yield from _each_of_batch(network, [pair], faults)
        return
    for (path, image), maps in zip(batch, found, strict=True):
        yield path, image, maps
