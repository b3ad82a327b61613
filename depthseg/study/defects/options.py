"""The options of one switch in a study."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass
class DefectOptions:
    """Where a defect of the released code is put back, in runs that otherwise stay as they are.

    Attributes:
        initialisations: Those whose runs get it; null = all to whose options it applies. Where the released code has
            a defect for some initialisations alone, they have to be named.
        alone_in: Modes in which it is measured alone; null = all. It is part of all switches together in any case.
        settings: Numbers or names that the defect needs on this data, such as `{classes: [road, car]}`.
    """

    initialisations: list[str] | None = None
    alone_in: list[str] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def without(self, gone: Container[str]) -> DefectOptions:
        """The same without the initialisations and modes that a study has removed."""
        kept = (
            None if names is None else [name for name in names if name not in gone]
            for names in (self.initialisations, self.alone_in)
        )
        return replace(self, **dict(zip(("initialisations", "alone_in"), kept, strict=True)))
