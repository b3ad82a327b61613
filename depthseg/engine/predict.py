"""Predictions for images and videos of the user's own: labels, depth and images of both.

What is written is listed in `prediction_files`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.decoding import VideoFrames
from ..data.faults import Fault, fault_of, grouped
from ..data.label_spaces import LABEL_SPACES, LabelSpace
from ..data.palette import safe_palette, visible
from ..models import DepthSegForDepthEstimation, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from .download import check_available
from .inference import maps_of, outputs_of_each
from .lora import holds_adapters, load_adapted
from .predict_images import predict_images
from .predict_video import VideoPrediction
from .prediction_files import Place, output_places
from .prediction_inputs import check_effect, describe_skipped, find_inputs
from .prediction_progress import PredictionProgress, checkpoint_files
from .stopping import Stopped, StopRequest
from .tiling import MapPredictor, Tiling

logger = logging.getLogger(__name__)

MODEL_CLASSES = {cls.__name__: cls for cls in (DepthSegForSemanticSegmentation, DepthSegForDepthEstimation)}


@dataclass(frozen=True)
class Predictions:
    """What `predict` did.

    Attributes:
        names: Name of each image and video that was done.
        videos: How many of them are videos.
        faults: What was wrong with each that could not be done, and with each path without any.
        skipped: Files of the folders given that are neither images nor videos.
    """

    names: tuple[str, ...]
    videos: int
    faults: tuple[Fault, ...]
    skipped: tuple[Path, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each of the faults."""
        return tuple(fault.sentence for fault in self.faults)

    def count(self) -> str:
        """How many were done, such as `2 images and 1 video`."""
        images = len(self.names) - self.videos
        counts = [f"{images} {'image' if images == 1 else 'images'}"] if images or not self.videos else []
        counts += [f"{self.videos} {'video' if self.videos == 1 else 'videos'}"] if self.videos else []
        return " and ".join(counts)

    def summary(self) -> list[str]:
        """One sentence for each kind of fault, however many files have it."""
        return grouped(self.faults)


def predict(
    model_path: str | Path,
    images: Sequence[str | Path],
    output_dir: str | Path,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    device: str | None = None,
    native: bool = False,
    tile: tuple[int, int] | None = None,
    batch_size: int = 1,
    smooth: float | None = None,
) -> Predictions:
    """Predict images and videos at their own size and write what there is to see.

    On SIGINT (Ctrl-C) or SIGTERM the image or the frames at work are finished; the same call resumes from there.

    Args:
        model_path: Checkpoint directory or Hub id.
        images: Image and video files, folders, patterns, `"-"`; see `find_inputs`.
        output_dir: Where the files go; NAME is the stem of the file, with a number where several share it.
        revision: Revision of a Hub model.
        overwrite: Whether files of the same name are replaced.
        device: Torch device; by default CUDA where there is one.
        native: Whether images are seen at their own size, whatever the image processor resizes to.
        tile: Height and width of the tiles that the network sees; None = as `Tiling.tile_size` chooses.
        batch_size: Images of one size, tiles of an image, or frames, that the network sees at once.
        smooth: Weight of the class scores of earlier frames in those of a video; None = each frame by itself.

    Returns:
        Names done and what was wrong with the other files; those do not keep the first from being done.

    Raises:
        ValueError: There is no image to do, the checkpoint is not a depthseg segmenter or depth model, or an option
            is out of range or makes no difference to any input.
        FileExistsError: An output file exists and `overwrite` is False; nothing is written then.
        Stopped: A signal came; all that is finished is kept.
    """
    inputs = find_inputs(images)
    if inputs.skipped:
        logger.warning(describe_skipped(inputs.skipped))
    model, processor = load_model(model_path, revision, device)
    network = MapPredictor(model, processor, Tiling(native, tile), batch_size)
    space = label_space_of(model.config)
    videos, faults = open_videos(inputs.videos)
    faults = [*inputs.faults, *faults]
    check_effect(inputs, videos, smooth, network)
    origin = {"model": str(model_path)} | ({"revision": revision} if revision else {})
    options = {"native": native, "tile": tile, "batch_size": batch_size, "smooth": smooth}
    progress = PredictionProgress(Path(output_dir), {**origin, **options, "files": checkpoint_files(model_path)})
    places = output_places(inputs, Path(output_dir))
    progress.resume(places, overwrite)
    with StopRequest("Prediction stops after the images or frames at work") as stop:
        faults += predict_images(network, inputs.images, places, space, progress, origin, stop)
        for video in videos:
            if not stop.received and not progress.is_done(video.path):
                faults += _predict_video(network, video, places[video.path], space, progress, origin, smooth, stop)
        failed = {fault.path for fault in faults}
        if stop.received and any(path not in failed and not progress.is_done(path) for path in places):
            progress.save()
            raise Stopped("Prediction was stopped; what is done is saved. To resume: the same command.")
    progress.finish()
    images_done, videos_done = (
        [places[path].name for path in paths if progress.is_done(path)] for paths in (inputs.images, inputs.videos)
    )
    return Predictions((*images_done, *videos_done), len(videos_done), tuple(faults), tuple(inputs.skipped))


def open_videos(paths: Sequence[Path]) -> tuple[list[VideoFrames], list[Fault]]:
    """Those of the videos that can be read, and what is wrong with the others."""
    videos, faults = [], []
    for path in paths:
        try:
            video = VideoFrames(path)
            _ = video.size
            videos.append(video)
        except (ValueError, OSError) as error:
            faults.append(fault_of(error, path))
    return videos, faults


def _predict_video(
    network: MapPredictor,
    video: VideoFrames,
    place: Place,
    space: LabelSpace,
    progress: PredictionProgress,
    origin: dict[str, str],
    smooth: float | None,
    stop: StopRequest,
) -> list[Fault]:
    """Predict a video; returns what is wrong with it, if anything is."""
    progress.save()
    prediction = VideoPrediction(network, video, progress.pieces_of(place.name, video.path), space, smooth)
    try:
        if prediction.run(stop):
            prediction.write(place.files, origin)
            progress.note(video.path, place.name)
    except (ValueError, OSError) as error:
        return [fault_of(error, video.path)]
    return []


def load_model(
    model_path: str | Path, revision: str | None = None, device: str | None = None
) -> tuple[PreTrainedModel, DepthSegImageProcessor]:
    """Load a depthseg segmenter or depth model, whichever the checkpoint holds, with its processor.

    Args:
        model_path: Checkpoint directory or Hub id.
        revision: Revision of a Hub model.
        device: Torch device; by default CUDA where there is one.

    Returns:
        The model in evaluation mode, in float32, and its image processor.

    Raises:
        FileNotFoundError: A directory without `config.json`, or no such repository or revision.
        PermissionError: A gated repository.
        ConnectionError: The Hub does not answer, and the cache has it not.
        ValueError: The checkpoint is of another model type or task.
    """
    if os.path.isdir(model_path) and not Path(model_path, "config.json").is_file():
        raise FileNotFoundError(
            f"{model_path} is not a checkpoint: it holds no config.json. Runs keep theirs in model/."
        )
    check_available(model_path, revision)
    stored, _ = PreTrainedConfig.get_config_dict(str(model_path), revision=revision)
    if stored.get("model_type") != "depthseg":
        raise ValueError(
            f"{model_path} holds a model of type {stored.get('model_type')!r}; depthseg predicts with its own models, "
            "whose config.json says 'depthseg'."
        )
    architecture = (stored.get("architectures") or ["nothing"])[0]
    if architecture not in MODEL_CLASSES:
        raise ValueError(f"{model_path} holds a {architecture}; predictions are made by {' or '.join(MODEL_CLASSES)}.")
    model_class = MODEL_CLASSES[architecture]
    if holds_adapters(model_path, revision):
        model = load_adapted(model_class, model_path, revision)
    else:
        model = model_class.from_pretrained(str(model_path), revision=revision, dtype=torch.float32)
    processor = DepthSegImageProcessor.from_pretrained(str(model_path), revision=revision)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # The memory format of training: with another one the last bits differ, and with them a pixel now and then.
    return model.eval().to(device, memory_format=torch.channels_last), processor


def label_space_of(config: PreTrainedConfig) -> LabelSpace:
    """Classes of a model with their usual colours where they are those of a known label space.

    Other classes have colours that can be told apart with any colour vision. No class is black: ignored pixels are.
    """
    classes = tuple(name for _, name in sorted(config.id2label.items()))
    if not config.one_class:
        for space in LABEL_SPACES.values():
            if space.classes == classes:
                palette = visible(space.palette)
                return space if palette == space.palette else replace(space, palette=palette)
    return LabelSpace("model", classes, safe_palette(len(classes)), one_class=config.one_class)


def predict_maps(
    model: PreTrainedModel, processor: DepthSegImageProcessor, image: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Predict one image at its own size, as far as the model has labels and depth.

    Args:
        model: Segmenter or depth model in evaluation mode.
        processor: Its image processor.
        image: RGB uint8 `(H, W, 3)`, or as `read_image` returns grey images of more than 8 bits.

    Returns:
        Class ids uint8 `(H, W)` and depth float32 `(H, W)` in the model's own `depth_type`, each None where the model
        does not predict it.

    Raises:
        ValueError: The model's output is not finite.
    """
    (outputs,) = outputs_of_each(model, processor, [image])
    return maps_of(outputs, processor, image.shape[:2])
