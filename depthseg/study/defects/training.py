"""What switches put around the parts of a training run."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...engine.batches import StreamDataset, copy_rng
from ...engine.optim import learning_rate_factor
from ...engine.wrapping import Wrapping
from ...models.image_processing_depthseg import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from ...data import Sample
    from ...engine.loop import Training
    from ...engine.pending import Batch
    from .switches import Switched


def wrapping_of(switched: Switched, names: Sequence[str]) -> Wrapping:
    """What is put around a run.

    Args:
        switched: Its switches.
        names: All defects that its weights have, those in options, data and earlier runs included.
    """

    def wrap(stream: StreamDataset, training: Training, processor: Any) -> tuple[StreamDataset, Training]:
        images = len(stream.samples)
        zoom, sparse = "zoom_applies_to" in switched, "crop_probability" in switched
        if zoom or sparse:
            batch_size = training.config.optim.batch_size if sparse else None
            stream = CroppedStream(stream, training.config.run.seed, image_only=zoom, batch_size=batch_size)
        model = training.accelerator.unwrap_model(training.objective).model
        if "freeze_mode" in switched:
            model.encoder.train(False)
        if "normalisation" in switched:
            normalise_twice(model, processor)
        if "depth_loss" in switched:
            training = replace(training, count_valid=_count_all(training.count_valid))
        if "lr_update" in switched:
            training = replace(training, optimizer=RatePerPass(training, images))
        if "accumulate_gradients" in switched:
            training = replace(training, optimizer=GradientSum(training.optimizer))
        return stream, training

    return Wrapping(names, wrap)


class CroppedStream(StreamDataset):
    """Training samples whose crops have a defect; all draws are those of the stream that it is made from.

    Args:
        stream: The samples; their crops are a share of the image, see `TrainTransform`.
        seed: Of the run; decides which batches are not cropped.
        image_only: Whether the depth map stays whole where the image is cropped.
        batch_size: With it, every batch is cropped with a probability of 0.5; None = all are cropped.
    """

    def __init__(self, stream: StreamDataset, seed: int, image_only: bool, batch_size: int | None) -> None:
        super().__init__(stream.samples, stream.transform, seed, stream.copies)
        self.stream = stream.stream
        self._seed, self._image_only, self._batch_size = seed, image_only, batch_size
        self._whole = copy.copy(stream.transform)
        self._whole.crop_scale = (1.0, 1.0)

    def __getitem__(self, position: int) -> Sample:
        sample = self.samples[self.stream.index(position)]
        if not self.is_cropped(position):
            return self._whole(sample, self._rng(sample, position))
        cropped = self.transform(sample, self._rng(sample, position))
        if not self._image_only:
            return cropped
        return replace(cropped, depth=self._whole(sample, self._rng(sample, position)).depth)

    def is_cropped(self, position: int) -> bool:
        """Whether the batch of a position is cropped."""
        if self._batch_size is None:
            return True
        return bool(np.random.default_rng([self._seed, position // self._batch_size]).random() < 0.5)

    def _rng(self, sample: Sample, position: int) -> np.random.Generator:
        if self.copies:
            return copy_rng(sample.name, self.copy_at(position))
        return self.stream.rng(position)


class _AroundOptimizer:
    """An optimiser some of whose methods are replaced."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


class GradientSum(_AroundOptimizer):
    """An optimiser whose gradients are never cleared: that of a step is the sum of those of all steps up to it.

    Clipping shortens what a step follows, not the sum.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer)
        self._sums: dict[nn.Parameter, Tensor] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(self._keep)

    def _keep(self, parameter: nn.Parameter) -> None:
        self._sums[parameter] = parameter.grad.detach().clone()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Bring back the sums, as they were before they were clipped."""
        for parameter, total in self._sums.items():
            parameter.grad.copy_(total)


class RatePerPass(_AroundOptimizer):
    """An optimiser whose learning rate changes at the first step of each pass over the images alone.

    Args:
        training: What the loop works on; sets the rate of every step.
        images: Number of images of a pass.
    """

    def __init__(self, training: Training, images: int) -> None:
        super().__init__(training.optimizer)
        self._config, self._progress, self._images = training.config, training.progress, images

    def step(self, *arguments: Any, **options: Any) -> Any:
        """Do a step at the rate of the pass that it begins in."""
        first = first_step_of_pass(self._progress.step, self._config.optim.batch_size, self._images)
        factor = learning_rate_factor(first, self._config.schedule)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        return self._optimizer.step(*arguments, **options)


def first_step_of_pass(step: int, batch_size: int, images: int) -> int:
    """The first step, from 0, whose first image is of the same pass over the images as that of a step."""
    number = step * batch_size // images
    return -(-number * images // batch_size)


def normalise_twice(model: nn.Module, processor: Any) -> None:
    """Normalise the images of a model by ImageNet's mean and deviation before they are normalised as it expects."""
    expected = (model.config.input_mean, model.config.input_std)
    if expected[0] is None:
        expected = (processor.image_mean, processor.image_std)
    mean, std = (torch.tensor(values)[:, None, None] for values in expected)
    first_mean, first_std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    def again(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pixel_values, *others = inputs
        own = [values.to(pixel_values) for values in (mean, std, first_mean, first_std)]
        image = pixel_values * own[1] + own[0]
        return ((image - own[2]) / own[3] - own[0]) / own[1], *others

    model.encoder.register_forward_pre_hook(again)


def _count_all(count_valid: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """Counts where every pixel of a depth map counts, known or not."""

    def count(batch: Batch) -> Tensor:
        counts = count_valid(batch).clone()
        counts[0] = batch["labels"].numel()
        return counts

    return count
