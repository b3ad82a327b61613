"""Reading the options of a run: one complete YAML file, dotted overrides."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..reading import (
    Change,
    TypeReader,
    Written,
    built,
    interpolated,
    layered,
    merged,
    no_problems,
    read_override,
    renamed,
    typed,
    written,
)
from ..recipes import read_config
from .options import FORMER_NAMES, RunConfig
from .validation import find_problems

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

logger = logging.getLogger(__name__)

EXAMPLE = "optim.lr=1e-4"
"""An override for messages."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = (), is_record: bool = False) -> RunConfig:
    """Read a YAML file, apply overrides, check everything.

    A file may begin with `base: OTHER.yaml`, a path relative to it, or with `base: RECIPE`, and then says only what it
    changes there. A dictionary (an encoder, options of a data set) takes the place of the one below it, in a file and
    in an override such as `model.head_config={}`; `data.options.count=3` changes one entry. Where another decoder,
    encoder or data set is named, the dictionary of the one below is dropped.

    Every value is read as the type of its option, without YAML's own idea of it: `run.precision=no` is text and
    `run.resume=no` is false, `optim.lr=1e-4` is a number, `schedule.steps=1e3` is 1000; `null`, `~` and nothing are
    None where that is allowed. In dictionaries `0016E5` and `no` are text, see `depthseg.reading.free_value`.

    Args:
        path: YAML file with the sections of `RunConfig`, or name of a recipe; None = the defaults.
        overrides: Such as `optim.lr=1e-4` or `data.size=[96,320]`; later ones win.
        is_record: Whether depthseg wrote the file, so that former names of options are read without a warning.

    Raises:
        FileNotFoundError: No such file or recipe.
        ValueError: Not YAML, an unknown option (the nearest known one is named), a wrong type or a wrong value.
    """
    return _composed([] if path is None else read_config(path), overrides, is_record)


def compose_config(
    layers: Sequence[tuple[str, Any]], overrides: Sequence[str] = (), is_record: bool = False
) -> RunConfig:
    """Put sections of options on top of one another, apply overrides, check everything; see `load_config`.

    Args:
        layers: Where each comes from, for messages, and its sections; later ones win.
        overrides: As in `load_config`.
        is_record: As in `load_config`.

    Raises:
        ValueError: As `load_config`.
    """
    return _composed([written(values, source) for source, values in layers], overrides, is_record)


def _composed(files: Sequence[Written], overrides: Sequence[str], is_record: bool) -> RunConfig:
    layers = [[Change(file, depth=0)] for file in files]
    layers.append([read_override(text, RunConfig, EXAMPLE) for text in overrides])
    layers, old_names = renamed(layers, RunConfig, {RunConfig: FORMER_NAMES})
    for sentence in () if is_record else old_names:
        logger.warning(sentence)
    given = defaults = written(RunConfig().to_dict(), "the default")
    reader = TypeReader(interpolates=True, help="`depthseg recipes --options` explains every option.")
    for layer in layers:
        for change in layer:
            reader.read(change.given, RunConfig)  # by itself, as what is on top would hide its mistakes
        given = layered(given, layer, RunConfig)
    no_problems(reader.problems)
    given = merged(defaults, given, RunConfig, depth=0)
    given = interpolated(given, reader.read(given, RunConfig), reader.problems)
    no_problems(reader.problems)
    config = built(RunConfig, typed(given, RunConfig))
    no_problems(find_problems(config))
    return config


def own_options(config: RunConfig, ignored: Iterable[str] = ()) -> dict[str, Any]:
    """Return the options that differ from their defaults, by dotted name; those of `ignored` do not count."""
    defaults, values = flattened(type(config)().to_dict()), flattened(config.to_dict())
    return {name: value for name, value in values.items() if name not in ignored and value != defaults[name]}


def changed_options(old: RunConfig, new: RunConfig, ignored: Iterable[str] = ()) -> list[str]:
    """List the options whose values differ, as `section.option: old -> new`; those of `ignored` do not count."""
    before, after = flattened(old.to_dict()), flattened(new.to_dict())
    changed = [key for key in before if key not in ignored and before[key] != after[key]]
    return [f"{key}: {before[key]!r} -> {after[key]!r}" for key in changed]


def flattened(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `RunConfig.to_dict` by dotted name, such as `optim.lr`."""
    sections = {name: values for name, values in options.items() if name != "task"}
    flat = {f"{name}.{key}": value for name, values in sections.items() for key, value in values.items()}
    return {"task": options["task"], **flat}
