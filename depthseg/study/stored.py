"""The records in the output directory of a study, also of earlier versions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine.config import compose_config

if TYPE_CHECKING:
    from ..engine.options import RunConfig
    from ..engine.robustness import ImageCounts

STUDY_FILE = "study.yaml"
"""The options of a study in its output directory."""

TRIALS = "trials"
OLD_TRIALS = "cells"
"""Folder of the records in earlier versions."""

RUNS = "runs"
RENAMED_FIELDS = {"arm": "initialisation", "budget": "num_labelled", "pretrain_key": "parent_key"}
"""Names of fields in records of earlier versions -> the present ones."""

Run = tuple[int, int]
"""Number of the pre-training seed and of the fine-tuning seed, also without pre-training. The fine-tuning seed is one
under this pre-training seed, or the draw of the labelled images if the study has draws."""

LABELS = {
    "pretrain": ("initialisation", "architecture", "pretrain_seed"),
    "finetune": (
        *("initialisation", "architecture", "mode", "benchmark", "fold", "num_labelled", "role", "lr"),
        *("pretrain_seed", "finetune_seed"),
    ),
}
"""Kind of a trial -> the names of its labels."""


def planned_runs(pretrain: int, finetune: int, draws: int = 0) -> list[Run]:
    """The runs of every initialisation in every setting; the arguments are the options `seeds` of a study."""
    if draws:
        return [(draw % pretrain, draw) for draw in range(draws)]
    return list(product(range(pretrain), range(finetune)))


@dataclass(frozen=True, eq=False)
class TrialRecord:
    """The record of one finished trial.

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
        """The seeds of a fine-tuning trial."""
        return self["pretrain_seed"], self["finetune_seed"]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """`confusion` int64 `(N, K, K)`, `names` and `blocks` `(N,)`."""
        return self._read(lambda name: name in ("confusion", "names", "blocks"))

    def counts(self, measure: str) -> dict[str, ImageCounts]:
        """The confusion matrices that a measure kept, by group; empty where it kept none."""
        from ..engine.robustness import ImageCounts  # imports torch, which takes seconds

        arrays = self.images(measure)
        groups = [name for name in arrays if not name.endswith("/names")]
        return {name: ImageCounts(arrays[f"{name}/names"].tolist(), arrays[name]) for name in groups}

    def images(self, measure: str) -> dict[str, np.ndarray]:
        """The images that a measure kept, by what they show; empty where it kept none."""
        arrays = self._read(lambda name: name.startswith(f"{measure}/"))
        return {name.removeprefix(f"{measure}/"): array for name, array in arrays.items()}

    def _read(self, wanted: Callable[[str], bool]) -> dict[str, np.ndarray]:
        path = self.path.with_suffix(".npz")
        try:
            with np.load(path, allow_pickle=False) as file:
                if lacking := [name for name in ("confusion", "names", "blocks") if name not in file.files]:
                    raise KeyError(f"{', '.join(lacking)} is missing")
                return {name: file[name] for name in file.files if wanted(name)}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The confusion matrices {path} cannot be read ({error}). Remove it and {self.path.name} and run the "
                "study again to repeat this trial."
            ) from None


def record_path(out: Path, key: str) -> Path:
    """The path of the record that a trial writes when it ends."""
    return out / TRIALS / f"{key}.json"


def weights_path(out: Path, key: str) -> Path:
    """The path of the weights that a pre-training leaves."""
    return out / RUNS / key / "model"


def trials_folder(out: Path) -> Path:
    """The folder of the records of a study, which has another name if an earlier version wrote them."""
    return out / (OLD_TRIALS if (out / OLD_TRIALS).is_dir() and not (out / TRIALS).is_dir() else TRIALS)


def require_present_keys(out: Path) -> None:
    """Raise a ValueError if records have the keys of an earlier version, as finished trials would be repeated."""
    if trials_folder(out).name == OLD_TRIALS:
        raise ValueError(
            f"{out / OLD_TRIALS} contains records of an earlier version. --report reads them as they are; before "
            f"further trials, rename them with `python training/rekey_study.py {out}` from the repository of depthseg."
        )


def read_records(folder: Path) -> list[TrialRecord]:
    """Read the records of a folder, in the order of their names; see `read_record`."""
    return [read_record(path) for path in sorted(folder.glob("[!.]*.json"))]


def read_record(path: Path) -> TrialRecord:
    """Read a record; its fields have their present names, whichever version wrote it.

    Raises:
        ValueError: The file is not a record.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"The record {path} cannot be read ({error}). Remove it and run the study again to repeat this trial."
        ) from None
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in LABELS:
        raise ValueError(f"The record {path} is of kind {kind!r}; allowed kinds: {', '.join(LABELS)}.")
    content = {RENAMED_FIELDS.get(name, name): value for name, value in content.items()}
    check_fields(path, content, ("key", "parent_key", *LABELS[kind], "config", "scores", "curve", "seconds"))
    return TrialRecord(path, content)


def config_of(record: TrialRecord) -> RunConfig:
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
