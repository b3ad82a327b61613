"""What the conversion of a checkpoint gives, and the rules that it follows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from math import inf
from typing import Any

from torch import Tensor

from .reading import Source

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"""Options of the image processor for networks trained on images scaled by ImageNet's mean and standard deviation."""

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
"""Options of the image processor for networks trained on images from -1 to 1."""

ENCODER = "encoder"
"""`Converted.model_class` of a bare encoder."""


@dataclass(frozen=True)
class ConvertOptions:
    """What a file does not say.

    Args:
        max_depth (`float`, *optional*): The largest depth of a metric network, in metres, above 0.1.

    Raises:
        ValueError: If it is not.
    """

    max_depth: float | None = None

    def __post_init__(self) -> None:
        if self.max_depth is not None and not self.allows(self.max_depth):
            raise ValueError(f"--max-depth is {self.max_depth}; give metres above 0.1, such as 20 or 80.")

    @staticmethod
    def allows(max_depth: float) -> bool:
        """Whether a number can be the largest depth of a network."""
        return 0.1 < max_depth < inf


@dataclass(frozen=True)
class Converted:
    """A model under our names.

    Args:
        model_class (`str`): `DepthSegForDepthEstimation`, `DepthSegForImageClassification`,
            `DepthSegForSemanticSegmentation`, or `encoder` for a bare encoder.
        config (`dict`): Options of `DepthSegConfig`; for a bare encoder those of its `encoder_config`.
        tensors (`dict`): Our name -> (name for the report, tensor). Names of a bare encoder are those of its backbone.
        processor (`dict`): Options of `DepthSegImageProcessor`.
        left_out (`dict`): Name for the report -> reason.
        filled (`dict`): Our name -> reason: tensors that the published network does not have and that do not change
            its output; they become 0.
        assumed (`str`): What the depth was taken for although no file says so, and how to say otherwise.
    """

    model_class: str
    config: dict[str, Any]
    tensors: dict[str, tuple[str, Tensor]]
    processor: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    assumed: str = ""


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the tensors whose name matches a pattern.

    Args:
        pattern (`str`): Regular expression of the whole name.
        names (`tuple[str, ...]`): Our name, with `\1` for groups of the pattern; several names for a tensor that is
            cut into equal parts along its first dimension, where an empty name leaves its part out; none for a tensor
            that is left out.
        reason (`str`): Why it is left out.
    """

    pattern: str
    names: tuple[str, ...] = ()
    reason: str = ""


def rename(
    source: Source, rules: Sequence[Rule], stem: str | None = None
) -> tuple[dict[str, tuple[str, Tensor]], dict[str, str]]:
    """Apply the first matching rule to each tensor of a file.

    Args:
        source: The files.
        rules: Rules of the kind.
        stem: The file; by default the first.

    Returns:
        `tensors` and `left_out` of [`Converted`].

    Raises:
        ValueError: If no rule matches a tensor.
    """
    stem = stem or source.stem
    tensors: dict[str, tuple[str, Tensor]] = {}
    left_out: dict[str, str] = {}
    unknown = []
    for name, tensor in source.files[stem].items():
        label = source.label(stem, name)
        for rule in rules:
            match = re.fullmatch(rule.pattern, name)
            if match is None:
                continue
            if not rule.names:
                left_out[label] = rule.reason
            elif len(rule.names) > 1 and (tensor.ndim == 0 or len(tensor) % len(rule.names)):
                raise ValueError(f"{label} has the shape {tuple(tensor.shape)} and cannot be cut into equal parts.")
            else:
                parts = tensor.chunk(len(rule.names)) if len(rule.names) > 1 else (tensor,)
                for index, (ours, part) in enumerate(zip(rule.names, parts, strict=True)):
                    if ours:
                        tensors[match.expand(ours)] = (label, part)
                    else:
                        left_out[f"{label}, part {index + 1} of {len(parts)}"] = rule.reason
            break
        else:
            unknown.append(label)
    if unknown:
        raise ValueError(
            f"{count_in_words(unknown)} of the file {'is' if len(unknown) == 1 else 'are'} unknown in this kind of "
            f"network, for example {unknown[0]}; nothing was converted."
        )
    return tensors, left_out


def prefixed(rules: Sequence[Rule], theirs: str, ours: str) -> list[Rule]:
    """Return rules for a network that is a part of another one.

    Args:
        rules: Rules of the network alone.
        theirs: Regular expression of what stands before its names.
        ours: What stands before ours.
    """
    return [Rule(theirs + rule.pattern, tuple(ours + name for name in rule.names), rule.reason) for rule in rules]


def count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Return how many different numbers the group of a pattern takes in the names of tensors."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def count_in_words(tensors: Sized) -> str:
    """Return how many tensors there are."""
    return f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'}"


def need(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor that says how large the network is.

    Raises:
        ValueError: If it is missing.
    """
    if name not in tensors:
        raise ValueError(f"The file has no tensor {name}, which says how large the network is; it is incomplete.")
    return tensors[name]
