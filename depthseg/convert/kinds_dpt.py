"""Vision transformers with a DPT head: Depth Anything 1, 2 and 3, and DPT as published with MiDaS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor

from ..models.losses_depthseg import LOSS_OF_DEPTH
from .converted import HALF, IMAGENET, Converted, ConvertOptions, Rule, count, need, prefixed, rename
from .kinds_vit import DINOV2_RULES, STEM, dinov2_config, is_called, missing_mask_token, vit_size
from .reading import Source

DEPTH_CLASS = "DepthSegForDepthEstimation"
ZOE = r"(?:core\.core\.)?"
"""What ZoeDepth, the metric version of Depth Anything 1, writes before the names of its relative network."""

FUSION_RULES = (
    *(Rule(rf"layer{level}_rn\.weight", (f"head.convs.{level - 1}.weight",)) for level in range(1, 5)),
    *(
        Rule(
            rf"refinenet{level}\.resConfUnit([12])\.conv([12])\.(weight|bias)",
            (rf"head.fusion_stage.layers.{4 - level}.residual_layer\1.convolution\2.\3",),
        )
        for level in range(1, 5)
    ),
    *(
        Rule(rf"refinenet{level}\.out_conv\.(weight|bias)", (rf"head.fusion_stage.layers.{4 - level}.projection.\1",))
        for level in range(1, 5)
    ),
)
"""Names below `scratch.` that all these networks share; level 1 is the finest map, which we fuse last."""

HEAD_RULES = (
    Rule(r"projects\.([0-3])\.(weight|bias)", (r"head.reassemble_stage.layers.\1.projection.\2",)),
    Rule(r"resize_layers\.([013])\.(weight|bias)", (r"head.reassemble_stage.layers.\1.resize.\2",)),
    *prefixed(FUSION_RULES, r"scratch\.", ""),
    Rule(r"scratch\.output_conv1\.(weight|bias)", (r"head.conv1.\1",)),
    Rule(r"scratch\.output_conv2\.0\.(weight|bias)", (r"head.conv2.\1",)),
    Rule(r"scratch\.output_conv2\.2\.(weight|bias)", (r"depth_predictor.0.\1",)),
    Rule(r"scratch\.sky_output_conv2\..*", (), "the mask of the sky, which has no place in a depth model"),
)
"""Names of the head of Depth Anything 1, 2 and 3."""

METRIC_BINS = "(conv2|seed_bin_regressor|seed_projector|projectors|attractors|conditional_log_binomial)"
DEPTH_ANYTHING_RULES = (
    *prefixed(DINOV2_RULES, rf"{ZOE}pretrained\.", "encoder.backbone."),
    *prefixed(HEAD_RULES, rf"{ZOE}depth_head\.", ""),
    Rule(rf"{METRIC_BINS}\..*", (), "ZoeDepth's metric bins; the relative network below them is converted"),
)
DEPTH_ANYTHING_3_RULES = (
    *prefixed(DINOV2_RULES, r"backbone\.pretrained\.", "encoder.backbone."),
    *prefixed(HEAD_RULES, r"head\.", ""),
)
DPT_BLOCK = r"blocks\.(\d+)\."
DPT_RULES = (
    *prefixed(STEM, r"pretrained\.model\.", "encoder.backbone."),
    *prefixed(
        (
            Rule(
                DPT_BLOCK + r"attn\.qkv\.(weight|bias)",
                tuple(rf"\1.attention.attention.{part}.\2" for part in ("query", "key", "value")),
            ),
            Rule(DPT_BLOCK + r"attn\.proj\.(weight|bias)", (r"\1.attention.output.dense.\2",)),
            Rule(DPT_BLOCK + r"norm1\.(weight|bias)", (r"\1.layernorm_before.\2",)),
            Rule(DPT_BLOCK + r"norm2\.(weight|bias)", (r"\1.layernorm_after.\2",)),
            Rule(DPT_BLOCK + r"mlp\.fc1\.(weight|bias)", (r"\1.intermediate.dense.\2",)),
            Rule(DPT_BLOCK + r"mlp\.fc2\.(weight|bias)", (r"\1.output.dense.\2",)),
        ),
        r"pretrained\.model\.",
        "encoder.backbone.encoder.layer.",
    ),
    Rule(r"pretrained\.model\.(head|fc_norm)\..*", (), "the classifier of the encoder's pre-training"),
    *(
        rule
        for level in range(1, 5)
        for rule in prefixed(
            (
                Rule(r"0\.project\.0\.(weight|bias)", (rf"readout_projects.{level - 1}.0.\1",)),
                Rule(r"3\.(weight|bias)", (rf"layers.{level - 1}.projection.\1",)),
                Rule(r"4\.(weight|bias)", (rf"layers.{level - 1}.resize.\1",)),
            ),
            rf"pretrained\.act_postprocess{level}\.",
            "head.reassemble_stage.",
        )
    ),
    *prefixed(FUSION_RULES, r"scratch\.", ""),
    Rule(r"scratch\.output_conv\.0\.(weight|bias)", (r"head.conv1.\1",)),
    Rule(r"scratch\.output_conv\.2\.(weight|bias)", (r"head.conv2.\1",)),
    Rule(r"scratch\.output_conv\.4\.(weight|bias)", (r"depth_predictor.0.\1",)),
)
"""Names of DPT in MiDaS, with timm's plain ViT."""

HYBRID = "pretrained.model.patch_embed.backbone."
HYBRID_RULES = (
    *prefixed(
        (
            Rule(r"stem\.conv\.weight", ("embedder.convolution.weight",)),
            Rule(r"stem\.norm\.(weight|bias)", (r"embedder.norm.\1",)),
            Rule(
                r"stages\.(\d+)\.blocks\.(\d+)\.((?:conv[123]|norm[123]|downsample\.(?:conv|norm))\.(?:weight|bias))",
                (r"encoder.stages.\1.layers.\2.\3",),
            ),
        ),
        re.escape(HYBRID),
        "encoder.backbone.embeddings.backbone.bit.",
    ),
    Rule(r"pretrained\.model\.patch_embed\.proj\.(weight|bias)", (r"encoder.backbone.embeddings.projection.\1",)),
    *DPT_RULES,
)
"""Names of DPT-Hybrid, whose ViT reads the last map of a ResNet (BiT, three stages) as patches of one cell."""

LAYERS_2 = {12: (3, 6, 9, 12), 24: (5, 12, 18, 24), 40: (10, 20, 30, 40)}
"""Depth of the encoder -> layers that Depth Anything 2 and 3 read, counted from 1."""


def tensor_prefix(source: Source) -> str:
    """Return what stands before the names of the relative network."""
    return "core.core." if any(name.startswith("core.core.") for name in source.tensors) else ""


def is_depth_anything(source: Source) -> bool:
    """Whether the file has the names of Depth Anything 1 and 2, which are the same."""
    prefix = tensor_prefix(source)
    names = {"pretrained.blocks.0.ls1.gamma", "depth_head.projects.0.weight"}
    return {prefix + name for name in names} <= source.tensors.keys()


def names_version_2(source: Source) -> bool:
    """Whether the name of the file says version 2, as the published ones do, or its training was that of version 2."""
    return is_called(source, "v2") or has_metric_scores(source)


def has_metric_scores(source: Source) -> bool:
    """Whether Depth Anything 2's training on metres wrote the file: it keeps its best scores beside the weights."""
    best = source.extras[source.stem].get("previous_best")
    return isinstance(best, Mapping) and best.keys() >= {"d1", "abs_rel", "rmse", "log10", "silog"}


def trained_max_depth(source: Source) -> float | None:
    """Return the range of a metric network in metres, where its training kept its options beside the weights."""
    extras = source.extras[source.stem]
    for options in (extras, *(group for group in extras.values() if isinstance(group, Mapping))):
        value = options.get("max_depth")
        if isinstance(value, Real) and ConvertOptions.allows(value):
            return float(value)
    return None


def is_called_relative(source: Source) -> bool:
    """Whether the file has the name of a published relative network."""
    return re.fullmatch(r"depth_anything_(v2_vit[sblg]|vit[sbl]14)", source.stem, re.IGNORECASE) is not None


def names_version_1(source: Source) -> bool:
    """Whether the name of the file or the names of its tensors say version 1."""
    published = re.search(r"depth_anything_(vit[sbl]14|metric_depth_(in|out)door)", source.stem, re.IGNORECASE)
    return published is not None or bool(tensor_prefix(source))


def recognises_depth_anything_1(source: Source) -> bool:
    """Whether the file is Depth Anything, and its name does not say version 2."""
    return is_depth_anything(source) and not names_version_2(source)


def recognises_depth_anything_2(source: Source) -> bool:
    """Whether the file is Depth Anything, and neither its name nor its tensors say version 1."""
    return is_depth_anything(source) and (names_version_2(source) or not names_version_1(source))


def convert_depth_anything_1(source: Source, options: ConvertOptions) -> Converted:
    """Convert Depth Anything 1, which reads the last four layers."""
    return convert_depth_anything(source, options, lambda depth: tuple(range(depth - 3, depth + 1)))


def convert_depth_anything_2(source: Source, options: ConvertOptions) -> Converted:
    """Convert Depth Anything 2, which reads layers from all over its encoder."""
    return convert_depth_anything(source, options, layers_2)


def layers_2(depth: int) -> tuple[int, ...]:
    """Return the layers that Depth Anything 2 and 3 read.

    Raises:
        ValueError: If there is no such size.
    """
    if depth not in LAYERS_2:
        sizes = ", ".join(map(str, LAYERS_2))
        raise ValueError(
            f"The encoder has {depth} blocks; Depth Anything 2 and 3 have {sizes}. The file is incomplete."
        )
    return LAYERS_2[depth]


def convert_depth_anything(source: Source, options: ConvertOptions, layers: Any) -> Converted:
    """Convert Depth Anything 1 or 2.

    Raises:
        ValueError: If the file or its name says that it is metric and its range is not given.
    """
    prefix = tensor_prefix(source)
    zoe = any(name.startswith("conditional_log_binomial.") for name in source.tensors)
    if zoe and options.max_depth is not None:
        raise ValueError(
            "--max-depth does not go with ZoeDepth's metric bins: they are left out, and the relative network below "
            "them gives inverse depth without unit. Leave --max-depth out."
        )
    depth, assumed = depth_options("relative_inverse"), ""
    max_depth = options.max_depth or trained_max_depth(source)
    if max_depth is not None and not zoe:
        depth = depth_options("metric") | {"max_depth": max_depth}
        if options.max_depth is None:
            assumed = (
                "max_depth is among the options of its training; if its depth is relative, save its weights alone and "
                "convert those"
            )
    elif not zoe:
        check_not_metric(source)
        if not is_called_relative(source):
            assumed = (
                "the file does not say whether it is metric, and was taken as relative; if its depth is metres, "
                "convert it with --max-depth METRES"
            )
    encoder = dinov2_config(source.tensors, f"{prefix}pretrained.")
    encoder["out_indices"] = list(layers(encoder["num_hidden_layers"]))
    head = head_options(source.tensors, f"{prefix}depth_head.")
    tensors, left_out = rename(source, DEPTH_ANYTHING_RULES)
    config = {"encoder_config": encoder, "head_type": "native"} | depth
    config["head_config"] = {"family": "depth_anything", "options": head}
    return Converted(DEPTH_CLASS, config, tensors, IMAGENET, left_out, unused_tensors(tensors), assumed)


def check_not_metric(source: Source) -> None:
    """Check that nothing says that a Depth Anything is metric.

    Raises:
        ValueError: If its name or the scores of its training do.
    """
    if is_called(source, "metric"):
        sign = f"{source.stem} is a metric network by its name"
        otherwise = "rename it"
    elif has_metric_scores(source):
        sign = f"{source.stem} is a metric network by its training, whose best scores it keeps (previous_best)"
        otherwise = "save its weights alone: torch.save(content['model'], FILE)"
    else:
        return
    raise ValueError(
        f"{sign}, and the file does not say its range; give --max-depth in metres. Published are "
        f"20 (Hypersim, indoors) and 80 (Virtual KITTI, outdoors). If it is relative all the same, {otherwise}."
    )


def unused_tensors(tensors: dict[str, tuple[str, Tensor]]) -> dict[str, str]:
    """Return our tensors that do not change the output and that some files lack, with the reason."""
    filled = missing_mask_token(tensors, "encoder.backbone.")
    first = "head.fusion_stage.layers.0.residual_layer1.convolution"
    for name in (f"{first}{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")):
        if name not in tensors:
            filled[name] = "the coarsest map is fused with no other"
    return filled


def head_options(tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """Return the options of a native head of Depth Anything from the shapes of its tensors."""
    return {
        "neck_hidden_sizes": [need(tensors, f"{prefix}projects.{level}.weight").shape[0] for level in range(4)],
        "reassemble_factors": [4, 2, 1, 0.5],
        "readout_type": "ignore",
        "fusion_hidden_size": need(tensors, f"{prefix}scratch.layer1_rn.weight").shape[0],
        "head_hidden_size": need(tensors, f"{prefix}scratch.output_conv2.0.weight").shape[0],
        "upsampling": "image",
    }


def recognises_depth_anything_3(source: Source) -> bool:
    """Whether the file has the names of Depth Anything 3, of any series."""
    return any(re.match(r"(da3\.)?backbone\.pretrained\.blocks\.0\.", name) for name in source.tensors)


def convert_depth_anything_3(source: Source, options: ConvertOptions) -> Converted:
    """Convert Depth Anything 3's networks for one image.

    Raises:
        ValueError: If the file is of the any-view or nested series.
    """
    if any("camera_token" in name or name.startswith("da3.") for name in source.tensors):
        raise ValueError(
            f"{source.stem} is of Depth Anything 3's any-view or nested series, whose encoder joins several images in "
            "its attention; only Mono-L and Metric-L, which read one image, can be converted."
        )
    if options.max_depth is not None:
        raise ValueError(
            "--max-depth does not go with depth-anything-3, whose depth has no bound. The depth in metres of Metric-L "
            "is its output times the focal length in pixels / 300. Leave --max-depth out."
        )
    encoder = dinov2_config(source.tensors, "backbone.pretrained.")
    encoder["out_indices"] = list(layers_2(encoder["num_hidden_layers"]))
    head = head_options(source.tensors, "head.") | {"depth_activation": "exp"}
    tensors, left_out = rename(source, DEPTH_ANYTHING_3_RULES)
    config = {"encoder_config": encoder, "head_type": "native"} | depth_options("relative")
    config["head_config"] = {"family": "depth_anything", "options": head}
    assumed = (
        "the file does not say whether it is Mono-L or Metric-L; if it is Metric-L, its output times the focal length "
        "in pixels / 300 is in metres"
    )
    return Converted(DEPTH_CLASS, config, tensors, IMAGENET, left_out, unused_tensors(tensors), assumed)


def depth_options(depth_type: str) -> dict[str, Any]:
    """Return what a depth means, and the loss that it is fine-tuned by."""
    return {"depth_type": depth_type, "depth_loss": LOSS_OF_DEPTH[depth_type]}


def recognises_dpt(source: Source) -> bool:
    """Whether the file has the decoder of MiDaS, on any encoder."""
    encoder = any(name.startswith("pretrained.") for name in source.tensors)
    return encoder and {"scratch.layer1_rn.weight", "scratch.output_conv.0.weight"} <= source.tensors.keys()


def check_dpt(source: Source) -> None:
    """Check that a network of MiDaS is one of depth, on a plain ViT or a hybrid.

    Raises:
        ValueError: If it is another one.
    """
    theirs = source.tensors.keys()
    names = {"pretrained.model.pos_embed", "pretrained.model.blocks.0.attn.qkv.weight"}
    if not names | {"pretrained.act_postprocess3.3.weight"} <= theirs:
        raise ValueError(
            f"{source.stem} is a network of MiDaS on another encoder than those of dpt_large and dpt_hybrid, which "
            "can be converted. Networks on BEiT and Swin v2 need no conversion: transformers' versions of them are "
            "read by model.pretrained=Intel/dpt-beit-large-512, Intel/dpt-swinv2-tiny-256 and their siblings."
        )
    if "scratch.output_conv.2.weight" not in theirs:
        raise ValueError(
            f"{source.stem} is a DPT for segmentation, which cannot be converted; those of depth, dpt_large and "
            "dpt_hybrid, can."
        )


def convert_dpt(source: Source, options: ConvertOptions) -> Converted:
    """Convert DPT with a plain ViT (`dpt_large`) or a ResNet and a ViT (`dpt_hybrid`).

    Raises:
        ValueError: If the file is another network of MiDaS or is incomplete.
    """
    check_dpt(source)
    theirs = source.tensors
    size = vit_size(theirs, "pretrained.model.")
    depth = size["num_hidden_layers"]
    layers = {12: [2, 5, 8, 11], 24: [5, 11, 17, 23]}.get(depth)
    if layers is None:
        raise ValueError(f"The encoder has {depth} blocks; DPT has 12 or 24. The file is incomplete.")
    hybrid = hybrid_config(theirs, size) if f"{HYBRID}stem.conv.weight" in theirs else {}
    necks = [need(theirs, f"scratch.layer{level}_rn.weight").shape[1] for level in range(1, 5)]
    fusion = need(theirs, "scratch.layer1_rn.weight").shape[0]
    encoder = {
        "model_type": "dpt",
        **size,
        "intermediate_size": need(theirs, "pretrained.model.blocks.0.mlp.fc1.weight").shape[0],
        "backbone_out_indices": layers,
        "layer_norm_eps": 1e-6,
    } | hybrid
    head = {
        "neck_hidden_sizes": necks,
        "reassemble_factors": [1, 1, 1, 0.5] if hybrid else [4, 2, 1, 0.5],
        "readout_type": "project",
        "fusion_hidden_size": fusion,
        "head_hidden_size": need(theirs, "scratch.output_conv.2.weight").shape[0],
        "upsampling": "double",
    }
    tensors, left_out = rename(source, HYBRID_RULES if hybrid else DPT_RULES)
    config = {"encoder_config": encoder, "head_type": "native"} | depth_options("relative_inverse")
    config["head_config"] = {"family": "dpt", "options": head}
    return Converted(DEPTH_CLASS, config, tensors, HALF, left_out)


def hybrid_config(theirs: dict[str, Tensor], size: dict[str, Any]) -> dict[str, Any]:
    """Return the options of DPT-Hybrid's encoder that differ from those of a plain ViT.

    Args:
        theirs: Tensors of the file.
        size: Of the ViT alone, whose patches are cells of the ResNet's last map, of 16 x 16 pixels.
    """
    stages = [count(theirs, rf"{re.escape(HYBRID)}stages\.{stage}\.blocks\.(\d+)\.") for stage in range(3)]
    widths = [need(theirs, f"{HYBRID}stages.{stage}.blocks.0.conv3.weight").shape[0] for stage in range(3)]
    cells = size["image_size"] // size["patch_size"]
    return {
        "is_hybrid": True,
        "patch_size": 16,
        "image_size": 16 * cells,
        "backbone_featmap_shape": [1, widths[-1], cells, cells],
        "backbone_config": {
            "model_type": "bit",
            "layer_type": "bottleneck",
            "global_padding": "same",
            "embedding_dynamic_padding": True,
            "embedding_size": need(theirs, f"{HYBRID}stem.conv.weight").shape[0],
            "hidden_sizes": widths,
            "depths": stages,
            "out_features": ["stage1", "stage2", "stage3"],
        },
    }
