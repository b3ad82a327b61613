"""Training samples that cannot be read: others take their place, and a list says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import read_lines
from .run_fault import RunFault

if TYPE_CHECKING:
    from ..data import Sample, SampleDataset

UNREADABLE_FILE = "unreadable.jsonl"
"""Lines of `index`, `name` and `error`, in the run directory, from all processes that read."""

READING_ERRORS = (ValueError, OSError)
"""What the data sets raise for a file that is missing, damaged or of the wrong kind."""


class SkippingDataset:
    """A data set in which another sample takes the place of one that cannot be read.

    The place of sample `i` takes the first one after it that can be read, so what a run sees depends on its files
    alone: not on the number of reading processes, nor on where it was interrupted.

    Args:
        samples: The training set.
        limit: Most samples that may be unreadable.
    """

    def __init__(self, samples: SampleDataset, limit: int) -> None:
        self._samples = samples
        self._limit = limit
        self._list: Path | None = None
        self._known: dict[int, str] = {}

    def keep_list(self, run_dir: Path) -> None:
        """Write what was found up to now, and will be found, into a run directory."""
        self._list = run_dir / UNREADABLE_FILE
        for index, error in self._known.items():
            self._write(index, error)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_samples" not in self.__dict__:  # as in a copy that is being made
            raise AttributeError(name)
        return getattr(self._samples, name)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        for place in range(index, index + len(self)):
            number = place % len(self)
            try:
                return self._samples[number]
            except READING_ERRORS as error:
                self._note(number, error)
        raise RunFault("None of the training samples can be read.")

    def _note(self, index: int, error: Exception) -> None:
        """Write a sample down, once a process, and stop where there are too many.

        Raises:
            RunFault: More samples than the limit cannot be read.
        """
        if index in self._known:
            return
        self._known[index] = str(error)
        if self._list is not None:
            self._write(index, str(error))
        found = len(self._known if self._list is None else read_unreadable(self._list.parent))
        if found > self._limit:
            where = "" if self._list is None else f"; all are in {self._list}"
            raise RunFault(
                f"{found} training samples cannot be read, more than data.max_unreadable={self._limit}{where}. The "
                f"last one, {self._samples.names[index]}: {error} Mend the files (`depthseg datasets check` names all "
                "of them), or raise data.max_unreadable; then resume with run.resume=true."
            )

    def _write(self, index: int, error: str) -> None:
        line = json.dumps({"index": index, "name": str(self._samples.names[index]), "error": error}) + "\n"
        # One write at the end of the file, past all buffers: lines of several processes do not mix.
        with self._list.open("ab", buffering=0) as file:
            file.write(line.encode())


def read_unreadable(run_dir: Path) -> list[dict[str, Any]]:
    """The samples of a run that could not be read, each once, in the order of the data set."""
    lines = read_lines(run_dir / UNREADABLE_FILE)
    return sorted({line["index"]: line for line in lines}.values(), key=lambda line: line["index"])
