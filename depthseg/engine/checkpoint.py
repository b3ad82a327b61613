"""Resumable checkpoints: complete, verified and free of pickles.

A checkpoint is a folder `checkpoints/step_N` of the run directory:

    model.safetensors      weights and buffers of everything that is trained, pose networks included
    optimizer.safetensors  optimiser state of each parameter, named `PARAMETER/ENTRY`
    progress.json          step, loss since the last evaluation, selected scores; gradient scaler of float16
    random_states.json     random states of each process: Python, NumPy, torch, device
    selected/              copy of `model/`, where that is of an earlier step than N
    manifest.json          format, step, processes, device; size and SHA-256 of each file above, SHA-256 of each file
                           of `model/` at this step, and SHA-256 of the manifest itself

Reading safetensors and JSON runs no code. The folder is written under a hidden name, the manifest last, and is renamed
when all of it is on the disk. The last two are kept, or as `run.keep_last` says, so that damage to one costs the steps
since the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.utils import gather_object

from .atomic import atomic_folder
from .fingerprint import files_of, hash_of, hashes_of
from .records import write_json
from .run_fault import told_of_writing
from .state import Progress, random_state, read_state, tensors_of, write_state

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import nn

logger = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "checkpoints"
MANIFEST = "manifest.json"
SELECTED = "selected"
_NAME = re.compile(r"step_(\d+)")
_NAME_OR_REMAINS = re.compile(r"step_(\d+)|\.step_(\d+)\.(partial|old)")
_PICKLES = (".pkl", ".pickle", ".bin", ".pt", ".pth")


def save_checkpoint(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    run_dir: Path,
    keep_last: int = 2,
) -> None:
    """Write `checkpoints/step_N` of the bare objective; called by all processes together.

    `model/` holds the weights of `progress.selected`. The newest `keep_last` checkpoints up to this one stay; those of
    later steps are of a launch that was given up, and go.

    Raises:
        RunFault: The disk is full or fails; the checkpoints before are as they were.
    """
    random_states = gather_object([random_state(accelerator.device)])
    tensors = tensors_of(objective, optimizer, accelerator.is_main_process)
    if accelerator.is_main_process:
        folder = run_dir / FOLDER
        with (
            told_of_writing(f"the checkpoint of step {progress.step}", run_dir, _kept_sentence(folder)),
            atomic_folder(folder / f"step_{progress.step}") as partial,
        ):
            partial.mkdir()
            write_state(partial, accelerator, tensors, progress, random_states)
            in_model = hashes_of(run_dir / "model") if progress.selected else {}
            if in_model and progress.selected["step"] != progress.step:
                shutil.copytree(run_dir / "model", partial / SELECTED)
            manifest = {
                "format": FORMAT,
                "step": progress.step,
                "num_processes": accelerator.num_processes,
                "device": accelerator.device.type,
                "model": in_model,
                "files": {
                    name: {"size": (partial / name).stat().st_size, "sha256": value}
                    for name, value in hashes_of(partial).items()
                },
            }
            write_json(partial / MANIFEST, manifest | {"sha256": _hash_of_json(manifest)})
        _remove_others(folder, progress.step, keep_last)
    accelerator.wait_for_everyone()


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that is as it was written, with a warning for each newer one that is not.

    Returns:
        The folder of the checkpoint; None where no checkpoint was ever completed.

    Raises:
        ValueError: There are checkpoints, and none of them can be resumed.
    """
    damages = {}
    for path in reversed(_checkpoints(folder)):
        damage = find_damage(path)
        if damage is None:
            for name, reason in damages.items():
                logger.warning(
                    "The checkpoint %s cannot be resumed: %s. The run resumes from %s, the one before.",
                    *(folder / name, reason, path.name),
                )
            return path
        damages[path.name] = damage
    if damages:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in damages.items())
        raise ValueError(
            f"No checkpoint in {folder} can be resumed. {reasons}. Set run.overwrite=true to remove this run and "
            "train from the first step, or take another run.output_dir."
        )
    return None


def find_damage(checkpoint: Path) -> str | None:
    """Compare a checkpoint with its manifest.

    Returns:
        The first file that is wrong and why, as a part of a sentence; None if all is as it was written.
    """
    try:
        if not (checkpoint / MANIFEST).is_file():
            return _without_manifest(checkpoint)
        manifest = _read_manifest(checkpoint)
        found = set(files_of(checkpoint)) - {MANIFEST}
        for name in sorted(found | manifest["files"].keys()):
            if name not in manifest["files"]:
                return f"{name} is not in {MANIFEST}: it was added afterwards"
            if name not in found:
                return f"{name} is missing"
            size, expected = (checkpoint / name).stat().st_size, manifest["files"][name]
            if size != expected["size"]:
                return f"{name} has {size} bytes instead of {expected['size']}"
            if hash_of(checkpoint / name) != expected["sha256"]:
                return f"{name} does not have the SHA-256 of {MANIFEST}: its content has changed"
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read ({error})"
    return None


def load_checkpoint(
    checkpoint: Path,
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Bring a run to the state of a checkpoint that `find_checkpoint` returned; called by all processes.

    The number of processes and the device may differ from those of the checkpoint, with a warning.

    Raises:
        ValueError: It is of another network.
    """
    read_state(checkpoint, accelerator, objective, optimizer, progress)
    manifest = _read_manifest(checkpoint)
    then = manifest["num_processes"], manifest["device"]
    now = accelerator.num_processes, accelerator.device.type
    if then != now and accelerator.is_main_process:
        logger.warning(
            "%s was written by %d process(es) on %s; this launch has %d on %s. Weights, optimiser state and batches "
            "are those of the checkpoint. Sums are rounded differently and random layers draw other numbers, so the "
            "results are not bit for bit those of an uninterrupted run.",
            *(checkpoint, *then, *now),
        )


def restore_selected(checkpoint: Path, run_dir: Path, save_model: Callable[[], None]) -> None:
    """Make `model/` hold the weights that were selected at a checkpoint; called by the first process alone.

    An interrupted launch may have selected weights of a later step, or may have been killed while it replaced the
    folder. The scores of these weights belong to steps that are now repeated. `save_model` writes the loaded weights.
    """
    model_dir, expected = run_dir / "model", _read_manifest(checkpoint)["model"]
    found = hashes_of(model_dir)
    if all(found.get(name) == value for name, value in expected.items()) and (expected or not found):
        return
    if not expected:
        logger.info("%s holds weights of a later step than %s and is removed.", model_dir, checkpoint.name)
        shutil.rmtree(model_dir)
        return
    logger.info("%s does not hold the weights selected at %s and is set back to them.", model_dir, checkpoint.name)
    if (checkpoint / SELECTED).is_dir():
        with atomic_folder(model_dir) as partial:
            shutil.copytree(checkpoint / SELECTED, partial)
    else:
        save_model()


def _step_of(checkpoint: Path) -> int:
    return int(_NAME.fullmatch(checkpoint.name)[1])


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    found = [path for path in folder.glob("step_*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=_step_of)


def _kept_sentence(folder: Path) -> str:
    found = _checkpoints(folder)
    if not found:
        return "There is none before it. Mend that, or take another run.output_dir, and launch anew."
    return f"The checkpoint of step {_step_of(found[-1])} is as it was. Mend that and resume with run.resume=true."


def _remove_others(folder: Path, step: int, keep_last: int) -> None:
    """Remove all but the checkpoint of a step and the newest ones before it."""
    kept = [path for path in _checkpoints(folder) if _step_of(path) <= step][-keep_last:]
    for path in folder.iterdir():
        if path not in kept and _NAME_OR_REMAINS.fullmatch(path.name):
            shutil.rmtree(path)


def _without_manifest(checkpoint: Path) -> str:
    pickles = sorted(path.name for path in checkpoint.iterdir() if path.suffix in _PICKLES)
    if not pickles:
        return f"{MANIFEST} is missing"
    return (
        f"it was written by an earlier version of depthseg and holds pickles ({', '.join(pickles)}), which can run "
        "code when they are read, so they are not read (that version can finish the run; model.pretrained can still "
        "take the weights in model/)"
    )


def _read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Read a manifest.

    Raises:
        ValueError: It is damaged, of another format, or of another step than the name of the folder states.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{MANIFEST} is not JSON ({error})") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise ValueError(f"{MANIFEST} is of format {version!r}; this version of depthseg reads format {FORMAT}")
    if manifest.pop("sha256", None) != _hash_of_json(manifest):
        raise ValueError(f"{MANIFEST} does not have the SHA-256 that it states: its content has changed")
    if manifest["step"] != _step_of(checkpoint):
        raise ValueError(f"{MANIFEST} is of step {manifest['step']}, which is not that of the folder")
    return manifest


def _hash_of_json(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
