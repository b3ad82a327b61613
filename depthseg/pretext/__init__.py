"""Training objectives: losses of all tasks, with the networks that they need beside the model."""

from .classification import ClassificationObjective
from .flow import OpticalFlowObjective
from .inpainting import InpaintingObjective
from .photometric import PhotometricLoss, photometric_error
from .pose import POSE_NETWORKS, LearnedCamera, PoseNetwork, build_pose_network
from .self_supervised import Explanation, SelfSupervisedObjective, start_far
from .supervised import SupervisedObjective

__all__ = [
    "POSE_NETWORKS",
    "ClassificationObjective",
    "Explanation",
    "LearnedCamera",
    "OpticalFlowObjective",
    "PhotometricLoss",
    "PoseNetwork",
    "InpaintingObjective",
    "SelfSupervisedObjective",
    "SupervisedObjective",
    "build_pose_network",
    "photometric_error",
    "start_far",
]
