"""The table of published layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .converted import Converted, ConvertOptions, count_in_words
from .kinds_dpt import (
    convert_depth_anything_1,
    convert_depth_anything_2,
    convert_depth_anything_3,
    convert_dpt,
    recognises_depth_anything_1,
    recognises_depth_anything_2,
    recognises_depth_anything_3,
    recognises_dpt,
)
from .kinds_mobile import (
    convert_efficientnet_lite,
    convert_mobilenet,
    recognises_efficientnet_lite,
    recognises_mobilenet,
)
from .kinds_monodepth2 import (
    convert_depth_to_semantic,
    convert_monodepth2,
    recognises_depth_to_semantic,
    recognises_monodepth2,
)
from .kinds_resnet import (
    convert_deeplab,
    convert_dino_resnet,
    convert_fcn,
    convert_moco,
    convert_resnet,
    recognises_deeplab,
    recognises_dino_resnet,
    recognises_fcn,
    recognises_moco,
    recognises_resnet,
)
from .kinds_vit import (
    convert_dino_vit,
    convert_dinov2,
    convert_dinov3,
    convert_mae,
    recognises_dino_vit,
    recognises_dinov2,
    recognises_dinov3,
    recognises_mae,
)
from .reading import Source


@dataclass(frozen=True)
class Kind:
    """One row of [`KINDS`], read by the command, the tests and the table of the README.

    Args:
        summary (`str`): Which checkpoints it reads.
        paper (`str`): Link of the paper.
        licence (`str`): As published, with what it depends on.
        recognises (`Callable`): From the source to whether it has this layout, by names and shapes of tensors.
        convert (`Callable`): From the source, and the options that a file does not say, to the converted model.
        several (`bool`, *optional*, defaults to `False`): Whether a network is in several files.
    """

    summary: str
    paper: str
    licence: str
    recognises: Callable[[Source], bool]
    convert: Callable[[Source, ConvertOptions], Converted]
    several: bool = False


KINDS: dict[str, Kind] = {
    "monodepth2": Kind(
        "Monodepth2: encoder.pth and depth.pth, with or without pose networks; encoder.pth alone is a bare encoder.",
        "https://huggingface.co/papers/1806.01260",
        "Monodepth2 licence (Niantic): non-commercial use only",
        recognises_monodepth2,
        convert_monodepth2,
        several=True,
    ),
    "depth-to-semantic": Kind(
        "depth-to-semantic: encoder and decoder of depth or labels, and encoders of its other pre-trainings.",
        "https://huggingface.co/papers/2203.13987",
        "none stated; parts of the code are under the Monodepth2 licence: non-commercial use only",
        recognises_depth_to_semantic,
        convert_depth_to_semantic,
        several=True,
    ),
    "torchvision-resnet": Kind(
        "torchvision's ResNet-18/34/50/101: a classifier, or a bare encoder without the last layer.",
        "https://huggingface.co/papers/1512.03385",
        "BSD-3-Clause; trained on ImageNet, whose terms allow non-commercial research",
        recognises_resnet,
        convert_resnet,
    ),
    "torchvision-mobilenet-v2": Kind(
        "torchvision's MobileNetV2, a classifier.",
        "https://huggingface.co/papers/1801.04381",
        "BSD-3-Clause; trained on ImageNet, whose terms allow non-commercial research",
        recognises_mobilenet,
        convert_mobilenet,
    ),
    "efficientnet-lite": Kind(
        "EfficientNet-Lite 0 to 4 in PyTorch with TensorFlow's weights, a classifier.",
        "https://huggingface.co/papers/1905.11946",
        "Apache-2.0 (TensorFlow's weights); trained on ImageNet, whose terms allow non-commercial research",
        recognises_efficientnet_lite,
        convert_efficientnet_lite,
    ),
    "torchvision-fcn": Kind(
        "torchvision's FCN on ResNet-50 or -101, trained on COCO with the classes of Pascal VOC: a segmenter.",
        "https://huggingface.co/papers/1411.4038",
        "BSD-3-Clause; trained on COCO",
        recognises_fcn,
        convert_fcn,
    ),
    "torchvision-deeplabv3": Kind(
        "torchvision's DeepLabV3 on ResNet-50 or -101, trained on COCO with the classes of Pascal VOC: its encoder.",
        "https://huggingface.co/papers/1706.05587",
        "BSD-3-Clause; trained on COCO",
        recognises_deeplab,
        convert_deeplab,
    ),
    "moco-v2": Kind(
        "MoCo (v1, v2) with a ResNet: its query encoder, a bare encoder; also if it was saved alone, with --from.",
        "https://huggingface.co/papers/2003.04297",
        "MIT today, CC-BY-NC 4.0 when the weights were published",
        recognises_moco,
        convert_moco,
    ),
    "dino-resnet": Kind(
        "DINO's ResNet-50, alone or the teacher of a whole checkpoint: a bare encoder.",
        "https://huggingface.co/papers/2104.14294",
        "Apache-2.0",
        recognises_dino_resnet,
        convert_dino_resnet,
    ),
    "depth-anything-1": Kind(
        "Depth Anything 1 ViT-S/B/L: relative inverse depth; of its metric ZoeDepth files the relative network.",
        "https://huggingface.co/papers/2401.10891",
        "Apache-2.0",
        recognises_depth_anything_1,
        convert_depth_anything_1,
    ),
    "depth-anything-2": Kind(
        "Depth Anything 2 ViT-S/B/L/g: relative inverse depth, or metres with --max-depth.",
        "https://huggingface.co/papers/2406.09414",
        "Apache-2.0 for ViT-S and on the cards of metric files, CC-BY-NC-4.0 for relative ViT-B, L and g",
        recognises_depth_anything_2,
        convert_depth_anything_2,
    ),
    "depth-anything-3": Kind(
        "Depth Anything 3 Mono-L and Metric-L: depth without unit. The depth in metres of Metric-L is its output "
        "times the focal length in pixels / 300.",
        "https://huggingface.co/papers/2511.10647",
        "Apache-2.0",
        recognises_depth_anything_3,
        convert_depth_anything_3,
    ),
    "dpt": Kind(
        "DPT of MiDaS 3 with a plain ViT (dpt_large), or a ResNet and a ViT (dpt_hybrid): relative inverse depth.",
        "https://huggingface.co/papers/2103.13413",
        "MIT",
        recognises_dpt,
        convert_dpt,
    ),
    "dino-vit": Kind(
        "DINO ViT-S/B: a bare encoder.",
        "https://huggingface.co/papers/2104.14294",
        "Apache-2.0",
        recognises_dino_vit,
        convert_dino_vit,
    ),
    "dinov2": Kind(
        "DINOv2 ViT-S/B/L/g, with and without registers: a bare encoder.",
        "https://huggingface.co/papers/2304.07193",
        "Apache-2.0",
        recognises_dinov2,
        convert_dinov2,
    ),
    "dinov3": Kind(
        "DINOv3 ViT-S/S+/B/L/H+: a bare encoder.",
        "https://huggingface.co/papers/2508.10104",
        "DINOv3 License",
        recognises_dinov3,
        convert_dinov3,
    ),
    "mae": Kind(
        "MAE ViT-B/L/H: a bare encoder, its decoder left out.",
        "https://huggingface.co/papers/2111.06377",
        "CC-BY-NC-4.0",
        recognises_mae,
        convert_mae,
    ),
}
"""Name of a layout -> its row."""


def find_kind(source: Source, asked: str | None = None) -> str:
    """Return the key of the layout of a source.

    Args:
        source: The files.
        asked: The key that the user gave.

    Raises:
        ValueError: If the key is unknown, or not exactly one layout is recognised.
    """
    if asked is not None:
        if asked not in KINDS:
            raise ValueError(f"--from is {asked!r}; allowed are {', '.join(KINDS)}.")
        return asked
    found = [name for name, kind in KINDS.items() if kind.recognises(source)]
    if len(found) == 1:
        return found[0]
    files = ", ".join(source.sha256)
    if found:
        raise ValueError(f"{files}: the file fits {' and '.join(found)} and does not say which; give it as --from.")
    names = [name for tensors in source.files.values() for name in tensors]
    raise ValueError(
        f"{files}: {count_in_words(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}) of a layout "
        "that is not known. Known are "
        f"{', '.join(KINDS)}."
    )
