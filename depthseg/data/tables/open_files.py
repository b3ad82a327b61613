"""Files that stay open between two reads, on disk or on the Hub."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import fsspec

_MOST = 16


def is_remote(path: str) -> bool:
    """Whether a path is an address, such as `hf://datasets/...`."""
    return "://" in path


def open_binary(path: str, whole: bool = False) -> BinaryIO:
    """Open a file for reading.

    Args:
        path: On disk, or an address.
        whole: Whether it will be read from its beginning to its end; if not, an address gives no more than is asked
            for.
    """
    if not is_remote(path):
        return open(path, "rb")
    file_system, name = fsspec.url_to_fs(path)
    return file_system.open(name, "rb", cache_type="readahead" if whole else "none")


class OpenFiles:
    """The last few files that this process has read; a process that it starts opens its own.

    Args:
        opener: Opens a file, such as `open_binary`.
    """

    def __init__(self, opener: Callable[[str], Any]) -> None:
        self._opener = opener
        self._process = os.getpid()
        self._files: OrderedDict[str, Any] = OrderedDict()

    def __getitem__(self, path: str) -> Any:
        # Connections and positions must not be shared with the process that this one was forked from.
        if self._process != os.getpid():
            self._process, self._files = os.getpid(), OrderedDict()
        if path not in self._files:
            self._files[path] = self._opener(path)
            if len(self._files) > _MOST:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

    def __getstate__(self) -> dict[str, Any]:
        return {"_opener": self._opener, "_process": -1, "_files": OrderedDict()}
