"""From a study to its trials: each trial is an ordinary run, identified by the hash of its options."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any

from ..engine.config import compose_config, own_options
from ..engine.options import RunConfig
from ..engine.run_directory import MAY_CHANGE
from .options import InitialisationOptions, StudyOptions
from .places import before, given_rate, in_cells, needed, settings_of, tuned, weights_from
from .rules import MOST_DRAWS
from .stored import LABELS, planned_runs

KEY_LENGTH = 12

RATE_SEEDS_FROM = MOST_DRAWS
"""First run seed of the fine-tunings that choose a rate."""

SEEDS_APART = 2 * RATE_SEEDS_FROM
"""Run seeds of the fine-tunings of one pre-training seed are below the next multiple of this."""

Keys = Mapping[tuple[str, str, int], str]
"""Architecture, initialisation and seed -> key of the pre-training."""


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
    """Every pre-training that a fine-tuning or another pre-training depends on, after those that it depends on."""
    inits = study.initialisations
    order = sorted(inits, key=lambda name: len(before(inits, name)))
    trials: dict[tuple[str, str, int], Trial] = {}
    for architecture in study.architectures:
        wanted = needed(inits, study.cells, architecture)
        names = [name for name in order if name in wanted and inits[name].pretrain is not None]
        for name, seed in product(names, range(study.seeds.pretrain)):
            trials[architecture, name, seed] = _pretraining(study, name, architecture, seed, trials)
    return list(trials.values())


def _pretraining(
    study: StudyOptions, init: str, architecture: str, seed: int, earlier: Mapping[tuple[str, str, int], Trial]
) -> Trial:
    options = study.initialisations[init]
    source = None if options.after is None else weights_from(study.initialisations, options.after)
    config = compose_config(
        [
            ("pretrain", study.pretrain),
            (f"architectures.{architecture}", study.architectures[architecture]),
            (f"initialisations.{init}.pretrain", options.pretrain),
            ("the seed", {"run": {"seed": seed, "resume": True}}),
        ]
    )
    if source is not None:
        config = _with_checkpoint(config, study.initialisations[source], architecture)
    labels = {"initialisation": init, "architecture": architecture, "pretrain_seed": seed}
    parent = earlier.get((architecture, source, seed))
    return make_trial("pretrain", labels, config, None if parent is None else parent.key)


def _with_checkpoint(config: RunConfig, init: InitialisationOptions, architecture: str) -> RunConfig:
    """The options of a run that begins with the given weights of an initialisation, if it has any."""
    if init.checkpoint is None:
        return config
    given = init.checkpoint.replace("{architecture}", architecture)
    return replace(config, model=replace(config.model, pretrained=given, revision=init.revision))


def rate_trials(study: StudyOptions, pretrained: Keys) -> list[Trial]:
    """The runs that choose a rate for each architecture, initialisation and mode, on the first pre-training."""
    rates = study.rates
    places = [
        (init, architecture, mode, None, None, rates.num_labelled, "rate", rate, 0, seed)
        for architecture, init, mode in tuned(study)
        if given_rate(rates.given, architecture, init, mode) is None
        for rate, seed in product(rates.grid, range(rates.seeds))
    ]
    return _finetunings(study, pretrained, places)


def main_trials(study: StudyOptions, pretrained: Keys, rates: Mapping[tuple[str, str, str], float]) -> list[Trial]:
    """The runs that a study reports: at the chosen rates, and at the fixed rate if it differs.

    Args:
        study: The study.
        pretrained: Its pre-trainings.
        rates: Architecture, initialisation and mode -> the chosen rate; the fixed rate is used for missing ones, and
            no other where one is given.
    """
    fixed, places = study.rates.fixed, []
    seeds = planned_runs(**asdict(study.seeds))
    for architecture, init, mode in tuned(study):
        given = given_rate(study.rates.given, architecture, init, mode)
        chosen = given or rates.get((architecture, init, mode)) or fixed or study.rates.grid[0]
        roles = {"main": chosen} | ({} if given or fixed in (None, chosen) else {"fixed": fixed})
        for (role, rate), (name, benchmark) in product(roles.items(), study.benchmarks.items()):
            place = {"architecture": architecture, "initialisation": init, "mode": mode, "benchmark": name}
            counts = [n for n in benchmark.num_labelled if in_cells(study.cells, **place, num_labelled=n)]
            for num_labelled, fold, run in product(counts, benchmark.folds, seeds):
                places.append((init, architecture, mode, name, fold, num_labelled, role, rate, *run))
    return _finetunings(study, pretrained, places)


def _finetunings(study: StudyOptions, pretrained: Keys, places: Sequence[tuple[Any, ...]]) -> list[Trial]:
    """The fine-tunings at these positions of the matrix, each given by its labels."""

    @cache  # composing is slow
    def composed(
        changes: str | None, architecture: str, mode: str, benchmark: str | None, fold: str | None
    ) -> RunConfig:
        images = study.rates.data if benchmark is None else study.benchmarks[benchmark].folds[fold]
        return compose_config(
            [
                ("finetune", study.finetune),
                (f"architectures.{architecture}", study.architectures[architecture]),
                (f"modes.{mode}", study.modes[mode]),
                (f"initialisations.{changes}.finetune", study.initialisations[changes].finetune if changes else {}),
                (f"the images of {fold or 'rates.data'}", images),
            ]
        )

    found = []
    for init, *shared, num_labelled, role, lr, first, second in places:
        source = weights_from(study.initialisations, init)
        config = composed(init if study.initialisations[init].finetune else None, *shared)
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
        config = _with_checkpoint(config, study.initialisations[source], shared[0])
        config.validate()
        labels = dict(zip(LABELS["finetune"], (init, *shared, num_labelled, role, lr, first, second), strict=True))
        found.append(make_trial("finetune", labels, config, pretrained.get((shared[0], source, first))))
    return found


def shard_of(study: StudyOptions, index: int, count: int) -> set[tuple[str, str]]:
    """The initialisations, by architecture, of shard `index`, from 1 to `count`.

    Initialisations that depend on the same pre-training are in the same shard, so that no machine waits for another.
    Each group is assigned to the shard with the lowest load.

    Raises:
        ValueError: The index is out of range.
    """
    if not 1 <= index <= count:
        raise ValueError(f"--shard {index}/{count} does not exist; write 1/{count} to {count}/{count}.")
    groups: dict[tuple[str, str], list[str]] = {}
    for architecture in study.architectures:
        for name in needed(study.initialisations, study.cells, architecture):
            line = (name, *before(study.initialisations, name))
            pretrained = [source for source in line if study.initialisations[source].pretrain is not None]
            groups.setdefault((architecture, [name, *pretrained][-1]), []).append(name)
    costs = {place: _cost(study, place[0], inits) for place, inits in groups.items()}
    loads = [0.0] * count
    mine: set[tuple[str, str]] = set()
    for place, cost in sorted(costs.items(), key=lambda item: (-item[1], item[0])):
        lightest = loads.index(min(loads))
        loads[lightest] += cost
        if lightest == index - 1:
            mine |= {(place[0], init) for init in groups[place]}
    return mine


def _cost(study: StudyOptions, architecture: str, inits: list[str]) -> float:
    """Cost of a group, in pre-trainings; the fine-tuning of an initialisation counts as one on average."""
    runs = Counter(
        (place["architecture"], init)
        for place, init in product(settings_of(study), study.initialisations)
        if in_cells(study.cells, initialisation=init, **place)
    )
    mean = runs.total() / len(runs)
    own = sum(runs[architecture, init] for init in inits) / mean
    return own + sum(study.initialisations[init].pretrain is not None for init in inits)
