"""Steps whose loss or gradient is not a finite number: left out, written down, and stopped at if they do not end.

The bundle of such a step is a folder `bad_steps/step_N` of the run directory, which `depthseg replay` runs again:

    bundle.json            step, loss or gradient and its value, learning rate, files of the batch by process, and
                           `weights_after_step`, the step after which the weights are
    config.yaml            options of the run
    config.json            configuration of the model
    model.safetensors      weights and buffers of everything that is trained
    batch_R.safetensors    tensors of the micro-batches of process R, `K/NAME`, and its random states before the step

A bad step leaves weights and buffers as before it. Numbers are read from the device every `run.log_every` steps, so a
good step between it and the reading has changed them: `weights_after_step` is then greater than `step`.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models.encoders_base_depthseg import EncoderFeatures
from .atomic import atomic_folder
from .records import write_json
from .sharding import gathered
from .state import WEIGHTS, separate

if TYPE_CHECKING:
    from .loop import Training
    from .pending import Batch, StepRecord

logger = logging.getLogger(__name__)

FOLDER = "bad_steps"
BUNDLE = "bundle.json"
FORMAT = 1
KEPT = 3
"""Bundles of a run; each holds all weights."""

_MAPS, _PREFIX, _GEOMETRY = "maps", "prefix_tokens", ("strides", "input_size", "padded_size")


@dataclass(frozen=True)
class BatchSource:
    """Where the batches of a run are from.

    Attributes:
        names: Number of a step, from 1 -> names of the samples of each micro-batch of this process.
        image_size: Height and width of the first training image.
        pixel_aspect: Of a video that is squeezed as it is read; else 1.
    """

    names: Callable[[int], list[list[str]]]
    image_size: tuple[int, int]
    pixel_aspect: float = 1.0


@dataclass
class LastGood:
    """The state before the last bad steps in a row, to which training can return.

    Attributes:
        step: Steps done.
        random_states: Those of torch in this process, by the type of their device.
    """

    step: int
    random_states: Mapping[str, Tensor]


@dataclass(frozen=True)
class BadStep:
    """A step whose loss or gradient is not finite.

    Attributes:
        record: Its numbers, and the batches of this process.
        steps_in_a_row: Bad steps up to this one with no good one in between.
    """

    record: StepRecord
    steps_in_a_row: int

    @property
    def what(self) -> str:
        """What is not finite: `loss` or `gradient`."""
        return "gradient" if math.isfinite(self.record.values["loss"]) else "loss"

    @property
    def value(self) -> float:
        """What it is instead."""
        return self.record.values["grad_norm" if self.what == "gradient" else "loss"]


def describe(training: Training, steps: Sequence[BadStep]) -> list[str]:
    """Keep the bundles of the last of some bad steps, which come in their order; called by all processes together.

    Returns:
        What the user is told of each step.
    """
    if training.source is None:
        return [_sentence(step, [], []) for step in steps]
    said = []
    for number, step in enumerate(steps, start=1):
        batches, names = step.record.micro_batches, training.source.names(step.record.step)
        # Of many processes one may have let its batches go while another has not.
        kept = all(gather_object([bool(batches)]))
        about = gather_object([{"files": names, "not_finite": _not_finite(batches, names) if kept else []}])
        bundle = write_bundle(training, step, about) if kept and number > len(steps) - KEPT else None
        said.append(_sentence(step, *([each[key] for each in about] for key in ("files", "not_finite")), bundle))
        if not kept:
            said[-1] += " It is not kept for replay, because later batches took its memory."
    return said


def write_bundle(training: Training, problem: BadStep, about: list[dict[str, Any]]) -> Path | None:
    """Write the bundle of a step; called by all processes together.

    Args:
        training: What the loop works on.
        problem: The step.
        about: Of every process `files`, the names of the samples of its micro-batches, and those `not_finite`.

    Returns:
        The folder; None where it could not be written, which is logged.
    """
    accelerator, record = training.accelerator, problem.record
    folder = training.run_dir / FOLDER / f"step_{record.step}"
    objective = accelerator.unwrap_model(training.objective)
    weights = gathered(objective.state_dict(), accelerator.is_main_process)
    parts = folder.with_name(f".{folder.name}.parts")
    written = True
    try:
        parts.mkdir(parents=True, exist_ok=True)
        path = parts / f"batch_{accelerator.process_index}.safetensors"
        _write_batches(path, record.micro_batches, record.random_states)
    except Exception as error:  # what is wrong with the step matters more than its record
        logger.warning("The batch of step %d could not be kept: %s.", record.step, error)
        written = False
    if all(gather_object([written])) and accelerator.is_main_process:
        try:
            with atomic_folder(folder) as partial:
                parts.rename(partial)
                save_file(separate(weights), partial / WEIGHTS)
                training.config.save(partial / "config.yaml")
                objective.model.config.save_pretrained(partial)
                write_json(partial / BUNDLE, _facts(training, problem, about))
            _remove_old(folder.parent)
        except Exception as error:
            logger.warning("The bundle of step %d could not be written: %s.", record.step, error)
            written = False
    if accelerator.is_main_process:
        shutil.rmtree(parts, ignore_errors=True)
    accelerator.wait_for_everyone()
    return folder if all(gather_object([written])) else None


def _facts(training: Training, problem: BadStep, about: list[dict[str, Any]]) -> dict[str, Any]:
    source, progress = training.source, training.progress
    return {
        "format": FORMAT,
        "step": problem.record.step,
        "what": problem.what,
        "value": str(problem.value),  # JSON knows no NaN
        "lr": problem.record.lr,
        "weights_after_step": progress.step - progress.bad_steps_in_a_row,
        "image_size": source.image_size,
        "pixel_aspect": source.pixel_aspect,
        "files": [each["files"] for each in about],
        "not_finite": sorted({name for each in about for name in each["not_finite"]}),
    }


def _not_finite(batches: Sequence[Batch], names: Sequence[Sequence[str]]) -> list[str]:
    """Names of the samples whose images hold values that are not finite."""
    found = []
    for batch, of_batch in zip(batches, names, strict=True):
        images = [values for key, values in batch.items() if "pixel_values" in key or "image" in key]
        for values in images:
            for each in _tensors_of("", values).values():
                rows = each.flatten(1).isfinite().all(1).tolist()
                found += [name for name, finite in zip(of_batch, rows, strict=True) if not finite]
    return found


def _write_batches(path: Path, batches: Sequence[Batch], random_states: Mapping[str, Tensor]) -> None:
    tensors, texts = {}, {}
    for number, batch in enumerate(batches):
        for name, values in batch.items():
            tensors |= _tensors_of(f"{number}/{name}", values)
            if isinstance(values, EncoderFeatures):
                texts[f"{number}/{name}"] = json.dumps({key: getattr(values, key) for key in _GEOMETRY})
    tensors |= {f"random/{device}": state for device, state in random_states.items()}
    save_file(separate(tensors), path, texts)


def _tensors_of(name: str, values: Tensor | EncoderFeatures) -> dict[str, Tensor]:
    if isinstance(values, Tensor):
        return {name: values}
    lists = {_MAPS: values.maps, _PREFIX: values.prefix_tokens or []}
    return {
        f"{name}/{kind}/{number}": tensor
        for kind, tensors in lists.items()
        for number, tensor in enumerate(tensors)
        if tensor is not None
    }


def read_batches(path: Path) -> tuple[list[dict[str, Tensor | EncoderFeatures]], dict[str, Tensor]]:
    """The micro-batches of a process and its random states, by the type of their device."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
    states = {name.removeprefix("random/"): tensors.pop(name) for name in list(tensors) if name.startswith("random/")}
    batches: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, key, *place = name.split("/")
        batch = batches.setdefault(int(number), {})
        if place:
            batch.setdefault(key, {})[tuple(place)] = tensor
        else:
            batch[key] = tensor
    for name, text in texts.items():
        number, key = name.split("/")
        batches[int(number)][key] = _features(batches[int(number)][key], json.loads(text))
    return [batches[number] for number in sorted(batches)], states


def _features(tensors: Mapping[tuple[str, str], Tensor], geometry: Mapping[str, Sequence[float]]) -> EncoderFeatures:
    count = len(geometry["strides"])
    maps, prefix_tokens = ([tensors.get((kind, str(n))) for n in range(count)] for kind in (_MAPS, _PREFIX))
    has_prefix = any(tensor is not None for tensor in prefix_tokens)
    return EncoderFeatures(maps, prefix_tokens if has_prefix else None, *(tuple(geometry[key]) for key in _GEOMETRY))


def _remove_old(folder: Path) -> None:
    """Keep the newest bundles alone."""
    found = [path for path in folder.glob("step_*") if path.name.removeprefix("step_").isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.removeprefix("step_")))[:-KEPT]:
        shutil.rmtree(path)


def _sentence(
    problem: BadStep,
    files: Sequence[Sequence[Sequence[str]]],
    not_finite: Sequence[Sequence[str]],
    bundle: Path | None = None,
) -> str:
    """What the user is told of a bad step: names of its samples by process and micro-batch, of the bad by process."""
    record, count = problem.record, problem.steps_in_a_row
    said = f"The {problem.what} of step {record.step} is {problem.value} at learning rate {record.lr:.3g}"
    said += f" ({count} such steps in a row)." if count > 1 else "."
    names = [name for process in files for batch in process for name in batch]
    if names:
        said += f" Its batch: {', '.join(names[:8])}" + (f" and {len(names) - 8} more." if len(names) > 8 else ".")
    culprits = ", ".join(sorted({name for process in not_finite for name in process}))
    if culprits:
        said += f" Values that are not finite were read from {culprits}."
    return said if bundle is None else f"{said} `depthseg replay {bundle}` runs it again."
