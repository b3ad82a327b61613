"""Depth without labels: from a video, from stereo pairs, or from both.

A depth network (and, for video, a pose network) is right when a neighbouring picture, seen through its depth and pose,
looks like the picture at hand.

Shape letters: B batch, S sources, H and W picture size, h and w size of a depth map.

Source: Godard et al. 2019 (Monodepth2), https://huggingface.co/papers/1806.01260; scale consistency: Bian et al. 2019,
https://huggingface.co/papers/1908.10553.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..geometry import (
    compose_poses,
    correspond,
    invert_pose,
    pose_from_axis_angle,
    resize_area,
    scale_intrinsics,
    warp,
)
from .alignment import find_turn, refine_motion, stabilise, turn_pose
from .photometric import PhotometricLoss, PhotometricOutput
from .pose import LearnedCamera, PoseNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..models import EncoderFeatures

DEPTH_TYPES = ("disparity", "metric")
FAR_DISPARITY = 0.06
"""Share of the range of disparity that a new network begins with."""

ANCHOR_WEIGHT = 0.01
"""Weight of `scale_anchor`: too weak to be seen beside the photometric loss, strong enough against drift."""


@dataclass(frozen=True)
class Explanation:
    """How the networks explain the sources of a batch.

    Attributes:
        depth: `(B, H, W)`, finest scale; metres, or up to scale if nothing but a moving camera gave one.
        disparities: For each scale, finest first, `(B, 1, h, w)`.
        poses: For each source `(B, 4, 4)`, from the axes of the target camera to those of the source's.
        intrinsics: `(B, 3, 3)`, pixels.
        pixels: For each scale, for each source `(B, 2, H, W)`: where the source shows what the target's pixels show;
            of a pyramid's scales H and W shrink.
        warped: The same nesting, `(B, 3, H, W)`: the sources as seen from the target.
        targets: For each scale `(B, 3, H, W)`: what they are compared with.
        sources: The same nesting as `warped`: the sources as they are.
        source_depths: For each frame in time three `(B, H, W)`: its own depth at the target's pixels, the depth that
            the target gives it, and where both are known; empty unless asked for.
    """

    depth: Tensor
    disparities: list[Tensor]
    poses: list[Tensor]
    intrinsics: Tensor
    pixels: list[list[Tensor]]
    warped: list[list[Tensor]]
    targets: list[Tensor]
    sources: list[list[Tensor]]
    source_depths: list[tuple[Tensor, Tensor, Tensor]]


class SelfSupervisedObjective(nn.Module):
    """Photometric training of a depth network.

    Three things differ from Monodepth2: the pose network's translations are shares of the depth that the picture shows
    (1 over its mean inverse depth), a new depth network begins far away (`start_far`), and where nothing but a moving
    camera teaches depth, its free scale is held where the sigmoid is alive (`scale_anchor`).

    Args:
        model: `DepthSegForDepthEstimation` with depth type `disparity` or `metric`. Heads of one scale train at one.
        photometric: The loss.
        source_frames: Offsets in time of the sources, not 0; empty = stereo alone.
        pose_network: Estimates the motion between frames; needed with `source_frames`.
        camera: Learns the focal length; None = the batch brings `intrinsics`.
        stereo: Whether the other camera of a rectified pair is a source too, the last one.
        scale_consistency_weight: Weight of the difference between the depth of a source and the depth that the
            target's gives it, 0 = off; costs one more run of the depth network for each source.
        pyramid: Compare each scale at half the resolution of the one before, as Monodepth did, in place of all at full
            resolution, as Monodepth2 does. Coarse pictures lead the way where the camera turns by many pixels a frame,
            and cost little; fine depth then tends to have holes where there is no texture.
        align: Find turns of the camera by aligning pictures (`find_turn`), let the pose network see, and estimate,
            what is left of the motion, and set turn and speed right for the depth at hand (`refine_motion`).

    Raises:
        ValueError: Parts that do not go together, or depth of a type that cannot be warped with.
    """

    def __init__(
        self,
        model: nn.Module,
        photometric: PhotometricLoss,
        source_frames: Sequence[int] = (-1, 1),
        pose_network: PoseNetwork | None = None,
        camera: LearnedCamera | None = None,
        stereo: bool = False,
        scale_consistency_weight: float = 0.0,
        pyramid: bool = False,
        align: bool = False,
    ) -> None:
        super().__init__()
        if model.config.depth_type not in DEPTH_TYPES:
            raise ValueError(
                f"depth_type is {model.config.depth_type!r}: its zero is unknown, so nothing can be warped with it. "
                f"Train without labels with depth_type {' or '.join(DEPTH_TYPES)}."
            )
        if not source_frames and not stereo:
            raise ValueError("There is nothing to compare with: name source_frames, ask for stereo, or both.")
        if bool(source_frames) != (pose_network is not None):
            raise ValueError("A pose network is needed with source_frames, and only there.")
        if camera is not None and (not source_frames or stereo):
            raise ValueError(
                "A focal length is learned from a camera that turns. Stereo pairs are rectified with a known one: "
                "give it, or train on video alone."
            )
        self.model = model
        self.photometric = photometric
        self.source_frames = tuple(source_frames)
        self.pose_network = pose_network
        self.camera = camera
        self.stereo = stereo
        self.scale_consistency_weight = scale_consistency_weight
        self.pyramid = pyramid
        self.align = align

    @property
    def is_metric(self) -> bool:
        """Whether a baseline in metres gives the depth its scale."""
        return self.stereo

    @property
    def is_anchored(self) -> bool:
        """Whether the scale of depth is free, and could drift to where a sigmoid has no gradient."""
        return not self.is_metric and has_sigmoid(self.model)

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Pixels of each scale, and images: int64 `(2,)`."""
        image = batch["image"]
        return torch.tensor([image[:, 0].numel(), len(image)], device=image.device)

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` and `source_pixel_values` `(B, S, 3, H, W)`, as the image processor makes them;
                `image` and `source_images` `(B, S, 3, H, W)` in [0, 1], the same pictures without colour jitter;
                unless learned, `intrinsics` `(B, 3, 3)`; with stereo, `stereo_x` `(B,)`, where the other camera
                stands, right of this one > 0. Sources are the frames in the order of `source_frames`, then stereo.
            num_valid: `(2,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss` and its parts.
        """
        counts = self.count_valid(batch) if num_valid is None else num_valid
        seen = self.explain(batch, with_source_depths=self.scale_consistency_weight > 0)
        outputs = self.compare(seen, counts)
        photometric = torch.stack([output.photometric for output in outputs]).mean()
        # As at full resolution, each scale is asked for half of the smoothness of the one before.
        smoothness = torch.stack([output.smoothness / 2**scale for scale, output in enumerate(outputs)]).mean()
        parts = {"loss": photometric + smoothness, "photometric_loss": photometric, "smoothness_loss": smoothness}
        if self.is_anchored:
            parts["anchor_loss"] = ANCHOR_WEIGHT * scale_anchor(seen.disparities[0]) / counts[1]
            parts["loss"] = parts["loss"] + parts["anchor_loss"]
        if self.scale_consistency_weight:
            consistency = depth_inconsistency(seen.source_depths) / counts[0]
            parts["scale_consistency_loss"] = consistency
            parts["loss"] = parts["loss"] + self.scale_consistency_weight * consistency
        return parts

    def compare(self, seen: Explanation, counts: Tensor) -> list[PhotometricOutput]:
        """The photometric loss of all scales together or, of a pyramid, of each; `counts` as in `count_valid`."""
        if not self.pyramid:
            num_valid = torch.cat([counts[:1].expand(len(seen.warped)), counts[1:]])
            return [
                self.photometric(seen.targets[0], seen.sources[0], seen.warped, seen.disparities, num_valid=num_valid)
            ]
        outputs = []
        for target, sources, warped, disparity in zip(
            seen.targets, seen.sources, seen.warped, seen.disparities, strict=True
        ):
            pixels = counts[:1] * target[0, 0].numel() / seen.targets[0][0, 0].numel()
            num_valid = torch.cat([pixels, counts[1:]])
            outputs.append(self.photometric(target, sources, [warped], [disparity], num_valid=num_valid))
        return outputs

    def monitor(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What there is to look at in the first picture of a batch.

        Returns:
            `disparity` `(H, W)`, inverse depth; `target` and `warped` (the first source as seen from the target)
            `(3, H, W)` in [0, 1]; `auto_mask` bool `(H, W)`, where a pixel teaches; `error` `(H, W)`.
        """
        seen = self.explain(batch)
        output = self.compare(seen, self.count_valid(batch))[0]
        return {
            "target": batch["image"][0],
            "warped": seen.warped[0][0][0],
            "disparity": 1 / seen.depth[0],
            "auto_mask": output.auto_mask[0, 0],
            "error": output.error[0, 0],
        }

    def explain(self, batch: Mapping[str, Tensor], with_source_depths: bool = False) -> Explanation:
        """Estimate depth and motion, and look the sources up; see `forward` for the batch.

        Args:
            batch: One (micro-)batch.
            with_source_depths: Whether to estimate the depth of the frames, too.
        """
        features = self.model.encode(batch["pixel_values"])
        raw_maps = self.model.predict_raw_depth(self.model.head(features))
        depths = [self.model.read_depth(features.to_input(raw).float())[:, 0] for raw in raw_maps]
        poses, intrinsics = self.estimate_motion(batch, features, depths[0])
        full = tuple(batch["image"].shape[-2:])
        pixels, warped, targets, sources = [], [], [], []
        for scale, depth in enumerate(depths):
            size = tuple(-(-side // 2**scale) for side in full) if self.pyramid else full
            camera = scale_intrinsics(intrinsics, full, size)
            depth = resize_area(depth[:, None], size)[:, 0]
            targets.append(resize_area(batch["image"], size))
            sources.append([resize_area(source, size) for source in batch["source_images"].unbind(1)])
            pixels.append([correspond(depth, camera, camera, pose)[0] for pose in poses])
            warped.append([warp(source, at)[0] for source, at in zip(sources[-1], pixels[-1], strict=True)])
        return Explanation(
            depth=depths[0],
            disparities=[self.disparity_of(raw, features) for raw in raw_maps],
            poses=poses,
            intrinsics=intrinsics,
            pixels=pixels,
            warped=warped,
            targets=targets,
            sources=sources,
            source_depths=self.source_depths(batch, depths[0], poses, intrinsics) if with_source_depths else [],
        )

    def disparity_of(self, raw: Tensor, features: EncoderFeatures) -> Tensor:
        """The disparity that is to be smooth, `(B, 1, h, w)`, without what padding added."""
        if features.input_size != features.padded_size:
            raw = features.to_input(raw)
        return raw if self.model.config.depth_type == "disparity" else 1 / self.model.read_depth(raw)

    def estimate_motion(
        self, batch: Mapping[str, Tensor], features: EncoderFeatures, depth: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Poses from target to source axes, `(B, 4, 4)` for each source, and intrinsics `(B, 3, 3)`."""
        poses, intrinsics = [], batch.get("intrinsics")
        if self.source_frames:
            count = len(self.source_frames)
            frames = batch["source_pixel_values"][:, :count].unbind(1)
            if self.align:
                # All pairs as one batch: these pictures are small, and every call costs as much as its arithmetic.
                assumed = intrinsics.float() if self.camera is None else self.camera.assume(batch["image"])
                assumed = repeat(assumed, count)
                targets, sources = repeat(batch["image"], count), torch.cat(batch["source_images"].unbind(1)[:count])
                turns = find_turn(targets, sources, assumed)
                frames = stabilise(torch.cat(frames), turns, assumed).chunk(count)
            rotation, translation, seen = self.estimate_pairs(batch["pixel_values"], frames, features)
            if self.camera is not None:
                size = tuple(batch["image"].shape[-2:])
                intrinsics = torch.stack([self.camera(pair, size) for pair in seen]).mean(0)
            # Pictures show translation as a share of depth. In that unit the depth of all pixels can shrink or grow
            # together without a change of the loss; in a unit of its own, motion that the pose network has not learned
            # yet is made up for by ever nearer depth, until the sigmoid is saturated.
            translation = translation / (1 / depth).mean((1, 2))[None, :, None]
            for offset, *motion in zip(self.source_frames, rotation, translation, strict=True):
                pose = pose_from_axis_angle(*motion)
                poses.append(pose if offset > 0 else invert_pose(pose))
            if self.align:
                cameras = repeat(intrinsics, count)
                pose = compose_poses(turn_of(turns, assumed, cameras), torch.cat(poses))
                poses = list(set_right(pose, targets, sources, repeat(depth, count), cameras).chunk(count))
        if self.stereo:
            still = torch.zeros(len(depth), 3, dtype=torch.float32, device=depth.device)
            other = torch.stack([-batch["stereo_x"].float(), still[:, 0], still[:, 0]], 1)
            poses.append(pose_from_axis_angle(still, other))
        return poses, intrinsics.float()

    def estimate_pairs(
        self, target: Tensor, frames: Sequence[Tensor], features: EncoderFeatures
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation and translation `(S, B, 3)` from the earlier to the later picture of each pair, and what was seen.

        Pictures go in by time: a network that saw the drive backwards half of the time would have to learn both.
        """
        if self.pose_network.reads_maps:
            target = features.maps[-1]
            frames = self.model.encode(torch.cat(frames)).maps[-1].chunk(len(frames))
        pairs = [
            (target, frame) if offset > 0 else (frame, target)
            for offset, frame in zip(self.source_frames, frames, strict=True)
        ]
        first, second = (torch.cat(pictures) for pictures in zip(*pairs, strict=True))
        return tuple(found.unflatten(0, (len(pairs), -1)) for found in self.pose_network(first, second))

    def source_depths(
        self, batch: Mapping[str, Tensor], depth: Tensor, poses: list[Tensor], intrinsics: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each frame: its own depth at the target's pixels, the depth that the target gives it, where both are."""
        found = []
        for number in range(len(self.source_frames)):
            features = self.model.encode(batch["source_pixel_values"][:, number])
            raw = self.model.predict_raw_depth(self.model.head(features))[0]
            own = self.model.read_depth(features.to_input(raw).float())
            pixels, given, known = correspond(depth, intrinsics, intrinsics, poses[number])
            own, inside = warp(own, pixels)
            found.append((own[:, 0], given, known & inside))
        return found


def turn_of(turn: Tensor, assumed: Tensor, intrinsics: Tensor) -> Tensor:
    """The pose `(B, 4, 4)` of a turn `(B, 3)` that was found with an assumed camera, given the right one.

    What was found are shifts of pixels in the middle of the picture; they stand for smaller turns of a camera with a
    longer focal length.
    """
    ratio = assumed[:, 0, 0] / intrinsics[:, 0, 0].float()
    return turn_pose(turn * torch.stack([ratio, ratio, torch.ones_like(ratio)], 1))


def repeat(tensor: Tensor, count: int) -> Tensor:
    """A batch so many times, one after another."""
    return tensor.repeat(count, *[1] * (tensor.dim() - 1))


def set_right(pose: Tensor, target: Tensor, source: Tensor, depth: Tensor, intrinsics: Tensor) -> Tensor:
    """The refined motion `(B, 4, 4)` towards a source, with the gradient of the motion that was refined.

    What was refined is at the minimum of what it changes, so the loss hardly depends on it; the rest, such as where
    the camera goes, is learned.
    """
    given = pose.detach()
    refined = refine_motion(target, source, depth.detach(), intrinsics.detach(), given)
    return compose_poses(pose, compose_poses(invert_pose(given), refined))


def has_sigmoid(model: nn.Module) -> bool:
    """Whether depth comes from a share of a range of disparities, as in Monodepth2."""
    return model.config.depth_type == "disparity" and not model.head.activates_depth


@torch.no_grad()
def start_far(model: nn.Module) -> None:
    """Let new depth predictors begin with a scene that is far away.

    The middle of the range, where a sigmoid begins, is near: half of the scene cannot be much nearer, and the other
    picture of a stereo pair is looked up beyond its border. Then the unwarped one explains everything better, every
    pixel is masked, and nothing is ever learned. From a far scene, warped and unwarped sources are alike, and
    disparity grows where that helps.

    Args:
        model: `DepthSegForDepthEstimation`; of another depth type than `disparity` it stays as it is.
    """
    if not has_sigmoid(model):
        return
    for predictor in model.depth_predictor:
        last = [module for module in predictor.modules() if isinstance(module, nn.Conv2d)][-1]
        nn.init.constant_(last.bias, math.log(FAR_DISPARITY / (1 - FAR_DISPARITY)))


def scale_anchor(disparity: Tensor) -> Tensor:
    """Sum over the pictures of the squared log of how far their mean is from `FAR_DISPARITY`.

    No picture tells the scale of depth from a moving camera. As long as motion is not learned yet, every difference in
    depth makes the loss worse, and the shortest way to none at all leads to the end of the sigmoid, from where no
    gradient leads back.

    Args:
        disparity: `(B, 1, h, w)`, shares of the range of disparities.
    """
    return (disparity.float().mean((1, 2, 3)) / FAR_DISPARITY).log().square().sum()


def depth_inconsistency(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Sum over the pixels of `|a - b| / (a + b)`, mean over the pairs of depths; unseen pixels count 0."""
    sums = []
    for own, given, seen in pairs:
        own, given = torch.where(seen, own, 1.0), torch.where(seen, given, 1.0)
        sums.append(((own - given).abs() / (own + given)).sum())
    return torch.stack(sums).mean()
