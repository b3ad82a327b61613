"""Evaluation of a run during training: each task by its own scores, or by its loss where the data have no truth."""

from __future__ import annotations

import logging
import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ..data.transforms import TrainTransform
from .batches import Collate
from .evaluation import default_depth_errors, evaluate_model, evaluation_mode, shared_out, total
from .tasks import WITHOUT_TRUTH, is_self_supervised, task_of
from .visualization import colourise_monitor

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from ..data import Sample, SampleDataset
    from .options import RunConfig
    from .stopping import StopVotes

logger = logging.getLogger(__name__)

FLAT_SPREAD = 0.02
"""Depth of a street varies by a factor of many; below this standard deviation of its logarithm it says nothing."""


class Scorer:
    """Scores the weights of a run as they are at a moment; called by all processes together.

    Images are resized as for training, one at a time; labels and depth are scored at the own size of every image.
    Depth that only a moving camera taught has no scale, so it is aligned by the median of each image.

    Args:
        config: The options.
        objective: The bare objective of the run.
        processor: Image processor of its model.
        dataset: What to score on.
        accelerator: Shares the images out over its processes.

    Attributes:
        objective: As given.
        selection: The score that selects the best weights.
    """

    def __init__(
        self,
        config: RunConfig,
        objective: nn.Module,
        processor: Any,
        dataset: SampleDataset,
        accelerator: Accelerator,
    ) -> None:
        self._config = config
        self._task = task_of(config)
        self.objective = objective
        self._processor = processor
        self._dataset = dataset
        self._accelerator = accelerator
        self._collate = Collate(processor, self._task.batch(config))
        # Holes are drawn as in training; nothing else is left to chance.
        size = processor.size["height"], processor.size["width"]
        self._transform = TrainTransform(
            size, hflip=0.0, to_rgb=getattr(processor, "to_rgb", None), **self._task.transform_options(config)
        )
        self._self_supervised = is_self_supervised(config)
        self._has_truth = len(dataset) > 0 and self._task.has_truth(config, dataset)
        self.selection = self._task.scores[0] if self._has_truth else WITHOUT_TRUTH

    def __call__(self, stopping: StopVotes | None = None) -> dict[str, Any]:
        """Score, and leave the objective in the mode it was in.

        Args:
            stopping: Knows whether the run is asked to stop meanwhile; None = it cannot be.

        Raises:
            EvaluationStopped: It was.
        """
        scores: dict[str, Any] = {}
        with evaluation_mode(self.objective):
            if self._task.predicts_maps and self._has_truth:
                model, is_scaled = self.objective.model, not self._self_supervised or self.objective.is_metric
                errors = None if is_scaled else default_depth_errors(model, alignment="median")
                shared = self._dataset, self._config.task, self._accelerator
                scores |= evaluate_model(model, self._processor, *shared, errors, stopping)
            if self._self_supervised or not self._task.predicts_maps:
                scores = self._run_objective(stopping) | scores
        if scores.get("depth_spread", math.inf) < FLAT_SPREAD and self._accelerator.is_main_process:
            logger.warning(
                "The depth of the evaluated images is flat: it varies by %.1f %% within an image. This is normal in "
                "the first steps, until the pose network has converged. If it remains so, lower optim.lr; where the "
                "camera rotates by many pixels a frame, set pretext.derotate=true, pretext.pyramid=true and "
                "pretext.auto_mask=false; `depthseg datasets doctor` reports whether the camera moves at all.",
                100 * scores["depth_spread"],
            )
        return scores

    def read_features(self, processor: Any) -> None:
        """Evaluate on features from files from now on.

        Args:
            processor: In place of the one given, a `CachedProcessor`.
        """
        self._processor = processor
        self._collate = Collate(processor, self._task.batch(self._config))

    def show_images(self, processor: Any) -> None:
        """Give each image that this process evaluates to another processor, as the evaluation does."""
        collate = Collate(processor, self._task.batch(self._config))
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        for index in range(rank, len(self._dataset), world):
            sample = self._dataset[index]
            if self._task.predicts_maps:
                processor(images=[sample.image], return_tensors="pt")
            else:
                collate([self._transform(sample, np.random.default_rng([index]))])

    @property
    def sees_motion(self) -> bool:
        """Whether the objective estimates how the camera of a whole video moves."""
        return bool(getattr(self.objective, "source_frames", ())) and hasattr(self._dataset, "poses")

    @torch.no_grad()
    def show(self) -> dict[str, np.ndarray]:
        """What the objective makes of the first image, for TensorBoard; nothing where it compares no images."""
        if not self._self_supervised:
            return {}
        with evaluation_mode(self.objective):
            return colourise_monitor(self.objective.monitor(self.batch_of(self._dataset[0])))

    def batch_of(self, sample: Sample, index: int = 0) -> dict[str, Tensor]:
        """The batch of one sample, on the device of the run; its holes depend on `index` alone."""
        batch = self._collate([self._transform(sample, np.random.default_rng([index]))])
        return {name: values.to(self._accelerator.device) for name, values in batch.items()}

    @torch.no_grad()
    def _run_objective(self, stopping: StopVotes | None) -> dict[str, Any]:
        """Mean over the images of the parts of the loss, and what the task measures beside it."""
        meter = self._task.meter(self.objective.model) if self._has_truth and self._task.meter else None
        parts: dict[str, list[float]] = {}
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        for number, sample in enumerate(shared_out(self._dataset, self._accelerator, stopping)):
            batch = self.batch_of(sample, rank + number * world)
            found = {name: value.item() for name, value in self.objective(batch).items()}
            for name, value in (found | self._shown(batch, sample)).items():
                parts.setdefault(name, []).append(value)
            if meter is not None:
                self._task.measure(meter, self.objective, batch, sample)
        # By name: a process may have had no image at all, or none whose focal length is known.
        found = gather_object([parts])
        names = dict.fromkeys(name for process in found for name in process)
        scores = {name: fmean([value for process in found for value in process.get(name, ())]) for name in names}
        scores["val_loss"] = scores.pop("loss")
        if meter is not None:
            meter.state = total(meter.state, self._accelerator)
            scores |= meter.compute()
        return scores

    def _shown(self, batch: dict[str, Tensor], sample: Sample) -> dict[str, float]:
        """What the networks of a self-supervised objective make of an image, beside the loss.

        `depth_spread` is the standard deviation of the logarithm of its depth; `focal_error`, of a learned focal
        length whose truth is known, the error as a share of it.
        """
        if not self._self_supervised:
            return {}
        seen = self.objective.explain(batch)
        shown = {"depth_spread": seen.depth.log().std().item()}
        if self.objective.camera is not None and sample.intrinsics is not None:
            truth = self._transform(sample, np.random.default_rng(0)).intrinsics[0, 0]
            shown["focal_error"] = abs(seen.intrinsics[0, 0, 0].item() / truth - 1)
        return shown
