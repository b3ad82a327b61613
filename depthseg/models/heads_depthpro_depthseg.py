"""The decoder of DepthPro: its neck, its fusion stage, and the convolutions before the last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders_base_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead, SegmentationBlock, check_ending

# Fixed in transformers as well.
HEAD_HIDDEN_SIZE = 32


@dataclass(frozen=True)
class DepthProHeadConfig:
    """Options of [`DepthProHead`].

    Args:
        scaled_images_feature_dims (`tuple[int, ...]`, *optional*, defaults to `(1024, 1024, 512)`):
            Channels to which the maps of the scaled images are projected, smallest image first.
        intermediate_feature_dims (`tuple[int, ...]`, *optional*, defaults to `(256, 256)`):
            Channels to which the intermediate maps are projected, deepest first.
        fusion_hidden_size (`int`, *optional*, defaults to `256`): Channels of the fusion blocks.
        use_batch_norm_in_fusion_residual (`bool`, *optional*, defaults to `False`): BatchNorm in the fusion blocks.
        use_bias_in_fusion_residual (`bool`, *optional*, defaults to `True`): Bias in the fusion blocks.
        ending (`str`, *optional*, defaults to `"last_layer"`): The classifier of a segmenter: one 1x1 convolution in
            place of the depth layer (`"last_layer"`), or DPT's own block on the fused features
            (`"segmentation_block"`).
        classifier_dropout (`float`, *optional*, defaults to `0.1`): Dropout in the segmentation block.
    """

    scaled_images_feature_dims: tuple[int, ...] = (1024, 1024, 512)
    intermediate_feature_dims: tuple[int, ...] = (256, 256)
    fusion_hidden_size: int = 256
    use_batch_norm_in_fusion_residual: bool = False
    use_bias_in_fusion_residual: bool = True
    ending: str = "last_layer"
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        if not self.scaled_images_feature_dims or not self.intermediate_feature_dims:
            raise ValueError(
                f"head_config.scaled_images_feature_dims is {self.scaled_images_feature_dims} and "
                f"intermediate_feature_dims is {self.intermediate_feature_dims}; each requires at least one entry."
            )
        check_ending(self.ending)


class DepthProHead(DepthSegHead):
    """DepthPro's decoder on the maps of its encoder: intermediate maps, maps of the scaled images, map of the image.

    Each map is projected and upsampled to its level of a pyramid, the two deepest are merged, and the levels are fused
    from deep to shallow with transposed convolutions. The last layer, for either task, is a 1x1 convolution.

    Source: Bochkovskii et al. 2024, https://huggingface.co/papers/2410.02073.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: DepthProHeadConfig
    ):
        super().__init__()
        # Private classes: imported here, so that a rename in transformers breaks only this head.
        from transformers.models.depth_pro.modeling_depth_pro import DepthProFeatureFusionStage, DepthProNeck

        self.config = config
        theirs = self.their_config(channels, config)
        self.neck = DepthProNeck(theirs)
        self.fusion_stage = DepthProFeatureFusionStage(theirs)
        fusion = config.fusion_hidden_size
        self.conv1 = nn.Conv2d(fusion, fusion // 2, 3, padding=1)
        self.deconv = nn.ConvTranspose2d(fusion // 2, fusion // 2, 2, stride=2)
        self.conv2 = nn.Conv2d(fusion // 2, HEAD_HIDDEN_SIZE, 3, padding=1)
        # The shallowest map is upsampled twice by 2 in the neck, and once more for each intermediate map before it.
        self.fused_stride = strides[0] / 2 ** (1 + len(config.intermediate_feature_dims))
        self.serve(depth=True, labels=True)

    @staticmethod
    def their_config(channels: list[int], config: DepthProHeadConfig) -> nn.Module:
        """Return the configuration of transformers' modules for an encoder's channels."""
        from transformers import DepthProConfig

        scaled, intermediate = list(config.scaled_images_feature_dims), list(config.intermediate_feature_dims)
        if len(channels) != 1 + len(scaled) + len(intermediate) or len(set(channels[:-1])) != 1:
            raise ValueError(
                f"DepthPro's head reads one map of the whole image, {len(scaled)} of scaled images and "
                f"{len(intermediate)} intermediate ones, the latter all of one width, but the encoder returns "
                f"{len(channels)} maps of {list(channels)} channels; use the encoder 'depth_pro'."
            )
        return DepthProConfig(
            fusion_hidden_size=config.fusion_hidden_size,
            use_batch_norm_in_fusion_residual=config.use_batch_norm_in_fusion_residual,
            use_bias_in_fusion_residual=config.use_bias_in_fusion_residual,
            scaled_images_feature_dims=scaled,
            intermediate_feature_dims=intermediate,
            # The modules of the head use only the number of entries.
            scaled_images_ratios=[1.0] * len(scaled),
            scaled_images_overlap_ratios=[0.0] * len(scaled),
            intermediate_hook_ids=[0] * len(intermediate),
            image_model_config={"model_type": "dinov2", "image_size": 384, "hidden_size": channels[-1]},
            patch_model_config={"model_type": "dinov2", "image_size": 384, "hidden_size": channels[0]},
        )

    def serve(self, depth: bool, labels: bool) -> None:
        """See [`DepthSegHead.serve`]; the segmentation block needs no convolutions after the fused map."""
        block = self.config.ending == "segmentation_block" and labels
        self.refines = depth or not block
        self.hands_on_fused = block
        self.classifier_map = -1
        self.channels = [HEAD_HIDDEN_SIZE] * self.refines + [self.config.fusion_hidden_size] * block
        self.strides = (self.fused_stride / 2,) * self.refines + (self.fused_stride,) * block

    def fuse(self, features: EncoderFeatures) -> Tensor:
        """Return the finest fused map, `(B, fusion_hidden_size, h, w)`."""
        # transformers orders maps from deep to shallow.
        pyramid = self.neck(list(reversed(features.maps)))
        stages = [*self.fusion_stage.intermediate, self.fusion_stage.final]
        fused: Any = None
        for stage, level in zip(stages, pyramid, strict=True):
            if fused is None:
                fused = stage(level)
                continue
            if fused.shape[-2:] != level.shape[-2:]:
                fused = F.interpolate(fused, size=level.shape[-2:], mode="bilinear", align_corners=False)
            fused = stage(fused, level)
        return fused

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]: the refined map, the fused map, or one of them; see `serve`."""
        fused = self.fuse(features)
        decoded = [torch.relu(self.conv2(self.deconv(self.conv1(fused))))] if self.refines else []
        return [*decoded, fused] if self.hands_on_fused else decoded

    def make_predictor(self, channels: int) -> nn.ModuleList:
        """One 1x1 convolution."""
        return nn.ModuleList([nn.Conv2d(HEAD_HIDDEN_SIZE, channels, 1)])

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 1x1 convolution to `num_labels` channels at the finest resolution, or the segmentation block."""
        if self.config.ending == "segmentation_block":
            return SegmentationBlock(self.config.fusion_hidden_size, num_labels, self.config.classifier_dropout)
        return nn.Conv2d(HEAD_HIDDEN_SIZE, num_labels, 1)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The residual unit of the first fusion layer, which has no second map, and modules that are not used."""
        unused = [self.fusion_stage.intermediate[0].residual_layer1]
        if not self.refines:
            unused += [self.conv1, self.deconv, self.conv2]
        return [parameter for module in unused for parameter in module.parameters()]
