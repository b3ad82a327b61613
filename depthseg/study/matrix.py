"""From a study to its cells: each cell is an ordinary run, identified by the hash of its options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ..engine.config import compose_config, own_options
from ..engine.options import RunConfig
from ..engine.run import MAY_CHANGE
from .options import ArmOptions, StudyOptions

KEY_LENGTH = 12

POSITION = {
    "pretrain": ("arm", "architecture", "pretrain_seed"),
    "finetune": (
        *("arm", "architecture", "mode", "benchmark", "fold", "budget", "role", "lr"),
        *("pretrain_seed", "finetune_seed"),
    ),
}
"""Kind of a cell -> its labels."""

SEEDS_APART = 1000
"""Run seeds of the fine-tunings of one pre-training seed are below the next multiple of this."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        kind: `pretrain` or `finetune`.
        labels: Its position in the matrix: arm, architecture, seeds and so on, as in its record.
        config: Options of the run; `model.pretrained` is not set if the weights come from another cell.
        parent: Key of the pre-training whose weights initialise it.
        key: Hash of all this.
    """

    kind: str
    labels: Mapping[str, Any]
    config: RunConfig
    parent: str | None
    key: str

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.config.schedule.steps


def make_cell(kind: str, labels: Mapping[str, Any], config: RunConfig, parent: str | None) -> Cell:
    """A cell with its key: equal for equal runs, independent of folder, machine and order of the options.

    Only options that differ from their defaults count, so a new option does not change the keys of finished runs.
    """
    counted = own_options(config, MAY_CHANGE)
    text = json.dumps({"kind": kind, "labels": dict(labels), "config": counted, "parent": parent}, sort_keys=True)
    return Cell(kind, labels, config, parent, hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH])


def pretraining_cells(study: StudyOptions) -> list[Cell]:
    """Every pre-training, after the pre-training that it depends on."""
    order = sorted(study.arms, key=lambda name: study.arms[name].after is not None)
    cells: dict[tuple[str, str, int], Cell] = {}
    for architecture in study.architectures:
        for name in order:
            arm = study.arms[name]
            for seed in range(study.seeds.pretrain) if arm.pretrain is not None else ():
                before = cells[architecture, arm.after, seed].key if arm.after else None
                cells[architecture, name, seed] = _pretraining(study, name, architecture, seed, before)
    return list(cells.values())


def _pretraining(study: StudyOptions, arm: str, architecture: str, seed: int, before: str | None) -> Cell:
    config = compose_config(
        [
            ("pretrain", study.pretrain),
            (f"architectures.{architecture}", study.architectures[architecture]),
            (f"arms.{arm}.pretrain", study.arms[arm].pretrain),
            ("the seed", {"run": {"seed": seed, "resume": True}}),
        ]
    )
    return make_cell("pretrain", {"arm": arm, "architecture": architecture, "pretrain_seed": seed}, config, before)


def rate_cells(study: StudyOptions, pretrained: Mapping[tuple[str, str, int], str]) -> list[Cell]:
    """The runs that choose a learning rate for each arm, architecture and mode, on the first pre-training.

    Args:
        study: The study.
        pretrained: Architecture, arm and seed -> key of the pre-training.
    """
    composed: dict[tuple[str, ...], RunConfig] = {}
    return [
        _finetuning(
            study,
            {"arm": arm, "architecture": architecture, "mode": mode, "benchmark": None, "fold": None}
            | {"budget": study.rates.budget, "role": "rate", "lr": rate, "pretrain_seed": 0, "finetune_seed": seed},
            study.rates.data,
            pretrained,
            composed,
        )
        for architecture in study.architectures
        for arm in study.arms
        for mode in study.modes
        for rate in study.rates.grid
        for seed in range(study.rates.seeds)
    ]


def main_cells(
    study: StudyOptions,
    pretrained: Mapping[tuple[str, str, int], str],
    rates: Mapping[tuple[str, str, str], float],
) -> list[Cell]:
    """The runs that a study reports: at the chosen rates, and at the fixed rate if it differs.

    Args:
        study: The study.
        pretrained: Architecture, arm and seed -> key of the pre-training.
        rates: Architecture, arm and mode -> the chosen rate; the fixed rate is used for missing ones.
    """
    found = []
    composed: dict[tuple[str, ...], RunConfig] = {}
    numbers = list(product(range(study.seeds.pretrain), range(study.seeds.finetune)))
    for architecture, arm, mode in product(study.architectures, study.arms, study.modes):
        chosen = rates.get((architecture, arm, mode), study.rates.fixed)
        roles = {"main": chosen} | ({} if chosen == study.rates.fixed else {"fixed": study.rates.fixed})
        for (role, rate), (name, benchmark) in product(roles.items(), study.benchmarks.items()):
            for budget, fold, (first, second) in product(benchmark.budgets, benchmark.folds, numbers):
                labels = {"arm": arm, "architecture": architecture, "mode": mode, "benchmark": name, "fold": fold}
                labels |= {"budget": budget, "role": role, "lr": rate, "pretrain_seed": first, "finetune_seed": second}
                found.append(_finetuning(study, labels, benchmark.folds[fold], pretrained, composed))
    return found


def _finetuning(
    study: StudyOptions,
    labels: Mapping[str, Any],
    images: Mapping[str, Any],
    pretrained: Mapping[tuple[str, str, int], str],
    composed: dict[tuple[str, ...], RunConfig],
) -> Cell:
    """The fine-tuning at one position of the matrix.

    Args:
        study: The study.
        labels: The position.
        images: Sections with the training and test images.
        pretrained: Architecture, arm and seed -> key of the pre-training.
        composed: Cache of the options that cells have in common, filled here; composing them is slow.
    """
    architecture, mode = labels["architecture"], labels["mode"]
    place = (architecture, mode, labels["benchmark"], labels["fold"])
    if place not in composed:
        composed[place] = compose_config(
            [
                ("finetune", study.finetune),
                (f"architectures.{architecture}", study.architectures[architecture]),
                (f"modes.{mode}", study.modes[mode]),
                (f"the images of {labels['fold'] or 'rates.data'}", images),
            ]
        )
    config = composed[place]
    seed = SEEDS_APART * labels["pretrain_seed"] + labels["finetune_seed"]
    if labels["role"] == "rate":
        # Runs that choose a rate must be independent of the reported runs.
        seed += SEEDS_APART // 2
    config = replace(
        config,
        data=replace(config.data, subset_size=labels["budget"], subset_seed=seed),
        optim=replace(config.optim, lr=labels["lr"]),
        run=replace(config.run, seed=seed, resume=True),
    )
    config = _started(config, study.arms[labels["arm"]])
    config.validate()
    return make_cell(
        "finetune", labels, config, pretrained.get((architecture, labels["arm"], labels["pretrain_seed"]))
    )


def _started(config: RunConfig, arm: ArmOptions) -> RunConfig:
    """The options with the given checkpoint of an arm."""
    if arm.checkpoint is None:
        return config
    return replace(config, model=replace(config.model, pretrained=arm.checkpoint, revision=arm.revision))


def shard_of(study: StudyOptions, index: int, count: int) -> set[tuple[str, str]]:
    """The arms, by architecture, that one of several machines runs.

    Arms that depend on the same pre-training are in the same shard, so that no machine waits for another. Each group
    is assigned to the shard with the lowest load.

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
        for name, arm in study.arms.items():
            groups.setdefault((architecture, arm.after or name), []).append(name)
    loads = [0.0] * count
    mine: set[tuple[str, str]] = set()
    for (architecture, _), arms in sorted(groups.items(), key=lambda item: (-_load(study, item[1]), item[0])):
        lightest = loads.index(min(loads))
        loads[lightest] += _load(study, arms)
        if lightest == index - 1:
            mine |= {(architecture, arm) for arm in arms}
    return mine


def _load(study: StudyOptions, arms: list[str]) -> float:
    """Cost of a group, in pre-trainings; fine-tuning of an arm counts as one, too."""
    return sum(1.0 + (study.arms[arm].pretrain is not None) for arm in arms)
