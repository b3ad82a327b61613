"""Data folders that are laid out in another way than the one that is read: what is where, and what to do."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from .float_maps import FLOAT_SUFFIXES
from .folder_files import describe_altered, suffix_option
from .image_folders import (
    ALTERING_SUFFIXES,
    DEPTH_SUFFIXES,
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    list_images,
    name_some,
    unread_files,
)
from .images import image_mode

_SUFFIXES = {"images": IMAGE_SUFFIXES, "labels": LABEL_SUFFIXES, "depth": DEPTH_SUFFIXES}
_MAPS = {"labels": "label maps", "depth": "depth maps"}
# What other data sets call these folders, in lower case.
_NAMES = {
    "images": (
        *("image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "frames"),
        *("rgb", "color", "colour", "leftimg8bit", "input", "inputs"),
    ),
    "labels": (
        *(
            "label",
            "labels",
            "mask",
            "masks",
            "annotation",
            "annotations",
            "annot",
            "ann",
            "gt",
            "gtfine",
            "groundtruth",
        ),
        *(
            "ground_truth",
            "segmentationclass",
            "segmentation",
            "segmentations",
            "seg",
            "semantic",
            "target",
            "targets",
        ),
    ),
    "depth": ("depth", "depths", "depth_map", "depth_maps", "depthmap", "depthmaps", "range", "groundtruth_depth"),
}


def misplaced_images(root: Path) -> list[str]:
    """Sentences on where the images of a folder without any in ROOT/images may be, and their maps; empty if nowhere.

    Args:
        root: The data folder.
    """
    holding = _folders_of_images(root)
    if not holding:
        return []
    first = next(iter(holding))
    found = " and ".join(f"{folder} ({len(files)})" for folder, files in list(holding.items())[:3])
    more = " and more folders" * (len(holding) > 3)
    advice = _advice(first, root, "images") if len(holding) == 1 else f"put the images into {root / 'images'}"
    names = {path.stem for files in holding.values() for path in files}
    maps = [sentence for truth in _MAPS for sentence in misplaced_maps(root, truth, names)]
    return [f"There are images in {found}{more}: {advice}.", *maps]


def _folders_of_images(root: Path) -> dict[Path, list[Path]]:
    """Folders with images: those that are called so, else those that are called nothing that is known."""
    folders = [root, *_folders_below(root)] if root.is_dir() else []
    holding = {folder: files for folder in folders if (files := list_images(folder))}
    kinds = {folder: _kind_of(folder, root) for folder in holding}
    wanted = "images" if "images" in kinds.values() else None
    return {folder: files for folder, files in holding.items() if kinds[folder] == wanted}


def misplaced_maps(root: Path, truth: str, names: Collection[str]) -> list[str]:
    """Sentences on where the maps of a folder without any that fits may be; empty if nowhere.

    Args:
        root: The data folder.
        truth: `labels` or `depth`.
        names: Stems of the images.
    """
    sentences = []
    for folder in _folders_below(root):
        files = list_images(folder, _SUFFIXES[truth])
        same = [path for path in files if path.stem in names]
        kind = _kind_of(folder, root) or (same and _kind_of_values(same[0]))
        if kind != truth:
            continue
        longer = [] if same else [path for path in files if image_of(path.stem, names)]
        if same and folder != root / truth:
            sentences.append(
                f"{folder} holds {_count(same)} with the names of images ({_some(same)}), but {_MAPS[truth]} are "
                f"read from {root / truth} alone: {_advice(folder, root, truth)}."
            )
        elif longer:
            example = longer[0]
            option = suffix_option({path.stem: image for path in longer if (image := image_of(path.stem, names))})
            away = "" if folder == root / truth else f", with the files in {root / truth}"
            sentences.append(
                f"{folder} holds {_count(longer)} with names longer than those of the images "
                f"({_some(longer)}); {_MAPS[truth]} have the very name: {example.name} becomes "
                f"{truth}/{image_of(example.stem, names)}{example.suffix}"
                + (f"; or give {option}{away}." if option and truth == "labels" else ".")
            )
        elif not files and truth == "labels" and (altered := list_images(folder, ALTERING_SUFFIXES)):
            sentences.append(describe_altered(altered))
        elif not files and (others := unread_files(folder, _SUFFIXES[truth])):
            sentences.append(
                f"{folder} holds {_count(others)} of other formats ({_some(others)}). Write {_MAPS[truth]} "
                f"into {root / truth}, one for each image; they end in {', '.join(_SUFFIXES[truth])}."
            )
    return sentences


def image_of(stem: str, names: Collection[str]) -> str | None:
    """The image whose name a longer one such as `a_mask` or `a-labels` begins with; None if there is none."""
    ends = [place for place, letter in enumerate(stem) if letter in "_-."]
    return next((stem[:end] for end in reversed(ends) if stem[:end] in names), None)


def _folders_below(root: Path, levels: int = 3) -> Iterator[Path]:
    """Folders below, sorted; hidden ones do not count."""
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")
    for name in names:
        yield root / name
        if levels > 1:
            yield from _folders_below(root / name, levels - 1)


def _kind_of(folder: Path, root: Path) -> str | None:
    """What a folder holds by its name or that of the folder above it."""
    for part in reversed(folder.relative_to(root).parts):
        for kind, names in _NAMES.items():
            if part.lower() in names:
                return kind
    return None


def _kind_of_values(path: Path) -> str | None:
    """What a file holds by the type of its values: ids have one byte, depths have more, colours are neither."""
    if path.suffix.lower() in FLOAT_SUFFIXES:
        return "depth"
    kinds = {"1": "labels", "L": "labels", "P": "labels", "I": "depth", "F": "depth"}
    return kinds.get((image_mode(path) or "").split(";")[0])


def _advice(folder: Path, root: Path, kind: str) -> str:
    wanted = root / kind
    if folder == root:
        return f"move them into {wanted}"
    if wanted in folder.parents:
        return f"move the files up into {wanted}, and list the names of each split in train.txt and val.txt"
    inner = folder.relative_to(root)
    if wanted.exists():
        return f"move the files into {wanted}"
    return f"rename {inner} to {kind}, or link it (ln -s {inner} {wanted})"


def _count(files: list[Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def _some(paths: list[Path]) -> str:
    return name_some([path.name for path in paths])
