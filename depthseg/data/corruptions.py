"""Noise, blur, fog and dusk: images as a network meets them that was trained on clear ones.

Each has three strengths. Noise, blur and fog follow the standard corruption benchmark at its severities 1, 3 and 5,
with its constants; dusk is not part of it. `x` is the image in [0, 1]; results are cut to that and rounded to 8 bits:

- `noise`: `x + n`, with `n` normal of standard deviation 0.08, 0.18, 0.38, independent in each pixel and channel.
- `blur` (defocus): `x` convolved with a disk of radius 3, 6, 10, whose edge is smoothed by a Gaussian of standard
  deviation 0.1, 0.5, 0.5; the image is mirrored at its borders.
- `fog`: `(x + c f) m / (m + c)`, with `m` the maximum of `x`, `c` = 1.5, 2.5, 3, and clouds `f` in [0, 1]: a sum of
  random grids of 2, 4, 8, ... cells, interpolated linearly, each 1/2, 1/1.7, 1/1.4 as high as the one before. The
  benchmark displaces the midpoints of squares instead, with the same heights.
- `dusk`: `Poisson(p y) / p` of `y = g x^e`: exponent `e` = 1.5, 2, 2.5; gain `g` = 0.8, 0.6, 0.4; `p` = 60, 25, 12
  photons at full scale, which are those of the benchmark's shot noise at severities 1 to 3.

Lengths are in pixels of an image whose shorter side has 224 pixels, as those of the benchmark have, and grow with the
image. The random numbers depend on the kind of corruption and the name of the image alone: every network sees the
same images, and a higher strength is the same corruption, stronger.

Source:
    Hendrycks and Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
    and the constants of its published code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..choices import did_you_mean

if TYPE_CHECKING:
    from .label_spaces import LabelSpace
    from .sample import Sample, SampleDataset

STRENGTHS = (1, 2, 3)
SIDE = 224
"""Shorter side, in pixels, of the images whose lengths the constants are given in."""

PARTS = 8
"""A pixel of the disk is divided into so many rows and columns, as small images have disks of a few pixels."""

NOISE = (0.08, 0.18, 0.38)
BLUR = ((3, 0.1), (6, 0.5), (10, 0.5))
FOG = ((1.5, 2.0), (2.5, 1.7), (3.0, 1.4))
DUSK = ((1.5, 0.8, 60), (2.0, 0.6, 25), (2.5, 0.4, 12))


def corrupt(image: np.ndarray, name: str, kind: str, strength: int) -> np.ndarray:
    """Corrupt one image; see the head of this file.

    Args:
        image: uint8 `(H, W, 3)`, RGB.
        name: Of the image: the same name gives the same random numbers.
        kind: One of `CORRUPTIONS`.
        strength: 1 to 3.

    Returns:
        A new array of the same form.

    Raises:
        ValueError: Another form of image, an unknown kind or strength.
    """
    check_corruption(kind, strength)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"Image {name!r} is {image.dtype} of shape {image.shape}; noise, blur, fog and dusk are defined for RGB "
            "images of 8 bits (H, W, 3)."
        )
    seed = hashlib.sha256(f"{kind}/{name}".encode()).digest()
    generator = np.random.default_rng(np.frombuffer(seed, np.uint32))
    changed = CORRUPTIONS[kind](image / 255.0, strength - 1, generator)
    return np.rint(255 * np.clip(changed, 0, 1)).astype(np.uint8)


def check_corruption(kind: str, strength: int) -> None:
    """Raise a ValueError for an unknown kind or strength."""
    if kind not in CORRUPTIONS:
        raise ValueError(
            f"There is no corruption {kind!r}.{did_you_mean(kind, CORRUPTIONS)} There are {', '.join(CORRUPTIONS)}."
        )
    if strength not in STRENGTHS:
        raise ValueError(f"{kind} has the strengths {', '.join(map(str, STRENGTHS))}; {strength} was asked for.")


def read_corruption(text: str) -> tuple[str, int]:
    """Read `KIND:STRENGTH`, such as `fog:2`.

    Raises:
        ValueError: Another form, an unknown kind or strength.
    """
    kind, colon, strength = text.partition(":")
    if not (colon and strength.isdecimal()):
        raise ValueError(f"A corruption is written KIND:STRENGTH, such as fog:2; {text!r} was given.")
    check_corruption(kind, int(strength))
    return kind, int(strength)


class CorruptedImages:
    """A data set whose images are corrupted when they are read; labels, depth and all else stay as they are.

    Args:
        dataset: The clear images. What else it offers, so does this.
        kind: One of `CORRUPTIONS`.
        strength: 1 to 3.

    Raises:
        ValueError: An unknown kind or strength.
    """

    names: Sequence[str]
    label_space: LabelSpace | None

    def __init__(self, dataset: SampleDataset, kind: str, strength: int) -> None:
        check_corruption(kind, strength)
        self.dataset, self.kind, self.strength = dataset, kind, strength

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return replace(sample, image=corrupt(sample.image, sample.name, self.kind, self.strength))

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # asked for before it is set, as when a copy is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _noise(image: np.ndarray, level: int, generator: np.random.Generator) -> np.ndarray:
    return image + NOISE[level] * generator.standard_normal(image.shape)


def _blur(image: np.ndarray, level: int, generator: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter
    from scipy.signal import fftconvolve

    radius, smoothing = (length * min(image.shape[:2]) / SIDE for length in BLUR[level])
    reach = int(np.ceil(radius + 3 * smoothing))
    places = (np.arange((2 * reach + 1) * PARTS) + 0.5) / PARTS - reach - 0.5
    inside = np.add.outer(places**2, places**2) <= radius**2
    disk = inside.reshape(2 * reach + 1, PARTS, 2 * reach + 1, PARTS).mean((1, 3))
    disk = gaussian_filter(disk, smoothing, mode="constant")
    disk /= disk.sum()
    around = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    return fftconvolve(around, disk[..., None], mode="valid", axes=(0, 1))


def _fog(image: np.ndarray, level: int, generator: np.random.Generator) -> np.ndarray:
    thickness, decay = FOG[level]
    clouds = _clouds(image.shape[:2], decay, generator)[..., None]
    brightest = image.max()
    return (image + thickness * clouds) * brightest / (brightest + thickness)


def _clouds(size: tuple[int, int], decay: float, generator: np.random.Generator) -> np.ndarray:
    """`(H, W)` in [0, 1], cut from a square, so that clouds are as wide as they are high."""
    side, height, cells = max(size), 1.0, 2
    clouds = np.zeros(size)
    while cells <= side:
        grid = Image.fromarray(generator.random((cells, cells), dtype=np.float32))
        clouds += height * np.asarray(grid.resize((side, side), Image.Resampling.BILINEAR))[: size[0], : size[1]]
        height, cells = height / decay, 2 * cells
    spread = np.ptp(clouds)
    return (clouds - clouds.min()) / spread if spread else clouds


def _dusk(image: np.ndarray, level: int, generator: np.random.Generator) -> np.ndarray:
    exponent, gain, photons = DUSK[level]
    return generator.poisson(photons * gain * image**exponent) / photons


CORRUPTIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "blur": _blur,
    "fog": _fog,
    "dusk": _dusk,
}
"""Kind -> image in [0, 1], index of the strength and generator -> the corrupted image, not yet cut to [0, 1]."""
