"""The one place where something outside the engine may put itself around the parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import load_config
from .records import RUN_RECORD, read_run_record, write_json

if TYPE_CHECKING:
    from .batches import StreamDataset
    from .loop import Training

Wrap = Callable[["StreamDataset", "Training", Any], tuple["StreamDataset", "Training"]]

WRAPPED = "wrapped"
"""Entry of `run.json` of a run whose parts were wrapped: by what."""


@dataclass(frozen=True)
class Wrapping:
    """What a caller of `train` puts around the parts of a run, such as a study of known faults.

    A data set needs none: `train` takes data sets. `run.json` says that the run is no ordinary one, and
    `depthseg publish` refuses its weights and those that are trained from them.

    Attributes:
        names: What is wrapped, for `run.json`.
        wrap: Called before the first step of a launch, resumed or not, with the stream of training samples, what the
            loop works on, and the image processor of the model; returns the first two, or what takes their place.
    """

    names: Sequence[str]
    wrap: Wrap


def wrapped(
    wrapping: Wrapping | None, stream: StreamDataset, training: Training, processor: Any
) -> tuple[StreamDataset, Training]:
    """The parts of a run as they are used; marks the run directory if there is a wrapping."""
    if wrapping is None:
        return stream, training
    if training.accelerator.is_main_process:
        path = training.run_dir / RUN_RECORD
        write_json(path, read_run_record(path) | {WRAPPED: list(wrapping.names)})
    return wrapping.wrap(stream, training, processor)


def wrapped_by(run_dir: Path) -> list[str]:
    """What wrapped the parts of a run, or of those on this machine whose weights it began with; empty if nothing."""
    found = read_run_record(run_dir / RUN_RECORD).get(WRAPPED, [])
    if found or not (run_dir / "config.yaml").is_file():
        return found
    start = load_config(run_dir / "config.yaml", is_record=True).model.pretrained
    return wrapped_by(Path(start).parent) if start is not None and Path(start).is_dir() else []
