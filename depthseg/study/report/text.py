"""Formatting of numbers; a value that is absent is a dash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOTHING = "–"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 1) -> str:
    """A number with a fixed number of digits."""
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def whole(value: float | None) -> str:
    """A number without decimals."""
    return number(value, 0)


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.1f}".replace("-", MINUS)


def between(bounds: Sequence[float] | None, digits: int = 1) -> str:
    """Two bounds, or "none"."""
    return "none" if bounds is None else f"{number(bounds[0], digits)} to {number(bounds[1], digits)}"


def rates(values: Sequence[float]) -> str:
    """Learning rates."""
    return ", ".join(f"{rate:g}" for rate in values)


def p_value(p: float | None) -> str:
    """A p-value; a small one as an upper bound."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float, name: str = "p") -> str:
    """A p-value or q-value within a sentence."""
    return f"{name} {p_value(p)}" if p < 0.001 else f"{name} = {p_value(p)}"


def duration(seconds: float) -> str:
    """Hours and minutes, minutes and seconds, or seconds."""
    total = round(seconds)
    if total >= 3600:
        return f"{total // 3600} h {total % 3600 // 60} min"
    return f"{total // 60} min {total % 60} s" if total >= 60 else f"{seconds:.1f} s"


def time(seconds: float | None) -> str:
    """A duration, or a dash."""
    return NOTHING if seconds is None else duration(seconds)


def labels(value: Sequence[Any] | None) -> str:
    """A number of labelled images, given as words before it and the number."""
    return NOTHING if value is None else f"{value[0]}{value[1]:.0f}"
