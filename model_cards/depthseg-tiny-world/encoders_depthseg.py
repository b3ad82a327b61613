"""Encoders: from an image of any size to a list of maps, shallow to deep.

Shape letters: B batch, H and W image size, C channels, N patches, P prefix (CLS) tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoBackbone, PreTrainedConfig, ViTModel

from .encoders_resnet_depthseg import DepthSegResNet, DepthSegResNetConfig

# What a dry run found, by the JSON of the encoder's configuration.
DRY_RUNS: dict[str, tuple[list[int], tuple[float, ...], int]] = {}


@dataclass
class EncoderFeatures:
    """What an encoder hands to a head.

    Args:
        maps (`list[torch.Tensor]`): Maps of shape `(B, C_i, h_i, w_i)`, shallow to deep.
        prefix_tokens (`list[torch.Tensor]` or `None`): Per map the CLS and register tokens `(B, P, C_i)`, for heads
            that read them; `None` for convolutional encoders.
        strides (`tuple[float, ...]`): Input pixels per map cell.
        input_size (`tuple[int, int]`): Height and width of the image as given.
        padded_size (`tuple[int, int]`): Height and width after padding to the encoder's multiple; the maps cover it.
    """

    maps: list[Tensor]
    prefix_tokens: list[Tensor] | None
    strides: tuple[float, ...]
    input_size: tuple[int, int]
    padded_size: tuple[int, int]

    def to_input(self, decoded: Tensor) -> Tensor:
        """Resize a decoded map `(B, C, h, w)` that covers the padded image to the image as given, `(B, C, H, W)`."""
        if decoded.shape[-2:] != self.padded_size:
            decoded = F.interpolate(decoded, size=self.padded_size, mode="bilinear", align_corners=False)
        return decoded[..., : self.input_size[0], : self.input_size[1]]


class DepthSegEncoder(nn.Module, ABC):
    """A backbone that takes any image size and declares what its maps look like.

    The image is padded at the right and bottom, by repeating its border, to a multiple of what the backbone needs.
    Channels, strides and the number of prefix tokens come from a dry run on the meta device, because the attributes
    that backbones declare are not always true.

    Attributes:
        backbone (`PreTrainedModel`): The bare backbone.
        channels (`list[int]`), strides (`tuple[float, ...]`): One entry a map, shallow to deep.
        num_prefix_tokens (`int`): Prefix tokens a map comes with.
        multiple (`int`): The image is padded to a multiple of it.
        frozen (`bool`): Whether [`~DepthSegEncoder.freeze`] was called.
    """

    multiple = 1

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.frozen = False
        self.backbone = self.build_backbone(config)
        # Remembered, because the meta device is slow: half the time of loading a small model.
        key = config.to_json_string(use_diff=False)
        if key not in DRY_RUNS:
            DRY_RUNS[key] = self.dry_run(config)
        channels, self.strides, self.num_prefix_tokens = DRY_RUNS[key]
        self.channels = list(channels)

    def dry_run(self, config: PreTrainedConfig) -> tuple[list[int], tuple[float, ...], int]:
        """Return the channels and strides of the maps, and the number of prefix tokens."""
        size = self.multiple * -(-128 // self.multiple)
        with torch.device("meta"):
            maps, prefix_tokens = self.extract(self.build_backbone(config), torch.zeros(1, 3, size, size))
        channels = [feature_map.shape[1] for feature_map in maps]
        strides = tuple(size / feature_map.shape[-1] for feature_map in maps)
        return channels, strides, prefix_tokens[0].shape[1] if prefix_tokens else 0

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Fill in, and check, what this encoder asks of its configuration beyond the backbone's own defaults.

        Called when the model's configuration is made, so that a configuration is the same before and after saving.
        """

    @abstractmethod
    def build_backbone(self, config: PreTrainedConfig) -> nn.Module:
        """Return a new backbone with random weights."""

    @staticmethod
    @abstractmethod
    def extract(backbone: nn.Module, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor] | None]:
        """Return the maps `(B, C_i, h_i, w_i)` and prefix tokens `(B, P, C_i)` of a padded image `(B, 3, H, W)`."""

    def unused_parameters(self) -> list[nn.Parameter]:
        """Parameters of the backbone that no map depends on; they would make distributed training wait for ever."""
        return []

    def freeze(self) -> None:
        """Fix parameters and norm statistics, whatever `.train()` says later."""
        self.frozen = True
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> DepthSegEncoder:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, pixel_values: Tensor) -> EncoderFeatures:
        """Encode an image of any size.

        Args:
            pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The scaled image.

        Returns:
            [`EncoderFeatures`]: the maps cover the padded image.
        """
        height, width = pixel_values.shape[-2:]
        pad_bottom, pad_right = -height % self.multiple, -width % self.multiple
        if pad_bottom or pad_right:
            pixel_values = F.pad(pixel_values, (0, pad_right, 0, pad_bottom), mode="replicate")
        maps, prefix_tokens = self.extract(self.backbone, pixel_values)
        padded_size = (height + pad_bottom, width + pad_right)
        return EncoderFeatures(maps, prefix_tokens, self.strides, (height, width), padded_size)


class ResNetEncoder(DepthSegEncoder):
    """The Monodepth2 ResNet; strided convolutions round up, so no padding is needed."""

    def build_backbone(self, config: DepthSegResNetConfig) -> DepthSegResNet:
        """Return a new ResNet."""
        return DepthSegResNet(config)

    @staticmethod
    def extract(backbone: DepthSegResNet, pixel_values: Tensor) -> tuple[list[Tensor], None]:
        """Return five maps at strides 2 to 32."""
        return backbone(pixel_values), None


class ViTBackboneEncoder(DepthSegEncoder):
    """A vision transformer that transformers offers as a backbone (DINOv2, as in Depth Anything)."""

    def __init__(self, config: PreTrainedConfig):
        self.multiple = int(config.patch_size)
        super().__init__(config)

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Ask the backbone to keep its prefix tokens."""
        config.reshape_hidden_states = False

    def build_backbone(self, config: PreTrainedConfig) -> nn.Module:
        """Return a new backbone."""
        return AutoBackbone.from_config(config)

    @staticmethod
    def extract(backbone: nn.Module, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map a chosen layer, each at the stride of the patches, and the CLS tokens."""
        tokens = backbone(pixel_values).feature_maps
        return unfold_tokens(tokens, pixel_values.shape[-2:], backbone.config.patch_size)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The mask token, which only DINOv2's own pre-training reads, and the layers above the deepest one read."""
        config = self.backbone.config
        deepest = max(config.stage_names.index(name) for name in config.out_features)
        mask_token = [parameter for name, parameter in self.named_parameters() if name.endswith("mask_token")]
        return mask_token + list(self.backbone.encoder.layer[deepest:].parameters())


class ViTEncoder(DepthSegEncoder):
    """A plain ViT, as in DPT: hidden states after chosen layers, before the final norm.

    Transformers does not offer `ViTModel` as a backbone. `encoder_config.out_indices` are the numbers of layers (1 =
    after the first); without it four evenly spaced ones, (3, 6, 9, 12) of 12, are taken, as DPT does.
    """

    def __init__(self, config: PreTrainedConfig):
        self.multiple = int(config.patch_size)
        super().__init__(config)

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Choose the layers to read, or check those chosen."""
        layers = config.num_hidden_layers
        if getattr(config, "out_indices", None) is None:
            config.out_indices = [layers * (i + 1) // 4 for i in range(4)]
        if not all(1 <= index <= layers for index in config.out_indices):
            raise ValueError(
                f"encoder_config.out_indices is {config.out_indices}; a ViT of {layers} layers allows 1 to {layers}."
            )

    def build_backbone(self, config: PreTrainedConfig) -> ViTModel:
        """Return a new ViT without pooler."""
        return ViTModel(config, add_pooling_layer=False)

    @staticmethod
    def extract(backbone: ViTModel, pixel_values: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return one map a chosen layer, each at the stride of the patches, and the CLS tokens."""
        output = backbone(pixel_values, interpolate_pos_encoding=True, output_hidden_states=True)
        tokens = [output.hidden_states[index] for index in backbone.config.out_indices]
        return unfold_tokens(tokens, pixel_values.shape[-2:], backbone.config.patch_size)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The final norm and the layers above the deepest one that is read."""
        deepest = max(self.backbone.config.out_indices)
        modules = [self.backbone.layernorm, *self.backbone.layers[deepest:]]
        return [parameter for module in modules for parameter in module.parameters()]


def unfold_tokens(tokens: list[Tensor], size: tuple[int, int], patch_size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Split tokens `(B, P + N, C)` of an image of `size` into maps `(B, C, h, w)` and prefix tokens `(B, P, C)`."""
    height, width = size[0] // patch_size, size[1] // patch_size
    prefix = tokens[0].shape[1] - height * width
    maps = [layer[:, prefix:].transpose(1, 2).unflatten(2, (height, width)) for layer in tokens]
    return maps, [layer[:, :prefix] for layer in tokens]


@dataclass(frozen=True)
class EncoderEntry:
    """One row of [`ENCODERS`], read by the configuration, the model, the tests and the README table.

    Args:
        cls (`type[DepthSegEncoder]`): Built as `cls(encoder_config)`.
        config_class (`type[PreTrainedConfig]`): Class of `encoder_config`.
        summary (`str`): One line for the README table.
        source (`str`): The paper.
    """

    cls: type[DepthSegEncoder]
    config_class: type[PreTrainedConfig]
    summary: str
    source: str


ENCODERS: dict[str, EncoderEntry] = {
    "depthseg_resnet": EncoderEntry(
        ResNetEncoder,
        DepthSegResNetConfig,
        "ResNet-18/34/50/101 in the Monodepth2 form: five maps at strides 2 to 32, any width.",
        "https://huggingface.co/papers/1806.01260",
    ),
    "dinov2": EncoderEntry(
        ViTBackboneEncoder,
        CONFIG_MAPPING["dinov2"],
        "DINOv2, the encoder of Depth Anything.",
        "https://huggingface.co/papers/2401.10891",
    ),
    "vit": EncoderEntry(
        ViTEncoder,
        CONFIG_MAPPING["vit"],
        "Plain ViT, the encoder of DPT.",
        "https://huggingface.co/papers/2103.13413",
    ),
}


def encoder_entry(model_type: str | None) -> EncoderEntry:
    """Return the row of an encoder type.

    Raises:
        ValueError: If there is no such encoder.
    """
    if model_type not in ENCODERS:
        raise ValueError(f"encoder_config.model_type is {model_type!r}; allowed are {', '.join(ENCODERS)}.")
    return ENCODERS[model_type]
