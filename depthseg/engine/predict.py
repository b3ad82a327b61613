"""Predictions for images of the user's own: labels, depth and images of both.

Files of an image called NAME in the output directory:

    labels/NAME.png        segmenters: palette PNG, the pixel values are the class ids
    overlay/NAME.png       segmenters: the colours over the image, with a legend
    depth/NAME.png         depth models and segmenters that kept their depth predictor: 16 bits, 0 = unknown
    depth_colour/NAME.png  the same to look at: near is bright, far is dark
    json/NAME.json         image, size, model, fraction of pixels of each class, and how to read the depth file

A depth is `pixel / file_scale + file_offset`; for metres that is KITTI's `pixel / 256`. So `labels/` and `depth/` are
those of a data folder to which only `images/` and `classes.txt` are missing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel

from ..data.faults import Fault, fault_of, grouped
from ..data.images import IMAGE_SUFFIXES, KITTI_DEPTH_SCALE, list_images, name_some, read_image, unread_files
from ..data.label_spaces import LABEL_SPACES, LabelSpace, default_palette
from ..models import DepthSegForDepthEstimation, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from .download import check_available
from .inference import check_finite, maps_of
from .lora import holds_adapters, load_adapted
from .records import write_json
from .visualization import (
    class_shares,
    colourise_predicted_depth,
    overlay,
    write_image,
    write_labels,
)

logger = logging.getLogger(__name__)

MODEL_CLASSES = {cls.__name__: cls for cls in (DepthSegForSemanticSegmentation, DepthSegForDepthEstimation)}
# Folder of the output directory -> ending of its files.
OUTPUTS = {"labels": ".png", "overlay": ".png", "depth": ".png", "depth_colour": ".png", "json": ".json"}
# 16-bit depth maps keep 0 for unknown pixels.
LARGEST = 65535


@dataclass(frozen=True)
class Predictions:
    """What `predict` did.

    Attributes:
        names: Name of each image that was done; its files are `OUTPUT_DIR/labels/NAME.png` and so on.
        faults: What was wrong with each image that could not be done, and with each path without any.
        skipped: Files of the folders given that are not images that are read.
    """

    names: tuple[str, ...]
    faults: tuple[Fault, ...]
    skipped: tuple[Path, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence for each of the faults."""
        return tuple(fault.sentence for fault in self.faults)

    def summary(self) -> list[str]:
        """One sentence for each kind of fault, however many images have it."""
        return grouped(self.faults)


def predict(
    model_path: str | Path,
    images: Sequence[str | Path],
    output_dir: str | Path,
    *,
    revision: str | None = None,
    overwrite: bool = False,
    device: str | None = None,
) -> Predictions:
    """Predict each image at its own size and write what there is to see.

    Args:
        model_path: Checkpoint directory or Hub id.
        images: Image files, and folders whose images are all taken.
        output_dir: Where the files go; NAME is the image's stem, with a number where several images share it.
        revision: Revision of a Hub model.
        overwrite: Whether files of the same name are replaced.
        device: Torch device; by default CUDA where there is one.

    Returns:
        Names done and what was wrong with the other images; those do not keep the first from being done.

    Raises:
        ValueError: There is no image to do, or the checkpoint is not a depthseg segmenter or depth model.
        FileExistsError: An output file exists and `overwrite` is False; nothing is written then.
    """
    files, faults, skipped = find_images(images)
    if skipped:
        logger.warning(describe_skipped(skipped))
    names = unique_names(files)
    targets = [{kind: Path(output_dir) / kind / (name + end) for kind, end in OUTPUTS.items()} for name in names]
    if not overwrite:
        _refuse_to_overwrite(targets)
    model, processor = load_model(model_path, revision, device)
    origin = {"model": str(model_path)} | ({"revision": revision} if revision else {})
    done = []
    for path, name, target in zip(tqdm(files, unit="image", disable=None), names, targets, strict=True):
        try:
            image = read_image(path)
            labels, depth = predict_maps(model, processor, image)
        except (ValueError, OSError) as error:
            faults.append(fault_of(error, path))
            continue
        record = {"image": str(path), "height": image.shape[0], "width": image.shape[1], **origin}
        record |= _write_labels(target, shown_image(processor, image), labels, model.config)
        record |= _write_depth(target, depth, model.config)
        write_json(target["json"], record)
        done.append(name)
    return Predictions(tuple(done), tuple(faults), tuple(skipped))


def find_images(images: Sequence[str | Path]) -> tuple[list[Path], list[Fault], list[Path]]:
    """List image files, taking folders apart; a file that is named twice counts once.

    Returns:
        Files in the order given, what is wrong with each path that gives none, and the files of the folders that are
        not images that are read.

    Raises:
        ValueError: There is no file at all.
    """
    files: dict[Path, Path] = {}
    faults, skipped = [], []
    for path in map(Path, images):
        found = list_images(path) if path.is_dir() else [path] if path.is_file() else []
        if path.is_dir():
            skipped += unread_files(path)
        if path.is_dir() and not found:
            faults.append(Fault(path, _without_images(path), "no image"))
        elif not found:
            faults.append(Fault(path, f"There is no file {path}.", "no file"))
        for file in found:
            files.setdefault(file.resolve(), file)
    if not files:
        raise ValueError(" ".join(["There is no image to predict.", *grouped(faults)]))
    return list(files.values()), faults, list(dict.fromkeys(skipped))


def describe_skipped(skipped: Sequence[Path]) -> str:
    """A sentence on files that were skipped: how many, and the names of the first three."""
    names = name_some([path.name for path in skipped])
    if len(skipped) == 1:
        return f"1 file is not an image that is read and was skipped: {names}."
    return f"{len(skipped)} files are not images that are read and were skipped: {names}."


def _without_images(folder: Path) -> str:
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and list_images(path)]
    hint = f" There are some in {name_some([str(path) for path in inner])}." if inner else ""
    return f"{folder} holds no image; images end in {', '.join(IMAGE_SUFFIXES)}.{hint}"


def unique_names(files: Sequence[Path]) -> list[str]:
    """Name each file by its stem; a stem that is taken gets the next free number, as in `street-2`."""
    taken: set[str] = set()
    names = []
    for stem in (file.stem for file in files):
        name, number = stem, 1
        # Without regard to case, as on some file systems Street.png and street.png are one file.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


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
    """Classes of a model with their usual colours where they are those of a known label space."""
    classes = tuple(name for _, name in sorted(config.id2label.items()))
    if config.one_class:
        return LabelSpace("model", classes[1:], default_palette(2)[1:])
    for space in LABEL_SPACES.values():
        if space.classes == classes:
            return space
    return LabelSpace("model", classes, default_palette(len(classes)))


@torch.no_grad()
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
    outputs = model(**processor(images=[image], return_tensors="pt").to(model.device))
    check_finite(outputs)
    return maps_of(outputs, processor, image.shape[:2])


def shown_image(processor: DepthSegImageProcessor, image: np.ndarray) -> np.ndarray:
    """The image to look at, uint8 RGB `(H, W, 3)`: one of more than 8 bits in the range that the network sees."""
    return image if image.dtype == np.uint8 else np.rint(processor.to_rgb(image)).astype(np.uint8)


def _write_labels(
    targets: dict[str, Path], image: np.ndarray, labels: np.ndarray | None, config: PreTrainedConfig
) -> dict[str, Any]:
    if labels is None:
        return {}
    space = label_space_of(config)
    write_labels(targets["labels"], labels, space.palette)
    write_image(targets["overlay"], overlay(image, labels, space))
    return {"classes": class_shares(labels, space)}


def _write_depth(targets: dict[str, Path], depth: np.ndarray | None, config: PreTrainedConfig) -> dict[str, Any]:
    if depth is None:
        return {}
    relative = config.depth_type in ("relative", "relative_inverse")
    low, high = float(depth.min()), float(depth.max())
    # Metres are stored as in KITTI; relative (inverse) depth has no unit and is spread over the 16 bits.
    offset = low if relative else 0.0
    scale = LARGEST / ((high - low) or 1.0) if relative else KITTI_DEPTH_SCALE
    stored = np.clip(np.rint((depth - offset) * scale), 1, LARGEST).astype(np.uint16)
    write_image(targets["depth"], stored)
    write_image(targets["depth_colour"], colourise_predicted_depth(depth, config.depth_type))
    numbers = {"min": low, "median": float(np.median(depth)), "max": high}
    return {"depth": {"type": config.depth_type, **numbers, "file_scale": scale, "file_offset": offset}}


def _refuse_to_overwrite(targets: Sequence[dict[str, Path]]) -> None:
    for path in (path for target in targets for path in target.values()):
        if path.exists():
            raise FileExistsError(
                f"{path} exists already; choose another output directory or ask for it to be overwritten."
            )
