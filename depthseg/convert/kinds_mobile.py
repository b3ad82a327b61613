"""Small image classifiers: torchvision's MobileNetV2 and EfficientNet-Lite."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..models.encoders_efficientnet_depthseg import VARIANTS, DepthSegEfficientNetLiteConfig
from .converted import IMAGENET, Converted, ConvertOptions, Rule, count, need, rename
from .kinds_resnet import counters
from .reading import Source

MOBILENET_BLOCKS = 17
MOBILENET_CHANNELS = 320
"""Channels of the last block at width 1."""

LITE_SCALING = {"image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3}
"""Scaling of images in [0, 1] in the published training: (level - 127) / 128."""

MOBILENET_RULES = (
    Rule(rf"features\.{MOBILENET_BLOCKS + 1}\.([01])\.(\w+)", (r"pretext_head.last_stage.\1.\2",)),
    Rule(r"(features\.\d+\.(?:conv\.)?[\d.]+\w+)", (r"encoder.backbone.\1",)),
    Rule(r"classifier\.1\.(weight|bias)", (r"pretext_head.\1",)),
)
EFFICIENTNET_RULES = (
    Rule(r"_conv_stem\.(\w+)", (r"encoder.backbone.conv_stem.\1",)),
    Rule(r"_bn0\.(\w+)", (r"encoder.backbone.bn0.\1",)),
    Rule(
        r"_blocks\.(\d+)\._((?:expand_conv|depthwise_conv|project_conv|bn[012])\.\w+)",
        (r"encoder.backbone.blocks.\1.\2",),
    ),
    Rule(r"_conv_head\.(\w+)", (r"pretext_head.last_stage.0.\1",)),
    Rule(r"_bn1\.(\w+)", (r"pretext_head.last_stage.1.\1",)),
    Rule(r"_fc\.(weight|bias)", (r"pretext_head.\1",)),
)


def recognises_mobilenet(source: Source) -> bool:
    """Whether the file is torchvision's MobileNetV2: the names of its blocks are those of no other network of it."""
    names = {"features.0.0.weight", "features.1.conv.0.0.weight", f"features.{MOBILENET_BLOCKS + 1}.0.weight"}
    return names <= source.tensors.keys()


def convert_mobilenet(source: Source, options: ConvertOptions) -> Converted:
    """Convert torchvision's MobileNetV2."""
    tensors, left_out = rename(source, MOBILENET_RULES)
    config = {
        "encoder_config": {"model_type": "depthseg_mobilenet_v2", "width_factor": mobilenet_width(source.tensors)},
        "num_labels": need(source.tensors, "classifier.1.weight").shape[0],
    }
    return Converted("DepthSegForImageClassification", config, tensors, IMAGENET, left_out, counters(tensors))


def mobilenet_width(tensors: Mapping[str, Tensor]) -> float:
    """Return the factor of width; channels are multiples of 8, so the widest layer says it most exactly."""
    widest = need(tensors, f"features.{MOBILENET_BLOCKS}.conv.2.weight").shape[0]
    return widest / MOBILENET_CHANNELS


def recognises_efficientnet_lite(source: Source) -> bool:
    """Whether the file is EfficientNet-Lite: the names of EfficientNet, without squeeze and excitation."""
    return "_conv_stem.weight" in source.tensors and "_blocks.0._se_reduce.weight" not in source.tensors


def convert_efficientnet_lite(source: Source, options: ConvertOptions) -> Converted:
    """Convert EfficientNet-Lite."""
    tensors, left_out = rename(source, EFFICIENTNET_RULES)
    config = {
        "encoder_config": {"model_type": "depthseg_efficientnet_lite", "variant": lite_variant(source.tensors)},
        "num_labels": need(source.tensors, "_fc.weight").shape[0],
    }
    return Converted("DepthSegForImageClassification", config, tensors, LITE_SCALING, left_out, counters(tensors))


def lite_variant(tensors: Mapping[str, Tensor]) -> int:
    """Return which EfficientNet-Lite has the number of blocks and the width of a file.

    Raises:
        ValueError: If none has.
    """
    blocks = count(tensors, r"_blocks\.(\d+)\.")
    width = need(tensors, f"_blocks.{blocks - 1}._project_conv.weight").shape[0]
    for variant in VARIANTS:
        stages = DepthSegEfficientNetLiteConfig(variant=variant).stages
        if (sum(stage[2] for stage in stages), stages[-1][1]) == (blocks, width):
            return variant
    raise ValueError(
        f"The file contains an EfficientNet of {blocks} blocks, the last of {width} channels; EfficientNet-Lite "
        f"{', '.join(map(str, VARIANTS))} are supported."
    )
