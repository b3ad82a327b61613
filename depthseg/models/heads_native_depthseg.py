"""The neck and head of a depth model of transformers, without its last convolution."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .heads_base_depthseg import DepthSegHead, check_ending, complete_options
from .heads_depthpro_depthseg import DepthProHead, DepthProHeadConfig
from .heads_dpt_depthseg import DPTHead, DPTHeadConfig
from .heads_glpn_depthseg import GLPNHead, GLPNHeadConfig
from .heads_zoedepth_depthseg import ZoeDepthHead, ZoeDepthHeadConfig

NATIVE_HEADS: dict[str, tuple[type[DepthSegHead], type]] = {
    "depth_anything": (DPTHead, DPTHeadConfig),
    "depth_pro": (DepthProHead, DepthProHeadConfig),
    "dpt": (DPTHead, DPTHeadConfig),
    "glpn": (GLPNHead, GLPNHeadConfig),
    "prompt_depth_anything": (DPTHead, DPTHeadConfig),
    "zoedepth": (ZoeDepthHead, ZoeDepthHeadConfig),
}
"""Model type in transformers -> head class and its options."""


@dataclass(frozen=True)
class NativeHeadConfig:
    """Options of a native head.

    Args:
        family (`str`): A key of [`NATIVE_HEADS`]: the model type of the depth model in transformers.
        ending (`str`, *optional*, defaults to `"last_layer"`): The part that a segmenter replaces: only the last
            convolution (`"last_layer"`, recommended by the paper), or all layers after the fused features, with DPT's
            own segmentation block (`"segmentation_block"`).
        options (`dict`, *optional*): Options of the family's head, without `ending`.
    """

    family: str = "dpt"
    ending: str = "last_layer"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.family not in NATIVE_HEADS:
            raise ValueError(f"head_config.family is {self.family!r}; allowed are {', '.join(NATIVE_HEADS)}.")
        check_ending(self.ending)
        if "ending" in self.options:
            raise ValueError("head_config.options.ending does not exist; set head_config.ending.")
        config_class = NATIVE_HEADS[self.family][1]
        options = complete_options(config_class, self.options, f"the native head of {self.family!r}")
        del options["ending"]
        object.__setattr__(self, "options", options)


class NativeHead:
    """Builds the head of a family; see [`NATIVE_HEADS`]."""

    def __new__(  # type: ignore[misc]  # it returns a head of another class
        cls, channels: list[int], strides: tuple[float, ...], num_prefix_tokens: int, config: NativeHeadConfig
    ) -> DepthSegHead:
        """Return the family's head for an encoder's maps."""
        head_class, config_class = NATIVE_HEADS[config.family]
        return head_class(channels, strides, num_prefix_tokens, config_class(ending=config.ending, **config.options))


def canonical_head(head_type: str, head_config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return a type and options that are equal for heads whose bodies have the same tensors with the same meaning.

    The native heads of the DPT families are equal to the head `dpt`; an ending changes the classifier, not the body.
    """
    options = dict(head_config)
    options.pop("ending", None)
    if head_type != "native":
        return head_type, options
    if NATIVE_HEADS[options["family"]][0] is DPTHead:
        return "dpt", options["options"]
    return f"native:{options['family']}", options["options"]
