"""Processes agree to stop at the same step, without waiting for their devices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed


class StopVotes:
    """One vote a step among all processes, on their CPUs; a single process decides alone.

    Several processes count the votes of a step at the next one, when they have long arrived, so that nobody waits
    for the slowest. A context: all processes enter and leave it together.

    Args:
        num_processes: How many there are.
        timeout: Seconds that they wait for one that does not vote; None = as PyTorch has it.
    """

    def __init__(self, num_processes: int, timeout: float | None = None) -> None:
        self._together = num_processes > 1
        self._timeout = None if timeout is None else timedelta(seconds=timeout)
        self._group: Any = None
        self._last: tuple[Any, torch.Tensor] | None = None

    def __enter__(self) -> StopVotes:
        if self._together:
            # Apart from the group of the devices: that one runs in order behind everything they have to do.
            self._group = torch.distributed.new_group(backend="gloo", timeout=self._timeout)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        # After an error the others may never come.
        if self._together and (kind is None or kind is SystemExit):
            self._count()
            torch.distributed.destroy_process_group(self._group)

    def cast(self, stop: bool) -> bool:
        """Vote on stopping, once a step.

        Args:
            stop: Whether this process was asked to stop.

        Returns:
            Whether to stop after this step: the same in all processes.
        """
        if not self._together:
            return stop
        stopping = self._count()
        votes = torch.tensor([float(stop)])
        self._last = torch.distributed.all_reduce(votes, group=self._group, async_op=True), votes
        return stopping

    def _count(self) -> bool:
        if self._last is None:
            return False
        work, votes = self._last
        self._last = None
        work.wait()
        return votes.item() > 0
