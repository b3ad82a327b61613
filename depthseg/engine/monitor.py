"""What self-supervised training sees, as images: for TensorBoard and for panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .pictures import colourise_inverse_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

ERROR_COLOURMAP = "inferno"
ERROR_LIMIT = 0.25
"""Error that gets the brightest colour, as does all above: a fixed scale lets the images of a run be compared."""


def colourise_monitor(maps: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Paint what a photometric objective saw of one image.

    Args:
        maps: Name -> tensor; leading dimensions of size 1 do not matter. A name is a kind, and if there are several
            of one kind `KIND/ANYTHING`. Kinds: `target`, `source` and `warped`, images `(3, H, W)` in [0, 1];
            `disparity` `(H, W)`, in any unit; `error` `(H, W)`, from 0 to 1; `auto_mask` bool `(H, W)`.

    Returns:
        Name -> uint8 image `(H, W, 3)`. Disparity: near is bright, on a scale of its own. Error: black = 0, bright =
        0.25 and above. Mask: white = teaches something. Where a map has no finite number its image is black.

    Raises:
        ValueError: A kind that does not exist, or a shape that does not fit it.
    """
    return {name: _paint(name, values) for name, values in maps.items()}


def colourise_error(error: np.ndarray) -> np.ndarray:
    """Paint an error map `(H, W)`: black is 0 (or no number), bright is 0.25 and above; uint8 `(H, W, 3)`."""
    share = np.clip(np.nan_to_num(np.asarray(error, np.float64), posinf=ERROR_LIMIT) / ERROR_LIMIT, 0.0, 1.0)
    import matplotlib

    return matplotlib.colormaps[ERROR_COLOURMAP](share, bytes=True)[..., :3]


def image_of(image: Tensor) -> np.ndarray:
    """An image `(3, H, W)` in [0, 1] as uint8 `(H, W, 3)`."""
    values = np.nan_to_num(image.detach().float().cpu().numpy())
    return np.rint(255 * np.clip(values, 0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)


def _paint(name: str, values: Tensor) -> np.ndarray:
    kind = name.split("/")[0]
    if kind not in PAINTERS:
        raise ValueError(f"There is no image of kind {kind!r}; choose from {', '.join(PAINTERS)}.")
    shape, paint = PAINTERS[kind]
    found = tuple(values.shape)
    while values.dim() > len(shape) and len(values) == 1:
        values = values[0]
    if values.dim() != len(shape) or (len(shape) == 3 and len(values) != 3):
        raise ValueError(f"The map {name!r} has shape {found}; expected ({', '.join(shape)}) of one image.")
    return paint(values)


def _as_array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _paint_mask(mask: Tensor) -> np.ndarray:
    return np.repeat(np.where(_as_array(mask) > 0, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)


IMAGE, MAP = ("3", "H", "W"), ("H", "W")
PAINTERS: dict[str, tuple[tuple[str, ...], Callable[[Tensor], np.ndarray]]] = {
    "target": (IMAGE, image_of),
    "source": (IMAGE, image_of),
    "warped": (IMAGE, image_of),
    "disparity": (MAP, lambda disparity: colourise_inverse_depth(_as_array(disparity))),
    "error": (MAP, lambda error: colourise_error(_as_array(error))),
    "auto_mask": (MAP, _paint_mask),
}
"""Kind -> shape and how it is painted."""
