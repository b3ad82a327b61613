"""YAML without its own idea of what a value is: text stays as it was typed until its declared type is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from .written import NULLS, Written, free_value

_PLAIN = "plain"
_MERGE = "tag:yaml.org,2002:merge"
_RARE_LINE_BREAKS = "\x85\u2028\u2029"
_HINTS = {
    "found character '\\t'": " (a tab: YAML is indented by spaces)",
    "mapping values are not allowed here": " (text that holds `: ` wants quotes)",
    "found unconstructable recursive node": " (an anchor that holds itself)",
}


def read_yaml(path: str | Path) -> Written:
    """Read a YAML file; an empty one is an empty map.

    Raises:
        ValueError: It is not YAML, has a name twice in one map, or a tag; the line is named.
    """
    data = Path(path).read_bytes()
    try:
        return _parse(data, lambda mark: f"{path}, line {mark.line + 1}") or Written({}, str(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file that can be read: {_reason(error, data)}.") from error


def read_value(text: str, place: str) -> Written:
    """Read one value as YAML, such as `[96, 320]`.

    Args:
        text: The value; without text it is null.
        place: What messages call it.

    Raises:
        ValueError: It is not YAML, has a name twice in one map, or a tag.
    """
    try:
        return _parse(text, lambda mark: place) or Written("", place, plain=True)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or str(error)
        raise ValueError(f"{place} cannot be read: {reason}. Text with special characters wants quotes.") from error


def write_yaml(path: str | Path, values: Any) -> None:
    """Write plain dictionaries, lists, numbers and text so that any reader of YAML gets them back.

    Text that this package or another reader could take for something else (`no`, `1e-3`, `0016E5`) gets quotes.
    """
    with open(path, "w", encoding="utf-8") as file:
        yaml.dump(values, file, _Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def _parse(source: str | bytes, place_of: Any) -> Written | None:
    loader = _Loader(source)
    loader.place_of = place_of
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _reason(error: yaml.YAMLError, data: bytes) -> str:
    """What is wrong, and in which line."""
    if isinstance(error, yaml.reader.ReaderError):
        line = data[: error.position].count(b"\n") + 1
        return f"line {line}: a character that is not allowed there, or not UTF-8"
    problem = error.problem or error.context or "unknown reason"
    mark = error.problem_mark or error.context_mark
    hint = next((hint for start, hint in _HINTS.items() if problem.startswith(start)), "")
    return f"line {mark.line + 1}: {problem}{hint}"


class _Loader(yaml.SafeLoader):
    """Makes `Written` of everything; what has no quotes is marked as plain."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Return the tag of a node: unquoted text is plain, whatever YAML would make of it."""
        if kind is yaml.ScalarNode and implicit[0]:
            return _MERGE if value == "<<" else _PLAIN
        return super().resolve(kind, value, implicit)


def _plain(loader: _Loader, node: yaml.ScalarNode) -> Written:
    return Written(node.value, loader.place_of(node.start_mark), plain=True)


def _quoted(loader: _Loader, node: yaml.ScalarNode) -> Written:
    return Written(loader.construct_scalar(node), loader.place_of(node.start_mark))


def _list(loader: _Loader, node: yaml.SequenceNode) -> Written:
    return Written(loader.construct_sequence(node, deep=True), loader.place_of(node.start_mark))


def _map(loader: _Loader, node: yaml.MappingNode) -> Written:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.tag == _MERGE:
            continue
        place = loader.place_of(key.start_mark)
        if not isinstance(key, yaml.ScalarNode) or (key.tag == _PLAIN and key.value in NULLS):
            raise ValueError(f"{place}: a map has a name that is no text.")
        if key.value in lines:
            raise ValueError(f"{place}: {key.value!r} is there twice; line {lines[key.value]} has it already.")
        lines[key.value] = key.start_mark.line + 1
    loader.flatten_mapping(node)
    values = {
        key.value: replace(loader.construct_object(value, deep=True), place=loader.place_of(key.start_mark))
        for key, value in node.value
    }
    return Written(values, loader.place_of(node.start_mark))


def _refuse_tag(loader: _Loader, node: yaml.Node) -> None:
    place = loader.place_of(node.start_mark)
    raise ValueError(f"{place}: options have no YAML tags such as {node.tag}; leave it out.")


_Loader.yaml_constructors = {
    _PLAIN: _plain,
    _MERGE: _plain,
    "tag:yaml.org,2002:str": _quoted,
    "tag:yaml.org,2002:seq": _list,
    "tag:yaml.org,2002:map": _map,
    None: _refuse_tag,
}


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None
    if any(line_break in text for line_break in _RARE_LINE_BREAKS):
        style = '"'  # as escapes; without them readers make other line breaks of them
    elif not isinstance(free_value(Written(text, plain=True)), str) or _is_number(text):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_number(text: str) -> bool:
    """Whether some reader may take it for a number, such as `0016E5`."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_Dumper.add_representer(str, _dump_text)
_Dumper.add_multi_representer(PurePath, lambda dumper, path: _dump_text(dumper, str(path)))
