"""The reference of options, from the dataclasses that declare them."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from .declared import declared, options_of, words_of

_WIDTH = 100
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def reference(kind: type) -> str:
    """Describe every option of a dataclass in Markdown: name, what it may be, default, meaning.

    Args:
        kind: A dataclass whose docstring describes its options under `Attributes:`; an option that is such a dataclass
            itself is a section with a heading of its own.
    """
    return "\n".join(_lines(kind, ""))


def _lines(kind: type, name: str) -> Iterator[str]:
    summary, _, attributes = inspect.getdoc(kind).partition("Attributes:\n")
    meanings = dict(_ATTRIBUTE.findall(attributes))
    hints = options_of(kind)
    yield from ([f"## {name}", ""] if name else []) + [_filled(summary), ""]
    sections = [option for option, hint in hints.items() if dataclasses.is_dataclass(declared(hint).kind)]
    for option in dataclasses.fields(kind):
        if option.name not in sections:
            full = f"{name}.{option.name}" if name else option.name
            allowed = "true or false" if hints[option.name] is bool else words_of(hints[option.name])
            yield _filled(f"- `{full}` ({allowed}; default {_default(option)}): {meanings[option.name]}", "  ")
    for section in sections:
        yield ""
        yield from _lines(declared(hints[section]).kind, f"{name}.{section}" if name else section)


def _default(option: dataclasses.Field[Any]) -> str:
    """The default as it would be written in YAML."""
    value = option.default if option.default_factory is dataclasses.MISSING else option.default_factory()
    return value if isinstance(value, str) else json.dumps(value)


def _filled(text: str, indent: str = "") -> str:
    """The text in lines of even length."""
    words = " ".join(text.split())
    return textwrap.fill(words, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
