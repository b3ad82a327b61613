"""Figures of images: where the network of each initialisation looks, and what it predicts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..results import Setting, StudyResults
from .figures import FigureText
from .style import SETTINGS, panels, write_figure

logger = logging.getLogger(__name__)

MEASURE = "grad_cam"
TILE_INCHES = 1.9
TITLE_INCHES = 0.14
"""Width of a tile, and height for a title in each row of tiles."""


def write_cam_figures(results: StudyResults, folder: Path) -> dict[str, FigureText]:
    """Draw the images that the measure `grad_cam` kept, a figure for each setting.

    Args:
        results: The results of a study.
        folder: Folder for a PNG and a PDF of each.

    Returns:
        The texts of each figure, by name; none if the study does not have the measure.
    """
    if MEASURE not in (results.study.get("measures") or ()):
        return {}
    texts = {}
    with matplotlib.rc_context(SETTINGS):
        for place, setting in enumerate(results.settings):
            found = {init: images for init in results.initialisations if (images := _images(results, init, setting))}
            if found:
                titles = [str(results.initialisations[init].get("title") or init) for init in found]
                text = _text(f"{MEASURE}{place}", setting, titles)
                write_figure(_drawn(dict(zip(titles, found.values(), strict=True))), folder, text.name)
                texts[text.name] = text
    if not texts:
        logger.warning("No record has images of Grad-CAM: the runs are of a study without the measure %s.", MEASURE)
    return texts


def _images(results: StudyResults, init: str, setting: Setting) -> dict[str, np.ndarray]:
    """What the first finished run kept; empty where it kept nothing."""
    return next((folds[0].images(MEASURE) for folds in results.runs(init, setting).values()), {})


def _text(name: str, setting: Setting, titles: list[str]) -> FigureText:
    caption = (
        f"Grad-CAM of the shallowest map (bright: it raises the scores of the predicted classes) and the prediction "
        f"below it, of the first run of each initialisation; at the left, the image and its labels ({setting})."
    )
    return FigureText(name, caption, f"Test images with Grad-CAM and prediction of {'; '.join(titles)}.")


def _drawn(found: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    first = next(iter(found.values()))
    count, height, width = first["heat"].shape
    columns = 1 + len(found)
    size = (TILE_INCHES, TILE_INCHES * height / width + TITLE_INCHES)
    figure, frames = panels(2 * count * columns, columns, size)
    for index in range(count):
        upper, lower = (frames[row * columns : (row + 1) * columns] for row in (2 * index, 2 * index + 1))
        upper[0].imshow(first["image"][index])
        lower[0].imshow(first["labels"][index])
        upper[0].set_title(str(first["names"][index]), fontsize=7)
        for place, (title, images) in enumerate(found.items(), start=1):
            upper[place].imshow(images["image"][index].mean(-1), cmap="gray", vmin=0, vmax=255)
            upper[place].imshow(images["heat"][index], cmap="inferno", vmin=0, vmax=255, alpha=0.6)
            lower[place].imshow(images["predicted"][index])
            upper[place].set_title(title, fontsize=7)
    for frame in frames:
        frame.set_axis_off()
    return figure
