"""Joint geometry and colour changes of a sample for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from .sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

_JITTERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def resize_nearest(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize `(H, W)` ids or depths to `size` = (height, width) without ever mixing two values."""
    return np.array(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.NEAREST))


class TrainTransform:
    """Random crop, resize to one size, mirroring and colour changes.

    The three parts of a sample go through the same geometry: the image with an antialiased bilinear filter, labels
    and depth with the nearest pixel, so no id or depth is invented. The crop takes the same share of the height and
    of the width, so pictures are squeezed exactly as a processor that resizes whole images squeezes them.
    Depth values stay as they are: a crop that is enlarged is a longer focal length, not a nearer scene.

    Args:
        size: Height and width of the result.
        hflip: Probability of mirroring left and right.
        crop_scale: Range of the crop's share of the height and width, 0 < low <= high <= 1; (1, 1) = whole image.
        colour_jitter: Brightness, contrast and saturation are changed in random order, each by a factor drawn from
            [1 - j, 1 + j]; 0 <= j <= 1.

    Raises:
        ValueError: An option out of its range.
    """

    def __init__(
        self,
        size: Sequence[int],
        hflip: float = 0.5,
        crop_scale: Sequence[float] = (1.0, 1.0),
        colour_jitter: float = 0.0,
    ) -> None:
        self.size = tuple(size)
        self.hflip = hflip
        self.crop_scale = tuple(crop_scale)
        self.colour_jitter = colour_jitter
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size={list(self.size)} is not valid; give [height, width] in pixels, each at least 1.")
        if not 0 <= hflip <= 1:
            raise ValueError(f"hflip={hflip} is out of range; it is a probability from 0 to 1.")
        if len(self.crop_scale) != 2 or not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale={list(self.crop_scale)} must be [low, high] with 0 < low <= high <= 1.")
        if not 0 <= colour_jitter <= 1:
            raise ValueError(f"colour_jitter={colour_jitter} is out of range; it goes from 0 to 1.")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change a sample.

        Args:
            sample: Image `(H, W, 3)`, with labels and depth `(H, W)` or without.
            rng: The only source of randomness; every call draws the same number of values whatever the options are.
        """
        box = self._draw_box(sample.image.shape[:2], rng)
        mirrored = rng.random() < self.hflip
        picture = self._jitter(Image.fromarray(sample.image), rng)

        def warp(values: Image.Image, resampling: Image.Resampling) -> np.ndarray:
            height, width = self.size
            warped = np.array(values.resize((width, height), resampling, box=box))
            return np.ascontiguousarray(warped[:, ::-1]) if mirrored else warped

        maps = (
            None if values is None else warp(Image.fromarray(values), Image.Resampling.NEAREST)
            for values in (sample.labels, sample.depth)
        )
        labels, depth = maps
        return Sample(sample.name, warp(picture, Image.Resampling.BILINEAR), labels, depth)

    def _draw_box(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[float, float, float, float]:
        """A random crop as left, top, right, bottom in pixels."""
        low, high = self.crop_scale
        share = low + (high - low) * rng.random()
        top, left = (1 - share) * rng.random(2) * size
        height, width = share * size[0], share * size[1]
        # The sums may pass the border by a rounding error, which Pillow refuses.
        return left, top, min(left + width, size[1]), min(top + height, size[0])

    def _jitter(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        order = rng.permutation(len(_JITTERS))
        factors = 1 + self.colour_jitter * rng.uniform(-1, 1, len(_JITTERS))
        if self.colour_jitter == 0:
            return image
        for index in order:
            image = _JITTERS[index](image).enhance(factors[index])
        return image
