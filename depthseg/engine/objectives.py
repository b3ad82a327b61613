"""From the options of a run to what teaches its network, and to what that needs to know of every image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..pretext import (
    ClassificationObjective,
    LearnedCamera,
    OpticalFlowObjective,
    PhotometricLoss,
    ReconstructionObjective,
    SelfSupervisedObjective,
    SupervisedObjective,
    build_pose_network,
)
from .batches import BatchContent

if TYPE_CHECKING:
    from torch import nn

    from ..data import SampleDataset
    from .options import RunConfig

DEPTH_SMOOTHNESS = 1e-3
FLOW_SMOOTHNESS = 2 / 3


def is_self_supervised(config: RunConfig) -> bool:
    """Whether a run learns depth without labels."""
    return config.task == "depth" and config.pretext.supervision != "labels"


def batch_content(config: RunConfig) -> BatchContent:
    """What the objective of a run reads."""
    pretext = config.pretext
    if config.task == "segmentation":
        return BatchContent({"labels": "labels"} | ({"depth": "depth"} if config.model.depth_weight else {}))
    if config.task == "classification":
        return BatchContent({"labels": "category"})
    if config.task == "reconstruction":
        return BatchContent(pictures=True, holes=True)
    if config.task == "flow":
        return BatchContent(pictures=True, source_frames=tuple(pretext.source_frames[:1]), intrinsics=pretext.align)
    if not is_self_supervised(config):
        return BatchContent({"labels": "depth"})
    return BatchContent(
        pictures=True,
        source_frames=tuple(pretext.source_frames) if "mono" in pretext.supervision else (),
        stereo="stereo" in pretext.supervision,
        intrinsics=pretext.intrinsics == "given",
    )


def build_objective(config: RunConfig, model: nn.Module, train_set: SampleDataset) -> nn.Module:
    """Make the objective of a run around its model.

    Args:
        config: The options.
        model: Model of the task.
        train_set: Read for the shape of its images where a focal length is learned.

    Raises:
        ValueError: Depth of a type that cannot be learned that way.
    """
    pretext = config.pretext
    if is_self_supervised(config):
        return _self_supervised(config, model, train_set)
    if config.task == "flow":
        smoothness = FLOW_SMOOTHNESS if pretext.smoothness_weight is None else pretext.smoothness_weight
        return OpticalFlowObjective(model, pretext.ssim_weight, smoothness, pretext.align)
    if config.task == "reconstruction":
        return ReconstructionObjective(model, scale_weights=pretext.scale_weights)
    if config.task == "classification":
        return ClassificationObjective(model)
    return SupervisedObjective(model, config.model.depth_weight)


def _self_supervised(config: RunConfig, model: nn.Module, train_set: SampleDataset) -> SelfSupervisedObjective:
    pretext, content = config.pretext, batch_content(config)
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
            pose_network.channels if pretext.intrinsics == "per_picture" else None,
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
        pretext.align,
    )
