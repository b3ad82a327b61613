"""Samples from files to normalised batches: decoded and scaled one by one, against bytes that were decoded once.

Processor time is compared, whatever else the machine does. The other side is what a run does without `data.cache` and
without batches of bytes: each file is decoded, and the image processor scales each image. Where a GPU changes pixels,
what is left to the processor is compared; the result is that of both sides all the same.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ..data import CamVid, Sample
from ..data.decoded import keeping
from ..data.miniatures import write_miniature
from ..data.transforms import TrainTransform
from ..engine.batches import BatchContent, Collate, target_of
from ..engine.decoded_cache import DecodedCache
from ..engine.tensor_store import GIB, TensorStore
from ..models import DepthSegImageProcessor
from .timing import Comparison, relative_difference, time_in_turns

BATCH = 8
WAYS = {"": (0.0, False), " colours": (0.3, False), " on GPU": (0.3, True)}
"""What of the case -> the change of colours, and whether a GPU changes pixels."""


@dataclass(frozen=True)
class ReadingComparison(Comparison):
    """Processor time of a batch on both sides."""

    @property
    def samples_per_second(self) -> dict[str, float]:
        """Side -> samples that one core reads in a second."""
        return {side: BATCH / median(seconds) for side, seconds in self.seconds.items()}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return super().to_dict() | {"samples_per_second": self.samples_per_second, "faster": 1 / self.ratio}

    def __str__(self) -> str:
        before, now = self.samples_per_second.values()
        return f"{super().__str__()}  {before:.0f} and {now:.0f} samples/s a core, {1 / self.ratio:.1f} times as fast"


class Reader:
    """Reads one batch after the other.

    Args:
        samples: What to read.
        transform: What happens to a sample.
        collate: How samples become a batch.
    """

    def __init__(self, samples: CamVid, transform: TrainTransform, collate: Collate) -> None:
        self._samples = samples
        self._transform = transform
        self._collate = collate
        self._processor = DepthSegImageProcessor()
        self._batches = {"files": 0, "depthseg": 0}

    def one_by_one(self) -> dict[str, Any]:
        """Decode, change and scale each sample by itself."""
        samples = [self._transform(*drawn) for drawn in self._drawn("files")]
        images = [sample.image for sample in samples]
        labels = np.stack([target_of(sample, "labels") for sample in samples])
        scaled = self._processor(images=images, do_resize=False, value_range=(0, 255), return_tensors="pt")
        return {"pixel_values": scaled["pixel_values"], "labels": torch.from_numpy(labels)}

    def together(self, cache: DecodedCache, on_gpu: bool) -> dict[str, Any]:
        """Read what was decoded; leave the pixels to a GPU, or finish the batch."""
        with keeping(cache):
            change = self._transform.deferred if on_gpu else self._transform
            batch = self._collate.gather([change(*drawn) for drawn in self._drawn("depthseg")])
        return batch if on_gpu else self._collate.finish(batch)

    def _drawn(self, side: str) -> Iterator[tuple[Sample, np.random.Generator]]:
        number = self._batches[side]
        self._batches[side] += 1
        for position in range(number * BATCH, (number + 1) * BATCH):
            yield self._samples[position % len(self._samples)], np.random.default_rng([0, position])


def compare(
    name: str, repeats: int, *, images: int, source: tuple[int, int], size: tuple[int, int]
) -> Iterator[Comparison]:
    """Compare both sides without and with a change of colours, and with a GPU; see `bench`.

    Args:
        name: Of the case.
        repeats: Timed batches of each side.
        images: Images of the folder, in CamVid's layout.
        source: Their height and width.
        size: Height and width of what a network sees.
    """
    with tempfile.TemporaryDirectory() as folder:
        samples = CamVid(write_miniature("camvid", Path(folder) / "camvid", images, source), "train")
        cache = DecodedCache(TensorStore(Path(folder) / "cache", GIB))
        collate = Collate(DepthSegImageProcessor(), BatchContent({"labels": "labels"}))
        with keeping(cache):  # once for all runs, so that it is in no time
            for index in range(len(samples)):
                samples[index]
        for what, (colour_jitter, on_gpu) in WAYS.items():
            reader = Reader(samples, TrainTransform(size, 0.5, (0.6, 1.0), colour_jitter), collate)
            expected, found = reader.one_by_one(), reader.together(cache, on_gpu)
            found = collate.finish(found) if on_gpu else found
            difference = relative_difference(expected["pixel_values"], found["pixel_values"])
            sides = {"files": reader.one_by_one, "depthseg": partial(reader.together, cache, on_gpu)}
            seconds = time_in_turns(sides, repeats, clock=time.process_time)
            yield ReadingComparison(f"{name}{what}", seconds, *size, difference)
