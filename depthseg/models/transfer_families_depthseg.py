"""The depth families of transformers: conversion of their configurations and parameter names to those of depthseg."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DepthFamily:
    """One row of [`DEPTH_FAMILIES`]: conversion of a depth model of transformers to a depthseg model.

    Args:
        classes (`tuple[str, ...]`): The classes in transformers that predict depth.
        encoder_config (`Callable`): From the model's configuration to our `encoder_config`.
        head_options (`Callable`): From the model's configuration to the options of its native head.
        depth (`Callable`): From the model's configuration to `depth_type`, `min_depth` and `max_depth`.
        names (`Callable`): From the model's configuration to pairs (prefix of its parameters, our prefix); the first
            matching prefix is used.
        left_over (`dict[str, str]`): Prefix of parameters that are not used -> reason.
        summary (`str`): One line for the README table.
        meaning (`str`): Quantity and unit of the prediction, for the same table.
        source (`str`): The paper.
    """

    classes: tuple[str, ...]
    encoder_config: Callable[[Any], dict[str, Any]]
    head_options: Callable[[Any], dict[str, Any]]
    depth: Callable[[Any], dict[str, Any]]
    names: Callable[[Any], tuple[tuple[str, str], ...]]
    summary: str
    meaning: str
    source: str
    left_over: dict[str, str] = field(default_factory=dict)


def backbone_config(config: Any) -> dict[str, Any]:
    """Return the configuration of a depth model's backbone."""
    return config.backbone_config.to_dict()


def depth_anything_options(config: Any) -> dict[str, Any]:
    """Return the head options of Depth Anything: no readout, the last map at the size of the image."""
    refuse_other_maps(config)
    return {
        "neck_hidden_sizes": list(config.neck_hidden_sizes),
        "reassemble_factors": list(config.reassemble_factors),
        "readout_type": "ignore",
        "fusion_hidden_size": config.fusion_hidden_size,
        "head_hidden_size": config.head_hidden_size,
        "upsampling": "image",
    }


def depth_anything_depth(config: Any) -> dict[str, Any]:
    """Return the depth type of Depth Anything: relative inverse depth, or metres."""
    if config.depth_estimation_type == "metric":
        return {"depth_type": "metric", "max_depth": float(config.max_depth or 1)}
    if config.max_depth not in (None, 1):
        raise ValueError(f"max_depth is {config.max_depth} in a relative Depth Anything; it must be 1 or absent.")
    return {"depth_type": "relative_inverse"}


def prompt_depth_anything_depth(config: Any) -> dict[str, Any]:
    """Return the depth type without a prompt: depth up to scale and shift, not inverse depth."""
    if config.depth_estimation_type == "metric":
        return {"depth_type": "metric", "max_depth": 1.0, "min_depth": 1e-3}
    return {"depth_type": "relative"}


DEPTH_ANYTHING_NAMES = (
    ("backbone.", "encoder.backbone."),
    ("neck.", "head."),
    ("head.conv3.", "depth_predictor.0."),
    ("head.", "head."),
)


def dpt_encoder_config(config: Any) -> dict[str, Any]:
    """Return the configuration of DPT's encoder: that of its backbone or, for its own ViT, that of DPT."""
    if config.backbone_config is not None and not config.is_hybrid:
        return config.backbone_config.to_dict()
    return config.to_dict()


def dpt_options(config: Any) -> dict[str, Any]:
    """Return the head options of DPT."""
    refuse_other_maps(config)
    return {
        "neck_hidden_sizes": list(config.neck_hidden_sizes),
        "reassemble_factors": list(config.reassemble_factors),
        "readout_type": config.readout_type,
        "readout_act": config.hidden_act,
        "fusion_hidden_size": config.fusion_hidden_size,
        "use_batch_norm_in_fusion_residual": bool(config.use_batch_norm_in_fusion_residual),
        "use_bias_in_fusion_residual": config.use_bias_in_fusion_residual,
        "add_projection": config.add_projection,
        "upsampling": "double",
        "classifier_dropout": config.semantic_classifier_dropout,
    }


def refuse_other_maps(config: Any) -> None:
    """Refuse a depth head that uses a fused map other than the finest."""
    if config.head_in_index not in (-1, len(config.neck_hidden_sizes) - 1):
        raise ValueError(
            f"head_in_index is {config.head_in_index}; only heads on the last (finest) fused map are supported, -1."
        )


def dpt_names(config: Any) -> tuple[tuple[str, str], ...]:
    """Return DPT's prefixes; its head is a sequence of convolutions and activations."""
    return (
        ("backbone.", "encoder.backbone."),
        ("dpt.", "encoder.backbone."),
        ("neck.", "head."),
        ("head.projection.", "head.projection."),
        ("head.head.0.", "head.conv1."),
        ("head.head.2.", "head.conv2."),
        ("head.head.4.", "depth_predictor.0."),
    )


def glpn_options(config: Any) -> dict[str, Any]:
    """Return the head options of GLPN."""
    if config.head_in_index not in (-1, config.num_encoder_blocks - 1):
        raise ValueError(
            f"head_in_index is {config.head_in_index}; only heads on the last (finest) decoder map are supported, -1."
        )
    return {"decoder_hidden_size": config.decoder_hidden_size}


GLPN_NAMES = (
    ("glpn.", "encoder.backbone."),
    ("decoder.stages.", "head.stages."),
    ("head.head.0.", "head.conv."),
    ("head.head.2.", "depth_predictor.0."),
)


def zoedepth_options(config: Any) -> dict[str, Any]:
    """Return the head options of ZoeDepth: those of its DPT neck and of its metric head."""
    refuse_other_maps(config)
    if config.readout_type != "project":
        raise ValueError(
            f"readout_type is {config.readout_type!r}; transformers supports only 'project' for ZoeDepth."
        )
    options = {
        "neck_hidden_sizes": list(config.neck_hidden_sizes),
        "reassemble_factors": list(config.reassemble_factors),
        "readout_act": config.hidden_act,
        "fusion_hidden_size": config.fusion_hidden_size,
        "use_batch_norm_in_fusion_residual": config.use_batch_norm_in_fusion_residual,
        "use_bias_in_fusion_residual": config.use_bias_in_fusion_residual,
        "add_projection": config.add_projection,
        "head_hidden_size": config.num_relative_features,
        "bin_configurations": [dict(bins) for bins in config.bin_configurations],
        "num_attractors": list(config.num_attractors),
    }
    for name in ("bin_embedding_dim", "bin_centers_type", "attractor_kind", "min_temp", "max_temp"):
        options[name] = getattr(config, name)
    if len(config.bin_configurations) > 1:
        options["patch_transformer_intermediate_size"] = config.patch_transformer_intermediate_size
        options["patch_transformer_num_heads"] = config.patch_transformer_num_attention_heads
    return options


def zoedepth_depth(config: Any) -> dict[str, Any]:
    """Return the range of ZoeDepth's bins over all its domains, in metres."""
    bins = config.bin_configurations
    return {
        "depth_type": "metric",
        "min_depth": min(domain["min_depth"] for domain in bins),
        "max_depth": max(domain["max_depth"] for domain in bins),
    }


ZOEDEPTH_NAMES = (
    ("backbone.", "encoder.backbone."),
    ("neck.", "head."),
    ("relative_head.conv3.", "depth_predictor.0.conv3."),
    ("relative_head.", "head."),
    ("metric_head.", "depth_predictor.0.metric_head."),
)


def depth_pro_options(config: Any) -> dict[str, Any]:
    """Return the head options of DepthPro."""
    return {
        "scaled_images_feature_dims": list(config.scaled_images_feature_dims),
        "intermediate_feature_dims": list(config.intermediate_feature_dims),
        "fusion_hidden_size": config.fusion_hidden_size,
        "use_batch_norm_in_fusion_residual": config.use_batch_norm_in_fusion_residual,
        "use_bias_in_fusion_residual": config.use_bias_in_fusion_residual,
    }


DEPTH_PRO_NAMES = (
    ("depth_pro.encoder.", "encoder.backbone.encoder."),
    ("depth_pro.neck.", "head.neck."),
    ("fusion_stage.", "head.fusion_stage."),
    ("head.layers.0.", "head.conv1."),
    ("head.layers.1.", "head.deconv."),
    ("head.layers.2.", "head.conv2."),
    ("head.layers.4.", "depth_predictor.0."),
    ("fov_model.", "field_of_view."),
)


DEPTH_FAMILIES: dict[str, DepthFamily] = {
    "depth_anything": DepthFamily(
        classes=("DepthAnythingForDepthEstimation",),
        encoder_config=backbone_config,
        head_options=depth_anything_options,
        depth=depth_anything_depth,
        names=lambda config: DEPTH_ANYTHING_NAMES,
        summary="Depth Anything V1, V2 and their metric versions.",
        meaning="relative inverse depth; metres for the metric versions",
        source="https://huggingface.co/papers/2406.09414",
    ),
    "depth_pro": DepthFamily(
        classes=("DepthProForDepthEstimation",),
        encoder_config=lambda config: config.to_dict(),
        head_options=depth_pro_options,
        depth=lambda config: {"depth_type": "relative_inverse"},
        names=lambda config: DEPTH_PRO_NAMES,
        summary="DepthPro, without its field-of-view network: inverse depth for a focal length of one image width.",
        meaning="relative inverse depth",
        source="https://huggingface.co/papers/2410.02073",
        left_over={"field_of_view.": "depthseg does not use the field-of-view network"},
    ),
    "dpt": DepthFamily(
        classes=("DPTForDepthEstimation",),
        encoder_config=dpt_encoder_config,
        head_options=dpt_options,
        depth=lambda config: {"depth_type": "relative_inverse"},
        names=dpt_names,
        summary="DPT and MiDaS 3.x: with plain ViT, hybrid, BEiT, Swinv2 or DINOv2 encoder.",
        meaning="relative inverse depth",
        source="https://huggingface.co/papers/2103.13413",
    ),
    "glpn": DepthFamily(
        classes=("GLPNForDepthEstimation",),
        encoder_config=lambda config: config.to_dict(),
        head_options=glpn_options,
        depth=lambda config: {"depth_type": "metric", "max_depth": float(config.max_depth)},
        names=lambda config: GLPN_NAMES,
        summary="GLPN, trained on metric depth of indoor or street scenes.",
        meaning="metres",
        source="https://huggingface.co/papers/2201.07436",
    ),
    "prompt_depth_anything": DepthFamily(
        classes=("PromptDepthAnythingForDepthEstimation",),
        encoder_config=backbone_config,
        head_options=depth_anything_options,
        depth=prompt_depth_anything_depth,
        names=lambda config: (
            tuple((f"neck.fusion_stage.layers.{i}.prompt_depth_layer.", f"prompt.{i}.") for i in range(4))
            + DEPTH_ANYTHING_NAMES
        ),
        summary="Prompt Depth Anything, used without a prompt.",
        meaning="depth from 0 to 1 of an unknown range",
        source="https://huggingface.co/papers/2412.14015",
        left_over={"prompt.": "depthseg passes no depth prompt, so these layers are not used"},
    ),
    "zoedepth": DepthFamily(
        classes=("ZoeDepthForDepthEstimation",),
        encoder_config=backbone_config,
        head_options=zoedepth_options,
        depth=zoedepth_depth,
        names=lambda config: ZOEDEPTH_NAMES,
        summary="ZoeDepth, with metric bins for one or two domains.",
        meaning="metres",
        source="https://huggingface.co/papers/2302.12288",
    ),
}
"""Model type in transformers -> its conversion."""

UNSUPPORTED_FAMILIES: dict[str, str] = {
    "chmv2": "predicts the height of tree canopies in aerial images, not depth",
    "tipsv2_dpt": "its neck and its depth-bin head are not implemented yet",
}
"""Model types of transformers with a depth class that are not supported -> reason."""


def depth_family(model_type: str | None, name: Any) -> DepthFamily:
    """Return the row of a model type.

    Raises:
        ValueError: If it is not a depth model, or not a supported one.
    """
    if model_type in UNSUPPORTED_FAMILIES:
        raise ValueError(
            f"{name} has the model type {model_type!r}, which is not supported: {UNSUPPORTED_FAMILIES[model_type]}."
        )
    if model_type not in DEPTH_FAMILIES:
        raise ValueError(
            f"{name} has the model type {model_type!r}, which is not a supported depth model; from_depth_pretrained "
            f"supports depthseg, {', '.join(DEPTH_FAMILIES)}."
        )
    return DEPTH_FAMILIES[model_type]


def convert_config(config: Any) -> dict[str, Any]:
    """Return the options of [`DepthSegConfig`] that describe a depth model of transformers.

    Args:
        config (`PreTrainedConfig`): Its configuration; the model type is a key of [`DEPTH_FAMILIES`].
    """
    family = depth_family(config.model_type, "The configuration")
    return {
        "encoder_config": family.encoder_config(config),
        "head_type": "native",
        "head_config": {"family": config.model_type, "options": family.head_options(config)},
        **family.depth(config),
    }


def rename(name: str, names: tuple[tuple[str, str], ...]) -> str:
    """Return our name of a parameter of a depth model of transformers.

    Raises:
        ValueError: If no prefix matches.
    """
    for prefix, ours in names:
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    raise ValueError(
        f"The depth model has an unknown tensor {name!r}; nothing was loaded. Please report this with the version of "
        "transformers."
    )
