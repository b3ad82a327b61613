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
        settings: Numbers or names that the defect needs on this data, such as `{classes: [road, car]}`.
    """

    initialisations: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
