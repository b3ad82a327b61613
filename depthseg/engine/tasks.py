"""The tasks: one row each says which model a run trains, what its objective reads, and how it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data.class_weights import balanced_weights
from ..data.subsets import evenly_spaced
from ..metrics import CategoryScores, FlowErrors, InpaintingErrors
from ..models import (
    DepthSegForDepthEstimation,
    DepthSegForImageClassification,
    DepthSegForImageReconstruction,
    DepthSegForOpticalFlow,
    DepthSegForSemanticSegmentation,
)
from ..pretext import (
    ClassificationObjective,
    InpaintingObjective,
    LearnedCamera,
    OpticalFlowObjective,
    PhotometricLoss,
    SelfSupervisedObjective,
    SupervisedObjective,
    build_pose_network,
)
from .batches import BatchContent

if TYPE_CHECKING:
    from ..data import Sample, SampleDataset
    from .options import RunConfig

LABEL_MAPS_EXAMINED = 64
DEPTH_SMOOTHNESS = 1e-3
FLOW_SMOOTHNESS = 2 / 3


@dataclass(frozen=True)
class Score:
    """One score of a task.

    Attributes:
        name: Its name in metrics.jsonl.
        label: Its name in a model card.
        better: Which of two values is the better one, `max` or `min`.
        factor: From the value to the card: 100 for percent.
        unit: Unit in the card.
    """

    name: str
    label: str
    better: Callable[..., float] = max
    factor: float = 1
    unit: str = ""

    def text(self, value: float) -> str:
        """The value as a card has it, without its unit."""
        return f"{self.factor * value:.{1 if self.factor == 100 else 3}f}"


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        model_class: Its model.
        purpose: What the model is for, with `{classes}` for their number.
        scores: Its scores; the first one selects the best weights.
        batch: Options of a run -> what its objective reads.
        objective: Options, model and training set -> the objective.
        model_options: Options and training set -> options of `DepthSegConfig` that the data determine.
        transform_options: Options -> those of the transform that are of this task alone.
        has_truth: Options and data set -> whether it can be evaluated by the scores of the task.
        meter: Model -> the meter of its scores, for tasks that are evaluated on the batches of their objective; None =
            the model predicts maps of whole images, which `evaluate_model` compares at their own size.
        measure: Takes meter, objective, batch and sample, and updates the meter.
        needs_labels: Whether it is supervised by something that is not in the images.
        pipeline: Task of the Hub; None = the Hub has none.
        tags: Further tags of the Hub.
        example: Python for a card that shows what is in `outputs`.
    """

    model_class: type[nn.Module]
    purpose: str
    scores: tuple[Score, ...]
    batch: Callable[[RunConfig], BatchContent]
    objective: Callable[[RunConfig, nn.Module, SampleDataset], nn.Module]
    model_options: Callable[[RunConfig, SampleDataset], dict[str, Any]] = lambda config, train_set: {}
    transform_options: Callable[[RunConfig], dict[str, Any]] = lambda config: {}
    has_truth: Callable[[RunConfig, SampleDataset], bool] = lambda config, dataset: True
    meter: Callable[[nn.Module], Any] | None = None
    measure: Callable[[Any, nn.Module, Mapping[str, Tensor], Sample], None] | None = None
    needs_labels: bool = True
    pipeline: str | None = None
    tags: tuple[str, ...] = ()
    example: str = ""

    @property
    def predicts_maps(self) -> bool:
        """Whether its models predict label or depth maps of whole images."""
        return self.meter is None


WITHOUT_TRUTH = Score("photometric_loss", "photometric loss", min)
"""What selects the best weights on images without measured depth or flow."""


def task_of(config: RunConfig) -> Task:
    """The task of a run."""
    return TASKS[config.task]


def is_self_supervised(config: RunConfig) -> bool:
    """Whether a run learns depth without labels."""
    return config.task == "depth" and config.pretext.supervision != "labels"


def _label_space_options(config: RunConfig, train_set: SampleDataset) -> dict[str, Any]:
    space = train_set.label_space
    if space is None:
        raise ValueError("The training set names no classes (label_space is None), so it cannot train segmentation.")
    weights = balanced_weights(train_set) if config.model.class_weights == "balanced" else config.model.class_weights
    return {
        "num_labels": space.num_labels,
        "id2label": space.id2label,
        "label2id": space.label2id,
        "semantic_loss_ignore_index": space.ignore_index,
        "keep_depth": config.model.keep_depth,
    } | ({} if weights is None else {"class_weights": None if weights == "none" else weights})


def _segmentation_objective(config: RunConfig, model: nn.Module, train_set: SampleDataset) -> SupervisedObjective:
    """The objective; refuses to train one class against a background where no label map examined shows it."""
    space = train_set.label_space
    chosen = evenly_spaced(len(train_set), LABEL_MAPS_EXAMINED) if space is not None and space.one_class else []
    label_maps = (train_set[index].labels for index in chosen)
    if chosen and not any(labels is not None and (labels == 1).any() for labels in label_maps):
        raise ValueError(
            f"None of {len(chosen)} training label maps has a pixel of class {space.classes[1]!r}, id 1. Binary masks "
            f"are often saved as 0 and 255, and {space.ignore_index} means ignored: write 1 in place of 255. "
            "`depthseg datasets check` prints a command that does it."
        )
    return SupervisedObjective(model, config.model.depth_weight)


def _depth_batch(config: RunConfig) -> BatchContent:
    pretext = config.pretext
    if not is_self_supervised(config):
        return BatchContent({"labels": "depth"})
    return BatchContent(
        images=True,
        source_frames=tuple(pretext.source_frames) if "mono" in pretext.supervision else (),
        stereo="stereo" in pretext.supervision,
        intrinsics=pretext.intrinsics == "given",
    )


def _depth_objective(config: RunConfig, model: nn.Module, train_set: SampleDataset) -> nn.Module:
    if not is_self_supervised(config):
        return SupervisedObjective(model)
    pretext, content = config.pretext, _depth_batch(config)
    pose_network = camera = None
    if content.source_frames:
        encoder = model.config.encoder_config
        like_depth = {key: getattr(encoder, key) for key in ("depth", "width_factor") if hasattr(encoder, key)}
        pose_encoder = pretext.pose_encoder or (like_depth if encoder.model_type == "depthseg_resnet" else {})
        pose_network = build_pose_network(pretext.pose_network, pose_encoder, model.encoder.channels[-1])
    if pretext.intrinsics != "given":
        height, width = train_set[0].image.shape[:2]
        # Of a video that is squeezed as it is read.
        aspect = train_set.pixel_aspect(0) if hasattr(train_set, "pixel_aspect") else 1.0
        camera = LearnedCamera(
            pose_network.channels if pretext.intrinsics == "per_image" else None,
            pixel_aspect=aspect * config.data.size[0] / height * width / config.data.size[1],
        )
    smoothness = DEPTH_SMOOTHNESS if pretext.smoothness_weight is None else pretext.smoothness_weight
    return SelfSupervisedObjective(
        model,
        PhotometricLoss(pretext.ssim_weight, smoothness, pretext.auto_mask),
        content.source_frames,
        pose_network,
        camera,
        content.stereo,
        pretext.scale_consistency_weight,
        pretext.pyramid,
        pretext.derotate,
    )


def _has_depth(config: RunConfig, dataset: SampleDataset) -> bool:
    known = getattr(dataset, "has_depth", None)
    found = any(map(known, range(len(dataset)))) if known else dataset[0].depth is not None
    if not (found or is_self_supervised(config)):
        raise ValueError(
            "The data set to evaluate on has no depth, so depth supervised by labels cannot be evaluated: "
            "choose another data.val_split, or data.val_options that bring depth."
        )
    return found


def _flow_objective(config: RunConfig, model: nn.Module, train_set: SampleDataset) -> OpticalFlowObjective:
    pretext = config.pretext
    smoothness = FLOW_SMOOTHNESS if pretext.smoothness_weight is None else pretext.smoothness_weight
    return OpticalFlowObjective(model, pretext.ssim_weight, smoothness, pretext.derotate)


def _has_flow(config: RunConfig, dataset: SampleDataset) -> bool:
    # The true flow is that to the frame before.
    return config.pretext.source_frames[0] == -1 and dataset[0].flow is not None


def _measure_flow(meter: FlowErrors, objective: nn.Module, batch: Mapping[str, Tensor], sample: Sample) -> None:
    flow, _ = objective.estimate(batch)[0]
    meter.update(resize_flow(flow, sample.flow.shape[:2])[0].cpu(), torch.from_numpy(sample.flow).permute(2, 0, 1))


def resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(B, 2, H, W)` in pixels to images of another size, in their pixels."""
    x, y = nn.functional.interpolate(flow, size=size, mode="bilinear", align_corners=False).unbind(1)
    return torch.stack([x * (size[1] / flow.shape[-1]), y * (size[0] / flow.shape[-2])], 1)


def _measure_inpainting(
    meter: InpaintingErrors, objective: nn.Module, batch: Mapping[str, Tensor], sample: Sample
) -> None:
    meter.update(objective.model(batch["pixel_values"]).reconstruction, batch["image"], batch["holes"])


def _category_options(config: RunConfig, train_set: SampleDataset) -> dict[str, Any]:
    names = getattr(train_set, "categories", None)
    if not names:
        raise ValueError("The training set names no categories, so it cannot train classification.")
    ids = dict(enumerate(names))
    return {"num_labels": len(ids), "id2label": ids, "label2id": {name: index for index, name in ids.items()}}


def _measure_category(
    meter: CategoryScores, objective: nn.Module, batch: Mapping[str, Tensor], sample: Sample
) -> None:
    meter.update(objective.model(batch["pixel_values"]).logits.argmax(-1), batch["labels"])


TASKS = {
    "segmentation": Task(
        DepthSegForSemanticSegmentation,
        "semantic segmentation with {classes} classes",
        (
            Score("mean_iou", "mIoU", max, 100, " %"),
            Score("pixel_accuracy", "pixel accuracy", max, 100, " %"),
            Score("mean_accuracy", "mean class accuracy", max, 100, " %"),
            # Of a segmenter that also predicts depth.
            Score("abs_rel", "depth AbsRel", min),
            Score("delta1", "depth delta < 1.25", max, 100, " %"),
        ),
        lambda config: BatchContent({"labels": "labels"} | ({"depth": "depth"} if config.model.depth_weight else {})),
        _segmentation_objective,
        _label_space_options,
        pipeline="image-segmentation",
        tags=("semantic-segmentation",),
        example="""\
labels = processor.post_process_semantic_segmentation(outputs, [(image.height, image.width)])[0]
print(labels.shape, [model.config.id2label[index] for index in labels.unique().tolist()])""",
    ),
    "depth": Task(
        DepthSegForDepthEstimation,
        "monocular depth estimation",
        (
            Score("abs_rel", "AbsRel", min),
            Score("rmse", "RMSE", min, unit=" m"),
            Score("delta1", "delta < 1.25", max, 100, " %"),
            WITHOUT_TRUTH,
        ),
        _depth_batch,
        _depth_objective,
        has_truth=_has_depth,
        pipeline="depth-estimation",
        tags=("monocular-depth-estimation",),
        example="""\
depth = processor.post_process_depth_estimation(outputs, [(image.height, image.width)])[0]["predicted_depth"]
print(depth.shape, depth.min().item(), depth.max().item())""",
    ),
    "flow": Task(
        DepthSegForOpticalFlow,
        "optical flow between two images",
        (Score("end_point_error", "end-point error", min, unit=" px"), WITHOUT_TRUTH),
        lambda config: BatchContent(
            images=True,
            source_frames=tuple(config.pretext.source_frames[:1]),
            intrinsics=config.pretext.derotate,
        ),
        _flow_objective,
        has_truth=_has_flow,
        meter=lambda model: FlowErrors(),
        measure=_measure_flow,
        needs_labels=False,
        tags=("optical-flow",),
    ),
    "inpainting": Task(
        DepthSegForImageReconstruction,
        "inpainting of masked regions",
        (Score("hole_l1", "L1 error on masked pixels", min),),
        lambda config: BatchContent(images=True, holes=True),
        lambda config, model, train_set: InpaintingObjective(model, scale_weights=config.pretext.scale_weights),
        transform_options=lambda config: {
            "hole_share": tuple(config.pretext.hole_share),
            "hole_size": config.pretext.hole_size,
        },
        meter=lambda model: InpaintingErrors(),
        measure=_measure_inpainting,
        needs_labels=False,
        pipeline="image-to-image",
        example="""\
print(outputs.reconstruction.shape)  # (1, 3, height, width): RGB between 0 and 1, with masked regions filled in""",
    ),
    "classification": Task(
        DepthSegForImageClassification,
        "image classification with {classes} classes",
        (Score("accuracy", "accuracy", max, 100, " %"),),
        lambda config: BatchContent({"labels": "category"}),
        lambda config, model, train_set: ClassificationObjective(model),
        _category_options,
        meter=lambda model: CategoryScores(model.config.num_labels),
        measure=_measure_category,
        pipeline="image-classification",
        example="print(model.config.id2label[outputs.logits.argmax().item()])",
    ),
}
"""Task of `RunConfig.task` -> what it is."""
