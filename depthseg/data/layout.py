"""Data folders that are laid out in another way than the one that is read: what is where, and what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from .float_maps import FLOAT_SUFFIXES
from .images import DEPTH_SUFFIXES, IMAGE_SUFFIXES, LABEL_SUFFIXES, image_mode, list_images, name_some, unread_files

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
    """Sentences on where the images of a folder without any in ROOT/images may be; empty if nowhere.

    Args:
        root: The data folder.
    """
    folders = [root, *_folders_below(root)] if root.is_dir() else []
    holding = {folder: count for folder in folders if (count := len(list_images(folder)))}
    named = [folder for folder in holding if _kind_of(folder, root) == "images"]
    likely = named or [folder for folder in holding if _kind_of(folder, root) is None]
    if not likely:
        return []
    found = " and ".join(f"{folder} ({holding[folder]})" for folder in likely[:3])
    advice = _advice(likely[0], root, "images") if len(likely) == 1 else f"put the images into {root / 'images'}"
    return [f"There are images in {found}{' and more folders' * (len(likely) > 3)}: {advice}."]


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
                f"{folder} holds {len(same)} files with the names of images ({_some(same)}), but {_MAPS[truth]} are "
                f"read from {root / truth} alone: {_advice(folder, root, truth)}."
            )
        elif longer:
            example = longer[0]
            sentences.append(
                f"{folder} holds {len(longer)} files whose names are longer than those of their images "
                f"({_some(longer)}); {_MAPS[truth]} have the very name: {example.name} becomes "
                f"{truth}/{image_of(example.stem, names)}{example.suffix}."
            )
        elif not files and (others := unread_files(folder, _SUFFIXES[truth])):
            sentences.append(
                f"{folder} holds {len(others)} files that are no {_MAPS[truth]} ({_some(others)}). Write one image of "
                f"numbers for each into {root / truth}; formats are {', '.join(_SUFFIXES[truth])}."
            )
    return sentences


def image_of(stem: str, names: Collection[str]) -> str | None:
    """The image whose name a longer one such as `a_mask` or `a-labels` begins with; None if there is none."""
    ends = [place for place, letter in enumerate(stem) if letter in "_-."]
    return next((stem[:end] for end in reversed(ends) if stem[:end] in names), None)


def _folders_below(root: Path) -> Iterator[Path]:
    """Folders one and two levels below, sorted; hidden ones do not count."""
    for pattern in ("*", "*/*"):
        for path in sorted(root.glob(pattern)):
            if path.is_dir() and not any(part.startswith(".") for part in path.relative_to(root).parts):
                yield path


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


def _some(paths: list[Path]) -> str:
    return name_some([path.name for path in paths])
