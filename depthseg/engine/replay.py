"""Runs the bundle of a bad step again and finds where values stop being finite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .bad_steps import BUNDLE, FORMAT, read_batches
from .config import load_config
from .lora import add_adapters
from .pure_bf16 import compute_in_bf16
from .run import make_accelerator
from .skipping import Statistics
from .small_memory import single_rows
from .state import WEIGHTS, set_generator_states
from .tasks import task_of

if TYPE_CHECKING:
    from .options import RunConfig


@dataclass(frozen=True)
class Replay:
    """What a step did when it was run again.

    Attributes:
        facts: The content of `bundle.json`.
        loss: Of the whole batch.
        grad_norm: Length of its gradient, before clipping.
        first_layer: Name of the first layer whose output is not finite; None if all are.
        parameters: Names of the parameters whose gradient is not finite.
        files: Names of the samples whose own loss, in evaluation mode, is not finite.
    """

    facts: dict[str, Any]
    loss: float
    grad_norm: float
    first_layer: str | None
    parameters: list[str]
    files: list[str]

    @property
    def has_later_weights(self) -> bool:
        """Whether good steps after this one have changed the weights that it is run with."""
        return self.facts["weights_after_step"] > self.facts["step"]

    def sentences(self) -> Iterator[str]:
        """What was found, line by line."""
        facts = self.facts
        yield f"Step {facts['step']}, learning rate {facts['lr']:.3g}: the {facts['what']} was {facts['value']}."
        if self.has_later_weights:
            yield (
                f"The weights are those after step {facts['weights_after_step']}: later steps changed them before the "
                "run looked at this one. With run.log_every=1 they are those before it."
            )
        yield f"Now: loss {self.loss:.6g}, length of the gradient {self.grad_norm:.6g}."
        if facts["not_finite"]:
            yield f"Values that are not finite were read from {', '.join(facts['not_finite'])}."
        if self.first_layer is not None:
            yield f"First layer whose output is not finite: {self.first_layer}."
        if self.files:
            yield f"Alone, the loss is not finite for {', '.join(self.files)}."
        if self.parameters:
            more = f" and {len(self.parameters) - 5} more" if len(self.parameters) > 5 else ""
            yield f"Gradient that is not finite: {', '.join(self.parameters[:5])}{more}."
        if np.isfinite([self.loss, self.grad_norm]).all():
            what = "weights, device" if self.has_later_weights else "device"
            yield f"Loss and gradient are finite here: {what}, precision or versions differ from those of the run."


class _RecordedSet(Sequence):
    """What an objective asks of a training set when it is built, as the bundle has it."""

    label_space = None

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(image=np.zeros((*self._facts["image_size"], 3), dtype=np.uint8))

    def pixel_aspect(self, index: int) -> float:
        return self._facts["pixel_aspect"]


def replay(bundle: str | Path, cpu: bool = False) -> Replay:
    """Run the bundle of a bad step again, all its processes in this one.

    Args:
        bundle: The folder.
        cpu: Stay on the CPU even where there is a GPU.

    Raises:
        FileNotFoundError: No such bundle.
        ValueError: The bundle is damaged, or of another version.
    """
    bundle = Path(bundle)
    facts = _read_facts(bundle)
    config = load_config(bundle / "config.yaml", is_record=True)
    config.run.cpu = config.run.cpu or cpu
    accelerator = make_accelerator(config)
    try:
        objective = _objective(bundle, config, facts).to(accelerator.device, memory_format=torch.channels_last)
        parts = [read_batches(bundle / f"batch_{rank}.safetensors") for rank in range(len(facts["files"]))]
    except SafetensorError as error:
        raise ValueError(f"A file of {bundle} is damaged ({error}); the bundle cannot be run.") from error
    batches = [
        {name: values.to(accelerator.device) for name, values in batch.items()} for part, _ in parts for batch in part
    ]
    names = [names for process in facts["files"] for names in process]
    set_generator_states(parts[0][1], accelerator.device)
    num_valid = torch.stack([objective.count_valid(batch) for batch in batches]).sum(0).clamp(min=1)
    statistics = Statistics(objective)
    loss = 0.0
    with _first_not_finite(objective) as found:
        for batch in batches:
            with accelerator.autocast():
                parts_of_loss = objective(batch, num_valid.to(accelerator.device))
            parts_of_loss["loss"].backward()
            loss += float(parts_of_loss["loss"].detach())
    gradients = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    norm = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
    statistics.restore()
    return Replay(
        facts=facts,
        loss=loss,
        grad_norm=norm,
        first_layer=found[0] if found else None,
        parameters=[name for name, gradient in gradients.items() if not gradient.isfinite().all()],
        files=_bad_alone(objective.eval(), batches, names),
    )


def _read_facts(bundle: Path) -> dict[str, Any]:
    if not (bundle / BUNDLE).is_file():
        raise FileNotFoundError(
            f"{bundle} is no bundle of a bad step: it has no {BUNDLE}. A run keeps them in RUN_DIR/bad_steps/step_N."
        )
    try:
        facts = json.loads((bundle / BUNDLE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{bundle / BUNDLE} is damaged ({error}); the bundle cannot be run.") from error
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"{bundle / BUNDLE} is of format {facts.get('format')!r}; this version of depthseg reads format {FORMAT}."
        )
    return facts


def _objective(bundle: Path, config: RunConfig, facts: dict[str, Any]) -> nn.Module:
    task = task_of(config)
    model = task.model_class(task.model_class.config_class.from_pretrained(bundle))
    if config.model.freeze_encoder:
        model.freeze_encoder()
    if config.model.lora.rank:
        add_adapters(model, config.model.lora)
    if config.run.pure_bf16:
        compute_in_bf16(model)
    objective = task.objective(config, model, _RecordedSet(facts)).train()
    objective.load_state_dict(load_file(bundle / WEIGHTS))
    return objective


@contextmanager
def _first_not_finite(objective: nn.Module) -> Iterator[list[str]]:
    """Collect the names of layers whose output is not finite, in the order in which they are run."""
    found: list[str] = []

    def look(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not output.isfinite().all():
            found.append(name)

    leaves = [(name, module) for name, module in objective.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(partial(look, name)) for name, module in leaves]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _bad_alone(objective: nn.Module, batches: Sequence[Any], names: Sequence[Sequence[str]]) -> list[str]:
    """Names of the samples whose loss is not finite when no other sample is in the batch."""
    return [
        name
        for batch, of_batch in zip(batches, names, strict=True)
        for name, row in zip(of_batch, single_rows(batch), strict=True)
        if not objective(row, objective.count_valid(row).clamp(min=1))["loss"].isfinite()
    ]
