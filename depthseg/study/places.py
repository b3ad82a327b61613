"""The places of the matrix of a study that are run, and the initialisations that others begin with.

Initialisations, cells and claims are dictionaries here: those of options, by `vars`, and those that were stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .options import StudyOptions

SETTING = {"architecture": "architectures", "mode": "modes", "benchmark": "benchmarks"}
"""Parts of a setting beside the number of labelled images -> where a study has their entries."""

_PARTS = {"initialisation": "initialisations", **SETTING, "num_labelled": "num_labelled"}

Initialisations = Mapping[str, Mapping[str, Any]]


def in_cells(cells: Sequence[Mapping[str, Sequence[Any]]], **place: Any) -> bool:
    """Whether a study runs anything at a place of its matrix.

    Args:
        cells: The cells of the study.
        place: `initialisation`, parts of a setting and a value of each, such as `mode="frozen"`; any of the others.
    """
    return not cells or any(
        all(not cell[_PARTS[part]] or value in cell[_PARTS[part]] for part, value in place.items()) for cell in cells
    )


def given_rate(rates: Sequence[Mapping[str, Any]], **place: Any) -> float | None:
    """The learning rate that a study gives for a place of its matrix, see `in_cells`; None = it gives none.

    Args:
        rates: The given rates of the study.
        place: `initialisation`, `architecture` and `mode`.
    """
    return next((entry["rate"] for entry in rates if in_cells([entry], **place)), None)


def places_of(claim: Mapping[str, Any], study: StudyOptions) -> list[dict[str, Any]]:
    """The settings that a claim is about and that are run with both of its initialisations, by the parts of each."""
    places = [
        {"architecture": architecture, "mode": mode, "benchmark": name, "num_labelled": count}
        for architecture, mode in product(study.architectures, study.modes)
        for name, benchmark in study.benchmarks.items()
        for count in benchmark.num_labelled
    ]
    cells = [vars(cell) for cell in study.cells]
    return [place for place in places if is_about(claim, place, cells)]


def is_about(claim: Mapping[str, Any], place: Mapping[str, Any], cells: Sequence[Mapping[str, Any]] = ()) -> bool:
    """Whether a claim is about a setting, and its initialisations are run there.

    Args:
        claim: The claim.
        place: The parts of the setting; others are ignored.
        cells: The cells of the study.
    """
    setting = {part: place[part] for part in (*SETTING, "num_labelled")}
    return all(claim.get(part) in (None, "", value) for part, value in setting.items()) and all(
        in_cells(cells, initialisation=claim.get(side), **setting) for side in ("better", "than")
    )


def before(initialisations: Initialisations, name: str) -> list[str]:
    """The initialisations that one comes after, the nearest first."""
    after = initialisations[name].get("after")
    return [] if after is None else [after, *before(initialisations, after)]


def needed(initialisations: Initialisations, cells: Sequence[Mapping[str, Any]], **place: Any) -> set[str]:
    """The initialisations that are fine-tuned at a place, see `in_cells`, and those that they come after."""
    tuned = [name for name in initialisations if in_cells(cells, initialisation=name, **place)]
    return {source for name in tuned for source in (name, *before(initialisations, name))}


def weights_from(initialisations: Initialisations, name: str) -> str:
    """The initialisation whose pre-training or checkpoint gives the weights of fine-tunings: itself or one before."""
    line = [name, *before(initialisations, name)]
    return next((source for source in line if initialisations[source].get("pretrain") is not None), line[-1])


def origin_of(initialisations: Initialisations, name: str) -> Literal["seeds", "checkpoint", "none"]:
    """The origin of the weights of an initialisation: pre-trainings of the study, given weights, or neither."""
    entry = initialisations[weights_from(initialisations, name)]
    if entry.get("pretrain") is not None:
        return "seeds"
    return "none" if entry.get("checkpoint") is None else "checkpoint"
