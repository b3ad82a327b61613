"""From the options of a run to its data, model and image processor."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import PreTrainedConfig

from ..data import load_dataset
from ..data.subsets import few_shot_subset
from ..data.value_range import find_value_range, given_value_range
from ..models import DEPTH_FAMILIES, ENCODERS, DepthSegConfig, DepthSegImageProcessor, check_input_scaling
from ..models.configuration_depthseg import OWN_OPTIONS
from ..models.image_inputs_depthseg import check_value_range
from ..models.losses_depthseg import LOSS_OF_DEPTH
from ..pretext import start_far
from .compiling import compile_parts
from .download import check_available
from .lora import add_adapters, holds_adapters
from .pure_bf16 import compute_in_bf16
from .tasks import is_self_supervised, task_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from ..data import Sample, SampleDataset
    from .options import DataOptions, ModelOptions, RunConfig

logger = logging.getLogger(__name__)


def source_of(data: DataOptions) -> tuple[str | None, str | None]:
    """Name and root of the data set."""
    return (data.name, data.root) if data.video is None else ("video", data.video)


def build_datasets(
    data: DataOptions, train_set: SampleDataset | None = None, val_set: SampleDataset | None = None
) -> tuple[SampleDataset, SampleDataset]:
    """Open what to train on (cut to the few-shot subset) and what to score on.

    Args:
        data: The `data` section.
        train_set: Used in place of `data.name` and `data.train_split`.
        val_set: Used in place of `data.name` and `data.val_split`.

    Raises:
        ValueError: Neither a data set nor its name and root; options that the data set does not take.
        FileNotFoundError: Missing data.
    """
    name, root = source_of(data)
    if None in (train_set, val_set) and None in (name, root):
        raise ValueError(
            "data.name and data.root must say what to train and evaluate on, such as data.name=camvid "
            "data.root=/path/to/camvid, or data.video=clip.mp4; from Python, pass train_set and val_set instead."
        )
    if train_set is None:
        train_set = load_dataset(name, root, data.train_split, **{**data.options, **data.train_options})
    if val_set is None:
        val_set = load_dataset(name, root, data.val_split, **{**data.options, **data.val_options})
    if data.subset_size:
        train_set = few_shot_subset(train_set, data.subset_size, data.subset_seed)
    return train_set, val_set


def model_config(options: ModelOptions, labels: Mapping[str, Any] | None = None) -> DepthSegConfig:
    """Describe a network with random weights.

    Args:
        options: The `model` section.
        labels: The classes, as arguments of `DepthSegConfig`.

    Raises:
        ValueError: The options describe no network.
    """
    with _sentences():
        return DepthSegConfig(encoder_config=options.encoder, **_changes(options), **(labels or {}))


def build_model(config: RunConfig, train_set: SampleDataset) -> tuple[nn.Module, Any]:
    """Make the model of a run, from a checkpoint or with new weights, and its image processor.

    Args:
        config: The options.
        train_set: Names the classes to segment or to tell apart; not read for other tasks.

    Returns:
        The model (encoder frozen where the options say so) and the processor at the training size.

    Raises:
        ValueError: Options that describe no network, segmentation or classification without classes, a checkpoint that
            is no depth model, or images that would be normalised twice.
        FileNotFoundError: The checkpoint has no image processor.
    """
    options, labels = config.model, task_of(config).model_options(config, train_set)
    # Patches are cut, never resized, so that whole images are to be seen as they are, too.
    height, width = train_set[0].image.shape[:2] if config.data.random_crop else config.data.size
    size = {"height": height, "width": width}
    if options.pretrained is None:
        model = task_of(config).model_class(model_config(options, labels))
        processor = DepthSegImageProcessor(size=size)
    else:
        with _sentences():
            model = _start_model(config, _changes(options) | labels)
        _warn_of_dropped_head(model, options)
        processor = _load_processor(options, size)
    if is_self_supervised(config) and _is_new(model, "depth_predictor"):
        start_far(model)
    check_input_scaling(model.config, processor)
    if options.freeze_encoder:
        model.freeze_encoder()
    if options.lora.rank:
        add_adapters(model, options.lora)
    if options.gradient_checkpointing:
        # The first name came with transformers 5.23, the second one goes with version 6.
        new_name = hasattr(model, "activation_checkpointing_enable")
        (model.activation_checkpointing_enable if new_name else model.gradient_checkpointing_enable)()
    if options.compile:
        compile_parts(model)
    if config.run.pure_bf16:
        compute_in_bf16(model)
    return model, processor


def set_value_range(processor: DepthSegImageProcessor, train_set: SampleDataset, first: Sample) -> None:
    """Tell the processor of a run which pixel values of its training images are black and white.

    The option `value_range` of the data set comes first, then the range of the checkpoint, then what is found in
    images of more than 8 bits. Nothing changes for images of 8 bits.

    Args:
        processor: Changed in place.
        train_set: The training set.
        first: Its first sample, which says whether its images have more than 8 bits.

    Raises:
        ValueError: A range that is not valid, or floating-point images without one.
    """
    given, kept = given_value_range(train_set), processor.value_range
    if given is not None:
        processor.value_range = check_value_range(given)
        if kept not in (None, processor.value_range):
            logger.warning(
                "The checkpoint was trained with value_range=%s; this run takes %s, as its data set says.",
                *(kept, processor.value_range),
            )
        if processor.value_range[1] > 255 and first.image.dtype == np.uint8:
            logger.warning(
                "value_range=%s has no effect on images of 8 bits, such as %r; leave the option out.",
                *(processor.value_range, first.name),
            )
        return
    if kept is None:
        processor.value_range = find_value_range(train_set, first)
        return
    # The range of the checkpoint stays, so floats need no other.
    found = None if first.image.dtype.kind == "f" else find_value_range(train_set, first)
    if found not in (None, kept):
        logger.warning(
            "The images look like value_range=%s, but the checkpoint was trained with %s, which stays; set "
            "data.options.value_range to change it.",
            *(found, kept),
        )


@contextmanager
def _sentences() -> Iterator[None]:
    """Tell what a configuration refuses as a mistake in the options of a run."""
    try:
        yield
    except StrictDataclassError as error:
        raise ValueError(f"The options of `model` describe no network: {error.__cause__ or error}") from error


def _changes(options: ModelOptions) -> dict[str, Any]:
    """What the options say of `DepthSegConfig`, which checks it; what is null is the checkpoint's or the default."""
    passed_on = {name: value for name, value in vars(options).items() if name in OWN_OPTIONS and value is not None}
    for name in ("keep_depth", "class_weights"):  # for segmentation alone, see `Task.model_options`
        passed_on.pop(name, None)
    return passed_on


def _is_new(model: nn.Module, part: str) -> bool:
    """Whether a part of a model that was just built or loaded has random weights."""
    report = model.transfer_report
    return report is None or any(entry.part == part and entry.status == "new" for entry in report.parts)


def _start_model(config: RunConfig, changes: dict[str, Any]) -> nn.Module:
    """The model of a run that is initialised from a depth network, of depthseg or transformers, or a bare encoder."""
    options, model_class = config.model, task_of(config).model_class
    check_available(options.pretrained, options.revision)
    if holds_adapters(options.pretrained, options.revision):
        raise ValueError(
            f"model.pretrained={options.pretrained} holds adapters, not a whole model. Merge them first: "
            f"`model, processor = depthseg.engine.predict.load_model({options.pretrained!r})`, then save both with "
            "save_pretrained."
        )
    values, _ = PreTrainedConfig.get_config_dict(options.pretrained, revision=options.revision)
    # In float32 whatever the file holds: small updates vanish in bfloat16 weights.
    arguments = {"revision": options.revision, "dtype": torch.float32} | changes
    if values.get("model_type") in ENCODERS.keys() - DEPTH_FAMILIES.keys():
        chosen = _circumstances(options, values["model_type"], "out_indices", "out_features", "output_stride")
        return model_class.from_encoder_pretrained(options.pretrained, encoder_options=chosen, **arguments)
    encoder = values.get("encoder_config") or {}
    if dilated := _circumstances(options, encoder.get("model_type"), "output_stride"):
        arguments["encoder_config"] = encoder | dilated
    model = model_class.from_depth_pretrained(options.pretrained, head_init=options.head_init, **arguments)
    if config.task == "depth" and values.get("model_type") in DEPTH_FAMILIES and options.depth_loss is None:
        model.config.depth_loss = LOSS_OF_DEPTH.get(model.config.depth_type, model.config.depth_loss)
    return model


def _circumstances(options: ModelOptions, model_type: str | None, *names: str) -> dict[str, Any]:
    """What the options of an encoder say that the weights of a checkpoint with such an encoder do not depend on."""
    if options.encoder is None or options.encoder.get("model_type") != model_type:
        return {}
    return {name: options.encoder[name] for name in names if name in options.encoder}


def _warn_of_dropped_head(model: nn.Module, options: ModelOptions) -> None:
    """Log what to change where the options describe another decoder than that of the checkpoint."""
    report = model.transfer_report
    dropped = [part for part in report.parts if (part.part, part.status) == ("head", "left over")] if report else []
    if dropped and options.head_init == "pretrained":
        logger.warning(
            "The decoder of %s is not transferred (%s). To keep it, set model.head_type=null model.head_config=null; "
            "if a new decoder is intended, model.head_init=random says so.",
            *(options.pretrained, dropped[0].why),
        )


def _load_processor(options: ModelOptions, size: dict[str, int]) -> DepthSegImageProcessor:
    """The processor of a checkpoint, or of a depth model of transformers, at the size and filter of the training."""
    try:
        return DepthSegImageProcessor.from_pretrained(
            options.pretrained, revision=options.revision, size=size, resample=Image.Resampling.BILINEAR
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{options.pretrained} has a model but no preprocessor_config.json, so it is not known how its images are "
            "normalised; save its image processor into the same folder."
        ) from error
