"""The form that all tables have for `HubDataset`, and values of Arrow as bytes and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..faults import Fault
from .columns import Column


class Rows(Protocol):
    """The rows of one split.

    Attributes:
        columns: By name.
        shard_lengths: Rows of each shard, in their order; None = any row is as quick to read as another.
    """

    @property
    def columns(self) -> Mapping[str, Column]:
        """Columns by name."""

    @property
    def shard_lengths(self) -> Sequence[int] | None:
        """Rows of each shard."""

    def __len__(self) -> int:
        """Number of rows."""

    def keep_complete(self, columns: Sequence[str]) -> list[Fault]:
        """Leave out the rows that lack one of some columns, and tell what they lack."""

    def read(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Values of a row: bytes of an encoded file, an array, or None where there is none."""

    def place(self, index: int, column: str) -> str:
        """What messages call a value of a row."""

    def names(self, column: str | None) -> Sequence[Any]:
        """Names of all rows; the values of a column if one is given."""


class RowNames(Sequence[str]):
    """Names `SPLIT-000012` by the number of the row, made as they are asked for.

    Args:
        split: The split.
        count: Number of rows.
    """

    def __init__(self, split: str, count: int) -> None:
        self._split, self._rows = split, range(count)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = RowNames(self._split, 0)
            part._rows = self._rows[index]
            return part
        return f"{self._split}-{self._rows[index]:06d}"


def columns_of(features: datasets.Features) -> dict[str, Column]:
    """The columns of a table that states the features of `datasets`."""
    return {name: _column_of(feature) for name, feature in features.items()}


def _column_of(feature: Any) -> Column:
    if isinstance(feature, datasets.Image):
        return Column("file", "images")
    if isinstance(feature, dict):
        is_file = "bytes" in feature
        return Column("file" if is_file else "other", "encoded files" if is_file else "records")
    if isinstance(feature, datasets.Value) and "binary" in feature.dtype:
        return Column("file", "bytes")
    inner, depth = feature, 0
    while isinstance(inner, datasets.List | datasets.LargeList):
        inner, depth = inner.feature, depth + 1
    if hasattr(inner, "shape"):
        return Column("array", f"arrays of {inner.dtype}")
    classes = tuple(inner.names or ()) if isinstance(inner, datasets.ClassLabel) else ()
    dtype = getattr(inner, "dtype", type(inner).__name__)
    is_array = depth >= 2 and (classes or dtype.startswith(("int", "uint", "float", "bool")))
    return Column("array" if is_array else "other", "list of " * depth + str(dtype), classes)


def value_of(column: pa.ChunkedArray, place: str) -> bytes | np.ndarray | None:
    """The value of a column of one row.

    Raises:
        ValueError: A list whose rows differ in length, or a file that is named but not there.
    """
    cell = column.combine_chunks()
    cell = cell.chunk(0) if isinstance(cell, pa.ChunkedArray) else cell
    if cell.null_count:
        return None
    cell = cell.storage if isinstance(cell, pa.ExtensionArray) else cell
    if pa.types.is_struct(cell.type):
        return _content(cell[0].as_py(), place)
    if pa.types.is_binary(cell.type) or pa.types.is_large_binary(cell.type):
        return cell[0].as_py()
    shape: list[int] = []
    while pa.types.is_list(cell.type) or pa.types.is_large_list(cell.type) or pa.types.is_fixed_size_list(cell.type):
        lengths = pc.unique(pc.list_value_length(cell)).to_pylist()
        if len(lengths) != 1:
            raise ValueError(f"{place} is a list whose rows differ in length; an array has rows of one length.")
        cell, shape = cell.flatten(), [*shape, lengths[0]]
    return cell.to_numpy(zero_copy_only=False).reshape(shape)


def _content(cell: Mapping[str, Any], place: str) -> bytes | None:
    """The bytes of an image as `datasets` stores it: in the table, or in a file of its own."""
    if cell.get("bytes") is not None:
        return cell["bytes"]
    path = cell.get("path")
    if path is None:
        return None
    if not Path(path).is_file():
        raise ValueError(f"{place} names the file {path}, which is not there; save the data set with its images.")
    return Path(path).read_bytes()
