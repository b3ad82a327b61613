"""Images, label and depth maps in decoded form, in files that are mapped into memory.

A file is named by the hash of all that it depends on: the path, size and times of the file that was decoded, and how
it was read. So it is never out of date, and runs, processes and data sets that read the same file share it. What
cannot be kept is decoded again: this cache may cost time, never a run.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from ..data.decoded import Decoded, keeping
from .run_fault import RunFault, told_of_writing
from .tensor_store import TensorStore, gib, open_store

if TYPE_CHECKING:
    import numpy as np

    from ..data import Sample
    from .options import DataOptions

logger = logging.getLogger(__name__)

WAY_OUT = "or set data.cache=off"


class DecodedCache:
    """Keeps what readers of files decoded; see `depthseg.data.decoded`.

    Args:
        store: Where.

    Attributes:
        writes: Whether it still keeps what is new; what is there is read in any case.
    """

    def __init__(self, store: TensorStore) -> None:
        self._store = store
        self.writes = True
        self._has_written = False

    def __call__(self, facts: tuple, decode: Callable[[], Decoded], hold: Callable[[], bool]) -> Decoded:
        """What `decode` returns, now or in an earlier call; an array from a file cannot be written to."""
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        with suppress(ValueError):  # not there, or damaged: it is written
            tensors, texts = self._store.read(key)
            values = tensors["values"].numpy()
            values.flags.writeable = False
            return values, int(texts["number"])
        values, number = decode()
        if self.writes and hold():
            self._write(key, values, number)
        return values, number

    def check_room(self, first: Sample, count: int) -> None:
        """Say what the decoded files will take; where they do not fit, keep none of them.

        Nothing is said where the first sample, which was read through this cache, was kept by an earlier run, or is
        not read from files. `count` is that of the samples of all data sets.
        """
        if not self._has_written:
            return
        parts = (first.image, first.labels, first.depth, first.stereo)
        needed = count * sum(part.nbytes for part in parts if part is not None)
        try:
            self._store.require_room(needed, "the decoded images and maps need about")
        except OSError as error:
            self._stop(error)
            return
        logger.info(
            "Decoded images and maps are kept in %s, about %s for %d samples; data.cache=off does without.",
            *(self._store.folder, gib(needed), count),
        )

    def _write(self, key: str, values: np.ndarray, number: int) -> None:
        try:
            kept = f"Make room, name a folder on another disk with data.cache_dir, {WAY_OUT}."
            with told_of_writing("a decoded file", self._store.folder, kept):
                native = values.astype(values.dtype.newbyteorder("="))
                self._store.write(key, {"values": torch.from_numpy(native)}, {"number": str(number)})
            self._has_written = True
        except (OSError, SafetensorError, RunFault) as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self.writes = False
        logger.warning("Images and maps are decoded whenever they are read, as they cannot be kept. %s", error)


@contextmanager
def decoded_cache(data: DataOptions) -> Iterator[DecodedCache | None]:
    """Keep what is decoded in this block, where the options of a run say so.

    Yields:
        The cache; None = there is none.
    """
    cache = None
    if data.cache == "auto":
        try:
            cache = DecodedCache(open_store(data, "decoded", WAY_OUT))
        except OSError as error:
            logger.warning("Images and maps are decoded whenever they are read: data.cache_dir is no use. %s", error)
    with keeping(cache):
        yield cache
