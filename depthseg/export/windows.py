"""Swin's padding and attention in a form that PyTorch can trace at any image size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.maskformer import modeling_maskformer_swin as maskformer
from transformers.models.swin import modeling_swin as swin
from transformers.models.swinv2 import modeling_swinv2 as swinv2

# What a layer takes for the padding, so that it always crops its output: without padding to the same size.
CROPS = (0, 0, 0, 1, 0, 1)


def lack(size: int, step: int) -> int:
    """How much a size lacks to the next multiple, in terms of that multiple: the tracer sees that their sum is one."""
    return step * ((size + step - 1) // step) - size


def pad_patches(embeddings: Any, pixel_values: Tensor, height: int, width: int) -> Tensor:
    """Pad an image `(B, 3, H, W)` to whole patches."""
    rows, columns = embeddings.patch_size
    return F.pad(pixel_values, (0, lack(width, columns), 0, lack(height, rows)))


def pad_windows(layer: Any, tokens: Tensor, height: int, width: int) -> tuple[Tensor, tuple[int, ...]]:
    """Pad a map `(B, h, w, C)` to whole windows."""
    side = layer.window_size
    return F.pad(tokens, (0, 0, 0, lack(width, side), 0, lack(height, side))), CROPS


def pad_pairs(merging: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """Pad a map `(B, h, w, C)` to even sides."""
    return F.pad(tokens, (0, 0, 0, lack(width, 2), 0, lack(height, 2)))


PADDINGS: dict[type[nn.Module], Callable[..., Any]] = {
    swin.SwinPatchEmbeddings: pad_patches,
    swin.SwinLayer: pad_windows,
    swin.SwinPatchMerging: pad_pairs,
    swinv2.Swinv2PatchEmbeddings: pad_patches,
    swinv2.Swinv2Layer: pad_windows,
    swinv2.Swinv2PatchMerging: pad_pairs,
    maskformer.MaskFormerSwinPatchEmbeddings: pad_patches,
    maskformer.MaskFormerSwinLayer: pad_windows,
    maskformer.MaskFormerSwinPatchMerging: pad_pairs,
}
"""Module with a method `maybe_pad` -> what it does, without a branch and without a remainder."""


@contextmanager
def traceable_windows(network: nn.Module) -> Iterator[None]:
    """Pad without branches and remainders, and attend step by step, while a network is traced.

    A branch on the size stays in a trace as it was taken, so the file would be wrong at other sizes, and of remainders
    of sizes that are themselves remainders the tracer does not find out within minutes that windows fit. PyTorch's
    fused attention lays its output out as its kernel likes, and ONNX's translator, which takes it apart, as another.
    """
    configs = {id(module.config): module.config for module in network.modules() if type(module) is swin.SwinAttention}
    chosen = {key: config._attn_implementation for key, config in configs.items()}
    padding = [module for module in network.modules() if type(module) in PADDINGS]
    for module in padding:
        module.maybe_pad = partial(PADDINGS[type(module)], module)
    for config in configs.values():
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for module in padding:
            del module.maybe_pad
        for key, config in configs.items():
            config._attn_implementation = chosen[key]
