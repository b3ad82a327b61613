"""Options in layers: a file on top of the files that it is based on, and overrides on top of all of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .declared import declared, type_below
from .written import Written, is_null, shown
from .yaml_files import read_yaml

EVERY_LEVEL = float("inf")


class Change(NamedTuple):
    """Options that are put on top of others.

    Attributes:
        given: Maps of options.
        depth: Down to which level maps without declared entries, such as the options of a data set, are put together
            name by name; further down the upper one takes the other's place.
    """

    given: Written
    depth: float = EVERY_LEVEL


def read_with_bases(path: Path, find: Callable[[str, Path], Path], example: str) -> list[Written]:
    """Read a file and the files that it is based on, the lowest one first.

    Args:
        path: A YAML file, which may have a line `base: OTHER`.
        find: Finds the file that a base means, from what the line says and the folder of the file that it is in.
        example: An option for messages.

    Raises:
        FileNotFoundError: A base that does not exist.
        ValueError: Not YAML, not a map, or a file that is its own base.
    """
    chain: dict[str, Written] = {}
    while True:
        path = Path(os.path.normpath(path))
        if str(path) in chain:
            raise ValueError(f"{path} is its own base, by way of {', '.join(chain)}; remove one of the bases.")
        given = chain[str(path)] = read_yaml(path)
        if not isinstance(given.value, dict):
            raise ValueError(f"{path} must hold options such as {example}, not a list or a single value.")
        base = given.value.pop("base", Written(None))
        if is_null(base):
            return list(chain.values())[::-1]
        if not isinstance(base.value, str):
            raise ValueError(f"{base.place}: base must be the path or the name of one file, got {shown(base)}.")
        path = find(base.value, path.parent)


def layered(below: Written, changes: Sequence[Change], hint: Any) -> Written:
    """Put a layer on top of others.

    A map that belongs to an option which the layer changes, such as the options of a decoder to its type, is dropped
    from the layers below.

    Args:
        below: The options of the layers below.
        changes: The layer: a file, or all overrides, the last one on top.
        hint: The type of the options.
    """
    top = _on_top(below, changes, hint)
    kept = _without_leftovers(below, top, hint)
    return top if kept is below else _on_top(kept, changes, hint)


def merged(below: Written, above: Written, hint: Any = Any, depth: float = EVERY_LEVEL) -> Written:
    """One value on top of another: maps are put together name by name, anything else takes the other's place.

    Args:
        below: The lower one.
        above: The upper one.
        hint: Their type.
        depth: Number of levels, as of `Change`.
    """
    kind, entry, *_ = declared(hint)
    is_free = not dataclasses.is_dataclass(kind) and (kind is not dict or entry is Any)
    if not (isinstance(above.value, dict) and isinstance(below.value, dict)) or (is_free and depth < 1):
        return above
    values = dict(below.value)
    for name, value in above.value.items():
        values[name] = merged(values[name], value, type_below(hint, name), depth - 1) if name in values else value
    return Written(values, above.place)


def _on_top(below: Written, changes: Sequence[Change], hint: Any) -> Written:
    for change in changes:
        below = merged(below, change.given, hint, change.depth)
    return below


def _without_leftovers(below: Written, top: Written, hint: Any) -> Written:
    """The lower options without the maps that belong to something else in the upper ones; the same where all stay."""
    if below is top or not (isinstance(below.value, dict) and isinstance(top.value, dict)):
        return below
    kept = {}
    for name, value in below.value.items():
        option = type_below(hint, name)
        owner = declared(option).belongs_to.split(".")
        before, after = _at(below, owner), _at(top, owner)
        if before is None or (after is not None and _text(before) == _text(after)):
            kept[name] = _without_leftovers(value, top.value.get(name, value), option)
    same = len(kept) == len(below.value) and all(kept[name] is value for name, value in below.value.items())
    return below if same else Written(kept, below.place)


def _at(given: Written, names: Sequence[str]) -> Written | None:
    """The option that is found by going down these names, if it was written."""
    for name in names:
        given = given.value.get(name) if given is not None and isinstance(given.value, dict) else None
    return given


def _text(given: Written) -> str | None:
    return None if is_null(given) else str(given.value)
