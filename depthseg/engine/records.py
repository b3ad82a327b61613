"""What a run writes down: run.json, metrics.jsonl, subset.json, trackers, progress."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import platform
import sys
import time
from typing import TYPE_CHECKING, Any

import accelerate
import torch
import transformers
from tqdm import tqdm

from .. import __version__
from .atomic import atomic_path, sync
from .trackers import Trackers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from accelerate import Accelerator

    from .options import RunConfig
    from .state import Progress

logger = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
RUN_RECORD = "run.json"
SETTINGS = ("lr", "min_depth", "max_depth")
"""Numbers of a line that are settings, not measurements."""


class RunLog:
    """Everything that one process writes about a run; on processes other than the first it writes nothing.

    Args:
        run_dir: Run directory.
        accelerator: Knows which process this is.
        config: The options.
        progress: Where this launch begins; records of what is still to do are left over from an interrupted launch
            and are dropped.
    """

    def __init__(self, run_dir: Path, accelerator: Accelerator, config: RunConfig, progress: Progress) -> None:
        self._name = run_dir.name
        self._metrics = run_dir / METRICS_FILE
        self._steps = config.schedule.steps
        self._log_every = config.run.log_every
        self._trackers: Trackers | None = None
        self._first_step, self._seconds_before = progress.step, progress.seconds
        self._started = time.perf_counter()
        self._waited = 0.0
        if accelerator.is_main_process:
            _drop_later_lines(self._metrics, progress.step - progress.evaluation_is_due)
            started = _record_launch(run_dir / RUN_RECORD, accelerator, progress)
            self._trackers = Trackers(config, run_dir, started, progress.step)
        # A child process, as of the quickstart, is one of several: their bars would overwrite each other.
        alone = multiprocessing.parent_process() is None
        terminal = accelerator.is_main_process and alone and sys.stderr.isatty()
        self._bar = tqdm(
            total=self._steps, initial=progress.step, unit="step", disable=not terminal, dynamic_ncols=True
        )

    @property
    def seconds(self) -> float:
        """Time of training of all launches up to now."""
        return self._seconds_before + time.perf_counter() - self._started

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of this block as time that the loop waits for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def advance(self) -> None:
        """Move the bar by one optimiser step."""
        self._bar.update(1)

    def step(self, step: int, values: dict[str, float], lr: float) -> None:
        """Note the numbers of an optimiser step, where a line of progress is due.

        With them goes the share of the time of this launch that was spent waiting for data.

        Args:
            step: Steps done.
            values: Loss, its parts, gradient norm.
            lr: Learning rate of the step.
        """
        if self._trackers is None or (step % self._log_every and step != self._steps):
            return
        seconds = time.perf_counter() - self._started
        waited = self._waited / seconds
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", lr=f"{lr:.2e}", data=f"{waited:.0%}")
        if self._bar.disable:
            rate = (step - self._first_step) / seconds
            left = tqdm.format_interval((self._steps - step) / rate)
            logger.info(
                "%s: step %d/%d, loss %.4f, lr %.2e, %.2f steps/s, waiting for data %.0f %%, %s left",
                *(self._name, step, self._steps, values["loss"], lr, rate, 100 * waited, left),
            )
        self._trackers.log(
            {f"train/{name}": value for name, value in {**values, "lr": lr, "data_wait": waited}.items()}, step
        )

    def scores(self, line: dict[str, Any]) -> None:
        """Append the scores of one evaluation to metrics.jsonl and the trackers.

        Args:
            line: `step`, `train_loss`, `lr` and the scores.
        """
        if self._trackers is None:
            return
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "seconds": round(self.seconds, 1)}) + "\n")
        sync(self._metrics)  # a checkpoint that counts on this line may outlive a loss of power
        numbers = {name: value for name, value in line.items() if isinstance(value, float) and name not in SETTINGS}
        text = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        logger.info("%s: step %d evaluated: %s", self._name, line["step"], text)
        self._trackers.log({f"eval/{name}": value for name, value in numbers.items()}, line["step"])

    @property
    def shows_images(self) -> bool:
        """Whether this process has a tracker that shows images."""
        return self._trackers is not None and self._trackers.shows_images

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Show images uint8 `(H, W, 3)` in the trackers."""
        if self._trackers is not None:
            self._trackers.log_images({f"images/{name}": image for name, image in images.items()}, step)

    def close(self) -> None:
        """Finish bar and trackers."""
        self._bar.close()
        if self._trackers is not None:
            self._trackers.close()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_run_record(path: Path) -> dict[str, Any]:
    """The content of a run.json; empty where there is none.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}). Remove it to resume the run: only the record of its earlier launches goes "
            "with it."
        ) from error


def _record_launch(path: Path, accelerator: Accelerator, progress: Progress) -> str:
    """Add this launch to run.json, where a run that was resumed has several; returns when the first one started."""
    record = read_run_record(path)
    launch = {
        "first_step": progress.step,
        "seconds_before": round(progress.seconds, 1),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "num_processes": accelerator.num_processes,
        "distribution": accelerator.distributed_type.value,
        "device": torch.cuda.get_device_name() if accelerator.device.type == "cuda" else accelerator.device.type,
        "precision": accelerator.mixed_precision,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
        "depthseg": __version__,
    }
    launches = [*record.get("launches", []), launch]
    write_json(path, record | {"launches": launches})
    return launches[0]["started"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, without one that a killed launch left incomplete; none where there is no file."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def _drop_later_lines(path: Path, last_step: int) -> None:
    if not path.is_file():
        return
    kept = [json.dumps(line) + "\n" for line in read_lines(path) if line["step"] <= last_step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
