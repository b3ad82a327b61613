"""The form of data that every user has: a folder of images and a folder of label maps."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .clips import natural_order
from .depth_formats import check_depth_format
from .depth_units import doubtful_unit
from .folder_files import (
    altered_labels,
    deeper_images,
    describe_altered,
    describe_orientation,
    folder_images,
    lacks_test,
    split_folders,
    split_of_name,
)
from .folder_labels import FolderLabels
from .image_folders import DEPTH_SUFFIXES, IMAGE_SUFFIXES, LABEL_SUFFIXES, MapFiles, describe_unread, unread_files
from .images import (
    DISPARITY_FORMATS,
    KITTI_DEPTH_SCALE,
    check_same_size,
    depth_from_disparity,
    read_depth,
    read_disparity,
    read_oriented_image,
)
from .layout import misplaced_images, misplaced_maps
from .sample import Sample
from .sequences import divide_by_sequence, looks_like_sequence
from .subsets import evenly_spaced, shuffled_names

logger = logging.getLogger(__name__)

_UNIT_FILES = 3
"""Depth maps that are read when a folder is opened, to tell whether their unit is doubtful."""


class FolderDataset:
    """A folder of images with label maps, depth maps or both.

    ```
    ROOT/images/NAME.jpg    or another ending of `IMAGE_SUFFIXES`; upper case counts as well, here and below
    ROOT/labels/NAME.png    or .tif, .bmp, .gif; class ids as grey values or palette indices, 255 = ignored, unless
                            the options say otherwise; some images may have none
    ROOT/depth/NAME.png     or .tif, .pgm; 16-bit, metres x 256, 0 = unknown; or .npy of metres; optional
    ROOT/disparity/NAME.png 16-bit, read in place of depth/ where focal_times_baseline is given
    ROOT/classes.txt        class names in id order, one a line; or id2label.json: {"0": "sky", "1": "road", ...}.
                            A single name is one class, id 1, against a background, id 0
    ROOT/train.txt, val.txt names without ending, one a line; optional, as is test.txt
    ```

    Images may be in folders of their splits: images/train, images/val and images/test (or training, valid,
    validation, testing), with labels/train and so on. Their names then begin with that folder, as `train/NAME`.

    The splits `train`, `val` and `test` hold images that have the truth asked for. With lists, every listed image must
    have it. Without lists and folders of splits, the images that have it are divided: `val_fraction` of them (rounded,
    at least one, never all) are `val`. Single photographs are shuffled by `seed` first. Frames of a sequence stay in
    the order of their names and its end is `val`, since neighbours of training frames would be in `val` otherwise and
    scores too good. The split `all` holds every image, with or without truth. Files that are not read are named in a
    warning.

    Args:
        root: The folder.
        split: `train`, `val`, `test` or `all`; `test` only where a list or folder has it.
        truth: What the splits but `all` must have: `labels` or `depth`.
        val_fraction: Share of `val` where there are no lists, 0 <= f < 1; 0 = everything is `train`.
        seed: Seed of a random division.
        split_by: How to divide: `random`, `blocks` (the end, in the order of names), `auto` = `blocks` where names and
            images look like frames of a sequence (see `looks_like_sequence`), else `random`; or `sequences` = whole
            sequences where names tell several, see `divide_by_sequence`.
        depth_scale: Units of 16-bit depth files per metre.
        focal_times_baseline: Focal length in pixels of these images x distance of the two cameras in metres, such as
            473.6 for Cityscapes: depth is this / disparity, from disparity/. None = depth is read from depth/.
        disparity_format: What a 16-bit value p in disparity/ means: `kitti` = p / 256 pixels, `cityscapes` =
            (p - 1) / 256 pixels; 0 = unknown.
        depth_format: What whole numbers in depth/ mean: `scaled` = metres x `depth_scale`, `sun` = SUN RGB-D, `kinect`
            = raw numbers of a Kinect; see `DEPTH_FORMATS`.
        value_range: Pixel values `[low, high]` of black and white in images of more than 8 bits, for training; None =
            found in the images, see `find_value_range`.
        label_map: Value in label files -> class id, class name or `ignore`, such as `{11: ignore, 255: 1}`; ranges
            are possible, such as `{0: ignore, 1-150: 0-149}` for ADE20K, where 0 is what has no class. Values that are
            not listed keep their meaning.
        label_colours: Label maps are colour masks: the colour of each class, such as `{road: [128, 64, 128]}`, or a
            file in ROOT that lists them, such as CVAT's labelmap.txt; see `read_colour_map`. `label_map` then has
            names of colours on its left side, such as `{void: ignore}`.
        label_channel: The channel that holds the ids where label maps are colour images: `red` for CARLA and Lyft.
        label_suffix: What the names of label maps have behind that of their image, such as `_gt` for a_gt.png.
        exif: `apply` = images are read upright, as their EXIF orientation says; `ignore` = as stored, for maps that
            were made from the stored pixels.

    Raises:
        FileNotFoundError: A folder, a list, the class names or a label map is missing.
        ValueError: An option out of range, class names that make no label space, a split without images, or label maps
            that are JPEG or WebP files only.
    """

    splits = ("train", "val", "test", "all")
    truths = ("labels", "depth")
    divisions = ("auto", "random", "blocks", "sequences")

    def __init__(
        self,
        root: str | Path,
        split: str,
        truth: str = "labels",
        val_fraction: float = 0.2,
        seed: int = 0,
        depth_scale: float = KITTI_DEPTH_SCALE,
        focal_times_baseline: float | None = None,
        disparity_format: str = "kitti",
        split_by: str = "auto",
        value_range: Sequence[float] | None = None,
        depth_format: str = "scaled",
        label_map: dict[str, str] | None = None,
        label_colours: dict[str, Any] | str | None = None,
        label_channel: Literal["red", "green", "blue", "alpha"] | None = None,
        label_suffix: str = "",
        exif: Literal["apply", "ignore"] = "apply",
    ) -> None:
        self._check_options(split, truth, val_fraction, depth_scale, split_by)
        check_depth_format(depth_format)
        if exif not in ("apply", "ignore"):
            raise ValueError(f"exif={exif!r} is not known; choose one of apply, ignore.")
        self._root = Path(root)
        self._depth_scale = depth_scale
        self._depth_format = depth_format
        self._focal_times_baseline = focal_times_baseline
        self._disparity_format = disparity_format
        self.value_range = value_range
        self._check_disparity()
        self._upright, self._has_warned = exif == "apply", False
        self._subfolders = split_folders(self._root)
        self._images = self._find_images()
        suffixes = {"labels": LABEL_SUFFIXES, self._folder("depth").name: DEPTH_SUFFIXES}
        self._files = {
            name: MapFiles(self._root / name, endings, label_suffix * (name == "labels"), self._subfolders)
            for name, endings in suffixes.items()
        }
        self._refuse_altered(split, truth, label_suffix)
        self._warn_of_unread({"images": IMAGE_SUFFIXES, **suffixes})
        self._labels = FolderLabels(self._root, label_map, label_colours, label_channel, self._subfolders)
        self.label_space = self._labels.space
        self.names = self._names_of(split, truth, val_fraction, seed, split_by)
        self._warn_of_unit()

    def _check_options(self, split: str, truth: str, val_fraction: float, depth_scale: float, split_by: str) -> None:
        if split_by not in self.divisions:
            raise ValueError(f"split_by={split_by!r} is not known; choose one of {', '.join(self.divisions)}.")
        if split not in self.splits:
            raise ValueError(f"A folder has no split {split!r}; its splits are {', '.join(self.splits)}.")
        if truth not in self.truths:
            raise ValueError(f"truth={truth!r} is not known; choose one of {', '.join(self.truths)}.")
        check_val_fraction(val_fraction)
        if not depth_scale > 0:
            raise ValueError(f"depth_scale={depth_scale} is out of range; it is the file units per metre, above 0.")

    def _check_disparity(self) -> None:
        factor = self._focal_times_baseline
        if factor is not None and not factor > 0:
            raise ValueError(f"focal_times_baseline={factor} is out of range; it is pixels x metres, above 0.")
        if self._disparity_format not in DISPARITY_FORMATS:
            raise ValueError(
                f"disparity_format={self._disparity_format!r} is not known; choose one of "
                f"{', '.join(DISPARITY_FORMATS)}."
            )
        if factor is not None and self._depth_format != "scaled":
            raise ValueError(
                f"depth_format={self._depth_format} is for the files of depth/, but with focal_times_baseline depth "
                "is made of disparity/: leave one of them out."
            )

    def _find_images(self) -> dict[str, Path]:
        try:
            return folder_images(self._root, self._subfolders)
        except FileNotFoundError as error:
            raise FileNotFoundError(" ".join([str(error), *misplaced_images(self._root)])) from None

    def _refuse_altered(self, split: str, truth: str, label_suffix: str) -> None:
        bare = [name for name in self._images if name not in self._files["labels"]]
        if altered := altered_labels(self._root, self._subfolders, bare, label_suffix):
            if truth == "labels" and split != "all":
                raise ValueError(describe_altered(altered))
            _warn_once(describe_altered(altered))

    def _warn_of_unread(self, suffixes: Mapping[str, Sequence[str]]) -> None:
        if sentence := deeper_images(self._root, self._subfolders):
            _warn_once(sentence)
        for name, endings in suffixes.items():
            for folder in [self._root / name / below for below in self._subfolders or ("",)]:
                if folder.is_dir() and (unread := unread_files(folder, endings)):
                    _warn_once(describe_unread(unread, name, endings))

    def _warn_of_unit(self) -> None:
        """Warn once where a few depth maps suggest another unit than the one they are read with."""
        if self._focal_times_baseline is not None or self._depth_format != "scaled":
            return
        files = [path for name in self._images if (path := self._file("depth", name))]
        if not files:
            return
        sentence = doubtful_unit([files[place] for place in evenly_spaced(len(files), _UNIT_FILES)], self._depth_scale)
        if sentence:
            _warn_once(f"{self._folder('depth')}: {sentence}")

    def _names_of(self, split: str, truth: str, val_fraction: float, seed: int, split_by: str) -> list[str]:
        if split == "all":
            return list(self._images)
        names = read_list(self._root, split)
        if names is None:
            names = self._unlisted(split, truth, val_fraction, seed, split_by)
        else:
            self._check_listed(names, split, truth)
        if not names:
            raise ValueError(
                f"The split {split!r} of {self._root} is empty: none of its {len(self._images)} images is left for it "
                f"with {truth} and val_fraction={val_fraction:g}. Add files to {self._folder(truth).name}/, or change "
                f"the options truth or val_fraction.{self._hint(truth)}"
            )
        return names

    def _unlisted(self, split: str, truth: str, val_fraction: float, seed: int, split_by: str) -> list[str]:
        """Names of a split of a folder without lists."""
        ready = {name: path for name, path in self._images.items() if self._file(truth, name)}
        if len(ready) < len(self._images):
            logger.info("%d of %d images of %s have %s", len(ready), len(self._images), self._root, truth)
        names, sentence = unlisted_names(self._root, ready, self._subfolders, split, val_fraction, seed, split_by)
        if sentence:
            _warn_once(f"{self._root}: {sentence}")
        return names

    def _check_listed(self, names: list[str], split: str, truth: str) -> None:
        for name in names:
            if name not in self._images:
                raise FileNotFoundError(
                    f"{self._root}/{split}.txt lists {name!r}, but images/ has no such image; it lists names without "
                    "ending."
                )
            if not self._file(truth, name):
                missing = self._folder(truth) / f"{name}.png"
                raise FileNotFoundError(f"{self._images[name]} is listed in {split}.txt but {missing} is missing.")

    def _folder(self, truth: str) -> Path:
        """Where the files of a truth are."""
        return self._root / ("disparity" if truth == "depth" and self._focal_times_baseline else truth)

    def _hint(self, truth: str) -> str:
        if truth == "depth" and self._focal_times_baseline is None and (self._root / "disparity").is_dir():
            return " To make depth of disparity/, give the option focal_times_baseline."
        if truth == "labels" and any(self._file("depth", name) for name in self._images):
            return " There are depth maps: the option truth=depth divides the images that have one."
        return "".join(f" {sentence}" for sentence in misplaced_maps(self._root, truth, self._images))

    def _file(self, truth: str, name: str) -> Path | None:
        """The file of a truth of an image, if there is one."""
        return self._files[self._folder(truth).name].find(name)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image_path = self._images[name]
        image, orientation = read_oriented_image(image_path, self._upright)
        labels = depth = None
        if self.label_space is not None and (path := self._file("labels", name)):
            labels = self._labels.read(path)
            check_same_size(image_path, image, path, labels)
        if path := self._file("depth", name):
            depth = read_folder_depth(
                path, self._depth_scale, self._focal_times_baseline, self._disparity_format, self._depth_format
            )
            check_same_size(image_path, image, path, depth)
        if orientation != 1 and self._upright and (labels is not None or depth is not None):
            self._warn_of_orientation(image_path, orientation)
        return Sample(name=name, image=image, labels=labels, depth=depth)

    def _warn_of_orientation(self, path: Path, orientation: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s Further images like it are not named; `depthseg datasets check` counts them.",
                describe_orientation(path, orientation, self._upright),
            )

    def has_depth(self, index: int) -> bool:
        """Whether an image has a file that depth is read from."""
        return self._file("depth", self.names[index]) is not None


@functools.cache
def _warn_once(sentence: str) -> None:
    """Log what is true of all splits of a folder when the first of them is opened."""
    logger.warning(sentence)


def read_folder_depth(
    path: str | Path,
    depth_scale: float = KITTI_DEPTH_SCALE,
    focal_times_baseline: float | None = None,
    disparity_format: str = "kitti",
    depth_format: str = "scaled",
) -> np.ndarray:
    """Read a file of depth/, or with `focal_times_baseline` one of disparity/; options as in `FolderDataset`.

    Returns:
        float32 `(H, W)`, metres, 0 = unknown.
    """
    if focal_times_baseline is None:
        return read_depth(path, depth_scale, depth_format)
    return depth_from_disparity(read_disparity(path, disparity_format), focal_times_baseline)


def read_list(root: str | Path, split: str) -> list[str] | None:
    """Names of a split from its list, or None where the folder has no lists.

    Raises:
        FileNotFoundError: There is a list of `train` or `val`, but of the other one only.
        ValueError: A name is listed twice.
    """
    paths = {name: Path(root) / f"{name}.txt" for name in ("train", "val")}
    if split == "test":
        paths["test"] = Path(root) / "test.txt"
        if not paths["test"].is_file():
            return None
    if not any(path.is_file() for path in paths.values()):
        return None
    if not paths[split].is_file():
        raise FileNotFoundError(f"{paths[split]} is missing; write both train.txt and val.txt, or neither of them.")
    names = [line.strip() for line in paths[split].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{paths[split]} lists {', '.join(twice)} more than once.")
    return names


def unlisted_names(
    root: Path,
    images: Mapping[str, Path],
    subfolders: Sequence[str],
    split: str,
    val_fraction: float,
    seed: int,
    split_by: str = "auto",
) -> tuple[list[str], str | None]:
    """Names of a split of a folder without lists: those in its folder, else a share of the images of no split.

    Args:
        root: The folder, for messages.
        images: Files of the images that have the truth asked for, by name.
        subfolders: Folders in images/ that hold the images of a split.
        split: `train`, `val` or `test`.
        val_fraction: As in `FolderDataset`.
        seed: Seed of a random division.
        split_by: As in `FolderDataset`.

    Returns:
        The names, and a sentence where a sequence was found and therefore divided in order.

    Raises:
        FileNotFoundError: There is no `test`.
    """
    found = {split_of_name(f"{below}/") for below in subfolders}
    if split in found and (split == "test" or {"train", "val"} <= found):
        return [name for name in images if split_of_name(name) == split], None
    if split == "test":
        raise FileNotFoundError(lacks_test(root, subfolders))
    rest = {name: path for name, path in images.items() if split_of_name(name) != "test"}
    return divide_images(rest, split, val_fraction, seed, split_by)


def check_val_fraction(val_fraction: float) -> None:
    """Refuse what is no share."""
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} is out of range; it is a share from 0 to below 1.")


def divide_images(
    images: Mapping[str, Path], split: str, val_fraction: float, seed: int, split_by: str = "auto"
) -> tuple[list[str], str | None]:
    """Divide images that have the truth asked for.

    Args:
        images: Files by name.
        split: `train` or `val`.
        val_fraction: As in `FolderDataset`.
        seed: Seed of a random division.
        split_by: As in `FolderDataset`.

    Returns:
        The names of the split, and a sentence where a sequence was found and therefore divided in order.
    """
    check_val_fraction(val_fraction)
    order = sorted(images, key=natural_order)
    count = round(val_fraction * len(order))
    if val_fraction > 0 and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
    if split_by == "sequences" and count:
        if (divided := divide_by_sequence(images, order, count)) is not None:
            return divided[split == "val"], None
        split_by = "random"
    is_sequence = split_by == "auto" and count > 0 and looks_like_sequence(tuple(images[name] for name in order))
    if split_by == "random" or (split_by == "auto" and not is_sequence):
        order = shuffled_names(order, seed)
        return sorted(order[:count] if split == "val" else order[count:]), None
    train, val = order[: len(order) - count], order[len(order) - count :]
    sentence = is_sequence and (
        f"neighbouring images look like frames of one sequence, so val is its end: the last {count} of {len(order)} "
        f"images in the order of their names, from {val[0]} on. A random division would put neighbours of training "
        "frames into val; data.options.split_by=random asks for it."
    )
    return val if split == "val" else train, sentence or None


def divide_in_order(items: Sequence[Any], split: str, val_fraction: float) -> Sequence[Any]:
    """The part of a recording that belongs to a split: `val` is its end, so that neighbours in time stay together.

    Args:
        items: In the order of time.
        split: `train`, `val` or `all`.
        val_fraction: Share of `val`, rounded to whole items; 0 = both `train` and `val` are everything.

    Raises:
        ValueError: An unknown split or a share that is not from 0 to below 1.
    """
    if split not in ("train", "val", "all"):
        raise ValueError(f"There is no split {split!r}; the splits are train, val, all.")
    check_val_fraction(val_fraction)
    if split == "all" or val_fraction == 0:
        return items
    first = len(items) - round(val_fraction * len(items))
    return items[first:] if split == "val" else items[:first]
