"""What checkpoints of training contain beside tensors, in forms that cannot run code or touch memory."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np


class PlainType:
    """Stands for a type of NumPy: NumPy's own, restored from a made-up state, can point anywhere in memory."""

    def __init__(self, code: str, *options: Any):
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class PlainArray:
    """Stands for an array of NumPy, whose content is not read: weights are tensors."""

    def __setstate__(self, state: Any) -> None:
        pass


def plain_scalar(kind: PlainType, content: bytes) -> bool | int | float | None:
    """Return a number of NumPy as one of Python, and `None` for what is no number."""
    if re.fullmatch(r"[biuf]\d+", kind.code) is None:
        return None
    return np.frombuffer(content, kind.order + kind.code)[0].item()


def plain_array(*description: Any) -> PlainArray:
    """Return what stands for an array."""
    return PlainArray()


NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
"""Where the pickles of NumPy 1 and 2 look for its functions."""

PLAIN_GLOBALS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    (PlainType, "numpy.dtype"),
    (PlainArray, "numpy.ndarray"),
    *((plain_scalar, f"{module}.scalar") for module in NUMPY),
    *((plain_array, f"{module}._reconstruct") for module in NUMPY),
    *((pathlib.PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((pathlib.PureWindowsPath, f"{module}.WindowsPath") for module in ("pathlib", "pathlib._local")),
]
"""What PyTorch's reader may make in addition to tensors and plain values: options, numbers of NumPy, paths."""
