"""Errors of reading, also of a reading process, come to the user as they were raised, without a page of traceback."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, get_worker_info

from .run_fault import RunFault


@dataclass
class Failure:
    """An error that a reading process sends in the place of a batch."""

    error: Exception


def _failure(error: Exception) -> Failure:
    if get_worker_info() is None:
        return Failure(error)
    # Other classes may not survive the way to another process, which would wait for them for ever.
    told = error if type(error).__module__ == "builtins" or isinstance(error, RunFault) else RuntimeError(repr(error))
    told.add_note("In a reading process:\n" + "".join(traceback.format_exception(error)))
    return Failure(told)


class GuardedDataset(Dataset):
    """A data set that returns errors instead of raising them.

    Args:
        dataset: What is read.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, position: int) -> Any:
        try:
            return self._dataset[position]
        except Exception as error:
            return _failure(error)


class GuardedCollate:
    """Makes batches, and returns the first error in the place of one.

    Args:
        collate: What makes batches of samples.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """The batch of some samples, or a `Failure`."""
        for sample in samples:
            if isinstance(sample, Failure):
                return sample
        try:
            return self._collate(list(samples))
        except Exception as error:
            return _failure(error)


def read_guarded(loader: DataLoader) -> Iterator[Any]:
    """The batches of a loader of guarded data.

    Raises:
        RunFault: A reading process ended.
        Exception: What was raised while a batch was read.
    """
    batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, Failure):
                raise batch.error
            yield batch
    except RuntimeError as error:
        # Not a class of its own: the library tells a dead process by this text alone.
        if "DataLoader worker" not in str(error):
            raise
        raise RunFault(
            "A reading process ended before its work was done: the system kills processes when memory runs out. "
            f"Resume with run.resume=true and fewer of them: data.num_workers was {loader.num_workers}."
        ) from error
    finally:
        del batches  # which ends the reading processes
