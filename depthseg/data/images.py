"""Reading images, label maps and depth maps from files, on disk or in memory.

Every file that cannot be used is refused in one sentence that names it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .decoded import Decoded, decoded_once, once
from .depth_formats import DEPTH_FORMATS, check_depth_format, metres_of
from .float_maps import FLOAT_SUFFIXES, read_float_map
from .label_encoding import distinct
from .memory_file import MemoryFile, as_file

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a pixel value that cameras and scanners store in 16."""

CHANNELS = {"red": "R", "green": "G", "blue": "B", "alpha": "A"}
"""Channels of a colour image, with their letters in Pillow's modes."""

KITTI_DEPTH_SCALE = 256.0
"""File units per metre in KITTI's 16-bit depth maps."""

DISPARITY_FORMATS = {"kitti": 0, "cityscapes": 1}
"""Format of 16-bit disparity maps -> what is taken off a value before it is divided by 256; 0 is unknown in both."""

# Pillow picks a decoder by the content of a file, and others of its decoders start external programs.
_ALTERING_FORMATS = ("JPEG", "MPO", "WEBP")
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # of EXIF
# Bits of TIFF's tag NewSubfileType: a page that is a smaller copy of another page, or its mask.
_SUBFILE_TYPE, _COPY_OR_MASK = 254, 0b101
# Pillow stretches packed grey images (2 and 4 bits a pixel) to the full byte range; these factors give the ids back.
_PACKED_GREY_FACTORS = {"L;2": 85, "L;4": 17}
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, struct.error)


def read_image(path: str | Path | MemoryFile) -> np.ndarray:
    """Read a photograph, upright; see `read_oriented_image`."""
    return read_oriented_image(path)[0]


def read_oriented_image(path: str | Path | MemoryFile, upright: bool = True) -> tuple[np.ndarray, int]:
    """Read a photograph, and how it was held.

    Palette and CMYK images are converted to RGB, a grey image of 8 bits is repeated, an alpha channel is dropped, and
    the EXIF orientation is applied, unless `upright` is False. Grey images of more than 8 bits keep their values: the
    image processor of a network scales them, by its `value_range`. Colour images of 16 bits come with 8, the upper
    byte of every value, as Pillow reads them.

    Returns:
        uint8 `(H, W, 3)`, RGB; of grey images uint16 `(H, W)` if they have more than 8 bits, and float32 `(H, W)` if
        they have floating-point values. And the EXIF orientation, 1 to 8, of the file: 1 = as stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, is truncated, is too large, holds several images, values below 0 or above
            65535, or NaN.
    """
    return once(read_oriented_image, path, (upright,), lambda: _decode_image(path, upright))


def bit_depth_of(largest: float) -> int:
    """The smallest of 8, 10, 12, 14 and 16 bits that holds a pixel value, 0 <= `largest` <= 65535."""
    return next(bits for bits in BIT_DEPTHS if largest < 2**bits)


def image_mode(path: str | Path) -> str | None:
    """Pillow's mode of an image file, from its header alone; None if the file is no image that is read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return image.mode
    except (*_DECODING_ERRORS, Image.DecompressionBombError):
        return None


def image_size(path: str | Path) -> tuple[int, int] | None:
    """Height and width of an image held upright, from its header alone; None if it is no image that is read."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            turned = image.getexif().get(_ORIENTATION, 1) in range(5, 9)
            return image.size if turned else image.size[::-1]
    except (*_DECODING_ERRORS, Image.DecompressionBombError):
        return None


def read_grey_range(path: str | Path) -> tuple[int, int]:
    """Lowest and highest value of an image of 16-bit grey values, as stored."""
    values = np.asarray(_load(path))
    return int(values.min()), int(values.max())


def read_thumbnail(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Read the grey values of an image, shrunk by averaging; quick for JPEG, which is decoded at an eighth.

    Args:
        path: The file.
        size: Width and height of the thumbnail.

    Returns:
        float32 `(height, width)`, in the units of the file.

    Raises:
        FileNotFoundError, ValueError: As `read_image`.
    """
    image = _load(path, least_size=size)
    wide = image.mode[0] in "IF"
    grey = Image.fromarray(np.asarray(image, np.float32)) if wide else image.convert("L")
    return np.asarray(grey.resize(size, Image.Resampling.BOX), np.float32)


@decoded_once
def read_labels(path: str | Path | MemoryFile, channel: str | None = None) -> np.ndarray:
    """Read a map of class ids: grey values (8 or 16 bits) or palette indices, never colours.

    Args:
        path: The file.
        channel: The channel of a colour image that holds the ids, one of `CHANNELS`; None = it is no colour image.

    Returns:
        Integer `(H, W)`, as stored; `check_ids` judges the range.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, is truncated, holds colours or floating-point values, or has no such
            channel.
    """
    image = _load(path)
    if image.info["format"] in _ALTERING_FORMATS:
        raise ValueError(
            f"{path} is a {image.info['format']} file, whatever its name says: the format alters class ids, and a "
            "conversion does not bring them back. Export label maps as PNG again."
        )
    if channel is not None:
        return _read_channel(path, image, channel)
    if image.mode == "F":
        raise ValueError(f"{path} holds floating-point values, but a label map holds whole numbers, one id a pixel.")
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(
            f"{path} is a colour image (mode {image.mode}), but a label map holds one class id a pixel. "
            "Save it as a single-channel PNG of ids or as a palette PNG."
        )
    ids = np.array(image)
    return ids.astype(np.uint8) // _PACKED_GREY_FACTORS.get(image.info["packing"], 1) if ids.itemsize == 1 else ids


def _decode_image(path: str | Path | MemoryFile, upright: bool) -> Decoded:
    image = _load(path, upright=upright)
    orientation = image.info["orientation"]
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{path} holds grey values from {values.min()} to {values.max()}; an image has 8 or 16 bits. "
                "Save it as a PNG or TIFF of 16 bits without sign."
            )
        return values.astype(np.uint16), orientation
    if image.mode == "F":
        values = np.array(image)
        if not np.isfinite(values).all():
            raise ValueError(f"{path} holds NaN or infinite values; replace them with pixel values.")
        return values, orientation
    return np.array(image.convert("RGB")), orientation


def _read_channel(path: str | Path | MemoryFile, image: Image.Image, channel: str) -> np.ndarray:
    letter = CHANNELS[channel]
    if image.mode not in ("RGB", "RGBA") or letter not in image.mode:
        raise ValueError(
            f"{path} has no {channel} channel, its mode is {image.mode}; check the option label_channel, and leave it "
            "out where label maps have a single channel."
        )
    return np.array(image.getchannel(letter))


@decoded_once
def read_colours(path: str | Path) -> np.ndarray:
    """Read a colour mask; an alpha channel is dropped, palette indices become their colours.

    Returns:
        uint8 `(H, W, 3)`, RGB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, is truncated, or has more than 8 bits a channel.
    """
    image = _load(path)
    if image.mode[0] in "IF":
        raise ValueError(f"{path} has mode {image.mode}, but a colour mask has 8 bits a channel.")
    return np.array(image.convert("RGB"))


def read_palette(path: str | Path) -> tuple[tuple[int, int, int], ...] | None:
    """Colours of a palette image in index order; None if the image has no palette."""
    image = _load(path)
    if image.mode != "P":
        return None
    values = image.getpalette("RGB") or []
    return tuple(zip(values[0::3], values[1::3], values[2::3], strict=True))


@decoded_once
def read_depth(
    path: str | Path | MemoryFile, scale: float = KITTI_DEPTH_SCALE, depth_format: str = "scaled"
) -> np.ndarray:
    """Read a depth map: a 16-bit PNG, TIFF or PGM, or metres as floating-point TIFF, NumPy or PFM.

    Args:
        path: The file.
        scale: Units of 16-bit files per metre, for the format `scaled`.
        depth_format: What the values of 16-bit files mean, one of `DEPTH_FORMATS`.

    Returns:
        float32 `(H, W)`, metres, 0 = unknown; NaN and infinite values of the file are unknown as well.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An unknown format; a file that is damaged, holds another kind of values, or negative ones.
    """
    check_depth_format(depth_format)
    values = _read_numbers(path, f"a depth map is a 16-bit single-channel image {DEPTH_FORMATS[depth_format]}")
    return values if values.dtype == np.float32 else metres_of(path, values, scale, depth_format)


@decoded_once
def read_disparity(path: str | Path, png_format: str = "kitti") -> np.ndarray:
    """Read a disparity map: a 16-bit PNG or TIFF, or pixels as floating-point TIFF, NumPy or PFM.

    Args:
        path: The file.
        png_format: Meaning of a 16-bit value p: `kitti` = p / 256, `cityscapes` = (p - 1) / 256.

    Returns:
        float32 `(H, W)`, pixels, 0 = unknown; NaN and infinite values of the file are unknown as well.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An unknown format; a file that is damaged, holds another kind of values, or negative ones.
    """
    if png_format not in DISPARITY_FORMATS:
        raise ValueError(
            f"Disparity format {png_format!r} is not known; choose one of {', '.join(DISPARITY_FORMATS)}."
        )
    values = _read_numbers(path, "a disparity map is a 16-bit single-channel image of pixels x 256")
    if values.dtype == np.float32:
        return values
    return (np.maximum(values - DISPARITY_FORMATS[png_format], 0) / 256).astype(np.float32)


def depth_from_disparity(disparity: np.ndarray, focal_times_baseline: float) -> np.ndarray:
    """Depth of a rectified pair: `focal_times_baseline` (pixels x metres) / disparity, 0 where that is 0."""
    known = disparity > 0
    return np.where(known, focal_times_baseline / np.where(known, disparity, 1), 0).astype(np.float32)


def check_ids(path: str | Path, ids: np.ndarray, count: int, ignore_index: int | None = 255) -> None:
    """Refuse a label map that holds anything but 0..count-1 and `ignore_index`.

    Raises:
        ValueError: Names the file, the ids and the range.
    """
    if wrong := [value for value in distinct(ids) if not 0 <= value < count and value != ignore_index]:
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        allowed = f"0 to {count - 1}" + ("" if ignore_index is None else f", and {ignore_index} for ignored pixels")
        raise ValueError(f"{path} holds class ids outside the label space: {shown}. Allowed are {allowed}.")


def check_same_size(image_path: str | Path, image: np.ndarray, other_path: str | Path, other: np.ndarray) -> None:
    """Refuse a label or depth map of another size than its image.

    Raises:
        ValueError: Names both files and both sizes.
    """
    if image.shape[:2] != other.shape[:2]:
        raise ValueError(
            f"{other_path} is {other.shape[1]}x{other.shape[0]} pixels, but its image {image_path} is "
            f"{image.shape[1]}x{image.shape[0]}; they must have the same width and height."
        )


def _read_numbers(path: str | Path | MemoryFile, expected: str) -> np.ndarray:
    """`(H, W)`: float32 with 0 = unknown from a file of floating-point numbers, int32 from an image of 16 bits."""
    if as_file(path).suffix.lower() in FLOAT_SUFFIXES:
        return without_unknown(path, read_float_map(path))
    image = _load(path)
    if image.mode == "F":
        return without_unknown(path, np.asarray(image))
    if not image.mode.startswith("I"):
        raise ValueError(f"{path} has mode {image.mode}, but {expected} with 0 = unknown.")
    values = np.asarray(image).astype(np.int32)
    if values.min() < 0:
        raise ValueError(f"{path} holds negative values, the lowest is {values.min()}; {expected} with 0 = unknown.")
    return values


def without_unknown(path: str | Path | MemoryFile, values: np.ndarray) -> np.ndarray:
    """Floating-point values with 0 where they are NaN or infinite.

    Raises:
        ValueError: Negative values; the message names the file.
    """
    known = np.isfinite(values)
    if (values[known] < 0).any():
        raise ValueError(
            f"{path} holds negative values, the lowest is {values[known].min():g}; write 0, NaN or infinity where "
            "nothing is known."
        )
    return np.where(known, values, 0)


def _load(
    path: str | Path | MemoryFile, least_size: tuple[int, int] | None = None, upright: bool = True
) -> Image.Image:
    """Decode an image file; `info` has the pixel `packing` of the file and its EXIF `orientation`.

    With `least_size` (width and height) a JPEG may come out smaller and grey, but not below that size.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            packing = image.tile[0][3] if image.tile else None
            pages = _count_pages(image)
            if least_size is not None:
                image.draft("L", least_size)
            image.load()
            orientation = image.getexif().get(_ORIENTATION, 1)
            loaded = ImageOps.exif_transpose(image) if upright else image
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{path} is not an image that can be read (or is empty); save it as PNG, JPEG, TIFF, WebP or BMP."
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{path} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, the most that are read, since a "
            "small file can unfold to more than the memory holds. Resize it or cut it into tiles."
        ) from None
    except _DECODING_ERRORS as error:
        raise ValueError(f"{path} is truncated or damaged and cannot be decoded: {error}.") from error
    if pages > 1:
        raise ValueError(
            f"{path} holds {pages} images (an animation or several pages), and which one is meant cannot be told. "
            "Save each of them as its own file."
        )
    # Compressed and tiled files have more to say than the packing, which comes first.
    packing = packing[0] if isinstance(packing, tuple) and packing else packing
    loaded.info["packing"] = packing[:3] if isinstance(packing, str) else None
    loaded.info["format"] = image.format
    loaded.info["orientation"] = orientation if orientation in range(1, 9) else 1
    return loaded


def _count_pages(image: Any) -> int:
    """How many images a file holds, without smaller copies and masks; the first one is the current one after it."""
    if image.format == "MPO" or getattr(image, "n_frames", 1) == 1:  # a phone's JPEG with its preview
        return 1
    count = image.n_frames
    if image.format == "TIFF":
        for page in range(1, image.n_frames):
            image.seek(page)
            count -= bool(image.tag_v2.get(_SUBFILE_TYPE, 0) & _COPY_OR_MASK)
        image.seek(0)
    return count
