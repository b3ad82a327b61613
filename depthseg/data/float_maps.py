"""Reading maps of floating-point numbers: NumPy arrays and PFM images."""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from .memory_file import MemoryFile, as_file

FLOAT_SUFFIXES = (".npy", ".npz", ".pfm")
"""Endings of the files that `read_float_map` takes, in lower case."""

# NumPy reads the header of an array as Python, and zipfile raises a RuntimeError for features that it does not know.
_DAMAGES = (ValueError, OSError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
_PFM_HEADER = re.compile(rb"(P[Ff])\s+(\d+)\s+(\d+)\s+([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s")


def read_float_map(path: str | Path | MemoryFile) -> np.ndarray:
    """Read one number a pixel from a `.npy`, `.npz` (one array) or `.pfm` file.

    Returns:
        float32 `(H, W)` as stored, NaN and infinite values included.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or does not hold one real number a pixel.
    """
    path = as_file(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    values = _read_pfm(path) if path.suffix.lower() == ".pfm" else _read_numpy(path)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        raise ValueError(
            f"{path} holds an array of shape {values.shape} and type {values.dtype}; expected one real number a "
            "pixel, shape (height, width)."
        )
    return values.astype(np.float32)


def _read_numpy(path: Path | MemoryFile) -> np.ndarray:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            if len(content.files) == 1:
                return content[content.files[0]]
            names = ", ".join(content.files) or "none"
    except _DAMAGES as error:
        raise ValueError(f"{path} is damaged or no NumPy file of numbers: {error}.") from error
    raise ValueError(f"{path} must hold exactly one array; its arrays are: {names}.")


def _read_pfm(path: Path | MemoryFile) -> np.ndarray:
    """A PFM file holds its rows from bottom to top; a negative scale says that the lowest byte comes first."""
    content = path.read_bytes()
    header = _PFM_HEADER.match(content)
    if header is None or header[1] != b"Pf":
        raise ValueError(f"{path} is not a PFM file of one channel; such a file begins with `Pf`, width and height.")
    width, height = int(header[2]), int(header[3])
    body = content[header.end() :]
    if len(body) < 4 * width * height:
        raise ValueError(f"{path} is truncated: it has {len(body)} bytes where {width}x{height} pixels need more.")
    order = "<" if float(header[4]) < 0 else ">"
    return np.frombuffer(body, order + "f4", width * height).reshape(height, width)[::-1]
