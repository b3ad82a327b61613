"""Hashes of network parts and of files, which prove that they did not change."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

from .records import read_run_record, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor, nn


def hash_module(module: nn.Module) -> str:
    """SHA-256 over the name, type, shape and bytes of every parameter and every buffer, those not saved included."""
    return hash_tensors([*module.named_parameters(), *module.named_buffers()])


def hash_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over the name, type, shape and bytes of tensors, in their order."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def files_of(folder: Path) -> list[str]:
    """All files of a folder, as paths relative to it with forward slashes."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by its path as in `files_of`."""
    return {name: hash_of(folder / name) for name in files_of(folder)}


def first_encoder_hash(run_record: Path, accelerator: Accelerator, encoder: nn.Module) -> str:
    """The hash of the encoder before the first step, from run.json; a run that begins writes it there."""
    record = read_run_record(run_record)
    if "encoder_hash" in record:
        return record["encoder_hash"]["before"]
    before = hash_module(encoder)
    if accelerator.is_main_process:
        write_json(run_record, record | {"encoder_hash": {"before": before, "after": None}})
    return before


def record_encoder_hash(
    run_record: Path, accelerator: Accelerator, encoder: nn.Module, before: str, frozen: bool
) -> None:
    """Write the hashes of the encoder before and after training to run.json; called by all processes together.

    Raises:
        ValueError: It is frozen, and differs in at least one process.
    """
    after = hash_module(encoder)
    if accelerator.is_main_process:
        record = read_run_record(run_record)
        write_json(run_record, record | {"encoder_hash": {"before": before, "after": after}})
    changed = torch.tensor(float(after != before), device=accelerator.device)
    changed_processes = int(accelerator.reduce(changed, reduction="sum"))
    if frozen and changed_processes:
        raise ValueError(
            f"model.freeze_encoder is set, but the encoder is not what it was before training (in {changed_processes} "
            f"of {accelerator.num_processes} processes; its hashes are in {run_record}). Something trained it or "
            "its norm statistics; its weights must not be taken for those of the checkpoint."
        )
