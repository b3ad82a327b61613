"""What is taken over when one checkpoint starts another model, and why.

A model of depth or labels has up to four parts: `encoder`, `head` (the decoder body), `depth_predictor` and
`classifier`; one of another pre-training has two: `encoder` and `pretext_head`. Each part is taken as a whole or not
at all, by name; the decision reads the two configurations, never the shapes of tensors, because heads of different
types have tensors of equal name and shape that mean different things.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from .heads_native_depthseg import canonical_head

PARTS_OF_TASK = {
    "DepthSegForDepthEstimation": ("encoder", "head", "depth_predictor"),
    "DepthSegForSemanticSegmentation": ("encoder", "head", "classifier"),
    "DepthSegForOpticalFlow": ("encoder", "pretext_head"),
    "DepthSegForImageReconstruction": ("encoder", "pretext_head"),
    "DepthSegForImageClassification": ("encoder", "pretext_head"),
}
# Fields of an encoder's configuration that do not change what its weights mean.
ENCODER_CIRCUMSTANCES = frozenset(
    {
        *("transformers_version", "dtype", "torch_dtype", "_name_or_path", "architectures", "attn_implementation"),
        # Dilation in place of strides: the same filters on a finer grid.
        "output_stride",
    }
)


@dataclass(frozen=True)
class PartTransfer:
    """What happened to one part.

    Args:
        part (`str`): `encoder`, `head`, `depth_predictor`, `classifier` or `pretext_head`.
        status (`str`): `"taken"`, `"new"` (randomly initialised) or `"left over"` (in the checkpoint, not used).
        why (`str`): The reason.
        tensors (`int`): Number of tensors, buffers included.
        parameters (`int`): Number of elements in them.
    """

    part: str
    status: str
    why: str
    tensors: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class TransferReport:
    """What a model took from a checkpoint; `str()` gives a table.

    Args:
        source (`str`): Hub id or folder name of the checkpoint.
        revision (`str` or `None`): Commit of the checkpoint, if it came from the Hub.
        source_class (`str`): Class that wrote the checkpoint.
        target_class (`str`): Class that was loaded.
        parts (`tuple[PartTransfer, ...]`): One entry a part.
    """

    source: str
    revision: str | None
    source_class: str
    target_class: str
    parts: tuple[PartTransfer, ...]

    @property
    def is_reload(self) -> bool:
        """Whether the model is the checkpoint's own: same class, and every part taken."""
        return self.source_class == self.target_class and all(part.status == "taken" for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, the form in which `weight_lineage` keeps it."""
        return asdict(self) | {"parts": [asdict(part) for part in self.parts]}

    def __str__(self) -> str:
        origin = f"{self.source}@{self.revision[:12]}" if self.revision else self.source
        lines = [f"{self.target_class} from {origin} ({self.source_class}):"]
        width = max(16, *(len(entry.part) for entry in self.parts))
        for entry in self.parts:
            counts = f"{entry.tensors:>5} tensors {entry.parameters:>12,} numbers"
            lines.append(f"  {entry.part:<{width}} {entry.status:<10} {counts}  {entry.why}")
        return "\n".join(lines)


def source_name(pretrained_model_name_or_path: str | os.PathLike) -> str:
    """Return a Hub id as it is, and of a folder the last two names only: a private path must not travel."""
    name = os.fspath(pretrained_model_name_or_path)
    if not os.path.isdir(name):
        return name
    return "/".join(os.path.abspath(name).split(os.sep)[-2:])


def structure(encoder_config: Any) -> dict[str, Any]:
    """Return the fields of an encoder's configuration that decide what its weights mean."""
    values = encoder_config.to_dict()
    return {name: value for name, value in values.items() if name not in ENCODER_CIRCUMSTANCES}


def plan_transfer(
    source: Any, target: Any, target_class: str, head_init: str, transfer_head: bool = False
) -> dict[str, tuple[bool, str]]:
    """Decide for each part of the target whether the checkpoint's is taken.

    Args:
        source ([`DepthSegConfig`]): Configuration of the checkpoint; its `architectures` names the class.
        target ([`DepthSegConfig`]): Configuration of the model to load.
        target_class (`str`): Name of the class to load.
        head_init (`str`): `"pretrained"` or `"random"`.
        transfer_head (`bool`, *optional*, defaults to `False`): Whether to take the decoder of a reconstruction.

    Returns:
        `dict[str, tuple[bool, str]]`: part -> (is it taken, why).

    Raises:
        ValueError: If the encoders differ: then nothing could be taken over. If `transfer_head` cannot be done.
    """
    source_class = (source.architectures or ["an unknown class"])[0]
    changed = sorted(
        name
        for name in structure(source.encoder_config).keys() | structure(target.encoder_config).keys()
        if structure(source.encoder_config).get(name) != structure(target.encoder_config).get(name)
    )
    if changed:
        raise ValueError(
            f"encoder_config differs from the checkpoint's in {', '.join(changed)}; weights are taken as a whole or "
            "not at all. Leave encoder_config out to take the checkpoint's encoder, or build the model from a "
            "configuration to start from random weights."
        )
    plan = {"encoder": (True, "same encoder")}
    if "pretext_head" in parts_of(target_class, target):
        plan["pretext_head"] = plan_pretext_head(source, target, source_class, target_class, head_init)
    else:
        plan["head"] = plan_head(source, target, source_class, head_init)
    if transfer_head:
        refuse_transfer_head(source, target, source_class, target_class, head_init)
        plan["head"] = (True, "the body of pretext_head, by transfer_head=True")
    source_parts = parts_of(source_class, source)
    for part in ("depth_predictor", "classifier"):
        if part in parts_of(target_class, target):
            plan[part] = plan_last_layer(part, source, target, source_parts, source_class, plan["head"])
    return plan


def parts_of(class_name: str, config: Any) -> tuple[str, ...]:
    """Return the parts that a model class has under a configuration; none for a class of another task."""
    parts = PARTS_OF_TASK.get(class_name, ("encoder",))
    if class_name == "DepthSegForSemanticSegmentation" and config.keep_depth:
        parts += ("depth_predictor",)
    return parts


def plan_head(source: Any, target: Any, source_class: str, head_init: str) -> tuple[bool, str]:
    """Decide on the decoder body."""
    if "head" not in parts_of(source_class, source):
        return False, why_no_head(source_class)
    if head_init == "random":
        return False, "head_init='random' asked for a new one"
    difference = compare_heads(source, target)
    return (False, difference) if difference else (True, "same head")


def why_no_head(source_class: str) -> str:
    """Say why a checkpoint has no decoder body of depth or labels."""
    if source_class not in PARTS_OF_TASK:
        return f"{source_class} is not known here, except for its encoder"
    if source_class == "DepthSegForImageClassification":
        return f"{source_class} has no decoder"
    return f"{source_class} keeps its decoder as pretext_head: it solves another task"


def compare_heads(source: Any, target: Any) -> str:
    """Say in what two configurations' decoder bodies differ; an empty string if in nothing."""
    source_type, source_options = canonical_head(source.head_type, source.head_config)
    target_type, target_options = canonical_head(target.head_type, target.head_config)
    if source_type != target_type:
        return f"head_type {source.head_type!r} in the checkpoint, {target.head_type!r} here"
    changed = sorted(name for name, value in target_options.items() if source_options.get(name) != value)
    return f"head_config differs in {', '.join(changed)}" if changed else ""


def plan_pretext_head(
    source: Any, target: Any, source_class: str, target_class: str, head_init: str
) -> tuple[bool, str]:
    """Decide on the decoder of a pretext task, its last layer included."""
    if "pretext_head" not in parts_of(source_class, source):
        return False, f"{source_class} has none"
    if source_class != target_class:
        return False, f"{source_class} solves another task"
    if head_init == "random":
        return False, "head_init='random' asked for a new one"
    if target_class == "DepthSegForImageClassification":
        difference = compare_classes(source, target)
    else:
        difference = compare_heads(source, target)
    if not difference and target_class == "DepthSegForOpticalFlow" and source.flow_range != target.flow_range:
        difference = f"flow_range {source.flow_range} in the checkpoint, {target.flow_range} here"
    return (False, difference) if difference else (True, "same task")


def refuse_transfer_head(source: Any, target: Any, source_class: str, target_class: str, head_init: str) -> None:
    """Raise unless a reconstruction's decoder can become `head`; who asks for it is not served by a new one."""
    if "head" not in parts_of(target_class, target):
        why = f"{target_class} has no head"
    elif head_init == "random":
        why = "head_init='random' asks for a new one"
    elif "head" in parts_of(source_class, source):
        why = f"{source_class} has a head, which is handed on without it"
    elif source_class == "DepthSegForOpticalFlow":
        why = f"that of {source_class} reads the maps of two pictures: it has other channels"
    elif source_class != "DepthSegForImageReconstruction":
        why = why_no_head(source_class)
    else:
        why = compare_heads(source, target)
    if why:
        raise ValueError(f"transfer_head=True takes the decoder of a reconstruction as head, but {why}.")


def plan_last_layer(
    part: str, source: Any, target: Any, source_parts: tuple[str, ...], source_class: str, head: tuple[bool, str]
) -> tuple[bool, str]:
    """Decide on `depth_predictor` or `classifier`."""
    if part not in source_parts:
        return False, f"{source_class} has none"
    if not head[0]:
        return False, "reads the head, which is new"
    if part == "classifier" and ending_of(source) != ending_of(target):
        return False, f"ending {ending_of(source)!r} in the checkpoint, {ending_of(target)!r} here"
    if part == "classifier" and compare_classes(source, target):
        return False, compare_classes(source, target)
    if part == "depth_predictor" and source.depth_type != target.depth_type:
        return False, f"depth_type {source.depth_type!r} in the checkpoint, {target.depth_type!r} here"
    return True, "same task"


def compare_classes(source: Any, target: Any) -> str:
    """Say how two configurations' numbers of classes differ; an empty string if they do not."""
    if source.num_labels == target.num_labels:
        return ""
    return f"{source.num_labels} classes in the checkpoint, {target.num_labels} here"


def ending_of(config: Any) -> str:
    """Return what a head's classifier replaces; heads without that option end in one layer."""
    return config.head_config.get("ending", "last_layer")
