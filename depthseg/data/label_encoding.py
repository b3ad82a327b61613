"""What the values of label files mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..choices import did_you_mean

IGNORE = "ignore"
"""The name of colours and values that mean no class."""

IGNORED = 255
"""Class id of the pixels that are ignored."""

_MOST = 65535
_RANGE = re.compile(r"(-?\d+)(?:-(\d+))?")
_EXAMPLE = "such as data.options.label_map={11: ignore, 255: 1}"


def distinct(values: np.ndarray) -> list[int]:
    """The values that an array of integers holds, sorted; of bytes Pillow counts them, which is faster."""
    if values.dtype != np.uint8 or not values.size:
        return [int(value) for value in np.unique(values)]
    return np.flatnonzero(Image.fromarray(values.reshape(1, -1)).histogram()).tolist()


@dataclass(frozen=True)
class LabelEncoding:
    """The class id of every value that a label file may hold.

    Attributes:
        class_ids: Value in the file -> class id, 255 = ignored. Values that are not listed are errors.
    """

    class_ids: Mapping[int, int]

    def decode(self, path: str | Path, values: np.ndarray) -> np.ndarray:
        """Translate a label map.

        Args:
            path: The file, for messages.
            values: Integers `(H, W)` as stored.

        Returns:
            uint8 `(H, W)`, class ids, 255 = ignored.

        Raises:
            ValueError: A value that is not listed; the message names the file, the values and what is allowed.
        """
        found = distinct(values)
        if wrong := [value for value in found if value not in self.class_ids]:
            shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
            raise ValueError(f"{path} holds class ids outside the label space: {shown}. Allowed are {self.allowed}.")
        if values.dtype == np.uint8:  # in the fastest way
            table = bytes(self.class_ids.get(value, IGNORED) for value in range(256))
            return np.frombuffer(bytearray(values).translate(table), np.uint8).reshape(values.shape)
        lowest = min(found)
        ids = np.full(max(found) - lowest + 1, IGNORED, np.uint8)
        for value in found:
            ids[value - lowest] = self.class_ids[value]
        return ids[values.astype(np.int64) - lowest]

    @property
    def allowed(self) -> str:
        """The values in words, such as `0 to 18 and 255`."""
        runs: list[list[int]] = []
        for value in sorted(self.class_ids):
            if runs and value == runs[-1][-1] + 1:
                runs[-1][1:] = [value]
            else:
                runs.append([value])
        words = [" to ".join(map(str, run)) for run in runs]
        return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def own_encoding(classes: Sequence[str], label_map: Mapping[Any, Any] | None = None) -> LabelEncoding:
    """The encoding of label maps that users have: class ids as they are, 255 = ignored, and what `label_map` says.

    Args:
        classes: Class names in id order.
        label_map: Value in the file -> class id, class name or `ignore`, such as `{11: ignore, 255: 1}`; ranges such
            as `1-150` -> `0-149` as well. It comes before what a value means without it.

    Raises:
        ValueError: A key that is no whole number or range, a value that is no class, or a value that is listed twice.
    """
    listed: dict[int, int] = {}
    for key, text in ((str(key), str(value)) for key, value in (label_map or {}).items()):
        values = _span(key)
        if values is None:
            raise ValueError(f"label_map: {key!r} is no value of a label map; write whole numbers, {_EXAMPLE}.")
        targets = _span(text) if "-" in text and text not in classes else None
        if targets is not None and len(targets) != len(values):
            raise ValueError(
                f"label_map: {key} -> {text} has {len(values)} values on the left and {len(targets)} on the right; "
                "ranges must be of one length."
            )
        for place, value in enumerate(values):
            if value in listed:
                raise ValueError(f"label_map lists the value {value} twice; {key} is one of them.")
            listed[value] = class_id(text if targets is None else str(targets[place]), classes, str(value))
    return LabelEncoding({value: value for value in range(len(classes))} | {IGNORED: IGNORED} | listed)


def class_id(text: str, classes: Sequence[str], key: str) -> int:
    """The id that a class id, a class name or `ignore` on the right of a `label_map` means.

    Args:
        text: What the option says.
        classes: Class names in id order.
        key: What is on the left, for messages.

    Raises:
        ValueError: There is no such class.
    """
    if text.lower() == IGNORE or text == str(IGNORED):
        return IGNORED
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    near = "" if text.isdecimal() else did_you_mean(text, [*classes, IGNORE])
    raise ValueError(
        f"label_map: {key} -> {text} is no class of this data set.{near} Write a class id from 0 to "
        f"{len(classes) - 1}, a class name, or {IGNORE}, {_EXAMPLE}."
    )


def _span(text: str) -> range | None:
    """The values of a number or range; None if the text is neither."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or not int(match[1]) <= int(match[2] or match[1]) <= _MOST:
        return None
    return range(int(match[1]), int(match[2] or match[1]) + 1)
