"""Turn depth networks into segmentation networks, in the Hugging Face way.

The classes are imported when they are first asked for, so that `import depthseg` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .auto_classes import register_on_first_use

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name not in (*__all__, "models"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    models = import_module(".models", __name__)
    return models if name == "models" else getattr(models, name)


def __dir__() -> list[str]:
    return [*__all__, "models"]


register_on_first_use()
