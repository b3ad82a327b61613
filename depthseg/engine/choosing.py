"""Which frames of a film or folder to label, by the features of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..data import load_dataset
from ..data.coverage import coverage_order
from ..data.subsets import Subset, evenly_spaced
from ..models import DepthSegForSemanticSegmentation, DepthSegImageProcessor
from .atomic import atomic_folder
from .download import check_available

if TYPE_CHECKING:
    from ..data import SampleDataset
    from ..models import DepthSegPreTrainedModel

MOST_COMPARED = 5000
"""Images that are compared with each other; of more, as many are taken evenly over time."""


@torch.no_grad()
def describe_images(
    model: DepthSegPreTrainedModel, processor: DepthSegImageProcessor, images: SampleDataset
) -> np.ndarray:
    """The mean over the pixels of the encoder's last feature map, of every image: float32 `(N, C)`."""
    rows = []
    for index in tqdm(range(len(images)), desc="features", unit="image", leave=False):
        inputs = processor(images=[images[index].image], return_tensors="pt").to(model.device)
        rows.append(model.encode(inputs["pixel_values"]).maps[-1].float().mean(dim=(2, 3))[0].cpu().numpy())
    return np.stack(rows)


def choose_images(
    model: DepthSegPreTrainedModel, processor: DepthSegImageProcessor, images: SampleDataset, count: int
) -> list[str]:
    """Names of images to label, the most useful first; see `coverage_order`.

    Args:
        model: Any depthseg model in evaluation mode; its encoder is used.
        processor: Its image processor.
        images: What to choose from; labels are not read.
        count: How many.

    Raises:
        ValueError: There are fewer.
    """
    candidates = Subset(images, [images.names[index] for index in evenly_spaced(len(images), MOST_COMPARED)])
    order = coverage_order(describe_images(model, processor, candidates), count)
    return [candidates.names[index] for index in order]


def choose_frames(path: str, model_path: str, count: int, out: str | Path | None = None) -> list[str]:
    """Choose frames of a film, or images of a folder, and write them as PNG files for an annotation tool.

    Args:
        path: Film, folder of images or folder of clips.
        model_path: Checkpoint directory or Hub id of a depth, segmentation or classification model.
        count: How many.
        out: New or empty folder for the files; None = none are written.

    Returns:
        Their names, the most useful first.

    Raises:
        FileNotFoundError: There is no such film, folder or checkpoint.
        FileExistsError: `out` holds files.
        ValueError: Fewer images than asked for, or a model of another kind.
    """
    if out is not None and Path(out).is_dir() and any(Path(out).iterdir()):
        raise FileExistsError(f"{out} holds files; name a new or an empty folder.")
    images = load_dataset("video", path, "all", frames=[])
    check_available(model_path)
    # The head is not used: of any checkpoint the encoder is taken.
    model = DepthSegForSemanticSegmentation.from_pretrained(model_path, num_labels=2).eval()
    processor = DepthSegImageProcessor.from_pretrained(model_path)
    names = choose_images(model, processor, images, count)
    if out is not None:
        chosen = Subset(images, names)
        with atomic_folder(Path(out)) as folder:
            folder.mkdir()
            for index, name in enumerate(names):
                Image.fromarray(chosen[index].image).save(folder / f"{name.replace('/', '_')}.png")
    return names
