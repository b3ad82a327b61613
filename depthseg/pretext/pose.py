"""Networks that estimate the camera motion between two images, and the focal length.

They are used only in self-supervised training and are not saved with the depth network.

Shape letters: B batch, C channels, H and W image size, h and w size of the deepest map.

Source: Godard et al. 2019 (Monodepth2), https://huggingface.co/papers/1806.01260, section 3 and supplementary
material; Zhou et al. 2017 (PoseCNN), https://huggingface.co/papers/1704.07813; Gordon et al. 2019 (learned
intrinsics), https://huggingface.co/papers/1904.04998.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..choices import POSE_NETWORKS
from ..models import DepthSegResNet, DepthSegResNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DECODER_CHANNELS = 256

ROTATION_UNIT = 0.02
"""Radians of a raw output of 1: small, so that the initial motion is near zero."""

TRANSLATION_UNIT = 0.01
"""Translation of a raw output of 1, in units of depth. With a larger unit the direction of motion is too unstable to
supervise depth."""

INVERSE_SOFTPLUS_OF_1 = 0.5413248546129181


class PoseNetwork(nn.Module, ABC):
    """Estimates the camera motion from two images in temporal order.

    Attributes:
        reads_maps: Whether its inputs are the deepest maps of the depth encoder instead of images.
        channels: C of `see`.
    """

    reads_maps = False
    channels: int

    @abstractmethod
    def see(self, first: Tensor, second: Tensor) -> Tensor:
        """Joint features `(B, C, h, w)` of both images `(B, 3, H, W)` (or maps)."""

    @abstractmethod
    def decode(self, seen: Tensor) -> Tensor:
        """Raw motion, `(B, 6, h, w)`."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Estimate the motion from the axes of the first camera to those of the second.

        Args:
            first: `(B, 3, H, W)` as the image processor makes them, or deepest maps `(B, C, h, w)`.
            second: The same for the later image.

        Returns:
            Rotation `(B, 3)` as axis times angle in radians, translation `(B, 3)` up to scale, and the joint features
            averaged over the image, `(B, C)`.
        """
        seen = self.see(first, second)
        motion = self.decode(seen).float().mean((2, 3))
        return motion[:, :3] * ROTATION_UNIT, motion[:, 3:] * TRANSLATION_UNIT, seen.float().mean((2, 3))


class MotionDecoder(nn.Sequential):
    """Monodepth2's convolutions from squeezed maps `(B, 256 n, h, w)` to raw motion `(B, 6, h, w)`."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, DECODER_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(DECODER_CHANNELS, DECODER_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(DECODER_CHANNELS, 6, 1),
        )


class SeparatePose(PoseNetwork):
    """A separate ResNet on both images, concatenated to six channels.

    Args:
        encoder: Options of `DepthSegResNetConfig`, such as `depth` and `width_factor`.
    """

    def __init__(self, encoder: Mapping[str, Any]) -> None:
        super().__init__()
        config = DepthSegResNetConfig(**{**encoder, "num_channels": 6})
        self.encoder = DepthSegResNet(config)
        self.channels = config.stage_widths[-1] * (4 if config.depth >= 50 else 1)
        self.squeeze = nn.Conv2d(self.channels, DECODER_CHANNELS, 1)
        self.decoder = MotionDecoder(DECODER_CHANNELS)

    def see(self, first: Tensor, second: Tensor) -> Tensor:
        """The deepest map of the ResNet."""
        return self.encoder(torch.cat([first, second], 1))[-1]

    def decode(self, seen: Tensor) -> Tensor:
        """Squeeze and decode."""
        return self.decoder(F.relu(self.squeeze(seen)))


class SharedPose(PoseNetwork):
    """The deepest maps of the depth encoder for both images, decoded together.

    Args:
        channels: Channels of the encoder's deepest map.
    """

    reads_maps = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, DECODER_CHANNELS, 1)
        self.channels = 2 * DECODER_CHANNELS
        self.decoder = MotionDecoder(self.channels)

    def see(self, first: Tensor, second: Tensor) -> Tensor:
        """Both maps, squeezed and concatenated along the channels."""
        return torch.cat([F.relu(self.squeeze(deepest)) for deepest in (first, second)], 1)

    def decode(self, seen: Tensor) -> Tensor:
        """Decode."""
        return self.decoder(seen)


class PoseCNN(PoseNetwork):
    """Seven strided convolutions on both images."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 256
        widths, kernels = (6, 16, 32, 64, 128, 256, 256, 256), (7, 5, 3, 3, 3, 3, 3)
        layers = []
        for kernel, before, after in zip(kernels, widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, kernel, 2, kernel // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.last = nn.Conv2d(self.channels, 6, 1)

    def see(self, first: Tensor, second: Tensor) -> Tensor:
        """The last convolution's map."""
        return self.layers(torch.cat([first, second], 1))

    def decode(self, seen: Tensor) -> Tensor:
        """One 1x1 convolution."""
        return self.last(seen)


def build_pose_network(name: str, encoder: Mapping[str, Any], deepest_channels: int) -> PoseNetwork:
    """Create a pose network.

    Args:
        name: One of `POSE_NETWORKS`.
        encoder: ResNet options of `separate`.
        deepest_channels: Channels of the depth encoder's deepest map, for `shared`.

    Raises:
        ValueError: An unknown name.
    """
    if name not in POSE_NETWORKS:
        raise ValueError(f"pose_network is {name!r}; choose one of: {', '.join(POSE_NETWORKS)}.")
    if name == "separate":
        return SeparatePose(encoder)
    if name == "shared":
        return SharedPose(deepest_channels)
    return PoseCNN()


class LearnedCamera(nn.Module):
    """Intrinsics of uncalibrated cameras: the focal length is a trained parameter, the principal point is the centre.

    The focal length can be estimated only if the camera rotates: in straight motion it is ambiguous with depth and
    speed. Gordon et al. train both focal lengths and the principal point. Here the pixels of the video are assumed to
    be square, because cars hardly pitch and the vertical focal length could not be estimated, and the principal point
    is assumed to be the centre, as in Monodepth2.

    Args:
        channels: Channels of the joint features of a pose network, to estimate a focal length for each image; None =
            all images are from one camera, whose focal length is one parameter.
        pixel_aspect: Vertical divided by horizontal focal length at the training size; not 1 if resizing changes the
            aspect ratio.
    """

    def __init__(self, channels: int | None = None, pixel_aspect: float = 1.0) -> None:
        super().__init__()
        self.pixel_aspect = pixel_aspect
        self.per_image = channels is not None
        if self.per_image:
            self.layer = nn.Linear(channels, 1)
            # The initial focal length of every image is its width.
            nn.init.zeros_(self.layer.weight)
            nn.init.constant_(self.layer.bias, INVERSE_SOFTPLUS_OF_1)
        else:
            self.raw_focal = nn.Parameter(torch.full((1,), INVERSE_SOFTPLUS_OF_1))

    def forward(self, seen: Tensor, size: tuple[int, int]) -> Tensor:
        """Estimate intrinsics.

        Args:
            seen: `(B, C)`, joint features of a pose network.
            size: Height and width of the images.

        Returns:
            `(B, 3, 3)`, pixels.
        """
        raw = self.layer(seen)[:, 0] if self.per_image else self.raw_focal.expand(len(seen))
        return self.with_focal(F.softplus(raw.float()), size)

    def assume(self, images: Tensor) -> Tensor:
        """Initial intrinsics `(B, 3, 3)` of images `(B, C, H, W)`: a focal length of one image width."""
        return self.with_focal(images.new_ones(len(images), dtype=torch.float32), tuple(images.shape[-2:]))

    def with_focal(self, share: Tensor, size: tuple[int, int]) -> Tensor:
        """Intrinsics `(B, 3, 3)` in pixels for focal lengths `(B,)` in image widths."""
        height, width = size
        focal = share * width
        zero, one = torch.zeros_like(focal), torch.ones_like(focal)
        rows = [
            [focal, zero, one * ((width - 1) / 2)],
            [zero, focal * self.pixel_aspect, one * ((height - 1) / 2)],
            [zero, zero, one],
        ]
        return torch.stack([torch.stack(row, -1) for row in rows], 1)
