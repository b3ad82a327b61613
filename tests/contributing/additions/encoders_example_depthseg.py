"""An encoder to copy from: two strided convolutions.

Annotations are not postponed in this file: `@strict` checks types, and skips those that are strings.
"""

from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .encoders_convolutional_depthseg import ConvolutionalBackbone, ConvolutionalEncoder


@strict
class ExampleConfig(PreTrainedConfig):
    """Architecture of [`ExampleBackbone`].

    Args:
        width (`int`, *optional*, defaults to `8`): Channels of the first map; the second has twice as many.
        num_channels (`int`, *optional*, defaults to `3`): Channels of the input image.
    """

    model_type = "depthseg_example"

    width: int = 8
    num_channels: int = 3


class ExampleBackbone(ConvolutionalBackbone):
    """Two strided 3x3 convolutions: maps at strides 2 and 4."""

    config: ExampleConfig
    config_class = ExampleConfig

    def __init__(self, config: ExampleConfig):
        super().__init__(config)
        self.stage_ends = [2, 4]
        self.layers = nn.Sequential(
            nn.Conv2d(config.num_channels, config.width, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(config.width, 2 * config.width, 3, 2, 1),
            nn.ReLU(),
        )
        self.post_init()

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        """Maps of an image `(B, 3, H, W)`, shallow to deep: `(B, width, H/2, W/2)`, `(B, 2 * width, H/4, W/4)`."""
        return self.run_stages(self.layers, pixel_values)


class ExampleEncoder(ConvolutionalEncoder):
    """The two convolutions as an encoder."""

    def build_backbone(self, config: ExampleConfig) -> ExampleBackbone:
        """Return a new network."""
        return ExampleBackbone(config)
