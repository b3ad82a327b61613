"""SIGKILL at fifty moments: every run resumes, and ends with the weights of one that nothing interrupted, bit by bit.

    python training/benchmarks/kill_and_resume.py --work-dir /tmp/kills \
        --output training/benchmarks/results/kill_and_resume.md

Ten moments are inside the writing of a checkpoint, forty are drawn from a seed over the time of a whole run; for one
and for two processes (gloo on the CPU), with caches of features and of decoded images, and without. Each moment is a
run of its own: it is killed, resumed and compared. What is done is in `WORK_DIR/moments.jsonl`, and is not done again
when the script itself is stopped and started anew. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import depthseg.engine.atomic as atomic
import depthseg.engine.checkpoint as checkpoint
import depthseg.engine.state as state
from depthseg.engine.config import load_config
from depthseg.engine.run import train

STEPS, CHECKPOINT_EVERY = 12, 2
WATCHED = (
    *(f"checkpoints/step_{STEPS}/{name}" for name in ("model.safetensors", "optimizer.safetensors")),
    *(f"checkpoints/step_{STEPS}/random_states.json", "model/model.safetensors"),
)
"""Files that have to be equal byte by byte."""

SETTINGS = [(processes, cache) for processes in (1, 2) for cache in (False, True)]
TIMED = 40


def _die(*arguments: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _before(module: Any, name: str, count: int, path: str = "") -> None:
    """Die before a call of a function whose arguments contain a text, the `count`-th one."""
    function, left = getattr(module, name), [count]

    def call(*arguments: Any, **options: Any) -> Any:
        if path in str(arguments):
            left[0] -= 1
            if not left[0]:
                _die()
        return function(*arguments, **options)

    setattr(module, name, call)


def _after(module: Any, name: str, count: int, path: str = "") -> None:
    """Die after such a call."""
    function, left = getattr(module, name), [count]

    def call(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        if path in str(arguments):
            left[0] -= 1
            if not left[0]:
                _die()
        return result

    setattr(module, name, call)


SECOND = "step_4"
PLACES: dict[str, Callable[[], None]] = {
    "weights written under their hidden name": lambda: _after(state, "save_file", 1, f".{SECOND}.partial/model"),
    "optimiser state written under its hidden name": lambda: _after(state, "save_file", 1, f".{SECOND}.partial/opt"),
    "all written, before the manifest": lambda: _before(checkpoint, "write_json", 1, f".{SECOND}.partial/manifest"),
    "inside the manifest, before its fsync": lambda: _before(atomic, "sync", 1, f"{SECOND}.partial/.manifest"),
    "inside the manifest, before its rename": lambda: _before(atomic.os, "replace", 1, f"{SECOND}.partial/.manifest"),
    "before the first fsync of the folder": lambda: _before(atomic, "sync", 1, f".{SECOND}.partial/m"),
    "between two fsyncs of the folder": lambda: _after(atomic, "sync", 1, f".{SECOND}.partial/model"),
    "before the rename of the folder": lambda: _before(Path, "rename", 1, f".{SECOND}.partial"),
    "after the rename, before the fsync of its parent": lambda: _after(Path, "rename", 1, f".{SECOND}.partial"),
    "before older checkpoints are removed": lambda: _before(checkpoint, "_remove_others", 3),
}
"""Place inside the writing of a checkpoint -> what makes a process die there."""


@dataclass(frozen=True)
class Moment:
    """When a run is killed.

    Attributes:
        number: From 1.
        processes: Of the launch.
        cache: Whether the features of the encoder and decoded images are cached.
        place: Place in the checkpoint; None = at a time.
        share: Share of the time of an uninterrupted run.
    """

    number: int
    processes: int
    cache: bool
    place: str | None = None
    share: float = 0.0


def moments() -> list[Moment]:
    """The fifty moments: places and times take turns, over all settings."""
    rng = np.random.default_rng(0)
    found: list[Moment] = []
    places = list(PLACES)
    for number in range(1, len(places) + TIMED + 1):
        processes, cache = SETTINGS[number % len(SETTINGS)]
        is_place = number % 5 == 1
        place = places[number // 5] if is_place else None
        found.append(Moment(number, processes, cache, place, 0.0 if is_place else round(rng.uniform(0.02, 1), 3)))
    return found


def write_images(root: Path) -> None:
    """Twelve images with label maps in the layout `folder`."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for index in range(12):
        image, labels = rng.integers(0, 255, (32, 64, 3)), rng.integers(0, 2, (32, 64))
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{index}.png")
        Image.fromarray(labels.astype(np.uint8)).save(root / "labels" / f"{index}.png")
    (root / "classes.txt").write_text("ground\ntree\n", encoding="utf-8")


def options(work_dir: Path, run_dir: Path, cache: bool) -> list[str]:
    """Options of the run, as on the command line."""
    cached = (
        *("model.freeze_encoder=true", "data.cache_features=true", "data.cache=auto"),
        f"data.cache_dir={run_dir}.cache",
    )
    return [
        "model.encoder={model_type: depthseg_resnet, depth: 18, width_factor: 0.125}",
        *("data.name=folder", f"data.root={work_dir / 'images'}", "data.size=[32,64]", "optim.batch_size=4"),
        *(f"schedule.steps={STEPS}", f"run.checkpoint_every={CHECKPOINT_EVERY}", "run.eval_every=3"),
        *("run.cpu=true", "run.trackers=[]", "run.report=false", "run.select=last", "run.resume=true"),
        f"run.output_dir={run_dir}",
        *(cached if cache else ("data.cache=off", "data.crop_scale=[0.5,1]")),
    ]


def start(words: Sequence[str], processes: int, log: Path, dies: Callable[[], None] | None = None) -> list[int]:
    """Fork the processes of a launch; the first one dies where it is told to.

    Returns:
        Their ids.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        code = 1
        try:
            with log.open("a", encoding="utf-8") as file:
                os.dup2(file.fileno(), 2)
            if processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            if dies is not None and rank == 0:
                dies()
            train(load_config(None, list(words)))
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(code)
    return children


def finish(children: Sequence[int], after: float | None = None) -> list[int]:
    """Wait for the processes; kill them all after a time, or as soon as one is killed. Returns their exit codes."""
    deadline = None if after is None else time.monotonic() + after
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    codes[child] = os.waitstatus_to_exitcode(status)
        if (deadline is not None and time.monotonic() > deadline) or any(codes.values()):
            for child in set(children) - codes.keys():
                os.kill(child, signal.SIGKILL)
            deadline = None
        time.sleep(0.005)
    return [codes[child] for child in children]


def whole_run(work_dir: Path, processes: int, cache: bool) -> tuple[Path, float]:
    """A run that nothing interrupts, and its seconds; done once."""
    run_dir = work_dir / f"whole_{processes}_{'cache' if cache else 'plain'}"
    timing = run_dir.with_suffix(".seconds")
    if not timing.is_file():
        shutil.rmtree(run_dir, ignore_errors=True)
        began = time.monotonic()
        words = options(work_dir, run_dir, cache)
        codes = finish(start(words, processes, run_dir.with_suffix(".log")))
        if any(codes):
            raise RuntimeError(f"The run that nothing interrupts failed; see {run_dir.with_suffix('.log')}.")
        timing.write_text(str(time.monotonic() - began), encoding="utf-8")
    return run_dir, float(timing.read_text(encoding="utf-8"))


def try_moment(work_dir: Path, moment: Moment) -> dict[str, Any]:
    """Kill a run at a moment, resume it, and compare it with the one that nothing interrupted."""
    whole, seconds = whole_run(work_dir, moment.processes, moment.cache)
    run_dir = work_dir / f"moment_{moment.number}"
    words, log = options(work_dir, run_dir, moment.cache), run_dir.with_suffix(".log")
    killed = False
    while not killed:
        shutil.rmtree(run_dir, ignore_errors=True)
        shutil.rmtree(f"{run_dir}.cache", ignore_errors=True)
        dies, after = (None, moment.share * seconds) if moment.place is None else (PLACES[moment.place], None)
        began = time.monotonic()
        killed = -signal.SIGKILL in finish(start(words, moment.processes, log, dies), after)
        # Where it ended first, the machine has become faster than it was for the run that nothing interrupts.
        seconds = seconds if killed else min(0.9 * seconds, time.monotonic() - began)
    newest = checkpoint.find_checkpoint(run_dir / checkpoint.FOLDER)
    resumed = finish(start(words, moment.processes, log))
    same = not any(resumed) and all((run_dir / name).read_bytes() == (whole / name).read_bytes() for name in WATCHED)
    if same:
        shutil.rmtree(run_dir)
        shutil.rmtree(f"{run_dir}.cache", ignore_errors=True)
    return {
        **asdict(moment),
        "seconds": round(moment.share * seconds, 2),
        "resumed_after": 0 if newest is None else int(newest.name.removeprefix("step_")),
        "bit_equal": same,
    }


def table(results: Sequence[dict[str, Any]]) -> str:
    """The results as a page."""
    equal = sum(each["bit_equal"] for each in results)
    lines = [
        "# SIGKILL and resume",
        "",
        f"{equal} of {len(results)} runs ended with the weights, optimiser state and random states of a run that "
        f"nothing interrupted, bit by bit ({STEPS} steps, a checkpoint every {CHECKPOINT_EVERY}). Written by "
        "`training/benchmarks/kill_and_resume.py`.",
        "",
        "| | processes | cache | killed | resumed after step | bit-equal |",
        "|---|---|---|---|---|---|",
    ]
    for each in results:
        when = each["place"] or f"after {each['seconds']:.2f} s ({100 * each['share']:.0f} % of the run)"
        cache, equal = ("on" if each["cache"] else "off"), ("yes" if each["bit_equal"] else "**no**")
        lines.append(
            f"| {each['number']} | {each['processes']} | {cache} | {when} | {each['resumed_after']} | {equal} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try the moments that are not done, and write the table when all are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="where the runs go; what is done stays there")
    parser.add_argument("--output", type=Path, help="Markdown file of the table")
    parser.add_argument("--moments", type=int, nargs="+", metavar="N", help="only those of these numbers, from 1")
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    write_images(arguments.work_dir / "images")
    done_file = arguments.work_dir / "moments.jsonl"
    lines = done_file.read_text(encoding="utf-8").splitlines() if done_file.is_file() else []
    done = {result["number"]: result for result in map(json.loads, lines)}
    for moment in moments():
        if moment.number in done or moment.number not in (arguments.moments or [moment.number]):
            continue
        done[moment.number] = try_moment(arguments.work_dir, moment)
        with done_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[moment.number]) + "\n")
        print(json.dumps(done[moment.number]), flush=True)
    results = [done[number] for number in sorted(done)]
    if arguments.output is not None:
        with atomic.atomic_path(arguments.output) as temporary:
            temporary.write_text(table(results), encoding="utf-8")
    sys.exit(0 if all(each["bit_equal"] for each in results) else 1)


if __name__ == "__main__":
    main()
