"""What a check has found, and how it is shown."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..depth_units import QUANTILES, DepthRange
from ..faults import Fault, grouped
from ..label_spaces import LabelSpace

_MANY_CLASSES = 40


@dataclass
class SplitCount:
    """What a split holds.

    Attributes:
        images: Number of images.
        labelled: Those with a label map that can be read.
        with_depth: Those with a depth map that can be read.
        pixels: int64 `(K + 1,)`: labelled pixels of each id of the label space, ignored pixels last.
        depth: Range of all depth maps; None if there are none.
    """

    images: int
    labelled: int
    with_depth: int
    pixels: np.ndarray
    depth: DepthRange | None = None


@dataclass
class DatasetReport:
    """What `check_dataset` found.

    Attributes:
        name: Name of the data set.
        root: Its folder.
        what: What its images are called: images, pairs or frames.
        label_space: Its classes, if it has any.
        depth_unit: Unit of the depth ranges.
        splits: Counts by split; splits that are not there are left out.
        faults: What is wrong, file by file.
        remarks: What is worth knowing but not wrong, likewise.
    """

    name: str
    root: Path
    what: str = "images"
    label_space: LabelSpace | None = None
    depth_unit: str = "depth in metres"
    splits: dict[str, SplitCount] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[Fault] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One sentence for each thing that is wrong, however many files it concerns; empty if all is well."""
        return grouped(self.faults)

    @property
    def notes(self) -> list[str]:
        """What is worth knowing but not wrong, likewise."""
        return grouped(self.remarks)

    def problem(self, sentence: str, path: Path | None = None, kind: Hashable = None) -> None:
        """Add something wrong; sentences of one kind are shown as one."""
        self.faults.append(Fault(path or self.root, sentence, kind or sentence))

    def note(self, sentence: str, path: Path | None = None, kind: Hashable = None) -> None:
        """Add something worth knowing; sentences of one kind are shown as one."""
        self.remarks.append(Fault(path or self.root, sentence, kind or sentence))

    def render(self) -> str:
        """Counts, class shares, depth ranges, notes and problems as text."""
        lines = [f"{self.name} in {self.root}"]
        for split, count in self.splits.items():
            parts = [_counted(count.images, self.what)]
            if self.what == "images":
                parts.append(_counted(count.labelled, "label maps"))
            if self.what == "images" or count.with_depth:
                parts.append(_counted(count.with_depth, f"{self.depth_unit.split()[0]} maps"))
            lines.append(f"  {split}: {', '.join(parts)}")
        lines += self._class_lines() + self._depth_lines()
        problems, notes = self.problems, self.notes
        if notes:
            lines += ["Notes:", *(f"  - {note}" for note in notes)]
        if not problems:
            return "\n".join([*lines, "No problems found" + (", but read the notes above." if notes else ".")])
        lines.append(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}:")
        return "\n".join([*lines, *(f"  - {problem}" for problem in problems)])

    __str__ = render

    def _class_lines(self) -> list[str]:
        labelled = {split: count.pixels for split, count in self.splits.items() if count.labelled}
        if self.label_space is None or not labelled:
            return []
        names = [*self.label_space.classes, "(ignored)"]
        ids = [*range(len(names) - 1), self.label_space.ignore_index]
        width = max(map(len, names))
        columns = {split: max(9, len(split) + 2) for split in labelled}
        heads = "".join(f"{split:>{column}}" for split, column in columns.items())
        lines = [f"  {'id':>3}  {'class':<{width}}{heads}   % of pixels"]
        for row, (index, name) in enumerate(zip(ids, names, strict=True)):
            if len(names) > _MANY_CLASSES and not any(pixels[row] for pixels in labelled.values()):
                continue  # the notes count them
            shares = "".join(
                f"{100 * pixels[row] / pixels.sum():{columns[split]}.2f}" for split, pixels in labelled.items()
            )
            lines.append(f"  {index:>3}  {name:<{width}}{shares}")
        return lines

    def _depth_lines(self) -> list[str]:
        ranges = {split: count.depth for split, count in self.splits.items() if count.depth}
        if not ranges:
            return []
        titles = ("min", *(f"{quantile:.0%}" if quantile != 0.5 else "median" for quantile in QUANTILES), "max")
        width = max(len(self.depth_unit), *map(len, ranges))
        lines = [f"  {self.depth_unit:<{width}}" + "".join(f"{title:>9}" for title in titles) + "  % of pixels known"]
        for split, found in ranges.items():
            numbers = (found.low, *found.quantiles(), found.high)
            lines.append(
                f"  {split:<{width}}" + "".join(f"{_number(n):>9}" for n in numbers) + f"{found.known:>19.1%}"
            )
        return lines


def _counted(number: int, what: str) -> str:
    return f"{number} {what.removesuffix('s') if number == 1 else what}"


def _number(value: float | None) -> str:
    """Three significant digits without an exponent."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}" if value >= 1e-3 else f"{value:.1g}"
