"""What the values of label files mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IGNORED = 255
"""Class id of the pixels that are ignored."""


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
        found = np.unique(values).tolist()
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
