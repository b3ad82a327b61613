"""Turn depth networks into segmentation networks, in the Hugging Face way."""

from .models import (
    DepthSegConfig,
    DepthSegForDepthEstimation,
    DepthSegForImageClassification,
    DepthSegForImageReconstruction,
    DepthSegForOpticalFlow,
    DepthSegForSemanticSegmentation,
    DepthSegImageProcessor,
)

__version__ = "0.1.0"

__all__ = [
    "DepthSegConfig",
    "DepthSegForDepthEstimation",
    "DepthSegForImageClassification",
    "DepthSegForImageReconstruction",
    "DepthSegForOpticalFlow",
    "DepthSegForSemanticSegmentation",
    "DepthSegImageProcessor",
    "__version__",
]
