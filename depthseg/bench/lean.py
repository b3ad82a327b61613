"""The segmentation loss and class ids at the size of the labels, against PyTorch's and transformers' own.

Memory is the growth of the peak resident set of a fresh process for each side, from inputs in memory and warm code to
the end of one run. It is read from `/proc`, so there is none elsewhere than on Linux.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SegformerImageProcessor
from transformers.modeling_outputs import SemanticSegmenterOutput

from ..models import DepthSegImageProcessor
from ..models.losses_depthseg import segmentation_loss
from .timing import Comparison, relative_difference, time_in_turns

Inputs = tuple[Tensor, Tensor]
"""Scores `(B, K, h, w)` and labels `(B, H, W)`."""

PROCESS = Path("/proc/self")
TINY = (1, 3, 4, 8)


def compare(
    name: str, repeats: int, *, what: str, batch: int, classes: int, size: int, label_size: int
) -> Iterator[Comparison]:
    """Compare both sides; see `bench`. Their difference is that of the gradients, or the share of other class ids.

    Args:
        name: Of the case.
        repeats: Timed runs of each side.
        what: Key of `SIDES`: `loss`, forward and backward, or `prediction`.
        batch: Number of images.
        classes: Number of classes.
        size: Height and width of the scores.
        label_size: Height and width of the labels.
    """
    shape = (batch, classes, size, label_size)
    inputs = make_inputs(*shape)
    results = [run(inputs) for run in SIDES[what].values()]
    if what == "loss":
        difference = relative_difference(*results)
    else:
        difference = float((results[0] != results[1]).double().mean())
    runs = {side: partial(run, inputs) for side, run in SIDES[what].items()}
    seconds = time_in_turns(runs, repeats)
    memory = {side: peak_of_process(what, side, shape) for side in runs} if PROCESS.exists() else None
    yield Comparison(name, seconds, label_size, label_size, difference, memory)


def make_inputs(batch: int, classes: int, size: int, label_size: int) -> Inputs:
    """Random scores, and labels of which some are ignored."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(batch, classes, size, size, generator=generator, requires_grad=True)
    labels = torch.randint(0, classes, (batch, label_size, label_size), generator=generator)
    labels[:, : label_size // 16] = 255
    return scores, labels


def plain_gradient(inputs: Inputs) -> Tensor:
    """Gradient of the cross-entropy of resized scores."""
    scores, labels = inputs
    resized = F.interpolate(scores, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return torch.autograd.grad(F.cross_entropy(resized, labels, ignore_index=255), scores)[0]


def lean_gradient(inputs: Inputs) -> Tensor:
    """The same by the package."""
    scores, labels = inputs
    return torch.autograd.grad(segmentation_loss(scores, labels), scores)[0]


def ids_by(make_processor: Callable[[], object], inputs: Inputs) -> Tensor:
    """Class ids `(B, H, W)` by an image processor."""
    scores, labels = inputs
    output = SemanticSegmenterOutput(logits=scores.detach())
    sizes = [tuple(labels.shape[-2:])] * len(labels)
    return torch.stack(make_processor().post_process_semantic_segmentation(output, sizes))


SIDES: dict[str, dict[str, Callable[[Inputs], Tensor]]] = {
    "loss": {"interpolate + cross_entropy": plain_gradient, "depthseg": lean_gradient},
    "prediction": {
        "transformers": partial(ids_by, SegformerImageProcessor),
        "depthseg": partial(ids_by, DepthSegImageProcessor),
    },
}


def peak_of_process(what: str, side: str, shape: tuple[int, ...]) -> int:
    """Bytes by which the resident set of a fresh process grows at most during one run."""
    program = f"from {__name__} import peak_growth; print(peak_growth({what!r}, {side!r}, {shape}))"
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, check=True)
    return int(done.stdout)


def peak_growth(what: str, side: str, shape: tuple[int, ...]) -> int:
    """The same in this process."""
    torch.set_num_threads(1)
    run, inputs = SIDES[what][side], make_inputs(*shape)
    run(make_inputs(*TINY))
    (PROCESS / "clear_refs").write_text("5")  # the peak up to now is forgotten
    before = _resident("VmRSS")
    run(inputs)
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
