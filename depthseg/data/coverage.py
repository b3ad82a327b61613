"""Which images to label, where nothing is labelled yet: those that together stand for all."""

from __future__ import annotations

import numpy as np


def coverage_order(features: np.ndarray, count: int) -> list[int]:
    """Choose rows to which all rows are similar, the most useful first.

    The similarity of two rows is that of their directions, from 0 (opposite) to 1. Each choice is the row that raises
    the mean, over all rows, of the similarity to the most similar chosen row most; of equal ones the first. This
    greedy choice comes within a factor of 1 - 1/e of the best one (facility location; Nemhauser, Wolsey and Fisher
    1978). A smaller choice is the beginning of a larger one.

    Args:
        features: One row for each image, `(N, C)`, finite.
        count: How many, 1 to N.

    Returns:
        Indices of rows.

    Raises:
        ValueError: `count` is out of range, or features are not finite.
    """
    if not 1 <= count <= len(features):
        raise ValueError(f"{count} images were asked for, but there are {len(features)}; ask for 1 to that.")
    features = np.asarray(features, dtype=np.float64)
    if not np.isfinite(features).all():
        raise ValueError("The features hold values that are not finite, so images cannot be compared by them.")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = (features / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)
    similarity = (1 + directions @ directions.T) / 2
    covered = np.zeros(len(features), np.float32)
    chosen: list[int] = []
    for _ in range(count):
        gains = np.maximum(similarity - covered, 0).sum(axis=1, dtype=np.float64)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, similarity[chosen[-1]])
    return chosen
