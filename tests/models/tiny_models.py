"""The smallest model of each kind, for the tests of `depthseg.models`."""

from __future__ import annotations

import torch

from depthseg.models import (
    ENCODERS,
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForImageClassification,
    DepthSegForImageReconstruction,
    DepthSegForOpticalFlow,
    DepthSegForSemanticSegmentation,
)

# A plain ViT and a pyramid of four stages, in the words that most of transformers' configurations share. Without
# stochastic depth, which with one image leaves out whole layers.
TINY_VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
TINY_PYRAMID = {"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1]}
TINY_SWIN = {
    "image_size": 64,
    "embed_dim": 8,
    "depths": [1, 1, 1, 2],
    "num_heads": [1, 2, 2, 2],
    "window_size": 4,
    "mlp_ratio": 2.0,
    "drop_path_rate": 0.0,
}
DINOV2_IN_DEPTH_PRO = TINY_VIT | {"model_type": "dinov2", "mlp_ratio": 2, "patch_size": 16}
TINY_ENCODERS = {
    "depthseg_resnet": {"depth": 18, "width_factor": 0.125},
    "depthseg_mobilenet_v2": {"width_factor": 0.1},
    "depthseg_efficientnet_lite": {"width_factor": 0.1},
    "vit": TINY_VIT | {"intermediate_size": 32},
    "vit_mae": TINY_VIT | {"intermediate_size": 32},
    "dpt": TINY_VIT | {"intermediate_size": 32, "backbone_out_indices": [0, 1, 2, 3]},
    "glpn": {
        "hidden_sizes": [8, 16, 16, 24],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 2, 2],
        "mlp_ratios": [2, 2, 2, 2],
        "drop_path_rate": 0.0,
    },
    "depth_pro": {
        "patch_size": 32,
        "scaled_images_ratios": [0.25, 0.5, 1],
        "scaled_images_overlap_ratios": [0.0, 0.5, 0.25],
        "scaled_images_feature_dims": [16, 16, 16],
        "intermediate_hook_ids": [2, 0],
        "intermediate_feature_dims": [16, 16],
        "fusion_hidden_size": 16,
        "image_model_config": DINOV2_IN_DEPTH_PRO,
        "patch_model_config": DINOV2_IN_DEPTH_PRO,
        "fov_model_config": DINOV2_IN_DEPTH_PRO,
    },
    "dinov2": TINY_VIT | {"mlp_ratio": 2, "image_size": 28, "patch_size": 14, "out_indices": [1, 2, 3, 4]},
    "dinov2_with_registers": TINY_VIT | {"mlp_ratio": 2, "image_size": 28, "patch_size": 14, "num_register_tokens": 2},
    "dinov3_vit": TINY_VIT | {"intermediate_size": 32, "num_register_tokens": 2},
    "dinov3_convnext": TINY_PYRAMID,
    "beit": TINY_VIT | {"intermediate_size": 32, "drop_path_rate": 0.0, "use_relative_position_bias": True},
    "bit": TINY_PYRAMID | {"hidden_sizes": [32, 32, 64, 64], "embedding_size": 32, "num_groups": 8},
    "convnext": TINY_PYRAMID,
    "convnextv2": TINY_PYRAMID,
    "focalnet": TINY_PYRAMID
    | {
        "embed_dim": 8,
        "image_size": 64,
        "focal_levels": [1, 1, 1, 1],
        "focal_windows": [3, 3, 3, 3],
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
    },
    "hgnet_v2": TINY_PYRAMID
    | {
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 8, 16, 16],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [8, 16, 16, 24],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 2, 2],
    },
    "hiera": {
        "image_size": [64, 64],
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 2],
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
    },
    "lw_detr_vit": TINY_VIT
    | {"pretrain_image_size": 32, "num_windows": 4, "window_block_indices": [0, 2], "mlp_ratio": 2},
    "maskformer-swin": TINY_SWIN,
    "pixio": TINY_VIT | {"mlp_ratio": 2, "n_cls_tokens": 3},
    "pp_lcnet": {
        "stem_channels": 8,
        # Kernel size, channels in and out, stride, squeeze and excitation: one block a stage.
        "block_configs": [
            [[3, 8, 8, 1, False]],
            [[3, 8, 8, 2, False]],
            [[3, 8, 16, 2, False]],
            [[3, 16, 16, 2, False]],
            [[5, 16, 24, 2, True]],
        ],
    },
    "pvt_v2": TINY_PYRAMID | {"num_attention_heads": [1, 2, 2, 2], "mlp_ratios": [2, 2, 2, 2], "drop_path_rate": 0.0},
    "resnet": TINY_PYRAMID | {"embedding_size": 8, "layer_type": "basic"},
    "rt_detr_resnet": TINY_PYRAMID | {"embedding_size": 8, "layer_type": "basic"},
    "sapiens2": TINY_VIT
    | {
        "intermediate_size": 32,
        "num_register_tokens": 2,
        "num_key_value_attention_heads": 1,
        "num_first_full_attention_layers": 1,
        "num_last_full_attention_layers": 1,
    },
    "swin": TINY_SWIN,
    "swinv2": TINY_SWIN,
    "textnet": {
        "stem_out_channels": 8,
        "hidden_sizes": [8, 8, 16, 16, 24],
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]], [[3, 3], [1, 3]], [[3, 3], [3, 1]]],
        "conv_layer_strides": [[2], [2], [2, 1], [2, 1]],
    },
    "tipsv2_vision_model": TINY_VIT | {"mlp_ratio": 2, "image_size": 28, "patch_size": 14},
    "vitdet": TINY_VIT | {"mlp_ratio": 2, "window_size": 3, "window_block_indices": [0, 2]},
}
TINY_ENCODERS = {name: {"model_type": name} | options for name, options in TINY_ENCODERS.items() if name in ENCODERS}

ENCODERS_OF_CLASSES = {entry.cls: name for name, entry in ENCODERS.items()}.values()
"""One of the encoders that a class serves, for what depends on the class alone."""
RESNET, DINOV2, VIT = (TINY_ENCODERS[name] for name in ("depthseg_resnet", "dinov2", "vit"))
TINY_HEADS = {
    "monodepth2": {"decoder_channels": [8, 8, 8, 8, 8]},
    "dpt": {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "head_hidden_size": 8},
    "linear": {"num_layers": 1},
    "fcn": {"channels": 8},
    "deeplabv3": {"channels": 8},
    "upernet": {"channels": 8},
    "segformer": {"channels": 8},
    "mask2former": {
        **{"channels": 32, "num_attention_heads": 2, "num_queries": 7, "pixel_layers": 1, "pixel_feedforward": 16},
        **{"decoder_layers": 3, "decoder_feedforward": 16},
    },
    "mask_queries": {"channels": 8, "num_attention_heads": 2, "num_layers": 2, "num_queries": 7},
}
# What some pairs need: no readout without a CLS token, a decoder as deep as DepthPro's six maps.
PAIR_OPTIONS = {
    ("vitdet", "dpt"): {"readout_type": "ignore"},
    ("lw_detr_vit", "dpt"): {"readout_type": "ignore"},
    ("depth_pro", "monodepth2"): {"decoder_channels": [8, 8, 8, 8, 8, 8]},
}
TASKS = {"depth": DepthSegForDepthEstimation, "segmentation": DepthSegForSemanticSegmentation}
PRETEXT_TASKS = {
    "flow": DepthSegForOpticalFlow,
    "reconstruction": DepthSegForImageReconstruction,
    "classification": DepthSegForImageClassification,
}
NUM_LABELS = 5


def tiny_config(encoder: str = "depthseg_resnet", head: str = "monodepth2", **options) -> DepthSegConfig:
    head_config = TINY_HEADS[head] | PAIR_OPTIONS.get((encoder, head), {})
    options = {"head_config": head_config, "num_labels": NUM_LABELS} | options
    return DepthSegConfig(encoder_config=dict(TINY_ENCODERS[encoder]), head_type=head, **options)


def tiny_model(task: str, encoder: str = "depthseg_resnet", head: str = "monodepth2", **options):
    return (TASKS | PRETEXT_TASKS)[task](tiny_config(encoder, head, **options))


def make_labels(task: str, *shape: int) -> torch.Tensor:
    """Random labels with every class, or depths from 2 to 12 metres; one corner unknown."""
    labels = torch.randint(0, NUM_LABELS, shape) if task == "segmentation" else 2 + 10 * torch.rand(shape)
    labels[:, :4, :4] = 255 if task == "segmentation" else 0
    return labels


@torch.no_grad()
def scramble(model: torch.nn.Module) -> torch.nn.Module:
    """Give every tensor, statistics and counters included, a value that no initialisation gives."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + (0.5 if name.endswith("running_var") else 0.01))
        else:
            tensor.fill_(7)
    return model
