"""What a prediction that was stopped has done, so that the same call resumes it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .prediction_files import Place, refuse_to_overwrite
from .records import write_json

logger = logging.getLogger(__name__)

FOLDER = ".unfinished"
"""In the output directory; gone when a prediction is finished."""
_CALL, _VIDEO = "call.json", "video.json"


class PredictionProgress:
    """Notes which inputs of a call are done.

    Args:
        output_dir: Of the call.
        call: Model and options; a call with others does not resume it.
    """

    def __init__(self, output_dir: Path, call: dict[str, Any]) -> None:
        self._folder = output_dir / FOLDER
        self._call = json.loads(json.dumps(call))
        self._done: dict[str, str] = {}

    def resume(self, places: Mapping[Path, Place], overwrite: bool) -> None:
        """Take up what an earlier call has done.

        Args:
            places: Inputs, and where their outputs go.
            overwrite: Whether outputs are replaced that no interrupted call of the same options has made.

        Raises:
            FileExistsError: There are such outputs, or an interrupted call of other options.
        """
        record = self._folder / _CALL
        if record.is_file():
            stored = json.loads(record.read_text(encoding="utf-8"))
            if stored["call"] == self._call:
                self._done = stored["done"]
                logger.info("Resuming: %d of %d inputs are done.", len(self._done), len(places))
            elif overwrite:
                self.finish()
            else:
                raise FileExistsError(
                    f"{self._folder} holds an interrupted prediction with another model or other options. Call it "
                    "with those again to finish it, choose another output directory, or ask for it to be overwritten."
                )
        if not overwrite:
            refuse_to_overwrite(place for path, place in places.items() if not self.is_done(path))

    def is_done(self, path: Path) -> bool:
        """Whether the outputs of an input are written."""
        return str(path.resolve()) in self._done

    def note(self, path: Path, name: str) -> None:
        """Count an input as done."""
        self._done[str(path.resolve())] = name

    def save(self) -> None:
        """Write down what is done."""
        write_json(self._folder / _CALL, {"call": self._call, "done": self._done})

    def pieces_of(self, name: str, path: Path) -> Path:
        """The folder of the pieces of a video; those of another file of this name are removed."""
        folder = self._folder / name
        identity = file_identity(path)
        record = folder / _VIDEO
        if record.is_file() and json.loads(record.read_text(encoding="utf-8")) != identity:
            logger.warning("%s has changed since the prediction was interrupted and is done from the beginning.", path)
            shutil.rmtree(folder)
        write_json(record, identity)
        return folder

    def finish(self) -> None:
        """Remove all notes and pieces."""
        shutil.rmtree(self._folder, ignore_errors=True)


def file_identity(path: Path) -> list[Any]:
    """What changes when a file is replaced."""
    return [str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns]


def checkpoint_files(model_path: str | Path) -> list[Any]:
    """What changes when the files of a checkpoint directory do; nothing of a Hub id."""
    folder = Path(model_path)
    files: Sequence[Path] = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file_identity(path) for path in files if path.is_file()]
