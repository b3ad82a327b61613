"""The table of heads.

The `forward` of a head is the decoder body, the same for depth and segmentation: from features to decoder maps, finest
first. The head builds the last layer, but the model owns it under the name of its task: `depth_predictor` or
`classifier`. A depth network therefore becomes a segmenter by replacing one small module. Models of other pre-training
tasks have their decoder under another name; see [`PretextHead`].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .heads_base_depthseg import DepthSegHead, complete_options
from .heads_deeplabv3_depthseg import DeepLabV3Head, DeepLabV3HeadConfig
from .heads_dpt_depthseg import DPTHead, DPTHeadConfig
from .heads_fcn_depthseg import FCNHead, FCNHeadConfig
from .heads_linear_depthseg import LinearHead, LinearHeadConfig
from .heads_mask2former_depthseg import Mask2FormerHead, Mask2FormerHeadConfig
from .heads_mask_queries_depthseg import MaskQueriesHead, MaskQueriesHeadConfig
from .heads_monodepth2_depthseg import Monodepth2Head, Monodepth2HeadConfig
from .heads_native_depthseg import NATIVE_HEADS, NativeHead, NativeHeadConfig
from .heads_segformer_depthseg import SegFormerHead, SegFormerHeadConfig
from .heads_upernet_depthseg import UPerNetHead, UPerNetHeadConfig


@dataclass(frozen=True)
class HeadEntry:
    """One row of [`HEADS`], read by the configuration, the model, the tests and the README table.

    Args:
        cls (`type[DepthSegHead]`): Built as `cls(channels, strides, num_prefix_tokens, config)`.
        config_class (`type`): Frozen dataclass of the head's options; its defaults complete `head_config`.
        kind (`str`): `"dense"` (one logit per pixel and class) or `"masks"` (queries with a mask and a class each).
        tasks (`tuple[str, ...]`): Its tasks: `"depth"`, `"segmentation"`.
        min_levels (`int`): Minimum number of encoder maps.
        summary (`str`): One line for the README table.
        source (`str`): The paper.
        encoders (`tuple[str, ...]` or `None`): The supported encoders; `None` = any.
    """

    cls: Callable[..., DepthSegHead]
    config_class: type
    kind: str
    tasks: tuple[str, ...]
    min_levels: int
    summary: str
    source: str
    encoders: tuple[str, ...] | None = None


HEADS: dict[str, HeadEntry] = {
    "monodepth2": HeadEntry(
        Monodepth2Head,
        Monodepth2HeadConfig,
        "dense",
        ("depth", "segmentation"),
        1,
        "U-Net decoder of Monodepth2, as in the paper: up-convolutions with skips, depth at up to four scales.",
        "https://huggingface.co/papers/1806.01260",
    ),
    "dpt": HeadEntry(
        DPTHead,
        DPTHeadConfig,
        "dense",
        ("depth", "segmentation"),
        4,
        "Reassemble and fusion blocks of DPT, on maps of transformers or convolutional networks.",
        "https://huggingface.co/papers/2103.13413",
    ),
    "native": HeadEntry(
        NativeHead,
        NativeHeadConfig,
        "dense",
        ("depth", "segmentation"),
        4,
        "The neck and head of a depth model of transformers, without its last convolution; "
        f"family: {', '.join(NATIVE_HEADS)}.",
        "https://huggingface.co/papers/2103.13413",
        encoders=("dpt", "dinov2", "beit", "swinv2", "glpn", "depth_pro"),
    ),
    "linear": HeadEntry(
        LinearHead,
        LinearHeadConfig,
        "dense",
        ("depth", "segmentation"),
        1,
        "Linear probe: BatchNorm and one 1x1 convolution on the last map, or on the last four.",
        "https://huggingface.co/papers/2304.07193",
    ),
    "fcn": HeadEntry(
        FCNHead,
        FCNHeadConfig,
        "dense",
        ("depth", "segmentation"),
        1,
        "Fully convolutional baseline: 3x3 convolutions with BatchNorm on one map.",
        "https://huggingface.co/papers/1411.4038",
    ),
    "deeplabv3": HeadEntry(
        DeepLabV3Head,
        DeepLabV3HeadConfig,
        "dense",
        ("depth", "segmentation"),
        1,
        "Dilated convolutions of several rates and image-level features, on the deepest map.",
        "https://huggingface.co/papers/1706.05587",
    ),
    "upernet": HeadEntry(
        UPerNetHead,
        UPerNetHeadConfig,
        "dense",
        ("depth", "segmentation"),
        1,
        "Pyramid pooling and a feature pyramid network on the last four maps.",
        "https://huggingface.co/papers/1807.10221",
    ),
    "segformer": HeadEntry(
        SegFormerHead,
        SegFormerHeadConfig,
        "dense",
        ("depth", "segmentation"),
        1,
        "All-MLP decoder: one linear layer per map on the last four maps, fused by another.",
        "https://huggingface.co/papers/2105.15203",
    ),
    "mask2former": HeadEntry(
        Mask2FormerHead,
        Mask2FormerHeadConfig,
        "masks",
        ("segmentation",),
        1,
        "Masks and their classes from queries: Mask2Former's pixel decoder and transformer decoder.",
        "https://huggingface.co/papers/2112.01527",
    ),
    "mask_queries": HeadEntry(
        MaskQueriesHead,
        MaskQueriesHeadConfig,
        "masks",
        ("segmentation",),
        1,
        "Light mask head: queries beside the tokens of a frozen encoder, lateral connections, no pixel decoder.",
        "https://huggingface.co/papers/2503.19108",
    ),
}
"""Every head by name; the configuration, the model, the tests and the documentation read this table."""


def head_entry(head_type: str) -> HeadEntry:
    """Return the row of a head type.

    Raises:
        ValueError: If there is no such head.
    """
    if head_type not in HEADS:
        raise ValueError(f"head_type is {head_type!r}; allowed are {', '.join(HEADS)}.")
    return HEADS[head_type]


def complete_head_config(head_type: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """Check the options of a head and fill in its defaults.

    Args:
        head_type (`str`): A key of [`HEADS`].
        options (`dict`, *optional*): Some or all of the head's options.

    Returns:
        `dict`: every option, as plain JSON types.

    Raises:
        ValueError: For an unknown head, an unknown option, or a value that the head refuses.
    """
    return complete_options(head_entry(head_type).config_class, options, f"head_type {head_type!r}")


def build_head(
    head_type: str,
    head_config: dict[str, Any],
    channels: list[int],
    strides: tuple[float, ...],
    num_prefix_tokens: int,
) -> DepthSegHead:
    """Build a head for an encoder's maps.

    Args:
        head_type (`str`): A key of [`HEADS`].
        head_config (`dict`): The head's options.
        channels (`list[int]`): Channels of the encoder's maps, shallow to deep.
        strides (`tuple[float, ...]`): Input pixels per cell of those maps.
        num_prefix_tokens (`int`): Prefix tokens of each map, 0 for convolutional encoders.

    Raises:
        ValueError: If the encoder has fewer maps than the head requires.
    """
    entry = head_entry(head_type)
    if len(channels) < entry.min_levels:
        raise ValueError(
            f"head_type {head_type!r} requires at least {entry.min_levels} encoder maps, but the encoder returns "
            f"{len(channels)}; select more layers in encoder_config.out_indices, or choose another head."
        )
    return entry.cls(channels, strides, num_prefix_tokens, entry.config_class(**head_config))


def build_head_on(encoder: Any, config: Any, num_images: int = 1) -> DepthSegHead:
    """Build the head of a configuration.

    Args:
        encoder ([`DepthSegEncoder`]): The encoder whose maps the head reads.
        config ([`DepthSegConfig`]): Its `head_type` and `head_config` are used.
        num_images (`int`, *optional*, defaults to `1`): Number of images whose maps are concatenated.

    Raises:
        ValueError: As [`build_head`].
    """
    channels = [num_images * given for given in encoder.channels]
    return build_head(config.head_type, config.head_config, channels, encoder.strides, encoder.num_prefix_tokens)
