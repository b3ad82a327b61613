"""What a prediction writes, and where.

Files of an image called NAME in the output directory:

    labels/NAME.png        segmenters: palette PNG, the pixel values are the class ids
    overlay/NAME.png       segmenters: the colours over the image, with a legend
    depth/NAME.png         depth models and segmenters that kept their depth predictor: 16 bits, 0 = unknown
    depth_colour/NAME.png  the same to look at: near is bright, far is dark
    json/NAME.json         image, size, model, fraction of pixels of each class, and how to read the depth file

A depth is `pixel / file_scale + file_offset`; for metres that is KITTI's `pixel / 256`. So `labels/` and `depth/` are
those of a data folder to which only `images/` and `classes.txt` are missing.

Files of a video, in the output directory if it is the only input, else in a folder `NAME/` of it:

    labels.mkv             segmenters: lossless (FFV1), the grey values are the class ids
    overlay.mp4            segmenters: the colours over the frames
    depth.mkv              as `depth/` has it for images, lossless (FFV1)
    side_by_side.mp4       frames, overlay and depth, with a legend
    summary.json           video, model, frames, frame rate, size, time per frame, fraction of pixels of each class,
                           flicker, and how to read depth.mkv
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.images import KITTI_DEPTH_SCALE
from ..data.label_spaces import LabelSpace
from .prediction_inputs import Inputs, unique_names
from .records import write_json
from .visualization import (
    class_shares,
    colourise_predicted_depth,
    overlay,
    write_image,
    write_labels,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from ..models import DepthSegImageProcessor

Maps = tuple[np.ndarray | None, np.ndarray | None]
"""Labels and depth, each None where the model has it not."""

# Folder of the output directory -> ending of its files.
IMAGE_OUTPUTS = {"labels": ".png", "overlay": ".png", "depth": ".png", "depth_colour": ".png", "json": ".json"}
VIDEO_OUTPUTS = {
    **{"labels": "labels.mkv", "overlay": "overlay.mp4", "depth": "depth.mkv", "side_by_side": "side_by_side.mp4"},
    "summary": "summary.json",
}
# 16-bit depth maps keep 0 for unknown pixels.
LARGEST = 65535


@dataclass(frozen=True)
class Place:
    """Where the outputs of an image or video go.

    Attributes:
        name: Its name.
        files: Kind of output -> file.
    """

    name: str
    files: dict[str, Path]


def output_places(inputs: Inputs, output_dir: Path) -> dict[Path, Place]:
    """The place of each image and video."""
    places = {}
    for path, name in zip(inputs.images, unique_names(inputs.images), strict=True):
        places[path] = Place(name, {kind: output_dir / kind / (name + end) for kind, end in IMAGE_OUTPUTS.items()})
    alone = len(inputs.images) + len(inputs.videos) == 1
    for path, name in zip(inputs.videos, unique_names(inputs.videos, taken=IMAGE_OUTPUTS), strict=True):
        folder = output_dir if alone else output_dir / name
        places[path] = Place(name, {kind: folder / file for kind, file in VIDEO_OUTPUTS.items()})
    return places


def refuse_to_overwrite(places: Iterable[Place]) -> None:
    """Raise `FileExistsError` if an output exists."""
    for path in (path for place in places for path in place.files.values()):
        if path.exists():
            raise FileExistsError(
                f"{path} exists already; choose another output directory or ask for it to be overwritten."
            )


def shown_image(processor: DepthSegImageProcessor, image: np.ndarray) -> np.ndarray:
    """The image to look at, uint8 RGB `(H, W, 3)`: one of more than 8 bits in the range that the network sees."""
    return image if image.dtype == np.uint8 else np.rint(processor.to_rgb(image)).astype(np.uint8)


def write_maps(
    files: dict[str, Path],
    path: Path,
    shown: np.ndarray,
    maps: Maps,
    space: LabelSpace,
    config: PreTrainedConfig,
    origin: dict[str, str],
) -> None:
    """Write the files of an image.

    Args:
        files: Kind of output -> file.
        path: The image.
        shown: The image to look at, uint8 RGB `(H, W, 3)`.
        maps: What was predicted.
        space: Classes and colours.
        config: Of the model.
        origin: Which model it was, for the record.
    """
    labels, depth = maps
    record: dict[str, Any] = {"image": str(path), "height": shown.shape[0], "width": shown.shape[1], **origin}
    if labels is not None:
        write_labels(files["labels"], labels, space.palette)
        write_image(files["overlay"], overlay(shown, labels, space))
        record["classes"] = class_shares(labels, space)
    if depth is not None:
        low, high = float(depth.min()), float(depth.max())
        scale, offset = depth_scale(config, low, high)
        write_image(files["depth"], sixteen_bits(depth, scale, offset))
        write_image(files["depth_colour"], colourise_predicted_depth(depth, config.depth_type))
        numbers = {"min": low, "median": float(np.median(depth)), "max": high}
        record["depth"] = {"type": config.depth_type, **numbers, "file_scale": scale, "file_offset": offset}
    write_json(files["json"], record)


def depth_scale(config: PreTrainedConfig, low: float, high: float) -> tuple[float, float]:
    """Scale and offset of a depth file whose values are between `low` and `high`.

    Metres are stored as in KITTI; relative (inverse) depth has no unit and is spread over the 16 bits.
    """
    if config.depth_type not in ("relative", "relative_inverse"):
        return KITTI_DEPTH_SCALE, 0.0
    return LARGEST / ((high - low) or 1.0), low


def sixteen_bits(depth: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """Depth as uint16, where 0 is left for unknown pixels."""
    return np.clip(np.rint((depth - offset) * scale), 1, LARGEST).astype(np.uint16)
