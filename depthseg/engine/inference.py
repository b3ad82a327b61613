"""How an image goes through a network: whole or in windows, at several scales, mirrored; equal inputs only once."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from torch import nn

OUTPUTS = ("logits", "predicted_depth")


@dataclass(frozen=True)
class Inference:
    """How the logits of an image are computed.

    Without a window the image is resized to the size that the network sees, times each scale. With a window it keeps
    its own size, times each scale, and is cut into windows, which the network sees as they are.

    Attributes:
        size: Height and width of what the network sees; None = as the checkpoint's image processor resizes.
        resample: Pillow's filter for it; None = that of the image processor.
        window: Height and width of the sliding window; None = the whole image. Where an image is smaller than the
            window, the window is cut to the image.
        stride: Rows and columns from one window to the next; the last one ends at the border of the image.
        scales: Factors of the image's size.
        flip: Whether the mirrored image is predicted as well.

    Raises:
        ValueError: A window, stride or scale that cannot be.
    """

    size: tuple[int, int] | None = None
    resample: int | None = None
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.stride is not None and self.window is None:
            raise ValueError("A stride needs a window: give both, or neither for the whole image at once.")
        if self.window is not None:
            if self.stride is None:
                object.__setattr__(self, "stride", self.window)
            for name, size in (("window", self.window), ("stride", self.stride)):
                if len(size) != 2 or min(size) < 1:
                    raise ValueError(
                        f"The {name} is {list(size)}; give its height and its width in pixels, both at least 1."
                    )
            if any(step > side for step, side in zip(self.stride, self.window, strict=True)):
                raise ValueError(
                    f"A stride of {self.stride[0]} x {self.stride[1]} is larger than the window of {self.window[0]} x "
                    f"{self.window[1]} (height x width), so windows would leave out pixels between them; the stride "
                    "is at most the window."
                )
        if not self.scales or not all(math.isfinite(scale) and scale > 0 for scale in self.scales):
            given = ", ".join(f"{scale:g}" for scale in self.scales) or "none"
            raise ValueError(f"The scales are {given}; give one or more numbers above 0, such as 0.75 1 1.25.")


class Predictor:
    """Predictions of one image; what the network has seen once is not computed again.

    Args:
        model: Segmenter or depth model in evaluation mode.
        processor: Its image processor.
        image: As `Sample.image`.
    """

    def __init__(self, model: nn.Module, processor: Any, image: np.ndarray) -> None:
        self._model, self._processor, self.image = model, processor, image
        self._outputs: dict[tuple, Any] = {}

    def maps(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Class ids uint8 `(H, W)` and depth float32 `(H, W)` at the image's own size, as `predict_maps` has them."""
        return maps_of(self.outputs(self._inputs(Inference())), self._processor, self.image.shape[:2])

    def ids(self, how: Inference, size: tuple[int, int]) -> np.ndarray:
        """Class ids uint8 `(H, W)` at a size.

        Args:
            how: How the image goes through the network.
            size: Height and width of the map. Logits are resized to it bilinearly; the most probable class follows.
        """
        if how.window is None and not how.flip and how.scales == (1.0,):
            ids = self._processor.post_process_semantic_segmentation(self.outputs(self._inputs(how)), [size])[0]
        else:
            probabilities = self.probabilities(how, size)
            ids = probabilities.max(0).indices if len(probabilities) > 1 else (probabilities[0] >= 0.5).long()
        return ids.cpu().numpy().astype("uint8")

    @torch.no_grad()
    def probabilities(self, how: Inference, size: tuple[int, int]) -> Tensor:
        """Probability of each class, float32 `(K, H, W)` at a size; of one class alone `(1, H, W)`.

        The logits of each scale, and of each mirrored image mirrored back, are resized to the size bilinearly; the
        mean of their softmax (of one class their sigmoid) is the result.
        """
        views = list(itertools.product(how.scales, (False, True) if how.flip else (False,)))
        total = torch.zeros(())
        for scale, mirrored in views:
            logits = self._logits(how, scale, mirrored)
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]
            logits = logits.flip(-1) if mirrored else logits
            total = total + (logits.softmax(0) if len(logits) > 1 else logits.sigmoid())
        return total / len(views)

    def confidence(self, how: Inference, size: tuple[int, int]) -> np.ndarray:
        """Probability of the predicted class, float32 `(H, W)` at a size."""
        probable = self.probabilities(how, size)
        most = probable.max(0).values if len(probable) > 1 else torch.maximum(probable, 1 - probable)[0]
        return most.float().clamp(0, 1).cpu().numpy()

    def outputs(self, pixel_values: Tensor) -> Any:
        """Output of the network.

        Raises:
            ValueError: It is not finite.
        """
        key = (tuple(pixel_values.shape), hashlib.sha256(pixel_values.contiguous().numpy().tobytes()).digest())
        if key not in self._outputs:
            self._outputs[key] = self._run(pixel_values)
        return self._outputs[key]

    @torch.no_grad()
    def _run(self, pixel_values: Tensor) -> Any:
        outputs = self._model(pixel_values=pixel_values.to(self._model.device))
        check_finite(outputs)
        return outputs

    def _logits(self, how: Inference, scale: float, mirrored: bool) -> Tensor:
        pixels = self._inputs(how, scale)
        pixels = pixels.flip(-1) if mirrored else pixels
        if how.window is None:
            return self.outputs(pixels).logits.float()
        height, width = pixels.shape[-2:]
        total = None
        counts = torch.zeros(1, 1, height, width)
        for rows, columns in windows((height, width), how.window, how.stride):
            # Not kept, as the outputs of whole images are: no other protocol has windows, and theirs are large.
            part = self._run(pixels[..., rows, columns]).logits.float().cpu()
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            part = F.interpolate(part, size=shape, mode="bilinear", align_corners=False)
            total = torch.zeros(1, part.shape[1], height, width) if total is None else total
            total[..., rows, columns] += part
            counts[..., rows, columns] += 1
        return total / counts

    def _inputs(self, how: Inference, scale: float = 1.0) -> Tensor:
        """`pixel_values` float32 `(1, 3, h, w)` on the CPU."""
        options: dict[str, Any] = {} if how.resample is None else {"resample": how.resample}
        size = self.image.shape[:2] if how.window else how.size
        if size is None and scale != 1:
            seen = self._processor.size if self._processor.do_resize else None
            size = (seen["height"], seen["width"]) if seen else self.image.shape[:2]
        if size is not None:
            height, width = (max(1, round(side * scale)) for side in size)
            options |= {"size": {"height": height, "width": width}, "do_resize": True}
        return self._processor(images=[self.image], return_tensors="pt", **options)["pixel_values"]


def windows(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the windows over an image, from top left; the last ones end at its border.

    Args:
        size: Height and width of the image.
        window: Of the window; cut to the image.
        stride: Rows and columns from one window to the next.
    """
    starts = [
        sorted({min(start, max(side - length, 0)) for start in range(0, max(side - length, 0) + step, step)})
        for side, length, step in zip(size, window, stride, strict=True)
    ]
    for top in starts[0]:
        for left in starts[1]:
            yield slice(top, min(top + window[0], size[0])), slice(left, min(left + window[1], size[1]))


def check_finite(outputs: Any) -> None:
    """Refuse outputs of a network that are not finite numbers."""
    for key in OUTPUTS:
        if outputs.get(key) is not None and not outputs[key].isfinite().all():
            raise ValueError(f"The model's {key} are not finite numbers for this image; its weights may be damaged.")


@torch.no_grad()
def outputs_of_each(model: nn.Module, processor: Any, images: Sequence[np.ndarray], **options: Any) -> list[Any]:
    """Output of a network for each of several images that it sees at once.

    Args:
        model: Segmenter or depth model in evaluation mode.
        processor: Its image processor.
        images: As `Sample.image`, of one size where the image processor does not resize.
        options: Of the call of the image processor.

    Returns:
        Outputs of one image each.

    Raises:
        ValueError: They are not finite.
    """
    outputs = model(**processor(images=images, return_tensors="pt", **options).to(model.device))
    check_finite(outputs)
    if len(images) == 1:
        return [outputs]
    found = {name: outputs[name] for name in OUTPUTS if outputs.get(name) is not None}
    return [
        type(outputs)(**{name: values[index : index + 1] for name, values in found.items()})
        for index in range(len(images))
    ]


def maps_of(outputs: Any, processor: Any, size: tuple[int, int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Class ids uint8 `(H, W)` and depth float32 `(H, W)` of one image's outputs; None what the model has not."""
    labels = depth = None
    if outputs.get("logits") is not None:
        labels = processor.post_process_semantic_segmentation(outputs, [size])[0].cpu().numpy().astype("uint8")
    if outputs.get("predicted_depth") is not None:
        depth = processor.post_process_depth_estimation(outputs, [size])[0]["predicted_depth"].cpu().numpy()
    return labels, depth
