"""Waiting for a process that works alone, for longer than the collectives of a training may take.

NCCL gives up after ten minutes, and the first process may read a data set for hours before the first step. So the
others wait in a group of their own on the CPU; it ends at once if the process that is waited for dies.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from torch import distributed

from .run_fault import RunFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from accelerate import Accelerator

Found = TypeVar("Found")

LONGEST_WAIT = timedelta(days=7)


def agreed(accelerator: Accelerator, find: Callable[[], Found]) -> Found:
    """What the first process finds, however long that takes, or the error that it raises is that of all processes.

    Raises:
        ValueError, OSError, RunFault: As `find` raises them.
    """
    found, error = None, None
    with _patient_group(accelerator) as group:
        if accelerator.is_main_process:
            try:
                found = find()
            except (ValueError, OSError, RunFault) as problem:
                error = problem
        if group is not None:
            both = [found, error]
            distributed.broadcast_object_list(both, src=0, group=group)
            found, error = both
    if error is not None:
        raise error
    return found


def wait_patiently(accelerator: Accelerator) -> None:
    """Wait until all processes are here, however long one of them works."""
    with _patient_group(accelerator) as group:
        if group is not None:
            distributed.barrier(group)


@contextmanager
def _patient_group(accelerator: Accelerator) -> Iterator[distributed.ProcessGroup | None]:
    if accelerator.num_processes == 1:
        yield None
        return
    group = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    try:
        yield group
    finally:
        distributed.destroy_process_group(group)
