"""The records in the run directory of a study."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.config import compose_config

if TYPE_CHECKING:
    from ..engine.options import RunConfig

Run = tuple[int, int]
"""Number of the pre-training seed and of the fine-tuning seed under it; arms without pre-training also have both."""

RECORD_FIELDS = {
    "pretrain": ("key", "arm", "pretrain_seed", "scores", "seconds"),
    "finetune": (
        *("key", "arm", "architecture", "mode", "benchmark", "budget", "role", "fold", "lr"),
        *("pretrain_seed", "finetune_seed", "scores", "curve", "seconds"),
    ),
}


@dataclass(frozen=True, eq=False)
class CellRecord:
    """The record of one finished cell.

    Args:
        path: The JSON file; the confusion matrices are next to it under the same name with `.npz`.
        content: Its content.
    """

    path: Path
    content: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.content[name]

    @property
    def run(self) -> Run:
        """The seeds of a fine-tuning cell."""
        return self["pretrain_seed"], self["finetune_seed"]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """`confusion` int64 `(N, K, K)`, `names` and `blocks` `(N,)`."""
        path = self.path.with_suffix(".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in ("confusion", "names", "blocks")}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The confusion matrices {path} cannot be read ({error}). Remove it and {self.path.name} and run the "
                "study again to repeat this cell."
            ) from None


def read_records(folder: Path) -> Iterator[CellRecord]:
    """Read the records of a folder, in the order of their names.

    Raises:
        ValueError: A file is not a record.
    """
    for path in sorted(folder.glob("[!.]*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"The record {path} cannot be read ({error}). Remove it and run the study again to repeat this cell."
            ) from None
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind not in RECORD_FIELDS:
            raise ValueError(f"The record {path} is of kind {kind!r}; allowed kinds: {', '.join(RECORD_FIELDS)}.")
        check_fields(path, content, RECORD_FIELDS[kind])
        yield CellRecord(path, content)


def config_of(record: CellRecord) -> RunConfig:
    """The options of a finished run, by their present names.

    Raises:
        ValueError: They are not options of this version.
    """
    return compose_config([(str(record.path), record["config"])], is_record=True)


def check_fields(path: Path, content: Any, fields: Sequence[str]) -> None:
    """Raise a ValueError if the content of a file lacks fields."""
    absent = [name for name in fields if name not in content] if isinstance(content, dict) else fields
    if absent:
        raise ValueError(
            f"{path} lacks {', '.join(absent)}; it was not written by a study, or was written by another version."
        )
