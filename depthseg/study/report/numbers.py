"""The numbers of a report, computed once for `results.json`, tables and figures.

Scores are in points (0 to 100), rates and steps in their own units. `records` are keys of cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ..comparison import Comparison, Summary, compare, summarise
from ..convergence import area_under_curve, steps_to_share
from ..results import Setting, StudyResults
from ..statistics import ArmResults, holm
from ..stored import Run
from .details import cost, curves, finetuning, measures, per_class, pretraining, rates, starts

Row = dict[str, Any]

HOW_RATES_WERE_FOUND = {
    "main": "the chosen learning rates",
    "fixed": "one fixed learning rate for all arms",
}


LEAST_PAIRS = 3
"""Pre-training seeds from which runs are compared seed by seed: two differences give a poor estimate of their spread,
and such comparisons have too many false positives in simulations."""


def study_numbers(results: StudyResults) -> Row:
    """All numbers of a report, as plain JSON types."""
    study = results.study
    fixed_differs = any(
        record["kind"] == "finetune" and record["role"] == "main" and record["lr"] != study["rates"].get("fixed")
        for record in results.records
    )
    return {
        "name": study["name"],
        "summary": study.get("summary", ""),
        "scale": study.get("scale", ""),
        "reference_arm": study["reference_arm"],
        "arms": {arm: {"title": title_of(results, arm), "start": results.start(arm)} for arm in results.arms},
        "settings": [asdict(setting) for setting in results.settings],
        "planned_runs": len(results.planned_runs),
        "missing": list(_missing(results)),
        "left_out": list(results.strangers),
        "main": _for_each(results, arm_row),
        "fixed": _for_each(results, lambda *place: arm_row(*place, role="fixed")) if fixed_differs else [],
        "baselines": [row for setting in results.settings if (row := _baselines(results, setting))],
        "comparisons": comparisons(results, "main"),
        "comparisons_fixed": comparisons(results, "fixed") if fixed_differs else [],
        "claims": study.get("claims") or [],
        "fixed_rate": study["rates"].get("fixed"),
        "rates": _for_each(results, rates, _chosen_once(results.settings)),
        "per_class": _for_each(results, per_class),
        "measures": _for_each(results, measures),
        "curves": _for_each(results, curves),
        "starts": starts(results),
        "finetuning": finetuning(results),
        "pretraining": pretraining(results),
        "cost": cost(results),
        "labels": {record["key"]: record_label(results, record) for record in results.records},
    }


def title_of(results: StudyResults, arm: str) -> str:
    """The name of an arm in reports."""
    return str(results.arms[arm].get("title") or arm)


def record_label(results: StudyResults, record: Any) -> str:
    """Short name of a record, such as "scratch 0.2"."""
    if record["kind"] == "pretrain":
        return f"{record['arm']} {record['pretrain_seed']}"
    if record["role"] == "rate":
        return f"{record['arm']} {record['pretrain_seed']}.{record['finetune_seed']} lr {record['lr']:g}"
    several = len(results.study["benchmarks"][record["benchmark"]]["folds"]) > 1
    fold = f" {record['fold']}" if several else ""
    return f"{record['arm']} {record['pretrain_seed']}.{record['finetune_seed']}{fold}"


def arm_row(results: StudyResults, arm: str, setting: Setting, role: str = "main") -> Row | None:
    """Mean IoU and convergence of an arm; None if no run is finished."""
    found = results.arm_results(arm, setting, role)
    if found is None:
        return None
    runs = results.used_runs([arm], setting, role)
    alike = _arms_with(results, runs, setting, role) if _are_rectangle(runs) else []
    records = results.used_records([arm], setting, role)
    steps = [
        step for curve in results.curves(arm, setting, role) if (step := steps_to_share(*_points(curve))) is not None
    ]
    areas = [area_under_curve(*_points(curve)) for curve in results.curves(arm, setting, role)]
    return {
        **asdict(setting),
        "arm": arm,
        **_plain(summarise(found, _conditions(results, setting, role), alike)),
        "steps_to_95": sum(steps) / len(steps) if steps else None,
        "steps_spread": (min(steps), max(steps)) if steps else None,
        "area_under_curve": 100 * sum(areas) / len(areas) if areas else None,
        "rates": sorted({record["lr"] for record in records}),
        "runs": found.seeds[0] * found.seeds[1],
        "records": [record["key"] for record in records],
    }


def comparisons(results: StudyResults, role: str) -> list[Row]:
    """Every pair in every setting; p-values are adjusted over all of them."""
    rows = [
        row
        for setting in results.settings
        for a, b in pairs(results)
        if (row := _comparison_row(results, a, b, setting, role))
    ]
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
    return rows


def pairs(results: StudyResults) -> list[tuple[str, str]]:
    """The pairs (a, b) that are compared, each once: those with the reference, listed ones and those of claims."""
    reference = results.study["reference_arm"]
    listed = [tuple(pair) for pair in results.study.get("comparisons") or []]
    claimed = [(claim["better"], claim["than"]) for claim in results.study.get("claims") or []]
    found: dict[frozenset[str], tuple[str, str]] = {}
    for pair in (*((arm, reference) for arm in results.arms if arm != reference), *listed, *claimed):
        found.setdefault(frozenset(pair), pair)
    return list(found.values())


def _comparison_row(results: StudyResults, a: str, b: str, setting: Setting, role: str) -> Row | None:
    runs = results.used_runs([a, b], setting, role)
    if not runs:
        return None
    first, second = (results.arm_results(arm, setting, role, runs) for arm in (a, b))
    paired = len({outer for outer, _ in runs}) >= LEAST_PAIRS
    conditions = _conditions(results, setting, role)
    alike = _arms_with(results, runs, setting, role) if _are_rectangle(runs) else []
    found = compare(first, second, paired_seeds=paired, alike=alike, conditions=conditions)
    records = results.used_records([a, b], setting, role)
    return {
        **asdict(setting),
        **{"a": a, "b": b},
        **_plain(found),
        "runs": len(runs),
        "records": [record["key"] for record in records],
    }


def _are_rectangle(runs: Sequence[Run]) -> bool:
    """Whether every pre-training seed has the same fine-tuning seeds."""
    outer, inner = ({run[place] for run in runs} for place in (0, 1))
    return len(runs) == len(outer) * len(inner)


def _arms_with(results: StudyResults, runs: Sequence[Run], setting: Setting, role: str) -> list[ArmResults]:
    """Every arm that has finished these runs."""
    arms = [arm for arm in results.arms if set(runs) <= set(results.runs(arm, setting, role))]
    return [results.arm_results(arm, setting, role, runs) for arm in arms]


def _conditions(results: StudyResults, setting: Setting, role: str) -> list[str]:
    chosen = role == "main" and results.study["rates"]["grid"]
    images = f"{setting.budget} labelled images (a new sample for each fine-tuning seed, the same for all arms)"
    rates = HOW_RATES_WERE_FOUND["main" if chosen else "fixed"]
    return [images, rates, "these data, this network and this number of steps"]


def _plain(found: Summary | Comparison) -> Row:
    return asdict(found)


def _points(curve: Sequence[Row]) -> tuple[list[int], list[float]]:
    return [point["step"] for point in curve], [point["mean_iou"] for point in curve]


def _baselines(results: StudyResults, setting: Setting) -> Row | None:
    """Mean over the runs of the most complete arm: a baseline depends only on the labels, not on the arm."""
    runs = max((results.runs(arm, setting) for arm in results.arms), key=len)
    records = [record for parts in runs.values() for record in parts if record["baselines"]]
    if not records:
        return None
    names = dict.fromkeys(name for record in records for name in record["baselines"])
    means = {}
    for name in names:
        scores = [score for record in records if (score := record["baselines"].get(name)) is not None]
        means[name] = 100 * sum(scores) / len(scores) if scores else None
    return {**asdict(setting), "mean_iou": means, "records": [record["key"] for record in records]}


def _chosen_once(settings: Sequence[Setting]) -> list[Setting]:
    """One setting for each architecture and mode: a rate is chosen once for all benchmarks and budgets."""
    return list({(setting.architecture, setting.mode): setting for setting in reversed(settings)}.values())[::-1]


def _for_each(
    results: StudyResults,
    function: Callable[[StudyResults, str, Setting], Row | None],
    settings: Sequence[Setting] | None = None,
) -> list[Row]:
    return [
        row
        for setting in settings or results.settings
        for arm in results.arms
        if (row := function(results, arm, setting)) is not None
    ]


def _missing(results: StudyResults) -> Iterator[Row]:
    for arm in results.arms:
        if results.start(arm) == "seeds":
            done = {record["pretrain_seed"] for record in results.pretraining(arm)}
            runs = [seed for seed in range(results.study["seeds"]["pretrain"]) if seed not in done]
            if runs:
                yield {"arm": arm, "role": "pretraining", "runs": [str(seed) for seed in runs]}
    for setting in results.settings:
        for arm in results.arms:
            for role in ("main", "fixed"):
                if runs := results.missing(arm, setting, role):
                    names = [f"{outer}.{inner}" for outer, inner in runs]
                    yield {"arm": arm, **asdict(setting), "role": role, "runs": names}
