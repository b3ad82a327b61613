"""Steps whose loss or gradient is not a finite number: left out, written down, and stopped at if they do not end.

The bundle of such a step is a folder `bad_steps/step_N` of the run directory, which `depthseg replay` runs again:

    bundle.json            step, loss or gradient and its value, learning rate, files of the batch by process
    config.yaml            options of the run
    config.json            configuration of the model
    model.safetensors      weights and buffers before the step, of everything that is trained
    batch_R.safetensors    tensors of the micro-batches of process R, `K/NAME`, and its random states before the step
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models.encoders_base_depthseg import EncoderFeatures
from .atomic import atomic_folder
from .records import write_json
from .state import WEIGHTS, separate

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from .options import RunConfig

logger = logging.getLogger(__name__)

FOLDER = "bad_steps"
BUNDLE = "bundle.json"
FORMAT = 1
KEPT = 3
"""Bundles of a run; each holds all weights."""

_MAPS, _PREFIX, _GEOMETRY = "maps", "prefix_tokens", ("strides", "input_size", "padded_size")

Batch = Mapping[str, Tensor | EncoderFeatures]


class BadStepError(FloatingPointError):
    """The loss or the gradient of a step is not a finite number; the weights are as before the step.

    Args:
        what: `loss` or `gradient`.
        value: What it is.
        step: Number of the step, from 1.
        lr: Learning rate of the step.
        stopping: Whether any process was asked to stop.

    Attributes:
        random_states: Those of torch before the step, by the type of their device.
    """

    def __init__(self, what: str, value: float, step: int, lr: float, stopping: bool = False) -> None:
        self.what, self.value, self.step, self.lr, self.stopping = what, value, step, lr, stopping
        self.random_states: Mapping[str, Tensor] = {}
        super().__init__(f"The {what} of step {step} is {value} at learning rate {lr:.3g}")


@dataclass(frozen=True)
class BatchSource:
    """Where the batches of a run are from.

    Attributes:
        names: Step, from 0 -> names of the samples of each micro-batch of this process.
        image_size: Height and width of the first training image.
        pixel_aspect: Of a video that is squeezed as it is read; else 1.
    """

    names: Callable[[int], list[list[str]]]
    image_size: tuple[int, int]
    pixel_aspect: float = 1.0


def write_bundle(
    run_dir: Path,
    accelerator: Accelerator,
    config: RunConfig,
    objective: nn.Module,
    source: BatchSource,
    problem: BadStepError,
    batches: Sequence[Batch],
    random_states: Mapping[str, Tensor],
) -> Path | None:
    """Write the bundle of a step; called by all processes together.

    Args:
        run_dir: Run directory, which all processes see.
        accelerator: The processes.
        config: Options of the run.
        objective: The bare objective, buffers as before the step.
        source: Where the batches are from.
        problem: What is wrong with the step.
        batches: The micro-batches of this process.
        random_states: Those of torch in this process before the step, by the type of their device.

    Returns:
        The folder; None where it could not be written, which is logged.
    """
    folder = run_dir / FOLDER / f"step_{problem.step}"
    names = source.names(problem.step - 1)
    about = gather_object([{"files": names, "not_finite": _not_finite(batches, names)}])
    parts = folder.with_name(f".{folder.name}.parts")
    written = True
    try:
        parts.mkdir(parents=True, exist_ok=True)
        _write_batches(parts / f"batch_{accelerator.process_index}.safetensors", batches, random_states)
    except Exception as error:  # what is wrong with the step matters more than its record
        logger.warning("The batch of step %d could not be kept: %s.", problem.step, error)
        written = False
    if all(gather_object([written])) and accelerator.is_main_process:
        try:
            with atomic_folder(folder) as partial:
                parts.rename(partial)
                _write_facts(partial, config, objective, source, problem, about)
            _remove_old(folder.parent)
        except Exception as error:
            logger.warning("The bundle of step %d could not be written: %s.", problem.step, error)
            written = False
    if accelerator.is_main_process:
        shutil.rmtree(parts, ignore_errors=True)
    accelerator.wait_for_everyone()
    return folder if all(gather_object([written])) else None


def _write_facts(
    folder: Path,
    config: RunConfig,
    objective: nn.Module,
    source: BatchSource,
    problem: BadStepError,
    about: list[dict[str, Any]],
) -> None:
    save_file(separate(objective.state_dict()), folder / WEIGHTS)
    config.save(folder / "config.yaml")
    objective.model.config.save_pretrained(folder)
    facts = {
        "format": FORMAT,
        "step": problem.step,
        "what": problem.what,
        "value": str(problem.value),  # JSON knows no NaN
        "lr": problem.lr,
        **{key: value for key, value in asdict(source).items() if key != "names"},
        "files": [each["files"] for each in about],
        "not_finite": sorted({name for each in about for name in each["not_finite"]}),
    }
    write_json(folder / BUNDLE, facts)


def _not_finite(batches: Sequence[Batch], names: Sequence[Sequence[str]]) -> list[str]:
    """Names of the samples whose images hold values that are not finite."""
    found = []
    for batch, of_batch in zip(batches, names, strict=False):  # batches may have been let go
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
    found = sorted(folder.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    for path in found[:-KEPT]:
        shutil.rmtree(path)


def sentence(problem: BadStepError, bundle: Path | None, steps_in_a_row: int) -> str:
    """What the user is told of a bad step.

    Args:
        problem: The step.
        bundle: Its bundle; None where there is none.
        steps_in_a_row: Bad steps up to now with no good one in between.
    """
    row = f" ({steps_in_a_row} such steps in a row)" if steps_in_a_row > 1 else ""
    if bundle is None:
        return f"{problem}{row}."
    facts = json.loads((bundle / BUNDLE).read_text(encoding="utf-8"))
    names = [name for process in facts["files"] for batch in process for name in batch]
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    culprits = ", ".join(facts["not_finite"])
    read = f" Values that are not finite were read from {culprits}." if culprits else ""
    return f"{problem}{row}. Its batch: {shown}.{read} `depthseg replay {bundle}` runs it again."


def require_finite(what: str, value: float, step: int, lr: float, stopping: bool = False) -> None:
    """Refuse a loss or gradient that is not a finite number; arguments as of `BadStepError`."""
    if not math.isfinite(value):
        raise BadStepError(what, value, step, lr, stopping)
