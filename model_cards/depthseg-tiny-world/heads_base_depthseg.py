"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from .encoders_depthseg import EncoderFeatures


class DepthSegHead(nn.Module, ABC):
    """A decoder body and the factories of its two possible last layers.

    Attributes:
        channels (`list[int]`): Channels of the decoder maps, finest first.
        strides (`tuple[float, ...]`): Input pixels per cell of the decoder maps, finest first.
    """

    channels: list[int]
    strides: tuple[float, ...]

    @abstractmethod
    def forward(self, features: EncoderFeatures) -> list[Tensor]:
        """Decode an image's features.

        Args:
            features ([`EncoderFeatures`]): Maps `(B, C_i, h_i, w_i)`, shallow to deep.

        Returns:
            `list[torch.Tensor]`: decoder maps `(B, channels[i], h, w)`, finest first; they cover the padded image.
        """

    @abstractmethod
    def make_depth_predictor(self) -> nn.ModuleList:
        """Return one module per trained scale, finest first, each from its decoder map to one channel."""

    @abstractmethod
    def make_classifier(self, num_labels: int) -> nn.Module:
        """Return the module from decoder map 0 to `num_labels` channels."""

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters that no output depends on; they would make distributed training wait for ever."""
        return []
