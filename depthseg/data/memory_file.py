"""Encoded images and maps that are not files of their own: cells of a table, members of an archive."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath


class MemoryFile(io.BytesIO):
    """The content of a file, with the name that messages give it.

    Args:
        content: The bytes.
        name: Such as `shard.tar:0001.png`; its ending says what the file is, where that is asked for.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """The ending of the name with its dot, empty if there is none."""
        return PurePosixPath(self.name).suffix

    def is_file(self) -> bool:
        """Whether it is there; as of a path."""
        return True

    def read_bytes(self) -> bytes:
        """The content; as of a path."""
        return self.getvalue()


def as_file(path: str | Path | MemoryFile) -> Path | MemoryFile:
    """A path of a name; a file in memory as it is."""
    return path if isinstance(path, MemoryFile) else Path(path)
