"""What all weights that are published without a run have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.tasks import Task
    from .record import Lineage


@dataclass(frozen=True)
class Form:
    """Weights that are published without a run.

    Attributes:
        name: `converted`, `adapters` or `export`; selects the sections of the card.
        what: The same in words, for messages.
        task: The task of the model.
        lineage: The trainings and checkpoints that the weights come from.
        write: Verifies the weights, writes them to a folder, and returns the number of parameters; 0 if unknown.
        library: Library of the Hub that loads them; None = none that the Hub knows.
        summary: One or two sentences.
        values: Values of the template that only this form has.
        title: Heading of the card; empty = the name of the repository.
        tags: For the Hub, beyond those of the task.
        base_model: Checkpoint of the Hub that they are derived from; None if there is none.
        licence_note: A sentence about the licence of the source; empty if there is none.
    """

    name: str
    what: str
    task: Task
    lineage: Lineage
    write: Callable[[Path], int]
    library: str | None
    summary: str
    values: dict[str, Any]
    title: str = ""
    tags: tuple[str, ...] = ()
    base_model: str | None = None
    licence_note: str = ""
