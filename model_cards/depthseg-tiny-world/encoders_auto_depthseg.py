"""Backbones that transformers offers through `AutoBackbone`.

Shape letters: B batch, H and W image size, C channels, h and w map size.
"""

from __future__ import annotations

from itertools import accumulate
from math import isqrt, lcm
from operator import mul

import torch
from torch import Tensor, nn
from transformers import AutoBackbone, PreTrainedConfig

from .encoders_base_depthseg import DepthSegEncoder, unfold_tokens


class PyramidBackboneEncoder(DepthSegEncoder):
    """A backbone whose maps get coarser with depth (Swin, ConvNeXt, ResNet, ...); all stages are read.

    Most round sizes up by themselves; for those that would drop the last rows and columns see the subclasses.
    """

    def __init__(self, config: PreTrainedConfig):
        self.multiple = self.image_multiple(config)
        super().__init__(config)

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return what image sides must be multiples of, so that the backbone reads every pixel at every stage."""
        return 1

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Choose the layers to read where nobody did.

        That cannot be seen in a configuration: the last stage alone, the default of transformers, counts as no choice.
        """
        if list(config.out_features) == [config.stage_names[-1]]:
            config.out_indices = cls.default_layers(config)

    @staticmethod
    def default_layers(config: PreTrainedConfig) -> list[int]:
        """Return the indices of all stages but the stem, which is as fine as the first stage, or the image itself."""
        return [index for index, name in enumerate(config.stage_names) if name != "stem"]

    def build_backbone(self, config: PreTrainedConfig) -> nn.Module:
        """Return a new backbone."""
        return AutoBackbone.from_config(config)

    @staticmethod
    def extract(backbone: nn.Module, pixel_values: Tensor) -> tuple[list[Tensor], None]:
        """Return one map a chosen stage."""
        return list(backbone(pixel_values).feature_maps), None


class ConvNextBackboneEncoder(PyramidBackboneEncoder):
    """ConvNeXt, which cuts its input, and every stage's, into blocks and drops what is left over."""

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the stride of the last stage; blocks of 4 pixels where the configuration does not say (DINOv3)."""
        return getattr(config, "patch_size", 4) * 2 ** (len(config.depths) - 1)


class FocalNetBackboneEncoder(PyramidBackboneEncoder):
    """FocalNet, which gives a stage's map after it was made coarser for the next stage; the last one apart."""

    @staticmethod
    def default_layers(config: PreTrainedConfig) -> list[int]:
        """Return the stem and all stages but the last but one, which has the stride of the last."""
        deepest = len(config.stage_names) - 1
        return [*range(deepest - 1), deepest]


class LCNetBackboneEncoder(PyramidBackboneEncoder):
    """PP-LCNet, whose BatchNorms stand inside what transformers runs twice under gradient checkpointing."""

    @staticmethod
    def extract(backbone: nn.Module, pixel_values: Tensor) -> tuple[list[Tensor], None]:
        """Return one map a chosen stage."""
        if backbone.training and any(
            getattr(module, "gradient_checkpointing", False) for module in backbone.modules()
        ):
            raise ValueError(
                f"Gradient checkpointing is on, but in the encoder {backbone.config.model_type} it would count every "
                "batch twice in the norm statistics; switch it off by model.gradient_checkpointing_disable()."
            )
        return PyramidBackboneEncoder.extract(backbone, pixel_values)


class PVTBackboneEncoder(PyramidBackboneEncoder):
    """PVTv2, whose keys and values are cut into blocks of their own at every stage."""

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the pixels that a whole number of blocks of keys covers at every stage."""
        strides = accumulate(config.strides, mul)
        return lcm(*(stride * ratio for stride, ratio in zip(strides, config.sr_ratios, strict=True)))


class FixedSizeBackboneEncoder(PyramidBackboneEncoder):
    """A pyramid of one fixed image size (Hiera: its position embeddings and windows follow from that size)."""

    def __init__(self, config: PreTrainedConfig):
        size = config.image_size
        self.fixed_size = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(config)


class PlainBackboneEncoder(PyramidBackboneEncoder):
    """A vision transformer whose maps all have the stride of its patches, without prefix tokens (ViTDet)."""

    @staticmethod
    def image_multiple(config: PreTrainedConfig) -> int:
        """Return the side of a patch; times the windows along a side where their number is fixed (LW-DETR)."""
        return square_patch(config) * isqrt(getattr(config, "num_windows", 1))

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Choose the layers to read where nobody did, and check the patches; see the base class."""
        square_patch(config)
        super().complete_config(config)

    @staticmethod
    def default_layers(config: PreTrainedConfig) -> list[int]:
        """Return four evenly spaced layers, (3, 6, 9, 12) of 12, as DPT reads them; fewer of less than four."""
        layers = len(config.stage_names) - 1
        return sorted({max(1, layers * quarter // 4) for quarter in (1, 2, 3, 4)})


class ViTBackboneEncoder(PlainBackboneEncoder):
    """A vision transformer that gives all its tokens, prefix tokens first (DINOv2, as in Depth Anything, or BEiT)."""

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Ask the backbone to keep its prefix tokens; see the base class."""
        if getattr(config, "add_fpn", False):
            raise ValueError(
                "encoder_config.add_fpn is True; leave it False: heads that want a pyramid of maps make their own."
            )
        config.reshape_hidden_states = False
        super().complete_config(config)

    @staticmethod
    def extract(backbone: nn.Module, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map a chosen layer, each at the stride of the patches, and the CLS and register tokens."""
        tokens = backbone(pixel_values).feature_maps
        return unfold_tokens(tokens, pixel_values.shape[-2:], square_patch(backbone.config))


class RotaryViTBackboneEncoder(ViTBackboneEncoder):
    """A vision transformer with rotary positions (DINOv3, Sapiens2); its backbone drops the prefix tokens."""

    @classmethod
    def complete_config(cls, config: PreTrainedConfig) -> None:
        """Leave the configuration of Sapiens2's own head out; see the base class."""
        if config.model_type == "sapiens2":
            config.head_config = None
        super().complete_config(config)

    @staticmethod
    def extract(backbone: nn.Module, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map a chosen layer, and the CLS and register tokens, put through the same norm as the map."""
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
    """Whether a rotary backbone puts a layer through its final norm: Sapiens2 all or none, DINOv3 always the last."""
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
