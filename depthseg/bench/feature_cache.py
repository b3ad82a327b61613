"""Training steps on features from files against steps that encode, and the bound: steps of the head alone.

The bound is the time of encoder and head together by that of the head alone, on features in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from ..data import Sample
from ..data.transforms import TrainTransform
from ..engine.batches import BatchContent, Collate, StreamDataset, micro_batches
from ..engine.feature_cache import FeatureCache, cached_stream
from ..engine.sampling import MicroBatches
from ..engine.tensor_store import GIB, TensorStore
from ..models import DepthSegConfig, DepthSegForSemanticSegmentation, DepthSegImageProcessor
from ..pretext import SupervisedObjective
from .timing import WARM_UPS, Comparison, relative_difference, time_in_turns

SIDES = ("uncached", "depthseg", "head alone")
NUM_LABELS = 19
SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "out_indices": [12]}
"""The sizes of DINOv2-S."""


@dataclass(frozen=True)
class StepComparison(Comparison):
    """Training steps with and without the files, and the bound.

    Attributes:
        head_seconds: Time of each step of the head alone.
    """

    head_seconds: list[float] = field(default_factory=list)

    @property
    def bound(self) -> float:
        """How many times as fast training becomes if features cost nothing."""
        (uncached, _) = self.seconds.values()
        return median(both / head for both, head in zip(uncached, self.head_seconds, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types."""
        return super().to_dict() | {"bound": self.bound, "faster": 1 / self.ratio}

    def __str__(self) -> str:
        faster = 1 / self.ratio
        return (
            f"{super().__str__()}  {faster:.1f} times as fast, {faster / self.bound:.0%} of the bound {self.bound:.1f}"
        )


class Noise:
    """Images of noise with labels, in memory."""

    label_space = None

    def __init__(self, count: int, side: int) -> None:
        generator = np.random.default_rng(0)
        self.names = [f"{index:04d}" for index in range(count)]
        self._images = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        self._labels = generator.integers(0, NUM_LABELS, (count, side, side), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.names[index], self._images[index], self._labels[index])


class Steps:
    """Training of a linear head, one step a call; each begins with the same weights.

    Args:
        model: The model, its encoder frozen.
        batches: One for each step.
    """

    def __init__(self, model: nn.Module, batches: Iterator[Mapping[str, Any]]) -> None:
        self._objective = SupervisedObjective(model).train()
        self._batches = batches
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._first = [parameter.detach().clone() for parameter in self._parameters]
        self._optimizer = torch.optim.SGD(self._parameters, lr=0.01)

    def __call__(self) -> torch.Tensor:
        """Do a step, and return its loss."""
        with torch.no_grad():
            for parameter, first in zip(self._parameters, self._first, strict=True):
                parameter.copy_(first)
        loss = self._objective(next(self._batches))["loss"]
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()


def compare(
    name: str,
    repeats: int,
    *,
    images: int,
    batch: int,
    side: int,
    encoder: Mapping[str, Any] = SMALL,
) -> Iterator[Comparison]:
    """Compare steps with the loss at the head's resolution and at that of the labels; see `bench`.

    Args:
        name: Of the case.
        repeats: Timed steps of each side.
        images: Images of the training set.
        batch: Images of a step.
        side: Height and width of the images in pixels, a multiple of 14.
        encoder: Sizes of the DINOv2 encoder.
    """
    torch.manual_seed(0)
    config = DepthSegConfig(
        encoder_config={"model_type": "dinov2", "patch_size": 14, **encoder},
        head_type="linear",
        num_labels=NUM_LABELS,
    )
    model = DepthSegForSemanticSegmentation(config).to(memory_format=torch.channels_last)
    model.freeze_encoder()
    processor = DepthSegImageProcessor(size={"height": side, "width": side})
    samples, accelerator = Noise(images, side), Accelerator(cpu=True)
    plan = MicroBatches(0, repeats + WARM_UPS + 1, batch)
    for where, stride in (("head", 14), ("labels", 1)):
        stream = StreamDataset(samples, TrainTransform((side, side), hflip=0.0), seed=0)
        collate = Collate(processor, BatchContent({"labels": "labels"}), stride)
        with tempfile.TemporaryDirectory() as folder:
            features = FeatureCache(TensorStore(Path(folder), 50 * GIB), model, processor, accelerator)
            kept = cached_stream(features, stream, collate)
            read, read_kept, read_ahead = (
                micro_batches(*each, plan, 0, accelerator.device) for each in ((stream, collate), kept, kept)
            )
            in_memory = iter(list(read_ahead))
            batches = (read, read_kept, in_memory)
            runs = {side: Steps(model, each) for side, each in zip(SIDES, batches, strict=True)}
            losses = [run() for run in runs.values()]
            seconds = time_in_turns(runs, repeats)
        head = seconds.pop(SIDES[2])
        difference = relative_difference(*losses[:2])
        yield StepComparison(f"{name} loss at {where}", seconds, side, side, difference, head_seconds=head)
