"""The numbers of a report on effort, of studies with draws: steps, seconds and labels of each initialisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

from ..comparison import interval_over_draws
from ..label_value import value_in_labels
from ..places import before, weights_from
from ..results import Setting, StudyResults
from ..statistics import steps_to_95
from ..stored import Run
from .details import keys_of

Row = dict[str, Any]


def convergence(results: StudyResults, init: str, setting: Setting) -> Row | None:
    """Steps to 95 % of the final score, with their spread over draws and paired with those of the reference.

    None if the runs were evaluated only at their end.
    """
    reference = results.study["reference"]
    steps = _steps(results, init, setting)
    if not steps:
        return None
    mean, interval = interval_over_draws(steps, results.origin(init) == "seeds")
    others = _steps(results, reference, setting) if init != reference else {}
    both = {run: steps[run] - others[run] for run in steps if run in others}
    pretrained = "seeds" in (results.origin(init), results.origin(reference))
    difference, of_difference = interval_over_draws(both, pretrained) if both else (None, None)
    return {
        **asdict(setting),
        "initialisation": init,
        "steps_to_95": mean,
        "interval": interval,
        "spread": (min(steps.values()), max(steps.values())),
        "difference": difference,
        "interval_of_difference": of_difference,
        "records": keys_of(record for run in steps for record in results.runs(init, setting)[run]),
    }


def _steps(results: StudyResults, init: str, setting: Setting) -> dict[Run, float]:
    """Steps to 95 % of each run, mean over folds; without runs that have no curve, or no score at its end."""
    found = {}
    for run, records in results.runs(init, setting).items():
        steps = [_steps_of(record["curve"]) for record in records]
        if None not in steps:
            found[run] = sum(steps) / len(steps)
    return found


def _steps_of(curve: Sequence[Mapping[str, float]]) -> float | None:
    if len(curve) < 2:
        return None
    return steps_to_95([point["step"] for point in curve], [point["mean_iou"] for point in curve])


def spent(results: StudyResults, init: str, architecture: str, mode: str) -> Row | None:
    """Seconds of one pre-training, of those that it starts from, and of one fine-tuning; None without fine-tunings.

    CPU seconds, of the trials that have them, where there is one of each; no trial has them that was resumed, or whose
    work an accelerator did.
    """
    settings = [one for one in results.settings if (one.architecture, one.mode) == (architecture, mode)]
    finetunings = [parts for setting in settings for parts in results.runs(init, setting).values()]
    if not finetunings:
        return None
    source = weights_from(results.initialisations, init)
    own, *earlier = (
        [record for record in results.pretraining(name) if record["architecture"] == architecture]
        for name in (source, *before(results.initialisations, source))
    )
    clock, pretrainings = "seconds", (own, *earlier)
    timed = [[record for record in found if record.content.get("cpu_seconds")] for found in pretrainings]
    timed_finetunings = [parts for parts in finetunings if all(part.content.get("cpu_seconds") for part in parts)]
    if timed_finetunings and all(some or not found for some, found in zip(timed, pretrainings, strict=True)):
        clock, (own, *earlier), finetunings = "cpu_seconds", timed, timed_finetunings
    records = [*chain(*earlier), *own, *chain(*finetunings)]
    means = [mean for found in earlier if (mean := _mean([record[clock] for record in found])) is not None]
    seconds = {
        "pretraining": _mean([record[clock] for record in own]),
        "before": sum(means) if means else None,
        "finetuning": _mean([sum(record[clock] for record in parts) for parts in finetunings]),
    }
    return {
        "architecture": architecture,
        "mode": mode,
        "initialisation": init,
        **seconds,
        "total": sum(filter(None, seconds.values())),
        "clock": clock,
        "records": keys_of(records),
    }


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def label_values(results: StudyResults, init: str, setting: Setting) -> list[Row]:
    """How many labels of each initialisation that it is compared with one is worth."""
    rows = (_label_value(results, init, than, setting) for first, than in results.pairs if first == init)
    return [row for row in rows if row is not None]


def _label_value(results: StudyResults, init: str, reference: str, setting: Setting) -> Row | None:
    """None without common runs."""
    counts = results.study["benchmarks"][setting.benchmark]["num_labelled"]
    places = [(reference, replace(setting, num_labelled=count)) for count in counts]
    places = [(init, setting), *(place for place in places if results.runs(*place))]
    runs = sorted(set.intersection(*(set(results.runs(*place)) for place in places)))
    if not runs:
        return None
    own, *others = (results.initialisation_results(*place, runs=runs) for place in places)
    curve = {place.num_labelled: found for (_, place), found in zip(places[1:], others, strict=True)}
    value = value_in_labels(own, curve)
    return {
        **asdict(setting),
        "initialisation": init,
        "reference": reference,
        "value": value.labels and _inside(value.labels, curve),
        "interval": value.interval and [_inside(end, curve) for end in value.interval],
        "reason": value.reason,
        "draws": len(runs),
        "records": keys_of(record for place in places for run in runs for record in results.runs(*place)[run]),
    }


def _inside(labels: float, curve: Mapping[int, Any]) -> tuple[str, float]:
    """A number of labels, and words before it if it is beyond an end of the curve; JSON has no infinite numbers."""
    if math.isinf(labels):
        ends = [count for count in curve if count]
        return ("more than ", max(ends)) if labels > 0 else ("fewer than ", min(ends))
    return "", labels
