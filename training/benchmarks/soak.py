"""Memory, open files and threads of a long run stay what they are after its first steps.

    python training/benchmarks/soak.py --steps 20000 --output training/benchmarks/results/soak.json

Trains a toy network on images made in memory, with evaluations, checkpoints, event files and a reading process, and
looks at the process and its children every so many steps. Exit code 1 where memory grows by more than a megabyte in
1,000 steps, or files or threads grow at all. Needs /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthseg.data import LabelSpace, Sample
from depthseg.engine.atomic import atomic_path
from depthseg.engine.config import load_config
from depthseg.engine.run import train

MEGABYTE = 1e6
MOST_GROWTH = 1.0
"""Megabytes of resident memory in 1,000 steps."""

WARM_UP = 0.2
"""Share of the looks that come before allocators and caches have settled."""


class Toys:
    """Small images of two classes, made when they are read."""

    label_space = LabelSpace("toys", ("left", "right"), ((255, 0, 0), (0, 255, 0)))

    def __init__(self, count: int) -> None:
        self.names = [f"toy_{index}" for index in range(count)]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        labels = (np.arange(32) > rng.integers(8, 24)).astype(np.uint8)[None].repeat(32, 0)
        image = rng.integers(0, 120, (32, 32, 3)) + 100 * labels[..., None]
        return Sample(self.names[index], image.astype(np.uint8), labels)


def look(step: int) -> dict[str, Any]:
    """Resident megabytes, open files and threads of this process and of its children, after a step."""
    found = {"step": step, "rss_mb": 0.0, "files": 0, "threads": 0}
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    for process in (os.getpid(), *(int(child) for each in children for child in each)):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
            found["rss_mb"] += round(pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE, 2)
            found["files"] += len(os.listdir(f"/proc/{process}/fd"))
            found["threads"] += len(os.listdir(f"/proc/{process}/task"))
    return found


class Watch(logging.Handler):
    """Looks at the process at every line of progress."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look, where the line is one of progress."""
        match = re.search(r": step (\d+)/", record.getMessage())
        if match:
            self.looks.append(look(int(match[1])))


def soak(steps: int, folder: Path, num_workers: int = 1) -> dict[str, Any]:
    """Train for so many steps and return the looks with what they say.

    Args:
        steps: At least 1,000 say something.
        folder: Where the run goes; made.
        num_workers: Reading processes.
    """
    every = max(steps // 40, 1)
    words = [
        "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}",
        "model.head_config={decoder_channels: [4, 4, 4, 8, 8]}",
        *("data.size=[32,32]", f"data.num_workers={num_workers}", "optim.batch_size=2"),
        *(
            f"schedule.steps={steps}",
            "schedule.warmup_steps=0",
            f"run.log_every={every}",
            f"run.eval_every={4 * every}",
        ),
        *(f"run.checkpoint_every={2 * every}", "run.cpu=true", "run.report=false", f"run.output_dir={folder / 'run'}"),
    ]
    watch, logger = Watch(), logging.getLogger("depthseg.engine.records")
    logger.setLevel(logging.INFO)
    logger.addHandler(watch)
    torch.set_num_threads(1)
    try:
        # Progress is a line, and no bar, where nobody looks at a terminal.
        with (folder / "log.txt").open("w", encoding="utf-8") as log, contextlib.redirect_stderr(log):
            train(load_config(None, words), Toys(16), Toys(2))
    finally:
        logger.removeHandler(watch)
    settled = watch.looks[int(WARM_UP * len(watch.looks)) :]
    slope = np.polyfit([each["step"] / 1000 for each in settled], [each["rss_mb"] for each in settled], 1)[0]
    # The reading processes of the run have ended when its last line is written.
    running = settled[:-1]
    grown = {name: running[-1][name] - running[0][name] for name in ("files", "threads")}
    return {
        "steps": steps,
        "rss_mb_in_1000_steps": round(float(slope), 4),
        "files_grown_by": grown["files"],
        "threads_grown_by": grown["threads"],
        "passed": bool(slope < MOST_GROWTH and max(grown.values()) <= 0),
        "looks": watch.looks,
    }


def main() -> None:
    """Soak and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file of the looks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(arguments.steps, Path(folder), arguments.num_workers)
    if arguments.output is not None:
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "looks"}, indent=2))
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()
