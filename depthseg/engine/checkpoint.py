"""Resumable checkpoints: complete or not there at all."""

from __future__ import annotations

import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator

_NAME = re.compile(r"step_(\d+)")


@dataclass
class Progress:
    """How far a run is; saved with the weights, so that a resumed run goes on where this one stood.

    Attributes:
        step: Optimiser steps done.
        loss_sum: Sum of the step losses since the last scoring.
        loss_steps: Number of the steps in `loss_sum`.
        seconds: Time of training behind these weights; what a killed launch did after its last checkpoint is not in
            it.
        selected: Step, loss and scores of the weights in `model/`; empty before the first scoring.
    """

    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    seconds: float = 0.0
    selected: dict[str, Any] = field(default_factory=dict)

    def state_dict(self) -> dict[str, Any]:
        """What Accelerate saves."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What Accelerate restores."""
        for name, value in state.items():
            setattr(self, name, value)


def save_checkpoint(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write `folder/step_N` and remove the checkpoints before it; called by all processes together.

    Everything goes to a hidden folder first. Only the rename makes it a checkpoint, so a run that is killed while
    writing still has the one before.

    Args:
        accelerator: Holds model, optimiser, random states and the registered `Progress`.
        folder: The `checkpoints` directory of the run.
        step: Optimiser steps done.
    """
    target, partial = folder / f"step_{step}", folder / f".step_{step}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for path in folder.iterdir():
            if path != target and _NAME.fullmatch(path.name.removeprefix(".").removesuffix(".partial")):
                shutil.rmtree(path)
    accelerator.wait_for_everyone()


def latest_checkpoint(folder: Path) -> Path | None:
    """Newest complete checkpoint, or None; half-written ones do not count."""
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return max(found, key=lambda path: int(_NAME.fullmatch(path.name).group(1)), default=None)


def replace_folder(new: Path, target: Path) -> None:
    """Put a complete folder in the place of an older one.

    Args:
        new: The new folder, on the same disk.
        target: Its final name; a folder that stands there is removed afterwards.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
