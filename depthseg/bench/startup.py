"""How long answers take: CPU seconds of a command or an import, against what it cannot do without.

Every run is a process of its own. CPU seconds, user and system, do not depend on what else the machine does.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .timing import Comparison, time_in_turns

COMMAND = (sys.executable, "-m", "depthseg.cli")
NOTHING = "bare Python"
ANSWERS = {
    "--help": ((*COMMAND, "--help"), 0),
    "--version": ((*COMMAND, "--version"), 0),
    "finetune --help": ((*COMMAND, "finetune", "--help"), 0),
    "mistyped command": ((*COMMAND, "finetun"), 2),
    "mistyped option": ((*COMMAND, "finetune", "--confg"), 2),
}
"""What is asked -> command and exit code."""

IMPORTS = "import torch, accelerate, transformers.modeling_utils"
"""What every training of a model of transformers imports."""


def compare(name: str, repeats: int) -> Iterator[Comparison]:
    """Compare answers with an empty program, imports with each other, and the first training step with its imports.

    That step is the first one of `depthseg finetune` on eight small images; the other side imports what every training
    of a model of transformers does.
    """
    python = partial(run_python, "pass")
    for question, (command, code) in ANSWERS.items():
        yield _comparison(f"{name} {question}", {NOTHING: python, "depthseg": partial(run, command, code)}, repeats)
    imports = {"transformers": partial(run_python, "import transformers"), "depthseg": import_depthseg}
    yield _comparison(f"{name} import", imports, repeats)
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        sides = {"imports alone": partial(run_python, IMPORTS), "depthseg": partial(first_step, folder)}
        yield _comparison(f"{name} first step", sides, repeats)


def _comparison(name: str, sides: dict[str, Callable[[], object]], repeats: int) -> Comparison:
    return Comparison(name, time_in_turns(sides, repeats, cpu_seconds_of_processes))


def cpu_seconds_of_processes() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: tuple[str, ...], code: int = 0) -> None:
    """Run a command.

    Raises:
        RuntimeError: It ends with another exit code.
    """
    done = subprocess.run(command, env=environment_of_processes(), capture_output=True, text=True)
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}, not {code}:\n{done.stderr}")


def run_python(program: str) -> None:
    """Run a program of one line."""
    run((sys.executable, "-c", program))


def import_depthseg() -> None:
    """Import the package."""
    run_python("import depthseg")


def environment_of_processes() -> dict[str, str]:
    """The environment, with as many threads as PyTorch has here."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def write_images(folder: Path) -> None:
    """Write a folder data set of eight images of two classes."""
    generator = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    (folder / "classes.txt").write_text("ground\nsky\n")
    for index in range(8):
        image = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(image[..., 0] // 128).save(folder / "labels" / f"{index}.png")


def first_step(folder: str) -> None:
    """Start a training, and end it as soon as it reports its first step.

    Raises:
        RuntimeError: It ends without a step.
    """
    options = [f"data.root={folder}", f"run.output_dir={folder}/run", "run.overwrite=true", "data.size=[64,96]"]
    options += ["schedule.steps=2", "schedule.warmup_steps=0", "run.log_every=1"]
    command = (*COMMAND, "finetune", "--config", "folder_fewshot_resnet18", *options)
    output = []
    with subprocess.Popen(command, env=environment_of_processes(), stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            output.append(line)
            if "step 1/" in line:
                process.kill()
                return
    raise RuntimeError("A training ended without a step:\n" + "".join(output))
