"""Label spaces: the classes of a data set, their ids and their colours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .label_encoding import LabelEncoding


@dataclass(frozen=True)
class LabelSpace:
    """Classes 0..K-1 of a data set.

    One class stands against a background, which is added: the ids are then 0 for the background and 1 for the class.

    Attributes:
        name: Short name of the space.
        classes: Class names in id order, the background of a single class included.
        palette: RGB in id order, 0..255 each.
        ignore_index: The id of pixels without a class.
        one_class: Whether it is one class against a background.

    Raises:
        ValueError: No class, more classes than the ids below `ignore_index`, a class name twice, or a palette of
            another length.
    """

    name: str
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_index: int = 255
    one_class: bool = False

    def __post_init__(self) -> None:
        if len(self.classes) == 1 == len(self.palette):
            object.__setattr__(self, "one_class", True)
            object.__setattr__(self, "classes", ("background", *self.classes))
            object.__setattr__(self, "palette", ((0, 0, 0), *self.palette))
        if not 1 <= len(self.classes) <= self.ignore_index:
            raise ValueError(
                f"Label space {self.name!r} has {len(self.classes)} classes; 1 to {self.ignore_index} are possible, "
                f"because ids are stored in one byte and {self.ignore_index} means 'ignored'."
            )
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise ValueError(f"Label space {self.name!r} names a class more than once: {', '.join(repeated)}.")
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"Label space {self.name!r} has {len(self.classes)} classes but {len(self.palette)} colours; "
                "give one RGB triple for each class."
            )

    @property
    def num_labels(self) -> int:
        """Number of classes K, a background that was added left out."""
        return 1 if self.one_class else len(self.classes)

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.classes[1:] if self.one_class else self.classes

    @property
    def id2label(self) -> dict[int, str]:
        """Class name of each id, as model configurations want it."""
        return dict(enumerate(self.classes))

    @property
    def label2id(self) -> dict[str, int]:
        """Id of each class name."""
        return {name: index for index, name in enumerate(self.classes)}


def default_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for classes that come without: the bit rule of Pascal VOC, all different up to 256.

    The three lowest bits of the id become the highest bits of red, green and blue, the next three the next highest,
    and so on; id 0 is black.

    Args:
        num_classes: Number of colours, 1 to 256.

    Source:
        `VOClabelcolormap` of the Pascal VOC development kit.
    """
    return tuple(_voc_colour(index) for index in range(num_classes))


def _voc_colour(index: int) -> tuple[int, int, int]:
    red = green = blue = 0
    for level in range(8):
        bits = index >> (3 * level)
        red |= (bits & 1) << (7 - level)
        green |= (bits >> 1 & 1) << (7 - level)
        blue |= (bits >> 2 & 1) << (7 - level)
    return red, green, blue


def _read_spaces() -> tuple[dict[str, LabelSpace], dict[str, LabelEncoding]]:
    """The label spaces of published data sets, and how their official label maps are encoded."""
    spaces, encodings = {}, {}
    content = json.loads((Path(__file__).parent / "label_spaces.json").read_text(encoding="utf-8"))
    for name, entry in content.items():
        spaces[name] = LabelSpace(name, tuple(entry["classes"]), tuple(map(tuple, entry["palette"])))
        encodings[name] = LabelEncoding(dict(enumerate(entry["file_ids"])))
    return spaces, encodings


LABEL_SPACES, ENCODINGS = _read_spaces()
"""Label spaces of published data sets by name; and by the same name, how their official label maps are encoded.

`camvid11` are the classes of CamVid as SegNet uses them, with 11 = unlabelled. `cityscapes19` are the evaluated
classes of Cityscapes and of KITTI's semantics, encoded as labelIds; `kitti34` are all labelIds. `ade150` counts from
1, with 0 = other objects. `nyu40` and `nyu13` are encoded as the 894 labels of the `.mat` file, with 0 = unlabelled.
"""

CAMVID11 = LABEL_SPACES["camvid11"]
