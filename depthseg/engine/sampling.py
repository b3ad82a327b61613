"""Which images make up which optimiser step: a pure function of (seed, step).

The images form one endless stream: epoch after epoch, each a permutation of the data set. Step `s` takes the `s`-th
piece of `batch_size` positions, whatever the number of processes; micro-batch `k` takes the `k`-th part of the piece
and process `r` the `r`-th part of that. So one process and many see the same batches, and going on after an
interruption needs no more than the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_ORDER = 1  # keeps the generators of epochs apart from those of augmentations


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
        ValueError: A batch size that cannot be cut evenly.
    """

    first_step: int
    last_step: int
    batch_size: int
    accumulation_steps: int = 1
    rank: int = 0
    num_processes: int = 1

    def __post_init__(self) -> None:
        parts = self.accumulation_steps * self.num_processes
        if self.batch_size % parts:
            raise ValueError(
                f"optim.batch_size={self.batch_size} cannot be cut into {self.num_processes} process(es) x "
                f"optim.accumulation_steps={self.accumulation_steps}: take a multiple of {parts}."
            )

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.accumulation_steps

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch_size // (self.accumulation_steps * self.num_processes)
        for step in range(self.first_step, self.last_step):
            for micro_batch in range(self.accumulation_steps):
                part = micro_batch * self.num_processes + self.rank
                start = step * self.batch_size + part * size
                yield list(range(start, start + size))
