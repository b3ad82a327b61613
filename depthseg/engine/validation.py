"""Problems between the options of a run, as far as they can be found without data, model or device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import DataOptions, ModelOptions, PretextOptions, RunConfig


def find_problems(config: RunConfig) -> list[str]:
    """A sentence for every problem; each value alone is one of those declared."""
    return [
        *_check_model(config.task, config.model),
        *_check_data(config.data),
        *_check_pretext(config.task, config.pretext, config.data),
        *_check_cache(config),
        *_check_run(config),
    ]


def _check_model(task: str, model: ModelOptions) -> Iterator[str]:
    if model.pretrained is None and model.encoder is None:
        yield "model.pretrained and model.encoder are both null: name a checkpoint, or describe the encoder to build."
    if model.freeze_encoder and model.gradient_checkpointing:
        yield (
            "model.gradient_checkpointing spares activations of an encoder that trains; with model.freeze_encoder "
            "there are none. Set one of them to false."
        )
    for name in ("segmentation_loss", "class_weights", "label_smoothing"):
        if task != "segmentation" and getattr(model, name) is not None:
            yield f"model.{name} is for task segmentation; task {task} leaves it at null."
    if model.lora.rank > 0 and model.pretrained is None:
        yield (
            f"model.lora.rank is {model.lora.rank}, but adapters change weights that were trained before, and "
            "model.pretrained is null: name a checkpoint, or set model.lora.rank=0."
        )
    if model.lora.rank > 0 and model.freeze_encoder:
        yield (
            "model.lora.rank trains adapters of the encoder, and model.freeze_encoder trains nothing of it: set one "
            "of them."
        )
    if task == "depth" and model.keep_depth:
        yield "model.keep_depth is for segmentation; a depth network keeps its depth layer anyway."
    if model.depth_weight != 0 and not model.keep_depth:
        yield f"model.depth_weight is {model.depth_weight} but model.keep_depth is false: there is no depth to train."


def _check_data(data: DataOptions) -> Iterator[str]:
    if data.video is not None and (data.name is not None or data.root is not None):
        yield (
            "data.video stands for data.name=video and data.root; give either it or those two "
            "(data.video=null clears that of a recipe)."
        )
    is_scaled = list(data.scale_range) != [1, 1]
    if data.random_crop and list(data.crop_scale) != [1, 1]:
        yield (
            "data.random_crop crops patches of data.size, data.crop_scale crops fractions of the image: set one of "
            "them."
        )
    if not data.random_crop and is_scaled:
        yield (
            "data.scale_range resizes images before data.random_crop: set data.random_crop=true, or use "
            "data.crop_scale."
        )
    if data.shortest_edges and (not data.random_crop or is_scaled):
        yield (
            "data.shortest_edges resizes images before data.random_crop, in place of data.scale_range: set "
            "data.random_crop=true and leave data.scale_range at [1, 1]."
        )
    if data.longest_edge != 0 and not data.shortest_edges:
        yield (
            f"data.longest_edge is {data.longest_edge} but data.shortest_edges is empty: it limits what those resize "
            "to."
        )


def _check_pretext(task: str, pretext: PretextOptions, data: DataOptions) -> Iterator[str]:
    if task != "depth" and pretext.supervision != "labels":
        yield f"pretext.supervision={pretext.supervision} is for task depth; task {task} leaves it at labels."
    is_trained = pretext.intrinsics != "given"
    if is_trained and pretext.supervision != "mono":
        yield (
            f"pretext.intrinsics={pretext.intrinsics} estimates the focal length from the rotation of the camera: it "
            "needs pretext.supervision=mono."
        )
    if pretext.derotate and task != "flow" and not pretext.supervision.startswith("mono"):
        yield (
            f"pretext.derotate removes the rotation between frames of a video, and task {task} with "
            f"pretext.supervision={pretext.supervision} has none: leave it off, or use task flow, or mono or "
            "mono_stereo depth."
        )
    if is_trained and (data.random_crop or list(data.crop_scale) != [1, 1]):
        yield (
            f"pretext.intrinsics={pretext.intrinsics} takes the image's centre for the camera's, which crops move: "
            "leave data.crop_scale at [1, 1] and data.random_crop at false."
        )


def _check_cache(config: RunConfig) -> Iterator[str]:
    data = config.data
    from_labels = config.task in ("segmentation", "classification") or (
        config.task == "depth" and config.pretext.supervision == "labels"
    )
    if data.label_stride > 1 and not (from_labels and config.task != "classification"):
        yield (
            f"data.label_stride={data.label_stride} is for label and depth maps, which task {config.task} "
            "does not train on here: leave it at 1."
        )
    if not data.cache_features:
        return
    if not config.model.freeze_encoder:
        yield (
            "data.cache_features keeps the features of an encoder that does not change: set "
            "model.freeze_encoder=true, which fixes its weights and norm statistics, or data.cache_features=false."
        )
    if config.run.pure_bf16:
        yield (
            "data.cache_features shares the features of a frozen encoder between runs, as it computes them without "
            "run.pure_bf16: set one of them to false."
        )
    if not from_labels:
        yield (
            "data.cache_features is for training on labels or measured depth; self-supervised depth, flow and "
            "inpainting compare images with each other or with holes in them: set data.cache_features=false."
        )
    changes = data.random_crop or list(data.crop_scale) != [1, 1] or data.colour_jitter
    if changes and not data.augmented_copies:
        yield (
            "data.cache_features cannot keep an endless number of crops and colours, and features of a crop are not a "
            "crop of features: say how many copies of each image are kept, such as data.augmented_copies=8, or set "
            "data.random_crop=false data.crop_scale=[1,1] data.colour_jitter=0."
        )


def _check_run(config: RunConfig) -> Iterator[str]:
    schedule, run = config.schedule, config.run
    if schedule.warmup_steps >= schedule.steps:
        yield (
            f"schedule.warmup_steps must be below schedule.steps ({schedule.steps}), "
            f"got {schedule.warmup_steps}. For a short trial set schedule.warmup_steps=0 as well."
        )
    if run.pure_bf16 and run.precision != "bf16":
        yield (
            f"run.pure_bf16 goes with run.precision=bf16, got run.precision={run.precision}: set that, or "
            "run.pure_bf16=false."
        )
    if run.pure_bf16 and config.model.gradient_checkpointing:
        yield (
            "run.pure_bf16 makes its bf16 weights for one forward pass, and model.gradient_checkpointing computes "
            "parts of it again later: set one of them to false."
        )
    if run.resume and run.overwrite:
        yield "run.resume and run.overwrite exclude each other: keep the run or remove it."
