"""The smallest difference that a planned study can detect, from the spread of a pilot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.build import build_datasets
from ..metrics.blocks import blocks_of
from .comparison import LEAST_POOLED, LEAST_PRETRAINING_SEEDS, LEAST_RUNS
from .intervals import Level, Uncertainty
from .options import ClaimOptions, PilotOptions, StudyOptions
from .places import in_cells, origin_of, places_of
from .runner import trials_in_order
from .statistics import plural
from .stored import read_record, record_path

POWER = 0.8
LEVEL = 0.05

STUDIES = 500
"""Simulated studies; the smallest difference is then exact to about 1 %."""


@dataclass(frozen=True)
class Design:
    """Repetitions on which a comparison is based.

    Attributes:
        draws: Draws of the labelled images, the same for both initialisations; at least two.
        pretrainings: Pre-trainings of each pre-trained initialisation; draw d is from number d modulo this.
        blocks: Blocks of test images; at least two.
        pretrained: How many of the two initialisations are pre-trained by the study, 0 to 2.
        pooled: Initialisations from which the variance over pre-trainings is estimated, and how many of them are
            pre-trained; None = from the two that are compared.
    """

    draws: int
    pretrainings: int
    blocks: int
    pretrained: int
    pooled: tuple[int, int] | None = None


def smallest_difference(design: Design, pilot: PilotOptions, level: float = LEVEL) -> float:
    """The true difference, in points, that a study finds at a level with a probability of `POWER`.

    The variances that the study will estimate are drawn from their distributions, so that the power is that of the
    interval of `depthseg.study.intervals` with its degrees of freedom, and not that of a known variance.

    Args:
        design: The repetitions.
        pilot: The spread of the difference; an absent one is taken as 0.
        level: Of the test, in (0, 1).
    """
    from scipy import optimize, special

    error = standard_error(design, pilot)
    if error == 0:
        return 0.0
    needed = np.array([uncertainty.half_width(1 - level) for uncertainty in _simulated(design, pilot)]) / error

    def missed(shift: float) -> float:
        return float(np.mean(special.ndtr(needed - shift) - special.ndtr(-needed - shift))) - (1 - POWER)

    return error * float(optimize.brentq(missed, 0.0, 10.0 + needed.max()))


def standard_error(design: Design, pilot: PilotOptions) -> float:
    """Standard error of the difference, in points, if the spread of the pilot is the true one."""
    return math.sqrt(sum(_variances(design, pilot).values()))


def _variances(design: Design, pilot: PilotOptions) -> dict[str, float]:
    """Variance of the mean at each level."""
    counts = np.bincount(np.arange(design.draws) % design.pretrainings)
    repeats = float(np.sum(counts**2)) / design.draws**2 if design.pretrained else 0.0
    return {
        "draws": (pilot.sd_draws or 0.0) ** 2 / design.draws,
        "pretraining": (pilot.sd_pretrainings or 0.0) ** 2 * repeats,
        "blocks": (pilot.sd_blocks or 0.0) ** 2 / design.blocks,
    }


def _simulated(design: Design, pilot: PilotOptions) -> Iterator[Uncertainty]:
    """Uncertainties as studies of this design would estimate them, see `measure_draws`."""
    generator, true = np.random.default_rng(0), _variances(design, pilot)
    split = design.pretrained and design.draws > design.pretrainings
    within = design.draws - (design.pretrainings if split else 1)
    for _ in range(STUDIES):
        levels = {"blocks": _estimate(true["blocks"], design.blocks - 1, generator)}
        if design.pretrained and not split:
            levels["pretraining"] = _estimate(true["draws"] + true["pretraining"], within, generator)
        else:
            levels["draws"] = _estimate(true["draws"], within, generator)
        if split:
            levels["pretraining"] = _over_pretrainings(design, true, levels["draws"], generator)
        yield Uncertainty(math.sqrt(sum(level.variance for level in levels.values())), levels)


def _over_pretrainings(
    design: Design, true: Mapping[str, float], draws: Level, generator: np.random.Generator
) -> Level:
    """The level of pre-trainings, from mean squares between and within them, see `variance_between_pretrainings`."""
    inits, pretrained = design.pooled or (2, design.pretrained)
    share = pretrained / inits if design.pooled else 1.0
    freedom = (inits - 1) * (design.pretrainings - 1)
    within = (inits - 1) * draws.freedom
    inside = _estimate(true["draws"], within, generator) if design.pooled else draws
    between = _estimate(true["draws"] + share * true["pretraining"], freedom, generator)
    excess = max(0.0, between.variance - inside.variance) / share
    return Level(excess, (design.pretrainings - 1) * min(inits - 1, pretrained))


def _estimate(variance: float, freedom: int, generator: np.random.Generator) -> Level:
    return Level(variance * generator.chisquare(freedom) / freedom, freedom)


def count_test_blocks(study: StudyOptions, out: Path) -> dict[str, int]:
    """Blocks of the test images of each benchmark with a primary claim, from a record or from the data."""
    wanted = {place["benchmark"] for _, place in _primary(study)}
    trials = trials_in_order(study, out) if wanted else ()
    folds = {(t.labels["benchmark"], t.labels["fold"]): t for t in trials if t.labels.get("benchmark") in wanted}
    blocks = dict.fromkeys(wanted, 0)
    for (benchmark, _), trial in folds.items():
        record = record_path(out, trial.key)
        if record.is_file():
            found = read_record(record).arrays["blocks"].tolist()
        else:
            found = blocks_of(build_datasets(trial.config.data)[1].names, study.block_length)
        blocks[benchmark] += len(set(found))
    return blocks


def _primary(study: StudyOptions) -> list[tuple[ClaimOptions, dict[str, Any]]]:
    return [(claim, place) for claim in study.claims if claim.primary for place in places_of(claim, study)]


def power_text(study: StudyOptions, blocks: Mapping[str, int]) -> str:
    """What a study can detect, a line for each primary claim; empty without any.

    The blocks of test images are those of `count_test_blocks`.
    """
    claims = _primary(study)
    absent = [
        f"- {claim.better} against {claim.than}: not tested, as the plan runs no setting of this claim with both."
        for claim in study.claims
        if claim.primary and not places_of(claim, study)
    ]
    if not claims:
        return "\n".join(["Primary claims:", *absent] if absent else [])
    lines = [f"Smallest difference that is found with {POWER:.0%} probability, in points of mean IoU:"]
    for claim, place in claims:
        where = ", ".join([*map(str, list(place.values())[:-1]), plural(place["num_labelled"], "label")])
        text = _claim_text(study, claim, place, blocks[place["benchmark"]], len(claims))
        lines.append(f"- {claim.better} against {claim.than} ({where}): {text}")
    return "\n".join([*lines, *absent, "", _spread_text(study.pilot)])


def _claim_text(study: StudyOptions, claim: ClaimOptions, place: Mapping[str, Any], blocks: int, claims: int) -> str:
    inits = study.initialisations
    pretrained = {name for name in inits if origin_of(inits, name) == "seeds"}
    of_pair = len(pretrained & {claim.better, claim.than})
    reason = _out_of_reach(study, of_pair, blocks)
    if reason:
        return f"out of reach: {reason}"
    if study.pilot.sd_draws is None:
        return "not known: give pilot.sd_draws, the paired spread over draws of a pilot."
    run = [name for name in inits if in_cells(study.cells, initialisation=name, **place)]
    several = len(pretrained.intersection(run))
    pooled = (len(run), several) if several >= LEAST_POOLED else None
    design = Design(study.seeds.draws, study.seeds.pretrain, blocks, of_pair, pooled)
    alone, first = (smallest_difference(design, study.pilot, LEVEL / count) for count in (1, claims))
    found = f"{alone:.1f}" + (f", or {first:.1f} as the first of {claims} claims by Holm's adjustment" * (claims > 1))
    if not claim.expected:
        return f"{found}."
    reach = "within" if claim.expected >= first else "out of"
    return f"{found}; {claim.expected:.1f} is expected, which is {reach} reach."


def _out_of_reach(study: StudyOptions, pretrained: int, blocks: int) -> str | None:
    """Why a study has no p-value, or None."""
    seeds = study.seeds
    if not seeds.draws:
        return "the study has no draws that all initialisations share; give seeds.draws."
    if seeds.draws < LEAST_RUNS:
        return f"{plural(seeds.draws, 'draw')}, at least {LEAST_RUNS} are needed for a p-value; raise seeds.draws."
    if pretrained and seeds.pretrain < LEAST_PRETRAINING_SEEDS:
        return f"one pre-training, at least {LEAST_PRETRAINING_SEEDS} are needed for a p-value; raise seeds.pretrain."
    if blocks < 2:
        return "all test images are in one block; lower block_length."
    return None


def _spread_text(pilot: PilotOptions) -> str:
    names = {"draws": pilot.sd_draws, "pre-trainings": pilot.sd_pretrainings, "blocks": pilot.sd_blocks}
    known = [f"{value:g} over {name}" for name, value in names.items() if value is not None]
    absent = [name for name, value in names.items() if value is None]
    if not known:
        return "There is no pilot."
    text = f"From the spread of the pilot, in points: {', '.join(known)}."
    if absent:
        text += f" The pilot did not measure the spread over {' and '.join(absent)}, which is taken as 0: the true "
        text += "smallest difference is larger."
    return text
