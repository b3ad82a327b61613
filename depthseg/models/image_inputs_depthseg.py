"""Images in any form, as RGB values on one scale.

The scale is that of 8-bit images, 0 to 255: images of 8 bits are uint8 on it, finer ones are float32.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor
from transformers.utils import logging

logger = logging.get_logger(__name__)

EIGHT_BITS = (0, 255)
SIXTEEN_BITS = (0, 65535)
CLIPPED_FRACTION = 0.05
"""A warning is given where more of the pixels of an image are outside the range."""

_URLS = ("http://", "https://", "data:image/")
_CHANNELS = (1, 3, 4)


def list_of_images(images: Any) -> list[Any]:
    """Take lists, nested or not, and batches of four dimensions apart into single images."""
    if isinstance(images, (list, tuple)):
        return [image for entry in images for image in list_of_images(entry)]
    return list(images) if getattr(images, "ndim", 0) == 4 else [images]


def rgb_values(image: Any, input_data_format: str | None = None) -> np.ndarray:
    """Return the pixel values of one image as they are.

    Args:
        image: `PIL.Image`, path, URL, or array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` of 1, 3 or 4 channels.
        input_data_format (`str`, *optional*): `"channels_first"` or `"channels_last"`. If left out, it is inferred
            from the shape; where both ends have 1, 3 or 4 entries, arrays have channels last and tensors first.

    Returns:
        `np.ndarray`: `(H, W, 3)`, a single channel repeated and an alpha channel dropped. uint8; of images of more
        than 8 bits another integer type or float32.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: For images of another type or layout, or with NaN.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(image)
    if isinstance(image, Image.Image):
        values, input_data_format, usual = pil_values(image), None, "channels_last"
    elif isinstance(image, Tensor):
        image = image.detach().cpu()
        values, usual = (image.float() if image.is_floating_point() else image).numpy(), "channels_first"
    else:
        values, usual = image, "channels_last"
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif":
        raise _wrong_form(values)
    if values.ndim not in (2, 3) or values.size == 0:
        raise _wrong_form(values)
    if values.dtype.kind == "b":
        values = values * np.uint8(255)
    elif values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise ValueError("An image holds NaN or infinite values; replace them with pixel values.")
    values = values[..., None] if values.ndim == 2 else _channels_last(values, input_data_format, usual)
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values[..., :3]


def open_image(place: str | os.PathLike[str]) -> Image.Image:
    """Read an image file, upright as its EXIF orientation says, from a path or an address.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read as an image.
    """
    source: Any = place
    try:
        if isinstance(place, str) and place.startswith(_URLS):
            # Not transformers' load_image: it cuts 16-bit values off at 255.
            with urlopen(place, timeout=60) as answer:
                source = BytesIO(answer.read())
        with Image.open(source) as image:
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no image file {place}.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{str(place)[:200]} cannot be read as an image: {error}.") from error


def pil_values(image: Image.Image) -> np.ndarray:
    """Return uint8 `(H, W, 3)`, or the values `(H, W)` of a grey image of more than 8 bits."""
    if image.mode == "F":
        return np.asarray(image)
    if not image.mode.startswith("I"):
        return np.asarray(image.convert("RGB"))
    values = np.asarray(image)
    # Pillow opens some 16-bit files as 32 bits.
    return values.astype(np.uint16) if 0 <= values.min() and values.max() <= SIXTEEN_BITS[1] else values


def _channels_last(values: np.ndarray, input_data_format: str | None, usual: str) -> np.ndarray:
    axes = {"channels_first": 0, "channels_last": 2}
    if input_data_format is not None and input_data_format not in axes:
        raise ValueError(f"input_data_format is {input_data_format!r}; allowed are {' and '.join(axes)}.")
    possible = [name for name, axis in axes.items() if values.shape[axis] in _CHANNELS]
    chosen = input_data_format or (usual if usual in possible or not possible else possible[0])
    if chosen not in possible:
        raise _wrong_form(values)
    return np.moveaxis(values, axes[chosen], 2)


def _wrong_form(image: Any) -> ValueError:
    what = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    return ValueError(
        f"An image is {what}; allowed are PIL images, paths, URLs, and arrays and tensors of pixel values (H, W), "
        "(H, W, C) or (C, H, W) with 1, 3 or 4 channels, or batches of them. The layout is inferred from the shape "
        "unless input_data_format says it."
    )


def check_value_range(value_range: Any) -> list[float]:
    """Return `[low, high]`, or raise a sentence if they are not two numbers in this order."""
    try:
        low, high = value_range
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"value_range is {value_range}; give [low, high], the pixel values of black and white, such as [0, 4095] "
            "for images of 12 bits."
        ) from None
    return [low, high]


def levels_of(values: np.ndarray, value_range: Any = None) -> np.ndarray:
    """Bring pixel values to the scale of 8-bit images.

    Args:
        values (`np.ndarray`): As `rgb_values` returns them.
        value_range (`list[float]`, *optional*): Values of black and white. If left out, the full range of the pixel
            type: 0 to 65535 for 16 bits, else 0 to 255. Images of 8 bits keep their scale where `high` is above 255,
            which they cannot hold.

    Returns:
        `np.ndarray`: uint8 where all levels are whole numbers, else float32 from 0 to 255.

    Raises:
        ValueError: For values that no range is known for.
    """
    if values.dtype == np.uint8 and (value_range is None or tuple(value_range) == EIGHT_BITS or value_range[1] > 255):
        return values
    if value_range is None:
        value_range = _usual_range(values)
        if value_range is None:
            return whole_levels(values)
    low, high = value_range
    outside = np.count_nonzero((values < low) | (values > high)) / values.size
    if outside > CLIPPED_FRACTION:
        logger.warning_once(
            f"More than {100 * CLIPPED_FRACTION:.0f} % of the pixels of an image are outside the value_range "
            f"[{low:g}, {high:g}] of the image processor and are clipped; set its value_range to that of the images."
        )
    levels = (values.astype(np.float64) - low) * (255 / (high - low))
    return whole_levels(np.clip(levels, 0, 255).astype(np.float32))


def whole_levels(levels: np.ndarray) -> np.ndarray:
    """Return uint8 where all levels are whole numbers of 8 bits: the same numbers as of the 8-bit image."""
    whole = np.rint(levels)
    if np.abs(levels - whole).max() > 1e-3 or whole.min() < 0 or whole.max() > 255:
        return levels
    return whole.astype(np.uint8)


def _usual_range(values: np.ndarray) -> tuple[int, int] | None:
    """Range of a pixel type that comes without one; `None` for floats, which are on the scale of 8 bits."""
    low, high = values.min(), values.max()
    if values.dtype == np.uint16:
        if 0 < high < 2**14:
            logger.warning_once(
                "An image of 16 bits uses less than a quarter of its range and the image processor has no "
                "value_range, so that it is dark; set value_range to the values of black and white, such as [0, 4095] "
                "for 12 bits."
            )
        return SIXTEEN_BITS
    if values.dtype.kind == "f":
        if 0 < np.abs([low, high]).max() <= 1:
            raise ValueError(
                f"An image is {values.dtype} with values from {low:g} to {high:g}, which are rescaled already; pass "
                "do_rescale=False, or value_range=[0, 1]."
            )
        return None
    if low < 0 or high > 255:
        raise ValueError(
            f"An image is {values.dtype} with values from {low} to {high}. Without value_range, 16-bit images are "
            "uint16 and other integers are levels from 0 to 255; set value_range to the values of black and white."
        )
    return EIGHT_BITS


def resize_values(values: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """Resize `(H, W, 3)` to width, height by Pillow's filter; floats are resized without rounding.

    Filters that overshoot stay within 0 to 255, or 0 to 1, or the values of the image where these go beyond.
    """
    if values.shape[1::-1] == size:
        return values
    if values.dtype == np.uint8:
        return np.asarray(Image.fromarray(values).resize(size, resample))
    channels = (Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(values, 2, 0))
    resized = np.dstack([np.asarray(channel.resize(size, resample)) for channel in channels])
    low, high = values.min(), values.max()
    return np.clip(resized, min(0, low), 1 if high <= 1 else max(255, high))
