"""Colours for classes that people with any kind of colour vision can tell apart."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Colour = tuple[int, int, int]

OKABE_ITO: tuple[Colour, ...] = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167)),
    *((86, 180, 233), (213, 94, 0), (240, 228, 66)),
)
"""The colours of Okabe and Ito, 2008, without black, which stands for ignored pixels."""

DEFICIENCIES = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": (
        *((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413)),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""What becomes of linear RGB in each of the three.

Source: Machado, Oliveira and Fernandes 2009, severity 1.0.
"""

# Of linear RGB to XYZ, relative to the white of sRGB.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_LEVELS = (0, 36, 73, 109, 146, 182, 219, 255)
# Darker ones could be taken for black, which is for ignored pixels, and change a dark image by nothing.
_LEAST_LIGHTNESS = 25.0


@lru_cache
def safe_palette(num_classes: int) -> tuple[Colour, ...]:
    """Colours for classes that come without: those of Okabe and Ito, then what differs most from all before.

    Differences are measured in CIELAB, as the least of normal vision and of the three kinds of dichromacy. No colour
    is black or nearly so.

    Args:
        num_classes: Number of colours, 1 to 256.
    """
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), -1).reshape(-1, 3)
    colours = np.concatenate([OKABE_ITO, grid[lab(grid)[:, 0] >= _LEAST_LIGHTNESS]])
    seen = np.stack([lab(seen_with(colours, kind)) for kind in (None, *DEFICIENCIES)])
    chosen = list(range(len(OKABE_ITO)))
    nearest = np.min([_distances(seen, index) for index in chosen], axis=0)
    while len(chosen) < num_classes:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(seen, chosen[-1]))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours[chosen[:num_classes]])


def visible(palette: tuple[Colour, ...]) -> tuple[Colour, ...]:
    """A palette in which no class is black, as ignored pixels are: greys that no other class has are put there."""
    greys = (
        (level, level, level) for level in (128, 96, 160, 112, 144, 80, 176, 104, 120, 136, 152, 168, 88, 184, 72, 192)
    )
    free = (grey for grey in greys if grey not in palette)
    return tuple(next(free) if max(colour) == 0 else colour for colour in palette)


def seen_with(colours: np.ndarray, deficiency: str | None) -> np.ndarray:
    """Colours `(N, 3)`, 0 to 255, as seen with a key of `DEFICIENCIES`; None = with normal colour vision."""
    if deficiency is None:
        return np.asarray(colours, float)
    linear = _linear(colours) @ np.array(DEFICIENCIES[deficiency]).T
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def lab(colours: np.ndarray) -> np.ndarray:
    """CIELAB `(N, 3)` (D65) of sRGB colours `(N, 3)`, 0 to 255."""
    shares = (_linear(colours) @ _XYZ.T) / _XYZ.sum(1)
    bent = np.where(shares > (6 / 29) ** 3, np.cbrt(shares), shares / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = bent.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _linear(colours: np.ndarray) -> np.ndarray:
    shares = np.asarray(colours, float) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def _distances(seen: np.ndarray, index: int) -> np.ndarray:
    """Least distance of each colour from one of them, over the kinds of vision; `seen` is `(kinds, N, 3)`."""
    return np.linalg.norm(seen - seen[:, index, None], axis=2).min(0)
