"""Label spaces: the classes of a data set, their ids and their colours."""

from __future__ import annotations

from dataclasses import dataclass


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


CAMVID11 = LabelSpace(
    name="camvid11",
    classes=(
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
"""The eleven classes of CamVid as SegNet uses them; its twelfth id, 11 = unlabelled, is read as 255."""

LABEL_SPACES: dict[str, LabelSpace] = {space.name: space for space in (CAMVID11,)}
"""Known label spaces by name."""
