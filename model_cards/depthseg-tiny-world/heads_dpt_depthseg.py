"""The reassemble and fusion blocks of DPT, as transformers has them, on the maps of any encoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DPTConfig

from .encoders_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead

NUM_MAPS = 4
READOUT_TYPES = ("project", "add", "ignore")


@dataclass(frozen=True)
class DPTHeadConfig:
    """Options of [`DPTHead`].

    Args:
        neck_hidden_sizes (`tuple[int, ...]`, *optional*, defaults to `(96, 192, 384, 768)`):
            Channels after reassembling, shallow to deep. Read for transformers alone; the maps of a convolutional
            encoder keep theirs.
        reassemble_factors (`tuple[float, ...]`, *optional*, defaults to `(4, 2, 1, 0.5)`):
            Resizing of the patch grid per map. Read for transformers alone.
        readout_type (`str`, *optional*, defaults to `"project"`):
            What becomes of the CLS token: `"project"`, `"add"` or `"ignore"`. Read for transformers alone.
        fusion_hidden_size (`int`, *optional*, defaults to `256`): Channels of the fusion blocks.
        use_batch_norm_in_fusion_residual (`bool`, *optional*, defaults to `False`): BatchNorm in the fusion blocks.
        head_hidden_size (`int`, *optional*, defaults to `32`): Channels before the last layer.
    """

    neck_hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    reassemble_factors: tuple[float, ...] = (4, 2, 1, 0.5)
    readout_type: str = "project"
    fusion_hidden_size: int = 256
    use_batch_norm_in_fusion_residual: bool = False
    head_hidden_size: int = 32

    def __post_init__(self) -> None:
        for name in ("neck_hidden_sizes", "reassemble_factors"):
            if len(getattr(self, name)) != NUM_MAPS:
                raise ValueError(f"head_config.{name} is {getattr(self, name)}; DPT needs exactly {NUM_MAPS} entries.")
        if self.readout_type not in READOUT_TYPES:
            raise ValueError(
                f"head_config.readout_type is {self.readout_type!r}; allowed are {', '.join(READOUT_TYPES)}."
            )


class FusionStage(nn.Module):
    """Fuse four maps from deep to shallow with transformers' fusion layers.

    transformers doubles the size after each layer, which drifts when a size is odd; here each layer resizes to the
    *next map's* size. Where sizes are even the two are the same.
    """

    def __init__(self, config: DPTConfig):
        super().__init__()
        # A private class: imported here, so that a rename in transformers breaks this head alone.
        from transformers.models.dpt.modeling_dpt import DPTFeatureFusionLayer

        self.layers = nn.ModuleList(DPTFeatureFusionLayer(config) for _ in range(NUM_MAPS))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Fuse maps `(B, C, h_i, w_i)`, shallow to deep, into `(B, C, 2 * h_0, 2 * w_0)`."""
        fused = None
        sizes = [tuple(shallower.shape[-2:]) for shallower in maps]
        targets = [sizes[2], sizes[1], sizes[0], (2 * sizes[0][0], 2 * sizes[0][1])]
        for layer, residual, target in zip(self.layers, reversed(maps), targets, strict=True):
            fused = residual if fused is None else fused + layer.residual_layer1(residual)
            fused = layer.residual_layer2(fused)
            fused = F.interpolate(fused, size=target, mode="bilinear", align_corners=True)
            fused = layer.projection(fused)
        return fused


class DPTHead(DepthSegHead):
    """Reassemble, fuse, and the two convolutions before DPT's last layer, at the resolution of the image.

    On transformers the last four maps, all at the stride of the patches, are reassembled into a pyramid. On
    convolutional encoders the last four maps are the pyramid. The last layer, for either task, is a 1x1 convolution.

    Source: Ranftl et al. 2021, https://huggingface.co/papers/2103.13413.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: DPTHeadConfig
    ):
        super().__init__()
        channels, strides = channels[-NUM_MAPS:], strides[-NUM_MAPS:]
        self.reassembles = len(set(strides)) == 1
        if self.reassembles and config.readout_type != "ignore" and num_prefix_tokens < 1:
            raise ValueError(
                f"head_config.readout_type is {config.readout_type!r} but the encoder has no CLS token; use 'ignore'."
            )
        neck = DPTConfig(
            hidden_size=channels[0],
            neck_hidden_sizes=list(config.neck_hidden_sizes) if self.reassembles else list(channels),
            reassemble_factors=list(config.reassemble_factors),
            readout_type=config.readout_type,
            fusion_hidden_size=config.fusion_hidden_size,
            use_batch_norm_in_fusion_residual=config.use_batch_norm_in_fusion_residual,
            is_hybrid=False,
        )
        if self.reassembles:
            from transformers.models.dpt.modeling_dpt import DPTReassembleStage

            self.reassemble_stage = DPTReassembleStage(neck)
        fusion = config.fusion_hidden_size
        self.convs = nn.ModuleList(nn.Conv2d(c, fusion, 3, padding=1, bias=False) for c in neck.neck_hidden_sizes)
        self.fusion_stage = FusionStage(neck)
        self.conv1 = nn.Conv2d(fusion, fusion // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(fusion // 2, config.head_hidden_size, 3, padding=1)
        self.channels = [config.head_hidden_size]
        self.strides = (1.0,)

    def reassemble(self, features: EncoderFeatures) -> list[Tensor]:
        """Return a pyramid of four maps `(B, neck_hidden_sizes[i], h_i, w_i)`, shallow to deep."""
        maps = features.maps[-NUM_MAPS:]
        if not self.reassembles:
            return maps
        # transformers expects a CLS token in front even where readout_type "ignore" drops it at once.
        prefixes = features.prefix_tokens or [feature_map.new_zeros(len(feature_map), 1, 1) for feature_map in maps]
        tokens = []
        for feature_map, prefix in zip(maps, prefixes[-NUM_MAPS:], strict=True):
            patches = feature_map.flatten(2).transpose(1, 2)
            tokens.append(torch.cat([prefix[:, :1].expand(-1, -1, patches.shape[-1]), patches], dim=1))
        return self.reassemble_stage(tokens, *maps[0].shape[-2:])

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]; one map, of the size of the (padded) image."""
        maps = [conv(level) for conv, level in zip(self.convs, self.reassemble(features), strict=True)]
        x = self.conv1(self.fusion_stage(maps))
        x = F.interpolate(x, size=features.padded_size, mode="bilinear", align_corners=True)
        return [F.relu(self.conv2(x))]

    def make_depth_predictor(self) -> nn.ModuleList:
        """One 1x1 convolution to one channel."""
        return nn.ModuleList([nn.Conv2d(self.channels[0], 1, 1)])

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 1x1 convolution to `num_labels` channels at the resolution of the image."""
        return nn.Conv2d(self.channels[0], num_labels, 1)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The residual unit of the first fusion layer, which has no map to join (kept for published weights)."""
        return list(self.fusion_stage.layers[0].residual_layer1.parameters())
