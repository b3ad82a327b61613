"""The switches: one row each says what the released code does, and what it changes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ...choices import did_you_mean

if TYPE_CHECKING:
    from ...engine.options import RunConfig
    from ..options import StudyOptions

Settings = Mapping[str, Any]

Switched = Mapping[str, Settings]
"""Switches that are on, by name, in the order of the table, with their settings."""


@dataclass(frozen=True)
class Switch:
    """One row: a defect of the released code of Lao et al. 2024, and how it is put back.

    Attributes:
        name: In study files.
        defect: What the released code does.
        correct: What is done without it.
        stage: What it touches: `pretrain` or `finetune` runs, or `score`, which needs no run of its own.
        applies: Options of the run that it touches -> whether it changes anything there.
        change: Options and settings -> the options with it; most switches change none.
        settings: The settings that it needs or takes, with their defaults; None = has to be given.
        for_some: Whether the released code has it for some initialisations alone, which a study has to name.
        rescores: Whether it also changes how the released code scores the run.
    """

    name: str
    defect: str
    correct: str
    stage: Literal["pretrain", "finetune", "score"]
    applies: Callable[[RunConfig], bool] = lambda config: True
    change: Callable[[RunConfig, Settings], RunConfig] = lambda config, settings: config
    settings: Settings = field(default_factory=dict)
    for_some: bool = False
    rescores: bool = False


def _with(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return replace(config, **{section: replace(getattr(config, section), **values)})


def _learns_measured_depth(config: RunConfig) -> bool:
    return config.task == "depth" and config.pretext.supervision == "labels"


def _crops(config: RunConfig) -> bool:
    return list(config.data.crop_scale) != [1, 1]


def _has_several_steps_a_pass(config: RunConfig) -> bool:
    size = config.data.subset_size
    return config.schedule.name != "constant" and (not size or size > config.optim.batch_size)


def _with_earlier_frame(config: RunConfig, settings: Settings) -> RunConfig:
    return _with(config, "data", train_options={**config.data.train_options, "frames": [settings["offset"]]})


ROWS = (
    Switch(
        "accumulate_gradients",
        "gradients are never cleared: every step follows the sum of all gradients so far",
        "cleared after every step",
        "finetune",
    ),
    Switch(
        "freeze_mode",
        "a frozen encoder is trained: only the statistics of its batch normalisation stay",
        "its weights and its statistics stay",
        "finetune",
        applies=lambda config: config.model.freeze_encoder,
        change=lambda config, settings: _with(config, "model", freeze_encoder=False),
    ),
    Switch(
        "label_resize",
        "label maps are resized with a bicubic filter, in training and for the score",
        "nearest pixel in training; scored at their own size",
        "finetune",
        rescores=True,
    ),
    Switch(
        "subset",
        "the labelled images are the first of the data set",
        "drawn at random, another draw for each run",
        "finetune",
        applies=lambda config: config.data.subset_size > 0,
    ),
    Switch(
        "test_set",
        "the test images are all others of the data set that the labelled ones are from",
        "the same images for every run, from elsewhere",
        "score",
        applies=lambda config: config.data.subset_size > 0,
        rescores=True,
    ),
    Switch(
        "normalisation",
        "images are normalised twice, with ImageNet's mean and deviation before the network's own",
        "once",
        "finetune",
        for_some=True,
    ),
    Switch(
        "hflip",
        "images are never mirrored in training",
        "mirrored with a probability of 0.5",
        "finetune",
        applies=lambda config: config.data.hflip > 0,
        change=lambda config, settings: _with(config, "data", hflip=0.0),
    ),
    Switch(
        "lr_update",
        "the learning rate is set once per pass over the labelled images",
        "at every step",
        "finetune",
        applies=_has_several_steps_a_pass,
    ),
    Switch(
        "num_outputs",
        "the network has outputs for ids that are never labelled",
        "one output for each class",
        "finetune",
        settings={"outputs": 34},
    ),
    Switch(
        "metric",
        "mean over images of the IoU of some classes, where pixels without a label are false alarms",
        "one confusion matrix over all images and classes, without pixels that have no label",
        "score",
        settings={"classes": None},
        rescores=True,
    ),
    Switch(
        "reinit",
        "the whole decoder begins with random weights",
        "its last layer alone",
        "finetune",
        applies=lambda config: config.model.head_init == "pretrained",
        change=lambda config, settings: _with(config, "model", head_init="random"),
        for_some=True,
    ),
    Switch(
        "zoom_applies_to",
        "zooming in moves the image, but not its depth map",
        "moves both",
        "pretrain",
        applies=lambda config: _learns_measured_depth(config) and _crops(config),
    ),
    Switch(
        "crop_probability",
        "half of the batches, at random, are not cropped",
        "all are",
        "pretrain",
        applies=_crops,
    ),
    Switch(
        "recon_scale_weights",
        "inpainting: the coarsest scale has the most weight",
        "the finest scale has",
        "pretrain",
        applies=lambda config: config.task == "inpainting" and config.pretext.scale_weights == "fine",
        change=lambda config, settings: _with(config, "pretext", scale_weights="reversed"),
    ),
    Switch(
        "nyu_image",
        "the depth map of a frame is paired with the image of an earlier frame",
        "with the image of the same frame",
        "pretrain",
        applies=_learns_measured_depth,
        change=_with_earlier_frame,
        settings={"offset": -1},
    ),
    Switch(
        "depth_loss",
        "the error of measured depth is divided by the number of all pixels",
        "by the number of those whose depth is known",
        "pretrain",
        applies=_learns_measured_depth,
    ),
)
"""In the order of the reports."""

SWITCHES: Mapping[str, Switch] = {row.name: row for row in ROWS}

_SETTINGS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "outputs": (
        "the numbers 1 to 255, and at least that of the classes",
        lambda value: type(value) is int and 1 <= value <= 255,
    ),
    "offset": ("whole numbers of frames but 0, such as -1", lambda value: type(value) is int and value != 0),
    "classes": (
        "lists of the classes that the score takes, such as [road, car]",
        lambda value: isinstance(value, list) and bool(value),
    ),
}
"""Setting -> what is allowed, in words and as a function."""

ALL = "all"
"""All switches of a study together, those that apply to a run."""


def of_stage(switched: Switched, *stages: str) -> Switched:
    """Those of some stages."""
    return {name: settings for name, settings in switched.items() if SWITCHES[name].stage in stages}


def changed(config: RunConfig, switched: Switched) -> RunConfig:
    """The options of a run with switches on; what they wrap is not in the options."""
    for name, settings in switched.items():
        config = SWITCHES[name].change(config, settings)
    return config


def applicable(study: StudyOptions, init: str, finetune: RunConfig, pretrain: RunConfig | None) -> Switched:
    """The switches of a study that change anything for an initialisation, with their settings.

    Args:
        study: The study.
        init: The initialisation.
        finetune: Options of its fine-tuning without switches.
        pretrain: Options of its pre-training; None if it has none in the study.
    """
    found = {}
    for row in ROWS:
        options, touched = study.defects.get(row.name), pretrain if row.stage == "pretrain" else finetune
        if options is None or touched is None:
            continue
        named = options.initialisations is None or init in options.initialisations
        if named and row.applies(touched):
            found[row.name] = {**row.settings, **options.settings}
    return found


def settings_of(switch: str, combined: Switched) -> Switched:
    """One switch of several, or `ALL` of them; empty if it is not among them."""
    if switch == ALL:
        return combined
    return {switch: combined[switch]} if switch in combined else {}


def is_alone(study: StudyOptions, switch: str, mode: str) -> bool:
    """Whether a switch is measured alone in a mode."""
    modes = study.defects[switch].alone_in
    return modes is None or mode in modes


def broken_rules(study: StudyOptions) -> Iterator[str]:
    """The sentence of every rule that the switches of a study break."""
    for name, options in study.defects.items():
        row, place = SWITCHES.get(name), f"defects.{name}"
        if row is None:
            yield f"{place} is no switch.{did_you_mean(name, SWITCHES)} Switches are {', '.join(SWITCHES)}."
            continue
        for init in options.initialisations or ():
            if init not in study.initialisations:
                yield f"{place}.initialisations names {init!r}; initialisations are {_list(study.initialisations)}."
        for mode in options.alone_in or ():
            if mode not in study.modes:
                yield f"{place}.alone_in names {mode!r}; modes are {_list(study.modes)}."
        if row.for_some and options.initialisations is None:
            yield f"{place}.initialisations is null: name those for which {row.defect}."
        for setting in options.settings:
            if setting not in row.settings:
                yield f"{place}.settings has {setting!r}; it takes {_list(row.settings) or 'no settings'}."
        yield from _setting_rules(place, {**row.settings, **options.settings})


def _setting_rules(place: str, settings: Settings) -> Iterator[str]:
    for name, value in settings.items():
        allowed, is_allowed = _SETTINGS[name]
        if not is_allowed(value):
            yield f"{place}.settings.{name} is {value!r}; allowed are {allowed}."


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
