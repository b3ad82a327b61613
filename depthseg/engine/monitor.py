"""What self-supervised training sees, as images: for TensorBoard and for panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .pictures import colourise_inverse_depth, colours_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

ERROR_COLOURMAP = "inferno"
ERROR_LIMIT = 0.25
"""Error that gets the brightest colour, as does all above: a fixed scale lets the images of a run be compared."""


def colourise_monitor(maps: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Paint the maps of one image that a self-supervised objective returns from `monitor`.

    Args:
        maps: Name -> tensor: `target` and `warped`, images `(3, H, W)` in [0, 1]; `disparity` `(H, W)`, in any unit;
            `error` `(H, W)`, from 0 to 1; `auto_mask` bool `(H, W)`.

    Returns:
        Name -> uint8 image `(H, W, 3)`. Disparity: near is bright, on a scale of its own. Error: black = 0, bright =
        0.25 and above. Mask: white = has a gradient. Where a map has no finite number its image is black.
    """
    return {name: PAINTERS[name](_as_array(values)) for name, values in maps.items()}


def colourise_error(error: np.ndarray) -> np.ndarray:
    """Paint an error map `(H, W)`: black is 0 (or no number), bright is 0.25 and above; uint8 `(H, W, 3)`."""
    return colours_of(ERROR_COLOURMAP, np.nan_to_num(error / ERROR_LIMIT, posinf=1.0))


def image_of(image: Tensor) -> np.ndarray:
    """An image `(3, H, W)` in [0, 1] as uint8 `(H, W, 3)`."""
    return _to_bytes(_as_array(image))


def _as_array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def _to_bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(np.nan_to_num(image), 0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)


PAINTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "target": _to_bytes,
    "warped": _to_bytes,
    "disparity": colourise_inverse_depth,
    "error": colourise_error,
    "auto_mask": lambda mask: np.repeat(np.uint8(255) * (mask > 0)[..., None], 3, axis=2),
}
