"""The image processor: one implementation on Pillow, so the numbers are the same with and without torchvision.

Shape letters: B batch, H and W image size, h and w logits size.
"""

from __future__ import annotations

import difflib
import math
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

from .image_inputs_depthseg import (
    check_value_range,
    levels_of,
    list_of_images,
    resize_values,
    rgb_values,
    whole_levels,
)
from .lean_loss_depthseg import ids_of_resized

logger = logging.get_logger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
OPTIONS = (
    *("size", "resample", "do_normalize", "image_mean", "image_std"),
    *("do_resize", "do_rescale", "rescale_factor", "value_range"),
)
"""What the constructor and calls take."""

FIXED_OPTIONS = {
    "do_convert_rgb": (True,),
    "do_center_crop": (False,),
    "do_pad": (False,),
    "crop_size": (),
    "pad_size": (),
    "disable_grouping": (True, False),
    "default_to_square": (True,),
}
"""Options of other image processors that calls take as well -> the values that are always true of this one."""

AUTO_MAP = {"AutoImageProcessor": "image_processing_depthseg.DepthSegImageProcessor"}


class DepthSegImageProcessor(BaseImageProcessor):
    """Turn images into `pixel_values` and model outputs into maps of any size.

    An image gives the same numbers in every form: as file, `PIL.Image`, array or tensor, and as floats in [0, 1] with
    `do_rescale=False`. Floats that are whole levels of 8 bits are resized as the 8-bit image; finer ones are resized
    without rounding, which differs from it by at most one level.

    Every option of the constructor is an option of a call, too.

    Args:
        size (`dict[str, int]`, *optional*): `{"height": H, "width": W}` to resize to, or one number for both; left
            out, images keep their size.
        resample (`int`, *optional*, defaults to `2`): Pillow's filter for images (2 = bilinear, antialiased). Label
            maps are resized by nearest neighbour, always.
        do_normalize (`bool`, *optional*, defaults to `True`): Whether to subtract `image_mean` and divide by
            `image_std`. `False` for models that scale their input themselves (`config.input_mean`).
        image_mean, image_std (`list[float]`, *optional*): Of `[0, 1]` images; default to ImageNet's.
        do_resize (`bool`, *optional*, defaults to `True`): `False` keeps the images' size, whatever `size` says.
        do_rescale (`bool`, *optional*, defaults to `True`): Whether to scale pixel values to `[0, 1]`. `False` for
            floats that are, and takes values of any type as they are.
        rescale_factor (`float`, *optional*, defaults to `1 / 255`): What levels from 0 to 255 are multiplied by.
        value_range (`list[float]`, *optional*): Pixel values `[low, high]` of black and white: a value `v` becomes
            the level `255 * clip((v - low) / (high - low), 0, 1)`. Left out, the full range of the pixel type: 0 to
            65535 of 16 bits, 0 to 255 of all others. Images of 8 bits keep 0 to 255 where `high` is above 255.
            Pipelines of transformers make 8-bit images of what they are given before this processor sees it, so give
            images of 16 bits to the processor itself.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: dict[str, int] | None = None,
        resample: int = Image.Resampling.BILINEAR,
        do_normalize: bool = True,
        image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN,
        image_std: list[float] | tuple[float, ...] = IMAGENET_STD,
        do_resize: bool = True,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        value_range: list[float] | tuple[float, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.size = fixed_size(size)
        if size is not None and self.size is None:
            raise ValueError(f"size is {size}; give it as {{'height': 192, 'width': 640}}, or leave it out.")
        self.resample = int(resample)
        self.do_normalize = do_normalize
        self.image_mean = per_channel(image_mean)
        self.image_std = per_channel(image_std)
        self.do_resize = do_resize
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.value_range = None if value_range is None else check_value_range(value_range)

    @property
    def backend(self) -> str:
        """What images are processed with, in transformers' words: always `"pil"`."""
        return "pil"

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from the entries of a `preprocessor_config.json`, of ours or of a processor of transformers."""
        settings = dict(image_processor_dict)
        written_by = settings.get("image_processor_type") or settings.get("feature_extractor_type")
        if written_by not in (None, cls.__name__):
            settings = foreign_settings(settings, written_by, kwargs.get("size"))
        if kwargs.pop("backend", "pil") not in (None, "pil"):
            logger.warning("%s has one backend, 'pil', and uses it.", cls.__name__)
        settings |= {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        return super().from_dict(settings, **kwargs)

    def __call__(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """See [`~DepthSegImageProcessor.preprocess`]."""
        return self.preprocess(images, segmentation_maps, **kwargs)

    def preprocess(
        self,
        images: Any,
        segmentation_maps: Any = None,
        do_resize: bool | None = None,
        return_tensors: str | None = "pt",
        data_format: str | None = None,
        input_data_format: str | None = None,
        device: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare one image or several.

        Args:
            images: `PIL.Image`, path, URL, or array or tensor of pixel values `(H, W)`, `(H, W, C)` or `(C, H, W)`
                with 1, 3 or 4 channels; a batch of four dimensions, or a list of those. Integers but uint16 are levels
                from 0 to 255 unless `value_range` says otherwise. An alpha channel is dropped.
            segmentation_maps (*optional*): Per image its label map, an integer array or tensor `(H, W)` or a
                `PIL.Image` of ids.
            do_resize (`bool`, *optional*): In place of the processor's own, as all options in `kwargs`.
            return_tensors (`str`, *optional*, defaults to `"pt"`): As everywhere in transformers; `None` = a list of
                arrays, which may differ in size.
            data_format (`str`, *optional*): Of the result: `"channels_first"`, the default, or `"channels_last"`.
            input_data_format (`str`, *optional*): Layout of arrays and tensors, `"channels_first"` or
                `"channels_last"`; inferred from the shape if left out.
            device (`str` or `torch.device`, *optional*): Where the tensors go.
            kwargs: Options of the constructor, for this call.

        Returns:
            [`BatchFeature`]: `pixel_values`, float32 `(B, 3, H, W)`, and, if maps were given, `labels`, int64
            `(B, H, W)`.

        Raises:
            FileNotFoundError: There is no such file.
            TypeError: For an option that does not exist.
            ValueError: For images of another type or layout, or of different size where they are not resized.
        """
        chosen = self._with_options(do_resize=do_resize, **kwargs)
        if data_format not in (None, "channels_first", "channels_last"):
            raise ValueError(f"data_format is {data_format!r}; allowed are channels_first and channels_last.")
        images = [rgb_values(image, input_data_format) for image in list_of_images(images)]
        if not images:
            raise ValueError("There is no image in the batch; pass one or more.")
        sides = chosen.size if chosen.do_resize else None
        size = None if sides is None else (sides["width"], sides["height"])
        axes = (0, 1, 2) if data_format == "channels_last" else (2, 0, 1)
        pixels = [np.ascontiguousarray(chosen._scale(image, size).transpose(axes)) for image in images]
        data: dict[str, Any] = {"pixel_values": pixels}
        if segmentation_maps is not None:
            maps = list_of_maps(segmentation_maps, len(images))
            if len(maps) != len(images):
                raise ValueError(f"There are {len(maps)} segmentation maps for {len(images)} images; give one each.")
            pairs = zip(maps, images, strict=True)
            data["labels"] = [prepare_label_map(ids, image.shape[1::-1], size) for ids, image in pairs]
        if return_tensors is not None:
            data = {name: self._stack(arrays) for name, arrays in data.items()}
        batch = BatchFeature(data=data, tensor_type=return_tensors)
        return batch if device is None else batch.to(device)

    def to_rgb(self, image: Any) -> np.ndarray:
        """Bring the values of an image to the scale of 8 bits, `value_range` applied; its size stays.

        Args:
            image: As a call takes it.

        Returns:
            `np.ndarray`: `(H, W, 3)`, uint8 of images of 8 bits, else float32 from 0 to 255. A call with
            `value_range=[0, 255]` takes it as it is.
        """
        return levels_of(rgb_values(image), self.value_range)

    def _with_options(self, **options: Any) -> DepthSegImageProcessor:
        """A processor with other options, those that are `None` left as they are."""
        for name, value in options.items():
            if name not in OPTIONS and (name not in FIXED_OPTIONS or value not in (None, *FIXED_OPTIONS[name])):
                near = difflib.get_close_matches(name, OPTIONS, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise TypeError(
                    f"{type(self).__name__} cannot do {name}={value!r}.{hint} Its options are {', '.join(OPTIONS)}, "
                    "return_tensors, data_format, input_data_format and device."
                )
        changed = {name: value for name, value in options.items() if name in OPTIONS and value is not None}
        if not changed:
            return self
        return type(self)(**{name: getattr(self, name) for name in OPTIONS} | changed)

    def _scale(self, values: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
        """Scale, resize and normalise the values `(H, W, 3)` of an image; float32 `(H, W, 3)`."""
        factor = self.rescale_factor if self.do_rescale else 1
        if self.do_rescale:
            values = levels_of(values, self.value_range)
        elif values.dtype == np.float32 and 0 <= values.min() and values.max() <= 1:
            whole = whole_levels(values * 255)
            values, factor = (values, 1) if whole.dtype != np.uint8 else (whole, 1 / 255)
        elif values.dtype != np.uint8:
            values = values.astype(np.float32)
        if size is not None:
            values = resize_values(values, size, self.resample)
        values = values.astype(np.float32)
        pixels: np.ndarray = values / 255 if factor == 1 / 255 else values * np.float32(factor)
        if self.do_normalize:
            pixels = (pixels - np.array(self.image_mean, np.float32)) / np.array(self.image_std, np.float32)
        return pixels

    @staticmethod
    def _stack(arrays: list[np.ndarray]) -> np.ndarray:
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ValueError(
                f"The images of one batch have different sizes, {sorted(shapes)}; set the processor's size, or pass "
                "them one by one."
            )
        return np.stack(arrays)

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: list[tuple[int, int]] | None = None, threshold: float = 0.5
    ) -> list[Tensor]:
        """Turn logits into id maps.

        Args:
            outputs: Model output with `logits` of shape `(B, K, h, w)`.
            target_sizes (`list[tuple[int, int]]`, *optional*): Per image the height and width to resize the logits to,
                bilinearly, before the arg-max; defaults to their own.
            threshold (`float`, *optional*, defaults to `0.5`): Of models with one logit: the probability, between 0
                and 1, from which a pixel belongs to the class, id 1, and not to the background, id 0.

        Returns:
            `list[torch.LongTensor]`: one map `(H, W)` of class ids an image.
        """
        logits = outputs.logits.float()
        if target_sizes is None:
            return list(ids_of(logits, threshold))
        check_count(target_sizes, logits)
        if logits.shape[1] > 1:
            check_threshold(threshold, logits.shape[1])
            return [
                ids_of_resized(scores, (size[0], size[1])) for scores, size in zip(logits, target_sizes, strict=True)
            ]
        return [
            ids_of(F.interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=False), threshold)[0]
            for scores, size in zip(logits, target_sizes, strict=True)
        ]

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: list[tuple[int, int]] | None = None
    ) -> list[dict[str, Tensor]]:
        """Resize predicted depth.

        Args:
            outputs: Model output with `predicted_depth` of shape `(B, h, w)`.
            target_sizes (`list[tuple[int, int]]`, *optional*): Per image the height and width, reached bilinearly.

        Returns:
            `list[dict[str, torch.Tensor]]`: `{"predicted_depth": (H, W)}` an image, in the unit of the model.
        """
        depth = outputs.predicted_depth.float()
        if target_sizes is None:
            return [{"predicted_depth": image} for image in depth]
        check_count(target_sizes, depth)
        return [
            {
                "predicted_depth": F.interpolate(
                    image[None, None], size=tuple(size), mode="bilinear", align_corners=False
                )[0, 0]
            }
            for image, size in zip(depth, target_sizes, strict=True)
        ]

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Save the settings and this file, so that the folder loads without depthseg."""
        self.auto_map = dict(AUTO_MAP)
        return super().save_pretrained(save_directory, **kwargs)


def foreign_settings(found: dict[str, Any], written_by: str, size: dict[str, int] | None) -> dict[str, Any]:
    """Return the options of [`DepthSegImageProcessor`] that do what another image processor does.

    Normalisation and filter are taken as they are. A size is taken as it is; what would make it depend on the image
    (`keep_aspect_ratio`, `ensure_multiple_of`, `size_divisor`) is not: models of depthseg pad to their own multiple.

    Args:
        found (`dict[str, Any]`): The processor's `preprocessor_config.json`.
        written_by (`str`): Its class.
        size (`dict[str, int]`, *optional*): Chosen by the caller, in place of the file's.

    Raises:
        ValueError: For a processor that scales pixels in another way, or does not say how.
    """
    # Processors without normalisation, as GLPN's, do not mention it.
    normalises = found.get("do_normalize", "image_mean" in found)
    rescales = found.get("do_rescale", True) and abs(found.get("rescale_factor", 1 / 255) * 255 - 1) < 1e-6
    if not rescales or (normalises and not ("image_mean" in found and "image_std" in found)):
        raise ValueError(
            f"The preprocessor_config.json of a {written_by} does not divide pixels by 255, or normalises without "
            "image_mean and image_std; make a DepthSegImageProcessor that scales images as the model expects."
        )
    settings: dict[str, Any] = {name: found[name] for name in ("image_mean", "image_std", "resample") if name in found}
    settings["do_normalize"] = normalises
    if size is None and found.get("do_resize", True):
        settings["size"] = fixed_size(found.get("size"))
        if found.get("keep_aspect_ratio") and settings["size"] is not None:
            logger.warning(
                "%s keeps the aspect ratio of images; here they are resized to exactly %d x %d. Pass another size.",
                *(written_by, settings["size"]["height"], settings["size"]["width"]),
            )
    return settings


def fixed_size(size: Any) -> dict[str, int] | None:
    """Return a size as height and width, or `None` where it depends on the image or is none."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return {"height": size[0], "width": size[1]}
    try:
        size = {name: length for name, length in dict(size).items() if length is not None}
    except (TypeError, ValueError):
        return None
    return size if set(size) == {"height", "width"} else None


def per_channel(values: Any) -> list[float]:
    """Return a mean or deviation as one number a channel."""
    return [values] * 3 if isinstance(values, (int, float)) else list(values)


def list_of_maps(segmentation_maps: Any, count: int) -> list[Any]:
    """Take a list or a batch `(B, H, W)` of label maps of `count` images apart."""
    is_batch = getattr(segmentation_maps, "ndim", 0) == 3 and len(segmentation_maps) == count
    return list(segmentation_maps) if is_batch or isinstance(segmentation_maps, (list, tuple)) else [segmentation_maps]


def prepare_label_map(label_map: Any, image_size: tuple[int, int], size: tuple[int, int] | None) -> np.ndarray:
    """Return ids `(H, W)` as int64, resized by nearest neighbour to `size`: no id is ever invented.

    Both sizes are width, height, as Pillow has them.
    """
    ids = np.asarray(label_map.cpu() if isinstance(label_map, Tensor) else label_map)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(f"A segmentation map is {ids.dtype} of shape {ids.shape}; expected integer ids (H, W).")
    if ids.shape != image_size[::-1]:
        raise ValueError(f"A segmentation map has the size {ids.shape}, its image {image_size[::-1]}; resize one.")
    if size is not None and image_size != size:
        ids = np.asarray(Image.fromarray(ids.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    return ids.astype(np.int64)


def ids_of(logits: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the class ids `(B, H, W)` of logits `(B, K, H, W)`; one logit is compared with a probability.

    Raises:
        ValueError: See `check_threshold`.
    """
    check_threshold(threshold, logits.shape[1])
    if logits.shape[1] == 1:
        return (logits[:, 0] >= math.log(threshold / (1 - threshold))).long()
    return logits.max(1).indices  # much faster on a CPU than argmax


def check_threshold(threshold: float, num_labels: int) -> None:
    """Raise a sentence if a threshold is no probability from 0 to 1, or there are several classes to choose from."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold is {threshold}; it is a probability between 0 and 1.")
    if num_labels > 1 and threshold != 0.5:
        raise ValueError(
            f"threshold is {threshold} but the model has {num_labels} classes, of which the most probable is taken; "
            "leave threshold out."
        )


def check_count(target_sizes: list[tuple[int, int]], outputs: Tensor) -> None:
    """Raise a sentence unless there is one target size an image."""
    if len(target_sizes) != len(outputs):
        raise ValueError(f"target_sizes has {len(target_sizes)} entries for {len(outputs)} images; give one an image.")


def check_input_scaling(config: Any, processor: Any) -> None:
    """Raise a sentence if both the processor and the model would scale the image.

    Args:
        config ([`DepthSegConfig`]): Of the model.
        processor ([`DepthSegImageProcessor`]): That makes its `pixel_values`.
    """
    if processor.do_normalize and config.input_mean is not None:
        raise ValueError(
            "The image processor normalises (do_normalize=True) and so does the model (config.input_mean is set): "
            "images would be scaled twice. Set do_normalize=False, or input_mean and input_std to None."
        )
