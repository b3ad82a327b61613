"""Whether an exported file computes what its model computes: compared at several sizes, and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ..models import DepthSegImageProcessor
from .formats import Run

TOLERANCE = 1e-4
TIMED_RUNS = 5


def trace_size(encoder: Any) -> tuple[int, int]:
    """Height and width to trace an encoder at: no multiple of its strides, and not square.

    A network that is traced at a size where it takes a shortcut, such as that of its position embeddings, keeps it.
    """
    side, step = _smallest_multiple(encoder)
    return side + step // 2 + 1, side + step + step // 3 + 1


def check_sizes(encoder: Any) -> list[tuple[int, int, int]]:
    """Batch, height and width of five inputs: the native size, whole multiples of the strides, and others."""
    side, step = _smallest_multiple(encoder)
    native = getattr(encoder.backbone.config, "image_size", None) or side + step
    native = (native, native) if isinstance(native, int) else tuple(native)
    if min(native) < encoder.steady_side:
        native = (side, side)
    smallest = encoder.steady_side
    return [
        (1, *native),
        (2, side, side + 2 * step),
        (1, smallest, smallest + step // 2 + 2),
        (3, side + step + step // 2, side),
        (1, 2 * side + 1, side + 7),
    ]


def _smallest_multiple(encoder: Any) -> tuple[int, int]:
    step = max(int(encoder.multiple), int(max(encoder.strides)))
    return step * -(-encoder.steady_side // step), step


def random_input(takes: str, batch: int, height: int, width: int) -> np.ndarray:
    """Noise as an exported network takes it, the same at every call."""
    generator = np.random.default_rng(batch * height + width)
    if takes == "images":
        return generator.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    return generator.standard_normal((batch, 3, height, width), dtype=np.float32)


@torch.no_grad()
def reference(model: Any, processor: DepthSegImageProcessor, takes: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits and depth at the size of the images from model and image processor, without the exported network."""
    if takes == "images":
        pixel_values = processor(images=list(images), do_resize=False, return_tensors="pt")["pixel_values"]
    else:
        pixel_values = torch.from_numpy(images)
    outputs = model(pixel_values=pixel_values.to(model.device))
    found = {}
    if outputs.get("logits") is not None:
        size = pixel_values.shape[-2:]
        found["logits"] = F.interpolate(outputs["logits"], size=size, mode="bilinear", align_corners=False).numpy()
    if outputs.get("predicted_depth") is not None:
        found["depth"] = outputs["predicted_depth"].numpy()
    return found


def relative_difference(name: str, given: np.ndarray, expected: dict[str, np.ndarray]) -> float:
    """Largest difference of an output, relative to the largest value of logits or depth; infinite for another shape.

    Labels differ by how much larger the logit of the expected class is than that of the given one.
    """
    if name == "labels":
        logits = expected["logits"]
        if given.shape != (len(logits), *logits.shape[2:]):
            return float("inf")
        if logits.shape[1] == 1:  # against a background, whose logit is 0
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        of_given = np.take_along_axis(logits, given[:, None].astype(np.int64), axis=1)[:, 0]
        return float((logits.max(1) - of_given).max() / np.abs(logits).max())
    wanted = expected[name]
    if given.shape != wanted.shape:
        return float("inf")
    return float(np.abs(given - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))


def compare(
    run: Run,
    model: Any,
    processor: DepthSegImageProcessor,
    takes: str,
    returns: tuple[str, ...],
    sizes: list[tuple[int, int, int]],
) -> dict[tuple[int, int, int], dict[str, float]]:
    """Compare a file with its model at inputs of some sizes, each batch, height and width.

    Returns:
        Batch, height and width -> output -> largest relative difference.

    Raises:
        ValueError: The file cannot be run at a size, or differs by more than `TOLERANCE`.
    """
    differences = {}
    for size in sizes:
        images = random_input(takes, *size)
        expected = reference(model, processor, takes, images)
        where = f"at {size[0]} images of {size[1]}x{size[2]} pixels (height x width)"
        try:
            outputs = run(images)
        except Exception as error:  # each runtime has its own types
            raise ValueError(f"The exported network fails {where}, so no file is written: {error}") from error
        pairs = zip(returns, outputs, strict=True)
        differences[size] = {name: relative_difference(name, output, expected) for name, output in pairs}
        for name, difference in differences[size].items():
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"The exported network differs from the model {where} by {difference:.1e} in {name}, relative to "
                    f"the largest value; {TOLERANCE:.0e} is allowed, so no file is written. The encoder "
                    f"{model.config.encoder_config.model_type} or the head {model.config.head_type} computes "
                    "something in a way that depends on the image size and cannot be exported."
                )
    return differences


def milliseconds(run: Callable[[], Any]) -> float:
    """Median time of a call in milliseconds, after two that do not count."""
    times = []
    for _ in range(2 + TIMED_RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[2:])
