"""The image processor: one implementation on Pillow, so the numbers are the same with and without torchvision.

Shape letters: B batch, H and W image size, h and w logits size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

logger = logging.get_logger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AUTO_MAP = {"AutoImageProcessor": "image_processing_depthseg.DepthSegImageProcessor"}


class DepthSegImageProcessor(BaseImageProcessor):
    """Turn images into `pixel_values` and model outputs into maps of any size.

    Args:
        size (`dict[str, int]`, *optional*): `{"height": H, "width": W}` to resize to; left out, images keep
            their size.
        resample (`int`, *optional*, defaults to `2`): Pillow's filter for images (2 = bilinear, antialiased). Label
            maps are resized by nearest neighbour, always.
        do_normalize (`bool`, *optional*, defaults to `True`): Whether to subtract `image_mean` and divide by
            `image_std`. `False` for models that scale their input themselves (`config.input_mean`).
        image_mean, image_std (`list[float]`, *optional*): Of `[0, 1]` images; default to ImageNet's.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: dict[str, int] | None = None,
        resample: int = Image.Resampling.BILINEAR,
        do_normalize: bool = True,
        image_mean: list[float] | tuple[float, ...] = IMAGENET_MEAN,
        image_std: list[float] | tuple[float, ...] = IMAGENET_STD,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if size is not None and set(size) != {"height", "width"}:
            raise ValueError(f"size is {size}; give it as {{'height': 192, 'width': 640}}, or leave it out.")
        self.size = size
        self.resample = int(resample)
        self.do_normalize = do_normalize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build from the entries of a `preprocessor_config.json`, of ours or of a processor of transformers."""
        settings = dict(image_processor_dict)
        written_by = settings.get("image_processor_type") or settings.get("feature_extractor_type")
        if written_by not in (None, cls.__name__):
            settings = foreign_settings(settings, written_by, kwargs.get("size"))
        return super().from_dict(settings, **kwargs)

    def __call__(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """See [`~DepthSegImageProcessor.preprocess`]."""
        return self.preprocess(images, segmentation_maps, **kwargs)

    def preprocess(
        self,
        images: Any,
        segmentation_maps: Any = None,
        do_resize: bool = True,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepare one image or a list of images.

        Args:
            images: `PIL.Image`, uint8 array `(H, W, 3)` or `(H, W)`, uint8 tensor `(3, H, W)`, or a list of those.
            segmentation_maps (*optional*): Per image its label map, an integer array `(H, W)` or a `PIL.Image` of ids.
            do_resize (`bool`, *optional*, defaults to `True`): `False` keeps the images' size, whatever `size` says.
            return_tensors (`str`, *optional*, defaults to `"pt"`): As everywhere in transformers.

        Returns:
            [`BatchFeature`]: `pixel_values`, float32 `(B, 3, H, W)`, and, if maps were given, `labels`, int64
            `(B, H, W)`.

        Raises:
            ValueError: For images of another type or layout, or of different size where they are not resized.
        """
        images = [to_pil(image) for image in (images if isinstance(images, (list, tuple)) else [images])]
        size = None if self.size is None or not do_resize else (self.size["width"], self.size["height"])
        data = {"pixel_values": self._stack([self._scale(image, size) for image in images])}
        if segmentation_maps is not None:
            maps = segmentation_maps if isinstance(segmentation_maps, (list, tuple)) else [segmentation_maps]
            if len(maps) != len(images):
                raise ValueError(f"There are {len(maps)} segmentation maps for {len(images)} images; give one each.")
            pairs = zip(maps, images, strict=True)
            data["labels"] = self._stack([prepare_label_map(ids, image.size, size) for ids, image in pairs])
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _scale(self, image: Image.Image, size: tuple[int, int] | None) -> np.ndarray:
        if size is not None and image.size != size:
            image = image.resize(size, self.resample)
        pixels = np.asarray(image, dtype=np.float32) / 255
        if self.do_normalize:
            pixels = (pixels - np.float32(self.image_mean)) / np.float32(self.image_std)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

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
        self, outputs: Any, target_sizes: list[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        """Turn logits into id maps.

        Args:
            outputs: Model output with `logits` of shape `(B, K, h, w)`.
            target_sizes (`list[tuple[int, int]]`, *optional*): Per image the height and width to resize the logits to,
                bilinearly, before the arg-max; defaults to their own.

        Returns:
            `list[torch.LongTensor]`: one map `(H, W)` of class ids an image.
        """
        logits = outputs.logits.float()
        if target_sizes is None:
            return list(logits.max(1).indices)  # much faster on a CPU than argmax
        check_count(target_sizes, logits)
        return [
            F.interpolate(scores[None], size=tuple(size), mode="bilinear", align_corners=False)[0].max(0).indices
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
    settings = {name: found[name] for name in ("image_mean", "image_std", "resample") if name in found}
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
    """Return the size of another processor as height and width, or `None` where it depends on the image."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    return size if isinstance(size, dict) and set(size) == {"height", "width"} else None


def to_pil(image: Any) -> Image.Image:
    """Return an RGB image, or raise a sentence about what it is instead."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3):
            return Image.fromarray(np.ascontiguousarray(image)).convert("RGB")
    what = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ValueError(
        f"An image is {what}; allowed are PIL images, uint8 arrays (H, W, 3) or (H, W), and uint8 tensors (3, H, W)."
    )


def prepare_label_map(label_map: Any, image_size: tuple[int, int], size: tuple[int, int] | None) -> np.ndarray:
    """Return ids `(H, W)` as int64, resized by nearest neighbour to `size`: no id is ever invented.

    Both sizes are width, height, as Pillow has them.
    """
    ids = np.asarray(label_map)
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise ValueError(f"A segmentation map is {ids.dtype} of shape {ids.shape}; expected integer ids (H, W).")
    if ids.shape != image_size[::-1]:
        raise ValueError(f"A segmentation map has the size {ids.shape}, its image {image_size[::-1]}; resize one.")
    if size is not None and image_size != size:
        ids = np.asarray(Image.fromarray(ids.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    return ids.astype(np.int64)


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
