"""The form of data that every user has: a folder of images and a folder of label maps."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .clips import natural_order
from .depth_formats import check_depth_format
from .images import (
    DEPTH_SUFFIXES,
    DISPARITY_FORMATS,
    IMAGE_SUFFIXES,
    KITTI_DEPTH_SCALE,
    LABEL_SUFFIXES,
    MapFiles,
    check_ids,
    check_same_size,
    depth_from_disparity,
    describe_unread,
    image_files,
    read_depth,
    read_disparity,
    read_image,
    read_labels,
    read_palette,
    unread_files,
)
from .label_spaces import LabelSpace, default_palette
from .layout import misplaced_images, misplaced_maps
from .sample import Sample
from .sequences import looks_like_sequence
from .subsets import shuffled_names

logger = logging.getLogger(__name__)


class FolderDataset:
    """A folder of images with label maps, depth maps or both.

    ```
    ROOT/images/NAME.jpg    or another ending of `IMAGE_SUFFIXES`; upper case counts as well, here and below
    ROOT/labels/NAME.png    or .tif, .bmp, .gif; class ids as grey values or palette indices, 255 = ignored; some
                            images may have none
    ROOT/depth/NAME.png     or .tif, .pgm; 16-bit, metres x 256, 0 = unknown; or .npy of metres; optional
    ROOT/disparity/NAME.png 16-bit, read in place of depth/ where focal_times_baseline is given
    ROOT/classes.txt        class names in id order, one a line; or id2label.json: {"0": "sky", "1": "road", ...}.
                            A single name is one class, id 1, against a background, id 0
    ROOT/train.txt, val.txt names without ending, one a line; optional
    ```

    The splits `train` and `val` hold images that have the truth asked for. With lists, every listed image must have
    it. Without lists, the images that have it are divided: `val_fraction` of them (rounded, at least one, never all)
    are `val`. Single photographs are shuffled by `seed` first. Frames of a sequence stay in the order of their names
    and its end is `val`, since neighbours of training frames would be in `val` otherwise and scores too good. The
    split `all` holds every image, with or without truth. Files that are not read are named in a warning.

    Args:
        root: The folder.
        split: `train`, `val` or `all`.
        truth: What `train` and `val` must have: `labels` or `depth`.
        val_fraction: Share of `val` where there are no lists, 0 <= f < 1; 0 = everything is `train`.
        seed: Seed of a random division.
        split_by: How to divide: `random`, `blocks` (the end, in the order of names), or `auto` = `blocks` where names
            and images look like frames of a sequence (see `looks_like_sequence`), else `random`.
        depth_scale: Units of 16-bit depth files per metre.
        focal_times_baseline: Focal length in pixels of these images x distance of the two cameras in metres, such as
            473.6 for Cityscapes: depth is this / disparity, from disparity/. None = depth is read from depth/.
        disparity_format: What a 16-bit value p in disparity/ means: `kitti` = p / 256 pixels, `cityscapes` =
            (p - 1) / 256 pixels; 0 = unknown.
        depth_format: What whole numbers in depth/ mean: `scaled` = metres x `depth_scale`, `sun` = SUN RGB-D, `kinect`
            = raw numbers of a Kinect; see `DEPTH_FORMATS`.
        value_range: Pixel values `[low, high]` of black and white in images of more than 8 bits, for training; None =
            found in the images, see `find_value_range`.

    Raises:
        FileNotFoundError: A folder, a list, the class names or a label map is missing.
        ValueError: An option out of range, class names that make no label space, or a split without images.
    """

    splits = ("train", "val", "all")
    truths = ("labels", "depth")
    divisions = ("auto", "random", "blocks")

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
    ) -> None:
        self._check_options(split, truth, val_fraction, depth_scale, split_by)
        check_depth_format(depth_format)
        self._root = Path(root)
        self._depth_scale = depth_scale
        self._depth_format = depth_format
        self._focal_times_baseline = focal_times_baseline
        self._disparity_format = disparity_format
        self.value_range = value_range
        self._check_disparity()
        self._images = self._find_images()
        suffixes = {"labels": LABEL_SUFFIXES, self._folder("depth").name: DEPTH_SUFFIXES}
        self._files = {name: MapFiles(self._root / name, endings) for name, endings in suffixes.items()}
        self._warn_of_unread({"images": IMAGE_SUFFIXES, **suffixes})
        self.label_space = read_label_space(root)
        self.names = self._names_of(split, truth, val_fraction, seed, split_by)

    def _check_options(self, split: str, truth: str, val_fraction: float, depth_scale: float, split_by: str) -> None:
        if split_by not in self.divisions:
            raise ValueError(f"split_by={split_by!r} is not known; choose one of {', '.join(self.divisions)}.")
        if split not in self.splits:
            raise ValueError(f"A folder has no split {split!r}; its splits are {', '.join(self.splits)}.")
        if truth not in self.truths:
            raise ValueError(f"truth={truth!r} is not known; choose one of {', '.join(self.truths)}.")
        if not 0 <= val_fraction < 1:
            raise ValueError(f"val_fraction={val_fraction} is out of range; it is a share from 0 to below 1.")
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

    def _find_images(self) -> dict[str, Path]:
        try:
            return image_files(self._root / "images")
        except FileNotFoundError as error:
            raise FileNotFoundError(" ".join([str(error), *misplaced_images(self._root)])) from None

    def _warn_of_unread(self, suffixes: Mapping[str, Sequence[str]]) -> None:
        for name, endings in suffixes.items():
            folder = self._root / name
            if folder.is_dir() and (unread := unread_files(folder, endings)):
                _warn_once(describe_unread(unread, name, endings))

    def _names_of(self, split: str, truth: str, val_fraction: float, seed: int, split_by: str) -> list[str]:
        if split == "all":
            return list(self._images)
        listed = read_list(self._root, split)
        if listed is None:
            ready = [name for name in self._images if self._file(truth, name)]
            if len(ready) < len(self._images):
                logger.info("%d of %d images of %s have %s", len(ready), len(self._images), self._root, truth)
            names, sentence = divide_images(
                {name: self._images[name] for name in ready}, split, val_fraction, seed, split_by
            )
            if sentence:
                _warn_once(f"{self._root}: {sentence}")
        else:
            names = listed
            self._check_listed(names, split, truth)
        if not names:
            raise ValueError(
                f"The split {split!r} of {self._root} is empty: none of its {len(self._images)} images is left for it "
                f"with {truth} and val_fraction={val_fraction:g}. Add files to {self._folder(truth).name}/, or change "
                f"the options truth or val_fraction.{self._hint(truth)}"
            )
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
        return "".join(f" {sentence}" for sentence in misplaced_maps(self._root, truth, self._images))

    def _file(self, truth: str, name: str) -> Path | None:
        """The file of a truth of an image, if there is one."""
        return self._files[self._folder(truth).name].find(name)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        image_path = self._images[name]
        image = read_image(image_path)
        labels = depth = None
        if self.label_space is not None and (path := self._file("labels", name)):
            labels = read_folder_labels(path, self.label_space)
            check_same_size(image_path, image, path, labels)
        if path := self._file("depth", name):
            depth = read_folder_depth(
                path, self._depth_scale, self._focal_times_baseline, self._disparity_format, self._depth_format
            )
            check_same_size(image_path, image, path, depth)
        return Sample(name=name, image=image, labels=labels, depth=depth)

    def has_depth(self, index: int) -> bool:
        """Whether an image has a file that depth is read from."""
        return self._file("depth", self.names[index]) is not None


@functools.cache
def _warn_once(sentence: str) -> None:
    """Log what is true of all splits of a folder when the first of them is opened."""
    logger.warning(sentence)


def read_folder_labels(path: str | Path, space: LabelSpace) -> np.ndarray:
    """Read a label map whose ids must lie in a label space.

    Returns:
        uint8 `(H, W)`.
    """
    labels = read_labels(path)
    check_ids(path, labels, len(space.classes), space.ignore_index)
    return labels.astype(np.uint8)


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
        FileNotFoundError: There is a list, but of the other split only.
        ValueError: A name is listed twice.
    """
    paths = {name: Path(root) / f"{name}.txt" for name in ("train", "val")}
    if not any(path.is_file() for path in paths.values()):
        return None
    if not paths[split].is_file():
        raise FileNotFoundError(f"{paths[split]} is missing; write both train.txt and val.txt, or neither of them.")
    names = [line.strip() for line in paths[split].read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{paths[split]} lists {', '.join(twice)} more than once.")
    return names


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
    order = sorted(images, key=natural_order)
    count = round(val_fraction * len(order))
    if val_fraction > 0 and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
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


def divide_in_order(items: Sequence, split: str, val_fraction: float) -> Sequence:
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
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} is out of range; it is a share from 0 to below 1.")
    if split == "all" or val_fraction == 0:
        return items
    first = len(items) - round(val_fraction * len(items))
    return items[first:] if split == "val" else items[:first]


def read_label_space(root: str | Path) -> LabelSpace | None:
    """Class names and colours of a folder; None if it has neither label maps nor class names.

    The colours are those of the first label map with a palette that gives each class its own, else the default.

    Raises:
        FileNotFoundError: There are label maps but no class names.
        ValueError: The class names make no label space.
    """
    root = Path(root)
    classes = _read_classes(root)
    if classes is None:
        if (root / "labels").is_dir():
            raise FileNotFoundError(
                f"{root} has labels/ but neither classes.txt (one class name a line, in id order) nor id2label.json."
            )
        return None
    one_class = len(classes) == 1  # its id is 1, beside a background that `LabelSpace` adds
    colours = _read_colours(root / "labels", len(classes) + one_class)[one_class:]
    return LabelSpace(name=root.resolve().name, classes=classes, palette=colours)


def _read_colours(folder: Path, count: int) -> tuple[tuple[int, int, int], ...]:
    first = next(iter(MapFiles(folder, LABEL_SUFFIXES)), None)
    try:
        colours = (first and read_palette(first)) or ()
    except (ValueError, OSError):  # reading the labels of that image says what is wrong with the file
        colours = ()
    return colours[:count] if len(set(colours[:count])) == count else default_palette(count)


def _read_classes(root: Path) -> tuple[str, ...] | None:
    text_file, json_file = root / "classes.txt", root / "id2label.json"
    if text_file.is_file() and json_file.is_file():
        raise ValueError(f"{root} has both classes.txt and id2label.json; keep one of them.")
    if text_file.is_file():
        names = [line.strip() for line in text_file.read_text(encoding="utf-8-sig").rstrip().splitlines()]
        if "" in names:
            raise ValueError(f"Line {names.index('') + 1} of {text_file} is empty; each line names one class.")
        return tuple(names)
    if not json_file.is_file():
        return None
    try:
        named = {int(key): value for key, value in json.loads(json_file.read_text(encoding="utf-8-sig")).items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{json_file} must be a JSON object such as {{"0": "sky", "1": "road"}}: {error}.') from error
    if sorted(named) != list(range(len(named))) or not all(isinstance(name, str) for name in named.values()):
        raise ValueError(f"{json_file} must name each id from 0 on without gaps; it names {sorted(named)}.")
    return tuple(named[index] for index in range(len(named)))
