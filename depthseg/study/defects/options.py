"""The options of one switch in a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class DefectOptions:
    """Where a defect of the released code is put back, in runs that otherwise stay as they are.

    Attributes:
        initialisations: Those whose runs get it; empty = all to whose options it applies. Where the released code has
            a defect for some initialisations alone, they have to be named.
        alone_in: Modes in which it is measured alone; empty = all. It is part of all switches together in any case.
        settings: Numbers or names that the defect needs on this data, such as `{classes: [road, car]}`.
    """

    initialisations: list[str] = field(default_factory=list)
    alone_in: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
