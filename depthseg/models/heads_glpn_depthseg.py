"""The decoder of GLPN: selective feature fusion from deep to shallow, followed by one convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .encoders_base_depthseg import EncoderFeatures
from .heads_base_depthseg import DepthSegHead, SegmentationBlock, check_ending


@dataclass(frozen=True)
class GLPNHeadConfig:
    """Options of [`GLPNHead`].

    Args:
        decoder_hidden_size (`int`, *optional*, defaults to `64`): Channels of every decoder stage; even.
        ending (`str`, *optional*, defaults to `"last_layer"`): The classifier of a segmenter: one 3x3 convolution in
            place of the depth layer (`"last_layer"`), or DPT's own block on the fused features
            (`"segmentation_block"`).
        classifier_dropout (`float`, *optional*, defaults to `0.1`): Dropout in the segmentation block.
    """

    decoder_hidden_size: int = 64
    ending: str = "last_layer"
    classifier_dropout: float = 0.1

    def __post_init__(self) -> None:
        size = self.decoder_hidden_size
        if not isinstance(size, int) or size < 2 or size % 2:
            raise ValueError(f"head_config.decoder_hidden_size is {size!r}; it must be an even number of at least 2.")
        check_ending(self.ending)


class GLPNHead(DepthSegHead):
    """GLPN's decoder stages and the first convolution of its head; the last layer is a 3x3 convolution.

    transformers doubles the size after each stage and refuses images that are not multiples of 32; here each stage
    resizes to the size of the *next map*, then to twice that of the finest map and to the image. For multiples of 32
    both are equal.

    Source: Kim et al. 2022, https://huggingface.co/papers/2201.07436.
    """

    def __init__(
        self, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: GLPNHeadConfig
    ):
        super().__init__()
        # A private class: imported here, so that a rename in transformers breaks only this head.
        from transformers.models.glpn.modeling_glpn import GLPNDecoderStage

        self.config = config
        hidden = config.decoder_hidden_size
        # Deepest first, as in transformers.
        stages: list[Any] = [GLPNDecoderStage(c, hidden) for c in reversed(channels)]
        # The deepest map has none to fuse with.
        stages[0].fusion = None
        self.stages: Any = nn.ModuleList(stages)
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.fused_stride = strides[0] / 2
        self.serve(depth=True, labels=True)

    def serve(self, depth: bool, labels: bool) -> None:
        """See [`DepthSegHead.serve`]; the segmentation block needs no convolution after the fused map."""
        block = self.config.ending == "segmentation_block" and labels
        self.refines = depth or not block
        self.hands_on_fused = block
        self.classifier_map = -1
        self.strides = (1.0,) * self.refines + (self.fused_stride,) * block
        self.channels = [self.config.decoder_hidden_size] * len(self.strides)

    def fuse(self, maps: list[Tensor]) -> Tensor:
        """Fuse maps `(B, C_i, h_i, w_i)`, shallow to deep, into `(B, decoder_hidden_size, 2 * h_0, 2 * w_0)`."""
        height, width = maps[0].shape[-2:]
        targets = [tuple(level.shape[-2:]) for level in maps[-2::-1]] + [(2 * height, 2 * width)]
        fused: Any = None
        for stage, level, target in zip(self.stages, reversed(maps), targets, strict=True):
            level = stage.convolution(level)
            fused = level if fused is None else stage.fusion(level, fused)
            fused = resize(fused, target)
        return fused

    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """See [`DepthSegHead.forward`]: the refined map, the fused map, or one of them; see `serve`."""
        fused = self.fuse(features.maps)
        decoded = [F.relu(self.conv(resize(fused, features.padded_size)))] if self.refines else []
        return [*decoded, fused] if self.hands_on_fused else decoded

    def make_predictor(self, channels: int) -> nn.ModuleList:
        """One 3x3 convolution."""
        return nn.ModuleList([nn.Conv2d(self.config.decoder_hidden_size, channels, 3, padding=1)])

    def make_classifier(self, num_labels: int) -> nn.Module:
        """One 3x3 convolution to `num_labels` channels at the resolution of the image, or the segmentation block."""
        if self.config.ending == "segmentation_block":
            return SegmentationBlock(self.config.decoder_hidden_size, num_labels, self.config.classifier_dropout)
        return nn.Conv2d(self.config.decoder_hidden_size, num_labels, 3, padding=1)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The convolution after the fused map, if no last layer uses it."""
        return [] if self.refines else list(self.conv.parameters())


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize `(B, C, h, w)` bilinearly, as GLPN's decoder does."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
