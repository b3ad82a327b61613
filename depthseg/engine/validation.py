"""Problems between the options of a run, as far as they can be found without data, model or device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .options import DataOptions, ModelOptions, PretextOptions, RunConfig

Check = tuple[bool, str]
"""Whether there is a problem, and the sentence that says so."""


def find_problems(config: RunConfig) -> list[str]:
    """A sentence for every problem; each value alone is one of those declared."""
    schedule, run = config.schedule, config.run
    checks = [
        *_check_model(config.task, config.model),
        *_check_data(config.data),
        *_check_pretext(config.task, config.pretext, config.data),
        *_check_cache(config),
        (
            schedule.warmup_steps >= schedule.steps,
            f"schedule.warmup_steps must be below schedule.steps ({schedule.steps}), "
            f"got {schedule.warmup_steps}. For a short trial set schedule.warmup_steps=0 as well.",
        ),
        (
            run.pure_bf16 and run.precision != "bf16",
            f"run.pure_bf16 goes with run.precision=bf16, got run.precision={run.precision}: set that, or "
            "run.pure_bf16=false.",
        ),
        (
            run.pure_bf16 and config.model.gradient_checkpointing,
            "run.pure_bf16 makes its bf16 weights for one forward pass, and model.gradient_checkpointing computes "
            "parts of it again later: set one of them to false.",
        ),
        (run.resume and run.overwrite, "run.resume and run.overwrite exclude each other: keep the run or remove it."),
    ]
    return [sentence for is_wrong, sentence in checks if is_wrong]


def _check_model(task: str, model: ModelOptions) -> Iterator[Check]:
    yield (
        model.pretrained is None and model.encoder is None,
        "model.pretrained and model.encoder are both null: name a checkpoint, or describe the encoder to build.",
    )
    yield (
        model.freeze_encoder and model.gradient_checkpointing,
        "model.gradient_checkpointing spares activations of an encoder that trains; with model.freeze_encoder "
        "there are none. Set one of them to false.",
    )
    for name in ("segmentation_loss", "class_weights", "label_smoothing"):
        yield (
            task != "segmentation" and getattr(model, name) is not None,
            f"model.{name} is for task segmentation; task {task} leaves it at null.",
        )
    yield (
        model.lora.rank > 0 and model.pretrained is None,
        f"model.lora.rank is {model.lora.rank}, but adapters change weights that were trained before, and "
        "model.pretrained is null: name a checkpoint, or set model.lora.rank=0.",
    )
    yield (
        model.lora.rank > 0 and model.freeze_encoder,
        "model.lora.rank trains adapters of the encoder, and model.freeze_encoder trains nothing of it: set one of "
        "them.",
    )
    yield (
        task == "depth" and model.keep_depth,
        "model.keep_depth is for segmentation; a depth network keeps its depth layer anyway.",
    )
    yield (
        model.depth_weight != 0 and not model.keep_depth,
        f"model.depth_weight is {model.depth_weight} but model.keep_depth is false: there is no depth to train.",
    )


def _check_data(data: DataOptions) -> Iterator[Check]:
    yield (
        data.video is not None and (data.name is not None or data.root is not None),
        "data.video stands for data.name=video and data.root; give either it or those two "
        "(data.video=null clears that of a recipe).",
    )
    yield (
        data.random_crop and list(data.crop_scale) != [1, 1],
        "data.random_crop crops patches of data.size, data.crop_scale crops fractions of the image: set one of them.",
    )
    yield (
        not data.random_crop and list(data.scale_range) != [1, 1],
        "data.scale_range resizes images before data.random_crop: set data.random_crop=true, or use data.crop_scale.",
    )
    yield (
        bool(data.shortest_edges) and (not data.random_crop or list(data.scale_range) != [1, 1]),
        "data.shortest_edges resizes images before data.random_crop, in place of data.scale_range: set "
        "data.random_crop=true and leave data.scale_range at [1, 1].",
    )
    yield (
        data.longest_edge != 0 and not data.shortest_edges,
        f"data.longest_edge is {data.longest_edge} but data.shortest_edges is empty: it limits what those resize to.",
    )


def _check_pretext(task: str, pretext: PretextOptions, data: DataOptions) -> Iterator[Check]:
    yield (
        task != "depth" and pretext.supervision != "labels",
        f"pretext.supervision={pretext.supervision} is for task depth; task {task} leaves it at labels.",
    )
    is_trained = pretext.intrinsics != "given"
    yield (
        is_trained and pretext.supervision != "mono",
        f"pretext.intrinsics={pretext.intrinsics} estimates the focal length from the rotation of the camera: it "
        "needs pretext.supervision=mono.",
    )
    yield (
        pretext.derotate and task != "flow" and not pretext.supervision.startswith("mono"),
        f"pretext.derotate removes the rotation between frames of a video, and task {task} with "
        f"pretext.supervision={pretext.supervision} has none: leave it off, or use task flow, or mono or mono_stereo "
        "depth.",
    )
    yield (
        is_trained and (data.random_crop or list(data.crop_scale) != [1, 1]),
        f"pretext.intrinsics={pretext.intrinsics} takes the image's centre for the camera's, which crops move: "
        "leave data.crop_scale at [1, 1] and data.random_crop at false.",
    )


def _check_cache(config: RunConfig) -> Iterator[Check]:
    data = config.data
    from_labels = config.task in ("segmentation", "classification") or (
        config.task == "depth" and config.pretext.supervision == "labels"
    )
    yield (
        data.label_stride > 1 and not (from_labels and config.task != "classification"),
        f"data.label_stride={data.label_stride} is for label and depth maps, which task {config.task} "
        "does not train on here: leave it at 1.",
    )
    if not data.cache_features:
        return
    yield (
        not config.model.freeze_encoder,
        "data.cache_features keeps the features of an encoder that does not change: set model.freeze_encoder=true, "
        "which fixes its weights and norm statistics, or data.cache_features=false.",
    )
    yield (
        config.run.pure_bf16,
        "data.cache_features shares the features of a frozen encoder between runs, as it computes them without "
        "run.pure_bf16: set one of them to false.",
    )
    yield (
        not from_labels,
        "data.cache_features is for training on labels or measured depth; self-supervised depth, flow and inpainting "
        "compare images with each other or with holes in them: set data.cache_features=false.",
    )
    changes = data.random_crop or list(data.crop_scale) != [1, 1] or data.colour_jitter
    yield (
        bool(changes) and not data.augmented_copies,
        "data.cache_features cannot keep an endless number of crops and colours, and features of a crop are not a "
        "crop of features: say how many copies of each image are kept, such as data.augmented_copies=8, or set "
        "data.random_crop=false data.crop_scale=[1,1] data.colour_jitter=0.",
    )
