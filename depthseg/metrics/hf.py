"""The same metrics for the `evaluate` library; they need no internet connection and store no prediction maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
import evaluate
import numpy as np
import torch

from .confusion import ConfusionMatrix
from .depth import DepthErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .meter import Meter


class _SummedMetric(evaluate.Metric):
    """A metric whose images are reduced to one short row of sums as they are added.

    `evaluate` stores what it receives until `compute`, where processes exchange it by files. Here that is one row,
    under the name `predictions`; `references` stays empty but must be declared, because `evaluate.combine` looks for
    both names. A single process writes no file, which takes as long as counting ten images.
    """

    _dtype: str
    _sums: Meter | None = None

    def _info(self) -> evaluate.MetricInfo:
        column = datasets.Sequence(datasets.Value(self._dtype))
        return evaluate.MetricInfo(
            description=type(self).__doc__,
            citation="",
            inputs_description="predictions, references: maps (H, W), one pair for each image",
            features=datasets.Features({"predictions": column, "references": column}),
        )

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Add one image: its predicted and its true map `(H, W)`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Add images: predicted and true maps `(H, W)`, which may differ in size from image to image.

        Raises:
            ValueError: The numbers of predictions and references differ.
        """
        predictions, references = list(predictions), list(references)
        if len(predictions) != len(references):
            raise ValueError(f"There are {len(predictions)} predictions but {len(references)} references.")
        sums = self._sums or self._meter()
        for pair in zip(predictions, references, strict=True):
            sums.update(*pair)
        self._sums = sums

    def compute(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> dict[str, Any] | None:
        """Scores of all images so far, with those given here; then it begins anew.

        Returns:
            None in the processes other than the first one.
        """
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        if self.num_process > 1 or self._sums is None:
            return super().compute(**kwargs)
        sums, self._sums = self._sums, None
        return sums.compute()

    def _finalize(self) -> None:
        """Hand the sums over to `evaluate`, which calls this before it computes."""
        if self._sums is not None:
            super().add_batch(predictions=[self._sums.state.flatten().tolist()], references=[[]])
            self._sums = None
        super()._finalize()

    def _compute(self, predictions: Sequence[Sequence[float]], references: Any) -> dict[str, Any]:
        meter = self._meter()
        meter.state = torch.from_numpy(np.sum(np.asarray(predictions), axis=0)).reshape(meter.state.shape)
        return meter.compute()

    def _meter(self) -> Meter:
        """A meter without any image."""
        raise NotImplementedError


class SegmentationMetric(_SummedMetric):
    """Mean IoU, pixel accuracy and mean accuracy: `segmentation_scores` of one confusion matrix.

    Args:
        classes: Class names in id order; one name is one class, id 1, against a background, id 0.
        ignore_index: Label of the pixels that are not evaluated.
        **kwargs: Those of `evaluate.Metric`, such as `num_process` and `process_id`.
    """

    _dtype = "int64"

    def __init__(self, classes: Sequence[str], ignore_index: int = 255, **kwargs: Any) -> None:
        self.classes = tuple(classes)
        self.ignore_index = ignore_index
        super().__init__(**kwargs)

    def _meter(self) -> ConfusionMatrix:
        return ConfusionMatrix(len(self.classes), self.ignore_index, self.classes)


class DepthMetric(_SummedMetric):
    """Depth errors with their evaluation protocol: `DepthErrors.compute`.

    Args:
        protocol: Keyword arguments of `DepthErrors`, such as `{"alignment": "median", "max_depth": 80}`.
        **kwargs: Those of `evaluate.Metric`.
    """

    _dtype = "float64"

    def __init__(self, protocol: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.protocol = dict(protocol or {})
        super().__init__(**kwargs)

    def _meter(self) -> DepthErrors:
        return DepthErrors(**self.protocol)
