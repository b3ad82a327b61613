"""Segmentation metrics from a confusion matrix that is accumulated image by image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .meter import Meter

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConfusionMatrix(Meter):
    """Pixel counts of every pair of true and predicted class, over any number of images.

    Args:
        num_classes: Number of classes K; 1 = one class, id 1, against a background, id 0.
        ignore_index: Label of the pixels that are not evaluated.
        classes: Their K names in the scores, in id order; None = their numbers.

    Attributes:
        num_ids: Number of ids: K, but 2 for one class.
        state: int64 `(num_ids, num_ids)` on the CPU; rows = truth, columns = prediction. Pixels on a GPU are counted
            there, and reading the state fetches them.
    """

    _state: torch.Tensor
    _on_device: torch.Tensor | None

    def __init__(self, num_classes: int, ignore_index: int = 255, classes: Sequence[str] | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes} is out of range; it must be at least 1.")
        self.num_classes = num_classes
        self.num_ids = max(num_classes, 2)
        self.ignore_index = ignore_index
        self.classes = [str(index) for index in range(num_classes)] if classes is None else classes
        self.state = torch.zeros(self.num_ids, self.num_ids, dtype=torch.int64)

    @property
    def state(self) -> torch.Tensor:
        """Counts of all images so far, int64 `(num_ids, num_ids)`; see `Meter`."""
        self._fetch()
        return self._state

    @state.setter
    def state(self, state: torch.Tensor) -> None:
        self._state, self._on_device = state, None

    def update(self, prediction: torch.Tensor | np.ndarray, labels: torch.Tensor | np.ndarray) -> None:
        """Count one image or batch; quickest for ids of one byte.

        Args:
            prediction: Integer ids of any shape, such as `(H, W)`, below `num_ids`.
            labels: Integer ids of the same shape, below `num_ids`, or `ignore_index`.

        Raises:
            ValueError: Shapes differ, an id is out of range, or ids are not integers. Ids on a GPU are judged when
                the state is read, so that no image waits for it.
        """
        prediction = _as_ids(prediction, "predicted")
        labels = _as_ids(labels, "labelled").to(prediction.device)
        if prediction.shape != labels.shape:
            raise ValueError(
                f"The prediction has shape {tuple(prediction.shape)}, the labels {tuple(labels.shape)}; "
                "resize the prediction to the size of its labels first."
            )
        if prediction.device.type == "cpu":
            self.state = self.state + self._count(prediction, labels)
        else:
            self._count_on_device(prediction, labels)

    def _count(self, prediction: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One histogram of `label * num_ids + prediction`, the ignored pixels included, whose rows are left out."""
        ids, ignored = self.num_ids, self.ignore_index
        self._check(prediction, "predicted", "")
        if labels.dtype == torch.uint8:
            rows = 256
        else:
            rows = ids + 1
            is_ignored = labels == ignored
            self._check(labels[~is_ignored], "labelled", self._and_ignored)
            labels, ignored = labels.masked_fill(is_ignored, ids), ids
        narrow = torch.int16 if rows * ids <= 2**15 else torch.int32  # memory is what counting waits for
        pairs = labels.to(narrow, copy=True).mul_(ids).add_(prediction)
        counts = torch.bincount(pairs.flatten(), minlength=rows * ids).reshape(rows, ids)
        if 0 <= ignored < rows:
            counts[ignored] = 0
        self._check(counts[ids:].any(1).nonzero() + ids, "labelled", self._and_ignored)
        return counts[:ids]

    def _count_on_device(self, prediction: torch.Tensor, labels: torch.Tensor) -> None:
        """Count without waiting for the device: ids out of range have a row and a column of their own."""
        side = self.num_ids + 1
        if self._on_device is None or self._on_device.device != prediction.device:
            self._fetch()
            self._on_device = torch.zeros(side, side, dtype=torch.int64, device=prediction.device)
        scored = (labels != self.ignore_index).flatten()
        rows, columns = (
            torch.where((values < 0) | (values >= self.num_ids), self.num_ids, values).flatten()
            for values in (labels.long(), prediction.long())
        )
        # A wrong prediction is an error on ignored pixels, too.
        self._on_device.view(-1).index_add_(0, rows * side + columns, (scored | (columns == self.num_ids)).long())

    def _fetch(self) -> None:
        """Add what was counted on the device."""
        if self._on_device is None:
            return
        counts, self._on_device = self._on_device.cpu(), None
        for what, wrong, also in (
            ("predicted", counts[:, -1].sum(), ""),
            ("labelled", counts[-1, :-1].sum(), self._and_ignored),
        ):
            if wrong:
                raise ValueError(
                    f"The {what} class ids of {wrong} pixels are outside the label space. Allowed are 0 to "
                    f"{self.num_ids - 1}{also}."
                )
        self._state = self._state + counts[:-1, :-1]

    @property
    def _and_ignored(self) -> str:
        return f", and {self.ignore_index} for ignored pixels"

    def compute(self) -> dict[str, Any]:
        """`segmentation_scores` of all images so far."""
        return segmentation_scores(self.state, self.classes)

    def _check(self, ids: torch.Tensor, what: str, also: str) -> None:
        if not ids.numel():
            return
        lowest, highest = ids.aminmax()
        if not 0 <= lowest <= highest < self.num_ids:
            wrong = torch.unique(ids[(ids < 0) | (ids >= self.num_ids)]).tolist()
            raise ValueError(
                f"Some {what} class ids are outside the label space: {', '.join(map(str, wrong[:8]))}. "
                f"Allowed are 0 to {self.num_ids - 1}{also}."
            )


def _as_ids(ids: torch.Tensor | np.ndarray, what: str) -> torch.Tensor:
    if not isinstance(ids, torch.Tensor):
        ids = np.asarray(ids)
        if ids.dtype.kind in "iu" and ids.dtype != np.uint8:
            ids = ids.astype(np.int64)  # torch cannot compare uint16
        # A copy only where torch asks for one: it warns about read-only arrays and refuses reversed ones.
        ids = np.require(ids, requirements=("C", "W"))
        ids = torch.from_numpy(ids)
    if ids.is_floating_point():
        raise ValueError(f"The {what} class ids have type {ids.dtype}; give integer ids, not logits.")
    return ids.byte() if ids.dtype == torch.bool else ids


def segmentation_scores(matrix: torch.Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Metrics of a whole data set.

    Args:
        matrix: int64 `(K, K)`; rows = truth, columns = prediction.
        classes: K class names in id order. One name with a matrix of `(2, 2)` is one class, id 1, against a
            background, id 0: IoU and recall are those of the class, and pixel accuracy counts both.

    Returns:
        `mean_iou`, `pixel_accuracy` and `mean_accuracy`, each in [0, 1]; `per_class_iou` by class name;
        `absent_classes`. A class that is in neither the ground truth nor the prediction is absent: its IoU is NaN and
        it is excluded from the mean. A class that is predicted but not in the ground truth has an IoU of 0.
        `mean_accuracy` is the mean recall over the classes of the ground truth.

    Raises:
        ValueError: The number of classes differs, or no pixel was evaluated; the ground truth has no pixel of a single
            class.
    """
    counts, ids = matrix.double(), max(len(classes), 2)
    if counts.shape != (ids, ids):
        raise ValueError(
            f"A matrix of shape {tuple(counts.shape)} does not match {len(classes)} class names; give one name per "
            "class."
        )
    total = counts.sum()
    if total == 0:
        raise ValueError("No labelled pixel was evaluated: the data set is empty or every pixel is ignored.")
    correct, truth = counts.diagonal(), counts.sum(1)
    union = truth + counts.sum(0) - correct
    counted = slice(1, None) if len(classes) == 1 else slice(None)
    iou, recall, union, truth = (values[counted] for values in (correct / union, correct / truth, union, truth))
    # Whatever is predicted, so that a training run learns of it at its first evaluation.
    if len(classes) == 1 and not truth.any():
        raise ValueError(
            f"No pixel of the ground truth is {classes[0]!r}, so its IoU says nothing; evaluate on images that "
            "show it, with label maps where 1 is the class and 0 the background."
        )
    per_class = dict(zip(classes, iou.tolist(), strict=True))
    return {
        "mean_iou": iou[union > 0].mean().item(),
        "pixel_accuracy": (correct.sum() / total).item(),
        "mean_accuracy": recall[truth > 0].mean().item(),
        "per_class_iou": per_class,
        "absent_classes": [name for name, value in per_class.items() if math.isnan(value)],
    }
