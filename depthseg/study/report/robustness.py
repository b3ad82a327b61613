"""Robustness: what corrupted images cost a network, its score on other films, and which initialisation loses less."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from ...data.corruptions import CORRUPTIONS
from ...engine.robustness import CLEAN, ImageCounts
from ...metrics.blocks import BlockCounts, blocks_of, mean_iou
from ..intervals import TINY, Uncertainty, measure, measure_draws
from ..results import Setting, StudyResults
from ..stored import Run, TrialRecord
from .details import keys_of
from .tables import Column, Table, caption, place_columns, title_column
from .text import between, p_value, signed

Row = dict[str, Any]

MEASURE = "robustness"
ALL = "all corruptions"
LEAST_RUNS = 3
CONFIDENCE = 0.95
FEW = "No interval: three runs, two pre-training seeds and two blocks of test images are needed at least."
SAME = "No interval: the values do not vary over runs or blocks of images."

DIFFERENCE_COLUMNS = (
    Column("Difference", "difference", signed),
    Column("95 % interval", "interval", between),
    Column("p", "p_value", p_value),
    Column("Runs per initialisation", "runs", str),
)

HOW_TO_READ = (
    "Loss: mean IoU on clear images minus mean IoU on the same images corrupted, in points, mean over the strengths. "
    "Kept: mean IoU on corrupted images as a share of that on clear ones. A network that is better on clear images "
    "has more to lose.",
)
HOW_TO_READ_DIFFERENCES = (
    "Runs are paired draw by draw and images block by block. Intervals and p-values are not adjusted for the number "
    "of comparisons: they explore."
)


@dataclass(frozen=True, eq=False)
class Value:
    """A loss or a mean IoU of one run.

    Attributes:
        value: From 0 to 1.
        pseudo: Jackknife pseudo-values `(B,)` over blocks of images. The jackknife is linear: those of a loss are
            differences, those of a mean are means.
    """

    value: float
    pseudo: np.ndarray


Values = Callable[[str, Setting, Run], dict[str, Value]]


def robustness(results: StudyResults) -> dict[str, list[Row]]:
    """Values of every initialisation (`values`) and the differences of those that are compared (`differences`).

    Both are empty in a study without the measure. The differences of corruptions are those of losses, below 0 where
    the first initialisation loses less; those of other films are of mean IoU.
    """

    @cache
    def values_of(init: str, setting: Setting, run: Run) -> dict[str, Value]:
        return _values_of_run(results.runs(init, setting)[run], results.study.get("block_length") or 1)

    found: dict[str, list[Row]] = {"values": [], "differences": []}
    for setting in results.settings:
        for init in results.initialisations:
            found["values"] += _values(results, init, setting, values_of)
        for pair in results.pairs:
            found["differences"] += _differences(results, pair, setting, values_of)
    return found


def robustness_tables(numbers: Row) -> Iterator[Table]:
    """Losses of the initialisations, differences of those that are compared, and mean IoU on other films."""
    values, differences = (numbers[MEASURE][name] for name in ("values", "differences"))
    losses = dict.fromkeys(name for row in values for name in row["losses"])
    films = dict.fromkeys(name for row in values for name in row["films"])
    yield Table(
        caption(numbers, "Mean IoU on clear test images and what corruptions cost, in points, mean over runs"),
        (
            *place_columns(numbers),
            Column("mIoU, clear", "clear"),
            *(Column(f"Loss, {name}", ("losses", name)) for name in losses),
            Column("Kept, %", "kept"),
            Column("Runs", "runs", str),
        ),
        values if losses else [],
        HOW_TO_READ,
    )
    pair = title_column(numbers, "First", "a"), title_column(numbers, "Second", "b")
    columns = (*place_columns(numbers, named=False), *pair, Column("Condition", "condition", str, words=True))
    for is_film, text in (
        (False, "Difference of losses in points, first minus second; below 0 the first loses less"),
        (True, "Difference of mean IoU on other films in points, first minus second"),
    ):
        rows = [row for row in differences if (row["condition"] in films) == is_film]
        reasons = dict.fromkeys(row["reason"] for row in rows if row["reason"])
        notes = (*reasons, HOW_TO_READ_DIFFERENCES)
        if is_film and films:
            scores = (Column(f"mIoU, {name}", ("films", name)) for name in films)
            text_of_scores = caption(numbers, "Mean IoU on other films in points, mean over runs")
            yield Table(text_of_scores, (*place_columns(numbers), Column("mIoU, clear", "clear"), *scores), values)
        yield Table(caption(numbers, text), (*columns, *DIFFERENCE_COLUMNS), rows, notes)


def _values(results: StudyResults, init: str, setting: Setting, values_of: Values) -> Iterator[Row]:
    runs = _measured_runs(results, [init], setting)
    if not runs:
        return
    found = [values_of(init, setting, run) for run in runs]
    mean = {name: 100 * float(np.mean([values[name].value for values in found])) for name in found[0]}
    clear = mean.pop(CLEAN)
    losses = {name: value for name, value in mean.items() if name in (ALL, *CORRUPTIONS)}
    yield {
        **asdict(setting),
        "initialisation": init,
        "clear": clear,
        "losses": losses,
        "kept": 100 * (1 - losses[ALL] / clear) if clear and losses else None,
        "films": {name: value for name, value in mean.items() if name not in losses},
        "runs": len(runs),
        "records": _records(results, [init], setting, runs),
    }


def _differences(results: StudyResults, pair: tuple[str, str], setting: Setting, values_of: Values) -> Iterator[Row]:
    runs = _measured_runs(results, pair, setting)
    ours, theirs = ([values_of(init, setting, run) for run in runs] for init in pair)
    for name in [name for name in ours[0] if name != CLEAN] if runs else ():
        values = [(one[name], other[name]) for one, other in zip(ours, theirs, strict=True)]
        difference = float(np.mean([one.value - other.value for one, other in values]))
        uncertainty, reason = _uncertainty(results, pair, runs, np.stack([a.pseudo - b.pseudo for a, b in values]))
        interval = p = None
        if uncertainty is not None:
            half = uncertainty.half_width(CONFIDENCE)
            interval, p = (100 * (difference - half), 100 * (difference + half)), uncertainty.p_value(difference)
        yield {
            **asdict(setting),
            **{"a": pair[0], "b": pair[1], "condition": name, "difference": 100 * difference},
            **{"interval": interval, "p_value": p, "reason": reason, "runs": len(runs)},
            "records": _records(results, pair, setting, runs),
        }


def _uncertainty(
    results: StudyResults, pair: tuple[str, str], runs: Sequence[Run], pseudo: np.ndarray
) -> tuple[Uncertainty | None, str | None]:
    """Of a mean over runs and blocks, from pseudo-values `(R, B)`; or the reason for its absence."""
    pretrained = any(results.origin(init) == "seeds" for init in pair)
    seeds = np.array([outer for outer, _ in runs])
    several = len(np.unique(seeds)) if pretrained else 1
    if len(runs) < LEAST_RUNS or pseudo.shape[1] < 2 or (pretrained and several < 2):
        return None, FEW
    if results.has_draws:
        uncertainty = measure_draws(pseudo, seeds if pretrained else None)
    else:
        uncertainty = measure([pseudo.reshape(several, -1, pseudo.shape[1])])
    return (None, SAME) if uncertainty.standard_error < TINY else (uncertainty, None)


def _measured_runs(results: StudyResults, inits: Sequence[str], setting: Setting) -> list[Run]:
    """The used runs that have the measure in all their records."""
    return [
        run
        for run in results.used_runs(inits, setting)
        if all(
            (record["measures"].get(MEASURE) or {}).get(CLEAN) is not None
            for init in inits
            for record in results.runs(init, setting)[run]
        )
    ]


def _records(results: StudyResults, inits: Sequence[str], setting: Setting, runs: Sequence[Run]) -> list[str]:
    return keys_of(record for init in inits for run in runs for record in results.runs(init, setting)[run])


def _values_of_run(records: Sequence[TrialRecord], block_length: int) -> dict[str, Value]:
    """Mean IoU on clear images (`clean`) and on other films, and the loss of every corruption and of all together."""
    parts: dict[str, list[tuple[np.ndarray, list[str]]]] = {}
    for record in records:
        known = dict(zip(record.arrays["names"].tolist(), record.arrays["blocks"].tolist(), strict=True))
        for name, counts in record.counts(MEASURE).items():
            blocks = _blocks(counts, known if name == CLEAN or _kind(name) else {}, block_length)
            parts.setdefault(name, []).append((counts.confusion, [f"{record['fold']}/{block}" for block in blocks]))
    together = {name: tuple(map(np.concatenate, zip(*found, strict=True))) for name, found in parts.items()}
    # A film may be without any label.
    scores = {name: _score(*counted) for name, counted in together.items() if counted[0].any()}
    clear = scores[CLEAN]
    found = {name: score for name, score in scores.items() if not _kind(name)}
    losses = {name: _loss(clear, score) for name, score in scores.items() if _kind(name)}
    for kind in dict.fromkeys(filter(None, map(_kind, losses))):
        found[kind] = _mean([loss for name, loss in losses.items() if _kind(name) == kind])
    return found | ({ALL: _mean(list(losses.values()))} if losses else {})


def _kind(condition: str) -> str | None:
    """The corruption of a condition such as `fog 2`; None for clear images and films."""
    kind, _, strength = condition.rpartition(" ")
    return kind if kind in CORRUPTIONS and strength.isdecimal() else None


def _blocks(counts: ImageCounts, known: dict[str, str], block_length: int) -> list[str]:
    return [known[name] for name in counts.names] if known else blocks_of(counts.names, block_length)


def _score(confusion: np.ndarray, blocks: np.ndarray) -> Value:
    several = len(np.unique(blocks)) > 1
    value = float(mean_iou(confusion.sum(0)))
    return Value(value, BlockCounts(confusion, blocks).pseudo_values() if several else np.array([value]))


def _loss(clear: Value, corrupted: Value) -> Value:
    return Value(clear.value - corrupted.value, clear.pseudo - corrupted.pseudo)


def _mean(values: Sequence[Value]) -> Value:
    return Value(float(np.mean([each.value for each in values])), np.mean([each.pseudo for each in values], axis=0))
