"""From samples to the tensors that an objective takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .sampling import MicroBatches, SampleStream

if TYPE_CHECKING:
    from ..data import Sample, SampleDataset

Transform = Callable[["Sample", np.random.Generator], "Sample"]


class StreamDataset(Dataset):
    """Augmented samples by their position in the stream, for `DataLoader` workers.

    Args:
        samples: The training set.
        transform: Called as `transform(sample, rng)`.
        seed: Seed of the order and of the augmentation.
    """

    def __init__(self, samples: SampleDataset, transform: Transform, seed: int) -> None:
        self._samples = samples
        self._transform = transform
        self._stream = SampleStream(len(samples), seed)

    def __getitem__(self, position: int) -> Sample:
        sample = self._samples[self._stream.index(position)]
        return self._transform(sample, self._stream.rng(position))


class Collate:
    """Turn samples of one size into a batch.

    Args:
        processor: Image processor of the model; it scales pixel values, the transform has set the size.
        task: `segmentation` reads `labels` of the samples, `depth` their `depth`.
        with_depth: Whether a segmentation batch holds the samples' depth as well.
    """

    def __init__(self, processor: Any, task: str, with_depth: bool = False) -> None:
        self._processor = processor
        self._task = task
        self._with_depth = with_depth

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        """Make `pixel_values` `(B, 3, H, W)`, `labels` and perhaps `depth` `(B, H, W)` for `SupervisedObjective`.

        Raises:
            ValueError: A sample without the labels of the task.
        """
        images = self._processor(images=[sample.image for sample in samples], do_resize=False, return_tensors="pt")
        targets = {"labels": self._task} | ({"depth": "depth"} if self._with_depth else {})
        truth = {name: np.stack([target_of(sample, task) for sample in samples]) for name, task in targets.items()}
        return {"pixel_values": images["pixel_values"], **{k: torch.from_numpy(v) for k, v in truth.items()}}


def target_of(sample: Sample, task: str) -> np.ndarray:
    """Truth of a sample: class ids as int64 `(H, W)`, or metres as float32 `(H, W)`.

    Raises:
        ValueError: The sample has none.
    """
    target, kind = (sample.labels, np.int64) if task == "segmentation" else (sample.depth, np.float32)
    if target is None:
        what = "label map" if task == "segmentation" else "depth map"
        raise ValueError(f"Image {sample.name!r} has no {what}, and task {task!r} needs one for every image.")
    return target.astype(kind)


def micro_batches(
    dataset: StreamDataset, collate: Collate, plan: MicroBatches, num_workers: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Read the micro-batches of a plan, one after the other, onto a device.

    Args:
        dataset: What to read.
        collate: How samples become a batch.
        plan: Which positions make up which micro-batch.
        num_workers: Reading processes; 0 = read in this process.
        device: Where batches go.
    """
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        dataset,
        batch_sampler=plan,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=on_gpu,
        # A generator of its own: drawing from the global one would make a resumed run differ from an unbroken one.
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        yield {name: values.to(device, non_blocking=on_gpu) for name, values in batch.items()}
