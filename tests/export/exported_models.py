"""Small models to export: a row for each encoder and head; another one is tested by adding it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from models.tiny_models import TASKS, TINY_ENCODERS, TINY_HEADS

from depthseg.models import DepthSegConfig, DepthSegImageProcessor

# Encoder -> options beyond those of the tiny models. Native sizes are above the smallest that a file takes.
ENCODERS = {"depthseg_resnet": {}, "depthseg_mobilenet_v2": {}, "dinov2": {"image_size": 56}, "swin": {}}
HEADS = ("monodepth2", "dpt", "linear", "upernet", "mask_queries")
NATIVE = {
    "family": "depth_anything",
    "options": TINY_HEADS["dpt"] | {"neck_hidden_sizes": [8, 8, 16, 16], "readout_type": "ignore"},
}
# Encoder, head and options of the head: each encoder and each head once, as the one is exported whatever the other is,
# and single rows for what is exported beside them.
PAIRS = [
    *(("depthseg_resnet", head, TINY_HEADS[head]) for head in HEADS),
    *((encoder, "dpt", TINY_HEADS["dpt"]) for encoder in ENCODERS if encoder != "depthseg_resnet"),
    ("depthseg_efficientnet_lite", "linear", TINY_HEADS["linear"]),
    ("dinov2", "native", NATIVE),
]


def save_model(
    folder: Path,
    task: str,
    encoder: str,
    head: str,
    dtype: str = "float32",
    head_config: dict | None = None,
    **options,
) -> Path:
    """Save a model with norm statistics unlike those of a new one."""
    row = TINY_ENCODERS[encoder] | ENCODERS.get(encoder, {}) | {"model_type": encoder}
    head_config = TINY_HEADS[head] if head_config is None else head_config
    config = DepthSegConfig(encoder_config=row, head_type=head, head_config=head_config, num_labels=5, **options)
    model = TASKS[task](config).to(getattr(torch, dtype))
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "running_mean")):
            tensor.copy_(0.5 + torch.rand_like(tensor))
    model.save_pretrained(folder)
    DepthSegImageProcessor().save_pretrained(folder)
    return folder


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
