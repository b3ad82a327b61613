"""Bare vision transformers: DINO, DINOv2, DINOv3 and MAE, whose published names are those of timm."""

from __future__ import annotations

import re
from dataclasses import replace
from math import isqrt
from typing import Any

from torch import Tensor

from .converted import ENCODER, IMAGENET, Converted, ConvertOptions, Rule, count, need, rename
from .kinds_resnet import PROJECTION
from .reading import Source

WHOLE = "backbone.cls_token"
"""In checkpoints of whole pre-trainings of DINO, which hold a network beside the heads of its loss."""

LOSS_HEADS = Rule(r"(dino_|ibot_)?head\..*", (), PROJECTION)

STEM = (
    Rule("cls_token", ("embeddings.cls_token",)),
    Rule("pos_embed", ("embeddings.position_embeddings",)),
    Rule(r"patch_embed\.proj\.(weight|bias)", (r"embeddings.patch_embeddings.projection.\1",)),
    Rule(r"norm\.(weight|bias)", (r"layernorm.\1",)),
)


def attention(ours: str) -> tuple[Rule, ...]:
    """Return the rules of the attention layers for the name that our blocks have."""
    return (
        Rule(
            r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)",
            tuple(rf"{ours}.\1.attention.{part}_proj.\2" for part in "qkv"),
        ),
        Rule(r"blocks\.(\d+)\.attn\.proj\.(weight|bias)", (rf"{ours}.\1.attention.o_proj.\2",)),
    )


DINOV2_RULES = (
    *STEM,
    *attention("encoder.layer"),
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

VIT_RULES = (
    *STEM,
    *attention("layers"),
    Rule(r"blocks\.(\d+)\.norm1\.(weight|bias)", (r"layers.\1.layernorm_before.\2",)),
    Rule(r"blocks\.(\d+)\.norm2\.(weight|bias)", (r"layers.\1.layernorm_after.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.(fc[12])\.(weight|bias)", (r"layers.\1.mlp.\2.\3",)),
    Rule(r"mask_token|decoder_.*", (), "part of MAE's decoder, which is used in its pre-training only"),
    Rule(r"head\..*", (), "last layer of the pre-training or of a classifier; an encoder has none"),
)
"""Published names of DINO and MAE -> names of transformers' ViT."""

DINOV3_RULES = (
    Rule("cls_token|mask_token", (r"embeddings.\g<0>",)),
    Rule("storage_tokens", ("embeddings.register_tokens",)),
    Rule(r"patch_embed\.proj\.(weight|bias)", (r"embeddings.patch_embeddings.\1",)),
    Rule(r"rope_embed\.periods", (), "computed from the configuration"),
    Rule(r"local_cls_norm\..*", (), "norm of the class token of local crops, which only the pre-training uses"),
    Rule(r"blocks\.\d+\.attn\.qkv\.bias_mask", (), "a constant: the bias of the keys does not count"),
    Rule(
        r"blocks\.(\d+)\.attn\.qkv\.bias",
        (r"model.layer.\1.attention.q_proj.bias", "", r"model.layer.\1.attention.v_proj.bias"),
        "the bias of the keys, which is masked",
    ),
    *attention("model.layer"),
    Rule(r"blocks\.(\d+)\.(norm[12])\.(weight|bias)", (r"model.layer.\1.\2.\3",)),
    Rule(r"blocks\.(\d+)\.ls([12])\.gamma", (r"model.layer.\1.layer_scale\2.lambda1",)),
    Rule(r"blocks\.(\d+)\.mlp\.(?:fc1|w2)\.(weight|bias)", (r"model.layer.\1.mlp.up_proj.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.(?:fc2|w3)\.(weight|bias)", (r"model.layer.\1.mlp.down_proj.\2",)),
    Rule(r"blocks\.(\d+)\.mlp\.w1\.(weight|bias)", (r"model.layer.\1.mlp.gate_proj.\2",)),
    Rule(r"norm\.(weight|bias)", (r"norm.\1",)),
)
"""Published names of DINOv3 -> names of transformers' backbone."""

SATELLITE = {"image_mean": [0.430, 0.411, 0.296], "image_std": [0.213, 0.156, 0.143]}
"""Scaling of the DINOv3 that were trained on satellite images (`sat493m` in the name of the file)."""

HEAD_WIDTH = 64
"""Channels of one attention head in all published sizes but MAE's ViT-H; no tensor has the number of heads."""


def trunk(source: Source) -> Source:
    """Return a file with the names of the network alone.

    Checkpoints of whole pre-trainings write `backbone.` before them, and DINOv2's put its blocks into groups
    (`blocks.0.7.` for block 7); the number of the block is the last one.
    """
    stem = source.stem
    prefix = "backbone." if WHOLE in source.tensors else ""
    ours = {name: re.sub(r"^blocks\.\d+\.(?=\d)", "blocks.", name.removeprefix(prefix)) for name in source.tensors}
    tensors = {ours[name]: tensor for name, tensor in source.tensors.items()}
    original = {ours[name]: theirs for name, theirs in source.original[stem].items()}
    return replace(source, files=source.files | {stem: tensors}, original=source.original | {stem: original})


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
    return {"pos_embed", "blocks.0.ls1.gamma", "norm.weight"} <= trunk(source).tensors.keys()


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
    source = trunk(source)
    tensors, left_out = rename(source, [*DINOV2_RULES, LOSS_HEADS])
    return Converted(ENCODER, dinov2_config(source.tensors), tensors, IMAGENET, left_out, missing_mask_token(tensors))


def missing_mask_token(tensors: dict[str, tuple[str, Tensor]], ours: str = "") -> dict[str, str]:
    """Return the token of masked patches if a file lacks it, for `filled` of [`Converted`].

    Args:
        tensors: Our name -> tensor.
        ours: What stands before our names of the backbone.
    """
    name = f"{ours}embeddings.mask_token"
    return {} if name in tensors else {name: "used in pre-training only"}


def is_plain_vit(source: Source) -> bool:
    """Whether the file has learned or fixed positions and no layer scales; DINO and MAE have the same names."""
    tensors = trunk(source).tensors
    return {
        "pos_embed",
        "blocks.0.norm1.weight",
        "norm.weight",
    } <= tensors.keys() and "blocks.0.ls1.gamma" not in tensors


def is_called(source: Source, word: str) -> bool:
    """Whether a word, in small letters, is in the name of the file."""
    return word in source.stem.lower()


def recognises_dino_vit(source: Source) -> bool:
    """Whether the file is a plain ViT, and neither its tensors nor its name say that it is an MAE."""
    return is_plain_vit(source) and "decoder_pos_embed" not in source.tensors and not is_called(source, "mae")


def recognises_mae(source: Source) -> bool:
    """Whether the file is a plain ViT, and its name does not say that it is a DINO; DINO alone has patches of 8."""
    if not is_plain_vit(source) or is_called(source, "dino") or WHOLE in source.tensors:
        return False
    return need(source.tensors, "patch_embed.proj.weight").shape[-1] != 8


def vit_config(model_type: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the `encoder_config` of a plain ViT with the precision of its norms."""
    hidden = need(tensors, "blocks.0.mlp.fc1.weight").shape[0]
    config = {"model_type": model_type} | vit_size(tensors) | {"intermediate_size": hidden, "layer_norm_eps": 1e-6}
    if (config["hidden_size"], config["num_hidden_layers"]) == (1280, 32):  # ViT-H, with 80 channels a head
        config["num_attention_heads"] = 16
    return config


def convert_dino_vit(source: Source, options: ConvertOptions) -> Converted:
    """Convert a ViT of DINO."""
    source = trunk(source)
    tensors, left_out = rename(source, VIT_RULES)
    return Converted(ENCODER, vit_config("vit", source.tensors), tensors, IMAGENET, left_out)


def convert_mae(source: Source, options: ConvertOptions) -> Converted:
    """Convert the encoder of a masked autoencoder."""
    tensors, left_out = rename(source, VIT_RULES)
    return Converted(ENCODER, vit_config("vit_mae", source.tensors), tensors, IMAGENET, left_out)


def recognises_dinov3(source: Source) -> bool:
    """Whether the file has DINOv3's rotary positions and storage tokens."""
    return {"storage_tokens", "rope_embed.periods", "blocks.0.ls1.gamma"} <= trunk(source).tensors.keys()


def convert_dinov3(source: Source, options: ConvertOptions) -> Converted:
    """Convert a ViT of DINOv3.

    Raises:
        ValueError: If its heads are not those of the sizes S, S+, B, L or H+.
    """
    source = trunk(source)
    theirs = source.tensors
    width, patch = (need(theirs, "patch_embed.proj.weight").shape[index] for index in (0, -1))
    if len(theirs["rope_embed.periods"]) != HEAD_WIDTH // 4:
        raise ValueError(
            f"rope_embed.periods has {len(theirs['rope_embed.periods'])} entries; DINOv3 with heads of {HEAD_WIDTH} "
            f"channels, which have {HEAD_WIDTH // 4}, are supported: all sizes but 7B."
        )
    gated = "blocks.0.mlp.w1.weight" in theirs
    config = {
        "model_type": "dinov3_vit",
        "hidden_size": width,
        "num_hidden_layers": count(theirs, r"blocks\.(\d+)\."),
        "num_attention_heads": width // HEAD_WIDTH,
        "patch_size": patch,
        "intermediate_size": need(theirs, f"blocks.0.mlp.{'w1' if gated else 'fc1'}.weight").shape[0],
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "num_register_tokens": theirs["storage_tokens"].shape[1],
        "layer_norm_eps": 1e-5,
    }
    tensors, left_out = rename(source, [*DINOV3_RULES, LOSS_HEADS])
    name = "embeddings.mask_token"
    if name in tensors:
        tensors[name] = (tensors[name][0], tensors[name][1].reshape(1, 1, -1))
    scaling = SATELLITE if is_called(source, "sat493m") else IMAGENET
    return Converted(ENCODER, config, tensors, scaling, left_out, missing_mask_token(tensors))
