"""What one device does in a second: the parts of `training/benchmarks/gpu.py`.

Every part yields rows, plain dictionaries, as they are measured, so that a part that is cut off keeps the ones before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..engine.predict import predict_maps
from ..metrics import ConfusionMatrix
from ..models import DepthSegImageProcessor
from . import TINY_DEPTH_ANYTHING, environment, lean
from .timing import Comparison, time_in_turns
from .training_step import NETWORKS, NUM_LABELS, EngineLoop, PlainLoop, Setting, Variant

Row = dict[str, Any]

PEAKS = {
    **{"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12},
    **{"L40S": 362e12, "A10": 125e12, "L4": 121e12},
}
"""Operations a second on bf16 matrices without sparsity, by the makers' data sheets (SXM where there are several)."""

VARIANTS = {
    "depthseg": {},
    "pure_bf16": {"pure_bf16": True},
    "labels at every second pixel": {"label_stride": 2},
    "not channels-last": {"channels_last": False},
    "AdamW not fused": {"fused": False},
    "compile": {"compile": True},
    "pure_bf16 and compile": {"pure_bf16": True, "compile": True},
}
"""Variant of the engine's step -> options of `Variant`; those that take long to begin are last."""

BLOCK_SECONDS = 0.2
TESTS = (
    ("tests/engine/test_predict.py", "tests/engine/test_inference.py", "tests/models/test_lean_loss.py"),
    ("tests/engine/test_run.py", "tests/engine/test_evaluation.py", "tests/test_quickstart.py"),
    ("tests/pretext", "tests/metrics"),
)
TINY_TESTS = (("tests/engine/test_sampling.py",),)
PROGRESS = re.compile(r"step (\d+)/\d+,.*? ([\d.]+) steps/s")


@dataclass(frozen=True)
class Where:
    """Where a part runs.

    Attributes:
        device: Name of a device of PyTorch.
        checkout: Folder of the repository.
        work: Folder for what is made on the way.
        tiny: Sizes that a CPU does in seconds; their times mean nothing.
    """

    device: str
    checkout: Path
    work: Path
    tiny: bool = False

    def now(self) -> float:
        """Seconds of a clock, when the device has done what it was given."""
        if torch.device(self.device).type != "cpu":
            torch.accelerator.synchronize(self.device)
        return time.perf_counter()

    def peak_of(self, run: Callable[[], object]) -> int | None:
        """Most bytes of the device that are in use during a run; None on a CPU."""
        if torch.device(self.device).type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        run()
        return torch.cuda.max_memory_allocated(self.device)


def tests(where: Where) -> Iterator[Row]:
    """The tests whose code takes another way on a GPU."""
    for files in TINY_TESTS if where.tiny else TESTS:
        command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *files]
        command += ["-n", "0"] if where.tiny else []
        done = subprocess.run(command, cwd=where.checkout, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        if not lines:  # such as of an installation without pytest
            raise RuntimeError(f"the tests ended with {done.returncode}: {done.stderr[-500:]}")
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?)", lines[-1])}
        yield {"files": list(files), **counts, "failures": [line for line in lines if line.startswith("FAILED")]}


def quickstart(where: Where) -> Iterator[Row]:
    """`depthseg quickstart`."""
    if where.tiny:
        yield {"skipped": "the quickstart has one size, which takes minutes on a CPU"}
        return
    command = [sys.executable, "-m", "depthseg.cli", "quickstart", "--overwrite"]
    started = time.perf_counter()
    done = subprocess.run([*command, "--output-dir", where.work / "quickstart"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the quickstart ended with {done.returncode}: {done.stderr[-500:]}")
    yield {"seconds": time.perf_counter() - started, "table": done.stdout.splitlines()}


def steps(where: Where, *, network: str, batch: int) -> Iterator[Row]:
    """Training steps of Depth Anything with its DPT head as a segmenter of 19 classes, beside a plain loop."""
    setting = Setting(NETWORKS[network], batch, (518, 518), where.device, "bf16")
    if where.tiny:
        setting = Setting(TINY_DEPTH_ANYTHING, 1, (28, 42), where.device, "bf16")
    plain = PlainLoop(setting)
    with FlopCounterMode(display=False) as counter:
        plain()
    flops = counter.get_total_flops()
    peak = where.peak_of(plain)
    started = where.now()
    plain()
    block = max(1, round(BLOCK_SECONDS / (where.now() - started)))
    yield {"variant": "plain loop", "batch": setting.batch, "size": setting.size, "flops": flops, "peak_bytes": peak}
    for name, options in VARIANTS.items():
        try:
            yield {"variant": name, **_beside(plain, setting, where, block, flops, options)}
        except (RuntimeError, ValueError) as error:  # such as too little memory
            yield {"variant": name, "error": str(error).partition("\n")[0]}


def _beside(
    plain: PlainLoop, setting: Setting, where: Where, block: int, flops: int, options: Mapping[str, Any]
) -> Row:
    """Time a variant and the plain loop in turns, in blocks of steps, as the device works while Python goes on."""
    resident = torch.cuda.memory_allocated(where.device) if torch.device(where.device).type == "cuda" else 0
    variant = Variant(**options, backend="eager" if where.tiny else "inductor")
    ours = EngineLoop(setting, variant)
    started = where.now()
    ours()
    first_step = where.now() - started
    peak = where.peak_of(ours)
    sides = {"plain loop": partial(_repeat, plain, block), "depthseg": partial(_repeat, ours, block)}
    seconds = time_in_turns(sides, 2 if where.tiny else 4, where.now)
    seconds = {side: [each / block for each in found] for side, found in seconds.items()}
    found = Comparison("", seconds, *setting.size).to_dict()
    row = {key: found[key] for key in ("ratio", "ratio_min", "ratio_max")}
    theirs, mine = found["medians"].values()
    row |= {"plain_ms": 1000 * theirs, "ms": 1000 * mine, "images_per_second": setting.batch / mine}
    row |= {"first_step_seconds": first_step, "peak_bytes": None if peak is None else peak - resident}
    at_peak = peak_of_device(where.device)
    return row | ({} if at_peak is None else {"mfu": flops / mine / at_peak, "plain_mfu": flops / theirs / at_peak})


def _repeat(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()


def peak_of_device(device: str) -> float | None:
    """bf16 operations a second of a device by its data sheet; None = not known."""
    if torch.device(device).type != "cuda":
        return None
    words = re.split(r"\W+", torch.cuda.get_device_name(device))
    return next((peak for name, peak in PEAKS.items() if name in words), None)


def camvid(where: Where) -> Iterator[Row]:
    """`depthseg finetune` of a ResNet-18 of full width on CamVid, files read by processes."""
    folder = os.environ.get("DEPTHSEG_DATA")
    if folder is None or not Path(folder, "camvid").is_dir():
        yield {"skipped": "DEPTHSEG_DATA names no folder with camvid/ in it"}
        return
    options = [f"data.root={folder}/camvid", "data.subset_size=0", "run.precision=bf16"]
    if where.tiny:
        options += ["data.size=[48,64]", "model.encoder.width_factor=0.125"]
    else:
        options += ["data.size=[352,480]", "model.encoder.width_factor=1.0", f"data.num_workers={readers(12)}"]
    yield _rate_of_run(where, "finetune", "camvid_fewshot_resnet18", options, batch=2 if where.tiny else 16)


def mono(where: Where) -> Iterator[Row]:
    """`depthseg pretrain` on monocular video of the procedural world."""
    options = [f"data.root={where.work / 'world'}"]
    if where.tiny:
        options += ["data.train_options.count=4", "data.val_options.count=1", "data.size=[32,96]"]
        options += ["model.encoder.width_factor=0.125"]
    else:
        options += ["data.train_options.count=96", "data.val_options.count=4", f"data.num_workers={readers(8)}"]
    yield _rate_of_run(where, "pretrain", "pretrain_synthetic_mono", options, batch=2 if where.tiny else 8)


def readers(most: int) -> int:
    """Reading processes: one a core, but for that of the training."""
    return min(most, max(1, (os.cpu_count() or 1) - 1))


def _rate_of_run(where: Where, command: str, recipe: str, options: Sequence[str], batch: int) -> Row:
    """Steps a second of a run that is ended after some seconds of training; the first third of them is not counted."""
    folder, every, seconds = where.work / recipe, *((1, 10) if where.tiny else (10, 25))
    options = [*options, f"optim.batch_size={batch}", "schedule.steps=100000", "schedule.warmup_steps=0"]
    options += [f"run.output_dir={folder}", "run.overwrite=true", "run.tensorboard=false", f"run.log_every={every}"]
    options += ["run.eval_every=0", "run.checkpoint_every=0"]
    options += ["run.cpu=true"] if torch.device(where.device).type == "cpu" else []
    seen = progress_of([sys.executable, "-m", "depthseg.cli", command, "--config", recipe, *options], seconds)
    (first, started, _), (last, ended, line) = seen[len(seen) // 3], seen[-1]
    if last == first:
        raise RuntimeError(f"{recipe} reached step {last} in {seconds} seconds, too few to time")
    rate = (last - first) / (ended - started)
    return {"steps_per_second": rate, "images_per_second": rate * batch, "steps": last, "last_line": line.strip()}


def progress_of(command: Sequence[str], seconds: float) -> list[tuple[int, float, str]]:
    """Step, time and line of each line of progress of a training, which is ended some seconds after the first one.

    Raises:
        RuntimeError: It ended by itself.
    """
    lines, found = [], []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        timer = None
        for line in process.stderr:
            lines.append(line)
            match = PROGRESS.search(line)
            if match and timer is None:
                timer = threading.Timer(seconds, process.kill)
                timer.start()
            if match:
                found.append((int(match[1]), time.perf_counter(), line))
        if timer is not None:
            timer.join()
    if process.returncode >= 0 or not found:
        raise RuntimeError("a training ended by itself: " + "".join(lines)[-500:])
    return found


def metric(where: Where) -> Iterator[Row]:
    """Counting of ids on the device, beside a bare histogram."""
    shape = (2, 20, 30) if where.tiny else (16, 512, 1024)
    generator = torch.Generator().manual_seed(0)
    ids, labels = (torch.randint(0, NUM_LABELS, shape, generator=generator).to(where.device) for _ in range(2))
    matrix = ConfusionMatrix(NUM_LABELS)
    sides = {
        "bincount": lambda: torch.bincount((labels * NUM_LABELS + ids).flatten(), minlength=NUM_LABELS**2),
        "depthseg": lambda: matrix.update(ids, labels),
    }
    yield _row_of(time_in_turns(sides, 2 if where.tiny else 20, where.now))


def loss(where: Where) -> Iterator[Row]:
    """The segmentation loss at the size of the labels, forward and backward, beside PyTorch's own."""
    for shape in ((1, 3, 6, 20),) if where.tiny else ((16, 19, 518, 518), (16, 19, 130, 518), (4, 150, 128, 512)):
        scores, labels = lean.make_inputs(*shape)
        inputs = scores.detach().to(where.device).requires_grad_(), labels.to(where.device)
        sides = {side: partial(run, inputs) for side, run in lean.SIDES["loss"].items()}
        peaks = {f"peak_bytes_{side}": where.peak_of(run) for side, run in sides.items()}
        yield {"shape": shape, **_row_of(time_in_turns(sides, 2 if where.tiny else 20, where.now)), **peaks}


@torch.inference_mode()
def predict(where: Where) -> Iterator[Row]:
    """Images a second from pixels to ids at their own size, one at a time, as `depthseg predict` does them."""
    for network in ("small",) if where.tiny else ("small", "large"):
        side = 28 if where.tiny else 518
        setting = Setting(TINY_DEPTH_ANYTHING if where.tiny else NETWORKS[network], 1, (side, side), where.device)
        model = EngineLoop.build(setting).eval().to(where.device)
        processor = DepthSegImageProcessor(size={"height": side, "width": side})
        image = np.random.default_rng(0).integers(0, 256, (side * 3 // 4, side, 3), np.uint8)
        seconds = time_in_turns(
            {"": partial(predict_maps, model, processor, image)}, 3 if where.tiny else 30, where.now
        )
        yield {"network": network, "images_per_second": 1 / median(seconds[""])}


def _row_of(seconds: dict[str, list[float]]) -> Row:
    found = Comparison("", seconds).to_dict()
    medians = {f"ms {side}": 1000 * each for side, each in found["medians"].items()}
    return medians | {key: found[key] for key in ("ratio", "ratio_min", "ratio_max")}


def operations(where: Where) -> Iterator[Row]:
    """Metric, loss and prediction; one that fails leaves the others."""
    for name, operation in {"metric": metric, "loss": loss, "predict": predict}.items():
        try:
            yield from ({"operation": name, **row} for row in operation(where))
        except (RuntimeError, ValueError) as error:
            yield {"operation": name, "error": str(error).partition("\n")[0]}


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        run: Yields its rows.
        seconds: Its budget.
    """

    run: Callable[[Where], Iterator[Row]]
    seconds: float


PARTS = {
    "tests": Part(tests, 90),
    "quickstart": Part(quickstart, 60),
    "steps-small": Part(partial(steps, network="small", batch=16), 65),
    "steps-base": Part(partial(steps, network="base", batch=16), 55),
    "steps-large": Part(partial(steps, network="large", batch=8), 65),
    "camvid": Part(camvid, 50),
    "mono": Part(mono, 50),
    "operations": Part(operations, 45),
}
"""Part -> what it does, in this order; together at most eight minutes."""


def run_to_file(name: str, where: Where, path: Path) -> None:
    """Run a part and append each of its rows to a file, as a line of JSON, as soon as it is known."""
    with path.open("a", encoding="utf-8") as file:
        for row in PARTS[name].run(where):
            file.write(json.dumps(row) + "\n")
            file.flush()


def header_of(where: Where) -> dict[str, Any]:
    """Device, versions, and the commit of the checkout, on which the numbers depend."""
    device = torch.device(where.device)
    on_gpu = device.type == "cuda"
    git = ["git", "-C", str(where.checkout), "rev-parse", "HEAD"]
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "device_memory": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "cuda": torch.version.cuda,
        "cores": os.cpu_count(),
        **environment(torch.get_num_threads()),
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip() or None,
        "tiny": where.tiny,
    }
