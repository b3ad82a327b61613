"""Values that stand for others: `${data.size}` is the value of that option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from functools import reduce
from operator import getitem
from typing import Any

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
        problems: An empty list, which gets a sentence for each text that names no option, or itself.
    """
    texts = dict(_texts(given, ()))
    if not texts:
        return given
    # Here, as it takes long to import, and few need it.
    from omegaconf import OmegaConf
    from omegaconf.errors import GrammarParseError, InterpolationKeyError, OmegaConfBaseException

    for names, leaf in texts.items():
        try:
            OmegaConf.create([leaf.value])
        except GrammarParseError:
            problems.append(_sentence(names, leaf, "it is written `${section.option}`"))
    if problems:
        return given
    source = OmegaConf.create(values, flags={"allow_objects": True})
    for names, leaf in texts.items():
        try:
            value = reduce(getitem, names, source)
            value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        except InterpolationKeyError:
            problems.append(_sentence(names, leaf, "there is no such option"))
        except OmegaConfBaseException as error:
            problems.append(_sentence(names, leaf, str(error).splitlines()[0]))
        else:
            given = _with(given, names, written(value, leaf.place))
    return given


def _texts(given: Written, names: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Written]]:
    """Every text with another value in it, by the names that lead to it."""
    value = given.value
    if is_interpolation(value):
        yield names, given
    for name in value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0):
        yield from _texts(value[name], (*names, name))


def _with(given: Written, names: tuple[Any, ...], entry: Written) -> Written:
    """The options with another entry at these names."""
    if not names:
        return entry
    value = copy(given.value)
    value[names[0]] = _with(value[names[0]], names[1:], entry)
    return replace(given, value=value)


def _sentence(names: tuple[Any, ...], leaf: Written, reason: str) -> str:
    place = f"{leaf.place}: " if leaf.place else ""
    return f"{place}{'.'.join(map(str, names))} is {leaf.value!r}, which stands for no value: {reason}."
