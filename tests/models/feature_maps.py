"""Encoder features made by hand, and heads built for them, for the tests of the heads."""

from __future__ import annotations

import torch

from depthseg.models import HEADS, EncoderFeatures

# What a convolutional encoder gives for an image of 57x101: five maps whose sizes round up.
CHANNELS = [6, 8, 10, 12, 14]
SIZES = [(29, 51), (15, 26), (8, 13), (4, 7), (2, 4)]
STRIDES = (2.0, 4.0, 8.0, 16.0, 32.0)


def make_head(name: str, options: dict, channels=CHANNELS, strides=STRIDES) -> torch.nn.Module:
    """The head, in evaluation mode."""
    return HEADS[name].cls(list(channels), tuple(strides), 0, HEADS[name].config_class(**options)).eval()


def make_features(channels=CHANNELS, sizes=SIZES, strides=STRIDES, batch: int = 2) -> EncoderFeatures:
    maps = [torch.randn(batch, count, *size) for count, size in zip(channels, sizes, strict=True)]
    return EncoderFeatures(maps, None, tuple(strides), (57, 101), (57, 101))


def random_weights(module: torch.nn.Module) -> torch.nn.Module:
    """Give every tensor, norm statistics included, a value of its own, with maps of ordinary size."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() > 1:
                tensor.normal_(std=tensor[0].numel() ** -0.5)
            elif tensor.is_floating_point():
                tensor.uniform_(-0.5, 1.5)
    return module.eval()


def copy_weights(source: dict[str, torch.Tensor], target: torch.nn.Module, renames: dict[str, str]) -> None:
    """Copy every tensor but the classifier's, names changed piece by piece, into a head."""
    weights = {}
    for name, tensor in source.items():
        if not name.startswith("classifier."):
            for old, new in renames.items():
                name = name.replace(old, new)
            weights[name] = tensor
    shapes = {name: tensor.shape for name, tensor in target.state_dict().items()}
    target.load_state_dict({name: tensor.reshape(shapes[name]) for name, tensor in weights.items()})


def batch_norm(x: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    """Evaluation-mode BatchNorm written out."""
    mean, variance, scale, shift = (
        t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (variance + norm.eps).sqrt() * scale + shift
