"""Rows of a data set of the library `datasets`, mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from ..faults import Fault
from .columns import Column
from .rows import RowNames, columns_of, value_of


class ArrowRows:
    """The rows of a `datasets.Dataset`, without decoding: messages then tell row and column.

    Args:
        dataset: The data set.
        root: Where it is from, for messages.
        split: Its split, for names and messages.
    """

    shard_lengths = None

    def __init__(self, dataset: datasets.Dataset, root: str, split: str) -> None:
        self.columns: dict[str, Column] = columns_of(dataset.features)
        self._dataset = dataset.with_format("arrow")
        self._root, self._split = root, split

    def __len__(self) -> int:
        return len(self._dataset)

    def keep_complete(self, columns: Sequence[str]) -> list[Fault]:
        """Nothing: every row has every column, if only a null."""
        return []

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Values of a row."""
        row = self._dataset[index]
        return {name: value_of(row.column(name), self.place(index, name)) for name in columns}

    def place(self, index: int, column: str) -> str:
        """What messages call a value of a row."""
        return place_of(self._root, self._split, index, column)

    def names(self, column: str | None) -> Sequence[str]:
        """Names of all rows."""
        if column is None:
            return RowNames(self._split, len(self))
        return self._dataset.select_columns([column])[:].column(column).to_pylist()


def place_of(root: str, split: str, row: int, column: str) -> str:
    """What messages call a value of a table."""
    return f"{root}, split {split!r}, row {row}, column {column!r}"
