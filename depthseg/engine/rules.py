"""What the options of a run must fulfil, as far as it can be told without data, model or device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..choices import POSE_NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .options import DataOptions, ModelOptions, OptimOptions, PretextOptions, RunConfig, RunOptions

TASKS = ("segmentation", "depth", "flow", "reconstruction", "classification")
SUPERVISIONS = ("labels", "mono", "stereo", "mono_stereo")
INTRINSICS = ("given", "one_camera", "per_picture")
OPTIMISERS = ("adamw", "adam", "sgd")
SCHEDULES = ("cosine", "poly", "constant")
PRECISIONS = ("no", "bf16", "fp16")

Rule = tuple[bool, str]
"""Whether it is broken, and the sentence that says so."""


def broken_rules(config: RunConfig) -> list[str]:
    """The sentence of every rule that the options break."""
    schedule = config.schedule
    rules = [
        _one_of("task", config.task, TASKS),
        *_model_rules(config.task, config.model),
        *_data_rules(config.data),
        *_pretext_rules(config.task, config.pretext, config.data),
        *_optim_rules(config.optim),
        _one_of("schedule.name", schedule.name, SCHEDULES),
        _at_least("schedule.steps", schedule.steps, 1),
        (
            not 0 <= schedule.warmup_steps < max(schedule.steps, 1),
            f"schedule.warmup_steps must be at least 0 and below schedule.steps ({schedule.steps}), "
            f"got {schedule.warmup_steps}.",
        ),
        _positive("schedule.power", schedule.power),
        *_run_rules(config.run),
    ]
    return [sentence for broken, sentence in rules if broken]


def _model_rules(task: str, model: ModelOptions) -> Iterator[Rule]:
    yield _one_of("model.head_init", model.head_init, ("pretrained", "random"))
    yield (
        model.pretrained is None and model.encoder is None,
        "model.pretrained and model.encoder are both null: name a checkpoint, or describe the encoder to build.",
    )
    yield (
        model.freeze_encoder and model.gradient_checkpointing,
        "model.gradient_checkpointing spares activations of an encoder that trains; with model.freeze_encoder "
        "there are none. Set one of them to false.",
    )
    yield (
        task == "depth" and model.keep_depth,
        "model.keep_depth is for segmentation; a depth network keeps its depth layer anyway.",
    )
    yield (
        model.depth_weight != 0 and not model.keep_depth,
        f"model.depth_weight is {model.depth_weight} but model.keep_depth is false: there is no depth to train.",
    )
    yield _not_negative("model.depth_weight", model.depth_weight)
    yield _positive("model.min_depth", 1.0 if model.min_depth is None else model.min_depth)
    yield (
        None not in (model.min_depth, model.max_depth) and model.max_depth <= model.min_depth,
        f"model.max_depth must be above model.min_depth ({model.min_depth}), got {model.max_depth}.",
    )


def _data_rules(data: DataOptions) -> Iterator[Rule]:
    yield (
        data.video is not None and (data.name is not None or data.root is not None),
        "data.video stands for data.name=video and data.root; give either it or those two.",
    )
    yield (
        len(data.size) != 2 or min(data.size) < 1,
        f"data.size must be [height, width] in pixels, both at least 1, got {list(data.size)}.",
    )
    yield not 0 <= data.hflip <= 1, f"data.hflip is a probability from 0 to 1, got {data.hflip}."
    yield (
        len(data.crop_scale) != 2 or not 0 < data.crop_scale[0] <= data.crop_scale[-1] <= 1,
        f"data.crop_scale must be [smallest, largest] with 0 < smallest <= largest <= 1, got {data.crop_scale}.",
    )
    yield (
        data.crop_pixels and list(data.crop_scale) != [1, 1],
        "data.crop_pixels cuts patches of data.size, data.crop_scale cuts shares of the image: set one of them.",
    )
    yield not 0 <= data.colour_jitter < 1, f"data.colour_jitter must be in [0, 1), got {data.colour_jitter}."
    for key in ("subset_size", "subset_seed", "num_workers"):
        yield _at_least(f"data.{key}", getattr(data, key), 0)


def _pretext_rules(task: str, pretext: PretextOptions, data: DataOptions) -> Iterator[Rule]:
    yield _one_of("pretext.supervision", pretext.supervision, SUPERVISIONS)
    yield (
        task != "depth" and pretext.supervision != "labels",
        f"pretext.supervision={pretext.supervision} is for task depth; task {task} leaves it at labels.",
    )
    yield (
        not pretext.source_frames or 0 in pretext.source_frames,
        f"pretext.source_frames must name neighbours such as [-1, 1], never 0, got {list(pretext.source_frames)}.",
    )
    yield _one_of("pretext.pose_network", pretext.pose_network, POSE_NETWORKS)
    yield _one_of("pretext.intrinsics", pretext.intrinsics, INTRINSICS)
    learned = pretext.intrinsics != "given"
    yield (
        learned and pretext.supervision != "mono",
        f"pretext.intrinsics={pretext.intrinsics} learns a focal length from a camera that turns: it needs "
        "pretext.supervision=mono.",
    )
    yield (
        pretext.align and task != "flow" and not pretext.supervision.startswith("mono"),
        f"pretext.align aligns frames of a video, and task {task} with pretext.supervision={pretext.supervision} has "
        "none: leave it off, or use task flow, or mono or mono_stereo depth.",
    )
    yield (
        learned and (data.crop_pixels or list(data.crop_scale) != [1, 1]),
        f"pretext.intrinsics={pretext.intrinsics} takes the picture's centre for the camera's, which crops move: "
        "leave data.crop_scale at [1, 1] and data.crop_pixels at false.",
    )
    yield not 0 <= pretext.ssim_weight <= 1, f"pretext.ssim_weight lies in [0, 1], got {pretext.ssim_weight}."
    yield _not_negative("pretext.smoothness_weight", pretext.smoothness_weight or 0.0)
    yield _not_negative("pretext.scale_consistency_weight", pretext.scale_consistency_weight)
    share = list(pretext.hole_share)
    yield (
        len(share) != 2 or not 0 <= share[0] <= share[-1] <= 1 or share[-1] == 0,
        f"pretext.hole_share must be [least, most] with 0 <= least <= most <= 1 and most above 0, got {share}.",
    )
    yield _at_least("pretext.hole_size", pretext.hole_size, 1)
    yield _one_of("pretext.scale_weights", pretext.scale_weights, ("fine", "reversed"))


def _optim_rules(optim: OptimOptions) -> Iterator[Rule]:
    yield _one_of("optim.name", optim.name, OPTIMISERS)
    yield _positive("optim.lr", optim.lr)
    for key in ("encoder_lr_factor", "weight_decay", "momentum", "max_grad_norm"):
        yield _not_negative(f"optim.{key}", getattr(optim, key))
    yield (
        not 0 < optim.layer_decay <= 1,
        f"optim.layer_decay must be above 0 and at most 1 (1 = off), got {optim.layer_decay}.",
    )
    yield (
        len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas),
        f"optim.betas must be two numbers in [0, 1), got {list(optim.betas)}.",
    )
    for key in ("batch_size", "accumulation_steps"):
        yield _at_least(f"optim.{key}", getattr(optim, key), 1)


def _run_rules(run: RunOptions) -> Iterator[Rule]:
    yield _one_of("run.precision", run.precision, PRECISIONS)
    yield _one_of("run.select", run.select, ("best", "last"))
    for key in ("seed", "eval_every", "checkpoint_every"):
        yield _at_least(f"run.{key}", getattr(run, key), 0)
    yield _at_least("run.log_every", run.log_every, 1)
    yield not run.output_dir, "run.output_dir must name a directory."
    yield run.resume and run.overwrite, "run.resume and run.overwrite exclude each other: keep the run or remove it."


def _one_of(name: str, value: str, known: Sequence[str]) -> Rule:
    return value not in known, f"{name} must be one of {', '.join(known)}, got {value!r}."


def _at_least(name: str, value: int, least: int) -> Rule:
    return value < least, f"{name} must be a whole number of at least {least}, got {value}."


def _positive(name: str, value: float) -> Rule:
    return not 0 < value < math.inf, f"{name} must be a finite number above 0, got {value}."


def _not_negative(name: str, value: float) -> Rule:
    return not 0 <= value < math.inf, f"{name} must be a finite number of at least 0, got {value}."
