"""What is behind the web page of `depthseg demo`: reading uploads within limits, and predictions to look at.

Nothing here needs gradio; the page is in `demo_page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.decoding import VIDEO_SUFFIXES, VideoFrames
from ..data.images import image_size, read_image
from ..data.label_spaces import LabelSpace
from ..data.synthetic import render
from .predict import label_space_of, load_model
from .predict_video import VideoPrediction
from .prediction_files import VIDEO_OUTPUTS, shown_image
from .stopping import StopRequest
from .tiling import MapPredictor
from .visualization import blend_labels, class_shares, colourise_predicted_depth

LONGEST_SIDE = 1280
"""Pixels of the longer side of an image on the page; the network sees the image as it was uploaded."""
KEPT_MINUTES = 10
"""How long the results of a visitor are kept, so that they can be looked at and saved."""
EXAMPLE_SIZE = (192, 384)
"""Height and width of the examples."""


@dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Attributes:
        megabytes: Of a file, of 2^20 bytes each, as gradio counts.
        megapixels: Of an image.
        film_seconds: Length of a film.
        film_frames: Frames of a film.
        film_width, film_height: Longer and shorter side of its frames in pixels.
    """

    megabytes: int = 50
    megapixels: int = 25
    film_seconds: int = 10
    film_frames: int = 300
    film_width: int = 1920
    film_height: int = 1080

    def __str__(self) -> str:
        return (
            f"Files up to {self.megabytes} MB; images up to {self.megapixels} megapixels; films up to "
            f"{self.film_seconds} seconds, {self.film_frames} frames and {self.film_width}x{self.film_height} pixels."
        )


@dataclass(frozen=True)
class Checkpoint:
    """A model on the page.

    Attributes:
        name: As the user gave it.
        network: Predicts images and frames.
        space: Classes and colours.
    """

    name: str
    network: MapPredictor
    space: LabelSpace

    @property
    def has_labels(self) -> bool:
        """Whether it is a segmenter."""
        return hasattr(self.network.model, "classifier")


@dataclass(frozen=True)
class ShownPrediction:
    """The prediction of an image, to look at.

    Attributes:
        image: uint8 RGB `(H, W, 3)`, at most `LONGEST_SIDE` pixels wide and high.
        labels: Class ids uint8 `(H, W)`; None of a depth model.
        depth: Depth in colours, uint8 RGB `(H, W, 3)`; None where the model has no depth.
        shares: Class -> share of the pixels of the whole image, 0..1, by falling share.
        space: Classes and colours.
    """

    image: np.ndarray
    labels: np.ndarray | None
    depth: np.ndarray | None
    shares: dict[str, float]
    space: LabelSpace

    def parts(self) -> list[tuple[np.ndarray, str]]:
        """The area of each class that is present, bool `(H, W)`, with its name, by falling share."""
        if self.labels is None:
            return []
        areas = {name: self.labels == self.space.classes.index(name) for name in self.shares}
        # A class of a few pixels can be lost where a large image is made smaller.
        return [(area, name) for name, area in areas.items() if area.any()]

    def overlay(self) -> np.ndarray:
        """The colours of the classes over the image, or those of depth in its place, uint8 RGB `(H, W, 3)`."""
        return self.depth if self.labels is None else blend_labels(self.image, self.labels, self.space.palette)


def load_checkpoints(models: Sequence[str]) -> list[Checkpoint]:
    """Load the models of a page.

    Args:
        models: Directories or Hub ids.

    Raises:
        ValueError, FileNotFoundError, ConnectionError, PermissionError: As `load_model`.
    """
    found = []
    for name in models:
        model, processor = load_model(name)
        found.append(Checkpoint(name, MapPredictor(model, processor), label_space_of(model.config)))
    return found


def hex_colours(space: LabelSpace) -> dict[str, str]:
    """Class -> colour, such as `#804080`."""
    colours = zip(space.classes, space.palette, strict=True)
    return {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in colours}


def read_upload(path: Path, limits: Limits) -> np.ndarray | VideoFrames:
    """Read an image, or open a film, if it is within the limits; nothing larger is decoded.

    Args:
        path: The file; its ending says whether it is a film.
        limits: What it may be.

    Returns:
        An image as `read_image` has it, `(H, W, 3)` or `(H, W)`, or the frames of a film.

    Raises:
        ValueError: The file cannot be read or is beyond a limit.
    """
    size = path.stat().st_size
    if size > limits.megabytes * 2**20:
        raise ValueError(f"{path.name} has {size / 2**20:.0f} MB; a file has at most {limits.megabytes} MB.")
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return _open_film(path, limits)
    found = image_size(path)
    if found is not None and found[0] * found[1] > limits.megapixels * 10**6:
        raise ValueError(
            f"{path.name} has {found[0] * found[1] / 1e6:.0f} megapixels; an image has at most {limits.megapixels}. "
            "Make it smaller or cut it."
        )
    return read_image(path)


def _open_film(path: Path, limits: Limits) -> VideoFrames:
    film = VideoFrames(path)
    seconds = float((film.times[-1] - film.times[0]) * film.time_base)
    if seconds > limits.film_seconds or len(film) > limits.film_frames:
        raise ValueError(
            f"{path.name} has {seconds:.1f} seconds and {len(film)} frames; a film has at most {limits.film_seconds} "
            f"seconds and {limits.film_frames} frames. Cut out a shorter piece."
        )
    short, long = sorted(film.size)
    if long > limits.film_width or short > limits.film_height:
        raise ValueError(
            f"The frames of {path.name} have {long}x{short} pixels; those of a film have at most "
            f"{limits.film_width}x{limits.film_height}. Make it smaller."
        )
    return film


def predict_to_show(checkpoint: Checkpoint, image: np.ndarray) -> ShownPrediction:
    """Predict an image at its own size and make it small enough for a page.

    Args:
        checkpoint: The model.
        image: RGB uint8 `(H, W, 3)`, or as `read_image` returns grey images of more than 8 bits.

    Raises:
        ValueError: The model's output is not finite.
    """
    network, space = checkpoint.network, checkpoint.space
    ((labels, depth),) = network.maps([image])
    shares = {} if labels is None else class_shares(labels, space)
    coloured = None if depth is None else _small(colourise_predicted_depth(depth, network.model.config.depth_type))
    labels = None if labels is None else _small(labels, Image.Resampling.NEAREST)
    return ShownPrediction(_small(shown_image(network.processor, image)), labels, coloured, shares, space)


def _small(pixels: np.ndarray, how: Image.Resampling = Image.Resampling.BOX) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def predict_film(checkpoint: Checkpoint, film: VideoFrames, folder: Path) -> Path:
    """Predict a film and write its overlay, of a depth model the frames beside their depth.

    Args:
        checkpoint: The model.
        film: Its frames.
        folder: A new folder for the files.

    Returns:
        The file, H.264 in MP4.

    Raises:
        ValueError: A frame cannot be decoded, or the model's output is not finite.
    """
    files = {kind: folder / name for kind, name in VIDEO_OUTPUTS.items()}
    prediction = VideoPrediction(checkpoint.network, film, folder / "pieces", checkpoint.space, smooth=None)
    prediction.run(StopRequest("The film stops"))  # never asked to: signals end the page itself
    prediction.write(files, {"model": checkpoint.name})
    return files["overlay" if checkpoint.has_labels else "side_by_side"]


def example_images(count: int = 3) -> list[np.ndarray]:
    """Images of the procedural world, uint8 RGB `(H, W, 3)`."""
    return [render(0, number, EXAMPLE_SIZE, outputs=("image",))["image"] for number in range(count)]
