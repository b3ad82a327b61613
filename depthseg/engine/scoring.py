"""Scoring a run while it goes on: each task by its own measure, and by its loss where the data hold no truth."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object

from ..data.transforms import TrainTransform
from ..metrics import CategoryScores, DepthErrors, FlowErrors, ReconstructionErrors
from .batches import Collate
from .evaluation import default_depth_errors, evaluate_model, total
from .monitor import colourise_monitor
from .objectives import batch_content, is_self_supervised

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

    from ..data import Sample, SampleDataset
    from .options import RunConfig

logger = logging.getLogger(__name__)

SELECTION: dict[str, tuple[str, Callable]] = {
    "segmentation": ("mean_iou", max),
    "depth": ("abs_rel", min),
    "flow": ("end_point_error", min),
    "reconstruction": ("hole_l1", min),
    "classification": ("accuracy", max),
}
"""Task -> the score that picks the best weights, and which of two is the better one."""

WITHOUT_TRUTH = ("photometric_loss", min)
"""The same for images whose depth or flow nobody measured."""

FLAT_SPREAD = 0.02
"""Depth of a street varies by a factor of many; below this standard deviation of its logarithm it says nothing."""


FLAT_DEPTH = (
    "The depth of the evaluated images is flat: it varies by %.1f %% within an image. This is normal in the first "
    "steps, until the pose network has converged. If it remains so, lower optim.lr; where the camera rotates by many "
    "pixels a frame, set pretext.align=true, pretext.pyramid=true and pretext.auto_mask=false; "
    "`depthseg datasets doctor` reports whether the camera moves at all."
)


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
        selection: The score that picks the best weights, and which of two is the better one.
    """

    def __init__(
        self,
        config: RunConfig,
        objective: nn.Module,
        processor: Any,
        dataset: SampleDataset,
        accelerator: Accelerator,
    ) -> None:
        self._task = config.task
        self.objective = objective
        self._processor = processor
        self._dataset = dataset
        self._accelerator = accelerator
        self._collate = Collate(processor, batch_content(config))
        # Holes are drawn as in training; nothing else is left to chance.
        size = processor.size["height"], processor.size["width"]
        self._transform = TrainTransform(
            size, hflip=0.0, to_rgb=getattr(processor, "to_rgb", None), **hole_options(config)
        )
        self._self_supervised = is_self_supervised(config)
        self._has_truth = len(dataset) > 0 and _has_truth(dataset, config)
        self.selection = SELECTION[config.task] if self._has_truth else WITHOUT_TRUTH
        if config.task == "depth" and not (self._self_supervised or self._has_truth):
            raise ValueError(
                "The data set to evaluate on has no depth, so depth supervised by labels cannot be evaluated: "
                "choose another data.val_split, or data.val_options that bring depth."
            )

    def __call__(self) -> dict[str, Any]:
        """Score, and leave the objective in the mode it was in."""
        was_training = self.objective.training
        self.objective.eval()
        scores: dict[str, Any] = {}
        if self._task in ("segmentation", "depth") and self._has_truth:
            scores |= self._evaluate()
        if self._self_supervised or self._task not in ("segmentation", "depth"):
            scores = self._run_objective() | scores
        self.objective.train(was_training)
        if scores.get("depth_spread", math.inf) < FLAT_SPREAD and self._accelerator.is_main_process:
            logger.warning(FLAT_DEPTH, 100 * scores["depth_spread"])
        return scores

    @property
    def sees_motion(self) -> bool:
        """Whether the objective estimates how the camera of a whole video moves."""
        return bool(getattr(self.objective, "source_frames", ())) and hasattr(self._dataset, "poses")

    @torch.no_grad()
    def show(self) -> dict[str, np.ndarray]:
        """What the objective makes of the first image, for TensorBoard; nothing where it compares no images."""
        if not self._self_supervised:
            return {}
        was_training = self.objective.training
        self.objective.eval()
        pictures = colourise_monitor(self.objective.monitor(self.batch_of(self._dataset[0])))
        self.objective.train(was_training)
        return pictures

    def batch_of(self, sample: Sample, index: int = 0) -> dict[str, Tensor]:
        """The batch of one sample, on the device of the run; its holes depend on `index` alone."""
        batch = self._collate([self._transform(sample, np.random.default_rng([index]))])
        return {name: values.to(self._accelerator.device) for name, values in batch.items()}

    def _evaluate(self) -> dict[str, Any]:
        model, errors = self.objective.model, None
        if self._self_supervised and not self.objective.is_metric:
            default = default_depth_errors(model)
            errors = DepthErrors("median", min_depth=default.min_depth, max_depth=default.max_depth)
        return evaluate_model(model, self._processor, self._dataset, self._task, self._accelerator, errors)

    @torch.no_grad()
    def _run_objective(self) -> dict[str, Any]:
        """Mean over the images of the parts of the loss, and what the task measures beside it."""
        meter = _meter(self._task, self.objective.model) if self._has_truth else None
        parts: dict[str, list[float]] = {}
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        for index in range(rank, len(self._dataset), world):
            sample = self._dataset[index]
            batch = self.batch_of(sample, index)
            found = {name: value.item() for name, value in self.objective(batch).items()}
            for name, value in (found | self._shown(batch, sample)).items():
                parts.setdefault(name, []).append(value)
            if meter is not None:
                _update(meter, self._task, self.objective, batch, sample)
        # By name: a process may have had no image at all, or none whose focal length is known.
        found = gather_object([parts])
        names = dict.fromkeys(name for process in found for name in process)
        scores = {name: fmean([value for process in found for value in process.get(name, ())]) for name in names}
        scores["val_loss"] = scores.pop("loss")
        if meter is None:
            return scores
        meter.state = total(meter.state, self._accelerator)
        return scores | meter.compute()

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


def hole_options(config: RunConfig) -> dict[str, Any]:
    """Options of the transform that erases parts of an image; none for tasks that do not."""
    if config.task != "reconstruction":
        return {}
    return {"hole_share": tuple(config.pretext.hole_share), "hole_size": config.pretext.hole_size}


def _has_truth(dataset: SampleDataset, config: RunConfig) -> bool:
    """Whether images can be scored by the measure of their task; those of labels must be, which is checked there."""
    if config.task == "flow":
        # The true flow is that to the frame before.
        return config.pretext.source_frames[0] == -1 and dataset[0].flow is not None
    if config.task == "depth":
        known = getattr(dataset, "has_depth", None)
        return any(map(known, range(len(dataset)))) if known else dataset[0].depth is not None
    return True


def _meter(task: str, model: nn.Module) -> Any:
    if task == "depth":
        return None
    if task == "classification":
        return CategoryScores(model.config.num_labels)
    return FlowErrors() if task == "flow" else ReconstructionErrors()


def _update(meter: Any, task: str, objective: nn.Module, batch: dict[str, Tensor], sample: Sample) -> None:
    model = objective.model
    if task == "classification":
        meter.update(model(batch["pixel_values"]).logits.argmax(-1), batch["labels"])
    elif task == "reconstruction":
        meter.update(model(batch["pixel_values"]).reconstruction, batch["image"], batch["holes"])
    else:
        flow, _ = objective.estimate(batch)[0]
        meter.update(resize_flow(flow, sample.flow.shape[:2])[0].cpu(), torch.from_numpy(sample.flow).permute(2, 0, 1))


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(B, 2, H, W)` in pixels to images of another size, in their pixels."""
    scale = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]])
    resized = torch.nn.functional.interpolate(flow, size=size, mode="bilinear", align_corners=False)
    return resized * scale[:, None, None]
