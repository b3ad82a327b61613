"""A value as it was written, before its declared type is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

NULLS = ("", "~", "null", "Null", "NULL")
_BOOLEANS = {text: word == "true" for word in ("true", "false") for text in (word, word.capitalize(), word.upper())}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Written:
    """A value, where it was written, and how.

    Attributes:
        value: Text as it was typed, a list or a map (with names that are text) of further values, or what a program
            gave: True, False, a number, None.
        place: Such as `run.yaml, line 3`, for messages; empty = they need none.
        plain: Whether it is text without quotes, so that `null` means nothing and `3` may mean a number.
    """

    value: Any
    place: str = ""
    plain: bool = False


def written(value: Any, place: str = "") -> Written:
    """A value that a program gives; its text is never taken for anything else.

    Args:
        value: Numbers, text, lists, dictionaries and None; numbers of NumPy and tuples, too.
        place: Where it comes from, for messages.
    """
    if isinstance(value, dict):
        return Written({str(name): written(below, place) for name, below in value.items()}, place)
    if isinstance(value, list | tuple):
        return Written([written(below, place) for below in value], place)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return Written(int(value), place)
    return Written(float(value) if isinstance(value, Real) and not isinstance(value, bool) else value, place)


def is_null(given: Written) -> bool:
    """Whether it says that there is no value: `null`, `~`, or nothing at all."""
    return given.value is None or (given.plain and given.value in NULLS)


def free_value(given: Written) -> Any:
    """The value where no type is declared.

    The rules are those of YAML 1.2, which has fewer surprises than YAML 1.1: only `true` and `false` are booleans,
    `null`, `~` and nothing are None, and decimal numbers such as `3`, `-0.5`, `1e-3` and `.inf` are numbers. All else
    is text, as is what begins with zeros (`0016`), and what has quotes.
    """
    value = given.value
    if isinstance(value, dict):
        return {name: free_value(below) for name, below in value.items()}
    if isinstance(value, list):
        return [free_value(below) for below in value]
    if not given.plain:
        return value
    if value in NULLS:
        return None
    if value in _BOOLEANS:
        return _BOOLEANS[value]
    if _WHOLE.fullmatch(value):
        return int(value)
    return number_of(value) if _NUMBER.fullmatch(value) else value


def number_of(text: str) -> float:
    """The number that a text is in YAML (`.inf`) or in Python (`inf`, `1_000`).

    Raises:
        ValueError: It is none.
    """
    return float(re.sub(r"^([-+]?)\.(?=[a-zA-Z])", r"\1", text))


def shown(given: Written) -> str:
    """The value as messages show it: text in quotes, unless it was a number, a boolean or null that was typed."""
    text = _shown(given)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 4] + " ..."


def _shown(given: Written) -> str:
    value = given.value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(below)}" for name, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if is_null(given):
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return value if given.plain and not isinstance(free_value(given), str) else repr(value)
