"""Files that are decoded once: what a reader made of a file is kept, and given back while the file stays as it was."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import __version__ as pillow_version

if TYPE_CHECKING:
    from .memory_file import MemoryFile

READERS = 1
"""To be raised when a reader makes something else of a file; what was kept before is not read any more."""

Decoded = tuple[np.ndarray, int]
"""An array, and a number that goes with it."""


class Keeper(Protocol):
    """Keeps what was decoded."""

    def __call__(self, facts: tuple[Any, ...], decode: Callable[[], Decoded], hold: Callable[[], bool]) -> Decoded:
        """What `decode` returns, from now or from before; the array is not to be written to.

        Args:
            facts: All that it depends on, as text and numbers.
            decode: Reads the file.
            hold: Whether the facts still hold; asked after decoding, since a file may be replaced meanwhile.
        """


_keeper: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


@contextmanager
def keeping(keeper: Keeper | None) -> Iterator[None]:
    """Let a keeper keep what is decoded in this block; None = every file is decoded whenever it is read."""
    token = _keeper.set(keeper)
    try:
        yield
    finally:
        _keeper.reset(token)


def keep_in_workers() -> Callable[[int], None]:
    """What a worker process calls with its number to keep what it decodes as this process does now."""
    return functools.partial(_keep_in_worker, _keeper.get())


def _keep_in_worker(keeper: Keeper | None, number: int) -> None:
    _keeper.set(keeper)


def once(
    reader: Callable[..., Any],
    path: str | Path | MemoryFile,
    options: tuple[Any, ...],
    decode: Callable[[], Decoded],
) -> Decoded:
    """What `decode` makes of a file, kept where there is a keeper.

    Args:
        reader: Stands for what is done; its name is part of what is kept.
        path: The file. One that has no place on a disk is not kept.
        options: What the result depends on beside the file.
        decode: Reads it.
    """
    keeper = _keeper.get()
    if keeper is None or not isinstance(path, str | os.PathLike):
        return decode()
    file = _facts_of(path)
    if file is None:
        return decode()  # which knows how to say it
    facts = (READERS, pillow_version, reader.__qualname__, *file, *map(repr, options))
    return keeper(facts, decode, lambda: _facts_of(path) == file)


def _facts_of(path: str | Path) -> tuple[str, int, int, int] | None:
    """The file itself, behind all links, and its size and times; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    # Copying tools set the time of the content, but none can set that of the last change.
    return os.path.realpath(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns


def decoded_once(reader: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Make a reader of arrays keep what it read; its first parameter is the file, the others are its options."""
    signature = inspect.signature(reader)

    @functools.wraps(reader)
    def kept(*args: object, **kwargs: object) -> np.ndarray:
        if _keeper.get() is None:
            return reader(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        path, *options = bound.arguments.values()
        return once(reader, path, tuple(options), lambda: (reader(*args, **kwargs), 0))[0]

    return kept
