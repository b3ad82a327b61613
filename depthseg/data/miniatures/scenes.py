"""Scenes of the procedural world, and their classes by the names of other label spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..label_spaces import CAMVID11
from ..synthetic.rendering import render
from ..synthetic.variants import VARIANTS


def scene(
    split: str, index: int, size: tuple[int, int], outputs: Sequence[str], *, time: float = 0, view: str = "left"
) -> dict[str, np.ndarray]:
    """Outputs of scene `index` of a split (train, val, test) at a time in frames; see `synthetic.rendering.render`."""
    world = VARIANTS["first"]
    return render(world.seeds[split], index, size, view=view, time=time, outputs=outputs, world=world.parameters)


def encode_labels(labels: np.ndarray, file_ids: Mapping[str, int]) -> np.ndarray:
    """Labels `(H, W)` of the world as the values of another label file.

    Args:
        labels: Ids of the eleven classes of CamVid.
        file_ids: Class of CamVid -> value in the file; every class.
    """
    return np.array([file_ids[name] for name in CAMVID11.classes])[labels]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def save(path: Path, values: np.ndarray, **options: Any) -> None:
    """Write an image, its folder included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
