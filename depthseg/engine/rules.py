"""What the options of a run must fulfil, as far as it can be told without data, model or device."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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
HEAD_INITS = ("pretrained", "random")
SCALE_WEIGHTS = ("fine", "reversed")
SELECTS = ("best", "last")

_POSITIVE = "a finite number above 0"
_NOT_NEGATIVE = "a finite number of at least 0"


def _at_least(least: int, zero: str = "") -> str:
    return f"a whole number of at least {least}" + (f" (0 = {zero})" if zero else "")


ALLOWED = {
    "task": f"one of {', '.join(TASKS)}",
    "model.head_init": f"one of {', '.join(HEAD_INITS)}",
    "model.depth_weight": _NOT_NEGATIVE,
    "model.min_depth": _POSITIVE,
    "data.size": "[height, width] in pixels, both at least 1",
    "data.hflip": "a probability from 0 to 1",
    "data.crop_scale": "[smallest, largest] with 0 < smallest <= largest <= 1",
    "data.colour_jitter": "a number in [0, 1)",
    "data.subset_size": _at_least(0, "all images"),
    "data.subset_seed": _at_least(0),
    "data.num_workers": _at_least(0),
    "pretext.supervision": f"one of {', '.join(SUPERVISIONS)}",
    "pretext.source_frames": "neighbours such as [-1, 1], never 0",
    "pretext.pose_network": f"one of {', '.join(POSE_NETWORKS)}",
    "pretext.intrinsics": f"one of {', '.join(INTRINSICS)}",
    "pretext.ssim_weight": "a number in [0, 1]",
    "pretext.smoothness_weight": _NOT_NEGATIVE,
    "pretext.scale_consistency_weight": _NOT_NEGATIVE,
    "pretext.hole_share": "[least, most] with 0 <= least <= most <= 1 and most above 0",
    "pretext.hole_size": _at_least(1),
    "pretext.scale_weights": f"one of {', '.join(SCALE_WEIGHTS)}",
    "optim.name": f"one of {', '.join(OPTIMISERS)}",
    "optim.lr": _POSITIVE,
    "optim.encoder_lr_factor": _NOT_NEGATIVE,
    "optim.layer_decay": "above 0 and at most 1 (1 = off)",
    "optim.weight_decay": _NOT_NEGATIVE,
    "optim.betas": "two numbers in [0, 1)",
    "optim.momentum": _NOT_NEGATIVE,
    "optim.batch_size": _at_least(1),
    "optim.accumulation_steps": _at_least(1),
    "optim.max_grad_norm": _NOT_NEGATIVE,
    "schedule.name": f"one of {', '.join(SCHEDULES)}",
    "schedule.steps": _at_least(1),
    "schedule.power": _POSITIVE,
    "run.seed": _at_least(0),
    "run.precision": f"one of {', '.join(PRECISIONS)}",
    "run.eval_every": _at_least(0, "after the last step alone"),
    "run.log_every": _at_least(1),
    "run.checkpoint_every": _at_least(0, "after the last step alone"),
    "run.select": f"one of {', '.join(SELECTS)}",
}
"""Options that may have some values of their type alone -> those values, in words."""

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
        _whole("schedule.steps", schedule.steps, 1),
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
    yield _one_of("model.head_init", model.head_init, HEAD_INITS)
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
    size, crop = list(data.size), list(data.crop_scale)
    yield _must("data.size", size, len(size) == 2 and min(size) >= 1)
    yield _must("data.hflip", data.hflip, 0 <= data.hflip <= 1)
    yield _must("data.crop_scale", crop, len(crop) == 2 and 0 < crop[0] <= crop[-1] <= 1)
    yield (
        data.crop_pixels and crop != [1, 1],
        "data.crop_pixels cuts patches of data.size, data.crop_scale cuts shares of the image: set one of them.",
    )
    yield _must("data.colour_jitter", data.colour_jitter, 0 <= data.colour_jitter < 1)
    for key in ("subset_size", "subset_seed", "num_workers"):
        yield _whole(f"data.{key}", getattr(data, key), 0)


def _pretext_rules(task: str, pretext: PretextOptions, data: DataOptions) -> Iterator[Rule]:
    yield _one_of("pretext.supervision", pretext.supervision, SUPERVISIONS)
    yield (
        task != "depth" and pretext.supervision != "labels",
        f"pretext.supervision={pretext.supervision} is for task depth; task {task} leaves it at labels.",
    )
    frames, share = list(pretext.source_frames), list(pretext.hole_share)
    yield _must("pretext.source_frames", frames, bool(frames) and 0 not in frames)
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
        f"pretext.intrinsics={pretext.intrinsics} takes the image's centre for the camera's, which crops move: "
        "leave data.crop_scale at [1, 1] and data.crop_pixels at false.",
    )
    yield _must("pretext.ssim_weight", pretext.ssim_weight, 0 <= pretext.ssim_weight <= 1)
    yield _not_negative("pretext.smoothness_weight", pretext.smoothness_weight or 0.0)
    yield _not_negative("pretext.scale_consistency_weight", pretext.scale_consistency_weight)
    yield _must("pretext.hole_share", share, len(share) == 2 and 0 <= share[0] <= share[-1] <= 1 and share[-1] > 0)
    yield _whole("pretext.hole_size", pretext.hole_size, 1)
    yield _one_of("pretext.scale_weights", pretext.scale_weights, SCALE_WEIGHTS)


def _optim_rules(optim: OptimOptions) -> Iterator[Rule]:
    yield _one_of("optim.name", optim.name, OPTIMISERS)
    yield _positive("optim.lr", optim.lr)
    for key in ("encoder_lr_factor", "weight_decay", "momentum", "max_grad_norm"):
        yield _not_negative(f"optim.{key}", getattr(optim, key))
    yield _must("optim.layer_decay", optim.layer_decay, 0 < optim.layer_decay <= 1)
    betas = list(optim.betas)
    yield _must("optim.betas", betas, len(betas) == 2 and all(0 <= beta < 1 for beta in betas))
    for key in ("batch_size", "accumulation_steps"):
        yield _whole(f"optim.{key}", getattr(optim, key), 1)


def _run_rules(run: RunOptions) -> Iterator[Rule]:
    yield _one_of("run.precision", run.precision, PRECISIONS)
    yield _one_of("run.select", run.select, SELECTS)
    for key in ("seed", "eval_every", "checkpoint_every"):
        yield _whole(f"run.{key}", getattr(run, key), 0)
    yield _whole("run.log_every", run.log_every, 1)
    yield not run.output_dir, "run.output_dir must name a directory."
    yield run.resume and run.overwrite, "run.resume and run.overwrite exclude each other: keep the run or remove it."


def _must(option: str, value: Any, holds: bool) -> Rule:
    return not holds, f"{option} must be {ALLOWED[option]}, got {value!r}."


def _one_of(option: str, value: str, known: Sequence[str]) -> Rule:
    return _must(option, value, value in known)


def _whole(option: str, value: int, least: int) -> Rule:
    return _must(option, value, value >= least)


def _positive(option: str, value: float) -> Rule:
    return _must(option, value, 0 < value < math.inf)


def _not_negative(option: str, value: float) -> Rule:
    return _must(option, value, 0 <= value < math.inf)
