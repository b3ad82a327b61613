"""What is done to the pixels of a sample: a change of colours, and a geometry; with Pillow, or elsewhere later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
# What brightness, contrast and saturation mix an image with, from its luma: black, its mean, its grey image.
_MIXED_WITH = (lambda luma: np.zeros_like(luma), lambda luma: np.full_like(luma, luma.mean()), lambda luma: luma)
BRIGHTNESS, CONTRAST, SATURATION = range(3)


@dataclass(frozen=True)
class ColourChange:
    """Brightness, contrast and saturation changed one after the other, as Pillow's `ImageEnhance` changes them.

    Attributes:
        order: Which comes first, second and third: `BRIGHTNESS`, `CONTRAST`, `SATURATION`.
        factors: Of brightness, contrast and saturation; 1 = as it is.
    """

    order: tuple[int, int, int]
    factors: tuple[float, float, float]

    def of_image(self, image: Image.Image) -> Image.Image:
        """Change an image of mode RGB, to the very bytes of `ImageEnhance`."""
        for which in self.order:
            image = _enhanced(image, which, self.factors[which])
        return image

    def of_floats(self, values: np.ndarray) -> np.ndarray:
        """Change `(H, W, 3)` from 0 to 255 as Pillow changes bytes, without rounding."""
        for which in self.order:
            mixed_with = _MIXED_WITH[which](values @ _LUMA)[..., None]
            values = np.clip(mixed_with + np.float32(self.factors[which]) * (values - mixed_with), 0, 255)
        return values


@dataclass(frozen=True)
class Geometry:
    """A box of an image, resized, padded to one size and perhaps mirrored.

    Attributes:
        box: left, top, right, bottom in pixels, measured from the outer edges of the image.
        inner: Height and width that the box is resized to.
        size: Height and width of the result, padded at the right and bottom.
        mirrored: Whether left and right change places.
    """

    box: tuple[float, float, float, float]
    inner: tuple[int, int]
    size: tuple[int, int]
    mirrored: bool

    def map(self, values: np.ndarray | None, padding: int) -> np.ndarray | None:
        """Take ids or depths `(H, W)` from the nearest pixel."""
        return None if values is None else self.resample(Image.fromarray(values), Image.Resampling.NEAREST, padding)

    def intrinsics(self, values: np.ndarray | None) -> np.ndarray | None:
        """The `(3, 3)` of the camera that sees the result; a mirrored one lives in a mirrored scene."""
        if values is None:
            return None
        (height, width), (left, top, right, bottom) = self.inner, self.box
        sx, sy = width / (right - left), height / (bottom - top)
        # Edges go to edges, and pixel centres lie half a pixel beside them.
        move = np.array([[sx, 0.0, sx * (0.5 - left) - 0.5], [0.0, sy, sy * (0.5 - top) - 0.5], [0.0, 0.0, 1.0]])
        moved = move @ values
        if self.mirrored:
            flip = np.array([[-1.0, 0.0, self.size[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
            moved = flip @ moved @ np.diag([-1.0, 1.0, 1.0])
        return moved

    def resample(self, values: Image.Image, resampling: Image.Resampling, padding: int = 0) -> np.ndarray:
        """Bring an image into the geometry, with one of Pillow's filters and a value for what is padded."""
        height, width = self.inner
        warped = values.resize((width, height), resampling, box=self.box)
        if self.inner == self.size:
            return np.asarray(warped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else warped)
        pixels = np.asarray(warped)
        missing = [(0, whole - part) for whole, part in zip(self.size, self.inner, strict=True)]
        padded = np.pad(pixels, missing + [(0, 0)] * (pixels.ndim - 2), constant_values=padding)
        return np.ascontiguousarray(padded[:, ::-1]) if self.mirrored else padded


@dataclass(frozen=True)
class PixelChange:
    """What is done to an image: first its colours, then its geometry.

    Attributes:
        geometry: Where its pixels go.
        colours: What becomes of their colours; None = nothing.
    """

    geometry: Geometry
    colours: ColourChange | None = None

    def of(self, values: np.ndarray) -> np.ndarray:
        """Change `(H, W, 3)`, with an antialiased bilinear filter; floats are not rounded, the padding is black."""
        if values.dtype == np.uint8:
            image = Image.fromarray(values)
            image = self.colours.of_image(image) if self.colours else image
            return self.geometry.resample(image, Image.Resampling.BILINEAR)
        values = self.colours.of_floats(values) if self.colours else values
        channels = map(np.ascontiguousarray, np.moveaxis(values, -1, 0))
        resampled = (self.geometry.resample(Image.fromarray(one), Image.Resampling.BILINEAR) for one in channels)
        return np.dstack(list(resampled))


def _enhanced(image: Image.Image, which: int, factor: float) -> Image.Image:
    if which == SATURATION:
        return Image.blend(image.convert("L").convert("RGB"), image, factor)
    level = 0
    if which == CONTRAST:
        counts = np.array(image.convert("L").histogram())
        level = int(counts @ np.arange(256) / counts.sum() + 0.5)
    # Each byte is mixed with one level alone, so a table of what Pillow makes of all bytes does the same in less time.
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    return image.point(list(Image.blend(Image.new("L", ramp.size, level), ramp, factor).tobytes()) * 3)
