"""Rules between the options of a run, as far as they can be told without data, model or device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import DataOptions, ModelOptions, PretextOptions, RunConfig

Rule = tuple[bool, str]
"""Whether it is broken, and the sentence that says so."""


def broken_rules(config: RunConfig) -> list[str]:
    """The sentence of every rule that the options break; each value by itself is one of those declared."""
    schedule, run = config.schedule, config.run
    rules = [
        *_model_rules(config.task, config.model),
        *_data_rules(config.data),
        *_pretext_rules(config.task, config.pretext, config.data),
        (
            schedule.warmup_steps >= schedule.steps,
            f"schedule.warmup_steps must be below schedule.steps ({schedule.steps}), "
            f"got {schedule.warmup_steps}. For a short trial set schedule.warmup_steps=0 as well.",
        ),
        (run.resume and run.overwrite, "run.resume and run.overwrite exclude each other: keep the run or remove it."),
    ]
    return [sentence for broken, sentence in rules if broken]


def _model_rules(task: str, model: ModelOptions) -> Iterator[Rule]:
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


def _data_rules(data: DataOptions) -> Iterator[Rule]:
    yield (
        data.video is not None and (data.name is not None or data.root is not None),
        "data.video stands for data.name=video and data.root; give either it or those two.",
    )
    yield (
        data.crop_pixels and list(data.crop_scale) != [1, 1],
        "data.crop_pixels cuts patches of data.size, data.crop_scale cuts shares of the image: set one of them.",
    )


def _pretext_rules(task: str, pretext: PretextOptions, data: DataOptions) -> Iterator[Rule]:
    yield (
        task != "depth" and pretext.supervision != "labels",
        f"pretext.supervision={pretext.supervision} is for task depth; task {task} leaves it at labels.",
    )
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
