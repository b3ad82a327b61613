"""Encoders that transformers provides only within one depth family: GLPN's and DepthPro's."""

from __future__ import annotations

import math

from torch import Tensor
from transformers import DepthProModel, GLPNModel, PreTrainedConfig

from .encoders_base_depthseg import DepthSegEncoder


class GLPNEncoder(DepthSegEncoder):
    """The Mix Transformer of GLPN (SegFormer's encoder): one map per stage, at strides 4 to 32 as published.

    Attention uses keys of patches of the map; the image is padded so that whole patches cover every map, to a multiple
    of 32 as published.

    Source: Kim et al. 2022, https://huggingface.co/papers/2201.07436.
    """

    def __init__(self, config: PreTrainedConfig):
        strides = [math.prod(config.strides[: stage + 1]) for stage in range(config.num_encoder_blocks)]
        self.multiple = math.lcm(*(stride * patch for stride, patch in zip(strides, config.sr_ratios, strict=True)))
        super().__init__(config)

    def build_backbone(self, config: PreTrainedConfig) -> GLPNModel:
        """Return a new GLPN without its decoder."""
        return GLPNModel(config)

    @staticmethod
    def extract(backbone: GLPNModel, pixel_values: Tensor) -> tuple[list[Tensor], None]:
        """Return one map per stage."""
        return list(backbone(pixel_values, output_hidden_states=True).hidden_states), None


class DepthProEncoder(DepthSegEncoder):
    """DepthPro's two ViTs: one reads patches of the image at several scales, the other the whole image, small.

    The maps from shallow to deep are: intermediate layers of the first ViT on the full image, its last layer on the
    images from the largest to the smallest, and the last layer of the second ViT. The number and size of the patches
    determine one square image size, 1536 as published, to which DepthPro's own image processor resizes as well.

    Source: Bochkovskii et al. 2024, https://huggingface.co/papers/2410.02073.
    """

    def __init__(self, config: PreTrainedConfig):
        size = round(config.patch_size / min(config.scaled_images_ratios))
        self.fixed_size = (size, size)
        super().__init__(config)

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Disable the field-of-view network, and check that the smallest image is one patch."""
        config.use_fov_model = False
        size = config.patch_size / min(config.scaled_images_ratios)
        if max(config.scaled_images_ratios) != 1 or any(
            size * ratio != round(size * ratio) for ratio in config.scaled_images_ratios
        ):
            raise ValueError(
                f"encoder_config.scaled_images_ratios is {list(config.scaled_images_ratios)} with patch_size "
                f"{config.patch_size}; the largest ratio must be 1, and every scaled image a whole number of pixels."
            )

    def build_backbone(self, config: PreTrainedConfig) -> DepthProModel:
        """Return a new DepthPro without its neck, which belongs to the head."""
        backbone = DepthProModel(config)
        del backbone.neck
        return backbone

    @staticmethod
    def extract(backbone: DepthProModel, pixel_values: Tensor) -> tuple[list[Tensor], None]:
        """Return the maps of an image of the fixed size."""
        return backbone.encoder(pixel_values).features[::-1], None
