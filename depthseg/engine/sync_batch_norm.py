"""Batch normalisation over the batch of all processes, also where PyTorch's own cannot run (CPU, gloo)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverProcesses(torch.autograd.Function):
    """Differentiable sum over processes: every process's loss depends on the sum, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Return the sum."""
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Return the sum of the gradients."""
        return _SumOverProcesses.apply(gradient)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics cover the images of all processes.

    Keys and values of the state are those of `nn.BatchNorm2d`, so checkpoints go both ways. In eval mode (a frozen
    encoder, scoring) it is `nn.BatchNorm2d` and nothing is exchanged.
    """

    @classmethod
    def from_batch_norm(cls, norm: nn.BatchNorm2d) -> SyncBatchNorm2d:
        """Take over the parameters and buffers (the same tensors) of a plain layer."""
        synced = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        synced.weight, synced.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(synced, name, buffer)
        return synced.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(B, C, H, W)` channel by channel."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        count = _SumOverProcesses.apply(x.new_tensor([x.numel() / x.shape[1]]))
        # Two passes: E[x^2] - E[x]^2 would cancel digits where the mean is large.
        mean = _SumOverProcesses.apply(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        normalised = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised.to(input.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Replace the `nn.BatchNorm2d` layers of a module that is trained by several processes, in place.

    Layers with frozen weights stay as they are. On CUDA PyTorch's own `SyncBatchNorm` is used.

    Returns:
        The module itself.
    """
    for name, child in module.named_children():
        if type(child) is not nn.BatchNorm2d:
            synchronise_batch_norm(child)
        elif child.weight is None or child.weight.requires_grad:
            on_gpu = next(child.parameters(), torch.empty(0)).is_cuda
            convert = nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else SyncBatchNorm2d.from_batch_norm
            setattr(module, name, convert(child))
    return module
