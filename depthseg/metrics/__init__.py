"""Metrics of predictions, accumulated image by image without storing prediction maps."""

from .calibration import CalibrationError
from .confusion import ConfusionMatrix, segmentation_scores
from .depth import ALIGNMENTS, CROPS, DepthErrors
from .flow import FlowErrors
from .images import CategoryScores, InpaintingErrors
from .meter import Meter
from .reductions import scores_of_images
from .stamp import Stamp, check_same_stamps
from .trajectory import chain_poses, straight_line, trajectory_errors

__all__ = [
    "ALIGNMENTS",
    "CROPS",
    "CalibrationError",
    "CategoryScores",
    "ConfusionMatrix",
    "DepthErrors",
    "FlowErrors",
    "Meter",
    "InpaintingErrors",
    "Stamp",
    "chain_poses",
    "check_same_stamps",
    "scores_of_images",
    "segmentation_scores",
    "straight_line",
    "trajectory_errors",
]
