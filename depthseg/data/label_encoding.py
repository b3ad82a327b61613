"""What the values of label files mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

IGNORED = 255
"""Class id of the pixels that are ignored."""


def distinct(values: np.ndarray) -> list[int]:
    """The values that an array of integers holds, sorted; of bytes they are marked in a table, which is faster."""
    if values.dtype != np.uint8:
        return [int(value) for value in np.unique(values)]
    held = np.zeros(256, bool)
    held[values] = True
    return np.flatnonzero(held).tolist()


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
        lowest = min(found)
        table = np.full(max(found) - lowest + 1, IGNORED, np.uint8)
        for value in found:
            table[value - lowest] = self.class_ids[value]
        return table[values.astype(np.int64) - lowest]

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


def own_encoding(num_ids: int, label_map: Mapping[Any, Any] | None = None) -> LabelEncoding:
    """The encoding of label maps that users have: class ids as they are, 255 = ignored, and what `label_map` says.

    Args:
        num_ids: Number of class ids K.
        label_map: Value in the file -> class id 0..K-1, or `ignore`; such as `{11: ignore, 255: 1}`. It comes before
            what a value means without it.

    Raises:
        ValueError: A key that is no whole number, or a value that is neither a class id nor `ignore`.
    """
    given = {}
    for key, value in (label_map or {}).items():
        ignored = value in ("ignore", IGNORED)
        if not (_is_whole(key) and (ignored or (_is_whole(value) and 0 <= int(value) < num_ids))):
            raise ValueError(
                f"The option label_map has the entry {key}: {value}. An entry is a value of the label maps and its "
                f"class id, 0 to {num_ids - 1}, or `ignore`: such as label_map={{11: ignore, 255: 1}}."
            )
        given[int(key)] = IGNORED if ignored else int(value)
    return LabelEncoding({**{value: value for value in range(num_ids)}, IGNORED: IGNORED, **given})


def _is_whole(value: Any) -> bool:
    return re.fullmatch(r"-?[0-9]+", str(value)) is not None
