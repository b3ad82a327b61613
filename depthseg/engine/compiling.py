"""Training steps through `torch.compile`: the blocks of the encoder and the decoder, each apart.

A whole network as one graph keeps more activations than its parts do, and takes minutes to compile. Blocks of one kind
share one compiled function. Evaluation, whose images may have any size, runs as without it.
"""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


def compile_parts(model: nn.Module, backend: str = "inductor") -> None:
    """Compile the forward passes of a model that are differentiated, in place; names and weights stay as they are."""
    for part in [*_encoder_parts(model.encoder.backbone), model.body]:
        part.forward = _compiled_in_training(part, backend)


def _encoder_parts(backbone: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a backbone that has a list of equal ones, or the backbone as a whole."""
    lists = {name: module for name, module in backbone.named_modules() if _is_list_of_blocks(module)}
    outermost = [lists[name] for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    yield from itertools.chain(*outermost) if outermost else [backbone]


def _is_list_of_blocks(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(block) for block in module}) == 1


def _compiled_in_training(part: nn.Module, backend: str) -> Callable[..., Any]:
    eager = type(part).forward
    # Batches of a run have one size, so a graph for any size would only be slower.
    compiled = torch.compile(eager, backend=backend, dynamic=False)

    @functools.wraps(eager)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return eager(self, *args, **kwargs)
        try:
            return compiled(self, *args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"model.compile=true: PyTorch could not compile {type(self).__name__} ({reason}). It needs a C++ "
                "compiler on a CPU and Triton on a GPU; without them, or where this stays, set model.compile=false."
            ) from error

    # A method, not a closure over the part: a copy of the network then computes with weights of its own.
    return types.MethodType(forward, part)
