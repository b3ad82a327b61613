"""Weights, gradients and optimiser state shared out over processes: PyTorch's FSDP2, as Accelerate prepares it.

A launcher asks for it (`accelerate launch --config_file training/launch/fsdp2.yaml`). Each process trains its share,
and keeps one whole copy of the weights for evaluating and for saving `model/`, because images are shared out one by
one and processes must not wait for each other in the middle of one. Checkpoints hold whole tensors, as those of any
other run, so that a run resumes under any number of processes, sharded or not.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from ..models.encoders_layers_depthseg import attention_blocks

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn


def sharding_plugin() -> FullyShardedDataParallelPlugin | None:
    """The plugin of Accelerate for what the launcher asks for; None where it does not ask for sharding.

    Raises:
        ValueError: The launcher asks for FSDP of version 1.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(
            f"The launcher asks for FSDP {version}, and depthseg trains with FSDP2 alone: set `fsdp_version: 2` in "
            "the `fsdp_config` of Accelerate, as training/launch/fsdp2.yaml does."
        )
    # Weights stay in float32 and autocast computes in run.precision, as without sharding. Accelerate's own policy
    # would also round what the objective is given: depth labels and intrinsics.
    return FullyShardedDataParallelPlugin(fsdp_version=2, mixed_precision_policy=MixedPrecisionPolicy())


def shard_on_cpu(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None) -> None:
    """Shard on CPUs, too: PyTorch can, over gloo, while Accelerate only replicates there."""
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Both know it, as Accelerate itself has it on GPUs: a new AcceleratorState copies from PartialState.
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin


def copy_to_shard(objective: nn.Module) -> nn.Module:
    """A copy of an objective that `Accelerator.prepare` may share out; blocks of a transformer become units."""
    trained = copy.deepcopy(objective).to(memory_format=torch.contiguous_format)  # FSDP2 cuts no other layout
    encoder = trained.model.encoder
    blocks = {type(encoder.get_submodule(name)).__name__ for name in attention_blocks(encoder)}
    trained._no_split_modules = sorted(blocks)
    return trained


@torch.no_grad()
def collect(sharded: nn.Module, target: nn.Module) -> None:
    """Bring the whole copy of the weights up to date; called by all processes together."""
    targets = target.state_dict()
    for name, tensor in sharded.state_dict().items():
        targets[name].copy_(whole(tensor))


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which processes may hold shares; called by all of them together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors from shares, one after the other; called by all processes together.

    Args:
        tensors: The same names in all processes. What is not shared out is taken as it is.
        keep: Whether this process needs them; otherwise it only gives its shares.
    """
    found = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor().cpu() if keep else tensor.full_tensor()
        if keep:
            found[name] = tensor
    return found


def shared_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The share of this process in a whole tensor that all have, where `like` is shared out."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
