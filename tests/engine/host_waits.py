"""Counts what makes the host wait for the device, on a CPU, where nothing has to be waited for."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import wraps

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("item", "cpu", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__array__")
"""Methods that bring numbers to the host."""

SIZED_BY_CONTENT = ("nonzero", "masked_select", "_unique2", "unique_dim", "_local_scalar_dense", "equal", "is_nonzero")
"""Operators that read numbers to know the size of their result, or to return one."""


class HostWaits(TorchDispatchMode):
    """While it is open, counts reads from the device and copies of Python numbers to it, by the line that asks.

    Attributes:
        found: The line and what it does -> how often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self._quiet = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in SIZED_BY_CONTENT or (name in ("index", "index_put_", "_index_put_impl_") and _has_mask(args[1])):
            self._note(name)
        return func(*args, **(kwargs or {}))

    def _note(self, name: str) -> None:
        if not self._quiet:
            frames = [frame for frame in traceback.extract_stack() if "/depthseg/" in frame.filename]
            where = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno} " if frames else ""
            self.found[f"{where}{name}"] += 1

    @contextlib.contextmanager
    def ignored(self) -> Iterator[None]:
        """Count nothing in here."""
        self._quiet += 1
        try:
            yield
        finally:
            self._quiet -= 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[HostWaits]:
        """Patch what no operator shows, and open the mode."""
        places = [(Tensor, name) for name in READS] + [(Tensor, "new_tensor"), (torch, "tensor")]
        before = [(owner, name, getattr(owner, name)) for owner, name in places]
        for owner, name, function in before:
            setattr(owner, name, self._noting(name, function))
        try:
            with self:
                yield self
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)

    def _noting(self, name, function):
        @wraps(function)
        def noting(*args, **kwargs):
            self._note(name)
            with self.ignored():
                return function(*args, **kwargs)

        return noting


def _has_mask(indices) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
