"""The options of a study: its arms, settings and repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from ..choices import MEASURES, did_you_mean
from ..engine.options import RunConfig
from ..reading import (
    Change,
    TypeReader,
    Written,
    built,
    is_null,
    layered,
    no_problems,
    read_override,
    read_with_bases,
    written,
)

PRESETS = Path(__file__).parent / "presets"
FULL_SCALE = "full"
EXAMPLE = "seeds.finetune=6"
"""An override for messages."""

Sections = Annotated[dict[str, Any], RunConfig]
"""Some of a run's options, by section."""


@dataclass
class ArmOptions:
    """One initialisation and its source: a checkpoint, a pre-training of the study, or neither.

    Attributes:
        title: Its name in reports; empty = its key.
        checkpoint: Directory or Hub id of given weights.
        revision: Commit, tag or branch of a Hub id.
        pretrain: Sections of a run's options on top of the study's `pretrain`; null = no pre-training.
        after: Arm whose pre-trained weights initialise this pre-training.
    """

    title: str = ""
    checkpoint: str | None = None
    revision: str | None = None
    pretrain: Sections | None = None
    after: str | None = None


@dataclass
class SeedOptions:
    """Number of repetitions.

    Attributes:
        pretrain: Pre-trainings of each arm, numbered from 0.
        finetune: Fine-tunings of each pre-training. Arms without pre-training have the same total number of
            fine-tunings as the others. A seed determines the labelled images, the new weights and the order of images,
            and is the same in all arms.
    """

    pretrain: int = 2
    finetune: int = 3


@dataclass
class RateOptions:
    """The learning rates of fine-tuning: the same grid and the same number of runs for every arm.

    Attributes:
        fixed: A common rate at which all arms are compared as well.
        grid: Rates to choose from; empty = only the fixed one.
        seeds: Runs for each rate.
        budget: Labelled images of these runs.
        data: Sections of a run's options for these runs, which must be evaluated on other images than the study. They
            override those of `finetune`, in place of those of a fold.
    """

    fixed: float = 1e-3
    grid: list[float] = field(default_factory=list)
    seeds: int = 1
    budget: int = 0
    data: Sections = field(default_factory=dict)


@dataclass
class BenchmarkOptions:
    """One set of training and test images.

    Attributes:
        budgets: Numbers of labelled images; 0 = all.
        folds: Sections of a run's options with the training and test images of each fold. A model is trained for each
            fold; the test images of all folds together are those of the benchmark. Without folds, the images of
            `finetune` are the fold `test`.
    """

    budgets: list[int] = field(default_factory=list)
    folds: dict[str, Sections] = field(default_factory=dict)


@dataclass
class ClaimOptions:
    """A published finding that a study tests: one arm is better than another.

    Attributes:
        text: The finding in words, with its source.
        better: The arm.
        than: The other arm.
        mode: Mode of the finding; empty = all.
    """

    text: str = ""
    better: str = ""
    than: str = ""
    mode: str = ""


@dataclass
class StudyOptions:
    """A study: arms x architectures x modes x benchmarks x budgets x seeds.

    Attributes:
        name: Name of the output directory.
        summary: The question of the study, for its report.
        arms: The initialisations, in the order of the report.
        architectures: Sections of a run's options for both pre-training and fine-tuning, such as the encoder.
        modes: Sections for fine-tuning only, such as a frozen encoder.
        benchmarks: Training and test images.
        seeds: Repetitions.
        rates: Learning rates of fine-tuning.
        block_length: Consecutive test images of a sequence (names that are equal up to the last underscore) are
            resampled together in blocks of this many.
        measures: Further measures of every fine-tuned model, see `depthseg.engine.measures`.
        reference_arm: The arm that all others are compared with.
        comparisons: Further pairs of arms.
        claims: Published findings and the pair of arms that tests each; these pairs are compared as well.
        pretrain: Sections of all pre-trainings.
        finetune: Sections of all fine-tunings.
        scale: The entry of `scales` that is applied.
        scales: Changes of this file by name, such as a smoke test.
    """

    name: str = ""
    summary: str = ""
    arms: dict[str, ArmOptions] = field(default_factory=dict)
    architectures: dict[str, Sections] = field(default_factory=dict)
    modes: dict[str, Sections] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkOptions] = field(default_factory=dict)
    seeds: SeedOptions = field(default_factory=SeedOptions)
    rates: RateOptions = field(default_factory=RateOptions)
    block_length: int = 1
    measures: list[str] = field(default_factory=list)
    reference_arm: str = ""
    comparisons: list[list[str]] = field(default_factory=list)
    claims: list[ClaimOptions] = field(default_factory=list)
    pretrain: Sections = field(default_factory=dict)
    finetune: Sections = field(default_factory=dict)
    scale: str = FULL_SCALE
    scales: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The options as plain dictionaries, lists and numbers."""
        return asdict(self)


def load_study(name: str, scale: str = FULL_SCALE, overrides: Sequence[str] = ()) -> StudyOptions:
    """Read a study.

    A file with `base: world` (a study of depthseg, or a path relative to the file) contains only additions and
    changes. An arm, architecture, mode, benchmark or fold that is null is removed, together with its claims.

    Args:
        name: A study of depthseg, or the path of a YAML file.
        scale: `full`, or an entry of the file's `scales`.
        overrides: Such as `seeds.finetune=6` or `finetune.schedule.steps=20000`; later ones take precedence.

    Raises:
        FileNotFoundError: No such study.
        ValueError: Not YAML, an unknown option, a wrong type, or inconsistent options.
    """
    path = study_path(name)
    layers = [[Change(file)] for file in read_with_bases(path, study_path, "`name: mine`")]
    if scale != FULL_SCALE:
        chosen = _scale_of(_put_together(layers), scale, path)
        layers.append([Change(chosen), Change(written({"scale": scale}, "--scale"))])
    layers.append([read_override(text, StudyOptions, EXAMPLE) for text in overrides])
    reader = TypeReader()
    for change in chain.from_iterable(layers):
        # By itself, as what is on top would hide its mistakes.
        reader.read(_without_null(change.given, _MAY_BE_LEFT_OUT), StudyOptions)
    no_problems(reader.problems)
    given = _completed(_put_together(layers))
    # Nothing is put in: `${data.size}` means that of the run which the sections become part of.
    study = built(StudyOptions, reader.read(given, StudyOptions))
    problems = broken_rules(study)
    if problems:
        raise ValueError(f"{path}: " + "\n".join(problems))
    return study


def study_path(name: str, folder: str | Path = ".") -> Path:
    """The file of the given path, from a folder on, or of a study of depthseg."""
    path = Path(folder, name)
    if path.is_file():
        return path
    known = {preset.stem: preset for preset in sorted(PRESETS.glob("*.yaml"))}
    if name in known:
        return known[name]
    hint = did_you_mean(name, known)
    raise FileNotFoundError(f"There is no study {name!r}.{hint} Choose from {', '.join(known)}, or give a YAML file.")


def _put_together(layers: Sequence[Sequence[Change]]) -> Written:
    return reduce(lambda given, layer: layered(given, layer, StudyOptions), layers, Written({}))


def _completed(given: Written) -> Written:
    """A study as it was written, without what is null and the claims about that."""
    options = dict(given.value)
    entries = [*_entries(options.get("arms")).items(), *_entries(options.get("modes")).items()]
    gone = {name for name, entry in entries if is_null(entry)}
    if "claims" in options:
        claims = options["claims"]
        still = [claim for claim in claims.value if gone.isdisjoint(each.value for each in claim.value.values())]
        options["claims"] = replace(claims, value=still)
    options = _without_null(replace(given, value=options), _MAY_BE_LEFT_OUT).value
    for name, benchmark in _entries(options.get("benchmarks")).items():
        if "folds" not in benchmark.value:
            # Not a default of the class: a study's own folds would lie on top of it, and `test` be one of them.
            folds = {"folds": Written({"test": Written({})})}
            options["benchmarks"].value[name] = replace(benchmark, value=benchmark.value | folds)
    return replace(given, value=options)


def _without_null(given: Written, parts: Mapping[str, Any]) -> Written:
    """The options without the entries of some maps that are null, and without such maps that are null themselves.

    Args:
        given: A map of options.
        parts: Names of those maps -> such maps in each of their entries.
    """
    options = dict(given.value) if isinstance(given.value, dict) else {}
    for part, below in parts.items():
        if part in options and is_null(options[part]):
            options[part] = Written({})
        elif part in options and isinstance(options[part].value, dict):
            left = {name: entry for name, entry in options[part].value.items() if not is_null(entry)}
            options[part] = replace(options[part], value={name: _without_null(x, below) for name, x in left.items()})
    return replace(given, value=options) if isinstance(given.value, dict) else given


def _entries(given: Written | None) -> dict[str, Written]:
    return given.value if given is not None and isinstance(given.value, dict) else {}


def _scale_of(given: Written, scale: str, path: Path) -> Written:
    scales = _entries(given.value.get("scales"))
    if scale not in scales:
        raise ValueError(f"{path} has no scale {scale!r}; it has {', '.join([FULL_SCALE, *scales])}.")
    return scales[scale]


def broken_rules(study: StudyOptions) -> list[str]:
    """The sentence of every rule that a study breaks."""
    rules = [
        *((not getattr(study, part), f"{part} is empty: give at least one entry.") for part in _NEEDED),
        (study.reference_arm not in study.arms, _unknown_arm("reference_arm", study.reference_arm, study)),
        *(
            (arm not in study.arms, _unknown_arm("comparisons", arm, study))
            for pair in study.comparisons
            for arm in pair
        ),
        *(
            (arm not in study.arms, _unknown_arm("claims", arm, study))
            for claim in study.claims
            for arm in (claim.better, claim.than)
        ),
        *(
            (
                claim.mode not in ("", *study.modes),
                f"claims refers to the mode {claim.mode!r}; modes are {_names(study.modes)}.",
            )
            for claim in study.claims
        ),
        *((len(pair) != 2, f"comparisons contains {pair}: give pairs of arms.") for pair in study.comparisons),
        *(rule for name, arm in study.arms.items() for rule in _arm_rules(name, arm, study)),
        *(
            (not (benchmark.budgets and benchmark.folds), f"benchmarks.{name} requires budgets and folds.")
            for name, benchmark in study.benchmarks.items()
        ),
        *(
            (name not in MEASURES, f"measures contains {name!r}; choose from {', '.join(MEASURES)}.")
            for name in study.measures
        ),
        (min(study.seeds.pretrain, study.seeds.finetune) < 1, "seeds.pretrain and seeds.finetune must be at least 1."),
        (study.block_length < 1, f"block_length is {study.block_length}; it must be at least 1."),
        (min([study.rates.fixed, *study.rates.grid]) <= 0, "rates.fixed and rates.grid must be above 0."),
        (bool(study.rates.grid) and study.rates.seeds < 1, "rates.seeds must be at least 1."),
        (
            bool(study.rates.grid) and not study.rates.data,
            "rates.data is empty: rates must not be chosen on the test images of the study. Give another split there, "
            "such as {data: {val_split: val}}.",
        ),
    ]
    return [sentence for broken, sentence in rules if broken]


_MAY_BE_LEFT_OUT = {"arms": {}, "architectures": {}, "modes": {}, "benchmarks": {"folds": {}}}
"""Maps whose entries are left out where they are null -> such maps in each entry."""
_NEEDED = ("name", "arms", "architectures", "modes", "benchmarks", "finetune")


def _arm_rules(name: str, arm: ArmOptions, study: StudyOptions) -> list[tuple[bool, str]]:
    before = study.arms.get(arm.after or "")
    return [
        (
            arm.checkpoint is not None and arm.pretrain is not None,
            f"arms.{name} has both checkpoint and pretrain: give one of them, or give the checkpoint as "
            "model.pretrained within pretrain.",
        ),
        (arm.after is not None and arm.pretrain is None, f"arms.{name} has after but no pretrain; give both."),
        (
            arm.after is not None and (before is None or before.pretrain is None or before.after is not None),
            f"arms.{name}.after is {arm.after!r}; it must be an arm with its own pretrain and without after.",
        ),
    ]


def _unknown_arm(option: str, name: str, study: StudyOptions) -> str:
    return f"{option} refers to {name!r}, which is not an arm; arms are {_names(study.arms)}."


def _names(entries: Mapping[str, Any]) -> str:
    return ", ".join(entries)
