"""Reading every file of a data set, and writing down what fails instead of stopping there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..depth_units import DepthRange
from ..faults import fault_of
from ..folder_files import describe_altered, describe_orientation, suffix_option
from ..image_folders import (
    ALTERING_SUFFIXES,
    DEPTH_SUFFIXES,
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    MapFiles,
    describe_unread,
    list_images,
    unread_files,
)
from ..images import check_same_size, image_mode, read_grey_range, read_labels, read_oriented_image
from ..label_encoding import distinct
from ..layout import image_of
from .depth import examine_depth
from .labels import Size
from .report import DatasetReport, SplitCount

T = TypeVar("T")

# Images that users have and that are not read; any other file among the images is taken for a note of theirs.
_OTHER_IMAGES = (".avif", ".cr2", ".dng", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".nef", ".psd", ".raw")
# Files beside the frames of a recording that data sets read.
_RECORDING_FILES = ("calib.txt", "poses.txt")


@dataclass
class Finding:
    """What is known of one image.

    Attributes:
        path: Its file.
        size: Height and width; None = it cannot be read.
        pixels: int64 `(K + 1,)`, pixels of each class, ignored ones last; None = no label map that can be read.
        depth: Range of its depth; None = no depth map that can be read.
    """

    path: Path
    size: tuple[int, int] | None = None
    pixels: np.ndarray | None = None
    depth: DepthRange | None = None


@dataclass
class Scan:
    """Reads the files of a folder of images with its label and depth folders.

    Attributes:
        report: Takes what is wrong.
        num_ids: Number of class ids.
        read_labels: Reads a label map and checks its ids; None = label maps are not read.
        label_end: What the stems of label maps have behind that of their image.
        label_values: Reads the values of a label map as stored.
        label_suffixes: Endings of label maps.
        labels_required: Whether every image must have a label map.
        read_depth: Reads a depth map.
        depth_scale: Units of 16-bit depth files per metre; None where depth is made of something else.
        upright: Whether images are read upright, as their EXIF orientation says.
        refused: Number of label maps that were refused.
        ids: All ids of all label maps that can be decoded.
        other_sizes: Sizes of image and map, for the maps of another size.
        maps: Number of all label and depth maps.
    """

    report: DatasetReport
    num_ids: int = 0
    read_labels: Callable[[Path], np.ndarray] | None = None
    label_end: str = ""
    label_values: Callable[[Path], np.ndarray] | None = None
    label_suffixes: Sequence[str] = LABEL_SUFFIXES
    labels_required: bool = False
    read_depth: Callable[[Path], np.ndarray] | None = None
    depth_scale: float | None = None
    upright: bool = True
    refused: int = 0
    ids: set[int] = field(default_factory=set)
    other_sizes: list[tuple[Size, Size]] = field(default_factory=list)
    maps: int = 0

    def run(
        self, images: Path, labels: Path | None, depth: Path | None, suffixes: Sequence[str]
    ) -> dict[str, Finding]:
        """Findings by stem."""
        paths = self.list(images, suffixes)
        label_files = MapFiles(labels or "", self.label_suffixes, self.label_end)
        depth_files = MapFiles(depth or "")
        for folder, endings, end in ((labels, self.label_suffixes, self.label_end), (depth, DEPTH_SUFFIXES, "")):
            if folder is not None and folder.is_dir():
                self._report_strays(folder, endings, end, paths, images)
        findings = {stem: self._look(path, label_files, depth_files, labels) for stem, path in paths.items()}
        self._report_wide_images(paths.values())
        return findings

    def list(self, images: Path, suffixes: Sequence[str]) -> dict[str, Path]:
        """The images of a folder by stem; reports duplicate stems and files that are not read."""
        paths: dict[str, Path] = {}
        for path in list_images(images, suffixes):
            if path.stem in paths:
                sentence = f"{paths[path.stem]} and {path} have the same stem; rename one."
                self.report.problem(sentence, path, "same stem")
            paths.setdefault(path.stem, path)
        if not paths:
            self.report.problem(f"{images} holds no image.")
        unread = unread_files(images, suffixes)
        if lost := [path for path in unread if path.suffix.lower() in (*_OTHER_IMAGES, *IMAGE_SUFFIXES)]:
            self.report.problem(f"{describe_unread(lost, 'images', suffixes)} Convert them.")
        if rest := [path for path in unread if path not in lost and path.name not in _RECORDING_FILES]:
            self.report.note(describe_unread(rest, "images", suffixes))
        return paths

    def attempt(self, action: Callable[[], T], path: Path) -> T | None:
        """What an action gives, or None where it fails on a file; the fault is reported."""
        try:
            return action()
        except (ValueError, OSError) as error:
            self.report.faults.append(fault_of(error, path))
            return None

    def _report_strays(
        self, folder: Path, suffixes: Sequence[str], end: str, paths: dict[str, Path], images: Path
    ) -> None:
        strays = {
            path: image_of(path.stem, paths)
            for path in list_images(folder, suffixes)
            if not (path.stem.endswith(end) and path.stem.removesuffix(end) in paths)
        }
        ends = {path.stem: meant for path, meant in strays.items() if meant and suffixes is self.label_suffixes}
        option = suffix_option(ends)
        for path, meant in strays.items():
            hint = f" Rename it to {meant}{path.suffix} if it belongs to {paths[meant].name}" if meant else ""
            hint += f", or give {option}" * bool(hint and option) + "." * bool(hint)
            sentence = f"{path} has no image of the same stem in {images}.{hint}"
            self.report.problem(sentence, path, ("stray", folder))
        unread = unread_files(folder, suffixes)
        named = [path for path in unread if path.stem.removesuffix(end) in paths]
        altered = [path for path in named if path.suffix.lower() in ALTERING_SUFFIXES]
        if altered and suffixes is self.label_suffixes:
            self.report.problem(describe_altered(altered))
        if lost := [path for path in named if path not in altered or suffixes is not self.label_suffixes]:
            self.report.problem(describe_unread(lost, "maps", suffixes))
        if rest := [path for path in unread if path not in named]:
            self.report.note(describe_unread(rest, "maps", suffixes))

    def _report_wide_images(self, paths: Collection[Path]) -> None:
        """Report the range of images of more than 8 bits: values of 10 or 12 bits in files of 16 are dark."""
        wide = [path for path in paths if (image_mode(path) or "").startswith("I")]
        ranges = [found for path in wide if (found := self._grey_range(path)) is not None]
        if ranges:
            low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
            self.report.note(
                f"Of {len(paths)} images, {len(ranges)} have grey values of 16 bits, from {low} to {high}: "
                f"{high.bit_length()} of the 16 bits are used."
            )

    def _grey_range(self, path: Path) -> tuple[int, int] | None:
        try:
            return read_grey_range(path)
        except (ValueError, OSError):  # reported when the image was read
            return None

    def _look(self, path: Path, labels: MapFiles, depth: MapFiles, label_folder: Path | None) -> Finding:
        image, orientation = self.attempt(lambda: read_oriented_image(path, self.upright), path) or (None, 1)
        finding = Finding(path, size=None if image is None else image.shape[:2])
        label_path = self.attempt(lambda: labels.find(path.stem), path)
        if label_path and self.read_labels:
            finding.pixels = self._count_labels(label_path, path, image)
        elif self.labels_required and label_folder:
            missing = label_folder / f"{path.stem}.png"
            self.report.problem(f"{path} has no label map: {missing} is missing.", path, "no label map")
        depth_path = self.attempt(lambda: depth.find(path.stem), path)
        metres = self._read_map(depth_path, self.read_depth, path, image) if depth_path and self.read_depth else None
        if depth_path and metres is not None:
            finding.depth = examine_depth(self.report, depth_path, metres, self.depth_scale)
        if orientation != 1 and (label_path or depth_path):
            self.report.note(describe_orientation(path, orientation, self.upright), path, "EXIF orientation")
        return finding

    def _count_labels(self, path: Path, image_path: Path, image: np.ndarray | None) -> np.ndarray | None:
        assert self.read_labels is not None, "label maps are counted where they are read"
        ids = self._read_map(path, self.read_labels, image_path, image)
        if ids is None:
            self.refused += 1
            self.ids |= self._ids_of(path)
            return None
        pixels = np.bincount(np.minimum(ids, self.num_ids).ravel(), minlength=self.num_ids + 1)
        self.ids |= set(np.flatnonzero(pixels[:-1]).tolist())
        if not pixels[:-1].any():
            self.report.note(f"{path} has ignored pixels only.", path, "ignored only")
        return pixels

    def _ids_of(self, path: Path) -> set[int]:
        try:
            return set(distinct((self.label_values or read_labels)(path)))
        except (ValueError, OSError):  # reported when the label map was read
            return set()

    def _read_map(
        self, path: Path, read: Callable[[Path], np.ndarray], image_path: Path, image: np.ndarray | None
    ) -> np.ndarray | None:
        values = self.attempt(lambda: read(path), path)
        self.maps += 1
        if values is not None and image is not None:
            self.attempt(lambda: check_same_size(image_path, image, path, values), path)
            if image.shape[:2] != values.shape:
                self.other_sizes.append((image.shape[:2], values.shape))
        return values


def count(findings: Iterable[Finding], num_ids: int = 0) -> SplitCount:
    """What several images hold together."""
    findings = list(findings)
    maps = [finding.pixels for finding in findings if finding.pixels is not None]
    depths = [finding.depth for finding in findings if finding.depth is not None]
    return SplitCount(
        images=len(findings),
        labelled=len(maps),
        with_depth=len(depths),
        pixels=sum(maps, np.zeros(num_ids + 1, dtype=np.int64)),
        depth=DepthRange.joined(depths),
    )
