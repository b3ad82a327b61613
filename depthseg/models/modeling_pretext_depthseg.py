"""The other pre-training tasks: optical flow, inpainting and classification, on the same encoders and heads as depth.

Their decoders are called `pretext_head`, so that a checkpoint hands on its encoder alone. Classification takes
`labels` as every classifier of transformers does; the loss of the others is the business of an objective.

Shape letters: B batch, H and W image size, K classes, h and w size of a predicted map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_outputs import ImageClassifierOutput, ModelOutput
from transformers.utils import can_return_tuple

from .configuration_depthseg import DepthSegConfig
from .encoders_base_depthseg import DepthSegEncoder, EncoderFeatures
from .heads_base_depthseg import DepthSegHead
from .heads_pretext_depthseg import ImageClassifier, PretextHead
from .losses_depthseg import classification_loss
from .modeling_depthseg import DepthSegPreTrainedModel
from .transfer_depthseg import compare_classes


@dataclass
class DepthSegFlowOutput(ModelOutput):
    """Output of [`DepthSegForOpticalFlow`].

    Args:
        flow (`torch.Tensor` of shape `(B, 2, H, W)`): Pixels to the right and down, from the first image to the
            other.
        flow_maps (`tuple[torch.Tensor, ...]`): The flow of each trained scale, `(B, 2, h, w)`, finest first, in
            pixels of the *input*; each covers the whole image.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): The encoder's maps, those of both images side by
            side.
    """

    flow: Tensor | None = None
    flow_maps: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class DepthSegReconstructionOutput(ModelOutput):
    """Output of [`DepthSegForImageReconstruction`].

    Args:
        reconstruction (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [0, 1].
        reconstruction_maps (`tuple[torch.Tensor, ...]`): That of each trained scale, `(B, 3, h, w)`, finest first;
            each covers the whole image.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): The encoder's maps.
    """

    reconstruction: Tensor | None = None
    reconstruction_maps: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class DepthSegForOpticalFlow(DepthSegPreTrainedModel):
    """A siamese flow network: one encoder for two images, and a head that reads the maps of both side by side.

    Both images go through the encoder as one batch, so in training BatchNorm has statistics of both together, where
    two runs would have those of each.

    transformers has no Auto class for optical flow. Without depthseg a checkpoint is loaded so:

    ```python
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    name = "modeling_pretext_depthseg.DepthSegForOpticalFlow"
    model = get_class_from_dynamic_module(name, folder_or_id).from_pretrained(folder_or_id)
    ```

    Args:
        config ([`DepthSegConfig`]): The architecture; `flow_range` is how far flow can reach.

    Source: Lao et al. 2024, https://huggingface.co/papers/2203.13987, ablation of pre-training tasks.
    """

    # transformers has no such Auto class, and passes over the entry in `auto_map`.
    auto_class = "AutoModelForOpticalFlow"
    # What transformers notes when a class is registered for an Auto class; without one no code is saved.
    _auto_class = auto_class
    parts = ("encoder", "pretext_head")

    @classmethod
    def build_pretext_head(cls, encoder: DepthSegEncoder, config: DepthSegConfig) -> PretextHead:
        """From the maps of two images to optical flow, right and down."""
        return PretextHead(encoder, config, num_images=2, channels=2)

    @classmethod
    def why_other_body(cls) -> str:
        """Return the reason why the body of `pretext_head` cannot become a `head`."""
        return f"the decoder of {cls.__name__} reads the maps of two images and has other channels"

    @classmethod
    def compare_decoders(cls, source: DepthSegConfig, target: DepthSegConfig) -> str:
        """Return the difference of the decoders of two configurations; an empty string if there is none."""
        difference = super().compare_decoders(source, target)
        if not difference and source.flow_range != target.flow_range:
            difference = f"flow_range {source.flow_range} in the checkpoint, {target.flow_range} here"
        return difference

    def __init__(self, config: DepthSegConfig):
        super().__init__(config)
        self.pretext_head = self.build_pretext_head(self.encoder, config)
        self.finish_init()

    @property
    def body(self) -> DepthSegHead:
        """The decoder body that reads the encoder's maps."""
        return self.pretext_head.body

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, other_pixel_values: Tensor, output_hidden_states: bool | None = None
    ) -> DepthSegFlowOutput:
        """Predict where each pixel of an image lies in another.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): Images as the image processor makes them.
            other_pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The other ones.
            output_hidden_states (`bool`, *optional*): Whether to return the encoder's maps.

        Returns:
            [`DepthSegFlowOutput`]: `flow` has the size of the image; it is float32 whatever the weights are.

        Raises:
            ValueError: If the images differ in shape.
        """
        if pixel_values.shape != other_pixel_values.shape:
            raise ValueError(
                f"pixel_values and other_pixel_values have shapes {tuple(pixel_values.shape)} and "
                f"{tuple(other_pixel_values.shape)}; they must be equal."
            )
        features = side_by_side(self.encode(torch.cat([pixel_values, other_pixel_values])))
        height, width = features.input_size
        # Axis by axis: a tensor of Python numbers would have to be copied to the device, which the host waits for.
        reach = [self.config.flow_range * side for side in (width, height)]
        shares = [(2 * scale.float().sigmoid() - 1).unbind(1) for scale in self.pretext_head(features)]
        flow_maps = tuple(torch.stack([reach[0] * x, reach[1] * y], 1) for x, y in shares)
        return DepthSegFlowOutput(
            flow=resize(flow_maps[0], features.input_size),
            flow_maps=flow_maps,
            hidden_states=tuple(features.maps) if output_hidden_states else None,
        )


class DepthSegForImageReconstruction(DepthSegPreTrainedModel):
    """An inpainting network: it paints the whole image, of which the image that it sees lacks some.

    Who erases sets the holes to black in [0, 1], *before* the image processor's normalisation.

    Args:
        config ([`DepthSegConfig`]): The architecture.

    Source: Lao et al. 2024, https://huggingface.co/papers/2203.13987, ablation of pre-training tasks.
    """

    auto_class = "AutoModelForImageToImage"
    parts = ("encoder", "pretext_head")

    @classmethod
    def why_other_body(cls) -> str:
        """Return an empty string: the body of `pretext_head` can become a `head`."""
        return ""

    @classmethod
    def build_pretext_head(cls, encoder: DepthSegEncoder, config: DepthSegConfig) -> PretextHead:
        """From the maps of an image to RGB values."""
        return PretextHead(encoder, config, num_images=1, channels=3)

    def __init__(self, config: DepthSegConfig):
        super().__init__(config)
        self.pretext_head = self.build_pretext_head(self.encoder, config)
        self.finish_init()

    @property
    def body(self) -> DepthSegHead:
        """The decoder body that reads the encoder's maps."""
        return self.pretext_head.body

    @can_return_tuple
    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None) -> DepthSegReconstructionOutput:
        """Paint images.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): Images as the image processor makes them.
            output_hidden_states (`bool`, *optional*): Whether to return the encoder's maps.

        Returns:
            [`DepthSegReconstructionOutput`]: `reconstruction` has the size of the image.
        """
        features = self.encode(pixel_values)
        painted = tuple(scale.sigmoid() for scale in self.pretext_head(features))
        return DepthSegReconstructionOutput(
            reconstruction=resize(painted[0], features.input_size),
            reconstruction_maps=painted,
            hidden_states=tuple(features.maps) if output_hidden_states else None,
        )


class DepthSegForImageClassification(DepthSegPreTrainedModel):
    """A classifier of whole images: the mean of the encoder's deepest map, and one linear layer.

    Networks that widen their deepest map before the mean keep this layer: MobileNetV2, EfficientNet-Lite.
    Of an image that had to be padded the mean is over the padded one.

    Args:
        config ([`DepthSegConfig`]): The encoder and the classes, two or more; the head is left to what comes later.

    Raises:
        ValueError: If there is one class only, as every image would be of it.
    """

    auto_class = "AutoModelForImageClassification"
    pipeline_table = "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"
    parts = ("encoder", "pretext_head")

    @classmethod
    def why_no_head(cls) -> str:
        """Return the reason why a checkpoint of this class has no decoder body for depth or segmentation."""
        return f"{cls.__name__} has no decoder"

    @classmethod
    def compare_decoders(cls, source: DepthSegConfig, target: DepthSegConfig) -> str:
        """Return the difference of the last layers of two configurations; an empty string if there is none."""
        return compare_classes(source, target)

    @classmethod
    def build_pretext_head(cls, encoder: DepthSegEncoder, config: DepthSegConfig) -> ImageClassifier:
        """From the deepest map to class logits."""
        assert config.num_labels is not None, "a configuration has classes, two by default"
        return ImageClassifier(encoder, config.num_labels)

    def __init__(self, config: DepthSegConfig):
        if config.num_labels == 1:
            raise ValueError(
                "A classifier of whole images needs two classes or more, but num_labels is 1; to tell images with "
                "something from images without it, give num_labels=2."
            )
        super().__init__(config)
        self.pretext_head = self.build_pretext_head(self.encoder, config)
        self.finish_init()

    def freeze_unused_parameters(self) -> None:
        """Take the parameters that the deepest map does not depend on out of training."""
        for parameter in self.encoder.unused_parameters(slice(-1, None)):
            parameter.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        num_valid: Tensor | int | None = None,
        output_hidden_states: bool | None = None,
    ) -> ImageClassifierOutput:
        """Predict class scores of whole images.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): Images as the image processor makes them.
            labels (`torch.LongTensor` of shape `(B,)`, *optional*): Class ids.
            num_valid (`torch.Tensor` or `int`, *optional*): Divisor of the loss; defaults to the number of images.
            output_hidden_states (`bool`, *optional*): Whether to return the encoder's maps.

        Returns:
            `ImageClassifierOutput`: `logits` has the shape `(B, K)`.
        """
        maps = self.encode(pixel_values).maps
        logits = self.pretext_head(maps[-1])
        return ImageClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, num_valid),
            logits=logits,
            hidden_states=tuple(maps) if output_hidden_states else None,
        )


def side_by_side(features: EncoderFeatures) -> EncoderFeatures:
    """Turn the features of 2B images into those of B pairs: number b and number B + b, channel after channel."""
    prefix_tokens = features.prefix_tokens
    if prefix_tokens is not None:
        prefix_tokens = [None if given is None else torch.cat(given.chunk(2), dim=2) for given in prefix_tokens]
    maps = [torch.cat(given.chunk(2), dim=1) for given in features.maps]
    return replace(features, maps=maps, prefix_tokens=prefix_tokens)


def resize(covering: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring `(B, C, h, w)` that covers the image to the image's size, `(B, C, H, W)`."""
    return F.interpolate(covering, size=size, mode="bilinear", align_corners=False)
