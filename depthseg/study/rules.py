"""The rules between the options of a study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

from .defects.switches import broken_rules as switch_rules
from .places import PLACE, SETTING, given_rate, places_of, tuned

if TYPE_CHECKING:
    from .options import InitialisationOptions, RobustnessOptions, StudyOptions

PARTS = ("initialisations", "architectures", "modes", "benchmarks")
"""Parts of a study that have at least one entry; an entry of a base may be null."""

MOST_PRIMARY = 5
"""Number of comparisons that may be primary: with more, the adjustment costs more power than a study has."""

MOST_DRAWS = 500
"""Number of draws; later seeds are those of the runs that choose a rate."""


def broken_rules(study: StudyOptions) -> Iterator[str]:
    """The sentence of every rule between options that a study breaks."""
    for part in ("name", *PARTS, "finetune"):
        if not getattr(study, part):
            yield f"{part} is empty: give at least one entry."
    for rules in (_unknown_names, _claim_rules, _paper_rules, _miniature_rules, _unpaired):
        yield from rules(study)
    for name, init in study.initialisations.items():
        yield from _initialisation_rules(name, init, study)
    for name, benchmark in study.benchmarks.items():
        if not (benchmark.num_labelled and benchmark.folds):
            yield f"benchmarks.{name} requires num_labelled and folds."
    yield from _repetition_rules(study)
    yield from switch_rules(study)
    if study.measures:
        from ..engine.analysis import require_measures  # imports torch, which takes seconds

        require_measures(study.measures)
        yield from _robustness_rules(study.robustness)


def _repetition_rules(study: StudyOptions) -> Iterator[str]:
    seeds, rates = study.seeds, study.rates
    if seeds.draws and not seeds.pretrain <= seeds.draws <= MOST_DRAWS:
        yield (
            f"seeds.draws is {seeds.draws}: give at least seeds.pretrain ({seeds.pretrain}), so that every "
            f"pre-training is used, and at most {MOST_DRAWS}; 0 = seeds.finetune seeds under each pre-training."
        )
    bare = [place for place in tuned(study) if given_rate(rates.given, *place) is None]
    if rates.fixed is None and not rates.grid and bare:
        architecture, init, mode = bare[0]
        yield (
            "rates has neither a fixed rate nor a grid to choose from, and gives none for "
            f"{init}, {architecture}, {mode}; give at least one of them."
        )
    for place, entry in enumerate(rates.given):
        if entry.rate is None:
            yield f"rates.given[{place}].rate is null; give a learning rate, or leave the entry out."
    if rates.grid and not rates.data:
        yield (
            "rates.data is empty: rates must not be chosen on the test images of the study. Give another split there, "
            "such as {data: {val_split: val}}."
        )


def _robustness_rules(options: RobustnessOptions) -> Iterator[str]:
    from ..data.corruptions import check_corruption

    for kind, strength in product(options.corruptions, options.strengths):
        try:
            check_corruption(kind, strength)
        except ValueError as error:
            yield f"robustness: {error}"
    for film in options.films:
        if film.partition(" ")[0] in ("clean", *options.corruptions):
            yield f"robustness.films.{film} has the name of another condition; give it another name."


def _unknown_names(study: StudyOptions) -> Iterator[str]:
    compared = [("comparisons", init) for pair in study.comparisons for init in pair]
    claimed = [("claims", init) for claim in study.claims for init in (claim.better, claim.than)]
    for option, init in [("reference", study.reference), *compared, *claimed]:
        if init not in study.initialisations:
            known = ", ".join(study.initialisations)
            yield f"{option} refers to {init!r}, which is not an initialisation; initialisations are {known}."
    parts = [("cells", cell, part) for cell, part in product(study.cells, PARTS)]
    parts += [("rates.given", entry, part) for entry, part in product(study.rates.given, PARTS[:-1])]
    for option, entry, part in parts:
        for name in getattr(entry, part):
            if name not in getattr(study, part):
                there = ", ".join(getattr(study, part))
                yield f"{option} refers to {name!r}, which is none of {part}; they are {there}."
    known = _numbers(study)
    for count in {count for cell in study.cells for count in cell.num_labelled} - known:
        yield f"cells refers to num_labelled {count}, which no benchmark has; they have {sorted(known)}."
    for claim in study.claims:
        for name, part in SETTING.items():
            if (value := getattr(claim, name)) not in ("", *getattr(study, part)):
                yield f"claims refers to the {name} {value!r}; {part} are {', '.join(getattr(study, part))}."


def _numbers(study: StudyOptions) -> set[int]:
    return {count for benchmark in study.benchmarks.values() for count in benchmark.num_labelled}


def _claim_rules(study: StudyOptions) -> Iterator[str]:
    numbers = _numbers(study)
    for count in {claim.num_labelled for claim in study.claims} - {None, *numbers}:
        # A small scale may have other numbers; its claims are then not tested.
        if study.is_full:
            yield f"claims refers to {count} labelled images; benchmarks have {', '.join(map(str, sorted(numbers)))}."
    counts = Counter()
    for claim in study.claims:
        if claim.primary:
            counts[f"{claim.better} against {claim.than}"] += len(places_of(claim, study))
    if counts.total() > MOST_PRIMARY:
        each = "; ".join(f"{pair}: {count}" for pair, count in counts.items())
        yield (
            f"The primary claims are {counts.total()} comparisons ({each}), at most {MOST_PRIMARY} are allowed: a "
            "claim counts once for each architecture, mode, benchmark and number of labelled images. Narrow claims "
            "down by these, or leave out `primary` of some."
        )


def _paper_rules(study: StudyOptions) -> Iterator[str]:
    parts = {"initialisation": "initialisations", **SETTING}
    for place, cell in enumerate(study.paper.cells):
        for name, part in parts.items():
            if (value := getattr(cell, name)) not in getattr(study, part):
                found = f"is {value!r}" if value else "is empty"
                yield f"paper.cells[{place}].{name} {found}; give one of {', '.join(getattr(study, part))}."
        if cell.images == "train" and "training_images" not in study.measures:
            yield f"paper.cells[{place}].images is train: add training_images to measures."
        if cell.num_labelled is None:
            yield f"paper.cells[{place}].num_labelled is null, but the benchmark has several; give one of them."


def _miniature_rules(study: StudyOptions) -> Iterator[str]:
    from ..data.miniatures import MINIATURES

    if study.miniatures and study.is_full:
        yield "miniatures is given at full scale, which is for real data; give it in an entry of scales."
    for folder, name in study.miniatures.items():
        if name not in MINIATURES:
            yield f"miniatures.{folder} is {name!r}; there are miniatures of {', '.join(MINIATURES)}."


def _unpaired(study: StudyOptions) -> Iterator[str]:
    """A sentence for each pair that is compared, but not run in one setting because of the cells."""
    pairs = [("comparisons", {"better": first, "than": second}) for first, second in study.comparisons]
    pairs += [("claims", vars(claim)) for claim in study.claims]
    for option, pair in pairs if study.cells else ():
        narrowed = {part: value for part in PLACE if (value := pair.get(part)) not in (None, "")}
        counted = narrowed.get("num_labelled") in (None, *_numbers(study))
        if counted and not places_of(pair, study):
            where = "".join(f" of {part} {value!r}" for part, value in narrowed.items())
            yield (
                f"{option} compares {pair['better']!r} with {pair['than']!r}, but no setting{where} is run with both; "
                "see cells."
            )


def _initialisation_rules(name: str, init: InitialisationOptions, study: StudyOptions) -> Iterator[str]:
    if init.checkpoint is not None and init.pretrain is not None:
        yield (
            f"initialisations.{name} has both checkpoint and pretrain: give one of them, or give the checkpoint as "
            "model.pretrained within pretrain."
        )
    if init.after is None:
        return
    if init.checkpoint is not None:
        yield f"initialisations.{name} has both checkpoint and after: give one of them."
    before = study.initialisations.get(init.after)
    if before is None or (before.pretrain is None and before.checkpoint is None and before.after is None):
        yield (
            f"initialisations.{name}.after is {init.after!r}; it must be an initialisation with pretrain, checkpoint "
            "or after, because others have no weights to begin with."
        )
    line, entry = [name], init
    while entry is not None and entry.after not in (None, *line):
        line.append(entry.after)
        entry = study.initialisations.get(entry.after)
    if entry is not None and entry.after == name:
        yield f"initialisations.{name} comes after itself, by way of {init.after}."
