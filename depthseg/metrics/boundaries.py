"""Metrics along the boundaries between classes: boundary IoU, edge types, alignment of heat maps."""

from __future__ import annotations

import numpy as np
import torch

from .confusion import ConfusionMatrix, segmentation_scores
from .groups import NO_GROUP, GroupedConfusion
from .meter import Meter

EDGE_KINDS = ("depth", "texture")

NOTHING = np.iinfo(np.int32).min
"""Smaller than the id of any class."""


def near_boundary(ids: np.ndarray, distance: int, ignore_index: int = 255) -> np.ndarray:
    """Pixels with a pixel of another class at most `distance` rows and columns away.

    For the mask of one class these are its inner band along its boundary. Ignored pixels and the outside of the image
    have no class: they are in no band, and have no boundary.

    Args:
        ids: Integer ids `(H, W)`.
        distance: Pixels, at least 1.
        ignore_index: Id of the pixels without class.

    Returns:
        bool `(H, W)`.
    """
    if distance < 1:
        raise ValueError(f"A distance of {distance} pixels to the boundary is out of range; it must be at least 1.")
    known = ids != ignore_index
    ids = ids.astype(np.int32)
    highest = _largest_around(np.where(known, ids, NOTHING), distance)
    lowest = -_largest_around(np.where(known, -ids, NOTHING), distance)
    return known & (highest != lowest)


def edge_kinds(
    labels: np.ndarray, depth: np.ndarray, distance: int, depth_ratio: float, ignore_index: int = 255
) -> np.ndarray:
    """Type of the edges near each pixel: depth edges or texture edges.

    Two neighbouring pixels (4-neighbourhood) of different classes are an edge. It is a depth edge if the farther pixel
    is more than `depth_ratio` times as far as the nearer one, and a texture edge otherwise; if a depth is unknown it
    is neither. A pixel is near a depth edge if a pixel of a depth edge is at most `distance` rows and columns away. It
    is near texture edges if a pixel of a texture edge is, and none of a depth edge.

    Args:
        labels: Integer ids `(H, W)`.
        depth: Metres `(H, W)`; 0 or NaN = unknown, infinite = farther than everything.
        distance: Pixels.
        depth_ratio: Above 1.
        ignore_index: Id of the pixels without class.

    Returns:
        int64 `(H, W)`: 0 = near a depth edge, 1 = near texture edges, -1 = near none.
    """
    known = (labels != ignore_index) & (depth > 0)
    marks = {kind: np.zeros(labels.shape, dtype=bool) for kind in EDGE_KINDS}
    for one, other in (((slice(1, None),), (slice(-1),)), ((slice(None), slice(1, None)), (slice(None), slice(-1)))):
        edge = known[one] & known[other] & (labels[one] != labels[other])
        near, far = np.minimum(depth[one], depth[other]), np.maximum(depth[one], depth[other])
        jump = far > depth_ratio * near
        for kind, found in zip(EDGE_KINDS, (edge & jump, edge & ~jump), strict=True):
            marks[kind][one] |= found
            marks[kind][other] |= found
    around = {kind: _largest_around(mark.astype(np.int32), distance) > 0 for kind, mark in marks.items()}
    return np.select([around["depth"], around["texture"]], [0, 1], NO_GROUP)


class BoundaryIou(Meter):
    """Boundary IoU of the true and the predicted classes, overall and near each type of edge.

    The band of a class consists of its pixels with a pixel of another class at most d rows and columns away, see
    `near_boundary`; d is a fraction of the image diagonal. For each class the pixels of the true and of the predicted
    band are counted over all images; its score is the intersection over the union, and the score of a model is the
    mean over the classes that have a band. Predictions at ignored pixels are ignored before bands are computed.

    In the authors' code the border of the image is a boundary of both true and predicted masks; here it is not,
    because the class does not change there.

    The score of an edge type counts only pixels near a true edge of that type, see `edge_kinds`: boundaries that are
    predicted far from every true one therefore reduce the overall score but not those of the edge types.

    Args:
        num_classes: Number of classes K; 1 = one class, id 1, whose band alone is evaluated, against a background.
        ignore_index: Label of the pixels that are not evaluated.
        share: d as a fraction of the image diagonal; d is rounded and at least 1 pixel.
        depth_ratio: Ratio of depths across a depth edge.

    Attributes:
        state: int64 `(3, I + 1, I + 1)` on the CPU, I = 2 for one class, else K: everywhere, near depth edges, near
            texture edges; confusion of true (row) and predicted (column) bands, the last one = in no band.

    Source:
        Cheng et al. 2021, https://huggingface.co/papers/2103.16562.
    """

    def __init__(
        self, num_classes: int, ignore_index: int = 255, share: float = 0.02, depth_ratio: float = 1.25
    ) -> None:
        if not 0 < share < 1 or depth_ratio <= 1:
            raise ValueError(f"share={share} must be between 0 and 1, depth_ratio={depth_ratio} above 1.")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.share, self.depth_ratio = share, depth_ratio
        self.num_ids = max(num_classes, 2)
        self.state = torch.zeros(3, self.num_ids + 1, self.num_ids + 1, dtype=torch.int64)

    def update(self, prediction: np.ndarray, labels: np.ndarray, depth: np.ndarray | None = None) -> None:
        """Count one image.

        Args:
            prediction: Integer ids `(H, W)`, 0..K-1.
            labels: Integer ids `(H, W)`, 0..K-1 or `ignore_index`.
            depth: Metres `(H, W)`, 0 or NaN = unknown; None = the image is not counted for the edge types.

        Raises:
            ValueError: Shapes differ, or an id is out of range.
        """
        ConfusionMatrix(self.num_classes, self.ignore_index).update(prediction, labels)  # refuses wrong ids
        distance = max(1, round(self.share * float(np.hypot(*labels.shape))))
        prediction = np.where(labels == self.ignore_index, self.ignore_index, prediction)
        bands = [
            np.where(near_boundary(ids, distance, self.ignore_index), ids, self.num_ids)
            for ids in (prediction, labels)
        ]
        counts = ConfusionMatrix(self.num_ids + 1, self.ignore_index)
        counts.update(*bands)
        self.state[0] += counts.state
        if depth is not None:
            by_kind = GroupedConfusion(EDGE_KINDS, self.num_ids + 1, self.ignore_index)
            kinds = edge_kinds(labels, depth, distance, self.depth_ratio, self.ignore_index)
            by_kind.update(bands[0], bands[1], kinds)
            self.state[1:] += by_kind.state

    def compute(self) -> dict[str, float | None]:
        """Scores `all`, `depth` and `texture` in [0, 1], None without any band."""
        return {name: self._mean_iou(matrix) for name, matrix in zip(("all", *EDGE_KINDS), self.state, strict=True)}

    def _mean_iou(self, matrix: torch.Tensor) -> float | None:
        counted = slice(self.num_ids - self.num_classes, self.num_ids)
        if not (matrix[counted].any() or matrix[:, counted].any()):
            return None
        classes = [str(index) for index in range(self.num_ids + 1)]
        per_class = list(segmentation_scores(matrix, classes)["per_class_iou"].values())
        return float(np.nanmean(per_class[counted]))


class BoundaryAlignment(Meter):
    """How well a heat map separates pixels near a class boundary from the others, averaged over images.

    The score of an image is the area under the ROC curve of the map: the probability that a pixel within `distance`
    rows and columns of another class, see `near_boundary`, has a larger value than one farther away, ties counting
    one half. 0.5 = no relation. Ignored pixels are excluded, and images without both kinds of pixels.

    Args:
        distance: Pixels of the labels.
        ignore_index: Label of the pixels that are not evaluated.

    Attributes:
        state: float64 `(2,)` on the CPU: sum of scores, evaluated images.
    """

    def __init__(self, distance: int = 2, ignore_index: int = 255) -> None:
        self.distance, self.ignore_index = distance, ignore_index
        self.state = torch.zeros(2, dtype=torch.float64)

    def update(self, heat: np.ndarray, labels: np.ndarray) -> None:
        """Evaluate one image.

        Args:
            heat: Numbers `(H, W)` of any scale.
            labels: Integer ids `(H, W)`.

        Raises:
            ValueError: Shapes differ, or the map contains numbers that are not finite.
        """
        if heat.shape != labels.shape or not np.isfinite(heat).all():
            raise ValueError(
                f"A heat map of shape {heat.shape} must contain finite numbers and match the shape of the labels, "
                f"{labels.shape}."
            )
        known = labels != self.ignore_index
        near = near_boundary(labels, self.distance, self.ignore_index)
        score = area_under_roc(heat[known], near[known])
        if score is not None:
            self.state += torch.tensor([score, 1.0], dtype=torch.float64)

    def compute(self) -> float | None:
        """Mean over images, in [0, 1]; None if no image was evaluated."""
        total, images = self.state.tolist()
        return total / images if images else None


def area_under_roc(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Probability that a positive has a larger score than a negative, ties counting one half.

    Args:
        scores: Numbers `(N,)`.
        positive: bool `(N,)`.

    Returns:
        In [0, 1]; None without a positive or without a negative.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    from scipy.stats import rankdata

    beaten = rankdata(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(beaten / (positives * negatives))


def _largest_around(values: np.ndarray, distance: int) -> np.ndarray:
    """Largest value at most `distance` rows and columns away, inside the image."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(values, 2 * distance + 1, mode="constant", cval=NOTHING)
