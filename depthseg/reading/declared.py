"""From what was written to the types that options declare, with a sentence for whatever does not fit."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from .interpolation import is_interpolation
from .written import Written, free_value, is_null, number_of, shown

_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = (str, bool, int, float, list, dict)
_WHOLE = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")


class Declared(NamedTuple):
    """A declared type, taken apart.

    Attributes:
        kind: `str`, `bool`, `int`, `float`, `list`, `dict`, a dataclass or `Any`.
        below: Type of the entries of a list or map.
        optional: Whether it may be None.
        partial: Whether it is a dataclass some of whose options are given, as a map that is no part of the whole.
    """

    kind: Any
    below: Any
    optional: bool
    partial: bool


@cache
def declared(hint: Any) -> Declared:
    """Take a type apart.

    Args:
        hint: Such as `int`, `list[float] | None`, a dataclass, or `Annotated[dict[str, Any], RunConfig]`: a map of
            some options of that dataclass. `Sequence[int]` reads like a list, `str | Path` like text, and what is
            none of these like Any.
    """
    optional = False
    if get_origin(hint) in (Union, UnionType):
        optional = NoneType in get_args(hint)
        others = [kind for kind in get_args(hint) if kind not in (NoneType, Path)]
        hint = others[0] if len(others) == 1 else Any
    if get_origin(hint) is Annotated:
        return Declared(hint.__metadata__[0], None, optional, partial=True)
    kind = get_origin(hint) or hint
    kind = list if kind in (Sequence, Iterable) else kind
    if not (kind in _KINDS or dataclasses.is_dataclass(kind)):
        return Declared(Any, None, optional, partial=False)
    return Declared(kind, (get_args(hint) or (Any,))[-1], optional, partial=False)


@cache
def options_of(kind: type) -> dict[str, Any]:
    """The options of a dataclass with their types."""
    return get_type_hints(kind, include_extras=True)


def declared_at(hint: Any, names: Sequence[str]) -> Any:
    """The type of the option that is found by going down these names; Any where none is declared."""
    for name in names:
        kind, below, *_ = declared(hint)
        if dataclasses.is_dataclass(kind):
            hint = options_of(kind).get(name, Any)
        else:
            hint = below if kind is dict else Any
    return hint


@dataclasses.dataclass
class TypeReader:
    """Reads values as their declared types and collects what is wrong with them.

    Attributes:
        allowed: Name of an option -> what it may be, in words, where that is narrower than its type. Names begin at
            the dataclass of a partial map, or at the top.
        root: The dataclass in all of which the namesake of an unknown option is looked for.
        interpolates: Whether text such as `${data.size}` stands for a value that is put in later, so that it is left
            as it is. In partial maps it is.
        problems: One sentence for each value that does not fit; see `no_problems`.
    """

    allowed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    root: type | None = None
    interpolates: bool = False
    problems: list[str] = dataclasses.field(default_factory=list)

    def read(self, given: Written, hint: Any, name: str = "", key: str = "") -> Any:
        """Read a value.

        Args:
            given: The value.
            hint: Its declared type, as of `declared`.
            name: What messages call it.
            key: Its name in `allowed`.

        Returns:
            The value; a dictionary of the given options for a dataclass; None where there is a problem.
        """
        kind, below, optional, partial = declared(hint)
        if optional and is_null(given):
            return None
        if partial:
            inside = dataclasses.replace(self, root=kind, interpolates=True)
            return inside._read_options(given, kind, name, "")
        if dataclasses.is_dataclass(kind):
            return self._read_options(given, kind, name, key)
        if self.interpolates and is_interpolation(given.value):
            return given.value
        if kind is Any:
            return free_value(given)
        if kind in (list, dict):
            return self._read_entries(given, kind, below, name, key, hint)
        try:
            return _SCALARS[kind](given)
        except ValueError:
            self._refuse(given, hint, name, key)
        return None

    def _read_options(self, given: Written, kind: type, name: str, key: str) -> dict[str, Any]:
        options, found = options_of(kind), {}
        if not isinstance(given.value, dict):
            self.problems.append(
                f"{_prefix(given)}{name!r} is a section with options of its own, got {shown(given)}. "
                f"Its options: {', '.join(options)}."
            )
            return found
        for option, value in given.value.items():
            if option in options:
                found[option] = self.read(value, options[option], _dotted(name, option), _dotted(key, option))
            else:
                self.problems.append(_prefix(value) + self._unknown(option, name, options))
        return found

    def _read_entries(self, given: Written, kind: type, below: Any, name: str, key: str, hint: Any) -> Any:
        if not isinstance(given.value, kind):
            self._refuse(given, hint, name, key)
            return None
        if kind is dict:
            return {entry: self.read(value, below, _dotted(name, entry)) for entry, value in given.value.items()}
        before = len(self.problems)
        values = [self.read(value, below, f"{name}[{index}]") for index, value in enumerate(given.value)]
        if len(self.problems) > before and key in self.allowed:
            del self.problems[before:]
            self._refuse(given, hint, name, key)
        return values

    def _refuse(self, given: Written, hint: Any, name: str, key: str) -> None:
        kind, _, optional, _ = declared(hint)
        words = self.allowed.get(key) or _words(hint)
        null = " or null" if optional else ""
        way_out = ""
        if kind is str and not is_null(given):
            way_out = " Write text that looks like something else in quotes."
        elif kind is list and not is_null(given) and not isinstance(given.value, list | dict):
            way_out = f" Write one entry as [{given.value}]."
        self.problems.append(f"{_prefix(given)}{name} must be {words}{null}, got {shown(given)}.{way_out}")

    def _unknown(self, option: str, name: str, options: Mapping[str, Any]) -> str:
        near = difflib.get_close_matches(option, options, n=1, cutoff=0.5)
        hints = [_dotted(name, found) for found in near] or self._namesakes(option)
        hint = f" Did you mean {hints[0]!r}?" if hints else ""
        return f"unknown option {_dotted(name, option)!r}.{hint} Known in {name or 'the file'}: {', '.join(options)}."

    def _namesakes(self, option: str) -> list[str]:
        sections = options_of(self.root) if self.root else {}
        return [
            f"{section}.{option}"
            for section, kind in sections.items()
            if dataclasses.is_dataclass(kind) and option in options_of(kind)
        ]


def no_problems(problems: Sequence[str]) -> None:
    """Raise what is wrong.

    Raises:
        ValueError: There are problems; the message has all of them, a line each.
    """
    if problems:
        raise ValueError("\n".join(problems))


def built(hint: Any, value: Any) -> Any:
    """Make dataclasses of the dictionaries that `TypeReader.read` gives for them.

    Args:
        hint: The declared type.
        value: What was read; of a dataclass all options without defaults.
    """
    kind, below, _, partial = declared(hint)
    if value is None or partial:
        return value
    if dataclasses.is_dataclass(kind):
        options = options_of(kind)
        return kind(**{name: built(options[name], entry) for name, entry in value.items()})
    if kind is dict:
        return {name: built(below, entry) for name, entry in value.items()}
    return [built(below, entry) for entry in value] if kind is list else value


def _text(given: Written) -> str:
    value = given.value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, PurePath):
        return str(value)
    if not isinstance(value, str) or (value and is_null(given)):
        raise ValueError
    return value


def _truth(given: Written) -> bool:
    word = str(given.value).lower()
    if not isinstance(given.value, str | int) or word not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[word]


def _whole(given: Written) -> int:
    if isinstance(given.value, str) and _WHOLE.fullmatch(given.value):
        return int(given.value)
    if isinstance(given.value, int) and not isinstance(given.value, bool):
        return given.value
    number = _number(given)
    if not math.isfinite(number) or number != int(number):
        raise ValueError
    return int(number)


def _number(given: Written) -> float:
    value = given.value
    if isinstance(value, str) and value.isascii():
        return number_of(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    return float(value)


_SCALARS: dict[Any, Callable[[Written], Any]] = {str: _text, bool: _truth, int: _whole, float: _number}
_WORDS = {
    str: "text",
    bool: "true or false (yes or no, on or off, 1 or 0)",
    int: "a whole number",
    float: "a number",
    dict: "a map such as {name: value}",
}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers", list: "lists", bool: "true or false"}


def _words(hint: Any) -> str:
    """What a type allows."""
    kind, below, *_ = declared(hint)
    if kind is list:
        entries = _PLURALS.get(declared(below).kind)
        return f"a list of {entries}" if entries else "a list"
    return _WORDS[kind]


def _prefix(given: Written) -> str:
    return f"{given.place}: " if given.place else ""


def _dotted(name: str, option: str) -> str:
    return f"{name}.{option}" if name else option
