"""Reading images, label maps and depth maps from files.

Every file that cannot be used is refused in one sentence that names it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .float_maps import FLOAT_SUFFIXES, read_float_map

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png")
"""Endings of the image files that are looked for, in lower case; upper case counts as well."""

BIT_DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a pixel value that cameras and scanners store in 16."""

KITTI_DEPTH_SCALE = 256.0
"""File units per metre in KITTI's 16-bit depth maps."""

MAP_SUFFIXES = (".png", *FLOAT_SUFFIXES)
"""Endings of depth and disparity files, in lower case."""

DISPARITY_FORMATS = {"kitti": 0, "cityscapes": 1}
"""Format of 16-bit disparity maps -> what is taken off a value before it is divided by 256; 0 is unknown in both."""

# Pillow stretches packed grey PNGs (2 and 4 bits a pixel) to the full byte range; these factors give the ids back.
_PACKED_GREY_FACTORS = {"L;2": 85, "L;4": 17}
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph.

    Palette and CMYK images are converted to RGB, a grey image of 8 bits is repeated, an alpha channel is dropped, and
    the EXIF orientation is applied. Grey images of more than 8 bits keep their values: the image processor of a
    network scales them, by its `value_range`. Colour images of 16 bits come with 8, the upper byte of every value, as
    Pillow reads them.

    Returns:
        uint8 `(H, W, 3)`, RGB; of grey images uint16 `(H, W)` if they have more than 8 bits, and float32 `(H, W)` if
        they have floating-point values.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, is truncated, or holds values below 0 or above 65535, or NaN.
    """
    image = _load(path)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{path} holds grey values from {values.min()} to {values.max()}; an image has 8 or 16 bits. "
                "Save it as a PNG or TIFF of 16 bits without sign."
            )
        return values.astype(np.uint16)
    if image.mode == "F":
        values = np.array(image)
        if not np.isfinite(values).all():
            raise ValueError(f"{path} holds NaN or infinite values; replace them with pixel values.")
        return values
    return np.array(image.convert("RGB"))


def bit_depth_of(largest: float) -> int:
    """The smallest of 8, 10, 12, 14 and 16 bits that holds a pixel value, 0 <= `largest` <= 65535."""
    return next(bits for bits in BIT_DEPTHS if largest < 2**bits)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a map of class ids: grey values (8 or 16 bits) or palette indices, never colours.

    Returns:
        Integer `(H, W)`, as stored; `check_ids` judges the range.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image, is truncated, or is a colour image.
    """
    image = _load(path)
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(
            f"{path} is a colour image (mode {image.mode}), but a label map holds one class id a pixel. "
            "Save it as a single-channel PNG of ids or as a palette PNG."
        )
    ids = np.array(image)
    return ids.astype(np.uint8) // _PACKED_GREY_FACTORS.get(image.info["packing"], 1) if ids.itemsize == 1 else ids


def read_palette(path: str | Path) -> tuple[tuple[int, int, int], ...] | None:
    """Colours of a palette image in index order; None if the image has no palette."""
    image = _load(path)
    if image.mode != "P":
        return None
    values = image.getpalette("RGB")
    return tuple(zip(values[0::3], values[1::3], values[2::3], strict=True))


def read_depth(path: str | Path, scale: float = KITTI_DEPTH_SCALE) -> np.ndarray:
    """Read a depth map: a 16-bit PNG of metres times `scale`, or metres as `.npy`, `.npz` or `.pfm`.

    Returns:
        float32 `(H, W)`, metres, 0 = unknown; NaN and infinite values of the file are unknown as well.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds another kind of values, or negative ones.
    """
    if Path(path).suffix.lower() in FLOAT_SUFFIXES:
        return _without_unknown(path, read_float_map(path))
    return (_read_16_bit(path, f"a depth map is a 16-bit single-channel PNG of metres x {scale:g}") / scale).astype(
        np.float32
    )


def read_disparity(path: str | Path, png_format: str = "kitti") -> np.ndarray:
    """Read a disparity map: a 16-bit PNG, or pixels as `.npy`, `.npz` or `.pfm`.

    Args:
        path: The file.
        png_format: Meaning p of a PNG's values: `kitti` = p / 256, `cityscapes` = (p - 1) / 256.

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
    if Path(path).suffix.lower() in FLOAT_SUFFIXES:
        return _without_unknown(path, read_float_map(path))
    values = _read_16_bit(path, "a disparity map is a 16-bit single-channel PNG of pixels x 256")
    return (np.maximum(values - DISPARITY_FORMATS[png_format], 0) / 256).astype(np.float32)


def depth_from_disparity(disparity: np.ndarray, focal_times_baseline: float) -> np.ndarray:
    """Depth of a rectified pair: `focal_times_baseline` (pixels x metres) / disparity, 0 where that is 0."""
    known = disparity > 0
    return np.where(known, focal_times_baseline / np.where(known, disparity, 1), 0).astype(np.float32)


def find_map(folder: str | Path, name: str) -> Path | None:
    """The depth or disparity file of an image, whatever its ending; None if there is none.

    Raises:
        ValueError: There are several.
    """
    found = [path for suffix in MAP_SUFFIXES if (path := Path(folder) / f"{name}{suffix}").is_file()]
    if len(found) > 1:
        raise ValueError(f"{' and '.join(map(str, found))} belong to the same image; remove all but one.")
    return found[0] if found else None


def check_ids(path: str | Path, ids: np.ndarray, count: int, ignore_index: int | None = 255) -> None:
    """Refuse a label map that holds anything but 0..count-1 and `ignore_index`.

    Raises:
        ValueError: Names the file, the ids and the range.
    """
    found = np.unique(ids)
    wrong = [int(value) for value in found if not 0 <= value < count and value != ignore_index]
    if wrong:
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


def image_files(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Image files of a folder by stem, in the order of their stems.

    Raises:
        FileNotFoundError: The folder is missing or holds no image.
        ValueError: Two images differ only in their ending.
    """
    files: dict[str, Path] = {}
    for path in list_images(folder, suffixes):
        if path.stem in files:
            raise ValueError(
                f"{files[path.stem]} and {path} have the same stem, so their labels cannot be told apart; rename one."
            )
        files[path.stem] = path
    if not files:
        raise FileNotFoundError(f"{folder} holds no image; looked for files ending in {', '.join(suffixes)}.")
    return files


def list_images(folder: str | Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """All image files of a folder, sorted by stem; hidden files do not count.

    Raises:
        FileNotFoundError: The folder is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder {folder} does not exist; check the root of the data set.")
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (path.stem, path.suffix))


def _read_16_bit(path: str | Path, expected: str) -> np.ndarray:
    """int32 `(H, W)` of a 16-bit grey PNG."""
    image = _load(path)
    if not image.mode.startswith("I"):
        raise ValueError(f"{path} has mode {image.mode}, but {expected} with 0 = unknown.")
    return np.asarray(image).astype(np.int32)


def _without_unknown(path: str | Path, values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    if (values[known] < 0).any():
        raise ValueError(
            f"{path} holds negative values, the lowest is {values[known].min():g}; write 0, NaN or infinity where "
            "nothing is known."
        )
    return np.where(known, values, 0)


def _load(path: str | Path) -> Image.Image:
    """Decode a whole image file, upright; `info["packing"]` is the pixel packing of the file."""
    try:
        with Image.open(path) as image:
            packing = image.tile[0][3] if image.tile else None
            image.load()
            upright = ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise FileNotFoundError(f"There is no file {path}.") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image that can be read (or is empty); save it as PNG or JPEG.") from None
    except _DECODING_ERRORS as error:
        raise ValueError(f"{path} is truncated or damaged and cannot be decoded: {error}.") from error
    upright.info["packing"] = packing if isinstance(packing, str) else None
    return upright
