"""The stamp of a score: what was compared with what, and how; scores with different stamps are not ranked together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..data.label_spaces import ENCODINGS, LABEL_SPACES

if TYPE_CHECKING:
    from ..data.label_spaces import LabelSpace

OWN_SIZE = "own size"
"""Resolution of scores for which the prediction is brought to the size of each image's own label map."""

ONE_MATRIX = "one matrix over the data set"
IMAGE_MEAN = "mean over images of per-image IoU"
ABSENT_EXCLUDED = "excluded where neither labelled nor predicted"
DIGITS = 12


@dataclass(frozen=True)
class Stamp:
    """How a segmentation score was computed.

    Attributes:
        label_space: `label_space_hash` of the classes.
        ignore_id: Id of the pixels that are not counted; None = every pixel counts.
        resolution: At which prediction and labels are compared: `own size`, or `HEIGHTxWIDTH`.
        window: Height and width of the sliding window; None = the whole image at once.
        stride: Rows and columns from one window to the next; None without a window.
        scales: Factors of the image's size, whose predictions are averaged.
        flip: Whether predictions of the mirrored image are averaged in.
        reduction: `one matrix over the data set`, or `mean over images of per-image IoU`.
        image_interpolation: Of the image, before the network sees it.
        logit_interpolation: Of the network's output, to the resolution of the comparison.
        label_interpolation: Of the labels; `none` at their own size.
        absent_classes: What becomes of the IoU of a class that an image or a data set does not show.
        corruption: What was done to the images, such as `fog:2`, see `depthseg.data.corruptions`; None = nothing, and
            the stamp is that of versions without this part.
    """

    label_space: str
    ignore_id: int | None = 255
    resolution: str = OWN_SIZE
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    reduction: str = ONE_MATRIX
    image_interpolation: str = "the model's own"
    logit_interpolation: str = "bilinear"
    label_interpolation: str = "none"
    absent_classes: str = ABSENT_EXCLUDED
    corruption: str | None = None

    @property
    def digest(self) -> str:
        """12 hexadecimal digits; equal stamps have equal ones."""
        return _hash(self._written())

    def to_dict(self) -> dict[str, Any]:
        """As it is written to JSON, with its digest."""
        return {"digest": self.digest} | json.loads(json.dumps(self._written()))

    def _written(self) -> dict[str, Any]:
        parts = asdict(self)
        return parts if self.corruption else {name: parts[name] for name in parts if name != "corruption"}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Stamp:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: A part is missing or unknown, or the digest is that of another stamp.
        """
        parts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in written.items()
        }
        digest = parts.pop("digest", None)
        names = {part.name for part in fields(cls)} - ({"corruption"} - set(parts))
        if wrong := names ^ set(parts):
            raise ValueError(f"The stamp of a score lacks or does not know {', '.join(sorted(wrong))}: {written}.")
        stamp = cls(**parts)
        if digest != stamp.digest:
            raise ValueError(f"The stamp of a score was changed: its digest is {digest}, not {stamp.digest}.")
        return stamp

    def __str__(self) -> str:
        window = (
            f"windows of {_size(self.window)} every {_size(self.stride)}"
            if self.window and self.stride
            else "whole image"
        )
        scales = f"scales {', '.join(f'{scale:g}' for scale in self.scales)}"
        ignored = "no id ignored" if self.ignore_id is None else f"id {self.ignore_id} ignored"
        corrupted = [f"images corrupted by {self.corruption}"] if self.corruption else []
        return "; ".join(
            [
                f"stamp {self.digest}: label space {self.label_space}",
                ignored,
                f"compared at {self.resolution}",
                f"{window}, {scales}, {'with' if self.flip else 'no'} flip",
                self.reduction,
                f"image {self.image_interpolation}, logits {self.logit_interpolation}, labels "
                f"{self.label_interpolation}",
                f"absent classes {self.absent_classes}",
                *corrupted,
            ]
        )


def label_space_hash(classes: Mapping[int, str], file_ids: Mapping[int, int] | None = None) -> str:
    """Hash of the classes of a score: their names, their ids, and which value of a label file becomes which id.

    Args:
        classes: Id -> name of every class that the score counts.
        file_ids: Value in the file -> id; None = where the data set has no official encoding.

    Returns:
        12 hexadecimal digits.
    """
    mapping = None if file_ids is None else sorted((int(value), int(id)) for value, id in file_ids.items())
    return _hash([sorted((int(id), str(name)) for id, name in classes.items()), mapping])


def file_ids_of(space: LabelSpace) -> dict[int, int] | None:
    """Value in the official label file -> class id of a label space; None where it is not one of `LABEL_SPACES`."""
    known = LABEL_SPACES.get(space.name)
    return dict(ENCODINGS[space.name].class_ids) if known == space else None


def check_same_stamps(stamps: Mapping[str, Stamp | Mapping[str, Any] | None]) -> None:
    """Refuse to compare scores that were computed in different ways.

    Args:
        stamps: By the name of the score. None = written before scores carried stamps; says nothing and is let through.

    Raises:
        ValueError: Two stamps differ; the sentence says in what.
    """
    known = {
        name: stamp if isinstance(stamp, Stamp) else Stamp.from_dict(stamp)
        for name, stamp in stamps.items()
        if stamp is not None
    }
    if not known:
        return
    (first_name, first), *others = known.items()
    for name, stamp in others:
        if differing := differences(first, stamp):
            raise ValueError(
                f"The scores of {first_name} and {name} cannot be compared, because their stamps differ in "
                f"{'; '.join(differing)}. Evaluate both with one protocol."
            )


def differences(one: Stamp, other: Stamp) -> list[str]:
    """What two stamps differ in, such as `resolution (own size, 192x640)`."""
    pairs = {part.name: (getattr(one, part.name), getattr(other, part.name)) for part in fields(Stamp)}
    return [
        f"{name.replace('_', ' ')} ({_text(ours)}, {_text(theirs)})"
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{number:g}" for number in value) + "]"
    return "none" if value is None else str(value)


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
