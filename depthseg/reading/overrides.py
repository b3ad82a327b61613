"""Options on the command line: `section.option=value`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .declared import declared, type_below
from .layers import Change, layered
from .written import Written, free_value
from .yaml_files import read_value


def read_override(
    text: str, hint: Any, example: str, kind: str = "override", former: Mapping[type, Mapping[str, str]] | None = None
) -> Change:
    """Read an override.

    Where text is declared, all that follows `=` is the text, whatever it looks like to YAML; quotes around it are
    taken off. Other values are YAML, such as `[96, 320]` or `{depth: 18}`. A map takes the place of the one below it;
    `encoder.depth=18` changes one entry.

    Args:
        text: Such as `optim.lr=1e-4`.
        hint: The type in which the name is looked up, such as `RunConfig`.
        example: An override for messages to show.
        kind: What messages call it.
        former: Dataclass -> former name of an option -> its name now, to find the type; `renamed` changes the name.

    Returns:
        Maps around the value, one for each part of the name, and their number.

    Raises:
        ValueError: There is no `=`, a part of the name is missing, or the value is not YAML.
    """
    place = f"{kind} {text!r}"
    name, equals, value = text.partition("=")
    names = [part.strip() for part in name.split(".")]
    if not (equals and all(names)):
        wrong = "has an empty name" if equals else "has no `=`"
        form = example.partition("=")[0].count(".") * "section." + "option=value"
        raise ValueError(f"{place} {wrong}: write `{form}`, such as `{example}`.")
    for part in names:
        hint = type_below(hint, (former or {}).get(declared(hint).kind, {}).get(part, part))
    given = _value(value.strip(), hint, place)
    for part in reversed(names):
        given = Written({part: given}, place)
    return Change(given, len(names))


def read_pairs(texts: Iterable[str], kind: str, example: str) -> dict[str, Any]:
    """Read `name=value` where no type is declared; later ones win.

    Args:
        texts: The pairs.
        kind: What messages call one, such as `--option`.
        example: A pair for messages to show.

    Raises:
        ValueError: There is no `=`, a name is missing, or a value is not YAML.
    """
    changes = [read_override(text, Any, example, kind) for text in texts]
    return free_value(layered(Written({}), changes, Any))


def _value(text: str, hint: Any, place: str) -> Written:
    if declared(hint).kind is not str:
        return read_value(text, place)
    if text[:1] in ("'", '"'):
        try:
            given = read_value(text, place)
        except ValueError:
            return Written(text, place, plain=True)
        if isinstance(given.value, str):
            return given
    return Written(text, place, plain=True)
