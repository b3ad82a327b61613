"""Options that were written under their former names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .declared import BOOLEANS, declared, no_problems, type_below
from .layers import Change
from .written import Written
from .yaml_files import read_value

FormerNames = Mapping[type, Mapping[str, str]]
"""Dataclass -> former name of one of its options -> the name now; a former value as `option=value`."""


def renamed(layers: Iterable[Sequence[Change]], hint: Any, names: FormerNames) -> tuple[list[list[Change]], list[str]]:
    """Give options the names that they have now.

    Args:
        layers: Layers of options as they were written.
        hint: Their type.
        names: The former names, such as `{RunConfig: {"data.crop_pixels": "data.random_crop"}}`; only the last part
            of a name may differ.

    Returns:
        The layers, and a sentence for each former name in them.

    Raises:
        ValueError: One file or override gives an option by both names.
    """
    sentences: dict[str, str] = {}
    problems: list[str] = []

    def rename(options: dict[str, Written], old: str, new: str) -> None:
        found = _rename(options, old, new)
        if found is None:
            return
        place, has_both = found
        if has_both:
            problems.append(f"{place}{old} is called {new} now, and both are given: leave out {old}.")
        sentences.setdefault(old, f"{place}{old} is called {new} now; the old name goes with the next version.")

    def current(given: Written, hint: Any) -> Written:
        if isinstance(given.value, list):
            below = declared(hint).below
            return replace(given, value=[current(entry, below) for entry in given.value])
        if not isinstance(given.value, dict):
            return given
        here, options = names.get(declared(hint).kind, {}), dict(given.value)
        own = [old for old in here if not {".", "="} & set(old)]
        for old in own:  # first, because the type of what is below follows from the name
            rename(options, old, here[old])
        options = {name: current(below, type_below(hint, name)) for name, below in options.items()}
        for old in here.keys() - set(own):
            rename(options, old, here[old])
        return replace(given, value=options)

    result = [[change._replace(given=current(change.given, hint)) for change in layer] for layer in layers]
    no_problems(problems)
    return result, list(sentences.values())


def _rename(options: dict[str, Written], old: str, new: str) -> tuple[str, bool] | None:
    """Rename an option or its value in these maps.

    Returns:
        Where it was written, and whether the new name is there as well; None where it was not written.
    """
    (old, _, old_value), (new, _, new_value) = old.partition("="), new.partition("=")
    *sections, name = old.split(".")
    for section in sections:
        below = options[section].value if section in options else None
        if not isinstance(below, dict):
            return None
        options = below
    if name not in options or (old_value and not _is(options[name], old_value)):
        return None
    given, new_name = options.pop(name), new.split(".")[-1]
    has_both = new_name in options
    options[new_name] = read_value(new_value, given.place) if new_value else given
    return f"{given.place}: " if given.place else "", has_both


def _is(given: Written, word: str) -> bool:
    """Whether a value is this word, or this truth value in any of its spellings."""
    truth = BOOLEANS.get(word)
    return given.value == word if truth is None else BOOLEANS.get(str(given.value).lower()) is truth
