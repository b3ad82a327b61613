"""The files of a data folder: its images, flat or in folders of splits, and label maps that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from .image_folders import ALTERING_SUFFIXES, MapFiles, image_files, list_images, name_some

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""Splits, and what the folders and lists of data sets and annotation tools call them."""

_EXPORTS = (
    "Export them again as PNG: CVAT as 'Segmentation mask 1.1', Roboflow as 'Semantic Segmentation Masks', Label "
    "Studio as 'Brush labels to PNG', image editors with 'Export as PNG' and no smoothing; of polygons, "
    "`depthseg datasets import` writes label maps."
)
_ORIENTATIONS = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "mirrored and turned by 180 degrees",
    5: "mirrored and turned by 90 degrees",
    6: "turned by 90 degrees",
    7: "mirrored and turned by 90 degrees",
    8: "turned by 90 degrees",
}


def split_of_word(word: str) -> str | None:
    """The split that a word such as `Training` names; None if it names none."""
    return next((split for split, names in SPLIT_NAMES.items() if word.lower() in names), None)


def split_folders(root: Path) -> tuple[str, ...]:
    """Names of the folders in ROOT/images that hold the images of a split, where no image is beside them; sorted."""
    images = root / "images"
    if not images.is_dir() or list_images(images):
        return ()
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and split_of_word(path.name))
    return tuple(name for name in names if list_images(images / name))


def folder_images(root: Path, subfolders: Sequence[str]) -> dict[str, Path]:
    """Images by name; names begin with their subfolder, if there are any.

    Raises:
        FileNotFoundError: A folder is missing or holds no image.
        ValueError: Two images of a folder differ only in their ending.
    """
    if not subfolders:
        return image_files(root / "images")
    return {
        f"{below}/{stem}": path for below in subfolders for stem, path in image_files(root / "images" / below).items()
    }


def deeper_images(root: Path, subfolders: Sequence[str]) -> str | None:
    """A sentence on images in folders that are not read, below or beside those that are; None if there are none."""
    read = [root / "images" / below for below in subfolders or ("",)]
    below = {folder for parent in (root / "images", *read) for folder in parent.iterdir() if folder.is_dir()}
    found = [folder for folder in sorted(below - set(read)) if folder.name[0] != "." and list_images(folder)]
    if not found:
        return None
    verb = "holds images that are" if len(found) == 1 else "hold images that are"
    return (
        f"{name_some(list(map(str, found)))} {verb} not read: images are read from "
        f"{name_some(list(map(str, read)))} alone. Move them there, and their label and depth maps likewise."
    )


def split_of_name(name: str) -> str | None:
    """The split of an image in a folder of a split."""
    return split_of_word(name.rpartition("/")[0])


def altered_labels(root: Path, subfolders: Sequence[str], names: Collection[str], name_end: str = "") -> list[Path]:
    """Label maps of formats that alter ids."""
    files = MapFiles(root / "labels", ALTERING_SUFFIXES, name_end, subfolders)
    return [path for name in names if name in files for path in files.all_of(name)]


def describe_altered(files: Sequence[Path]) -> str:
    """Why label maps are refused that are JPEG or WebP, and what to do."""
    count = f"{files[0]} is a JPEG or WebP file"
    if len(files) > 1:
        names = name_some([path.name for path in files])
        count = f"{len(files)} label maps in {files[0].parent} are JPEG or WebP files ({names})"
    return (
        f"{count}, and these formats alter ids: they keep what looks alike, so that the borders of every object get "
        f"ids that nobody drew. A conversion to PNG does not bring the ids back. {_EXPORTS}"
    )


def describe_orientation(path: Path, orientation: int, upright: bool) -> str:
    """What the EXIF orientation of an image means for the maps that go with it."""
    held = f"{path} is {_ORIENTATIONS[orientation]} by its EXIF orientation ({orientation})"
    if not upright:
        return f"{held}, which exif=ignore leaves out: its pixels are read as stored."
    return (
        f"{held} and is read upright, as viewers show it. Its label or depth map must show it upright too: open "
        "both. If the map looks turned or mirrored against the image, it was made from the pixels as stored; then "
        "give data.options.exif=ignore."
    )


def lacks_test(root: Path, subfolders: Sequence[str]) -> str:
    """The sentence for the split `test` of a folder that has none."""
    has = f" images/ has {' and '.join(subfolders)}." if subfolders else ""
    return (
        f"{root} has no split 'test': there is neither test.txt nor images/test.{has} The splits train and val can be "
        "divided from the images, a test split cannot."
    )


def suffix_option(ends: Mapping[str, str]) -> str:
    """The option that reads label maps with longer names than their images, where one option does; else empty.

    Args:
        ends: Stem of a label map -> stem of its image.
    """
    found = {stem.removeprefix(image) for stem, image in ends.items()}
    end = found.pop() if len(found) == 1 else ""
    return f"data.options.label_suffix={end}" if re.fullmatch(r"[\w.-]+", end) else ""
