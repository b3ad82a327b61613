"""The options of a run: one dataclass per concern, one complete YAML file, dotted overrides."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from .atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TASKS = ("segmentation", "depth")
OPTIMISERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "poly", "constant")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass
class ModelOptions:
    """Which network is trained, and what it starts from.

    Attributes:
        pretrained: Directory or Hub id of the checkpoint to start from, one of depthseg or a depth model of
            transformers (Depth Anything, DPT, ...), or a bare encoder of it (DINOv2, Swin, ...); null = random
            weights.
        revision: Commit, tag or branch of a Hub id.
        encoder: Encoder of a random start, such as `{model_type: depthseg_resnet, depth: 18, width_factor: 0.5}`.
            A checkpoint brings its own.
        head_type: Decoder; null = the one of the checkpoint, or the model's default.
        head_config: Options of the decoder; null = the one of the checkpoint, or the decoder's defaults.
        head_init: `pretrained` takes the decoder of the checkpoint where it fits, `random` starts it anew.
        freeze_encoder: Train the decoder alone; the encoder keeps its weights and its norm statistics.
        gradient_checkpointing: Keep fewer activations of the encoder and compute them again in the backward pass: less
            memory, more time, the same numbers.
        keep_depth: Keep the depth layer of a depth checkpoint beside the classifier.
        depth_weight: Segmentation with `keep_depth`: weight of the depth loss beside the label loss, for data that has
            both; 0 = labels alone, and the kept depth gets worse as the network moves.
        depth_type: Meaning of the depth output (`disparity`, `metric`, `relative`, `relative_inverse`); null = the
            model's.
        depth_loss: Loss for depth labels (`l1`, `silog`, `ssi`); null = the model's.
        min_depth: Nearest depth in metres; null = the model's.
        max_depth: Farthest depth in metres; null = the model's.
    """

    pretrained: str | None = None
    revision: str | None = None
    encoder: dict[str, Any] | None = None
    head_type: str | None = None
    head_config: dict[str, Any] | None = None
    head_init: str = "pretrained"
    freeze_encoder: bool = False
    gradient_checkpointing: bool = False
    keep_depth: bool = False
    depth_weight: float = 0.0
    depth_type: str | None = None
    depth_loss: str | None = None
    min_depth: float | None = None
    max_depth: float | None = None


@dataclass
class DataOptions:
    """What the network is trained and scored on.

    Attributes:
        name: A data set of `depthseg.data.DATASETS`; may stay null where Python passes its own data sets.
        root: Folder of the data.
        train_split: Split to train on.
        val_split: Split to score on.
        options: Options of the data set for both splits.
        train_options: Options for the training split alone, on top of `options`.
        val_options: Options for the scored split alone, on top of `options`.
        subset_size: Train on this many images (a few-shot subset); 0 = all.
        subset_seed: Seed of the subset; with one seed smaller subsets lie inside larger ones.
        size: `[height, width]` in pixels of what the network sees, in training and afterwards.
        hflip: Probability of mirroring a training image.
        crop_scale: Range of the side length of random crops, as a share of the image; `[1, 1]` = no cropping.
        colour_jitter: Brightness, contrast and saturation change by a factor within 1 -+ this; 0 = off.
        num_workers: Processes that read training images beside each training process.
    """

    name: str | None = None
    root: str | None = None
    train_split: str = "train"
    val_split: str = "val"
    options: dict[str, Any] = field(default_factory=dict)
    train_options: dict[str, Any] = field(default_factory=dict)
    val_options: dict[str, Any] = field(default_factory=dict)
    subset_size: int = 0
    subset_seed: int = 0
    size: list[int] = field(default_factory=lambda: [192, 640])
    hflip: float = 0.5
    crop_scale: list[float] = field(default_factory=lambda: [1.0, 1.0])
    colour_jitter: float = 0.0
    num_workers: int = 0


@dataclass
class OptimOptions:
    """How weights are updated.

    Attributes:
        name: `adamw`, `adam` or `sgd`.
        lr: Peak learning rate.
        encoder_lr_factor: The encoder learns at `lr` times this.
        layer_decay: Each layer of the encoder learns at this share of the rate of the layer above it, so that what
            lies near the image changes least, as in BEiT and MAE; 1 = all at the same rate.
        weight_decay: For weight matrices and filters; norms, biases and other vectors never decay.
        betas: Averages of Adam and AdamW.
        momentum: Momentum of SGD.
        batch_size: Images per optimiser step, over all processes and accumulation steps together.
        accumulation_steps: Cut each batch into this many parts, for small memories.
        max_grad_norm: Clip the gradient to this length; 0 = never.
    """

    name: str = "adamw"
    lr: float = 1e-4
    encoder_lr_factor: float = 1.0
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    momentum: float = 0.9
    batch_size: int = 8
    accumulation_steps: int = 1
    max_grad_norm: float = 0.0


@dataclass
class ScheduleOptions:
    """How long, and how the learning rate moves; everything counts optimiser steps.

    Attributes:
        name: `cosine`, `poly` or `constant`.
        steps: Optimiser steps of the whole run.
        warmup_steps: Linear rise from zero over the first steps.
        power: Power of `poly`.
    """

    name: str = "cosine"
    steps: int = 1000
    warmup_steps: int = 0
    power: float = 0.9


@dataclass
class RunOptions:
    """Where results go and how the run behaves.

    Attributes:
        output_dir: Run directory.
        seed: Seed of new weights, of the order of images and of their augmentation.
        precision: `no` (float32), `bf16` or `fp16` (GPU only) autocast in training; scoring is always float32.
        eval_every: Score after every so many steps, and after the last one; 0 = after the last one alone.
        log_every: Steps between two lines of progress.
        checkpoint_every: Steps between two resumable checkpoints; 0 = after the last step alone.
        select: `model/` holds the `best` scored weights, or the `last`.
        resume: Go on with the run in `output_dir`, or start it where there is none.
        overwrite: Remove the run that `output_dir` holds.
        tensorboard: Write TensorBoard event files.
        cpu: Stay on the CPU even where there is a GPU.
    """

    output_dir: str = "runs/default"
    seed: int = 0
    precision: str = "no"
    eval_every: int = 0
    log_every: int = 10
    checkpoint_every: int = 0
    select: str = "best"
    resume: bool = False
    overwrite: bool = False
    tensorboard: bool = True
    cpu: bool = False


@dataclass
class RunConfig:
    """All options of one training run.

    Attributes:
        task: `segmentation` or `depth`.
        model: The network.
        data: The data.
        optim: The optimiser.
        schedule: Length and learning rate.
        run: Everything else.
    """

    task: str = "segmentation"
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def validate(self) -> None:
        """Check every value that can be checked without data, model or device.

        Raises:
            ValueError: One sentence per wrong option, all of them together.
        """
        problems = [sentence for wrong, sentence in _rules(self) if wrong]
        if problems:
            raise ValueError("\n".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """The options as plain dictionaries, lists and numbers."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the options as one complete YAML file."""
        with atomic_path(path) as temporary:
            OmegaConf.save(OmegaConf.structured(self), temporary)


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, apply overrides, check everything.

    Args:
        path: YAML file with the sections of `RunConfig`; None = the defaults.
        overrides: Such as `optim.lr=1e-4` or `data.size=[96,320]`; later ones win. Values are YAML: what YAML would
            take for a number wants quotes, as in `data.train_options.exclude_sequences=["0016E5"]`.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, an unknown option (the nearest known one is named), a wrong type or a wrong value.
    """
    merged = OmegaConf.structured(RunConfig)
    sources = [] if path is None else [(str(path), _read_yaml(Path(path)))]
    for source, values in [*sources, *((f"override {text!r}", _read_override(text)) for text in overrides)]:
        _refuse_unknown(values, RunConfig, source)
        try:
            merged = OmegaConf.merge(merged, values)
        except OmegaConfBaseException as error:
            raise ValueError(_type_sentence(source, error)) from error
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(_type_sentence(str(path or "the options"), error)) from error
    config.validate()
    return config


def changed_options(old: RunConfig, new: RunConfig, ignored: Iterable[str] = ()) -> list[str]:
    """List the options whose values differ, as `section.option: old -> new`.

    Args:
        old: The options before.
        new: The options now.
        ignored: Dotted names that do not count.
    """
    after = _flatten(new.to_dict())
    changed = {key: was for key, was in _flatten(old.to_dict()).items() if key not in ignored and was != after[key]}
    return [f"{key}: {was!r} -> {after[key]!r}" for key, was in changed.items()]


def _flatten(options: Mapping[str, Any]) -> dict[str, Any]:
    flat = {"task": options["task"]}
    for section, values in options.items():
        if section != "task":
            flat |= {f"{section}.{key}": value for key, value in values.items()}
    return flat


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    try:
        values = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file that can be read: {error}") from error
    if not OmegaConf.is_dict(values):
        raise ValueError(f"{path} must hold sections such as `model:` and `data:`, not a list or a single value.")
    return values


def _read_override(text: str) -> Any:
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"Override {text!r} has no `=`: write `section.option=value`, such as `optim.lr=1e-4`.")
    try:
        return OmegaConf.from_dotlist([text])
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"Override {text!r} cannot be read: {error}") from error


def _refuse_unknown(values: Any, options: type, source: str, prefix: str = "") -> None:
    """Walk the given names along the dataclasses; free dictionaries (encoder, data options) are left alone."""
    hints = get_type_hints(options)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5) or _elsewhere(str(key))
            hint = f" Did you mean {near[0] if '.' in near[0] else prefix + near[0]!r}?" if near else ""
            raise ValueError(
                f"{source}: unknown option {prefix + str(key)!r}.{hint} "
                f"Known in {prefix.rstrip('.') or 'the file'}: {', '.join(hints)}."
            )
        child = OmegaConf.to_container(values, resolve=False)[key]
        if not dataclasses.is_dataclass(hints[key]):
            continue
        if not isinstance(child, dict):
            raise ValueError(
                f"{source}: {prefix + key!r} is a section with options of its own, got {child!r}. "
                f"Its options: {', '.join(get_type_hints(hints[key]))}."
            )
        _refuse_unknown(values[key], hints[key], source, f"{prefix}{key}.")


def _elsewhere(key: str) -> list[str]:
    """Options of that very name in other sections."""
    return [name for name in _flatten(RunConfig().to_dict()) if name.rsplit(".", 1)[-1] == key]


def _type_sentence(source: str, error: OmegaConfBaseException) -> str:
    reason = str(error).splitlines()[0].rstrip(".")
    where = f"option {error.full_key!r}: " if getattr(error, "full_key", None) else ""
    return f"{source}: {where}{reason}."


def _rules(config: RunConfig) -> list[tuple[bool, str]]:
    model, data, optim, schedule, run = config.model, config.data, config.optim, config.schedule, config.run
    return [
        _one_of("task", config.task, TASKS),
        _one_of("model.head_init", model.head_init, ("pretrained", "random")),
        (
            model.pretrained is None and model.encoder is None,
            "model.pretrained and model.encoder are both null: name a checkpoint, or describe the encoder to build.",
        ),
        (
            model.freeze_encoder and model.gradient_checkpointing,
            "model.gradient_checkpointing spares activations of an encoder that trains; with model.freeze_encoder "
            "there are none. Set one of them to false.",
        ),
        (
            config.task == "depth" and model.keep_depth,
            "model.keep_depth is for segmentation; a depth network keeps its depth layer anyway.",
        ),
        (
            model.depth_weight != 0 and not model.keep_depth,
            f"model.depth_weight is {model.depth_weight} but model.keep_depth is false: there is no depth to train.",
        ),
        _not_negative("model.depth_weight", model.depth_weight),
        _positive("model.min_depth", 1.0 if model.min_depth is None else model.min_depth),
        (
            None not in (model.min_depth, model.max_depth) and model.max_depth <= model.min_depth,
            f"model.max_depth must be above model.min_depth ({model.min_depth}), got {model.max_depth}.",
        ),
        (
            len(data.size) != 2 or min(data.size) < 1,
            f"data.size must be [height, width] in pixels, both at least 1, got {list(data.size)}.",
        ),
        (not 0 <= data.hflip <= 1, f"data.hflip is a probability from 0 to 1, got {data.hflip}."),
        (
            len(data.crop_scale) != 2 or not 0 < data.crop_scale[0] <= data.crop_scale[-1] <= 1,
            f"data.crop_scale must be [smallest, largest] with 0 < smallest <= largest <= 1, got {data.crop_scale}.",
        ),
        (not 0 <= data.colour_jitter < 1, f"data.colour_jitter must be in [0, 1), got {data.colour_jitter}."),
        *(_at_least(f"data.{key}", getattr(data, key), 0) for key in ("subset_size", "subset_seed", "num_workers")),
        _one_of("optim.name", optim.name, OPTIMISERS),
        _positive("optim.lr", optim.lr),
        *(_not_negative(f"optim.{key}", getattr(optim, key)) for key in _NOT_NEGATIVE),
        (
            not 0 < optim.layer_decay <= 1,
            f"optim.layer_decay must be above 0 and at most 1 (1 = off), got {optim.layer_decay}.",
        ),
        (
            len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas),
            f"optim.betas must be two numbers in [0, 1), got {list(optim.betas)}.",
        ),
        *(_at_least(f"optim.{key}", getattr(optim, key), 1) for key in ("batch_size", "accumulation_steps")),
        _one_of("schedule.name", schedule.name, SCHEDULES),
        _at_least("schedule.steps", schedule.steps, 1),
        (
            not 0 <= schedule.warmup_steps < max(schedule.steps, 1),
            f"schedule.warmup_steps must be at least 0 and below schedule.steps ({schedule.steps}), "
            f"got {schedule.warmup_steps}.",
        ),
        _positive("schedule.power", schedule.power),
        _one_of("run.precision", run.precision, PRECISIONS),
        _one_of("run.select", run.select, ("best", "last")),
        *(_at_least(f"run.{key}", getattr(run, key), 0) for key in ("seed", "eval_every", "checkpoint_every")),
        _at_least("run.log_every", run.log_every, 1),
        (not run.output_dir, "run.output_dir must name a directory."),
        (run.resume and run.overwrite, "run.resume and run.overwrite exclude each other: keep the run or remove it."),
    ]


_NOT_NEGATIVE = ("encoder_lr_factor", "weight_decay", "momentum", "max_grad_norm")


def _one_of(name: str, value: str, known: Sequence[str]) -> tuple[bool, str]:
    return value not in known, f"{name} must be one of {', '.join(known)}, got {value!r}."


def _at_least(name: str, value: int, least: int) -> tuple[bool, str]:
    return value < least, f"{name} must be a whole number of at least {least}, got {value}."


def _positive(name: str, value: float) -> tuple[bool, str]:
    return not 0 < value < math.inf, f"{name} must be a finite number above 0, got {value}."


def _not_negative(name: str, value: float) -> tuple[bool, str]:
    return not 0 <= value < math.inf, f"{name} must be a finite number of at least 0, got {value}."
