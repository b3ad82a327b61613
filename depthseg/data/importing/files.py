"""The files that annotation tools write, read safely."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.parsers import expat

from ..folder_files import split_of_word
from ..image_folders import IMAGE_SUFFIXES, name_some


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: It is no JSON, or truncated.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON, or is truncated: {error}. Export it again.") from error


def read_xml(path: Path) -> ElementTree.Element:
    """The content of an XML file that defines no entities: they can name other files, or fill the memory.

    Raises:
        ValueError: It is no XML, is truncated, or has a document type.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:
        raise ValueError(
            f"{path} has a document type (<!DOCTYPE ...>), which may define entities and is not read: annotation "
            "tools write none. Remove it, or export the file again."
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is no XML, or is truncated: {error}. Export it again.") from error
    return builder.close()


def files_of(sources: Iterable[Path], ending: str) -> list[Path]:
    """The sources that are files, and the files of an ending in those that are folders, sorted.

    Raises:
        FileNotFoundError: There are none.
    """
    found: list[Path] = []
    for source in sources:
        found += [source] if source.is_file() else sorted(source.rglob(f"*{ending}"))
    if not found:
        raise FileNotFoundError(f"{name_some(list(map(str, sources)))} holds no {ending} file.")
    return found


def split_of_path(path: Path) -> str | None:
    """The split that a file or its folder is named after, such as `instances_val2017.json` or `valid/x.json`."""
    for part in (path.stem, path.parent.name):
        for word in "".join(letter if letter.isalpha() else " " for letter in part).split():
            if split := split_of_word(word):
                return split
    return None


def given_splits(paths: Sequence[Path]) -> dict[Path, str | None]:
    """The splits of annotation files; none where they are all of one."""
    splits = {path: split_of_path(path) for path in paths}
    return splits if len(set(splits.values())) > 1 else dict.fromkeys(paths)


class ImageFinder:
    """Finds image files by the names that annotations have for them, in some folders alone.

    Args:
        folders: Those that the user gives; they come first.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = tuple(folders)
        self._index: dict[Path, dict[str, list[Path]]] = {}

    def find(self, names: Sequence[str], folders: Sequence[Path]) -> Path:
        """The file of an image.

        Args:
            names: Its names; a path in them is followed where it ends inside one of the folders.
            folders: Where it may be beside the folders of the user.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Several have that name, or it is of a format that is not read.
        """
        places = list(dict.fromkeys([*self._folders, *folders]))
        for name in names:
            for folder in places:
                path = Path(os.path.abspath(folder / name.replace("\\", "/")))
                if path.is_file() and any(path.is_relative_to(os.path.abspath(place)) for place in places):
                    return self._readable(path)
        for name in names:
            base = PurePosixPath(name.replace("\\", "/")).name
            for folder in places:
                found = self._files(folder).get(base, [])
                if len(found) > 1:
                    raise ValueError(
                        f"{found[0]} and {found[1]} have the name of the image {name!r}; give the folder of the right "
                        "one with --images."
                    )
                if found:
                    return self._readable(found[0])
        outside = " Its path leaves these folders, so only its last part was looked for." * (".." in names[0])
        raise FileNotFoundError(
            f"the image {names[0]!r} is missing: it is not in {name_some(list(map(str, places)))}.{outside} Give the "
            "folder of the images with --images."
        )

    def _files(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._index:
            index = self._index[folder] = {}
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if path.is_file():
                    index.setdefault(path.name, []).append(path)
        return self._index[folder]

    @staticmethod
    def _readable(path: Path) -> Path:
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(f"{path} is of a format that is not read; convert it to PNG or JPEG.")
        return path
