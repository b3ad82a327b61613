"""Networks that see how the camera moved between two pictures, and what its focal length is.

They serve self-supervised training alone and stay behind when it is over: only the depth network is kept.

Shape letters: B batch, C channels, H and W picture size, h and w size of the deepest map.

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
"""Radians of a raw output of 1: so networks begin near standstill."""

TRANSLATION_UNIT = 0.01
"""Share of the depth of a raw output of 1. With a larger one the direction of motion is never steady enough for depth
to be learned from it."""

INVERSE_SOFTPLUS_OF_1 = 0.5413248546129181


class PoseNetwork(nn.Module, ABC):
    """From two pictures, in the order in which they were taken, to the motion of the camera.

    Attributes:
        reads_maps: Whether it reads the depth encoder's deepest maps in place of pictures.
        channels: C of `see`.
    """

    reads_maps = False
    channels: int

    @abstractmethod
    def see(self, first: Tensor, second: Tensor) -> Tensor:
        """What both pictures `(B, 3, H, W)` (or maps) show together, `(B, C, h, w)`."""

    @abstractmethod
    def decode(self, seen: Tensor) -> Tensor:
        """Raw motion, `(B, 6, h, w)`."""

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Estimate the motion from the axes of the first camera to those of the second.

        Args:
            first: `(B, 3, H, W)` as the image processor makes them, or deepest maps `(B, C, h, w)`.
            second: The same of the later picture.

        Returns:
            Rotation `(B, 3)` as axis times angle in radians, translation `(B, 3)` up to scale, and what was seen,
            averaged over the picture, `(B, C)`.
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
    """A ResNet of its own on both pictures, one behind the other in six channels.

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
    """The depth encoder's deepest maps of both pictures, decoded together.

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
        """Both maps, squeezed, side by side in the channels."""
        return torch.cat([F.relu(self.squeeze(deepest)) for deepest in (first, second)], 1)

    def decode(self, seen: Tensor) -> Tensor:
        """Decode."""
        return self.decoder(seen)


class PoseCNN(PoseNetwork):
    """Seven strided convolutions on both pictures."""

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
    """Make a pose network.

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
    """Intrinsics of cameras that nobody calibrated: the focal length is learned, the centre is that of the picture.

    The focal length can be told from motion only where the camera turns: in a straight drive it trades off against
    depth and speed. Gordon et al. learn both focal lengths and the centre; here pixels of the video are taken for
    square, because cars hardly pitch, so nothing would tell the vertical focal length, and the centre for centred,
    as Monodepth2 does.

    Args:
        channels: Channels of what a pose network sees, to estimate a focal length for each picture from it; None =
            all pictures come from one camera, whose focal length is one parameter.
        pixel_aspect: Vertical by horizontal focal length at the training size; other than 1 where pictures are
            resized to another aspect.
    """

    def __init__(self, channels: int | None = None, pixel_aspect: float = 1.0) -> None:
        super().__init__()
        self.pixel_aspect = pixel_aspect
        self.per_picture = channels is not None
        if self.per_picture:
            self.layer = nn.Linear(channels, 1)
            # Begins with the same focal length for every picture: as long as the picture is wide.
            nn.init.zeros_(self.layer.weight)
            nn.init.constant_(self.layer.bias, INVERSE_SOFTPLUS_OF_1)
        else:
            self.raw_focal = nn.Parameter(torch.full((1,), INVERSE_SOFTPLUS_OF_1))

    def forward(self, seen: Tensor, size: tuple[int, int]) -> Tensor:
        """Estimate intrinsics.

        Args:
            seen: `(B, C)`, from a pose network.
            size: Height and width of the pictures.

        Returns:
            `(B, 3, 3)`, pixels.
        """
        raw = self.layer(seen)[:, 0] if self.per_picture else self.raw_focal.expand(len(seen))
        return self.with_focal(F.softplus(raw.float()), size)

    def assume(self, pictures: Tensor) -> Tensor:
        """Intrinsics `(B, 3, 3)` of pictures `(B, C, H, W)` before anything is learned: as long as they are wide."""
        return self.with_focal(pictures.new_ones(len(pictures), dtype=torch.float32), tuple(pictures.shape[-2:]))

    def with_focal(self, share: Tensor, size: tuple[int, int]) -> Tensor:
        """Intrinsics `(B, 3, 3)` of focal lengths `(B,)` in widths of pictures of a size."""
        height, width = size
        focal = share * width
        zero, one = torch.zeros_like(focal), torch.ones_like(focal)
        rows = [
            [focal, zero, one * ((width - 1) / 2)],
            [zero, focal * self.pixel_aspect, one * ((height - 1) / 2)],
            [zero, zero, one],
        ]
        return torch.stack([torch.stack(row, -1) for row in rows], 1)
