"""Finding images and the maps that belong to them in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .float_maps import FLOAT_SUFFIXES

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of the image files that are looked for, in lower case; upper case counts as well."""

LABEL_SUFFIXES = (".bmp", ".gif", ".png", ".tif", ".tiff")
"""Endings of label maps: formats that keep every id. JPEG and WebP alter ids or store them as colours."""

ALTERING_SUFFIXES = (".jpeg", ".jpg", ".webp")
"""Endings of the formats that alter ids."""

DEPTH_SUFFIXES = (".pgm", ".png", ".tif", ".tiff", *FLOAT_SUFFIXES)
"""Endings of depth and disparity files, in lower case."""

# Files of the system that no user put there.
_SYSTEM_FILES = ("desktop.ini", "thumbs.db")


class MapFiles:
    """The label, depth or disparity files of a folder, listed once and found by the stem of their image.

    Args:
        folder: The folder; one that does not exist has no files.
        suffixes: Endings that count, in lower case; upper case counts as well.
        name_end: What the stems of the files have behind that of their image; files without it do not count.
        subfolders: Folders inside it that are listed in its place; names then begin with theirs, as `train/a`.
    """

    def __init__(
        self,
        folder: str | Path,
        suffixes: Sequence[str] = DEPTH_SUFFIXES,
        name_end: str = "",
        subfolders: Sequence[str] = (),
    ) -> None:
        self._files: dict[str, list[Path]] = {}
        for below in subfolders or ("",):
            inner = Path(folder) / below
            for path in list_images(inner, suffixes) if inner.is_dir() else ():
                if path.stem.endswith(name_end):
                    name = path.stem.removesuffix(name_end)
                    self._files.setdefault(f"{below}/{name}" if below else name, []).append(path)

    def find(self, name: str) -> Path | None:
        """The file of an image, whatever its ending; None if there is none.

        Raises:
            ValueError: There are several.
        """
        found = self.all_of(name)
        if len(found) > 1:
            raise ValueError(f"{' and '.join(map(str, found))} belong to the same image; remove all but one.")
        return found[0] if found else None

    def __contains__(self, name: str) -> bool:
        """Whether an image has a file."""
        return name in self._files

    def all_of(self, name: str) -> list[Path]:
        """All files of an image."""
        return self._files.get(name, [])

    def __iter__(self) -> Iterator[Path]:
        """All files, sorted by stem."""
        return (path for paths in self._files.values() for path in paths)


def image_files(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files of a folder by stem, in the order of their stems.

    Raises:
        FileNotFoundError: The folder is missing or holds no image.
        ValueError: Two images differ only in their ending.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder, suffixes):
        if path.stem in files:
            raise ValueError(
                f"{files[path.stem]} and {path} have the same stem, so their labels cannot be told apart; rename one."
            )
        files[path.stem] = path
    if not files:
        unread = unread_files(folder, suffixes)
        hint = describe_unread(unread, "images", suffixes) if unread else f"Images end in {', '.join(suffixes)}."
        raise FileNotFoundError(f"{folder} holds no image. {hint}")
    return files


def list_images(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """All image files of a folder, sorted by stem; hidden files do not count.

    Raises:
        FileNotFoundError: The folder is missing.
    """
    return [path for path in _visible_files(folder) if path.suffix.lower() in suffixes]


def unread_files(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files of a folder that `list_images` leaves out, sorted by stem; hidden files do not count.

    Raises:
        FileNotFoundError: The folder is missing.
    """
    return [path for path in _visible_files(folder) if path.suffix.lower() not in suffixes]


def describe_unread(files: Sequence[Path], what: str, suffixes: Sequence[str]) -> str:
    """A sentence on files that are not read: how many, the first three, and which endings are read.

    Args:
        files: At least one file, all of one folder.
        what: What is read there, such as `images`.
        suffixes: Endings that are read.
    """
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    verb = "is" if len(files) == 1 else "are"
    return (
        f"{count} in {files[0].parent} {verb} not read: {name_some([path.name for path in files])}. "
        f"{what.capitalize()} end in {', '.join(suffixes)}."
    )


def name_some(names: Sequence[str], most: int = 3) -> str:
    """The first names of many, with an ellipsis where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _visible_files(folder: str | Path) -> list[Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} does not exist; check the root of the data set.")
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name[0] != "." and not entry.is_dir()]
    shown = [folder / name for name in names if name.lower() not in _SYSTEM_FILES]
    return sorted(shown, key=lambda path: (path.stem, path.suffix))
