"""Backbones that transformers provides through `AutoBackbone`.

Shape letters: B batch, H and W image size, C channels, h and w map size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isqrt, lcm
from operator import mul
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, PreTrainedConfig

from .encoders_base_depthseg import DepthSegEncoder, unfold_tokens


class PyramidBackboneEncoder(DepthSegEncoder):
    """A backbone whose maps get coarser with depth (Swin, ConvNeXt, ResNet, ...); all stages are read.

    Most backbones round sizes up; the subclasses handle those that would drop the last rows and columns.
    """

    def __init__(self, config: PreTrainedConfig):
        self.multiple = self.image_multiple(config)
        super().__init__(config)

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the required multiple of the image sides, so that the backbone uses every pixel at every stage."""
        return 1

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Set the default layers unless the configuration selects layers.

        The last stage only, the default of transformers, counts as no selection.
        """
        if list(config.out_features) == [config.stage_names[-1]]:
            config.out_indices = cls.default_layers(config)

    @staticmethod
    def default_layers(config: PreTrainedConfig) -> list[int]:
        """Return the indices of all stages except the stem, which has the size of the first stage or of the image."""
        return [index for index, name in enumerate(config.stage_names) if name != "stem"]

    def build_backbone(self, config: PreTrainedConfig) -> nn.Module:
        """Return a new backbone."""
        return AutoBackbone.from_config(config)

    @property
    def steady_side(self) -> int:
        """See the base class; Swin shrinks windows that are not smaller than a map, and no longer shifts them."""
        window = getattr(self.backbone.config, "window_size", 1)
        largest = window if isinstance(window, int) else max(window)
        return max(super().steady_side, 1 + int(max(self.strides)) * largest)

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], Sequence[Tensor | None] | None]:
        """Return one map per selected stage."""
        return list(backbone(pixel_values).feature_maps), None


class ConvNextBackboneEncoder(PyramidBackboneEncoder):
    """ConvNeXt, which splits the input of every stage into blocks and drops the remainder."""

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the stride of the last stage; blocks have 4 pixels if the configuration does not say (DINOv3)."""
        return getattr(config, "patch_size", 4) * 2 ** (len(config.depths) - 1)


class FocalNetBackboneEncoder(PyramidBackboneEncoder):
    """FocalNet, which returns the map of a stage, except the last one, after downsampling for the next stage."""

    @staticmethod
    def default_layers(config: PreTrainedConfig) -> list[int]:
        """Return the stem and all stages except the second last, which has the stride of the last."""
        deepest = len(config.stage_names) - 1
        return [*range(deepest - 1), deepest]


class LCNetBackboneEncoder(PyramidBackboneEncoder):
    """PP-LCNet, whose BatchNorms are in the part that transformers runs twice with gradient checkpointing."""

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], Sequence[Tensor | None] | None]:
        """Return one map per selected stage."""
        if backbone.training and any(
            getattr(module, "gradient_checkpointing", False) for module in backbone.modules()
        ):
            raise ValueError(
                f"Gradient checkpointing is enabled, but in the encoder {backbone.config.model_type} it would count "
                "every batch twice in the norm statistics; disable it with model.gradient_checkpointing_disable()."
            )
        return PyramidBackboneEncoder.extract(backbone, pixel_values)


class PVTBackboneEncoder(PyramidBackboneEncoder):
    """PVTv2, whose keys and values are split into blocks at every stage."""

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the number of pixels that is a multiple of the blocks of keys at every stage."""
        strides = accumulate(config.strides, mul)
        return lcm(*(stride * ratio for stride, ratio in zip(strides, config.sr_ratios, strict=True)))


class FixedSizeBackboneEncoder(PyramidBackboneEncoder):
    """A pyramid with one fixed image size (Hiera, whose position embeddings and windows depend on that size)."""

    def __init__(self, config: PreTrainedConfig):
        size = config.image_size
        self.fixed_size = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(config)


class PlainBackboneEncoder(PyramidBackboneEncoder):
    """A vision transformer whose maps all have the stride of its patches, without prefix tokens (ViTDet)."""

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the side of a patch, times the windows along a side if their number is fixed (LW-DETR)."""
        return square_patch(config) * isqrt(getattr(config, "num_windows", 1))

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Set the default layers if none are selected, and check the patches; see the base class."""
        square_patch(config)
        super().complete_config(config)

    @staticmethod
    def default_layers(config: PreTrainedConfig) -> list[int]:
        """Return four evenly spaced layers, (3, 6, 9, 12) of 12, as in DPT; fewer if there are less than four."""
        layers = len(config.stage_names) - 1
        return sorted({max(1, layers * quarter // 4) for quarter in (1, 2, 3, 4)})


class ViTBackboneEncoder(PlainBackboneEncoder):
    """A vision transformer that returns all tokens, prefix tokens first (DINOv2, as in Depth Anything, or BEiT)."""

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Configure the backbone to keep its prefix tokens; see the base class."""
        if getattr(config, "add_fpn", False):
            raise ValueError(
                "encoder_config.add_fpn is True; set it to False: heads that need a pyramid of maps build their own."
            )
        config.reshape_hidden_states = False
        super().complete_config(config)

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map per selected layer, each at the stride of the patches, and the CLS and register tokens."""
        tokens = backbone(pixel_values).feature_maps
        return unfold_tokens(tokens, pixel_values.shape[-2:], square_patch(backbone.config))


class RotaryViTBackboneEncoder(ViTBackboneEncoder):
    """A vision transformer with rotary positions (DINOv3, Sapiens2); its backbone drops the prefix tokens."""

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Remove the configuration of Sapiens2's own head; see the base class."""
        if config.model_type == "sapiens2":
            config.head_config = None
        super().complete_config(config)

    @staticmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map per selected layer, and the CLS and register tokens with the same norm as the map."""
        config = backbone.config
        output = backbone(pixel_values, output_hidden_states=True)
        tokens = []
        for name, patches in zip(config.out_features, output.feature_maps, strict=True):
            index = config.stage_names.index(name)
            prefix = output.hidden_states[index][:, : 1 + config.num_register_tokens]
            if normalises_layer(config, index):
                prefix = backbone.norm(prefix)
            tokens.append(torch.cat([prefix, patches], dim=1))
        return unfold_tokens(tokens, pixel_values.shape[-2:], square_patch(config))


def normalises_layer(config: PreTrainedConfig, index: int) -> bool:
    """Whether a rotary backbone applies its final norm to a layer: Sapiens2 to all or none, DINOv3 to the last."""
    if config.model_type == "sapiens2":
        return config.normalize_backbone_outputs
    return config.apply_layernorm or index == len(config.stage_names) - 1


def square_patch(config: PreTrainedConfig) -> int:
    """Return the side of a transformer's patches.

    Raises:
        ValueError: If they are not square.
    """
    patch = config.patch_size
    sides = {int(patch)} if isinstance(patch, int) else {int(side) for side in patch}
    if len(sides) != 1:
        raise ValueError(f"encoder_config.patch_size is {patch}; patches must be square.")
    return sides.pop()
