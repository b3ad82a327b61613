"""Reading the options of a run: one complete YAML file, dotted overrides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..reading import (
    TypeReader,
    Written,
    built,
    interpolated,
    is_null,
    merged,
    no_problems,
    read_override,
    read_yaml,
    shown,
    written,
)
from ..recipes import config_path
from .options import RunConfig
from .rules import ALLOWED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EXAMPLE = "optim.lr=1e-4"
"""An override for messages."""

_TO_OPTIONS = 2
"""Levels of maps down to the options of a section."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply overrides, check everything.

    A file may begin with `base: OTHER.yaml`, a path relative to it, or with `base: RECIPE`, and then says only what it
    changes there. A dictionary in a file (an encoder, options of a data set) takes the place of the one below it; one
    in an override is merged into it key by key.

    Every value is read as the type of its option, without YAML's own idea of it: `run.precision=no` is text and
    `run.resume=no` is false, `optim.lr=1e-4` is a number, `schedule.steps=1e3` is 1000; `null`, `~` and nothing are
    None where that is allowed. In dictionaries `0016E5` and `no` are text, see `depthseg.reading.free_value`.

    Args:
        path: YAML file with the sections of `RunConfig`, or name of a recipe; None = the defaults.
        overrides: Such as `optim.lr=1e-4` or `data.size=[96,320]`; later ones win.

    Raises:
        FileNotFoundError: No such file or recipe.
        ValueError: Not YAML, an unknown option (the nearest known one is named), a wrong type or a wrong value.
    """
    files = [] if path is None else _with_bases(config_path(path))
    return _composed(files, overrides)


def compose_config(layers: Sequence[tuple[str, Any]], overrides: Sequence[str] = ()) -> RunConfig:
    """Put sections of options on top of one another, apply overrides, check everything; see `load_config`.

    Args:
        layers: Where each comes from, for messages, and its sections; later ones win.
        overrides: As in `load_config`.

    Raises:
        ValueError: As `load_config`.
    """
    return _composed([written(values, source) for source, values in layers], overrides)


def _composed(layers: Sequence[Written], overrides: Sequence[str]) -> RunConfig:
    given = written(RunConfig().to_dict(), "the default")
    reader = TypeReader(ALLOWED, RunConfig, interpolates=True)
    layers = [(layer, _TO_OPTIONS) for layer in layers]
    layers += [(read_override(text, RunConfig, EXAMPLE), float("inf")) for text in overrides]
    for layer, depth in layers:
        reader.read(layer, RunConfig)  # by itself, as what lies on top would hide its mistakes
        given = merged(given, layer, depth)
    no_problems(reader.problems)
    given = interpolated(given, reader.read(given, RunConfig), reader.problems)
    no_problems(reader.problems)
    reader = TypeReader(ALLOWED, RunConfig)
    values = reader.read(given, RunConfig)
    no_problems(reader.problems)
    config = built(RunConfig, values)
    config.validate()
    return config


def own_options(config: RunConfig, ignored: Iterable[str] = ()) -> dict[str, Any]:
    """Return the options that differ from their defaults, by dotted name.

    Args:
        config: The options.
        ignored: Dotted names that do not count.
    """
    defaults = _flatten(type(config)().to_dict())
    return {
        name: value
        for name, value in _flatten(config.to_dict()).items()
        if name not in ignored and value != defaults[name]
    }


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


def _with_bases(path: Path) -> list[Written]:
    """A file with the files that it is based on, the lowest one first."""
    chain: dict[str, Written] = {}
    while path is not None:
        path = Path(os.path.normpath(path))
        if str(path) in chain:
            raise ValueError(f"{path} is its own base, by way of {', '.join(chain)}.")
        chain[str(path)] = _read_file(path)
        base = chain[str(path)].value.pop("base", None)
        if base is not None and not is_null(base) and not isinstance(base.value, str):
            raise ValueError(
                f"{base.place}: base must be the path of one YAML file or the name of a recipe, got {shown(base)}."
            )
        path = None if base is None or is_null(base) else config_path(base.value, path.parent)
    return list(chain.values())[::-1]


def _read_file(path: Path) -> Written:
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    values = read_yaml(path)
    if not isinstance(values.value, dict):
        raise ValueError(f"{path} must hold sections such as `model:` and `data:`, not a list or a single value.")
    return values
