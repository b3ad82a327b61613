"""What an option declares beside its type: its range, and the option that it belongs to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple


class Allowed(NamedTuple):
    """Values of a type that an option may have: `Annotated[float, Allowed("above 0", lambda number: number > 0)]`.

    Attributes:
        words: Those values, for the sentence `NAME must be WORDS`.
        holds: Whether a value of the type is one of them.
        known: All of them, where they are words to choose from.
    """

    words: str
    holds: Callable[[Any], bool]
    known: tuple[Any, ...] = ()


class BelongsTo(NamedTuple):
    """A map that describes what another option names: `Annotated[dict[str, Any], BelongsTo("head_type")]`.

    A layer of options that changes the other option drops the map of the layers below it.

    Attributes:
        option: The other option of the same section, or an entry of the map itself, such as `encoder.model_type`.
    """

    option: str


def at_least(least: int, zero: str = "") -> Allowed:
    """Whole numbers from one on.

    Args:
        least: The smallest.
        zero: What zero means.
    """
    words = f"a whole number of at least {least}" + (f" (0 = {zero})" if zero else "")
    return Allowed(words, lambda number: number >= least)


Count = Annotated[int, at_least(0)]
"""Whole numbers from 0 on."""

PositiveCount = Annotated[int, at_least(1)]
"""Whole numbers from 1 on."""

Positive = Annotated[float, Allowed("a finite number above 0", lambda number: 0 < number < math.inf)]
"""Finite numbers above 0."""

NotNegative = Annotated[float, Allowed("a finite number of at least 0", lambda number: 0 <= number < math.inf)]
"""Finite numbers from 0 on."""
