"""From a study to its trials: each trial is an ordinary run, identified by the hash of its options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any

from ..engine.config import compose_config, own_options
from ..engine.options import RunConfig
from ..engine.run_directory import MAY_CHANGE
from .options import StudyOptions
from .stored import LABELS, planned_runs

KEY_LENGTH = 12

SEEDS_APART = 1000
"""Run seeds of the fine-tunings of one pre-training seed are below the next multiple of this."""

RATE_SEEDS_FROM = SEEDS_APART // 2
"""First run seed of the fine-tunings that choose a rate."""


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        kind: `pretrain` or `finetune`.
        labels: Its position in the matrix: initialisation, architecture, seeds and so on, as in its record.
        config: Options of the run; `model.pretrained` is not set if the weights come from another trial.
        parent: Key of the pre-training whose weights initialise it.
        key: Hash of all this.
    """

    kind: str
    labels: Mapping[str, Any]
    config: RunConfig
    parent: str | None
    key: str


def make_trial(kind: str, labels: Mapping[str, Any], config: RunConfig, parent: str | None) -> Trial:
    """A trial with its key: equal for equal runs, independent of folder, machine and order of the options.

    Only options that differ from their defaults count, so a new option does not change the keys of finished runs.
    """
    counted = own_options(config, MAY_CHANGE)
    text = json.dumps({"kind": kind, "labels": dict(labels), "config": counted, "parent": parent}, sort_keys=True)
    return Trial(kind, labels, config, parent, hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH])


def pretraining_trials(study: StudyOptions) -> list[Trial]:
    """Every pre-training, after the pre-training that it depends on."""
    order = sorted(study.initialisations, key=lambda name: study.initialisations[name].after is not None)
    trials: dict[tuple[str, str, int], Trial] = {}
    for architecture in study.architectures:
        for name in order:
            init = study.initialisations[name]
            for seed in range(study.seeds.pretrain) if init.pretrain is not None else ():
                before = trials[architecture, init.after, seed].key if init.after else None
                trials[architecture, name, seed] = _pretraining(study, name, architecture, seed, before)
    return list(trials.values())


def _pretraining(study: StudyOptions, init: str, architecture: str, seed: int, before: str | None) -> Trial:
    config = compose_config(
        [
            ("pretrain", study.pretrain),
            (f"architectures.{architecture}", study.architectures[architecture]),
            (f"initialisations.{init}.pretrain", study.initialisations[init].pretrain),
            ("the seed", {"run": {"seed": seed, "resume": True}}),
        ]
    )
    labels = {"initialisation": init, "architecture": architecture, "pretrain_seed": seed}
    return make_trial("pretrain", labels, config, before)


def rate_trials(study: StudyOptions, pretrained: Mapping[tuple[str, str, int], str]) -> list[Trial]:
    """The runs that choose a learning rate for each initialisation, architecture and mode, on the first pre-training.

    Args:
        study: The study.
        pretrained: Architecture, initialisation and seed -> key of the pre-training.
    """
    rates = study.rates
    places = [
        (init, architecture, mode, None, None, rates.num_labelled, "rate", rate, 0, seed)
        for architecture, init, mode, rate, seed in product(
            study.architectures, study.initialisations, study.modes, rates.grid, range(rates.seeds)
        )
    ]
    return _finetunings(study, pretrained, places)


def main_trials(
    study: StudyOptions,
    pretrained: Mapping[tuple[str, str, int], str],
    rates: Mapping[tuple[str, str, str], float],
) -> list[Trial]:
    """The runs that a study reports: at the chosen rates, and at the fixed rate if it differs.

    Args:
        study: The study.
        pretrained: Architecture, initialisation and seed -> key of the pre-training.
        rates: Architecture, initialisation and mode -> the chosen rate; the fixed rate is used for missing ones.
    """
    places = []
    seeds = planned_runs(**asdict(study.seeds))
    for architecture, init, mode in product(study.architectures, study.initialisations, study.modes):
        chosen = rates.get((architecture, init, mode), study.rates.fixed)
        roles = {"main": chosen} | ({} if chosen == study.rates.fixed else {"fixed": study.rates.fixed})
        for (role, rate), (name, benchmark) in product(roles.items(), study.benchmarks.items()):
            for num_labelled, fold, run in product(benchmark.num_labelled, benchmark.folds, seeds):
                places.append((init, architecture, mode, name, fold, num_labelled, role, rate, *run))
    return _finetunings(study, pretrained, places)


def _finetunings(
    study: StudyOptions, pretrained: Mapping[tuple[str, str, int], str], places: Sequence[tuple[Any, ...]]
) -> list[Trial]:
    """The fine-tunings at these positions of the matrix, each given by its labels."""

    @cache  # composing is slow
    def composed(architecture: str, mode: str, benchmark: str | None, fold: str | None) -> RunConfig:
        images = study.rates.data if benchmark is None else study.benchmarks[benchmark].folds[fold]
        return compose_config(
            [
                ("finetune", study.finetune),
                (f"architectures.{architecture}", study.architectures[architecture]),
                (f"modes.{mode}", study.modes[mode]),
                (f"the images of {fold or 'rates.data'}", images),
            ]
        )

    found = []
    for init, *shared, num_labelled, role, lr, first, second in places:
        config, given = composed(*shared), study.initialisations[init]
        # A draw is the same whichever pre-training it is from.
        seed = second if study.seeds.draws else SEEDS_APART * first + second
        # Runs that choose a rate must be independent of the reported runs.
        seed += RATE_SEEDS_FROM if role == "rate" else 0
        config = replace(
            config,
            data=replace(config.data, subset_size=num_labelled, subset_seed=seed),
            optim=replace(config.optim, lr=lr),
            run=replace(config.run, seed=seed, resume=True),
        )
        if given.checkpoint is not None:
            model = replace(config.model, pretrained=given.checkpoint, revision=given.revision)
            config = replace(config, model=model)
        config.validate()
        labels = dict(zip(LABELS["finetune"], (init, *shared, num_labelled, role, lr, first, second), strict=True))
        found.append(make_trial("finetune", labels, config, pretrained.get((shared[0], init, first))))
    return found


def shard_of(study: StudyOptions, index: int, count: int) -> set[tuple[str, str]]:
    """The initialisations, by architecture, that one of several machines runs.

    Initialisations that depend on the same pre-training are in the same shard, so that no machine waits for another.
    Each group is assigned to the shard with the lowest load.

    Args:
        study: The study.
        index: From 1 to `count`.
        count: Number of shards.

    Raises:
        ValueError: The index is out of range.
    """
    if not 1 <= index <= count:
        raise ValueError(f"--shard {index}/{count} does not exist; write 1/{count} to {count}/{count}.")
    groups: dict[tuple[str, str], list[str]] = {}
    for architecture in study.architectures:
        for name, init in study.initialisations.items():
            groups.setdefault((architecture, init.after or name), []).append(name)
    loads = [0.0] * count
    mine: set[tuple[str, str]] = set()
    for (architecture, _), inits in sorted(groups.items(), key=lambda item: (-_load(study, item[1]), item[0])):
        lightest = loads.index(min(loads))
        loads[lightest] += _load(study, inits)
        if lightest == index - 1:
            mine |= {(architecture, init) for init in inits}
    return mine


def _load(study: StudyOptions, inits: list[str]) -> float:
    """Cost of a group, in pre-trainings; fine-tuning of an initialisation counts as one, too."""
    return sum(1.0 + (study.initialisations[init].pretrain is not None) for init in inits)
