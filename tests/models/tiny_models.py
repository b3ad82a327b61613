"""The smallest model of each kind, for the tests of `depthseg.models`."""

from __future__ import annotations

import torch

from depthseg.models import DepthSegConfig, DepthSegForDepthEstimation, DepthSegForSemanticSegmentation

RESNET = {"model_type": "depthseg_resnet", "depth": 18, "width_factor": 0.125}
DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 28,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 4],
}
VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}
TINY_ENCODERS = {"depthseg_resnet": RESNET, "dinov2": DINOV2, "vit": VIT}
TINY_HEADS = {
    "monodepth2": {"decoder_channels": [8, 8, 8, 8, 8]},
    "dpt": {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "head_hidden_size": 8},
    "linear": {"num_layers": 1},
}
TASKS = {"depth": DepthSegForDepthEstimation, "segmentation": DepthSegForSemanticSegmentation}
NUM_LABELS = 5


def tiny_config(encoder: str = "depthseg_resnet", head: str = "monodepth2", **options) -> DepthSegConfig:
    options = {"head_config": dict(TINY_HEADS[head]), "num_labels": NUM_LABELS} | options
    return DepthSegConfig(encoder_config=dict(TINY_ENCODERS[encoder]), head_type=head, **options)


def tiny_model(task: str, encoder: str = "depthseg_resnet", head: str = "monodepth2", **options):
    return TASKS[task](tiny_config(encoder, head, **options))


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
