"""Reading the options of a run: one complete YAML file, dotted overrides."""

from __future__ import annotations

import dataclasses
import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..recipes import config_path
from .options import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply overrides, check everything.

    A file may begin with `base: OTHER.yaml`, a path relative to it, or with `base: RECIPE`, and then says only what it
    changes there. A dictionary in a file (an encoder, options of a data set) takes the place of the one below it; one
    in an override is merged into it key by key.

    Args:
        path: YAML file with the sections of `RunConfig`, or name of a recipe; None = the defaults.
        overrides: Such as `optim.lr=1e-4` or `data.size=[96,320]`; later ones win. Values are YAML: what YAML would
            take for a number wants quotes, as in `data.train_options.exclude_sequences=["0016E5"]`.

    Raises:
        FileNotFoundError: No such file or recipe.
        ValueError: Not YAML, an unknown option (the nearest known one is named), a wrong type or a wrong value.
    """
    files = [] if path is None else _with_bases(config_path(path))
    return compose_config(files, overrides)


def compose_config(layers: Sequence[tuple[str, Any]], overrides: Sequence[str] = ()) -> RunConfig:
    """Put sections of options on top of one another, apply overrides, check everything; see `load_config`.

    Args:
        layers: Where each comes from, for messages, and its sections; later ones win.
        overrides: As in `load_config`.

    Raises:
        ValueError: As `load_config`.
    """
    merged = OmegaConf.structured(RunConfig)
    sources = [(source, OmegaConf.create(values), True) for source, values in layers]
    sources += [(f"override {text!r}", _read_override(text), False) for text in overrides]
    for source, values, replaces in sources:
        _refuse_unknown(values, RunConfig, source)
        if replaces:
            _clear_dictionaries(merged, values)
        try:
            merged = OmegaConf.merge(merged, values)
        except OmegaConfBaseException as error:
            raise ValueError(_type_sentence(source, error)) from error
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(_type_sentence(sources[-1][0] if sources else "the options", error)) from error
    config.validate()
    return config


def changed_options(old: RunConfig, new: RunConfig, ignored: Iterable[str] = ()) -> list[str]:
    """List the options whose values differ, as `section.option: old -> new`.

    Args:
        old: The options before.
        new: The options now.
        ignored: Dotted names that do not count.
    """
    after = _flatten(new.to_dict())
    changed = {key: was for key, was in _flatten(old.to_dict()).items() if key not in ignored and was != after[key]}
    return [f"{key}: {was!r} -> {after[key]!r}" for key, was in changed.items()]


def _flatten(options: Mapping[str, Any]) -> dict[str, Any]:
    flat = {"task": options["task"]}
    for section, values in options.items():
        if section != "task":
            flat |= {f"{section}.{key}": value for key, value in values.items()}
    return flat


def _with_bases(path: Path) -> list[tuple[str, Any]]:
    """A file with the files that it is based on, the lowest one first."""
    chain: list[tuple[str, Any]] = []
    while path is not None:
        path = Path(os.path.normpath(path))
        if str(path) in [name for name, _ in chain]:
            raise ValueError(f"{path} is based on itself, by way of {', '.join(name for name, _ in chain)}.")
        values = _read_yaml(path)
        base = values.pop("base", None)
        if base is not None and not isinstance(base, str):
            raise ValueError(f"{path}: base must be the path of one YAML file or the name of a recipe, got {base}.")
        chain.append((str(path), values))
        path = None if base is None else config_path(base, path.parent)
    return chain[::-1]


def _clear_dictionaries(merged: Any, values: Any) -> None:
    """Empty every free dictionary of the merged options that a file brings anew."""
    for section in set(values) - {"task"}:
        for key in values[section]:
            if OmegaConf.is_dict(values[section]._get_node(key)):
                merged[section][key] = {}


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    try:
        values = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file that can be read: {error}") from error
    if not OmegaConf.is_dict(values):
        raise ValueError(f"{path} must hold sections such as `model:` and `data:`, not a list or a single value.")
    return values


def _read_override(text: str) -> Any:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"Override {text!r} has no `=`: write `section.option=value`, such as `optim.lr=1e-4`.")
    try:
        return OmegaConf.from_dotlist([text])
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"Override {text!r} cannot be read: {error}") from error


def _refuse_unknown(values: Any, options: type, source: str, prefix: str = "") -> None:
    """Walk the given names along the dataclasses; free dictionaries (encoder, data options) are left alone."""
    hints = get_type_hints(options)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5) or _elsewhere(str(key))
            hint = f" Did you mean {near[0] if '.' in near[0] else prefix + near[0]!r}?" if near else ""
            raise ValueError(
                f"{source}: unknown option {prefix + str(key)!r}.{hint} "
                f"Known in {prefix.rstrip('.') or 'the file'}: {', '.join(hints)}."
            )
        child = OmegaConf.to_container(values, resolve=False)[key]
        if not dataclasses.is_dataclass(hints[key]):
            continue
        if not isinstance(child, dict):
            raise ValueError(
                f"{source}: {prefix + key!r} is a section with options of its own, got {child!r}. "
                f"Its options: {', '.join(get_type_hints(hints[key]))}."
            )
        _refuse_unknown(values[key], hints[key], source, f"{prefix}{key}.")


def _elsewhere(key: str) -> list[str]:
    """Options of that very name in other sections."""
    return [name for name in _flatten(RunConfig().to_dict()) if name.rsplit(".", 1)[-1] == key]


def _type_sentence(source: str, error: OmegaConfBaseException) -> str:
    reason = str(error).splitlines()[0].rstrip(".")
    where = f"option {error.full_key!r}: " if getattr(error, "full_key", None) else ""
    return f"{source}: {where}{reason}."
