"""Bare vision transformers: DINOv2, DINO and MAE, whose published names are those of timm."""

from __future__ import annotations

from math import isqrt
from typing import Any

from torch import Tensor

from .converted import ENCODER, IMAGENET, Converted, ConvertOptions, Rule, count, need, rename
from .reading import Source

ATTENTION = (
    Rule(
        r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)",
        tuple(rf"encoder.layer.\1.attention.{part}_proj.\2" for part in "qkv"),
    ),
    Rule(r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", (r"encoder.layer.\1.attention.o_proj.\2",)),
)
STEM = (
    Rule("cls_token", ("embeddings.cls_token",)),
    Rule("pos_embed", ("embeddings.position_embeddings",)),
    Rule(r"patch_embed\.proj\.(weight|bias)", (r"embeddings.patch_embeddings.projection.\1",)),
    Rule(r"norm\.(weight|bias)", (r"layernorm.\1",)),
)
DINOV2_RULES = (
    *STEM,
    *ATTENTION,
    Rule("mask_token", ("embeddings.mask_token",)),
    Rule("register_tokens", ("embeddings.register_tokens",)),
    Rule(r"blocks\.(\d+)\.(norm[12])\.(weight|bias)", (r"encoder.layer.\1.\2.\3",)),
    Rule(r"blocks\.(\d+)\.ls([12])\.gamma", (r"encoder.layer.\1.layer_scale\2.lambda1",)),
    Rule(r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", (r"encoder.layer.\1.mlp.\2.\3",)),
    Rule(
        r"blocks\.(\d+)\.mlp\.w12\.(weight|bias)",
        (r"encoder.layer.\1.mlp.gate_proj.\2", r"encoder.layer.\1.mlp.up_proj.\2"),
    ),
    Rule(r"blocks\.(\d+)\.mlp\.w3\.(weight|bias)", (r"encoder.layer.\1.mlp.down_proj.\2",)),
)
"""Published names of DINOv2 -> names of transformers' backbone."""

HEAD_WIDTH = 64
"""Channels of one attention head in all published sizes but MAE's ViT-H; no tensor has the number of heads."""


def vit_size(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """Return width, depth, patches and image size of a ViT from the shapes of its tensors."""
    patches = need(tensors, f"{prefix}patch_embed.proj.weight")
    positions = need(tensors, f"{prefix}pos_embed")
    width, patch = patches.shape[0], patches.shape[-1]
    side = isqrt(positions.shape[1] - 1)
    if patches.ndim != 4 or side * side != positions.shape[1] - 1 or width % HEAD_WIDTH:
        raise ValueError(
            f"{prefix}pos_embed has the shape {tuple(positions.shape)} and {prefix}patch_embed.proj.weight "
            f"{tuple(patches.shape)}; a class token and a square grid of positions, and a width that is a multiple of "
            f"{HEAD_WIDTH}, are supported."
        )
    return {
        "hidden_size": width,
        "num_hidden_layers": count(tensors, rf"{prefix}blocks\.(\d+)\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "patch_size": patch,
        "image_size": side * patch,
    }


def recognises_dinov2(source: Source) -> bool:
    """Whether the file has DINOv2's layer scales and its learned positions."""
    return {"pos_embed", "blocks.0.ls1.gamma", "norm.weight"} <= source.tensors.keys()


def dinov2_config(tensors: dict[str, Tensor], prefix: str = "") -> dict[str, Any]:
    """Return the `encoder_config` of DINOv2's weights."""
    config = {"model_type": "dinov2"} | vit_size(tensors, prefix)
    if f"{prefix}register_tokens" in tensors:
        config |= {"model_type": "dinov2_with_registers"}
        config |= {"num_register_tokens": tensors[f"{prefix}register_tokens"].shape[1]}
    swiglu = f"{prefix}blocks.0.mlp.w12.weight" in tensors
    hidden = 4 * config["hidden_size"] if swiglu else need(tensors, f"{prefix}blocks.0.mlp.fc1.weight").shape[0]
    return config | {"mlp_ratio": hidden // config["hidden_size"], "use_swiglu_ffn": swiglu}


def convert_dinov2(source: Source, options: ConvertOptions) -> Converted:
    """Convert a bare DINOv2."""
    tensors, left_out = rename(source, DINOV2_RULES)
    return Converted(ENCODER, dinov2_config(source.tensors), tensors, IMAGENET, left_out)
