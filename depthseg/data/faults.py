"""Faults of files: one sentence for each, and one for all files that have the same."""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .image_folders import name_some


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file.

    Attributes:
        path: The file.
        sentence: What is wrong and what to do; it names the file.
        kind: Equal for the same fault of several files.
    """

    path: Path
    sentence: str
    kind: Hashable

    def __str__(self) -> str:
        return self.sentence


def fault_of(error: Exception, path: str | Path) -> Fault:
    """The fault that reading a file has raised; errors raised at the same place of the code are of one kind."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    sentence = str(error) if str(path) in str(error) else f"{path}: {error}"
    return Fault(Path(path), sentence, (frame.f_code.co_filename, line))


def grouped(faults: Iterable[Fault]) -> list[str]:
    """One sentence for each kind of fault, in the order in which they are met first.

    Where several files have a fault, it is that of the first file, with their number and the first three names.
    """
    kinds: dict[Hashable, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    sentences = []
    for same in kinds.values():
        names = name_some([fault.path.name for fault in same])
        sentences.append(same[0].sentence + (f" {len(same)} files have this fault: {names}." if len(same) > 1 else ""))
    return sentences
