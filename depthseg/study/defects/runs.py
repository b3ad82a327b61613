"""How a trial with switches is run and examined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .data import UnusedClasses, datasets_with
from .matrix import switches_of
from .scoring import reported_scores
from .switches import Switched, applicable, of_stage
from .training import normalise_twice, wrapping_of

if TYPE_CHECKING:
    from torch import nn

    from ...data import SampleDataset
    from ..matrix import Trial
    from ..options import StudyOptions

IN_DATA = {"subset", "label_resize", "num_outputs", "nyu_image"}
"""Switches that change what a run reads."""


def run_arguments(trial: Trial) -> dict[str, Any]:
    """What `train` is given beside the options of a trial; nothing for a trial without switches."""
    switched = switches_of(trial.labels)
    if not switched:
        return {}
    own = _own(trial)
    given: dict[str, Any] = {"wrapping": wrapping_of(own, names=tuple(switched))}
    if IN_DATA & own.keys():
        given["train_set"], given["val_set"] = datasets_with(trial.config.data, own)
    return given


def as_trained(trial: Trial, test_set: SampleDataset, model: nn.Module, processor: Any) -> SampleDataset:
    """Give a saved model what its run put around it; returns the test set with the classes of the model."""
    own = _own(trial)
    if "normalisation" in own:
        normalise_twice(model, processor)
    return UnusedClasses(test_set, own["num_outputs"]["outputs"]) if "num_outputs" in own else test_set


def reported(study: StudyOptions, trial: Trial, model: nn.Module, processor: Any) -> dict[str, Any]:
    """Entry `reported` of the record of a fine-tuning in a study with switches, see `reported_scores`."""
    if not study.defects:
        return {}
    offered = applicable(study, trial.labels["initialisation"], trial.config, None)
    scores = reported_scores(trial.config.data, switches_of(trial.labels), offered, model, processor)
    return {"reported": scores}


def _own(trial: Trial) -> Switched:
    """The switches that this run has around it, not one before it."""
    return of_stage(switches_of(trial.labels), trial.kind)
