"""Classes of a data folder, and what the values of its label maps mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import did_you_mean
from .colour_maps import (
    ColourMap,
    checked_colours,
    decode_colours,
    frequent_colours,
    ids_of_colours,
    names_of_colours,
    read_colour_map,
)
from .image_folders import LABEL_SUFFIXES, MapFiles
from .images import CHANNELS, check_ids, image_mode, read_colours, read_labels, read_palette
from .label_encoding import IGNORE, LabelEncoding, class_id, own_encoding
from .label_spaces import LabelSpace, default_palette


class FolderLabels:
    """Reads the label maps of a folder as ids of its classes.

    Args:
        root: The folder.
        label_map: Value in the file -> class id, class name or `ignore`; ranges such as `1-150` -> `0-149` as well.
            With `label_colours`, names of the colour map take the place of values. What is not listed keeps its
            meaning.
        label_colours: Colours of the classes, for colour masks, or a file in ROOT that lists them, see
            `read_colour_map`. Without classes.txt and id2label.json, its names are the classes.
        label_channel: The channel of colour images that holds the ids.
        subfolders: Folders inside labels/ that the label maps are in.

    Attributes:
        space: The classes; None where there are neither class names nor label maps.

    Raises:
        FileNotFoundError: There are label maps but no class names, or a file of colours is missing.
        ValueError: The class names make no label space, or an option does not fit them.
    """

    def __init__(
        self,
        root: str | Path,
        label_map: Mapping[Any, Any] | None = None,
        label_colours: Mapping[str, Any] | str | None = None,
        label_channel: str | None = None,
        subfolders: Sequence[str] = (),
    ) -> None:
        if label_channel is not None and label_channel not in CHANNELS:
            raise ValueError(f"label_channel={label_channel!r} is not known; choose one of {', '.join(CHANNELS)}.")
        if label_channel is not None and label_colours is not None:
            raise ValueError("Give label_channel or label_colours, not both: ids are in a channel or are colours.")
        self._channel = label_channel
        self._colours, self._where = _read_label_colours(Path(root), label_colours)
        renamed = {str(key): str(value) for key, value in (label_map or {}).items()}
        self.space = read_label_space(root, self._colours, renamed, subfolders)
        self._encoding: LabelEncoding | None = None
        if self.space is not None and self._colours is not None:
            targets = _targets_of_names(renamed, self.space, self._colours, self._where)
            self._colour_ids = ids_of_colours(self._colours, targets)
        elif self.space is not None and label_map is not None:
            self._encoding = own_encoding(self.space.classes, label_map)

    def read(self, path: str | Path) -> np.ndarray:
        """Read a label map.

        Returns:
            uint8 `(H, W)`, class ids, 255 = ignored.

        Raises:
            ValueError: The file cannot be read, or holds what is no class; the message names the file and the values.
        """
        if self._colours is not None:
            return decode_colours(
                path, read_colours(path), self._colour_ids, names_of_colours(self._colours), self._where
            )
        values = self.values(path)
        if self._encoding is not None:
            return self._encoding.decode(path, values)
        assert self.space is not None, "who reads label maps knows that there are classes"
        check_ids(path, values, len(self.space.classes), self.space.ignore_index)
        return values.astype(np.uint8)

    def values(self, path: str | Path) -> np.ndarray:
        """The integers `(H, W)` of a label map as stored; none of a colour mask that is read by its colours."""
        if self._colours is not None:
            return np.empty((0, 0), np.uint8)
        try:
            return read_labels(path, self._channel)
        except ValueError as error:
            if self._channel is None and image_mode(path) in ("RGB", "RGBA"):
                raise ValueError(f"{error} {_colour_advice(path)}") from None
            raise


def _colour_advice(path: str | Path) -> str:
    """Which option reads a label map that is a colour image."""
    pixels = read_colours(path)
    if not pixels[..., 1:].any():
        return "Only its red channel has values: if they are the ids, give data.options.label_channel=red."
    colours = frequent_colours(pixels, 3)
    listed = ", ".join(f"NAME{number}: {list(colour)}" for number, colour in enumerate(colours, 1))
    return (
        f"If its colours are the classes, name them: data.options.label_colours={{{listed}, ...}}, or "
        "data.options.label_colours=FILE with the list of the annotation tool (labelmap.txt, CSV, JSON). If one "
        "channel holds the ids: data.options.label_channel=red."
    )


def _read_label_colours(root: Path, given: Mapping[str, Any] | str | None) -> tuple[ColourMap | None, str]:
    """The colours, and what messages call their source."""
    if given is None:
        return None, ""
    if isinstance(given, Mapping):
        return checked_colours(given, "label_colours"), "label_colours"
    path = root / str(given)
    try:
        return read_colour_map(path), str(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"label_colours={str(given)!r}: there is no file {path}. Give a file in {root}, or the colours "
            "themselves: label_colours={road: [128, 64, 128]}."
        ) from None


def _targets_of_names(
    label_map: Mapping[str, str], space: LabelSpace, colours: ColourMap, where: str
) -> dict[str, int]:
    """Class id of each name of a colour map."""
    for name in label_map:
        if name not in colours:
            raise ValueError(
                f"label_map: {where} has no {name!r}.{did_you_mean(name, colours)} With label_colours, label_map has "
                "the names of the colours on the left, such as {void: ignore}."
            )
    targets = {}
    for name in colours:
        meant = label_map.get(name, name)
        if name not in label_map and name != IGNORE and name not in space.label2id:
            near = did_you_mean(name, space.classes)
            raise ValueError(
                f"{where} has a colour for {name!r}, which is no class of this folder.{near} Name it in classes.txt, "
                f"or leave its pixels out: data.options.label_map={{{name}: {IGNORE}}}."
            )
        targets[name] = class_id(meant, space.classes, name)
    return targets


def read_label_space(
    root: str | Path,
    colours: ColourMap | None = None,
    renamed: Mapping[str, str] | None = None,
    subfolders: Sequence[str] = (),
) -> LabelSpace | None:
    """Class names and colours of a folder; None if it has neither label maps nor class names.

    The colours are those given, or those of the first label map with a palette that gives each class its own, else the
    default.

    Args:
        root: The folder.
        colours: Colours of its label maps by name.
        renamed: Names of `colours` that are another class, or `ignore`.
        subfolders: Folders inside labels/ that the label maps are in.

    Raises:
        FileNotFoundError: There are label maps but no class names.
        ValueError: The class names make no label space.
    """
    root = Path(root)
    classes = read_classes(root)
    if classes is None and colours is not None:
        kept = [name for name in colours if name != IGNORE and name not in (renamed or {})]
        targets = [name for name in (renamed or {}).values() if name.lower() != IGNORE and not name.isdecimal()]
        classes = tuple(dict.fromkeys([*kept, *targets]))
    if classes is None:
        if (root / "labels").is_dir():
            raise FileNotFoundError(
                f"{root} has labels/ but neither classes.txt (one class name a line, in id order) nor id2label.json."
            )
        return None
    one_class = len(classes) == 1  # its id is 1, beside a background that `LabelSpace` adds
    if colours is not None:
        spare = default_palette(256)
        palette = tuple(colours[name][0] if name in colours else spare[number] for number, name in enumerate(classes))
    else:
        palette = _read_palette(root / "labels", len(classes) + one_class, subfolders)[one_class:]
    return LabelSpace(name=root.resolve().name, classes=classes, palette=palette)


def _read_palette(folder: Path, count: int, subfolders: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
    first = next(iter(MapFiles(folder, LABEL_SUFFIXES, subfolders=subfolders)), None)
    try:
        colours = (first and read_palette(first)) or ()
    except (ValueError, OSError):  # reading the labels of that image says what is wrong with the file
        colours = ()
    return colours[:count] if len(set(colours[:count])) == count else default_palette(count)


def read_classes(root: Path) -> tuple[str, ...] | None:
    """Class names in id order, from classes.txt or id2label.json; None if there is neither.

    Raises:
        ValueError: Both are there, or a file does not name the ids from 0 on.
    """
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
