"""From the trials of a study without switches to those with one, and with all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..matrix import Trial, make_trial
from ..options import StudyOptions
from .switches import Switched, applicable, changed, is_alone, of_stage, settings_of

SWITCHES_LABEL = "switches"
"""Label of a trial with switches: name -> settings. Trials without any do not have it, so their keys stay."""


def combinations(study: StudyOptions, mode: str, combined: Switched) -> Iterator[Switched]:
    """The sets of switches that are on together: each one alone, then all of them.

    Args:
        study: Says which are measured alone.
        mode: The mode.
        combined: All that apply to a run.
    """
    yield from (settings_of(name, combined) for name in combined if is_alone(study, name, mode))
    if combined:
        yield combined


def defect_trials(study: StudyOptions, pretraining: Sequence[Trial], main: Sequence[Trial]) -> list[Trial]:
    """The trials with switches, draw by draw, each after the pre-training that it depends on.

    Args:
        study: The study.
        pretraining: All pre-trainings without switches.
        main: All fine-tunings without switches; those at a fixed rate, beside the chosen one, get none.
    """
    parents = {trial.key: trial for trial in pretraining}
    found: dict[str, Trial] = {}
    reported = [trial for trial in main if trial.labels["role"] == "main"]
    for base in sorted(reported, key=lambda trial: (trial.labels["finetune_seed"], trial.labels["pretrain_seed"])):
        parent = parents.get(base.parent)
        combined = applicable(
            study, base.labels["initialisation"], base.config, None if parent is None else parent.config
        )
        for switched in combinations(study, base.labels["mode"], combined):
            for trial in _trials(base, parent, switched):
                found.setdefault(trial.key, trial)
    return list(found.values())


def _trials(base: Trial, parent: Trial | None, switched: Switched) -> Iterator[Trial]:
    """The fine-tuning with switches, after the pre-training with those that touch it; none if none needs a run."""
    earlier, later = of_stage(switched, "pretrain"), of_stage(switched, "finetune")
    key = base.parent
    if earlier:
        before = _switched(parent, earlier, earlier, parent.parent)
        key = before.key
        yield before
    if earlier or later:
        yield _switched(base, switched, later, key)


def _switched(base: Trial, label: Switched, own: Switched, parent: str | None) -> Trial:
    """A trial with switches.

    Args:
        base: Without.
        label: All switches, those that an earlier run or the score has included.
        own: Those that change the options of this run.
        parent: Key of the pre-training whose weights initialise it.
    """
    config = changed(base.config, own)
    if base.kind == "finetune":
        # No checkpoint holds the gradients of earlier steps: what was interrupted starts again.
        config = replace(config, run=replace(config.run, resume=False, overwrite=True))
    config.validate()
    return make_trial(base.kind, {**base.labels, SWITCHES_LABEL: _plain(label)}, config, parent)


def _plain(switched: Switched) -> dict[str, dict]:
    return {name: dict(settings) for name, settings in switched.items()}


def switches_of(labels: Mapping) -> Switched:
    """The switches of a trial or record, from its labels; empty for one without."""
    return labels.get(SWITCHES_LABEL, {})
