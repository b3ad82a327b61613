"""The table of encoders."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import CONFIG_MAPPING, PreTrainedConfig

from .encoders_auto_depthseg import (
    ConvNextBackboneEncoder,
    FixedSizeBackboneEncoder,
    FocalNetBackboneEncoder,
    LCNetBackboneEncoder,
    PlainBackboneEncoder,
    PVTBackboneEncoder,
    PyramidBackboneEncoder,
    RotaryViTBackboneEncoder,
    ViTBackboneEncoder,
)
from .encoders_base_depthseg import DepthSegEncoder
from .encoders_dpt_depthseg import DPTEncoder
from .encoders_efficientnet_depthseg import DepthSegEfficientNetLiteConfig, EfficientNetLiteEncoder
from .encoders_families_depthseg import DepthProEncoder, GLPNEncoder
from .encoders_mobilenet_depthseg import DepthSegMobileNetV2Config, MobileNetV2Encoder
from .encoders_resnet_depthseg import DepthSegResNetConfig, ResNetEncoder
from .encoders_vit_depthseg import ViTEncoder, ViTMAEEncoder


@dataclass(frozen=True)
class EncoderEntry:
    """One row of [`ENCODERS`], read by the configuration, the model, the tests and the README table.

    Args:
        cls (`type[DepthSegEncoder]`): Built as `cls(encoder_config)`.
        config_class (`type[PreTrainedConfig]`): Class of `encoder_config`.
        summary (`str`): One line for the README table.
        source (`str`): The paper.
        fixed_size (`bool`, *optional*, defaults to `False`): Whether images are resized to one size.
    """

    cls: type[DepthSegEncoder]
    config_class: type[PreTrainedConfig]
    summary: str
    source: str
    fixed_size: bool = False


ENCODERS: dict[str, EncoderEntry] = {
    "depthseg_resnet": EncoderEntry(
        ResNetEncoder,
        DepthSegResNetConfig,
        "ResNet-18/34/50/101 as in Monodepth2: five maps at strides 2 to 32, any width.",
        "https://huggingface.co/papers/1806.01260",
    ),
    "depthseg_mobilenet_v2": EncoderEntry(
        MobileNetV2Encoder,
        DepthSegMobileNetV2Config,
        "MobileNetV2: five maps at strides 2 to 32, any width.",
        "https://huggingface.co/papers/1801.04381",
    ),
    "depthseg_efficientnet_lite": EncoderEntry(
        EfficientNetLiteEncoder,
        DepthSegEfficientNetLiteConfig,
        "EfficientNet-Lite 0 to 4: five maps at strides 2 to 32, any width.",
        "https://huggingface.co/papers/1905.11946",
    ),
    "depth_pro": EncoderEntry(
        DepthProEncoder,
        CONFIG_MAPPING["depth_pro"],
        "DepthPro's two ViTs, on patches of the image at three scales and on the whole image.",
        "https://huggingface.co/papers/2410.02073",
        fixed_size=True,
    ),
    "glpn": EncoderEntry(
        GLPNEncoder,
        CONFIG_MAPPING["glpn"],
        "GLPN's Mix Transformer (SegFormer's encoder).",
        "https://huggingface.co/papers/2201.07436",
    ),
    "dpt": EncoderEntry(
        DPTEncoder,
        CONFIG_MAPPING["dpt"],
        "DPT's own ViT, plain or hybrid with a BiT ResNet.",
        "https://huggingface.co/papers/2103.13413",
    ),
    "vit": EncoderEntry(
        ViTEncoder,
        CONFIG_MAPPING["vit"],
        "Plain ViT, pre-trained for classification.",
        "https://huggingface.co/papers/2010.11929",
    ),
    "vit_mae": EncoderEntry(
        ViTMAEEncoder,
        CONFIG_MAPPING["vit_mae"],
        "Plain ViT, pre-trained as a masked autoencoder (MAE).",
        "https://huggingface.co/papers/2111.06377",
    ),
}
"""Every encoder by the model type of its configuration; those of `AUTO_BACKBONES` are added below."""

# The backbones of `AutoBackbone`: class, summary, number of the paper.
AUTO_BACKBONES: dict[str, tuple[type[DepthSegEncoder], str, str]] = {
    "dinov2": (ViTBackboneEncoder, "DINOv2, the encoder of Depth Anything.", "2304.07193"),
    "dinov2_with_registers": (ViTBackboneEncoder, "DINOv2 with register tokens.", "2309.16588"),
    "dinov3_vit": (RotaryViTBackboneEncoder, "DINOv3, with rotary positions and register tokens.", "2508.10104"),
    "dinov3_convnext": (ConvNextBackboneEncoder, "ConvNeXt distilled from DINOv3.", "2508.10104"),
    "beit": (ViTBackboneEncoder, "BEiT, the encoder of DPT-BEiT and ZoeDepth.", "2106.08254"),
    "bit": (PyramidBackboneEncoder, "Big Transfer: ResNetV2 with group norm.", "1912.11370"),
    "convnext": (ConvNextBackboneEncoder, "ConvNeXt.", "2201.03545"),
    "convnextv2": (ConvNextBackboneEncoder, "ConvNeXt V2.", "2301.00808"),
    "focalnet": (FocalNetBackboneEncoder, "FocalNet: focal modulation instead of attention.", "2203.11926"),
    "hgnet_v2": (PyramidBackboneEncoder, "HGNetV2, the convolutional encoder of RT-DETR and D-FINE.", "2304.08069"),
    "hiera": (FixedSizeBackboneEncoder, "Hiera: a plain hierarchy of ViT blocks.", "2306.00989"),
    "lw_detr_vit": (PlainBackboneEncoder, "The ViT of LW-DETR, with a fixed number of windows.", "2406.03458"),
    "maskformer-swin": (PyramidBackboneEncoder, "Swin as in MaskFormer.", "2107.06278"),
    "pixio": (ViTBackboneEncoder, "Pixio: a ViT pre-trained as an MAE, with several CLS tokens.", "2512.15715"),
    "pp_lcnet": (LCNetBackboneEncoder, "PP-LCNet: a small network for CPUs.", "2109.15099"),
    "pvt_v2": (PVTBackboneEncoder, "Pyramid Vision Transformer V2.", "2106.13797"),
    "resnet": (PyramidBackboneEncoder, "ResNet as in transformers: four maps at strides 4 to 32.", "1512.03385"),
    "rt_detr_resnet": (PyramidBackboneEncoder, "ResNet-D, the encoder of RT-DETR.", "2304.08069"),
    "sapiens2": (RotaryViTBackboneEncoder, "Sapiens2: a ViT trained on images of people.", "2604.21681"),
    "swin": (PyramidBackboneEncoder, "Swin Transformer.", "2103.14030"),
    "swinv2": (PyramidBackboneEncoder, "Swin Transformer V2, the encoder of DPT-Swinv2.", "2111.09883"),
    "textnet": (PyramidBackboneEncoder, "TextNet, the convolutional encoder of FAST.", "2111.02394"),
    "tipsv2_vision_model": (ViTBackboneEncoder, "The image encoder of TIPSv2.", "2604.12012"),
    "vitdet": (PlainBackboneEncoder, "ViTDet: a plain ViT with windowed attention.", "2203.16527"),
}
for _model_type, (_cls, _summary, _paper) in AUTO_BACKBONES.items():
    # Other versions of transformers may lack a backbone.
    if _model_type in CONFIG_MAPPING:
        ENCODERS[_model_type] = EncoderEntry(
            _cls,
            CONFIG_MAPPING[_model_type],
            _summary,
            f"https://huggingface.co/papers/{_paper}",
            fixed_size=_cls is FixedSizeBackboneEncoder,
        )

# Backbones of `AutoBackbone` that are not supported as encoders, with the reason.
UNSUPPORTED_BACKBONES: dict[str, str] = {
    "dinat": "Requires the package natten.",
    "pp_lcnet_v3": "Designed for text recognition; its norms cancel some of its trainable biases. Use `pp_lcnet`.",
    "pp_lcnet_v4": "Designed for lines of text: it halves only the height, so a map has two different strides.",
    "rf_detr_dinov2": "Its windows permute the patches of images that are not square. Use `dinov2`, its base model.",
    "timm_backbone": "Requires the package timm.",
    "tipsv2": "An image and a text model in one. Use `tipsv2_vision_model`, its image encoder.",
    "uvdoc_backbone": "Designed for document rectification: its maps are parallel branches with one stride.",
    "vitpose_backbone": "Designed for crops of one person; its patches do not cover the last pixels of an image.",
}


def encoder_entry(model_type: str | None) -> EncoderEntry:
    """Return the row of an encoder type.

    Raises:
        ValueError: If there is no such encoder.
    """
    if model_type in UNSUPPORTED_BACKBONES:
        raise ValueError(
            f"encoder_config.model_type {model_type!r} is not supported. {UNSUPPORTED_BACKBONES[model_type]}"
        )
    if model_type not in ENCODERS:
        raise ValueError(f"encoder_config.model_type is {model_type!r}; allowed are {', '.join(ENCODERS)}.")
    return ENCODERS[model_type]
