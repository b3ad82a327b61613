"""Which parts are transferred when a checkpoint initialises another model, and why.

A model for depth or segmentation has up to four parts: `encoder`, `head` (the decoder body), `depth_predictor` and
`classifier`; a model of another pre-training task has two: `encoder` and `pretext_head`. Each part is transferred
completely or not at all. The decision is based on the two configurations, never on the shapes of tensors, because
heads of different types have tensors with equal names and shapes but different meanings.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from .heads_native_depthseg import canonical_head

# Fields of an encoder's configuration that do not change the meaning of its weights.
ENCODER_CIRCUMSTANCES = frozenset(
    {
        *("transformers_version", "dtype", "torch_dtype", "_name_or_path", "architectures", "attn_implementation"),
        # Dilation instead of strides: the same filters on a finer grid.
        "output_stride",
    }
)


STATUS_WORDS = {"taken": "transferred", "new": "new", "left over": "not used"}
"""Status of a part -> its name in the printed report."""


@dataclass(frozen=True)
class PartTransfer:
    """Result of the transfer for one part.

    Args:
        part (`str`): `encoder`, `head`, `depth_predictor`, `classifier` or `pretext_head`.
        status (`str`): `"taken"` (transferred), `"new"` (randomly initialised) or `"left over"` (in the checkpoint,
            not used).
        why (`str`): The reason.
        tensors (`int`): Number of tensors, including buffers.
        parameters (`int`): Number of their elements.
    """

    part: str
    status: str
    why: str
    tensors: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class TransferReport:
    """Which parts of a model come from a checkpoint; `str()` returns a table.

    Args:
        source (`str`): Hub id or folder name of the checkpoint.
        revision (`str` or `None`): Commit of the checkpoint, if it is from the Hub.
        source_class (`str`): Class that saved the checkpoint.
        target_class (`str`): Class that was loaded.
        parts (`tuple[PartTransfer, ...]`): One entry per part.
    """

    source: str
    revision: str | None
    source_class: str
    target_class: str
    parts: tuple[PartTransfer, ...]

    @property
    def is_reload(self) -> bool:
        """Whether the model is that of the checkpoint: same class, and every part transferred."""
        return self.source_class == self.target_class and all(part.status == "taken" for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, as stored in `weight_lineage`."""
        return asdict(self) | {"parts": [asdict(part) for part in self.parts]}

    def __str__(self) -> str:
        origin = f"{self.source}@{self.revision[:12]}" if self.revision else self.source
        lines = [f"{self.target_class} from {origin} ({self.source_class}):"]
        width = max(16, *(len(entry.part) for entry in self.parts))
        for entry in self.parts:
            counts = f"{entry.tensors:>5} tensors {entry.parameters:>12,} elements"
            lines.append(f"  {entry.part:<{width}} {STATUS_WORDS[entry.status]:<11} {counts}  {entry.why}")
        return "\n".join(lines)


def source_name(pretrained_model_name_or_path: str | os.PathLike[str]) -> str:
    """Return a Hub id unchanged, and only the last two names of a folder, so that no private path is saved."""
    name = os.fspath(pretrained_model_name_or_path)
    if not os.path.isdir(name):
        return name
    return "/".join(os.path.abspath(name).split(os.sep)[-2:])


def structure(encoder_config: Any) -> dict[str, Any]:
    """Return the fields of an encoder's configuration that determine the meaning of its weights."""
    values = encoder_config.to_dict()
    return {name: value for name, value in values.items() if name not in ENCODER_CIRCUMSTANCES}


def plan_transfer(
    source: Any, target: Any, source_class: Any, target_class: Any, head_init: str, transfer_head: bool = False
) -> dict[str, tuple[bool, str]]:
    """Decide for each part of the target whether it is transferred from the checkpoint.

    Args:
        source ([`DepthSegConfig`]): Configuration of the checkpoint.
        target ([`DepthSegConfig`]): Configuration of the model to load.
        source_class (`type`): Class that saved the checkpoint.
        target_class (`type`): Class to load.
        head_init (`str`): `"pretrained"` or `"random"`.
        transfer_head (`bool`, *optional*, defaults to `False`): Whether to transfer an inpainting decoder.

    Returns:
        `dict[str, tuple[bool, str]]`: part -> (whether it is transferred, reason).

    Raises:
        ValueError: If the encoders differ, so that nothing can be transferred. If `transfer_head` is not possible.
    """
    changed = sorted(
        name
        for name in structure(source.encoder_config).keys() | structure(target.encoder_config).keys()
        if structure(source.encoder_config).get(name) != structure(target.encoder_config).get(name)
    )
    if changed:
        raise ValueError(
            f"encoder_config differs from that of the checkpoint in {', '.join(changed)}; only a complete encoder can "
            "be transferred. Omit encoder_config to use the encoder of the checkpoint, or build the model from a "
            "configuration for random initialisation."
        )
    plan = {"encoder": (True, "same encoder")}
    parts, source_parts = target_class.parts_of(target), source_class.parts_of(source)
    if "pretext_head" in parts:
        plan["pretext_head"] = plan_pretext_head(source, target, source_class, target_class, head_init)
    else:
        plan["head"] = plan_head(source, target, source_class, head_init)
    if transfer_head:
        refuse_transfer_head(source, target, source_class, target_class, head_init)
        plan["head"] = (True, "body of pretext_head, because of transfer_head=True")
    for part in ("depth_predictor", "classifier"):
        if part in parts:
            plan[part] = plan_last_layer(part, source, target, source_parts, source_class.__name__, plan["head"])
    return plan


def plan_head(source: Any, target: Any, source_class: Any, head_init: str) -> tuple[bool, str]:
    """Decide on the decoder body."""
    if "head" not in source_class.parts_of(source):
        return False, source_class.why_no_head()
    if head_init == "random":
        return False, "head_init='random'"
    difference = compare_heads(source, target)
    return (False, difference) if difference else (True, "same head")


def compare_heads(source: Any, target: Any) -> str:
    """Return the difference of the decoder bodies of two configurations; an empty string if they are equal."""
    source_type, source_options = canonical_head(source.head_type, source.head_config)
    target_type, target_options = canonical_head(target.head_type, target.head_config)
    if source_type != target_type:
        return f"head_type {source.head_type!r} in the checkpoint, {target.head_type!r} here"
    changed = sorted(name for name, value in target_options.items() if source_options.get(name) != value)
    return f"head_config differs in {', '.join(changed)}" if changed else ""


def plan_pretext_head(
    source: Any, target: Any, source_class: Any, target_class: Any, head_init: str
) -> tuple[bool, str]:
    """Decide on the decoder of another pre-training task, including its last layer."""
    if "pretext_head" not in source_class.parts_of(source):
        return False, f"{source_class.__name__} has no such part"
    if source_class.__name__ != target_class.__name__:
        return False, f"{source_class.__name__} is for another task"
    if head_init == "random":
        return False, "head_init='random'"
    difference = target_class.compare_decoders(source, target)
    return (False, difference) if difference else (True, "same task")


def refuse_transfer_head(source: Any, target: Any, source_class: Any, target_class: Any, head_init: str) -> None:
    """Raise unless the decoder of an inpainting model can become `head`, instead of initialising a new one."""
    if "head" not in target_class.parts_of(target):
        why = f"{target_class.__name__} has no head"
    elif head_init == "random":
        why = "head_init='random' initialises a new head"
    elif "head" in source_class.parts_of(source):
        why = f"{source_class.__name__} has a head, which is transferred without this argument"
    else:
        why = source_class.why_other_body() or compare_heads(source, target)
    if why:
        raise ValueError(f"transfer_head=True transfers the decoder of an inpainting model to head, but {why}.")


def plan_last_layer(
    part: str, source: Any, target: Any, source_parts: tuple[str, ...], source_class: str, head: tuple[bool, str]
) -> tuple[bool, str]:
    """Decide on `depth_predictor` or `classifier`."""
    if part not in source_parts:
        return False, f"{source_class} has no such part"
    if not head[0]:
        return False, "its input is the head, which is new"
    if part == "classifier" and ending_of(source) != ending_of(target):
        return False, f"ending {ending_of(source)!r} in the checkpoint, {ending_of(target)!r} here"
    if part == "classifier" and compare_classes(source, target):
        return False, compare_classes(source, target)
    if part == "depth_predictor" and source.depth_type != target.depth_type:
        return False, f"depth_type {source.depth_type!r} in the checkpoint, {target.depth_type!r} here"
    return True, "same task"


def compare_classes(source: Any, target: Any) -> str:
    """Return the difference of the numbers of classes of two configurations; an empty string if they are equal."""
    if source.num_labels == target.num_labels:
        return ""
    return f"{source.num_labels} classes in the checkpoint, {target.num_labels} here"


def ending_of(config: Any) -> str:
    """Return the `ending` of a head; heads without this option end in one layer."""
    return config.head_config.get("ending", "last_layer")
