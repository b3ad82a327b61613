"""Small models to export: a row for each encoder and head; another one is tested by adding it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from models.tiny_models import TASKS, TINY_ENCODERS, tiny_config

from depthseg.models import DepthSegImageProcessor

# Encoder -> options beyond those of the tiny models. Native sizes are above the smallest that a file takes.
ENCODERS = {"depthseg_resnet": {}, "depthseg_mobilenet_v2": {}, "dinov2": {"image_size": 56}}
HEADS = ("monodepth2", "dpt", "linear")


def save_model(folder: Path, task: str, encoder: str, head: str, dtype: str = "float32", **options) -> Path:
    """Save a model with norm statistics unlike those of a new one."""
    config = tiny_config(encoder, head, **options)
    row = TINY_ENCODERS[encoder] | ENCODERS.get(encoder, {}) | {"model_type": encoder}
    config = type(config)(encoder_config=row, head_type=head, head_config=config.head_config, num_labels=5, **options)
    model = TASKS[task](config).to(getattr(torch, dtype))
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "running_mean")):
            tensor.copy_(0.5 + torch.rand_like(tensor))
    model.save_pretrained(folder)
    DepthSegImageProcessor().save_pretrained(folder)
    return folder


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
