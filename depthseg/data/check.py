"""Looking through a data set on disk: what is there, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from .camvid import CamVid, read_camvid_labels, split_folders
from .folder import divide, read_folder_labels, read_label_space, read_list
from .images import (
    IMAGE_SUFFIXES,
    KITTI_DEPTH_SCALE,
    check_same_size,
    find_map,
    list_images,
    read_depth,
    read_image,
)
from .label_spaces import CAMVID11, LabelSpace

_SHOWN_PROBLEMS = 20


@dataclass
class SplitCount:
    """What a split holds.

    Attributes:
        images: Number of images.
        labelled: Those with a label map that can be read.
        with_depth: Those with a depth map that can be read.
        pixels: int64 `(K + 1,)`: labelled pixels of each class, ignored pixels last.
    """

    images: int
    labelled: int
    with_depth: int
    pixels: np.ndarray


@dataclass
class DatasetReport:
    """What `check_dataset` found.

    Attributes:
        name: Name of the data set.
        root: Its folder.
        label_space: Its classes, if it has any.
        splits: Counts by split; splits that are not there are left out.
        problems: One sentence for each thing that is wrong; empty if all is well.
        notes: What is worth knowing but not wrong.
    """

    name: str
    root: Path
    label_space: LabelSpace | None = None
    splits: dict[str, SplitCount] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def render(self) -> str:
        """Counts, class shares and problems as text."""
        lines = [f"{self.name} in {self.root}"]
        for split, count in self.splits.items():
            maps = f"{count.labelled} label maps, {count.with_depth} depth maps"
            lines.append(f"  {split}: {count.images} images, {maps}")
        lines += self._class_lines() + [f"  {note}" for note in self.notes]
        if not self.problems:
            return "\n".join([*lines, "No problems found."])
        lines.append(f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}:")
        lines += [f"  - {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]]
        if len(self.problems) > _SHOWN_PROBLEMS:
            lines.append(f"  ... and {len(self.problems) - _SHOWN_PROBLEMS} more")
        return "\n".join(lines)

    __str__ = render

    def _class_lines(self) -> list[str]:
        labelled = {split: count.pixels for split, count in self.splits.items() if count.labelled}
        if self.label_space is None or not labelled:
            return []
        names = [*self.label_space.classes, "(ignored)"]
        ids = [*range(self.label_space.num_labels), self.label_space.ignore_index]
        width = max(map(len, names))
        lines = [f"  {'id':>3}  {'class':<{width}}" + "".join(f"{split:>9}" for split in labelled) + "   % of pixels"]
        for row, (index, name) in enumerate(zip(ids, names, strict=True)):
            shares = "".join(f"{100 * pixels[row] / pixels.sum():9.2f}" for pixels in labelled.values())
            lines.append(f"  {index:>3}  {name:<{width}}{shares}")
        return lines


def check_dataset(name: str, root: str | Path, **options: float) -> DatasetReport:
    """Read every file of a data set and collect what is wrong instead of stopping at the first fault.

    Args:
        name: `camvid` or `folder`.
        root: Folder of the data.
        **options: For `folder`: `val_fraction`, `seed` and `depth_scale` as in `FolderDataset`.

    Raises:
        ValueError: This data set cannot be checked.
    """
    if name not in _CHECKS:
        hint = " Look at its frames with `depthseg datasets doctor PATH`." if name in ("video", "stereo") else ""
        raise ValueError(f"{name!r} data sets cannot be checked here, only {' and '.join(_CHECKS)}.{hint}")
    report = DatasetReport(name=name, root=Path(root))
    if not report.root.is_dir():
        report.problems.append(f"The folder {root} does not exist.")
        return report
    _CHECKS[name](report, **options)
    return report


@dataclass
class _Finding:
    """What is known of one image: class pixels (None = no readable label map) and whether depth can be read."""

    pixels: np.ndarray | None
    has_depth: bool


@dataclass
class _Scan:
    """Reads the files of one image folder with its label and depth folders, writing down what fails."""

    problems: list[str]
    num_labels: int
    read_labels: Callable[[Path], np.ndarray] | None
    read_depth: Callable[[Path], np.ndarray] | None = None
    labels_required: bool = False

    def run(self, images: Path, labels: Path, depth: Path | None, suffixes: Iterable[str]) -> dict[str, _Finding]:
        """Findings by stem."""
        paths: dict[str, Path] = {}
        for path in list_images(images, tuple(suffixes)):
            if path.stem in paths:
                self.problems.append(f"{paths[path.stem]} and {path} have the same stem; rename one.")
            paths.setdefault(path.stem, path)
        if not paths:
            self.problems.append(f"{images} holds no image.")
        for folder in filter(None, (labels, depth)):
            self._report_strays(folder, paths, images)
        return {stem: self._look(path, labels, depth) for stem, path in paths.items()}

    def _report_strays(self, folder: Path, stems: Iterable[str], images: Path) -> None:
        for path in list_images(folder) if folder.is_dir() else ():
            if path.suffix != ".png":
                self.problems.append(f"{path} is not read: label and depth maps are PNG files (JPEG alters ids).")
            elif path.stem not in stems:
                self.problems.append(f"{path} has no image of the same stem in {images}.")

    def _look(self, path: Path, labels: Path, depth: Path | None) -> _Finding:
        image = self._try(lambda: read_image(path))
        label_path = labels / f"{path.stem}.png"
        ids = self._read_map(label_path, self.read_labels, path, image)
        if self.labels_required and not label_path.is_file():
            self.problems.append(f"{path} has no label map: {label_path} is missing.")
        depth_path = self._try(lambda: find_map(depth, path.stem)) if depth else None
        metres = self._read_map(depth_path, self.read_depth, path, image) if depth_path else None
        pixels = None
        if ids is not None:
            pixels = np.bincount(np.minimum(ids, self.num_labels).ravel(), minlength=self.num_labels + 1)
        return _Finding(pixels=pixels, has_depth=metres is not None)

    def _read_map(
        self, path: Path, read: Callable[[Path], np.ndarray] | None, image_path: Path, image: np.ndarray | None
    ) -> np.ndarray | None:
        if read is None or not path.is_file():
            return None
        values = self._try(lambda: read(path))
        if values is not None and image is not None:
            self._try(lambda: check_same_size(image_path, image, path, values))
        return values

    def _try(self, action: Callable[[], np.ndarray | None]) -> np.ndarray | None:
        try:
            return action()
        except (ValueError, OSError) as error:
            self.problems.append(str(error))
            return None


def _count(findings: Iterable[_Finding], num_labels: int) -> SplitCount:
    findings = list(findings)
    maps = [finding.pixels for finding in findings if finding.pixels is not None]
    return SplitCount(
        images=len(findings),
        labelled=len(maps),
        with_depth=sum(finding.has_depth for finding in findings),
        pixels=sum(maps, np.zeros(num_labels + 1, dtype=np.int64)),
    )


def _check_camvid(report: DatasetReport) -> None:
    report.label_space = CAMVID11
    scan = _Scan(report.problems, CAMVID11.num_labels, read_camvid_labels, labels_required=True)
    for split in CamVid.splits:
        images, labels = split_folders(report.root, split)
        there = [folder for folder in (images, labels) if folder.is_dir()]
        if len(there) == 1:
            missing = labels if images in there else images
            report.problems.append(f"{there[0]} is there but {missing} is missing.")
        elif there:
            report.splits[split] = _count(scan.run(images, labels, None, (".png",)).values(), scan.num_labels)
    if not report.splits and not report.problems:
        folders = ", ".join(f"{split}/ with {split}annot/" for split in CamVid.splits)
        report.problems.append(f"{report.root} is not in the SegNet layout; expected {folders}.")


def _check_folder(
    report: DatasetReport, val_fraction: float = 0.2, seed: int = 0, depth_scale: float = KITTI_DEPTH_SCALE
) -> None:
    folders = {kind: report.root / kind for kind in ("images", "labels", "depth")}
    if not folders["images"].is_dir():
        report.problems.append(f"The folder {folders['images']} does not exist.")
        return
    space = None
    try:
        space = report.label_space = read_label_space(report.root)
    except (ValueError, OSError) as error:
        report.problems.append(str(error))
    read = partial(read_folder_labels, space=space) if space else None
    scan = _Scan(report.problems, space.num_labels if space else 0, read, partial(read_depth, scale=depth_scale))
    findings = scan.run(folders["images"], folders["labels"], folders["depth"], IMAGE_SUFFIXES)
    report.splits["all"] = _count(findings.values(), scan.num_labels)
    for split, names in _folder_splits(report, findings, val_fraction, seed).items():
        report.splits[split] = _count([findings[name] for name in names], scan.num_labels)


def _folder_splits(
    report: DatasetReport, findings: dict[str, _Finding], val_fraction: float, seed: int
) -> dict[str, list[str]]:
    """Names of `train` and `val` that can be used: labelled images, or those with depth where nothing is labelled."""
    labelled = [name for name, finding in findings.items() if finding.pixels is not None]
    ready = labelled or [name for name, finding in findings.items() if finding.has_depth]
    truth = "label map" if labelled else "depth map"
    if not ready:
        report.notes.append("No image has a label or depth map: the folder serves for prediction only.")
    elif len(ready) < len(findings):
        report.notes.append(f"{len(findings) - len(ready)} of {len(findings)} images have no readable {truth}.")
    splits: dict[str, list[str]] = {}
    for split in ("train", "val"):
        try:
            listed = read_list(report.root, split)
        except (ValueError, OSError) as error:
            report.problems.append(str(error))
            continue
        for name in listed or ():
            if name not in ready:
                lacks = truth if name in findings else "image"
                report.problems.append(f"{report.root / split}.txt lists {name!r}, which has no readable {lacks}.")
        usable = set(ready)
        splits[split] = (
            divide(ready, split, val_fraction, seed) if listed is None else [name for name in listed if name in usable]
        )
    common = sorted(set(splits.get("train", ())) & set(splits.get("val", ())))
    if common:
        report.problems.append(f"{len(common)} images are in train.txt and in val.txt, the first is {common[0]!r}.")
    return splits


_CHECKS: dict[str, Callable[..., None]] = {"camvid": _check_camvid, "folder": _check_folder}
