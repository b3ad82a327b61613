"""The miniatures that a study at a small scale runs on, in place of real data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.file_lock import locked
from ..data.miniatures import write_miniature
from ..engine.atomic import atomic_folder

if TYPE_CHECKING:
    from .options import StudyOptions

logger = logging.getLogger(__name__)

SCENES = 6
"""Scenes, or frames of a drive, of each split."""

MARK = "MINIATURE.txt"
"""File in the folder of a miniature that a study has rendered."""


def prepare_data(study: StudyOptions) -> None:
    """Render the miniatures of a scale that do not exist; a folder that exists is not touched.

    Raises:
        ValueError: The study is at full scale, and a miniature is in the place of real data.
    """
    scales = study.scales.values() if study.is_full else ()
    read = [Path(text) for text in _texts(study.to_dict() | {"scales": {}})]
    for folder in (Path(name) for scale in scales for name in scale.get("miniatures") or {}):
        if (folder / MARK).is_file() and any(path.is_relative_to(folder) for path in read):
            raise ValueError(
                f"{folder} is a miniature that a small scale has rendered, and a study at full scale is for real "
                "data: put that in its place, or delete the folder, which the small scale renders again."
            )
    for folder, name in ((Path(folder), name) for folder, name in study.miniatures.items()):
        if folder.exists():
            continue
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Shards begin at the same time.
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.exists():
                logger.info("%s does not exist: rendering a miniature of %s", folder, name)
                with atomic_folder(folder) as partial:
                    write_miniature(name, partial, SCENES)
                    (partial / MARK).write_text(f"A miniature of {name} for small scales of studies: no real data.\n")


def _texts(options: Any) -> Iterator[str]:
    """All texts of some options, those that name folders among them."""
    if isinstance(options, str):
        yield options
    elif isinstance(options, (dict, list)):
        for value in options.values() if isinstance(options, dict) else options:
            yield from _texts(value)
