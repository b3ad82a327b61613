"""Colour masks: label maps that show every class in a colour of its own."""

from __future__ import annotations

import csv
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .label_encoding import IGNORE, IGNORED

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255 each."""

ColourMap = dict[str, tuple[Colour, ...]]
"""The colours of each class name, in the order of the classes."""

_UNKNOWN = 256
_HEX = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_SHOWN = 3
# Above this number of unknown colours, no list of classes is meant by them.
_MANY_COLOURS = 8
_FEW_PIXELS = 0.1


def read_colour_map(path: str | Path) -> ColourMap:
    """Read the colours that an annotation tool lists beside its masks.

    ```
    labelmap.txt    CVAT: `name:r,g,b::` a line
    NAME.csv, .txt  CamVid, Roboflow: a line `name,r,g,b` under a header of that form, or no header
    NAME.json       {"road": [128, 64, 128], ...} or a list of {"name": ..., "color": [r, g, b] or "#rrggbb"}
    ```

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has another form; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no colour map {path}.")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        return _from_json(text, path)
    colours: dict[str, list[Colour]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if (found := _line(line)) is not None:
            colours.setdefault(found[0], []).append(found[1])
        elif colours:
            raise ValueError(
                f"Line {number} of {path} is {line.strip()!r}, but a line of a colour map is `name:r,g,b::` as in "
                "CVAT's labelmap.txt, or `name,r,g,b`."
            )
    if not colours:
        raise ValueError(f"{path} names no colour: write a line `name,r,g,b` for each class, 0 to 255 each.")
    return checked_colours(colours, str(path))


def _line(line: str) -> tuple[str, Colour] | None:
    if match := re.fullmatch(r"\s*(.+?)\s*:\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(:.*)?", line):
        return match[1], (int(match[2]), int(match[3]), int(match[4]))
    row = [part.strip() for part in next(csv.reader([line]))]
    numbers = row[1:4]
    if len(row) >= 4 and row[0] and all(part.isdecimal() for part in numbers):
        return row[0], (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    return None


def _from_json(text: str, path: Path) -> ColourMap:
    try:
        content = json.loads(text)
        if isinstance(content, list):
            content = {entry["name"]: entry.get("color", entry.get("colour")) for entry in content}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} must be a JSON object such as {{"road": [128, 64, 128]}}, or a list of objects with a "name" and '
            f'a "color": {error}.'
        ) from error
    return checked_colours(content, str(path))


def checked_colours(content: Any, where: str) -> ColourMap:
    """The colours of each class, of a map such as `{road: [128, 64, 128]}`; a class may have a list of colours.

    Args:
        content: The map; a colour is three numbers or text such as `#804080`.
        where: Where it comes from, for messages.

    Raises:
        ValueError: It is no such map, or two classes have the same colour.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{where} must map class names to colours, such as {{road: [128, 64, 128]}}.")
    colours: ColourMap = {}
    owners: dict[Colour, str] = {}
    for name, given in content.items():
        several = isinstance(given, list | tuple) and given and not isinstance(given[0], int | float)
        read = [_colour(one) for one in (given if several else [given])]
        found = [colour for colour in read if colour is not None]
        if len(found) < len(read):
            raise ValueError(
                f"{where}: the colour of {name!r} is {given!r}, but a colour is three whole numbers from 0 to 255, "
                "such as [128, 64, 128]."
            )
        for colour in found:
            if owners.setdefault(colour, name) != name:
                raise ValueError(f"{where}: {owners[colour]!r} and {name!r} have the same colour {shown(colour)}.")
        colours[str(name)] = tuple(found)
    return colours


def _colour(given: Any) -> Colour | None:
    if isinstance(given, str):
        match = _HEX.fullmatch(given)
        return (int(match[1], 16), int(match[2], 16), int(match[3], 16)) if match else None
    if not isinstance(given, list | tuple) or len(given) != 3:
        return None
    whole = all(isinstance(part, int) and 0 <= part <= 255 for part in given)
    return tuple(given) if whole else None


def shown(colour: Iterable[int]) -> str:
    """A colour as messages have it, such as `128, 64, 128`."""
    return ", ".join(str(int(part)) for part in colour)


def decode_colours(
    path: str | Path,
    pixels: np.ndarray,
    ids: Mapping[Colour, int],
    names: Mapping[Colour, str],
    where: str = "label_colours",
) -> np.ndarray:
    """Translate a colour mask.

    Args:
        path: The file, for messages.
        pixels: uint8 `(H, W, 3)`, RGB.
        ids: Colour -> class id, 255 = ignored.
        names: Colour -> what messages call it.
        where: What names the colours, for messages.

    Returns:
        uint8 `(H, W)`, class ids, 255 = ignored.

    Raises:
        ValueError: A colour that is not named; the message names the file, the colours, their number of pixels and the
            nearest known ones.
    """
    table = _table(tuple(sorted(ids.items())))
    packed = _packed(pixels)
    found = table[packed]
    unknown = found == _UNKNOWN
    if unknown.any():
        raise ValueError(_unknown_colours(path, packed[unknown], packed.size, names, where))
    return found.astype(np.uint8)


def frequent_colours(pixels: np.ndarray, most: int) -> list[Colour]:
    """The most frequent colours of an image uint8 `(H, W, 3)`, the most frequent one first."""
    values, counts = np.unique(_packed(pixels), return_counts=True)
    return [_unpacked(value) for value in values[np.argsort(-counts, kind="stable")][:most]]


def _packed(pixels: np.ndarray) -> np.ndarray:
    wide = pixels.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def _unpacked(value: int) -> Colour:
    return int(value) >> 16, int(value) >> 8 & 255, int(value) & 255


@functools.lru_cache(maxsize=4)
def _table(pairs: tuple[tuple[Colour, int], ...]) -> np.ndarray:
    """Class id of every colour of 24 bits; cached here, since workers would get copies of what a data set holds."""
    table = np.full(1 << 24, _UNKNOWN, np.uint16)
    for (red, green, blue), index in pairs:
        table[red << 16 | green << 8 | blue] = index
    return table


def _unknown_colours(path: str | Path, packed: np.ndarray, size: int, names: Mapping[Colour, str], where: str) -> str:
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHOWN]
    parts = []
    for colour, count in ((_unpacked(values[place]), counts[place]) for place in order):
        near = min(names, key=lambda known: sum((a - b) ** 2 for a, b in zip(known, colour, strict=True)))
        pixels = "1 pixel" if count == 1 else f"{count} pixels"
        parts.append(f"{shown(colour)} ({pixels}; the nearest is {names[near]} {shown(near)})")
    more = f", and {len(values) - _SHOWN} more colours" * (len(values) > _SHOWN)
    sentence = f"{path} holds colours that {where} does not name: {'; '.join(parts)}{more}."
    if len(values) > _MANY_COLOURS or packed.size < _FEW_PIXELS * size:
        return sentence + (
            " Mixed colours on the borders of objects come from anti-aliasing, from resizing other than by nearest "
            "neighbour, or from JPEG: export the masks again without smoothing, as PNG."
        )
    return sentence + f" Add them to {where}; the name {IGNORE} is for colours without a class."


def ids_of_colours(colours: ColourMap, targets: Mapping[str, int]) -> dict[Colour, int]:
    """Class id of each colour, by the class id of each name; names without one are ignored."""
    return {colour: targets.get(name, IGNORED) for name, several in colours.items() for colour in several}


def names_of_colours(colours: ColourMap) -> dict[Colour, str]:
    """Name of each colour."""
    return {colour: name for name, several in colours.items() for colour in several}
