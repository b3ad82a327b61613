"""The table of published layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .converted import Converted, ConvertOptions
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
    """

    summary: str
    paper: str
    licence: str
    recognises: Callable[[Source], bool]
    convert: Callable[[Source, ConvertOptions], Converted]


KINDS: dict[str, Kind] = {
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
        "Apache-2.0 for ViT-S, CC-BY-NC-4.0 for ViT-B, L and g",
        recognises_depth_anything_2,
        convert_depth_anything_2,
    ),
    "depth-anything-3": Kind(
        "Depth Anything 3 Mono-L and Metric-L: depth; Metric-L in metres times 300 / focal length in pixels.",
        "https://huggingface.co/papers/2511.10647",
        "Apache-2.0",
        recognises_depth_anything_3,
        convert_depth_anything_3,
    ),
    "dpt": Kind(
        "DPT of MiDaS 3 with a plain ViT (dpt_large): relative inverse depth.",
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
        f"{files}: {len(names)} tensors ({', '.join(names[:3])}, ...) of a layout that is not known. Known are "
        f"{', '.join(KINDS)}."
    )
