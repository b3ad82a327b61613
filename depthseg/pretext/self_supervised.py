"""Self-supervised depth from a video, from stereo pairs, or from both.

A neighbouring image, warped by the predicted depth and (for video) the predicted pose, must match the target image.

Shape letters: B batch, S sources, H and W image size, h and w size of a depth map.

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
from .alignment import find_rotation, refine_motion, rotation_pose, stabilise
from .photometric import PhotometricLoss, PhotometricOutput
from .pose import LearnedCamera, PoseNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..models import EncoderFeatures

DEPTH_TYPES = ("disparity", "metric")
FAR_DISPARITY = 0.06
"""Initial disparity of a new network, as a fraction of its range."""

ANCHOR_WEIGHT = 0.01
"""Weight of `scale_anchor`: negligible compared with the photometric loss, but sufficient against drift."""


@dataclass(frozen=True)
class Explanation:
    """Depth, motion and warped sources of a batch.

    Attributes:
        depth: `(B, H, W)`, finest scale; metres, or up to scale if training uses only monocular video.
        disparities: For each scale, finest first, `(B, 1, h, w)`.
        poses: For each source `(B, 4, 4)`, from the axes of the target camera to those of the source's.
        intrinsics: `(B, 3, 3)`, pixels.
        pixels: For each scale, for each source `(B, 2, H, W)`: the pixels of the source that correspond to those of
            the target; with a pyramid H and W decrease with the scale.
        warped: The same nesting, `(B, 3, H, W)`: the sources warped to the target.
        targets: For each scale `(B, 3, H, W)`: the target.
        sources: The same nesting as `warped`: the unwarped sources.
        source_depths: For each source frame three `(B, H, W)`: its predicted depth at the target's pixels, its depth
            computed from that of the target, and where both are known; empty unless requested.
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

    It differs from Monodepth2 in three points: the translations of the pose network are in units of the depth of the
    image (1 over its mean inverse depth), the initial depth of a new network is far (`start_far`), and if training
    uses only monocular video, the free scale of depth is kept within the working range of the sigmoid
    (`scale_anchor`).

    Args:
        model: `DepthSegForDepthEstimation` with depth type `disparity` or `metric`. Heads with one scale use one.
        photometric: The loss.
        source_frames: Offsets in time of the source frames, not 0; empty = stereo only.
        pose_network: Estimates the motion between frames; required with `source_frames`.
        camera: Estimates the focal length; None = the batch contains `intrinsics`.
        stereo: Whether the other camera of a rectified pair is a source as well, the last one.
        scale_consistency_weight: Weight of the difference between the predicted depth of a source and its depth
            computed from that of the target, 0 = off; requires one more forward pass of the depth network per source.
        pyramid: Compare each scale at half the resolution of the one before, as Monodepth does, instead of all at full
            resolution, as Monodepth2 does. Coarse images help if the camera rotates by many pixels per frame, at low
            cost; fine depth then tends to have holes in regions without texture.
        derotate: Estimate camera rotations by image alignment (`find_rotation`), use the pose network for the residual
            motion, and refine rotation and speed with the predicted depth (`refine_motion`).

    Raises:
        ValueError: Inconsistent arguments, or a depth type that cannot be used for warping.
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
        derotate: bool = False,
    ) -> None:
        super().__init__()
        if model.config.depth_type not in DEPTH_TYPES:
            raise ValueError(
                f"depth_type is {model.config.depth_type!r}: its shift is unknown, so it cannot be used for warping. "
                f"Set depth_type to {' or '.join(DEPTH_TYPES)} for self-supervised training."
            )
        if not source_frames and not stereo:
            raise ValueError("There are no source images: give source_frames, stereo, or both.")
        if bool(source_frames) != (pose_network is not None):
            raise ValueError("source_frames and pose_network must be given together, or neither of them.")
        if camera is not None and (not source_frames or stereo):
            raise ValueError(
                "The focal length can only be estimated from monocular video. Stereo pairs are rectified with known "
                "intrinsics: give these, or train on video only."
            )
        self.model = model
        self.photometric = photometric
        self.source_frames = tuple(source_frames)
        self.pose_network = pose_network
        self.camera = camera
        self.stereo = stereo
        self.scale_consistency_weight = scale_consistency_weight
        self.pyramid = pyramid
        self.derotate = derotate

    @property
    def is_metric(self) -> bool:
        """Whether a baseline in metres gives the depth its scale."""
        return self.stereo

    @property
    def is_anchored(self) -> bool:
        """Whether the scale of depth is free, so that it could drift to the saturated range of the sigmoid."""
        return not self.is_metric and has_sigmoid(self.model)

    def count_valid(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Pixels of each scale, and images: int64 `(2,)`."""
        image = batch["image"]
        counts = image[:, 0].numel(), len(image)
        return torch.stack([image.new_full((), count, dtype=torch.int64) for count in counts])

    def forward(self, batch: Mapping[str, Tensor], num_valid: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the loss of one (micro-)batch.

        Args:
            batch: `pixel_values` and `source_pixel_values` `(B, S, 3, H, W)`, as the image processor makes them;
                `image` and `source_images` `(B, S, 3, H, W)` in [0, 1], the same images without colour jitter;
                `intrinsics` `(B, 3, 3)` unless they are estimated; with stereo, `stereo_x` `(B,)`, the position of the
                other camera, > 0 to the right. Sources are the frames in the order of `source_frames`, then stereo.
            num_valid: `(2,)`, the sum of `count_valid` over the optimiser step; None = of this batch.

        Returns:
            `loss` and its parts.
        """
        counts = self.count_valid(batch) if num_valid is None else num_valid
        seen = self.explain(batch, with_source_depths=self.scale_consistency_weight > 0)
        outputs = self.compare(seen, counts)
        photometric = torch.stack([output.photometric for output in outputs]).mean()
        # As at full resolution, the smoothness of each scale has half the weight of the one before.
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
        """The photometric loss of all scales or, with a pyramid, of each; `counts` `(2,)` as in `count_valid`."""
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
        """Maps of the first image of a batch for display.

        Returns:
            `disparity` `(H, W)`, inverse depth; `target` and `warped` (the first source warped to the target)
            `(3, H, W)` in [0, 1]; `auto_mask` bool `(H, W)`, True where a pixel has a gradient; `error` `(H, W)`.
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
        """Estimate depth and motion, and warp the sources; see `forward` for the batch.

        Args:
            batch: One (micro-)batch, with `image` `(B, 3, H, W)`.
            with_source_depths: Whether to predict the depth of the source frames as well.
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
        """The disparity for the smoothness term, `(B, 1, h, w)`, without padding; inverse depth in any unit."""
        if features.input_size != features.padded_size:
            raw = features.to_input(raw)
        return raw if self.model.config.depth_type == "disparity" else 1 / self.model.read_depth(raw)

    def estimate_motion(
        self, batch: Mapping[str, Tensor], features: EncoderFeatures, depth: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Poses from target to source axes, `(B, 4, 4)` for each source, and intrinsics `(B, 3, 3)` in pixels."""
        poses, intrinsics = [], batch.get("intrinsics")
        if self.source_frames:
            count = len(self.source_frames)
            frames = batch["source_pixel_values"][:, :count].unbind(1)
            if self.derotate:
                # All pairs as one batch: these images are small, so the overhead of a call dominates.
                assumed = intrinsics.float() if self.camera is None else self.camera.assume(batch["image"])
                assumed = repeat(assumed, count)
                targets, sources = repeat(batch["image"], count), torch.cat(batch["source_images"].unbind(1)[:count])
                rotations = find_rotation(targets, sources, assumed)
                frames = stabilise(torch.cat(frames), rotations, assumed).chunk(count)
            rotation, translation, seen = self.estimate_pairs(batch["pixel_values"], frames, features)
            if self.camera is not None:
                size = tuple(batch["image"].shape[-2:])
                intrinsics = torch.stack([self.camera(pair, size) for pair in seen]).mean(0)
            # Images determine translation only relative to depth. In units of depth, scaling the depth of all pixels
            # does not change the loss; in an independent unit, an untrained pose network is compensated by ever nearer
            # depth, until the sigmoid is saturated.
            translation = translation / (1 / depth).mean((1, 2))[None, :, None]
            for offset, *motion in zip(self.source_frames, rotation, translation, strict=True):
                pose = pose_from_axis_angle(*motion)
                poses.append(pose if offset > 0 else invert_pose(pose))
            if self.derotate:
                cameras = repeat(intrinsics, count)
                pose = compose_poses(rotation_of(rotations, assumed, cameras), torch.cat(poses))
                poses = list(set_right(pose, targets, sources, repeat(depth, count), cameras).chunk(count))
        if self.stereo:
            still = torch.zeros(len(depth), 3, dtype=torch.float32, device=depth.device)
            other = torch.stack([-batch["stereo_x"].float(), still[:, 0], still[:, 0]], 1)
            poses.append(pose_from_axis_angle(still, other))
        return poses, intrinsics.float()

    def estimate_pairs(
        self, target: Tensor, frames: Sequence[Tensor], features: EncoderFeatures
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotation and translation `(S, B, 3)` from the earlier to the later image of each pair, and joint features.

        Images are given in temporal order, so that the network only sees motion forwards in time.
        """
        if self.pose_network.reads_maps:
            target = features.maps[-1]
            frames = self.model.encode(torch.cat(frames)).maps[-1].chunk(len(frames))
        pairs = [
            (target, frame) if offset > 0 else (frame, target)
            for offset, frame in zip(self.source_frames, frames, strict=True)
        ]
        first, second = (torch.cat(images) for images in zip(*pairs, strict=True))
        return tuple(found.unflatten(0, (len(pairs), -1)) for found in self.pose_network(first, second))

    def source_depths(
        self, batch: Mapping[str, Tensor], depth: Tensor, poses: list[Tensor], intrinsics: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each frame its depth at the target's pixels, that from the target, where both are known: `(B, H, W)`."""
        found = []
        for number in range(len(self.source_frames)):
            features = self.model.encode(batch["source_pixel_values"][:, number])
            raw = self.model.predict_raw_depth(self.model.head(features))[0]
            own = self.model.read_depth(features.to_input(raw).float())
            pixels, given, known = correspond(depth, intrinsics, intrinsics, poses[number])
            own, inside = warp(own, pixels)
            found.append((own[:, 0], given, known & inside))
        return found


def rotation_of(rotation: Tensor, assumed: Tensor, intrinsics: Tensor) -> Tensor:
    """The pose `(B, 4, 4)` of a rotation `(B, 3)` that was estimated with assumed intrinsics, for the given ones.

    The estimate is based on pixel shifts in the middle of the image; with a longer focal length these correspond to
    smaller rotations.
    """
    ratio = assumed[:, 0, 0] / intrinsics[:, 0, 0].float()
    return rotation_pose(rotation * torch.stack([ratio, ratio, torch.ones_like(ratio)], 1))


def repeat(tensor: Tensor, count: int) -> Tensor:
    """A batch, repeated `count` times along its first dimension."""
    return tensor.repeat(count, *[1] * (tensor.dim() - 1))


def set_right(pose: Tensor, target: Tensor, source: Tensor, depth: Tensor, intrinsics: Tensor) -> Tensor:
    """The refined motion `(B, 4, 4)` to a source, with the gradient of the motion before refinement.

    The refined components are at a minimum, so the loss hardly depends on them; the others, such as the direction of
    translation, are trained.
    """
    given = pose.detach()
    refined = refine_motion(target, source, depth.detach(), intrinsics.detach(), given)
    return compose_poses(pose, compose_poses(invert_pose(given), refined))


def has_sigmoid(model: nn.Module) -> bool:
    """Whether depth is computed from a sigmoid output within a range of disparities, as in Monodepth2."""
    return model.config.depth_type == "disparity" and not model.head.activates_depth


@torch.no_grad()
def start_far(model: nn.Module) -> None:
    """Initialise new depth predictors with a far scene.

    The middle of the range, the default output of a sigmoid, is near, so the other image of a stereo pair is sampled
    outside its border. The unwarped source then has a lower error everywhere, every pixel is masked, and training does
    not converge. With an initially far scene, warped and unwarped sources are similar, and disparity increases where
    that reduces the loss.

    Args:
        model: `DepthSegForDepthEstimation`; depth types other than `disparity` are not changed.
    """
    if not has_sigmoid(model):
        return
    for predictor in model.depth_predictor:
        last = [module for module in predictor.modules() if isinstance(module, nn.Conv2d)][-1]
        nn.init.constant_(last.bias, math.log(FAR_DISPARITY / (1 - FAR_DISPARITY)))


def scale_anchor(disparity: Tensor) -> Tensor:
    """Sum over the images of the squared log ratio of their mean disparity to `FAR_DISPARITY`.

    Monocular video does not determine the scale of depth. Before the pose network has converged, every variation of
    depth increases the loss, and without this term the output drifts to the saturated end of the sigmoid, where the
    gradient vanishes.

    Args:
        disparity: `(B, 1, h, w)`, as fractions of the range of disparities.
    """
    return (disparity.float().mean((1, 2, 3)) / FAR_DISPARITY).log().square().sum()


def depth_inconsistency(pairs: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Sum over the pixels of `|a - b| / (a + b)`, mean over the pairs of depths; unseen pixels count as 0."""
    sums = []
    for own, given, seen in pairs:
        own, given = torch.where(seen, own, 1.0), torch.where(seen, given, 1.0)
        sums.append(((own - given).abs() / (own + given)).sum())
    return torch.stack(sums).mean()
