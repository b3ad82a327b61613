"""Which images make up which optimiser step: a pure function of (seed, step).

The images form one endless stream: epoch after epoch, each a permutation of the data set. Step `s` takes the `s`-th
piece of `batch_size` positions, whatever the number of processes; micro-batch `k` takes the `k`-th part of the piece
and process `r` the `r`-th part of that. So one process and many see the same batches, and going on after an
interruption needs no more than the number of the step.

That holds for data that is streamed from shards, too. `IterableDataset` of the library `datasets` shares shards out by
the number of processes and workers, and loses what is in its shuffle buffer when it resumes. Here the numbers of rows
of the shards are known, so the order is one of indices, computed without reading, and the data is read by index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..data import SampleDataset

_ORDER, _WINDOW = 1, 2  # keep the generators of epochs and windows apart from those of augmentations


class SampleStream:
    """The endless stream of data set indices.

    Args:
        length: Number of samples in the data set.
        seed: Seed of the order and of the augmentation.

    Raises:
        ValueError: An empty data set.
    """

    def __init__(self, length: int, seed: int) -> None:
        if length < 1:
            raise ValueError("The training set is empty: there is nothing to train on.")
        self.length = length
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def index(self, position: int) -> int:
        """Data set index at a position of the stream."""
        epoch, offset = divmod(position, self.length)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch, _ORDER]).permutation(self.length)
            self._epoch = epoch
        return int(self._order[offset])

    def rng(self, position: int) -> np.random.Generator:
        """Generator for the augmentation of the sample at a position."""
        return np.random.default_rng([self.seed, position])


class ShardStream(SampleStream):
    """The endless stream of data set indices of shards that are read in their order.

    An epoch is a permutation of the shards, each with its rows in their order, cut into windows whose samples are
    permuted. So what is read at one time is near one another, and every sample is in an epoch exactly once.

    Args:
        lengths: Number of samples of each shard, in the order of the data set.
        window: Number of samples that are mixed.
        seed: Seed of the order and of the augmentation.

    Raises:
        ValueError: An empty data set.
    """

    def __init__(self, lengths: Sequence[int], window: int, seed: int) -> None:
        super().__init__(sum(lengths), seed)
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._firsts = np.cumsum(self._lengths) - self._lengths
        self._window = window
        self._ends = np.empty(0, dtype=np.int64)
        self._mixed: tuple[tuple[int, int], np.ndarray] = ((-1, -1), self._order)

    def index(self, position: int) -> int:
        """Data set index at a position of the stream."""
        epoch, offset = divmod(position, self.length)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch, _ORDER]).permutation(len(self._lengths))
            self._ends = np.cumsum(self._lengths[self._order])
            self._epoch = epoch
        window, within = divmod(offset, self._window)
        if self._mixed[0] != (epoch, window):
            size = min(self._window, self.length - window * self._window)
            rng = np.random.default_rng([self.seed, epoch, _WINDOW, window])
            self._mixed = (epoch, window), rng.permutation(size)
        place = window * self._window + self._mixed[1][within]
        number = np.searchsorted(self._ends, place, side="right")
        shard = self._order[number]
        return int(self._firsts[shard] + place - (self._ends[number] - self._lengths[shard]))


def stream_of(samples: SampleDataset, seed: int) -> SampleStream:
    """The stream of a data set: over its shards if it says that they are to be read in their order."""
    lengths = getattr(samples, "shard_lengths", None)
    return SampleStream(len(samples), seed) if lengths is None else ShardStream(lengths, samples.shuffle_buffer, seed)


@dataclass(frozen=True)
class MicroBatches:
    """The positions that one process reads, micro-batch by micro-batch; a batch sampler for `DataLoader`.

    Attributes:
        first_step: Optimiser step to begin with.
        last_step: Optimiser step to end before.
        batch_size: Samples per optimiser step, all processes together.
        accumulation_steps: Micro-batches per optimiser step.
        rank: This process.
        num_processes: All processes.

    Raises:
        ValueError: Fewer samples in a batch than parts to cut it into.
    """

    first_step: int
    last_step: int
    batch_size: int
    accumulation_steps: int = 1
    rank: int = 0
    num_processes: int = 1

    def __post_init__(self) -> None:
        parts = self.accumulation_steps * self.num_processes
        if self.batch_size < parts:
            raise ValueError(
                f"optim.batch_size={self.batch_size} cannot be cut into {self.num_processes} process(es) x "
                f"optim.accumulation_steps={self.accumulation_steps}: take at least {parts}."
            )

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.last_step):
            yield from self.of_step(step)

    def of_step(self, step: int) -> list[list[int]]:
        """The positions of each micro-batch of a step, counted from 0."""
        parts = self.accumulation_steps * self.num_processes
        # Where the batch is no multiple of the parts, their sizes differ by one; the loss is over all pixels.
        borders = [step * self.batch_size + self.batch_size * number // parts for number in range(parts + 1)]
        return [list(range(*borders[part : part + 2])) for part in range(self.rank, parts, self.num_processes)]
