"""`from_pretrained` with transfer of whole parts, and a report of the transferred parts with reasons."""

from __future__ import annotations

import contextlib
import logging as python_logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import cached_file, logging

from .heads_depthseg import build_head_on
from .transfer_depthseg import PartTransfer, TransferReport, compare_heads, plan_transfer, source_name

logger = logging.get_logger(__name__)

HEAD_INITS = ("pretrained", "random")
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


TASK_CLASSES: dict[str, type[TransferMixin]] = {}
"""Name -> model class, filled as the classes are defined."""


class TransferMixin:
    """Loads a checkpoint of any depthseg task into any depthseg class.

    A class states here what a checkpoint of it can give to others.

    Attributes:
        parts (`tuple[str, ...]`): Names of its parts that are transferred completely or not at all.
        transfer_report ([`TransferReport`] or `None`): The parts that `from_pretrained` transferred; `None` for a
            model that was built from a configuration.
    """

    parts: tuple[str, ...] = ("encoder",)
    auto_class: str
    config_class: Any

    @classmethod
    def parts_of(cls, config: Any) -> tuple[str, ...]:
        """Return the parts of a model with a configuration."""
        return cls.parts

    @classmethod
    def why_no_head(cls) -> str:
        """Return the reason why a checkpoint of this class has no decoder body for depth or segmentation."""
        if "pretext_head" in cls.parts:
            return f"the decoder of {cls.__name__}, pretext_head, is for another task"
        return f"{cls.__name__} is unknown, except for its encoder"

    @classmethod
    def why_other_body(cls) -> str:
        """Return the reason why the body of `pretext_head` cannot become a `head`; an empty string if it can."""
        return cls.why_no_head()

    @classmethod
    def compare_decoders(cls, source: Any, target: Any) -> str:
        """Return the difference of the decoders of two configurations of this class; an empty string if none."""
        return compare_heads(source, target)

    @classmethod
    def build_pretext_head(cls, encoder: Any, config: Any) -> nn.Module:
        """Build the part `pretext_head` on an encoder."""
        raise NotImplementedError(f"{cls.__name__} has no pretext_head.")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *model_args: Any,
        config: Any = None,
        head_init: str = "pretrained",
        transfer_head: bool = False,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a depthseg checkpoint, of this task or another.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub id or folder.
            model_args: Passed on to transformers.
            config ([`DepthSegConfig`], *optional*): Configuration of the model to load; by default the checkpoint's
                with the overrides in `kwargs`, such as `num_labels`, `id2label`, `head_type` or `keep_depth`.
            head_init (`str`, *optional*, defaults to `"pretrained"`): `"random"` transfers only the encoder.
            transfer_head (`bool`, *optional*, defaults to `False`): Whether to transfer the decoder of an inpainting
                model, which by default is not transferred because its task differs. The heads must be the same.
            output_loading_info (`bool`, *optional*): Whether to return transformers' loading information as well.
            kwargs: Overrides of the configuration, and all arguments of transformers' own `from_pretrained`.

        Returns:
            The model in evaluation mode, with its `transfer_report`.

        Raises:
            ValueError: If the checkpoint is not a depthseg one, has another encoder, or lacks tensors of a part; if
                `transfer_head` is not possible.
        """
        if head_init not in HEAD_INITS:
            raise ValueError(f"head_init is {head_init!r}; allowed are {', '.join(HEAD_INITS)}.")
        hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        source, source_class = cls._source(pretrained_model_name_or_path, hub_arguments)
        if config is None:
            # The dtype of the weights to load is not an option of the configuration, where "auto" has no meaning.
            kept = {name: kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs}
            config, kwargs = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, return_unused_kwargs=True, **kwargs
            )
            kwargs = hub_arguments | kept | kwargs
        plan = plan_transfer(source, config, source_class, cls, head_init, transfer_head)
        # Tensors with other shapes are accepted here and checked by part below.
        kwargs["ignore_mismatched_sizes"] = True
        with one_report():
            model, info = super().from_pretrained(  # type: ignore[misc]  # of `PreTrainedModel`, the next class
                pretrained_model_name_or_path, *model_args, config=config, output_loading_info=True, **kwargs
            )
        by_name = {part for part, (taken, _) in plan.items() if taken} - ({"head"} if transfer_head else set())
        cls._refuse_partial(by_name, info, pretrained_model_name_or_path)
        for part, (taken, _) in plan.items():
            if not taken:
                initialise_anew(model, part)
        if transfer_head:
            take_pretext_body(model, source_class, pretrained_model_name_or_path, hub_arguments)
        model.freeze_unused_parameters()
        name, revision = pretrained_model_name_or_path, source_revision(pretrained_model_name_or_path, hub_arguments)
        model.transfer_report = make_report(model, plan, source, source_class, name, revision)
        model.record_lineage()
        return (model, info) if output_loading_info else model

    @classmethod
    def _source(cls, path: Any, hub_arguments: dict[str, Any]) -> tuple[Any, type[TransferMixin]]:
        """Read the checkpoint's own configuration and class; other model types are refused."""
        values, _ = cls.config_class.get_config_dict(path, **hub_arguments)
        model_type = values.get("model_type")
        if model_type != cls.config_class.model_type:
            raise ValueError(
                f"{path} contains a checkpoint of model type {model_type!r}, not of "
                f"{cls.config_class.model_type!r}; load it with the class that saved it."
            )
        source = cls.config_class.from_dict(values)
        return source, task_class((source.architectures or ["an unknown class"])[0])

    @staticmethod
    def _refuse_partial(parts: set[str], info: dict[str, Any], path: Any) -> None:
        """Raise if a part to be transferred is incomplete."""
        mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]}
        for part in sorted(parts):
            broken = sorted(k for k in {*info["missing_keys"], *mismatched} if k.startswith(f"{part}."))
            if broken:
                raise ValueError(
                    f"{path}: {len(broken)} tensors of {part!r} are missing or have another shape, for example "
                    f"{broken[0]}; only a complete part can be transferred. The checkpoint is damaged or was saved "
                    "with another configuration."
                )

    def record_lineage(self: PreTrainedModel) -> None:
        """Log the transfer, and add it to `config.weight_lineage` unless the checkpoint was only loaded again."""
        report = self.transfer_report
        if report.is_reload:
            return
        logger.warning("%s", report)
        self.config.weight_lineage = [*(self.config.weight_lineage or []), report.to_dict()]


@contextlib.contextmanager
def one_report() -> Iterator[None]:
    """Drop transformers' table of missing and mismatched tensors: the transfer report explains the same by part."""
    # An error of the conversion of weights is in no other report.
    hidden = re.compile(r"LOAD REPORT(?!.*CONVERSION)", re.DOTALL)

    def keep(record: python_logging.LogRecord) -> bool:
        return hidden.search(record.getMessage()) is None

    source = python_logging.getLogger("transformers.modeling_utils")
    source.addFilter(keep)
    try:
        yield
    finally:
        source.removeFilter(keep)


@torch.no_grad()
def initialise_anew(model: PreTrainedModel, part: str) -> None:
    """Initialise a part randomly, even if the checkpoint has tensors of the same names and shapes."""
    for module in model.get_submodule(part).modules():
        for holder in (module, *module.parameters(recurse=False), *module.buffers(recurse=False)):
            holder._is_hf_initialized = False
    _initialise_by(model, model.get_submodule(part))


def _initialise_by(owner: PreTrainedModel, module: nn.Module) -> None:
    """Initialise a module after its children, those within a model of transformers by the rules of that model."""
    for child in module.children():
        _initialise_by(child if isinstance(child, PreTrainedModel) else owner, child)
    owner._initialize_weights(module)


def task_class(name: str) -> type[TransferMixin]:
    """Return the model class of a name; for an unknown one a class of which only the encoder is known."""
    # Imported here, because that file imports this one. The circular import makes transformers, which copies the files
    # that the file of a class imports, save all files with a model of any task.
    from .modeling_pretext_depthseg import DepthSegForOpticalFlow  # noqa: F401

    return TASK_CLASSES.get(name) or type(name, (TransferMixin,), {})


def take_pretext_body(model: PreTrainedModel, source_class: Any, name: Any, hub_arguments: dict[str, Any]) -> None:
    """Copy the body of the `pretext_head` of a checkpoint to `head`."""
    source = source_class.from_pretrained(name, dtype=model.dtype, **hub_arguments)
    model.head.load_state_dict(source.pretext_head.body.state_dict())


def source_revision(name: Any, hub_arguments: dict[str, Any]) -> str | None:
    """Return the commit of a checkpoint on the Hub, or `None` for a folder."""
    if os.path.isdir(name):
        return None
    # transformers no longer stores the commit in the configuration; the path of the cached file contains it.
    arguments = {key: value for key, value in hub_arguments.items() if key != "force_download"}
    path = Path(cached_file(name, "config.json", **arguments)).as_posix()
    found = re.search(r"/snapshots/([0-9a-f]{40})/", path)
    return found[1] if found else None


def make_report(
    model: PreTrainedModel,
    plan: dict[str, tuple[bool, str]],
    source: Any,
    source_class: type[TransferMixin],
    name: Any,
    revision: str | None,
) -> TransferReport:
    """Count the tensors of each part of a loaded model, and of each part of the checkpoint that was not used."""
    parts = []
    for part, (taken, why) in plan.items():
        status = "taken" if taken else "new"
        parts.append(PartTransfer(part, status, why, *count_tensors(model.get_submodule(part))))
    source_parts = build_source_parts(model, source, source_class)
    if "pretext_head" in source_parts and plan.get("head", (False, ""))[0]:
        source_parts = {"pretext_head.predictor": source_parts["pretext_head"].get_submodule("predictor")}
    for part, module in source_parts.items():
        taken, why = plan.get(part, (False, f"{type(model).__name__} has no such part"))
        if not taken:
            parts.append(PartTransfer(part, "left over", why, *count_tensors(module)))
    return TransferReport(
        source=source_name(name),
        revision=revision,
        source_class=source_class.__name__,
        target_class=type(model).__name__,
        parts=tuple(parts),
    )


def build_source_parts(model: PreTrainedModel, source: Any, source_class: type[TransferMixin]) -> dict[str, nn.Module]:
    """Build the checkpoint's parts other than the encoder on the meta device, for counting."""
    names = source_class.parts_of(source)
    if names == ("encoder",):
        return {}
    with torch.device("meta"):
        if "pretext_head" in names:
            return {"pretext_head": source_class.build_pretext_head(model.encoder, source)}
        head = build_head_on(model.encoder, source)
        modules: dict[str, nn.Module] = {"head": head}
        if "depth_predictor" in names:
            modules["depth_predictor"] = head.make_depth_predictor()
        if "classifier" in names:
            modules["classifier"] = head.make_classifier(source.num_labels)
    return modules


def count_tensors(module: nn.Module) -> tuple[int, int]:
    """Return the number of tensors of a module, including buffers, and the number of their elements."""
    tensors = list(module.state_dict().values())
    return len(tensors), sum(tensor.numel() for tensor in tensors)
