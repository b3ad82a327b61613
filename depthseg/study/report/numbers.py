"""The numbers of a report, computed once for `results.json`, tables and figures.

Scores are in points (0 to 100), rates and steps in their own units. `records` are keys of trials. Every field of
`Summary`, `Convergence` and `Comparison` is a number of a row; `tables` has the columns that show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from ..comparison import compare, summarise
from ..places import is_about, needed
from ..results import Setting, StudyResults
from ..statistics import InitialisationResults, benjamini_hochberg, holm, summarise_curves
from ..stored import Run, TrialRecord, trials_folder
from . import effort
from .details import cost, curves, finetuning, keys_of, measures, origins, per_class, pretraining, rates
from .paper import paper_numbers
from .robustness import robustness

Row = dict[str, Any]

LEAST_PAIRS = 3
"""Pre-training seeds from which runs are compared seed by seed: two differences give a poor estimate of their spread,
and such comparisons have too many false positives in simulations."""


def study_numbers(results: StudyResults) -> Row:
    """All numbers of a report, as plain JSON types."""
    study = results.study
    fixed_rate = study["rates"].get("fixed")
    places = [(init, setting) for setting in results.settings for init in results.initialisations]
    # A rate is chosen once for all benchmarks and numbers of labelled images.
    first = {(setting.architecture, setting.mode): setting for setting in reversed(results.settings)}
    fixed_differs = any(
        record["kind"] == "finetune" and record["role"] == "main" and record["lr"] != fixed_rate
        for record in results.records
    )
    return {
        "name": study["name"],
        "summary": study.get("summary", ""),
        "scale": study.get("scale", ""),
        "reference": study["reference"],
        "initialisations": {
            init: {"title": str(options.get("title") or init), "origin": results.origin(init)}
            for init, options in results.initialisations.items()
        },
        "settings": [asdict(setting) for setting in results.settings],
        "planned_runs": len(results.planned_runs),
        "missing": list(_missing(results)),
        "unused": list(results.unused),
        "main": _found(initialisation_row(results, *place) for place in places),
        "fixed": _found(initialisation_row(results, *place, "fixed") for place in places) if fixed_differs else [],
        "baselines": _found(_baselines(results, setting) for setting in results.settings),
        "comparisons": comparisons(results, "main"),
        "comparisons_fixed": comparisons(results, "fixed") if fixed_differs else [],
        "claims": study.get("claims") or [],
        "fixed_rate": fixed_rate,
        "rates": _found(rates(results, *place) for place in places if place[1] in first.values()),
        "per_class": _found(per_class(results, *place) for place in places),
        "measures": _found(measures(results, *place) for place in places),
        "robustness": robustness(results),
        "curves": _found(curves(results, *place) for place in places),
        "origins": origins(results),
        "finetuning": finetuning(results),
        "pretraining": pretraining(results),
        "cost": cost(results),
        "folder": trials_folder(results.out).name,
        "labels": {record["key"]: record_label(results, record) for record in results.records},
        **paper_numbers(results),
        **_numbers_of_primary_claims(results),
        **_numbers_of_draws(results, places),
    }


def _numbers_of_primary_claims(results: StudyResults) -> Row:
    registered = primary_comparisons(results)
    return {"primary": len(registered)} if registered else {}


def _numbers_of_draws(results: StudyResults, places: Sequence[tuple[str, Setting]]) -> Row:
    if not results.has_draws:
        return {}
    parts = dict.fromkeys((init, setting.architecture, setting.mode) for init, setting in places)
    return {
        "draws": len(results.planned_runs),
        "convergence": _found(effort.convergence(results, *place) for place in places),
        "spent": _found(effort.spent(results, *part) for part in parts),
        "label_values": [row for place in places for row in effort.label_values(results, *place)],
    }


def record_label(results: StudyResults, record: TrialRecord) -> str:
    """Short name of a record, such as "none 0.2"."""
    if record["kind"] == "pretrain":
        return f"{record['initialisation']} {record['pretrain_seed']}"
    label = f"{record['initialisation']} {record['pretrain_seed']}.{record['finetune_seed']}"
    if record["role"] == "rate":
        return f"{label} lr {record['lr']:g}"
    several = len(results.study["benchmarks"][record["benchmark"]]["folds"]) > 1
    return f"{label} {record['fold']}" if several else label


def initialisation_row(results: StudyResults, init: str, setting: Setting, role: str = "main") -> Row | None:
    """Mean IoU and convergence of an initialisation; None if no run is finished."""
    runs = results.used_runs([init], setting, role)
    found = results.initialisation_results(init, setting, role, runs)
    if found is None:
        return None
    records = results.used_records([init], setting, role)
    return {
        **asdict(setting),
        "initialisation": init,
        **asdict(summarise(found, _conditions(results, setting, role), _pooled(results, runs, setting, role))),
        **asdict(summarise_curves(results.curves(init, setting, role))),
        "rates": sorted({record["lr"] for record in records}),
        "runs": len(runs),
        "records": keys_of(records),
    }


def comparisons(results: StudyResults, role: str) -> list[Row]:
    """Every pair in every setting.

    p-values are adjusted over all of them, or, if the study has primary claims, over these at the chosen rates; all
    others are exploratory and have q-values.
    """
    places = [(a, b, setting) for setting in results.settings for a, b in results.pairs]
    rows = _found(_comparison_row(results, *place, role) for place in places)
    registered = primary_comparisons(results)
    if not registered:
        return [row | {"p_adjusted": p} for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True)]
    for row in rows:
        place = Setting(**{part.name: row[part.name] for part in fields(Setting)})
        row["primary"] = role == "main" and (place, frozenset((row["a"], row["b"]))) in registered
    primary, others = ([row for row in rows if row["primary"] is kind] for kind in (True, False))
    # A primary comparison without p-value counts as well: an unfinished study must not adjust for fewer.
    ones = [1.0] * (len(registered) - sum(row["p_value"] is not None for row in primary))
    adjusted = holm([*(row["p_value"] for row in primary), *ones])
    for row, p in zip(primary, adjusted[: len(primary)], strict=True):
        row |= {"p_adjusted": p, "q_value": None}
    for row, q in zip(others, benjamini_hochberg([row["p_value"] for row in others]), strict=True):
        row |= {"p_adjusted": None, "q_value": q}
    return rows


def primary_comparisons(results: StudyResults) -> set[tuple[Setting, frozenset[str]]]:
    """Setting and pair of the comparisons that the study was made to decide."""
    return {
        (setting, frozenset((claim["better"], claim["than"])))
        for claim in results.study.get("claims") or []
        for setting in results.settings
        if claim.get("primary") and is_about(claim, asdict(setting), results.cells)
    }


def _comparison_row(results: StudyResults, a: str, b: str, setting: Setting, role: str) -> Row | None:
    runs = results.used_runs([a, b], setting, role)
    if not runs:
        return None
    first, second = (results.initialisation_results(init, setting, role, runs) for init in (a, b))
    found = compare(
        first,
        second,
        paired_seeds=len({outer for outer, _ in runs}) >= LEAST_PAIRS,
        pooled=_pooled(results, runs, setting, role),
        conditions=_conditions(results, setting, role),
    )
    records = results.used_records([a, b], setting, role)
    return {**asdict(setting), "a": a, "b": b, **asdict(found), "runs": len(runs), "records": keys_of(records)}


def _pooled(results: StudyResults, runs: Sequence[Run], setting: Setting, role: str) -> list[InitialisationResults]:
    """All that have finished these runs; none if the pre-training seeds differ in their fine-tuning seeds."""
    outer, inner = ({run[place] for run in runs} for place in (0, 1))
    if not results.has_draws and len(runs) != len(outer) * len(inner):
        return []
    inits = [init for init in results.initialisations if set(runs) <= set(results.runs(init, setting, role))]
    return [results.initialisation_results(init, setting, role, runs) for init in inits]


def _conditions(results: StudyResults, setting: Setting, role: str) -> list[str]:
    given = any(results.given_rate(init, setting) for init in results.initialisations)
    chosen = "the given learning rates" if given else "the chosen learning rates"
    is_fixed = not given and (role == "fixed" or not results.study["rates"]["grid"])
    seed = "draw" if results.has_draws else "fine-tuning seed"
    return [
        f"{setting.num_labelled} labelled images (a new sample for each {seed}, the same for all initialisations)",
        "one fixed learning rate for all initialisations" if is_fixed else chosen,
        "these data, this network and this number of steps",
    ]


def _baselines(results: StudyResults, setting: Setting) -> Row | None:
    """Mean over the runs of the most complete initialisation: a baseline depends only on the labels."""
    runs = max((results.runs(init, setting) for init in results.initialisations), key=len)
    records = [record for parts in runs.values() for record in parts if record["baselines"]]
    if not records:
        return None
    means = {}
    for name in dict.fromkeys(name for record in records for name in record["baselines"]):
        scores = [score for record in records if (score := record["baselines"].get(name)) is not None]
        means[name] = 100 * sum(scores) / len(scores) if scores else None
    return {**asdict(setting), "mean_iou": means, "records": keys_of(records)}


def _missing(results: StudyResults) -> Iterator[Row]:
    for init, entry in results.initialisations.items():
        done = {(record["architecture"], record["pretrain_seed"]) for record in results.pretraining(init)}
        wanted = [
            architecture
            for architecture in results.study["architectures"]
            if init in needed(results.initialisations, results.cells, architecture)
        ]
        seeds = range(results.study["seeds"]["pretrain"])
        runs = [str(seed) for seed in seeds if any((architecture, seed) not in done for architecture in wanted)]
        if runs and entry.get("pretrain") is not None:
            yield {"initialisation": init, "role": "pretraining", "runs": runs}
    for setting in results.settings:
        for init in results.initialisations:
            for role in ("main", "fixed"):
                if runs := [f"{outer}.{inner}" for outer, inner in results.missing(init, setting, role)]:
                    yield {"initialisation": init, **asdict(setting), "role": role, "runs": runs}


def _found(rows: Iterator[Row | None]) -> list[Row]:
    return [row for row in rows if row is not None]
