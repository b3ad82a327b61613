"""The places of the matrix of a study that are run, and the initialisations that others begin with.

Studies and their parts are options here, or dictionaries as they were stored: every entry is `Any`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .options import StudyOptions

SETTING = {"architecture": "architectures", "mode": "modes", "benchmark": "benchmarks"}
"""Parts of a setting beside the number of labelled images -> where a study has their entries."""

PLACE = (*SETTING, "num_labelled")
"""All parts of a setting."""

_PARTS = {"initialisation": "initialisations", **SETTING, "num_labelled": "num_labelled"}


def _of(entry: Any, name: str) -> Any:
    """A part of options; of stored ones None if the version that wrote them did not have it."""
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name)


def settings_of(study: Any) -> list[dict[str, Any]]:
    """Architecture x mode x benchmark x number of labelled images, in the order of the study."""
    return [
        dict(zip(PLACE, (architecture, mode, name, count), strict=True))
        for architecture, mode in product(_of(study, "architectures"), _of(study, "modes"))
        for name, benchmark in _of(study, "benchmarks").items()
        for count in _of(benchmark, "num_labelled")
    ]


def in_cells(cells: Sequence[Any], **place: Any) -> bool:
    """Whether the cells of a study run anything at a place of its matrix.

    The place has values of `initialisation` and of parts of a setting, such as `mode="frozen"`; any of the others.
    """
    return not cells or any(
        all(not (named := _of(cell, _PARTS[part])) or value in named for part, value in place.items())
        for cell in cells
    )


def tuned(study: StudyOptions) -> Iterator[tuple[str, str, str]]:
    """Architecture, initialisation and mode of all fine-tunings."""
    for architecture, init, mode in product(study.architectures, study.initialisations, study.modes):
        if in_cells(study.cells, architecture=architecture, initialisation=init, mode=mode):
            yield architecture, init, mode


def given_rate(rates: Sequence[Any], architecture: str, init: str, mode: str) -> float | None:
    """The learning rate that the given rates of a study have for a part of its matrix; None = they have none."""
    place = {"architecture": architecture, "initialisation": init, "mode": mode}
    return next((_of(entry, "rate") for entry in rates if in_cells([entry], **place)), None)


def places_of(claim: Any, study: StudyOptions) -> list[dict[str, Any]]:
    """The settings that a claim is about and that are run with both of its initialisations, by the parts of each."""
    return [place for place in settings_of(study) if is_about(claim, place, study.cells)]


def is_about(claim: Any, place: Mapping[str, Any], cells: Sequence[Any] = ()) -> bool:
    """Whether a claim is about the setting of a place, and its initialisations are run there by the cells."""
    setting = {part: place[part] for part in PLACE}
    return all(_of(claim, part) in (None, "", value) for part, value in setting.items()) and all(
        in_cells(cells, initialisation=_of(claim, side), **setting) for side in ("better", "than")
    )


def before(initialisations: Mapping[str, Any], name: str) -> list[str]:
    """The initialisations that one comes after, the nearest first."""
    after = _of(initialisations[name], "after")
    return [] if after is None else [after, *before(initialisations, after)]


def needed(initialisations: Mapping[str, Any], cells: Sequence[Any], architecture: str) -> set[str]:
    """The initialisations that are fine-tuned with an architecture, and those that they come after."""
    chosen = [name for name in initialisations if in_cells(cells, initialisation=name, architecture=architecture)]
    return {source for name in chosen for source in (name, *before(initialisations, name))}


def weights_from(initialisations: Mapping[str, Any], name: str) -> str:
    """The initialisation whose pre-training or checkpoint gives the weights of fine-tunings: itself or one before."""
    line = [name, *before(initialisations, name)]
    return next((source for source in line if _of(initialisations[source], "pretrain") is not None), line[-1])


def origin_of(initialisations: Mapping[str, Any], name: str) -> Literal["seeds", "checkpoint", "none"]:
    """The origin of the weights of an initialisation: pre-trainings of the study, given weights, or neither."""
    entry = initialisations[weights_from(initialisations, name)]
    if _of(entry, "pretrain") is not None:
        return "seeds"
    return "none" if _of(entry, "checkpoint") is None else "checkpoint"
