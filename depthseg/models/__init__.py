"""The models, and their registration with transformers' Auto classes.

The files whose names end in `_depthseg` are saved with every model; this one is not.
"""

from typing import Any

import transformers
from transformers import AutoConfig, AutoImageProcessor

from .configuration_depthseg import DepthSegConfig
from .encoders_base_depthseg import EncoderFeatures
from .encoders_depthseg import ENCODERS
from .encoders_efficientnet_depthseg import DepthSegEfficientNetLite, DepthSegEfficientNetLiteConfig
from .encoders_mobilenet_depthseg import DepthSegMobileNetV2, DepthSegMobileNetV2Config
from .encoders_resnet_depthseg import DepthSegResNet, DepthSegResNetConfig
from .heads_depthseg import HEADS
from .image_processing_depthseg import DepthSegImageProcessor, check_input_scaling
from .loading_depthseg import TASK_CLASSES
from .losses_depthseg import valid_depth
from .modeling_depthseg import (
    DepthSegDepthOutput,
    DepthSegForDepthEstimation,
    DepthSegForSemanticSegmentation,
    DepthSegPreTrainedModel,
    DepthSegSegmenterOutput,
)
from .modeling_pretext_depthseg import (
    DepthSegFlowOutput,
    DepthSegForImageClassification,
    DepthSegForImageReconstruction,
    DepthSegForOpticalFlow,
    DepthSegReconstructionOutput,
)
from .transfer_depthseg import TransferReport
from .transfer_families_depthseg import DEPTH_FAMILIES, UNSUPPORTED_FAMILIES

__all__ = [
    "DEPTH_FAMILIES",
    "ENCODERS",
    "HEADS",
    "UNSUPPORTED_FAMILIES",
    "DepthSegConfig",
    "DepthSegDepthOutput",
    "DepthSegEfficientNetLite",
    "DepthSegEfficientNetLiteConfig",
    "DepthSegFlowOutput",
    "DepthSegForDepthEstimation",
    "DepthSegForImageClassification",
    "DepthSegForImageReconstruction",
    "DepthSegForOpticalFlow",
    "DepthSegForSemanticSegmentation",
    "DepthSegImageProcessor",
    "DepthSegMobileNetV2",
    "DepthSegMobileNetV2Config",
    "DepthSegPreTrainedModel",
    "DepthSegReconstructionOutput",
    "DepthSegResNet",
    "DepthSegResNetConfig",
    "DepthSegSegmenterOutput",
    "EncoderFeatures",
    "TransferReport",
    "check_input_scaling",
    "valid_depth",
]

# Locally, the Auto classes use the installed classes; a saved model contains its own code.
AutoConfig.register(DepthSegConfig.model_type, DepthSegConfig)
DepthSegConfig.register_for_auto_class()
AutoImageProcessor.register(DepthSegConfig, slow_image_processor_class=DepthSegImageProcessor)
DepthSegImageProcessor.register_for_auto_class("AutoImageProcessor")
task_class: Any
for task_class in TASK_CLASSES.values():
    if hasattr(transformers, task_class.auto_class):
        getattr(transformers, task_class.auto_class).register(DepthSegConfig, task_class)
        task_class.register_for_auto_class(task_class.auto_class)
