"""The state of a run as tensors and JSON: no pickle is written, so none needs to be read."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from .sharding import gathered, shared_out_like

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
PROGRESS = "progress.json"
RANDOM_STATES = "random_states.json"


@dataclass
class Progress:
    """How far a run is; saved with the weights, so that a resumed run continues where this one was.

    Attributes:
        step: Optimiser steps done.
        loss_sum: Sum of the step losses since the last evaluation, without those that are not finite.
        loss_steps: Number of the steps in `loss_sum`.
        bad_steps_in_a_row: Number of the last steps whose loss or gradient was not finite.
        seconds: Time of training behind these weights; what a killed launch did after its last checkpoint is not in
            it.
        selected: Step, loss and scores of the weights in `model/`; empty before the first evaluation.
        evaluation_is_due: Whether these weights are to be evaluated first, as a request to stop came before it.
        pieces: Parts that each micro-batch is cut into, because the memory does not hold it.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    bad_steps_in_a_row: int = 0
    seconds: float = 0.0
    selected: dict[str, Any] = field(default_factory=dict)
    evaluation_is_due: bool = False
    pieces: int = 1


def tensors_of(
    objective: nn.Module, optimizer: torch.optim.Optimizer, keep: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and optimiser state, whole also where processes share them out; called by all processes together.

    Groups of the optimiser are not stored: they are those of the options of the run. A process
    that does not `keep` them only gives its shares.
    """
    return gathered(objective.state_dict(), keep), gathered(_optimizer_tensors(objective, optimizer), keep)


def write_state(
    folder: Path,
    accelerator: Accelerator,
    tensors: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    progress: Progress,
    random_states: Sequence[dict[str, Any]],
) -> None:
    """Write everything that a run needs to resume into an existing folder; called by the first process alone.

    The tensors are what `tensors_of` returned, the random states those of `random_state()` of every process.
    """
    for content, name in zip(tensors, (WEIGHTS, OPTIMIZER), strict=True):
        save_file(separate(content), folder / name)
    scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
    content = {"progress": asdict(progress), "gradient_scaler": scaler}
    (folder / PROGRESS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / RANDOM_STATES).write_text(json.dumps(random_states) + "\n", encoding="utf-8")


def read_state(
    folder: Path,
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Bring back what `write_state` wrote; called by all processes.

    A process that was not there when the state was written takes the random state of one that was, as all processes
    begin a run with the same one.

    Raises:
        ValueError: The state is that of another network.
    """
    weights, expected = load_file(folder / WEIGHTS), objective.state_dict()
    _require_same(folder / WEIGHTS, _kinds(weights), _kinds(expected))
    objective.load_state_dict({name: shared_out_like(weights[name], like) for name, like in expected.items()})
    _load_optimizer(folder / OPTIMIZER, objective, optimizer)
    content = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(content["gradient_scaler"])
    for name, value in content["progress"].items():
        setattr(progress, name, value)
    states = json.loads((folder / RANDOM_STATES).read_text(encoding="utf-8"))
    set_random_state(states[accelerator.process_index % len(states)], accelerator.device)


def random_state(device: torch.device) -> dict[str, Any]:
    """The random states of this process, of Python, NumPy, torch and the device, ready for JSON."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    texts = {kind: bytes(state.cpu().numpy()).hex() for kind, state in generator_states(device).items()}
    outside = {"python": [version, list(words), gauss], "numpy": [name, keys.tolist(), *rest]}
    return outside | {"torch" if kind == "cpu" else kind: text for kind, text in texts.items()}


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's generators, uint8 `(N,)`, by the type of their device; the host does not wait for it."""
    states = {"cpu": torch.get_rng_state()}
    return states if device.type == "cpu" else states | {device.type: torch.get_device_module(device).get_rng_state()}


def set_generator_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Bring back what `generator_states` returned; a device of another type keeps its own."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu" and device.type in states:
        torch.get_device_module(device).set_rng_state(states[device.type])


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Bring back what `random_state` returned; a device of another type keeps its own."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    texts = {"cpu": state["torch"]} | ({device.type: state[device.type]} if device.type in state else {})
    states = {kind: torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8) for kind, text in texts.items()}
    set_generator_states(states, device)


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU where needed, so that tensors are contiguous and no two share memory: safetensors asks it."""
    found, seen = {}, set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        memory = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if memory in seen else plain
        seen.add(memory)
    return found


def _optimizer_tensors(objective: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of each parameter as `PARAMETER/NAME`, such as `model.classifier.weight/exp_avg`."""
    names = {id(parameter): name for name, parameter in objective.named_parameters()}
    return {
        f"{names[id(parameter)]}/{entry}": value
        for parameter, state in optimizer.state.items()
        for entry, value in state.items()
    }


def _load_optimizer(path: Path, objective: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = {id(parameter): number for number, parameter in enumerate(trained)}
    named = {name: p for name, p in objective.named_parameters() if id(p) in numbers}
    state: dict[int, dict[str, Tensor]] = {}
    tensors = load_file(path)
    stored = {key.rpartition("/")[0] for key in tensors}
    _require_same(path, dict.fromkeys(stored), dict.fromkeys(stored & named.keys()))
    for key, value in tensors.items():
        name, _, entry = key.rpartition("/")
        parameter = named[name]
        state.setdefault(numbers[id(parameter)], {})[entry] = _laid_out_like(parameter, value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Optimiser state where and how the optimiser makes it: fused kernels run over it and the parameter at once."""
    if value.shape != parameter.shape:
        return value.clone()
    if isinstance(parameter, DTensor):
        return shared_out_like(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _require_same(path: Path, stored: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    different = sorted(dict(stored.items() ^ expected.items()))
    if different:
        raise ValueError(
            f"{path} is of another network than the options of the run give now: {len(different)} tensors differ, for "
            f"example {different[0]}. Resume with the version of depthseg and the Python code that the run began "
            "with; or set run.overwrite=true to train anew, or another run.output_dir."
        )
