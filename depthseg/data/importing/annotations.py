"""What annotation tools say about images, in one form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

Order = Literal["largest-first", "file"]
"""Which of overlapping objects are painted first: the larger ones, or those that come first in the file."""

BACKGROUNDS = ("background", "_background_", "__background__")
"""What tools call the pixels of no object."""

IGNORED_LABELS = ("__ignore__",)
"""What tools call pixels that are to be left out."""


@dataclass(frozen=True)
class Region:
    """An object.

    Attributes:
        label: Its class.
        draw: `draw(height, width)` -> its pixels, bool `(height, width)`; raises ValueError with what is wrong.
        is_ignored: Whether its pixels are to be left out.
    """

    label: str
    draw: Callable[[int, int], np.ndarray]
    is_ignored: bool = False


@dataclass(frozen=True)
class MaskFile:
    """A label map as a tool writes it.

    Attributes:
        read: Gives its values, integers `(H, W)`.
        labels: Value -> class, None = to be left out.
    """

    read: Callable[[], np.ndarray]
    labels: Mapping[int, str | None]


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and its annotations.

    Attributes:
        file: Its file name as the tool has it.
        source: The file that annotates it, for messages.
        folders: Where it is looked for, if not in the folders that the user gives.
        size: Width and height by the annotations; None = not said.
        regions: Objects in the order of the file.
        mask: Its label map, in place of objects.
        data: The image file itself, where the annotations hold it.
        split: `train`, `val` or `test`; None = not said.
        other_names: Further names that its file may have.
    """

    file: str
    source: Path
    folders: tuple[Path, ...] = ()
    size: tuple[int, int] | None = None
    regions: tuple[Region, ...] = ()
    mask: MaskFile | None = None
    data: bytes | None = None
    split: str | None = None
    other_names: tuple[str, ...] = ()


@dataclass
class Annotations:
    """What a tool has written.

    Attributes:
        labels: Classes in the order of their ids.
        images: The images.
        order: How overlapping objects are painted, where the user does not say.
        notes: What was left out.
    """

    labels: list[str]
    images: list[AnnotatedImage]
    order: Order = "file"
    notes: list[str] = field(default_factory=list)
