"""Our forward pass against transformers' own, on the same weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTConfig,
    DPTForDepthEstimation,
    PreTrainedModel,
)

from ..models import DepthSegForDepthEstimation
from .timing import Comparison, relative_difference, time_in_turns

SIDES = ("transformers", "depthseg")


def compare(
    name: str, repeats: int, *, model: str, sizes: Sequence[tuple[int, int]], config: Mapping[str, Any] | None = None
) -> Iterator[Comparison]:
    """Compare both sides on each size; see `bench`.

    Args:
        name: Of the case.
        repeats: Timed runs of each side and size.
        model: Key of `BUILDERS`: the architecture, with random weights.
        sizes: Heights and widths of the images.
        config: What differs from the small network of this architecture.
    """
    torch.manual_seed(0)
    theirs = BUILDERS[model](**(config or {})).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = DepthSegForDepthEstimation.from_depth_pretrained(folder)
    for height, width in sizes:
        pixels = torch.randn(1, 3, height, width)
        runs = {side: partial(predict, model, pixels) for side, model in zip(SIDES, (theirs, ours), strict=True)}
        depths = [run() for run in runs.values()]
        yield Comparison(name, time_in_turns(runs, repeats), height, width, difference=relative_difference(*depths))


def build_depth_anything(**sizes: Any) -> PreTrainedModel:
    """Return Depth Anything with random weights; by default with the sizes of the small one."""
    backbone = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "image_size": 518,
        "patch_size": 14,
        "out_indices": [3, 6, 9, 12],
        "reshape_hidden_states": False,
        **sizes.pop("backbone", {}),
    }
    neck = {"reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64} | sizes
    return DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=Dinov2Config(**backbone), **neck))


def build_dpt(**sizes: Any) -> PreTrainedModel:
    """Return DPT on a plain ViT with random weights; by default on a ViT-Small."""
    small = {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "image_size": 224,
        "backbone_out_indices": [2, 5, 8, 11],
        "is_hybrid": False,
    }
    return DPTForDepthEstimation(DPTConfig(**(small | sizes)))


BUILDERS = {"depth_anything": build_depth_anything, "dpt": build_dpt}


@torch.inference_mode()
def predict(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the predicted depth `(1, H, W)` of an image `(1, 3, H, W)`."""
    return model(pixels).predicted_depth
