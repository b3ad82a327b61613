"""Values that stand for others: `${data.size}` is the value of that option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationKeyError, OmegaConfBaseException

from .written import Written, written

_OPENING = "${"


def is_interpolation(value: Any) -> bool:
    """Whether it is text with another value in it."""
    return isinstance(value, str) and _OPENING in value


def literal(value: Any) -> Any:
    r"""Plain dictionaries, lists and text such that no `${` in them stands for another value (`\${`)."""
    if isinstance(value, dict):
        return {name: literal(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [literal(below) for below in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if is_interpolation(value) else value


def interpolated(given: Written, values: dict[str, Any], problems: list[str]) -> Written:
    """Put the values in that texts stand for.

    Args:
        given: A map of options as they were written.
        values: The same options as values; what is put in comes from here.
        problems: Gets a sentence for each text that names no option, or itself.
    """
    texts = list(_texts(given, ""))
    malformed = [_sentence(leaf, name, "it is written `${section.option}`") for name, leaf in texts if _is_bad(leaf)]
    problems += malformed
    if malformed or not texts:
        return given
    return _filled(given, OmegaConf.create(values, flags={"allow_objects": True}), "", problems)


def _texts(given: Written, name: str) -> Iterator[tuple[str, Written]]:
    """Every text with another value in it, by name."""
    if is_interpolation(given.value):
        yield name, given
    for key, below in _entries(given):
        yield from _texts(below, f"{name}.{key}" if name else str(key))


def _entries(given: Written) -> Iterable[tuple[Any, Written]]:
    if isinstance(given.value, dict):
        return given.value.items()
    return enumerate(given.value) if isinstance(given.value, list) else ()


def _is_bad(leaf: Written) -> bool:
    try:
        OmegaConf.create([leaf.value])
    except GrammarParseError:
        return True
    return False


def _filled(given: Written, values: Any, name: str, problems: list[str]) -> Written:
    found = {}
    for key, below in _entries(given):
        here = f"{name}.{key}" if name else str(key)
        if is_interpolation(below.value):
            found[key] = _value_of(below, values, key, here, problems)
        else:
            found[key] = _filled(below, values[key], here, problems) if next(_texts(below, ""), None) else below
    return replace(given, value=found if isinstance(given.value, dict) else list(found.values()))


def _value_of(leaf: Written, values: Any, key: Any, name: str, problems: list[str]) -> Written:
    try:
        value = values[key]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)
        return written(value, leaf.place)
    except InterpolationKeyError:
        reason = "there is no such option"
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
    problems.append(_sentence(leaf, name, reason))
    return leaf


def _sentence(leaf: Written, name: str, reason: str) -> str:
    place = f"{leaf.place}: " if leaf.place else ""
    return f"{place}{name} is {leaf.value!r}, which stands for no value: {reason}."
