"""The options of a study: its arms, settings and repetitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..choices import MEASURES, did_you_mean

PRESETS = Path(__file__).parent / "presets"
FULL_SCALE = "full"


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
    pretrain: dict[str, Any] | None = None
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
    data: dict[str, Any] = field(default_factory=dict)


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
    folds: dict[str, dict[str, Any]] = field(default_factory=dict)


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
    architectures: dict[str, dict[str, Any]] = field(default_factory=dict)
    modes: dict[str, dict[str, Any]] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkOptions] = field(default_factory=dict)
    seeds: SeedOptions = field(default_factory=SeedOptions)
    rates: RateOptions = field(default_factory=RateOptions)
    block_length: int = 1
    measures: list[str] = field(default_factory=list)
    reference_arm: str = ""
    comparisons: list[list[str]] = field(default_factory=list)
    claims: list[ClaimOptions] = field(default_factory=list)
    pretrain: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
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
    try:
        merged = OmegaConf.merge(*_with_bases(path))
        if scale != FULL_SCALE:
            merged = OmegaConf.merge(merged, _scale_of(merged, scale, path), {"scale": scale})
        merged = OmegaConf.merge(merged, OmegaConf.from_dotlist(list(overrides)))
        if "claims" in merged:
            merged.claims = _still_testable(merged)
        for part in _MAY_BE_LEFT_OUT:
            merged[part] = _without_null(merged.get(part))
        for benchmark in filter(OmegaConf.is_dict, merged.benchmarks.values()):
            # Not a default of the class: a study's own folds would be merged with it, and `test` would be one of them.
            benchmark.folds = _without_null(benchmark.folds) if "folds" in benchmark else {"test": {}}
        merged = OmegaConf.merge(OmegaConf.structured(StudyOptions), merged)
        # Not resolved: `${data.size}` refers to the run that the sections become part of.
        plain = OmegaConf.to_container(merged, resolve=False, throw_on_missing=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{path} with its overrides cannot be read: {str(error).splitlines()[0]}") from error
    arms = {key: ArmOptions(**arm) for key, arm in plain["arms"].items()}
    benchmarks = {key: BenchmarkOptions(**benchmark) for key, benchmark in plain["benchmarks"].items()}
    repeats = {"seeds": SeedOptions(**plain["seeds"]), "rates": RateOptions(**plain["rates"])}
    claims = [ClaimOptions(**claim) for claim in plain["claims"]]
    study = StudyOptions(**plain | {"arms": arms, "benchmarks": benchmarks, "claims": claims} | repeats)
    problems = broken_rules(study)
    if problems:
        raise ValueError(f"{path}: " + "\n".join(problems))
    return study


def study_path(name: str) -> Path:
    """The file of a study of depthseg, or the given path."""
    known = {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
    if name in known:
        return known[name]
    if Path(name).is_file():
        return Path(name)
    hint = did_you_mean(name, known)
    raise FileNotFoundError(f"There is no study {name!r}.{hint} Choose from {', '.join(known)}, or give a YAML file.")


def _with_bases(path: Path) -> list[Any]:
    """The file and its bases, the lowest base first."""
    files: list[Any] = []
    seen = [path.resolve()]
    while True:
        values = OmegaConf.load(path)
        if not OmegaConf.is_dict(values):
            raise ValueError(f"{path} contains no options; a study has lines such as 'name: mine'.")
        base = values.pop("base", None)
        files.insert(0, values)
        if base is None:
            return files
        beside = path.parent / str(base)
        path = beside if beside.is_file() else study_path(str(base))
        if path.resolve() in seen:
            raise ValueError(f"{path} is its own base, through {', '.join(map(str, seen))}; remove one of the bases.")
        seen.append(path.resolve())


def _still_testable(merged: Any) -> list[Any]:
    """The claims about arms and modes that were not removed."""
    gone = {name for part in ("arms", "modes") for name, entry in (merged.get(part) or {}).items() if entry is None}
    return [claim for claim in merged.claims if gone.isdisjoint(claim.values())]


def _without_null(entries: Any) -> dict[str, Any]:
    return {name: entry for name, entry in (entries or {}).items() if entry is not None}


def _scale_of(merged: Any, scale: str, path: Path) -> Any:
    scales = merged.get("scales") or {}
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


_MAY_BE_LEFT_OUT = ("arms", "architectures", "modes", "benchmarks")
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
