"""Scores of predictions, filled image by image; nothing keeps prediction maps."""

from .confusion import ConfusionMatrix, segmentation_scores
from .depth import ALIGNMENTS, DepthErrors

__all__ = ["ALIGNMENTS", "ConfusionMatrix", "DepthErrors", "segmentation_scores"]
