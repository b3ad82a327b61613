"""The contract of an encoder: from an image of any size to a list of maps, shallow to deep.

Shape letters: B batch, H and W image size, C channels, N patches, P prefix (CLS) tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .encoders_layers_depthseg import enclosing, number_layers, parents

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class DryRun:
    """Properties of a backbone, from one forward pass on the meta device.

    Args:
        channels (`tuple[int, ...]`), strides (`tuple[float, ...]`): Of the maps, shallow to deep.
        num_prefix_tokens (`int`): Prefix tokens of the deepest map.
        unused (`tuple[frozenset[str], ...]`): Per map the names of the parameters that it does not depend on.
    """

    channels: tuple[int, ...]
    strides: tuple[float, ...]
    num_prefix_tokens: int
    unused: tuple[frozenset[str], ...]


# By the JSON of the encoder's configuration.
DRY_RUNS: dict[str, DryRun] = {}


@dataclass
class EncoderFeatures:
    """The output of an encoder and input of a head.

    Args:
        maps (`list[torch.Tensor]`): Maps of shape `(B, C_i, h_i, w_i)`, shallow to deep; `None` for one that was not
            kept because the head does not read it.
        prefix_tokens (`list[torch.Tensor | None]` or `None`): Per map the CLS and register tokens `(B, P, C_i)`, for
            heads that read them; `None` for convolutional maps and encoders.
        strides (`tuple[float, ...]`): Input pixels per map cell.
        input_size (`tuple[int, int]`): Height and width of the input image.
        padded_size (`tuple[int, int]`): Height and width after padding to the encoder's multiple; the maps cover it.
    """

    maps: list[Tensor]
    prefix_tokens: Sequence[Tensor | None] | None
    strides: tuple[float, ...]
    input_size: tuple[int, int]
    padded_size: tuple[int, int]

    def to(self, *args: Any, **kwargs: Any) -> EncoderFeatures:
        """Return the features on another device or in another type; arguments as of [`torch.Tensor.to`]."""

        def moved(tensors: Any) -> Any:
            """Move what there is."""
            return tensors and [None if tensor is None else tensor.to(*args, **kwargs) for tensor in tensors]

        return replace(self, maps=moved(self.maps), prefix_tokens=moved(self.prefix_tokens))

    @property
    def may_be_padded(self) -> bool:
        """Whether the maps cover more than the input image; `True` in export, where one graph serves every size."""
        return torch.compiler.is_exporting() or self.input_size != self.padded_size

    def to_input(self, decoded: Tensor) -> Tensor:
        """Resize a decoded map `(B, C, h, w)` of the padded image and crop it to the input image, `(B, C, H, W)`."""
        if decoded.shape[-2:] != self.padded_size:
            decoded = F.interpolate(decoded, size=self.padded_size, mode="bilinear", align_corners=False)
        return decoded[..., : self.input_size[0], : self.input_size[1]]


class DepthSegEncoder(nn.Module, ABC):
    """A backbone for any image size, with the channels and strides of its maps.

    The image is padded at the right and bottom, by replicating its border, to the multiple that the backbone requires.
    Channels, strides and the number of prefix tokens come from a dry run on the meta device, because the attributes
    that backbones declare are not always correct. For a backbone with one fixed size the image is resized to that size
    instead, with a warning; its maps then cover the input image.

    Attributes:
        backbone (`PreTrainedModel`): The bare backbone.
        channels (`list[int]`), strides (`tuple[float, ...]`): One entry per map, shallow to deep.
        num_prefix_tokens (`int`): Number of prefix tokens of a map.
        multiple (`int`): The image is padded to a multiple of it.
        fixed_size (`tuple[int, int]`, *optional*): The only height and width that the backbone supports.
        frozen (`bool`): Whether [`~DepthSegEncoder.freeze`] was called.
    """

    multiple = 1
    fixed_size: tuple[int, int] | None = None

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.frozen = False
        self.backbone = self.build_backbone(config)
        # Cached, because the meta device is slow: half the time of loading a small model.
        key = config.to_json_string(use_diff=False)
        if key not in DRY_RUNS:
            DRY_RUNS[key] = self.dry_run(config)
        self.channels = list(DRY_RUNS[key].channels)
        self.strides = DRY_RUNS[key].strides
        self.num_prefix_tokens = DRY_RUNS[key].num_prefix_tokens
        self.unused = DRY_RUNS[key].unused

    def dry_run(self, config: PreTrainedConfig) -> DryRun:
        """Run a copy of the backbone on the meta device, with gradients regardless of the caller's mode."""
        height, width = self.dry_run_size()
        with torch.device("meta"), torch.inference_mode(False), torch.enable_grad():
            backbone = self.build_on_meta(config)
            maps, prefix_tokens = self.extract(backbone, torch.zeros(1, 3, height, width))
        prefix = prefix_tokens[-1] if prefix_tokens else None
        return DryRun(
            channels=tuple(feature_map.shape[1] for feature_map in maps),
            strides=tuple(width / feature_map.shape[-1] for feature_map in maps),
            num_prefix_tokens=0 if prefix is None else prefix.shape[1],
            unused=tuple(unreached_parameters(backbone, feature_map) for feature_map in maps),
        )

    def build_on_meta(self, config: PreTrainedConfig) -> nn.Module:
        """Return a copy of the backbone that uses no memory."""
        with torch.device("meta"):
            # Moved as well, because some parameters are created on the CPU regardless of the device context.
            return self.build_backbone(config).to("meta").eval()

    def dry_run_size(self) -> tuple[int, int]:
        """Return the height and width of the image of a dry run."""
        side = self.multiple * -(-128 // self.multiple)
        return self.fixed_size or (side, side)

    @staticmethod
    def complete_config(config: PreTrainedConfig) -> None:
        """Check the configuration, and set the options of this encoder beyond the backbone's own defaults.

        Called when the model's configuration is created, so that a configuration is the same before and after saving.
        """

    @abstractmethod
    def build_backbone(self, config: Any) -> PreTrainedModel:
        """Return a new backbone with random weights."""

    @staticmethod
    @abstractmethod
    def extract(backbone: Any, pixel_values: Tensor) -> tuple[list[Tensor], Sequence[Tensor | None] | None]:
        """Return the maps `(B, C_i, h_i, w_i)` and prefix tokens `(B, P, C_i)` of a padded image `(B, 3, H, W)`."""

    def last_stage(self) -> tuple[nn.Module, int]:
        """Return new layers between the deepest map and its mean, which a classifier reads, and their channels.

        Some networks (MobileNetV2, EfficientNet) widen the map before the mean, which dense prediction does not need.
        """
        return nn.Identity(), self.channels[-1]

    def unused_parameters(self, maps_read: slice = slice(None)) -> list[nn.Parameter]:
        """Parameters of the backbone that no map depends on; distributed training would wait for their gradients.

        Examples are mask tokens, layers above the deepest map that is read, final norms that are not applied to any
        map, and parameters that the backbone itself freezes. They are found in the autograd graph of the dry run.

        Args:
            maps_read (`slice`, *optional*): Which maps the head reads; all without it. Swin and others have a separate
                norm for every map, which is unused if its map is.
        """
        names = frozenset.intersection(*self.unused[maps_read])
        return [parameter for name, parameter in self.backbone.named_parameters() if name in names]

    @cached_property
    def layer_numbers(self) -> tuple[dict[str, int], int]:
        """Layer of every module of the backbone, and the number of the last layer; see [`number_layers`]."""
        with torch.device("meta"):
            backbone = self.build_on_meta(self.backbone.config)
            image = torch.zeros(1, 3, *self.dry_run_size())
            return number_layers(backbone, lambda: self.extract(backbone, image))

    @property
    def num_layers(self) -> int:
        """Number of the last layer: one above the blocks (or stages), for the modules after them."""
        return self.layer_numbers[1]

    def layer_of(self, parameter_name: str) -> int:
        """Return the layer of a parameter, from 0 for the stem to `num_layers`, for layer-wise learning rates.

        Args:
            parameter_name (`str`): As in `named_parameters()` of this module, such as `backbone.conv1.weight`.

        Raises:
            ValueError: If the encoder has no such parameter.
        """
        try:
            self.get_parameter(parameter_name)
        except AttributeError as error:
            raise ValueError(f"The encoder has no parameter {parameter_name!r}.") from error
        owner = parents(parameter_name)[1].removeprefix("backbone").removeprefix(".")
        number = enclosing(owner, self.layer_numbers[0])  # an adapter is in the layer that it adapts
        assert number is not None, "the backbone itself has a number"
        return number

    def freeze(self) -> None:
        """Freeze parameters and norm statistics; a later `.train()` does not unfreeze them."""
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
        input_size = height, width = pixel_values.shape[-2], pixel_values.shape[-1]
        if self.fixed_size is not None:
            maps, prefix_tokens = self.extract(self.backbone, self.resize(pixel_values))
            return EncoderFeatures(maps, prefix_tokens, self.strides, input_size, input_size)
        pad_bottom, pad_right = -height % self.multiple, -width % self.multiple
        # An exported graph has to pad at any size, also where it was traced at one that needs none.
        if torch.compiler.is_exporting() or pad_bottom or pad_right:
            pixel_values = F.pad(pixel_values, (0, pad_right, 0, pad_bottom), mode="replicate")
        maps, prefix_tokens = self.extract(self.backbone, pixel_values)
        padded_size = (height + pad_bottom, width + pad_right)
        return EncoderFeatures(maps, prefix_tokens, self.strides, input_size, padded_size)

    @property
    def steady_side(self) -> int:
        """Smallest side of an image in pixels from which each layer computes the same graph, for export.

        Every map then has at least two rows and columns, also after a head has halved the maps of a plain transformer:
        heads pad maps of one in another way.
        """
        is_plain = len(self.strides) == 1 or self.strides[-1] == self.strides[-2]
        return 1 + int(max(self.strides)) * (3 if is_plain else 1)

    def resize(self, pixel_values: Tensor) -> Tensor:
        """Resize an image `(B, 3, H, W)` to the fixed size of the backbone, with one warning."""
        if tuple(pixel_values.shape[-2:]) == self.fixed_size:
            return pixel_values
        assert self.fixed_size is not None, "only images for a fixed size are resized"
        height, width = self.fixed_size
        if not torch.compiler.is_compiling():  # a compiled graph has no place for a message
            logger.warning_once(
                f"The encoder {self.backbone.config.model_type} supports only images of {height}x{width} pixels: "
                "images of other sizes are resized to this size, without keeping their aspect ratio."
            )
        # In float32, because antialiasing is not supported in half precision everywhere.
        resized = F.interpolate(pixel_values.float(), self.fixed_size, mode="bilinear", antialias=True)
        return resized.to(pixel_values.dtype)


def unreached_parameters(module: nn.Module, output: Tensor) -> frozenset[str]:
    """Return the names of the parameters that are not in the autograd graph of an output."""
    reached, seen = set(), set()
    pending = [output.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        reached.add(id(getattr(node, "variable", None)))
        pending.extend(source for source, _ in node.next_functions)
    return frozenset(name for name, parameter in module.named_parameters() if id(parameter) not in reached)


def unfold_tokens(tokens: list[Tensor], size: Sequence[int], patch_size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Split tokens `(B, P + N, C)` of an image of `size` into maps `(B, C, h, w)` and prefix tokens `(B, P, C)`."""
    height, width = size[0] // patch_size, size[1] // patch_size
    prefix = tokens[0].shape[1] - height * width
    maps = [layer[:, prefix:].transpose(1, 2).unflatten(2, (height, width)) for layer in tokens]
    return maps, [layer[:, :prefix] for layer in tokens]
