"""The options of a study: its initialisations, settings and repetitions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from ..choices import did_you_mean
from ..engine.options import FORMER_NAMES, RunConfig
from ..reading import (
    Allowed,
    Change,
    Count,
    NotNegative,
    Positive,
    PositiveCount,
    TypeReader,
    Written,
    built,
    free_value,
    is_null,
    layered,
    no_problems,
    read_override,
    read_with_bases,
    read_yaml,
    renamed,
    typed,
    written,
)
from .defects.options import DefectOptions
from .places import SETTING
from .rules import PARTS, broken_rules

logger = logging.getLogger(__name__)

PRESETS = Path(__file__).parent / "presets"
FULL_SCALE = "full"
OWN = "own"
"""The study whose options `depthseg.study.own` shortens, fits to the data and cuts to a number of hours."""

Sections = Annotated[dict[str, Any], RunConfig]
"""Some of a run's options, by section."""

Points = Annotated[float, Allowed("a number of points from 0 to 100", lambda points: 0 <= points <= 100)]

Pair = Annotated[list[str], Allowed("a pair of initialisations such as [depth, none]", lambda pair: len(pair) == 2)]


@dataclass
class InitialisationOptions:
    """One initialisation and its source: a checkpoint, a pre-training of the study, or neither.

    Attributes:
        title: Its name in reports; empty = its key.
        checkpoint: Directory or Hub id of given weights; `{architecture}` in it stands for the name of each, such as
            in `data/{architecture}_imagenet`.
        revision: Commit, tag or branch of a Hub id.
        pretrain: Sections of a run's options on top of the study's `pretrain`; null = no pre-training.
        after: Initialisation whose weights, pre-trained or given, initialise this pre-training; without `pretrain`,
            they initialise the fine-tunings.
        finetune: Sections of its fine-tunings, on top of those of the mode, such as
            `{model: {head_init: random}}` to transfer the encoder alone.
    """

    title: str = ""
    checkpoint: str | None = None
    revision: str | None = None
    pretrain: Sections | None = None
    after: str | None = None
    finetune: Sections = field(default_factory=dict)


@dataclass
class SeedOptions:
    """Number of repetitions.

    Attributes:
        pretrain: Pre-trainings of each initialisation, numbered from 0.
        finetune: Fine-tunings of each pre-training. Initialisations without pre-training have the same total number of
            fine-tunings as the others. A seed determines the labelled images, the new weights and the order of images,
            and is the same in all initialisations.
        draws: Draws of which images are labelled, instead of `finetune`: every initialisation is fine-tuned once with
            each of the same draws, draw d from pre-training d modulo `pretrain`. 0 = `finetune` seeds under each
            pre-training, other ones under each.
    """

    pretrain: PositiveCount = 2
    finetune: PositiveCount = 3
    draws: Count = 0


@dataclass
class GivenRateOptions:
    """A learning rate that a publication states for a part of the matrix of a study.

    Attributes:
        rate: The rate.
        initialisations: Initialisations that are fine-tuned at it; empty = all, as for every other attribute.
        architectures: Their architectures.
        modes: Their modes.
    """

    rate: Positive | None = None
    initialisations: list[str] = field(default_factory=list)
    architectures: list[str] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)


@dataclass
class RateOptions:
    """The learning rates of fine-tuning: the same grid and the same number of runs for every initialisation.

    Attributes:
        given: Rates of parts of the matrix; the first entry that names a part counts. Nothing is chosen there, and
            nothing is run at the common rate.
        fixed: A common rate at which all initialisations are compared as well; null = none, they are compared at the
            rates chosen from `grid` alone.
        grid: Rates to choose from; empty = only the fixed one.
        seeds: Runs for each rate.
        num_labelled: Labelled images of these runs.
        data: Sections of a run's options for these runs, which must be evaluated on other images than the study. They
            override those of `finetune`, in place of those of a fold.
    """

    given: list[GivenRateOptions] = field(default_factory=list)
    fixed: Positive | None = 1e-3
    grid: list[Positive] = field(default_factory=list)
    seeds: PositiveCount = 1
    num_labelled: Count = 0
    data: Sections = field(default_factory=dict)


@dataclass
class BenchmarkOptions:
    """One set of training and test images.

    Attributes:
        num_labelled: Numbers of labelled images; 0 = all.
        folds: Sections of a run's options with the training and test images of each fold. A model is trained for each
            fold; the test images of all folds together are those of the benchmark. Without folds (null), the images
            of `finetune` are the fold `test`.
    """

    num_labelled: list[Count] = field(default_factory=list)
    folds: dict[str, Sections | None] | None = None


@dataclass
class CellOptions:
    """A part of the matrix of a study that is run.

    Attributes:
        initialisations: Its initialisations; empty = all, as for every other attribute.
        architectures: Its architectures.
        modes: Its modes.
        benchmarks: Its benchmarks.
        num_labelled: Its numbers of labelled images, out of those of the benchmarks.
    """

    initialisations: list[str] = field(default_factory=list)
    architectures: list[str] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    benchmarks: list[str] = field(default_factory=list)
    num_labelled: list[Count] = field(default_factory=list)


@dataclass
class ClaimOptions:
    """A published finding that a study tests: one initialisation is better than another.

    Attributes:
        text: The finding in words, with its source.
        better: The initialisation.
        than: The other initialisation.
        mode: Mode of the finding; empty = all.
        num_labelled: Number of labelled images of the finding; null = all numbers of the study.
        architecture: Architecture of the finding; empty = all.
        benchmark: Benchmark of the finding; empty = all.
        primary: Whether the study was made to decide it. p-values are then adjusted over the primary claims, and all
            other comparisons are exploratory. At most five comparisons may be primary.
        expected: Difference in points that is expected, such as that of a pilot, for `--dry-run`; 0 = not known.
    """

    text: str = ""
    better: str = ""
    than: str = ""
    mode: str = ""
    num_labelled: Count | None = None
    architecture: str = ""
    benchmark: str = ""
    primary: bool = False
    expected: NotNegative = 0.0


@dataclass
class PilotOptions:
    """Spread of the difference of two initialisations in a pilot, for `--dry-run`; null = not measured.

    Attributes:
        sd_draws: Standard deviation over draws of the labelled images, paired, in points of mean IoU.
        sd_pretrainings: Standard deviation over pre-trainings, beyond that of the draws, in points.
        sd_blocks: Standard deviation over blocks of test images, in points.
    """

    sd_draws: NotNegative | None = None
    sd_pretrainings: NotNegative | None = None
    sd_blocks: NotNegative | None = None


@dataclass
class RobustnessOptions:
    """The images of the measure `robustness`: corrupted test images, and other films.

    Attributes:
        corruptions: Kinds of corruption: `noise`, `blur`, `fog`, `dusk`; see `depthseg.data.corruptions`.
        strengths: Strengths of each, from 1 to 3.
        every: One of so many test images is used, from the first on; 1 = all.
        films: Sections of a run's options with other images to evaluate on, by name, such as
            `{dusk: {data: {val_split: train, val_options: {sequences: ["0001TP"]}}}}`. They must be neither training
            nor test images, so `finetune` has to leave them out.
    """

    corruptions: list[str] = field(default_factory=lambda: ["noise", "blur", "fog", "dusk"])
    strengths: list[PositiveCount] = field(default_factory=lambda: [1, 2, 3])
    every: PositiveCount = 5
    films: dict[str, Sections] = field(default_factory=dict)


@dataclass
class PaperCellOptions:
    """A number of a paper, and the cell of the matrix of the study that it is compared with.

    An empty part of the cell is the only entry that the study has.

    Attributes:
        initialisation: Its initialisation.
        architecture: Its architecture.
        mode: Its mode.
        benchmark: Its benchmark.
        num_labelled: Its number of labelled images; 0 = all, null = the only one of the benchmark.
        images: The evaluated images: those of the test, or the training images, see the measure `training_images`.
        mean_iou: Mean IoU in points; null = not in the text.
        pixel_accuracy: Pixel accuracy in points; null = not in the text.
    """

    initialisation: str = ""
    architecture: str = ""
    mode: str = ""
    benchmark: str = ""
    num_labelled: Count | None = None
    images: Literal["test", "train"] = "test"
    mean_iou: Points | None = None
    pixel_accuracy: Points | None = None


@dataclass
class PaperOptions:
    """What a paper reports of the rows of a study; the report shows it beside the results.

    Attributes:
        source: The paper and the place in it.
        not_in_text: What the paper does not say, so that the study decides it: a sentence for each.
        cells: Its numbers.
    """

    source: str = ""
    not_in_text: list[str] = field(default_factory=list)
    cells: list[PaperCellOptions] = field(default_factory=list)


@dataclass
class StudyOptions:
    """A study: initialisations x architectures x modes x benchmarks x numbers of labelled images x seeds.

    In a file, an initialisation, architecture, mode, benchmark or fold of its base may be null; a study that was read
    has none, and neither have its comparisons, claims, cells and numbers of a paper.

    Attributes:
        name: Name of the output directory.
        summary: The question of the study, for its report.
        initialisations: What is compared, in the order of the report.
        architectures: Sections of a run's options for both pre-training and fine-tuning, such as the encoder.
        modes: Sections for fine-tuning only, such as a frozen encoder.
        benchmarks: Training and test images.
        cells: The combinations that are run, those of every entry together; empty = all. An initialisation in no cell
            is pre-trained only for those after it.
        seeds: Repetitions.
        rates: Learning rates of fine-tuning.
        block_length: Consecutive test images of a sequence (names that are equal up to the last underscore) are
            resampled together in blocks of this many.
        measures: Further measures of every fine-tuned model, see `depthseg.engine.analysis`.
        robustness: Images of the measure `robustness`.
        reference: The initialisation that all others are compared with.
        comparisons: Further pairs of initialisations.
        claims: Published findings and the pair of initialisations that tests each; these pairs are compared as well.
        paper: Numbers of a paper, shown beside those of the study.
        pilot: Spread of a difference in a pilot, from which `--dry-run` tells what the study can detect.
        defects: Defects of the released code of Lao et al. whose price is measured, each alone and all together, see
            `depthseg.study.defects.switches`.
        miniatures: Folder -> data set (`depthseg datasets render --layout`) whose miniature is rendered there before
            the study begins if the folder does not exist. For scales alone, and best in folders of their own, such as
            `data/toy/kitti_raw`: a study at full scale refuses a miniature.
        pretrain: Sections of all pre-trainings.
        finetune: Sections of all fine-tunings.
        scale: The entry of `scales` that is applied.
        scales: Changes of this file by name, such as a smoke test.
    """

    name: str = ""
    summary: str = ""
    initialisations: dict[str, InitialisationOptions | None] = field(default_factory=dict)
    architectures: dict[str, Sections | None] = field(default_factory=dict)
    modes: dict[str, Sections | None] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkOptions | None] = field(default_factory=dict)
    cells: list[CellOptions] = field(default_factory=list)
    seeds: SeedOptions = field(default_factory=SeedOptions)
    rates: RateOptions = field(default_factory=RateOptions)
    block_length: PositiveCount = 1
    measures: list[str] = field(default_factory=list)
    robustness: RobustnessOptions = field(default_factory=RobustnessOptions)
    reference: str = ""
    comparisons: list[Pair] = field(default_factory=list)
    claims: list[ClaimOptions] = field(default_factory=list)
    paper: PaperOptions = field(default_factory=PaperOptions)
    pilot: PilotOptions = field(default_factory=PilotOptions)
    defects: dict[str, DefectOptions | None] = field(default_factory=dict)
    miniatures: dict[str, str] = field(default_factory=dict)
    pretrain: Sections = field(default_factory=dict)
    finetune: Sections = field(default_factory=dict)
    scale: str = FULL_SCALE
    scales: dict[str, Annotated[dict[str, Any], StudyOptions]] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether no scale is applied."""
        return self.scale == FULL_SCALE

    def to_dict(self) -> dict[str, Any]:
        """The options as plain dictionaries, lists and numbers."""
        return asdict(self)


Named = TypeVar("Named", CellOptions, GivenRateOptions)

FORMER = {
    RunConfig: FORMER_NAMES,
    StudyOptions: {"arms": "initialisations", "reference_arm": "reference"},
    BenchmarkOptions: {"budgets": "num_labelled"},
    RateOptions: {"budget": "num_labelled"},
}
"""Where an option is -> its former name -> its name now. Users may write them for one version, with a warning."""


def load_study(name: str, scale: str = FULL_SCALE, overrides: Sequence[str] = ()) -> StudyOptions:
    """Read a study.

    A file with `base: world` (a study of depthseg, or a path relative to the file) contains only additions and
    changes. An initialisation, architecture, mode, benchmark or fold that is null is removed, with its comparisons,
    claims and numbers of a paper and from the cells.

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
    layers, old_names = renamed(layers, StudyOptions, FORMER)
    if scale != FULL_SCALE:
        below = _put_together(layers)
        scales = below.value.get("scales", Written({})).value
        if scale not in scales:
            raise ValueError(f"{path} has no scale {scale!r}; it has {', '.join([FULL_SCALE, *scales])}.")
        layers.append([Change(_of_what_is_left(scales[scale], below)), Change(written({"scale": scale}, "--scale"))])
    overridden = [read_override(text, StudyOptions, "seeds.finetune=6", former=FORMER) for text in overrides]
    (overridden,), more_names = renamed([overridden], StudyOptions, FORMER)
    layers.append(overridden)
    for sentence in dict.fromkeys([*old_names, *more_names]):
        logger.warning(sentence)
    reader = TypeReader()
    for change in chain.from_iterable(layers):
        # By itself, as what is on top would hide its mistakes.
        reader.read(change.given, StudyOptions)
    no_problems(reader.problems)
    # Nothing is put in: `${data.size}` means that of the run which the sections become part of.
    study = _completed(built(StudyOptions, typed(_put_together(layers), StudyOptions)))
    problems = list(broken_rules(study))
    if problems:
        raise ValueError(f"{path}: " + "\n".join(problems))
    return study


def read_stored_study(path: Path) -> Any:
    """The options of a study that was run, whichever version wrote the file."""
    (((change,),), _) = renamed([[Change(read_yaml(path))]], StudyOptions, FORMER)
    return free_value(change.given)


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


def _of_what_is_left(scale: Written, below: Written) -> Written:
    """A scale without the entries that a file has removed: what it would change of them is not what they are."""

    def kept(above: Written, below: Written | None) -> Written:
        if below is None or not (isinstance(above.value, dict) and isinstance(below.value, dict)):
            return above
        gone = {name for name, entry in below.value.items() if is_null(entry)}
        return Written({name: entry for name, entry in above.value.items() if name not in gone}, above.place)

    if not isinstance(scale.value, dict):
        return scale
    parts = {part: kept(scale.value[part], below.value.get(part)) for part in PARTS if part in scale.value}
    return Written(scale.value | parts, scale.place)


def _completed(study: StudyOptions) -> StudyOptions:
    """A study without what is null and the claims about that, and with what is left out because there is one only."""
    gone = {part: {name for name, entry in getattr(study, part).items() if entry is None} for part in PARTS}
    kept = {part: _without_null(getattr(study, part)) for part in (*PARTS, "defects")}
    removed = gone["initialisations"] | gone["modes"]
    kept["defects"] = {name: options.without(removed) for name, options in kept["defects"].items()}
    for name, benchmark in kept["benchmarks"].items():
        folds = {"test": {}} if benchmark.folds is None else _without_null(benchmark.folds)
        kept["benchmarks"][name] = replace(benchmark, folds=folds)
    kept["comparisons"] = [pair for pair in study.comparisons if gone["initialisations"].isdisjoint(pair)]
    kept["claims"] = [claim for claim in study.claims if not _names_any(claim, gone)]
    kept["cells"] = _without_gone(study.cells, gone)
    kept["rates"] = replace(study.rates, given=_without_gone(study.rates.given, gone))
    if study.cells and not kept["cells"]:
        raise ValueError("cells names only entries that are null, so nothing is left to run; give other cells.")
    study = replace(study, **kept)
    numbers = [_with_only_ones(cell, study) for cell in study.paper.cells if not _names_any(cell, gone)]
    return replace(study, paper=replace(study.paper, cells=numbers))


def _names_any(entry: ClaimOptions | PaperCellOptions, gone: Mapping[str, set[str]]) -> bool:
    parts = dict.fromkeys(("initialisation", "better", "than"), "initialisations") | SETTING
    return any(getattr(entry, name, None) in gone[part] for name, part in parts.items())


def _with_only_ones(cell: PaperCellOptions, study: StudyOptions) -> PaperCellOptions:
    """A number of a paper whose empty parts are the only entries of the study; where there are several, empty."""
    for name, part in SETTING.items():
        if not getattr(cell, name) and len(entries := getattr(study, part)) == 1:
            cell = replace(cell, **{name: next(iter(entries))})
    benchmark = study.benchmarks.get(cell.benchmark)
    if cell.num_labelled is None and benchmark is not None and len(benchmark.num_labelled) == 1:
        return replace(cell, num_labelled=benchmark.num_labelled[0])
    return cell


def _without_gone(entries: Sequence[Named], gone: Mapping[str, set[str]]) -> list[Named]:
    """Cells or given rates without names that are gone; those of which a list names nothing else go as well."""
    kept = []
    for entry in entries:
        named = {part: getattr(entry, part) for part in PARTS if hasattr(entry, part)}
        left = {part: [name for name in names if name not in gone[part]] for part, names in named.items()}
        if all(left[part] or not names for part, names in named.items()):
            kept.append(replace(entry, **left))
    return kept


def _without_null(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in entries.items() if entry is not None}
