"""Optimiser groups and the learning rate of every step."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .options import OptimOptions, ScheduleOptions


def build_optimizer(
    objective: nn.Module, encoder: nn.Module | None, options: OptimOptions, sharded: bool = False
) -> torch.optim.Optimizer:
    """Make the optimiser over the trainable parameters, grouped by learning rate and decay.

    Args:
        objective: Module that owns everything that is trained.
        encoder: The part that learns at `lr * encoder_lr_factor`, and where `layer_decay` is below 1 layer by layer at
            `layer_decay ** (encoder.num_layers - layer)` of it; None = no such part.
        options: The `optim` section.
        sharded: Whether the parameters will be shared out over processes, for which PyTorch has no fused SGD.

    Returns:
        An optimiser whose groups carry `name` and `peak_lr`; frozen parameters are in none of them.

    Raises:
        ValueError: Nothing is trainable.
    """
    groups = _groups(objective, encoder, options)
    if not groups:
        raise ValueError("Every parameter is frozen: there is nothing to train.")
    # The fused form does the same arithmetic in one pass over memory.
    if options.name == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, fused=not sharded)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[options.name]
    return kind(groups, lr=options.lr, betas=tuple(options.betas), fused=True)


_POSITION = re.compile(r"pos_embed|position")
_QUERY = re.compile(r"queries|query_(embed|feat)|level_embed")


def parameter_kind(owner: nn.Module, name: str) -> str | None:
    """What a parameter is, where that may have a multiplier of its own.

    Args:
        owner: The module that holds the parameter itself.
        name: Its name in the whole network, such as `encoder.backbone.embeddings.position_embeddings`.

    Returns:
        `norm` (scale or shift of a normalisation), `position` (learned position embedding or bias), `query` (learned
        query or level embedding of a mask head), or None for anything else.
    """
    if "Norm" in type(owner).__name__:
        return "norm"
    if isinstance(owner, (nn.Linear, nn.modules.conv._ConvNd)):
        return None
    own_name = ".".join(name.split(".")[-2:] if isinstance(owner, nn.Embedding) else name.split(".")[-1:])
    kinds = {"position": _POSITION, "query": _QUERY}
    return next((kind for kind, pattern in kinds.items() if pattern.search(own_name)), None)


def _multipliers(kind: str | None, ndim: int, options: OptimOptions) -> tuple[float, float]:
    """Factors of the learning rate and of the weight decay."""
    # Norm scales, biases and other vectors set levels, not features: pulling them to zero only biases the output.
    decay = 1.0 if ndim > 1 else 0.0
    if kind == "norm":
        return options.norm_lr_factor, decay or options.norm_decay_factor
    if kind is None:
        return 1.0, decay
    lr_factor, factor = {
        "position": (options.position_lr_factor, options.position_decay_factor),
        "query": (options.query_lr_factor, options.query_decay_factor),
    }[kind]
    return lr_factor, decay * factor


def _groups(objective: nn.Module, encoder: nn.Module | None, options: OptimOptions) -> list[dict]:
    shares = _encoder_shares(encoder, options)
    ordinary: dict[tuple, dict] = {}
    multiplied: dict[tuple, dict] = {}
    owners = dict(objective.named_modules())
    for full_name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            continue
        part, share = shares.get(id(parameter), ("head", 1.0))
        kind = parameter_kind(owners[full_name.rpartition(".")[0]], full_name)
        lr_factor, decay_factor = _multipliers(kind, parameter.ndim, options)
        is_ordinary = (lr_factor, decay_factor) == _multipliers(None, parameter.ndim, options)
        name = part if is_ordinary else f"{part}_{kind}"
        name = name if decay_factor else f"{name}_no_decay"
        lr = options.lr * share * lr_factor
        group = (ordinary if is_ordinary else multiplied).setdefault(
            (name, lr_factor, decay_factor),
            {"name": name, "params": [], "lr": lr, "peak_lr": lr, "weight_decay": options.weight_decay * decay_factor},
        )
        group["params"].append(parameter)
    # The learning rate of the last group is the one that is logged.
    return [*multiplied.values(), *ordinary.values()]


def _encoder_shares(encoder: nn.Module | None, options: OptimOptions) -> dict[int, tuple[str, float]]:
    """Group name of each parameter of the encoder, by its `id`, and its share of the learning rate."""
    if encoder is None:
        return {}
    if options.layer_decay == 1:
        return {id(parameter): ("encoder", options.encoder_lr_factor) for parameter in encoder.parameters()}
    shares = {}
    for name, parameter in encoder.named_parameters():
        layer = encoder.layer_of(name)
        share = options.encoder_lr_factor * options.layer_decay ** (encoder.num_layers - layer)
        shares[id(parameter)] = (f"encoder_{layer}", share)
    return shares


def learning_rate_factor(step: int, schedule: ScheduleOptions) -> float:
    """Share of the peak learning rate at an optimiser step.

    Args:
        step: Steps already done, from 0 to `schedule.steps - 1`.
        schedule: The `schedule` section.

    Returns:
        A number in (0, 1]: a linear rise to 1 over the warm-up, then the schedule's curve towards 0.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    progress = (step - schedule.warmup_steps) / (schedule.steps - schedule.warmup_steps)
    if schedule.name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if schedule.name == "poly":
        return (1.0 - progress) ** schedule.power
    return 1.0


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, schedule: ScheduleOptions) -> float:
    """Give every group its learning rate for a step.

    Returns:
        The learning rate of the last group (the head, wherever the head is trained).
    """
    factor = learning_rate_factor(step, schedule)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return optimizer.param_groups[-1]["lr"]
