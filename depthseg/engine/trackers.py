"""Trackers of experiments, through the interface that Accelerate has for all of them.

A tracker shows numbers that are in metrics.jsonl anyway, so one that is not installed or not reached costs a warning,
never the run.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from .config import flattened

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from accelerate.tracking import GeneralTracker

    from .options import RunConfig

logger = logging.getLogger(__name__)

PROJECT = "depthseg"
"""Project of wandb and trackio, experiment of mlflow, unless `WANDB_PROJECT`, `TRACKIO_PROJECT` or
`MLFLOW_EXPERIMENT_NAME` says otherwise."""


class Trackers:
    """The trackers of one run; only the first process has any.

    Args:
        config: The options, `run.trackers` among them.
        run_dir: Run directory.
        started: When the first launch of the run began, as in `run.json`; part of the name of the run, so that a
            resumed launch goes on under the name of the first one.
        first_step: Step that this launch begins with.
    """

    def __init__(self, config: RunConfig, run_dir: Path, started: str, first_step: int) -> None:
        self._trackers: dict[str, GeneralTracker] = {}
        name_of_run = re.sub(r"[^\w.-]+", "-", f"{run_dir.name}-{started}")
        options = {name: _plain(value) for name, value in flattened(config.to_dict()).items()}
        for name in dict.fromkeys(config.run.trackers):
            found = find_spec(name)
            if found is None or found.origin is None:  # a folder of that name, as wandb makes, is no package
                logger.warning(
                    "The tracker %s is not installed, so this run goes on without it: `pip install %s`, or "
                    "leave it out of run.trackers.",
                    *(name, name),
                )
                continue
            self._try(name, self._open, name, _arguments(name, run_dir, name_of_run, first_step), options)

    @property
    def shows_images(self) -> bool:
        """Whether any of them shows images."""
        return any(hasattr(tracker, "log_images") for tracker in self._trackers.values())

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers, by name such as `train/loss`."""
        for name, tracker in tuple(self._trackers.items()):
            self._try(name, tracker.log, dict(values), step=step)

    def log_images(self, images: Mapping[str, np.ndarray], step: int) -> None:
        """Show images uint8 `(H, W, 3)`, by name, where a tracker shows images at all."""
        batches = {name: image[None] for name, image in images.items()}
        for name, tracker in tuple(self._trackers.items()):
            if hasattr(tracker, "log_images"):
                layout = {"dataformats": "NHWC"} if name == "tensorboard" else {}
                self._try(name, tracker.log_images, batches, step, **layout)

    def close(self) -> None:
        """Finish all of them."""
        for name, tracker in tuple(self._trackers.items()):
            self._try(name, tracker.finish)
        self._trackers.clear()

    def _open(self, name: str, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        tracker = LOGGER_TYPE_TO_CLASS[name](**arguments)
        tracker.start()
        if name != "tensorboard":  # which would write a second run beside this one; config.yaml is there anyway
            tracker.store_init_configuration(dict(options))
        self._trackers[name] = tracker

    def _try(self, name: str, action: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Call a tracker, and give it up with a warning where that fails, in whatever way."""
        try:
            action(*arguments, **options)
        except Exception as error:
            self._trackers.pop(name, None)
            logger.debug("where the tracker failed", exc_info=True)
            logger.warning(
                "The tracker %s failed (%s: %s), so this run goes on without it; metrics.jsonl has all scores.",
                *(name, type(error).__name__, error),
            )


def _arguments(name: str, run_dir: Path, name_of_run: str, first_step: int) -> dict[str, Any]:
    """What Accelerate's class of a tracker is made with."""
    project = os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
    same_run = {"run_name": project, "name": name_of_run, "resume": "allow"}
    return {
        # What an interrupted launch wrote of later steps is taken back.
        "tensorboard": {"run_name": "tensorboard", "logging_dir": str(run_dir), "purge_step": first_step + 1},
        "trackio": same_run,
        "wandb": same_run | {"id": name_of_run, "dir": str(run_dir)},
        "mlflow": {"experiment_name": PROJECT, "run_name": name_of_run},
    }[name]


def _plain(value: Any) -> bool | int | float | str | None:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
