"""From what was written to the types that options declare, with a sentence for whatever does not fit."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from ..choices import did_you_mean, nearest
from .allowed import Allowed, BelongsTo
from .interpolation import is_interpolation
from .written import Written, free_value, is_null, number_of, shown

BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS = (str, bool, int, float, list, dict)
_WHOLE = re.compile(r"[-+]?[0-9]+(_[0-9]+)*")


class Declared(NamedTuple):
    """A declared type, taken apart.

    Attributes:
        kind: `str`, `bool`, `int`, `float`, `list`, `dict`, a dataclass or `Any`.
        below: Type of the entries of a list or map.
        optional: Whether it may be None.
        partial: Whether it is a dataclass some of whose options are given, as a map that is no part of the whole.
        allowed: The values that it may have, where not all of the kind.
        belongs_to: The option that a map belongs to, see `BelongsTo`.
    """

    kind: Any
    below: Any = None
    optional: bool = False
    partial: bool = False
    allowed: Allowed | None = None
    belongs_to: str = ""


@cache
def declared(hint: Any) -> Declared:
    """Take a type apart.

    Args:
        hint: Such as `int`, `list[float] | None`, `Literal["a", "b"]`, `Annotated[int, Allowed(...)]`, a dataclass, or
            `Annotated[dict[str, Any], RunConfig]`: a map of some options of that dataclass. `Sequence[int]` reads like
            a list, `str | Path` like text, and what is none of these like Any.
    """
    optional, notes = False, ()
    while get_origin(hint) in (Annotated, Union, UnionType):
        if get_origin(hint) is Annotated:
            notes += hint.__metadata__
            hint = hint.__origin__
        else:
            optional |= NoneType in get_args(hint)
            others = [kind for kind in get_args(hint) if kind not in (NoneType, Path)]
            hint = others[0] if len(others) == 1 else Any
    allowed = next((note for note in notes if isinstance(note, Allowed)), None)
    belongs_to = next((note.option for note in notes if isinstance(note, BelongsTo)), "")
    whole = next((note for note in notes if isinstance(note, type) and dataclasses.is_dataclass(note)), None)
    if whole is not None:
        return Declared(whole, optional=optional, partial=True)
    kind, below = get_origin(hint) or hint, (get_args(hint) or (Any,))[-1]
    if kind is Literal:
        words = tuple(word for word in get_args(hint) if word is not None)
        kind = type(words[0]) if len(set(map(type, words))) == 1 else Any
        optional |= None in get_args(hint)
        allowed = Allowed(f"one of {', '.join(map(str, words))}", words.__contains__, words)
    kind = list if kind in (Sequence, Iterable) else kind
    if not (kind in _KINDS or dataclasses.is_dataclass(kind)):
        return Declared(Any, optional=optional, allowed=allowed)
    return Declared(kind, below, optional, False, allowed, belongs_to)


@cache
def options_of(kind: type) -> dict[str, Any]:
    """The options of a dataclass with their types."""
    return get_type_hints(kind, include_extras=True)


def type_below(hint: Any, name: str) -> Any:
    """The type of an option of a dataclass or of an entry of a map; Any where none is declared."""
    kind, entry, *_ = declared(hint)
    if dataclasses.is_dataclass(kind):
        return options_of(kind).get(name, Any)
    return entry if kind is dict else Any


@dataclasses.dataclass
class TypeReader:
    """Reads values as their declared types and collects what is wrong with them.

    Attributes:
        interpolates: Whether text such as `${data.size}` stands for a value that is put in later, so that it is left
            as it is. In partial maps it is.
        help: A sentence for whoever writes an option that there is not.
        problems: One sentence for each value that does not fit; see `no_problems`.
        root: The dataclass in all of which the namesake of an unknown option is looked for: the first one read.
    """

    interpolates: bool = False
    help: str = ""
    problems: list[str] = dataclasses.field(default_factory=list)
    root: type | None = None

    def read(self, given: Written, hint: Any, name: str = "") -> Any:
        """Read a value.

        Args:
            given: The value.
            hint: Its declared type, as of `declared`.
            name: What messages call it.

        Returns:
            The value; a dictionary of the given options for a dataclass; None where there is a problem.
        """
        kind, below, optional, partial, allowed, _ = declared(hint)
        if optional and is_null(given):
            return None
        if partial:
            return dataclasses.replace(self, root=kind, interpolates=True)._read_options(given, kind, name)
        if dataclasses.is_dataclass(kind):
            self.root = self.root or kind
            return self._read_options(given, kind, name)
        if self.interpolates and is_interpolation(given.value):
            return given.value
        if kind is Any and not allowed:
            return free_value(given)
        before = len(self.problems)
        try:
            value = _SCALARS[kind](given) if kind in _SCALARS else self._read_entries(given, kind, below, name)
        except ValueError:
            self._refuse(given, hint, name)
            return None
        if allowed and (len(self.problems) > before or not (self._is_open(value) or allowed.holds(value))):
            del self.problems[before:]
            self._refuse(Written(value, given.place) if kind is str else given, hint, name)
        return value

    def _is_open(self, value: Any) -> bool:
        """Whether an entry of a list is put in later."""
        return self.interpolates and isinstance(value, list) and any(map(is_interpolation, value))

    def _read_options(self, given: Written, kind: type, name: str) -> dict[str, Any]:
        options, found = options_of(kind), {}
        if not isinstance(given.value, dict):
            self.problems.append(
                f"{_prefix(given)}{name!r} is a section with options of its own, got {shown(given)}. "
                f"Its options: {', '.join(options)}."
            )
            return found
        for option, value in given.value.items():
            if option in options:
                found[option] = self.read(value, options[option], _dotted(name, option))
            else:
                self.problems.append(_prefix(value) + self._unknown(option, name, options))
        return found

    def _read_entries(self, given: Written, kind: type, below: Any, name: str) -> Any:
        if not isinstance(given.value, kind):
            raise ValueError
        if kind is dict:
            return {entry: self.read(value, below, _dotted(name, entry)) for entry, value in given.value.items()}
        return [self.read(value, below, f"{name}[{index}]") for index, value in enumerate(given.value)]

    def _refuse(self, given: Written, hint: Any, name: str) -> None:
        kind, allowed = declared(hint).kind, declared(hint).allowed
        way_out = ""
        if allowed and allowed.known:
            way_out = did_you_mean(str(given.value), map(str, allowed.known))
        elif kind is str and not is_null(given):
            way_out = " Write text that looks like something else in quotes."
        elif kind is list and not is_null(given) and not isinstance(given.value, list | dict):
            way_out = f" Write one entry as [{given.value}]."
        self.problems.append(f"{_prefix(given)}{name} must be {words_of(hint)}, got {shown(given)}.{way_out}")

    def _unknown(self, option: str, name: str, options: Mapping[str, Any]) -> str:
        near = nearest(option, options)
        hints = [_dotted(name, near)] if near else self._namesakes(option)
        hint = f" Did you mean {hints[0]!r}?" if hints else ""
        known = f"Known {f'in {name}' if name else 'at the top'}: {', '.join(options)}."
        return f"unknown option {_dotted(name, option)!r}.{hint} {known} {self.help}".rstrip()

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


def typed(given: Written, hint: Any) -> Any:
    """Read a value as its declared type.

    Raises:
        ValueError: What does not fit.
    """
    reader = TypeReader()
    value = reader.read(given, hint)
    no_problems(reader.problems)
    return value


def built(hint: Any, value: Any) -> Any:
    """Make dataclasses of the dictionaries that `TypeReader.read` gives for them.

    Args:
        hint: The declared type.
        value: What was read; of a dataclass all options without defaults.
    """
    kind, below, _, partial, *_ = declared(hint)
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
    if not isinstance(given.value, str | int) or word not in BOOLEANS:
        raise ValueError
    return BOOLEANS[word]


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


_SCALARS: dict[Any, Callable[[Written], Any]] = {
    str: _text,
    bool: _truth,
    int: _whole,
    float: _number,
    Any: free_value,
}
_WORDS = {
    str: "text",
    bool: "true or false (yes or no, on or off, 1 or 0)",
    int: "a whole number",
    float: "a number",
    dict: "a map such as {name: value}",
}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers", list: "lists", bool: "true or false"}


def words_of(hint: Any) -> str:
    """What a type allows, in words."""
    kind, below, optional, _, allowed, _ = declared(hint)
    if allowed:
        words = allowed.words
    elif kind is list:
        entries = _PLURALS.get(declared(below).kind)
        words = f"a list of {entries}" if entries else "a list"
    else:
        words = _WORDS[kind]
    return words + (" or null" if optional else "")


def _prefix(given: Written) -> str:
    return f"{given.place}: " if given.place else ""


def _dotted(name: str, option: str) -> str:
    return f"{name}.{option}" if name else option
