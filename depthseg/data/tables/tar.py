"""Rows of tar archives as WebDataset has them: members of one name, each ending a column."""

from __future__ import annotations

import logging
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..faults import Fault
from .columns import Column, column_of_member
from .open_files import OpenFiles, is_remote, open_binary

logger = logging.getLogger(__name__)


@dataclass
class _Shard:
    """Where the members of an archive are.

    Attributes:
        keys: Name of each row, in the order of the archive.
        places: Ending -> int64 `(rows, 2)`, first byte and number of bytes; -1 = there is no such member.
    """

    keys: list[str] = field(default_factory=list)
    places: dict[str, np.ndarray] = field(default_factory=dict)


class TarRows:
    """The rows of some archives, each a shard. The archives are read once, for where their members are.

    `DIR/00012.seg.png` belongs to the row `DIR/00012` and the column `seg.png`.

    Args:
        files: On disk or on the Hub.
        root: Where they are from, for messages.

    Raises:
        ValueError: An archive that is compressed, truncated or none at all, or two members of one name.
    """

    def __init__(self, files: Sequence[str], root: str) -> None:
        self._files = list(files)
        self._root = root
        self._open = OpenFiles(open_binary)
        if remote := sum(map(is_remote, self._files)):
            logger.info("%s: %d archives are read once, to find where their members are.", root, remote)
        self._shards = [_index(path) for path in self._files]
        self._ends = np.cumsum(self.shard_lengths)
        endings = dict.fromkeys(ending for shard in self._shards for ending in shard.places)
        self.columns: dict[str, Column] = {ending: column_of_member(ending) for ending in endings}

    @property
    def shard_lengths(self) -> list[int]:
        """Rows of each archive."""
        return [len(shard.keys) for shard in self._shards]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def keep_complete(self, columns: Sequence[str]) -> list[Fault]:
        """Leave out the rows that lack a member, and tell which."""
        faults = []
        for path, shard in zip(self._files, self._shards, strict=True):
            there = {name: shard.places[name][:, 0] >= 0 for name in columns if name in shard.places}
            found = np.stack([there.get(name, np.zeros(len(shard.keys), bool)) for name in columns])
            for row in np.flatnonzero(found.any(0) & ~found.all(0)):
                lacks = columns[int(np.argmin(found[:, row]))]
                has = columns[int(np.argmax(found[:, row]))]
                member = f"{path}:{shard.keys[row]}"
                sentence = f"{member}.{has} has no partner {shard.keys[row]}.{lacks} in its archive."
                faults.append(Fault(Path(f"{member}.{has}"), sentence, ("partner", lacks)))
            kept = np.logical_and.reduce(found, axis=0)
            shard.keys = [key for key, keep in zip(shard.keys, kept, strict=True) if keep]
            shard.places = {ending: place[kept] for ending, place in shard.places.items()}
        self._ends = np.cumsum(self.shard_lengths)
        return faults

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Content of the members of a row."""
        shard, row = self._find(index)
        file = self._open[self._files[shard]]
        values = {}
        for name in columns:
            first, size = self._shards[shard].places[name][row]
            file.seek(int(first))
            values[name] = file.read(int(size))
        return values

    def _find(self, index: int) -> tuple[int, int]:
        """Number of the archive, and of the row in it."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, index - (int(self._ends[shard]) - len(self._shards[shard].keys))

    def place(self, index: int, column: str) -> str:
        """The member of a row."""
        shard, row = self._find(index)
        return f"{self._files[shard]}:{self._shards[shard].keys[row]}.{column}"

    def names(self, column: str | None) -> Sequence[str]:
        """Names of the members without ending, after that of their archive where several archives have the same."""
        if column is not None:
            raise ValueError(
                f"{self._root} consists of archives, whose members have names of their own: leave the option "
                "name_column out."
            )
        keys = [key for shard in self._shards for key in shard.keys]
        if max(Counter(keys).values(), default=1) == 1:
            return keys
        pairs = zip(self._files, self._shards, strict=True)
        return [f"{PurePosixPath(path).stem}/{key}" for path, shard in pairs for key in shard.keys]


def _index(path: str) -> _Shard:
    rows: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with open_binary(path, whole=True) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.name.startswith((".", "__")):
                    continue
                stem, _, ending = name.name.partition(".")
                row = rows.setdefault(str(name.with_name(stem)), {})
                if ending.lower() in row:
                    raise ValueError(f"{path} has two members {member.name}; a row has one member of each ending.")
                row[ending.lower()] = (member.offset_data, member.size)
                # It keeps every header otherwise; the type stub lacks the attribute.
                archive.members.clear()  # type: ignore[attr-defined]
    except tarfile.TarError as error:
        raise ValueError(
            f"{path} is truncated, compressed or no tar archive: {error}. Download it again; a compressed one (.gz) "
            "has to be unpacked to .tar, so that its members can be read one by one."
        ) from error
    endings = dict.fromkeys(ending for row in rows.values() for ending in row)
    places = {
        ending: np.array([row.get(ending, (-1, 0)) for row in rows.values()], dtype=np.int64) for ending in endings
    }
    return _Shard(list(rows), places)
