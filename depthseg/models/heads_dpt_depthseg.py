"""The reassemble and fusion blocks of DPT, as in transformers, on the maps of any encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DPTConfig

from .encoders_base_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead, SegmentationBlock, check_ending

NUM_MAPS = 4
READOUT_TYPES = ("project", "add", "ignore")
UPSAMPLINGS = ("image", "double")
DEPTH_ACTIVATIONS = ("depth_type", "exp")


@dataclass(frozen=True)
class DPTHeadConfig:
    """Options of [`DPTHead`].

    Args:
        neck_hidden_sizes (`tuple[int, ...]`, *optional*, defaults to `(96, 192, 384, 768)`):
            Channels after reassembling, shallow to deep. Used only for transformer encoders; the maps of a
            convolutional encoder keep their channels.
        reassemble_factors (`tuple[float, ...]`, *optional*, defaults to `(4, 2, 1, 0.5)`):
            Resizing of the patch grid per map. Used only for transformer encoders.
        readout_type (`str`, *optional*, defaults to `"project"`):
            Use of the CLS token: `"project"`, `"add"` or `"ignore"`. Used only for transformer encoders.
        readout_act (`str`, *optional*, defaults to `"gelu"`): Activation of the projected readout.
        fusion_hidden_size (`int`, *optional*, defaults to `256`): Channels of the fusion blocks.
        use_batch_norm_in_fusion_residual (`bool`, *optional*, defaults to `False`): BatchNorm in the fusion blocks.
        use_bias_in_fusion_residual (`bool`, *optional*): Bias in the fusion blocks; by default without BatchNorm.
        add_projection (`bool`, *optional*, defaults to `False`): One more convolution between fusion and depth.
        head_hidden_size (`int`, *optional*, defaults to `32`): Channels before the last layer.
        upsampling (`str`, *optional*, defaults to `"image"`): Size of the last map: the image's (`"image"`, as in
            Depth Anything), or twice the fused map's (`"double"`, as in DPT). Equal for patches of 16 pixels.
        depth_activation (`str`, *optional*, defaults to `"depth_type"`): Last function of the depth predictor: that of
            `config.depth_type`, or the exponential (`"exp"`, as in Depth Anything 3), for relative depth.
        ending (`str`, *optional*, defaults to `"last_layer"`): The classifier of a segmenter: one 1x1 convolution in
            place of the depth layer (`"last_layer"`), or DPT's own block on the fused features
            (`"segmentation_block"`).
        classifier_dropout (`float`, *optional*, defaults to `0.1`): Dropout in the segmentation block.
    """

    neck_hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    reassemble_factors: tuple[float, ...] = (4, 2, 1, 0.5)
    readout_type: str = "project"
    readout_act: str = "gelu"
    fusion_hidden_size: int = 256
    use_batch_norm_in_fusion_residual: bool = False
    use_bias_in_fusion_residual: bool | None = None
    add_projection: bool = False
    head_hidden_size: int = 32
    upsampling: str = "image"
    depth_activation: str = "depth_type"
    ending: str = "last_layer"
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("neck_hidden_sizes", "reassemble_factors"):
            if len(getattr(self, name)) != NUM_MAPS:
                raise ValueError(
                    f"head_config.{name} is {getattr(self, name)}; DPT requires exactly {NUM_MAPS} entries."
                )
        for name, allowed in (
            ("readout_type", READOUT_TYPES),
            ("upsampling", UPSAMPLINGS),
            ("depth_activation", DEPTH_ACTIVATIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"head_config.{name} is {getattr(self, name)!r}; allowed are {', '.join(allowed)}.")
        check_ending(self.ending)


class FusionStage(nn.Module):
    """Fuse four maps from deep to shallow with transformers' fusion layers.

    transformers doubles the size after each layer, which is inexact for odd sizes; here each layer resizes to the size
    of the *next map*. For even sizes both are equal.
    """

    def __init__(self, config: DPTConfig):
        super().__init__()
        # A private class: imported here, so that a rename in transformers breaks only this head.
        from transformers.models.dpt.modeling_dpt import DPTFeatureFusionLayer

        self.layers: Any = nn.ModuleList(DPTFeatureFusionLayer(config) for _ in range(NUM_MAPS))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Fuse maps `(B, C, h_i, w_i)`, shallow to deep; four maps, the last `(B, C, 2 * h_0, 2 * w_0)`."""
        fused, stages = None, []
        sizes = [tuple(shallower.shape[-2:]) for shallower in maps]
        targets = [sizes[2], sizes[1], sizes[0], (2 * sizes[0][0], 2 * sizes[0][1])]
        for layer, residual, target in zip(self.layers, reversed(maps), targets, strict=True):
            fused = residual if fused is None else fused + layer.residual_layer1(residual)
            fused = layer.residual_layer2(fused)
            fused = F.interpolate(fused, size=target, mode="bilinear", align_corners=True)
            fused = layer.projection(fused)
            stages.append(fused)
        return stages


class DPTHead(DepthSegHead):
    """Reassemble and fusion blocks, and the two convolutions before DPT's last layer, at the resolution of the image.

    For transformer encoders the last four maps, all at the stride of the patches, are reassembled into a pyramid. Maps
    without CLS token together with maps that have one (the convolutional stages of DPT-Hybrid) are used unchanged. For
    convolutional encoders the last four maps are the pyramid. The last layer, for either task, is a 1x1 convolution,
    unless `ending="segmentation_block"` selects DPT's own block on the fused map.

    Source: Ranftl et al. 2021, https://huggingface.co/papers/2103.13413.
    """

    maps_read = slice(-NUM_MAPS, None)

    def __init__(self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: DPTHeadConfig):
        super().__init__()
        self.config = config
        if config.depth_activation == "exp":
            self.activates_depth = True
        channels, strides = channels[self.maps_read], strides[self.maps_read]
        # The first two maps of DPT-Hybrid are convolutional, at strides 4 and 8.
        self.is_hybrid = num_prefix_tokens > 0 and strides[2] == strides[3] and strides[0] != strides[3]
        self.reassembles = self.is_hybrid or len(set(strides)) == 1
        if self.reassembles and config.readout_type != "ignore" and num_prefix_tokens < 1:
            raise ValueError(
                f"head_config.readout_type is {config.readout_type!r} but the encoder has no CLS token; use 'ignore'."
            )
        neck = DPTConfig(
            hidden_size=channels[-1],
            hidden_act=config.readout_act,
            neck_hidden_sizes=list(config.neck_hidden_sizes) if self.reassembles else list(channels),
            reassemble_factors=list(config.reassemble_factors),
            readout_type=config.readout_type,
            fusion_hidden_size=config.fusion_hidden_size,
            use_batch_norm_in_fusion_residual=config.use_batch_norm_in_fusion_residual,
            use_bias_in_fusion_residual=config.use_bias_in_fusion_residual,
            is_hybrid=self.is_hybrid,
        )
        # Set because DPTConfig would otherwise use the width of its own backbone.
        neck.backbone_config = None
        if self.reassembles:
            from transformers.models.dpt.modeling_dpt import DPTReassembleStage

            self.reassemble_stage = DPTReassembleStage(neck)
        fusion = config.fusion_hidden_size
        self.convs = nn.ModuleList(nn.Conv2d(c, fusion, 3, padding=1, bias=False) for c in neck.neck_hidden_sizes)
        self.fusion_stage = FusionStage(neck)
        self.projection = nn.Conv2d(fusion, fusion, 3, padding=1) if config.add_projection else None
        self.conv1 = nn.Conv2d(fusion, fusion // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(fusion // 2, config.head_hidden_size, 3, padding=1)
        finest = strides[0] / config.reassemble_factors[0] if len(set(strides)) == 1 else strides[0]
        self.fused_stride = finest / 2
        self.serve(depth=True, labels=True)

    def serve(self, depth: bool, labels: bool) -> None:
        """See [`DepthSegHead.serve`]; the segmentation block needs no convolutions after the fused map."""
        block = self.config.ending == "segmentation_block" and labels
        self.refines = depth or not block
        self.hands_on_fused = block
        self.classifier_map = -1
        refined_stride = 1.0 if self.config.upsampling == "image" else self.fused_stride / 2
        self.channels = [self.config.head_hidden_size] * self.refines + [self.config.fusion_hidden_size] * block
        self.strides = (refined_stride,) * self.refines + (self.fused_stride,) * block

    def reassemble(self, features: EncoderFeatures) -> list[Tensor]:
        """Return a pyramid of four maps `(B, neck_hidden_sizes[i], h_i, w_i)`, shallow to deep."""
        maps = features.maps[self.maps_read]
        if not self.reassembles:
            return maps
        prefixes = features.prefix_tokens[self.maps_read] if features.prefix_tokens else [None] * NUM_MAPS
        stage_inputs = []
        for index, (feature_map, prefix) in enumerate(zip(maps, prefixes, strict=True)):
            if self.is_hybrid and index < 2:
                stage_inputs.append(feature_map)
                continue
            # transformers expects a leading CLS token even if readout_type "ignore" drops it.
            prefix = feature_map.new_zeros(feature_map.shape[0], 1, 1) if prefix is None else prefix[:, :1]
            patches = feature_map.flatten(2).transpose(1, 2)
            stage_inputs.append(torch.cat([prefix.expand(-1, -1, patches.shape[-1]), patches], dim=1))
        return self.reassemble_stage(stage_inputs, *maps[-1].shape[-2:])

    def fuse(self, features: EncoderFeatures) -> tuple[list[Tensor], list[Tensor]]:
        """Return the four projected maps, shallow to deep, and the four fused maps, coarse to fine."""
        maps = [conv(level) for conv, level in zip(self.convs, self.reassemble(features), strict=True)]
        return maps, self.fusion_stage(maps)

    def refine(self, fused: Tensor, features: EncoderFeatures) -> Tensor:
        """Map the finest fused map to the input of the last layer, `(B, head_hidden_size, H, W)`."""
        if self.projection is not None:
            fused = F.relu(self.projection(fused))
        x = self.conv1(fused)
        height, width = x.shape[-2:]
        size = features.padded_size if self.config.upsampling == "image" else (2 * height, 2 * width)
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=True)
        return F.relu(self.conv2(x))

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]: the refined map, the fused map, or one of them; see `serve`."""
        fused = self.fuse(features)[1][-1]
        decoded = [self.refine(fused, features)] if self.refines else []
        return [*decoded, fused] if self.hands_on_fused else decoded

    def make_predictor(self, channels: int) -> nn.ModuleList:
        """One 1x1 convolution."""
        return nn.ModuleList([nn.Conv2d(self.config.head_hidden_size, channels, 1)])

    def predict_depth(self, predictors: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
        """See [`DepthSegHead.predict_depth`]; with the activation of the head if it has its own."""
        predicted = super().predict_depth(predictors, maps)
        return [level.exp() for level in predicted] if self.config.depth_activation == "exp" else predicted

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 1x1 convolution to `num_labels` channels at the resolution of the image, or the segmentation block."""
        if self.config.ending == "segmentation_block":
            return SegmentationBlock(self.config.fusion_hidden_size, num_labels, self.config.classifier_dropout)
        return nn.Conv2d(self.config.head_hidden_size, num_labels, 1)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The residual unit of the first fusion layer, which has no second map, and modules that are not used.

        They are kept because published weights contain them.
        """
        unused = [self.fusion_stage.layers[0].residual_layer1]
        if not self.refines:
            unused += [self.conv1, self.conv2] + ([self.projection] if self.projection is not None else [])
        return [parameter for module in unused for parameter in module.parameters()]
