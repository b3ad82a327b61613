"""ResNets with torchvision's names: its classifiers and segmentation networks, MoCo and DINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..data.label_spaces import LABEL_SPACES
from .converted import ENCODER, IMAGENET, Converted, ConvertOptions, Rule, count, need, prefixed, rename
from .reading import Source

DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
}
"""Blocks of the four stages, and whether they are bottlenecks -> layers of the ResNet."""

TRUNK_RULES = (
    Rule(r"((?:conv1|bn1)\.\w+)", (r"\1",)),
    Rule(r"(layer[1-4]\.\d+\.(?:(?:conv|bn)[123]|downsample\.[01])\.\w+)", (r"\1",)),
)
"""The names of `depthseg_resnet` are torchvision's."""

PROJECTION = "projection of the pre-training, for its own loss"


def resnet_config(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """Return the `encoder_config` of a ResNet from the names and shapes of its tensors.

    Args:
        tensors: Of the file.
        prefix: Of the ResNet's names.

    Raises:
        ValueError: If it is another ResNet than those of 18, 34, 50 and 101 layers, or is incomplete.
    """
    stem = need(tensors, f"{prefix}conv1.weight")
    blocks = tuple(count(tensors, rf"{prefix}layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    if (blocks, bottleneck) not in DEPTHS:
        raise ValueError(
            f"The file contains a ResNet of {' + '.join(map(str, blocks))} {'bottleneck' if bottleneck else 'basic'} "
            "blocks; those of 18, 34, 50 and 101 layers are supported."
        )
    width = stem.shape[0]
    inner = need(tensors, f"{prefix}layer1.0.conv2.weight").shape
    if stem.ndim != 4 or stem.shape[1:] != (3, 7, 7) or tuple(inner) != (width, width, 3, 3):
        raise ValueError(
            f"{prefix}conv1.weight has the shape {tuple(stem.shape)} and {prefix}layer1.0.conv2.weight "
            f"{tuple(inner)}: a ResNet of another kind (wide, grouped, with another stem or for other images); plain "
            "ones for RGB images are supported."
        )
    return {
        "model_type": "depthseg_resnet",
        "depth": DEPTHS[blocks, bottleneck],
        "width_factor": width / 64,
        "output_stride": 32,
    }


def has_resnet(tensors: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Whether the names of a ResNet are among those of a file."""
    return {f"{prefix}conv1.weight", f"{prefix}bn1.weight", f"{prefix}layer4.0.conv1.weight"} <= tensors.keys()


def counters(tensors: Mapping[str, Any]) -> dict[str, str]:
    """Return the counters of batches that files of early versions of PyTorch lack; for `filled` of [`Converted`]."""
    norms = [name.removesuffix("running_var") for name in tensors if name.endswith(".running_var")]
    why = "files of early versions of PyTorch do not count the batches of norms"
    return {f"{norm}num_batches_tracked": why for norm in norms if f"{norm}num_batches_tracked" not in tensors}


def recognises_resnet(source: Source) -> bool:
    """Whether the file is a ResNet with torchvision's names, and not called DINO."""
    return source.is_single and has_resnet(source.tensors) and not is_called_dino(source)


def convert_resnet(source: Source, options: ConvertOptions) -> Converted:
    """Convert torchvision's ResNet: a classifier, or a bare encoder if the last layer is missing."""
    encoder = resnet_config(source.tensors)
    if "fc.weight" not in source.tensors:
        return bare_resnet(source)
    rules = [*prefixed(TRUNK_RULES, "", "encoder.backbone."), Rule(r"fc\.(weight|bias)", (r"pretext_head.\1",))]
    tensors, left_out = rename(source, rules)
    config = {"encoder_config": encoder, "num_labels": source.tensors["fc.weight"].shape[0]}
    return Converted("DepthSegForImageClassification", config, tensors, IMAGENET, left_out, counters(tensors))


def bare_resnet(source: Source, prefix: str = "", others: tuple[Rule, ...] = (), output_stride: int = 32) -> Converted:
    """Convert a ResNet without its last layers to a bare encoder.

    Args:
        source: The file.
        prefix: Of the ResNet's names.
        others: Rules of the tensors that do not belong to it.
        output_stride: Input pixels per cell of the deepest map.
    """
    config = resnet_config(source.tensors, prefix) | {"output_stride": output_stride}
    tensors, left_out = rename(
        source,
        [*prefixed(TRUNK_RULES, prefix, ""), *prefixed([Rule(r"fc\..*", reason=PROJECTION)], prefix, ""), *others],
    )
    return Converted(ENCODER, config, tensors, IMAGENET, left_out, counters(tensors))


def recognises_moco(source: Source) -> bool:
    """Whether the file has MoCo's query encoder, a ResNet."""
    return has_resnet(source.tensors, "encoder_q.")


def convert_moco(source: Source, options: ConvertOptions) -> Converted:
    """Convert the query encoder of MoCo, of a whole checkpoint or alone."""
    others = (
        Rule(r"encoder_k\..*", reason="key encoder, a moving average of the query encoder"),
        Rule("queue|queue_ptr", reason="keys of the last batches, for the loss of the pre-training"),
    )
    return bare_resnet(source, "encoder_q." if recognises_moco(source) else "", others)


def is_called_dino(source: Source) -> bool:
    """Whether the file is called DINO and has no class scores; nothing else tells its bare ResNet from others."""
    return "dino" in source.stem.lower() and "fc.weight" not in source.tensors


def recognises_dino_resnet(source: Source) -> bool:
    """Whether the file is DINO's ResNet-50: the bare network, or the teacher of a whole checkpoint."""
    if has_resnet(source.tensors, "backbone."):
        return any(name.startswith("head.") for name in source.tensors)
    bare = has_resnet(source.tensors) and not any(name.startswith("fc.") for name in source.tensors)
    return source.is_single and bare and resnet_config(source.tensors)["depth"] == 50


def convert_dino_resnet(source: Source, options: ConvertOptions) -> Converted:
    """Convert DINO's ResNet."""
    prefix = "backbone." if has_resnet(source.tensors, "backbone.") else ""
    return bare_resnet(source, prefix, (Rule(r"head\..*", reason=PROJECTION),))


def recognises_fcn(source: Source) -> bool:
    """Whether the file is torchvision's FCN on a ResNet."""
    return has_resnet(source.tensors, "backbone.") and "classifier.4.weight" in source.tensors and not has_aspp(source)


def recognises_deeplab(source: Source) -> bool:
    """Whether the file is torchvision's DeepLabV3 on a ResNet."""
    return has_resnet(source.tensors, "backbone.") and has_aspp(source)


def has_aspp(source: Source) -> bool:
    """Whether the file has the pyramid of dilated convolutions of torchvision's DeepLabV3."""
    return "classifier.0.project.0.weight" in source.tensors


AUXILIARY = Rule(
    r"aux_classifier\..*", reason="auxiliary classifier, which only the training of the published code uses"
)


def convert_fcn(source: Source, options: ConvertOptions) -> Converted:
    """Convert torchvision's FCN with its class scores; its architecture is that of the head `fcn`."""
    encoder = resnet_config(source.tensors, "backbone.") | {"output_stride": 8}
    scores = need(source.tensors, "classifier.4.weight")
    rules = [
        *prefixed(TRUNK_RULES, "backbone.", "encoder.backbone."),
        Rule(r"classifier\.([01])\.(\w+)", (r"head.convs.0.\1.\2",)),
        Rule(r"classifier\.4\.(weight|bias)", (r"classifier.\1",)),
        AUXILIARY,
    ]
    tensors, left_out = rename(source, rules)
    config: dict[str, Any] = {
        "encoder_config": encoder,
        "head_type": "fcn",
        "head_config": {"channels": scores.shape[1], "num_convs": 1, "concat_input": False},
    }
    config |= name_classes(scores.shape[0], "voc21")
    return Converted("DepthSegForSemanticSegmentation", config, tensors, IMAGENET, left_out, counters(tensors))


def name_classes(number: int, label_space: str) -> dict[str, Any]:
    """Return the options of the classes: by name if there are as many as in a label space, otherwise by number."""
    names = LABEL_SPACES[label_space].classes
    return {"id2label": dict(enumerate(names))} if number == len(names) else {"num_labels": number}


def convert_deeplab(source: Source, options: ConvertOptions) -> Converted:
    """Convert the encoder of torchvision's DeepLabV3, at its stride of 8."""
    why = (
        "torchvision's DeepLabV3 has a 3x3 convolution between its pyramid and its classifier, which the head "
        "deeplabv3 (the papers' form) does not have; the encoder is what transfers"
    )
    return bare_resnet(source, "backbone.", (Rule(r"classifier\..*", reason=why), AUXILIARY), output_stride=8)
