"""Writing what a tool says as a data folder: all of it, or nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...choices import did_you_mean
from ..faults import Fault, grouped
from ..folder_files import SPLIT_NAMES
from ..image_folders import IMAGE_SUFFIXES
from ..label_encoding import IGNORED, distinct
from ..label_spaces import default_palette
from .annotations import BACKGROUNDS, IGNORED_LABELS, AnnotatedImage, Annotations, Order
from .files import ImageFinder

Transfer = Literal["copy", "hardlink", "symlink"]

_MOST_CLASSES = 255
_ORIENTATION = 0x0112
# What turns stored pixels upright, by EXIF orientation.
_UPRIGHT = {
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.T,
    6: lambda values: values[::-1].T,
    7: lambda values: values[::-1, ::-1].T,
    8: lambda values: values.T[::-1],
}


@dataclass(frozen=True)
class ImportOptions:
    """How annotations become label maps.

    Attributes:
        order: Which of overlapping objects are painted first; None = as the tool has it.
        background: What pixels of no object are: `class` = the class `background`, or `ignore`.
        ignore: Labels whose pixels are left out.
        classes: Class names in the order of their ids; empty = as the tool has them.
        transfer: How images get into the folder.
    """

    order: Order | None = None
    background: Literal["class", "ignore"] = "class"
    ignore: Sequence[str] = ()
    classes: Sequence[str] = ()
    transfer: Transfer = "copy"


@dataclass
class ImportResult:
    """What was written.

    Attributes:
        folder: The data folder.
        classes: Class names in the order of their ids.
        images: Number of images.
        objects: Number of objects by class.
        splits: Number of images by split.
        notes: What was left out or may surprise.
    """

    folder: Path
    classes: list[str]
    images: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


class FolderWriter:
    """Writes annotations as a data folder.

    Args:
        annotations: What the tool says.
        finder: Finds the images.
        options: How annotations become label maps.

    Raises:
        ValueError: The labels make no classes.
    """

    def __init__(self, annotations: Annotations, finder: ImageFinder, options: ImportOptions) -> None:
        self._annotations, self._finder, self._options = annotations, finder, options
        self._order = options.order or annotations.order
        self._has_masks = any(image.mask is not None for image in annotations.images)
        self._ignored = {*map(_plain, options.ignore), *IGNORED_LABELS}
        known = set(map(_plain, annotations.labels))
        if unknown := [name for name in options.ignore if _plain(name) not in known]:
            near = did_you_mean(unknown[0], annotations.labels)
            raise ValueError(
                f"--ignore {unknown[0]}: no such label.{near} The labels are {', '.join(annotations.labels)}."
            )
        self.classes = self._class_names()
        self._ids = {name: index for index, name in enumerate(self.classes)}

    def _class_names(self) -> list[str]:
        options, labels = self._options, [_plain(name) for name in self._annotations.labels]
        labels = [name for name in dict.fromkeys(labels) if name not in self._ignored]
        named = [name for name in labels if name != "background" or options.background == "class"]
        if not self._has_masks and options.background == "class":
            named = ["background", *(name for name in labels if name != "background")]
        if options.classes:
            if missing := [name for name in named if name not in options.classes]:
                raise ValueError(
                    f"--classes does not name {', '.join(missing)}, which the annotations have. Add them, or leave "
                    f"their pixels out: --ignore {' '.join(missing)}."
                )
            named = list(options.classes)
        if len(named) > _MOST_CLASSES:
            raise ValueError(
                f"The annotations have {len(named)} classes, but a label map of 8 bits holds {_MOST_CLASSES} and the "
                "id of ignored pixels. Leave labels out with --ignore, or export fewer of them."
            )
        if len(named) < 2:
            raise ValueError(
                f"The annotations make {len(named)} classes ({', '.join(named)}), and a network needs two to tell "
                "apart. Pixels of no object become a class with --background class."
            )
        if wrong := [name for name in named if name != name.strip() or not name.isprintable() or not name]:
            raise ValueError(f"The class name {wrong[0]!r} cannot be a line of classes.txt; rename the label.")
        return named

    def write(self, folder: Path, record: dict[str, Any]) -> ImportResult:
        """Write the folder.

        Args:
            folder: Where it goes; it must not exist, or be empty.
            record: What IMPORTED.json says beside the counts.

        Raises:
            FileExistsError: The folder is not empty.
            ValueError: An image or its annotations cannot be used; nothing is written then.
        """
        folder = folder.absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is not empty, and nothing in it is overwritten; choose another --out.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            result = ImportResult(folder, self.classes, notes=list(self._annotations.notes))
            self._write_files(work, result)
            self._write_record(work, result, record)
            work.chmod(0o755)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return result

    def _write_files(self, work: Path, result: ImportResult) -> None:
        (work / "images").mkdir()
        (work / "labels").mkdir()
        names, faults = _names(self._annotations.images)
        lists: dict[str, list[str]] = {}
        notes: list[Fault] = []
        for image, name in zip(self._annotations.images, names, strict=True):
            try:
                self._write_image(work, image, name, result, notes)
            except (ValueError, OSError, KeyError, TypeError, IndexError) as error:
                sentence = str(error) if str(image.source) in str(error) else f"{image.source}: {error}"
                if isinstance(error, KeyError | TypeError | IndexError):
                    sentence = f"{image.source} has annotations of another form than expected ({error!r})."
                faults.append(Fault(image.source, sentence, sentence))
            if image.split:
                lists.setdefault(image.split, []).append(name)
        if faults:
            raise ValueError("\n".join([*grouped(faults)[:20], "Nothing was written."]))
        if not names:
            raise ValueError("The annotations name no image.")
        result.images = len(names)
        result.notes += grouped(notes)
        _write_lists(work, lists, result)
        (work / "classes.txt").write_text("".join(f"{name}\n" for name in self.classes), encoding="utf-8")

    def _write_image(
        self, work: Path, image: AnnotatedImage, name: str, result: ImportResult, notes: list[Fault]
    ) -> None:
        path: Path | None = None
        try:
            path = self._finder.find([image.file, *image.other_names], image.folders)
        except FileNotFoundError:
            if image.data is None:
                raise
        size, orientation, suffix = _look(path, image.data)
        upright = size[::-1] if orientation >= 5 else size
        stored = image.size == size != upright
        if image.size not in (None, upright) and not stored:
            raise ValueError(
                f"{image.file} is {upright[0]}x{upright[1]} pixels, but its annotations are for "
                f"{image.size[0]}x{image.size[1]}: it is another image, or was resized since. Give the folder of the "
                "right ones with --images."
            )
        width, height = size if stored else upright
        labels = self._paint(image, height, width, result)
        if labels.shape != (height, width):
            raise ValueError(
                f"the label map of {image.file} is {labels.shape[1]}x{labels.shape[0]} pixels, the image "
                f"{width}x{height}."
            )
        if stored:
            labels = _UPRIGHT[orientation](labels)
        elif orientation != 1:
            sentence = (
                f"{image.file} has EXIF orientation {orientation}; its annotations were taken for drawn on the "
                "upright image. Look at one, since their size does not tell."
            )
            notes.append(Fault(Path(image.file), sentence, "orientation"))
        target = Image.fromarray(np.ascontiguousarray(labels)).convert("L")
        target.putpalette(np.array(default_palette(256), np.uint8).tobytes())
        target.save(work / "labels" / f"{name}.png")
        self._transfer(path, image.data, work / "images" / f"{name}{suffix}")

    def _paint(self, image: AnnotatedImage, height: int, width: int, result: ImportResult) -> np.ndarray:
        if image.mask is not None:
            return self._translate(image, result)
        empty = IGNORED if self._options.background == "ignore" else self._ids["background"]
        labels = np.full((height, width), empty, np.uint8)
        drawn = [(region, region.draw(height, width)) for region in image.regions]
        if self._order == "largest-first":
            drawn.sort(key=lambda pair: -np.count_nonzero(pair[1]))
        for region, covered in drawn:
            labels[covered] = IGNORED if region.is_ignored else self._id_of(region.label)
            result.objects[_plain(region.label)] += 1
        return labels

    def _id_of(self, label: str) -> int:
        label = _plain(label)
        if label in self._ignored:
            return IGNORED
        return self._ids.get(label, IGNORED) if label == "background" else self._ids[label]

    def _translate(self, image: AnnotatedImage, result: ImportResult) -> np.ndarray:
        assert image.mask is not None, "an image with a mask is translated"
        values = image.mask.read()
        found = distinct(values)
        table = np.full(found[-1] + 1, IGNORED, np.uint8)
        for value in found:
            if value not in image.mask.labels:
                pixels = np.count_nonzero(values == value)
                raise ValueError(
                    f"the mask of {image.file} has the value {value} ({pixels} pixels), which no label has; they are "
                    f"{', '.join(f'{known} {name}' for known, name in image.mask.labels.items())}."
                )
            label = image.mask.labels[value]
            table[value] = IGNORED if label is None else self._id_of(label)
            if label is not None:
                result.objects[_plain(label)] += 1
        return table[values]

    def _transfer(self, path: Path | None, data: bytes | None, target: Path) -> None:
        if path is None:
            assert data is not None, "an image is a file or embedded"
            target.write_bytes(data)
        elif self._options.transfer == "symlink":
            target.symlink_to(path.resolve())
        elif self._options.transfer == "hardlink":
            try:
                os.link(path.resolve(), target)
            except OSError as error:
                raise ValueError(f"{path} cannot be linked there ({error.strerror}); use --transfer copy.") from error
        else:
            shutil.copyfile(path, target)

    def _write_record(self, work: Path, result: ImportResult, record: dict[str, Any]) -> None:
        content = {
            **record,
            "order": self._order,
            "background": self._options.background,
            "ignore": list(self._options.ignore),
            "transfer": self._options.transfer,
            "classes": self.classes,
            "images": result.images,
            "objects": dict(result.objects),
            "splits": dict(result.splits),
            "notes": result.notes,
        }
        (work / "IMPORTED.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(label: str) -> str:
    return "background" if label in BACKGROUNDS else label


def _look(path: Path | None, data: bytes | None) -> tuple[tuple[int, int], int, str]:
    """Size as stored, EXIF orientation and ending of an image file."""
    try:
        with Image.open(path if path is not None else io.BytesIO(data or b"")) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            suffix = path.suffix if path is not None else f".{(image.format or '').lower()}"
            size = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path or 'the embedded image'} is not an image that can be read: {error}.") from error
    if suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"the embedded image has the format {suffix[1:]}, which is not read; save it as PNG or JPEG.")
    return size, orientation if orientation in range(1, 9) else 1, suffix


def _names(images: Sequence[AnnotatedImage]) -> tuple[list[str], list[Fault]]:
    """A name for each image: its stem, or its whole path where stems are not unique; and what has none."""
    paths = [PurePosixPath(image.file.replace("\\", "/")) for image in images]
    counts = Counter(path.stem for path in paths)
    names: list[str] = []
    faults: list[Fault] = []
    owners: dict[str, AnnotatedImage] = {}
    for image, path in zip(images, paths, strict=True):
        folders = [part for part in path.parts[:-1] if part not in ("..", "/", ".") and ":" not in part]
        split = [image.split] if image.split and not folders else []
        name = path.stem if counts[path.stem] == 1 else "_".join([*split, *folders, path.stem])
        if not name.isprintable() or name != name.strip() or name[:1] in (".", ""):
            sentence = f"{image.source}: the image name {image.file!r} cannot be used; rename the image."
            faults.append(Fault(image.source, sentence, "name"))
        elif (owner := owners.setdefault(name, image)) is not image:
            sentence = (
                f"{image.source}: {owner.file} and {image.file} have the same stem, so that their label maps would "
                "have one name; rename one, or import them apart."
            )
            faults.append(Fault(image.source, sentence, "same stem"))
        names.append(name)
    return names, faults


def _write_lists(work: Path, lists: dict[str, list[str]], result: ImportResult) -> None:
    """Lists of the splits; train.txt and val.txt only together."""
    if "val" not in lists and {"train", "test"} <= lists.keys():
        lists["val"] = lists.pop("test")
        result.notes.append("There is no validation split: val.txt lists the images of the test split.")
    for split in SPLIT_NAMES:
        if split in lists and ({"train", "val"} <= lists.keys() or split == "test"):
            (work / f"{split}.txt").write_text("".join(f"{name}\n" for name in lists[split]), encoding="utf-8")
            result.splits[split] = len(lists[split])
