"""Rows of Parquet files, read group by group where they are, without a copy in the cache of `datasets`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..faults import Fault
from .arrow import place_of
from .columns import Column
from .open_files import OpenFiles, open_binary
from .rows import RowNames, columns_of, value_of


class ParquetRows:
    """The rows of some Parquet files, each a shard.

    A row costs the reading of its row group. The groups read last are kept, as many as hold `rows_in_memory` rows.

    Args:
        files: On disk or on the Hub.
        root: Where they are from, for messages.
        split: Their split, for names and messages.
        rows_in_memory: Rows to keep, beside one more group at either end.

    Raises:
        ValueError: A file that is no Parquet file, or has other columns than the first one.
    """

    def __init__(self, files: Sequence[str], root: str, split: str, rows_in_memory: int) -> None:
        self._files = list(files)
        self._root, self._split = root, split
        self._open = OpenFiles(open_parquet)
        self._groups: list[tuple[int, int]] = []
        self.columns: dict[str, Column] = {}
        lengths: list[int] = []
        self.shard_lengths: list[int] = []
        for number, path in enumerate(self._files):
            with open_parquet(path) as file:
                self._take_columns(path, columns_of(datasets.Features.from_arrow_schema(file.schema_arrow)))
                rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
            self._groups += [(number, group) for group in range(len(rows))]
            lengths += rows
            self.shard_lengths.append(sum(rows))
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._lengths = lengths
        self._most = rows_in_memory + 2 * max(lengths, default=0)
        self._tables: OrderedDict[tuple[int, tuple[str, ...]], pa.Table] = OrderedDict()

    def _take_columns(self, path: str, columns: dict[str, Column]) -> None:
        self.columns = self.columns or columns
        if self.columns.keys() != columns.keys():
            raise ValueError(
                f"{path} has the columns {', '.join(columns)}, but {self._files[0]} has {', '.join(self.columns)}; "
                "the files of a split have the same columns."
            )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def keep_complete(self, columns: Sequence[str]) -> list[Fault]:
        """Nothing: every row has every column, if only a null."""
        return []

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Values of a row."""
        group = int(np.searchsorted(self._ends, index, side="right"))
        within = index - (int(self._ends[group]) - self._lengths[group])
        row = self._table(group, tuple(columns)).slice(within, 1)
        return {name: value_of(row.column(name), self.place(index, name)) for name in columns}

    def _table(self, group: int, columns: tuple[str, ...]) -> pa.Table:
        if (group, columns) not in self._tables:
            file, number = self._groups[group]
            path = self._files[file]
            try:
                # One thread: the processes that read share the cores, and threads do not survive a fork.
                table = self._open[path].read_row_group(number, columns=list(columns), use_threads=False)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"Row group {number} of {path} is damaged and cannot be read: {_first_line(error)}. "
                    "Download the file again."
                ) from error
            self._tables[group, columns] = table
            while sum(kept.num_rows for kept in self._tables.values()) > self._most:
                self._tables.popitem(last=False)
        self._tables.move_to_end((group, columns))
        return self._tables[group, columns]

    def place(self, index: int, column: str) -> str:
        """What messages call a value of a row."""
        return place_of(self._root, self._split, index, column)

    def names(self, column: str | None) -> Sequence[str]:
        """Names of all rows."""
        if column is None:
            return RowNames(self._split, len(self))
        found: list[Any] = []
        for path in self._files:
            with open_parquet(path) as file:
                found += file.read(columns=[column], use_threads=False).column(column).to_pylist()
        return found

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_tables": OrderedDict()}


def open_parquet(path: str) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        ValueError: It is truncated or none.
    """
    try:
        return pq.ParquetFile(open_binary(path))
    except pa.ArrowException as error:
        raise ValueError(f"{path} is truncated or no Parquet file: {_first_line(error)} Download it again.") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
