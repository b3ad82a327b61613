"""Initialisation from third-party models: depth networks and bare encoders of transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForDepthEstimation, PreTrainedConfig, PreTrainedModel

from .encoders_depthseg import encoder_entry
from .heads_native_depthseg import canonical_head
from .loading_depthseg import (
    HEAD_INITS,
    HUB_ARGUMENTS,
    count_tensors,
    make_report,
    one_report,
    source_revision,
    task_class,
)
from .transfer_depthseg import PartTransfer, TransferReport, plan_transfer, source_name
from .transfer_families_depthseg import DEPTH_FAMILIES, DepthFamily, convert_config, depth_family, rename


class ForeignMixin:
    """Initialises a depthseg model from a model of transformers, by the same rule as between depthseg models."""

    @classmethod
    def from_depth_pretrained(
        cls: Any,
        pretrained_model_name_or_path: Any,
        *,
        head_type: str | None = None,
        head_config: dict[str, Any] | None = None,
        head_init: str = "pretrained",
        dtype: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """Initialise from a third-party depth model of a supported family in transformers, or a depthseg checkpoint.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub id or folder of the depth model.
            head_type (`str`, *optional*): A key of `HEADS`. By default, and with `"native"`, the depth model's own
                neck and head; `"dpt"` is the same for the DPT families. Any other head is initialised randomly.
            head_config (`dict`, *optional*): Options of the head; by default those of the depth model, or the defaults
                of the head if the depth model has another head.
            head_init (`str`, *optional*, defaults to `"pretrained"`): `"random"` transfers only the encoder.
            dtype (`torch.dtype` or `str`, *optional*, defaults to `"auto"`): As in transformers.
            kwargs: Options of [`DepthSegConfig`], such as `num_labels`, `id2label` or `keep_depth`, and arguments of
                the Hub: `revision`, `token`, `cache_dir`, `local_files_only`, ...

        Returns:
            The model in evaluation mode, with its `transfer_report`.

        Raises:
            ValueError: If the checkpoint is not a supported depth model, or lacks tensors.
        """
        if head_init not in HEAD_INITS:
            raise ValueError(f"head_init is {head_init!r}; allowed are {', '.join(HEAD_INITS)}.")
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        # Only complete parts are transferred, so there is never a mismatch to ignore.
        kwargs.pop("ignore_mismatched_sizes", None)
        written, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_arguments)
        if written.get("model_type") == cls.config_class.model_type:
            options = {"head_type": head_type, "head_config": head_config, "head_init": head_init, "dtype": dtype}
            kwargs |= {name: value for name, value in options.items() if value is not None}
            return cls.from_pretrained(pretrained_model_name_or_path, **hub_arguments, **kwargs)
        family = depth_family(written.get("model_type"), pretrained_model_name_or_path)
        foreign = AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub_arguments)
        network = load_depth_network(pretrained_model_name_or_path, family, foreign, dtype, hub_arguments)
        values = convert_config(foreign)
        source = cls.config_class(**values)
        config = cls.config_class(**(values | choose_head(source, head_type, head_config) | kwargs))
        depth_class = task_class("DepthSegForDepthEstimation")
        plan = plan_transfer(source, config, depth_class, cls, head_init)
        model = cls(config).to(network.dtype).eval()
        left_over = take_parts(model, network, family, plan)
        revision = source_revision(pretrained_model_name_or_path, hub_arguments)
        report = make_report(model, plan, source, depth_class, pretrained_model_name_or_path, revision)
        model.transfer_report = replace(report, source_class=type(network).__name__, parts=(*report.parts, *left_over))
        model.record_lineage()
        return model

    @classmethod
    def from_encoder_pretrained(
        cls: Any,
        pretrained_model_name_or_path: Any,
        *,
        encoder_options: dict[str, Any] | None = None,
        dtype: Any = "auto",
        **kwargs: Any,
    ) -> Any:
        """Initialise from a bare encoder of transformers (DINOv2, Swin, ResNet, MAE, ...), with a random head.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub id or folder of the encoder, or of a model that
                contains it, such as an image classifier.
            encoder_options (`dict`, *optional*): Changes to the encoder's configuration that do not affect its
                weights, such as `out_indices`.
            dtype (`torch.dtype` or `str`, *optional*, defaults to `"auto"`): As in transformers.
            kwargs: Options of [`DepthSegConfig`], such as `head_type` or `num_labels`, and arguments of the Hub.

        Returns:
            The model in evaluation mode, with its `transfer_report`.

        Raises:
            ValueError: If the encoder is not one of `ENCODERS`, or the checkpoint lacks tensors of the encoder.
        """
        hub_arguments = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        encoder_config = read_encoder_config(pretrained_model_name_or_path, hub_arguments, encoder_options or {})
        model = cls(cls.config_class(encoder_config=encoder_config, **kwargs))
        with one_report():
            backbone, info = type(model.encoder.backbone).from_pretrained(
                pretrained_model_name_or_path,
                config=model.config.encoder_config,
                dtype=dtype,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **hub_arguments,
            )
        # Some backbones have a separate norm for each map, which no other model has; it is new, and the identity.
        norms = {name for name in info["missing_keys"] if name.startswith("hidden_states_norms.")}
        # A pooler, which transformers' class has and ours does not, may be missing.
        ours = model.to(backbone.dtype).eval().encoder.backbone.state_dict().keys()
        refuse_incomplete(pretrained_model_name_or_path, info | {"missing_keys": ours & info["missing_keys"] - norms})
        tensors = {name: tensor for name, tensor in backbone.state_dict().items() if name in ours}
        model.encoder.backbone.load_state_dict(tensors)
        why = "encoder of the checkpoint; norms of single maps are new" if norms else "encoder of the checkpoint"
        parts = [PartTransfer("encoder", "taken", why, *count_tensors(model.encoder))]
        parts += [
            PartTransfer(name, "new", "the checkpoint is an encoder", *count_tensors(part))
            for name, part in model.named_children()
            if name != "encoder"
        ]
        model.transfer_report = TransferReport(
            source=source_name(pretrained_model_name_or_path),
            revision=source_revision(pretrained_model_name_or_path, hub_arguments),
            source_class=type(backbone).__name__,
            target_class=cls.__name__,
            parts=tuple(parts),
        )
        model.record_lineage()
        return model

    def save_encoder(self: PreTrainedModel, save_directory: Any, **kwargs: Any) -> None:
        """Save the bare backbone, for any code that uses a transformers backbone.

        Args:
            save_directory (`str` or `os.PathLike`): Folder; created if it does not exist.
            kwargs: Passed on to the backbone's `save_pretrained`.

        Raises:
            ValueError: If the encoder's backbone is not a separate model in transformers.
        """
        backbone = self.encoder.backbone
        if not isinstance(backbone, PreTrainedModel):
            raise ValueError(
                f"The encoder {self.config.encoder_config.model_type!r} is not a separate model in transformers, so "
                "it cannot be saved separately; use save_pretrained."
            )
        backbone.save_pretrained(save_directory, **kwargs)


def read_encoder_config(name: Any, hub_arguments: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the `encoder_config` of a checkpoint that is or contains an encoder, with changed options.

    Raises:
        ValueError: If it is a depth model, or its encoder is not in `ENCODERS`.
    """
    found, _ = PreTrainedConfig.get_config_dict(name, **hub_arguments)
    model_type = found.get("model_type")
    if model_type in (*DEPTH_FAMILIES, "depthseg"):
        raise ValueError(
            f"{name} is a depth model ({model_type}); load it with from_depth_pretrained, with head_init='random' to "
            "transfer only its encoder."
        )
    known = set(encoder_entry(model_type).config_class().to_dict())
    # transformers saves a single stage if none was selected.
    if len(found.get("out_indices") or ()) < 2 or {"out_indices", "out_features"} & options.keys():
        known -= {"out_indices", "out_features"}
    return {"model_type": model_type} | {key: value for key, value in found.items() if key in known} | options


def choose_head(source: Any, head_type: str | None, head_config: dict[str, Any] | None) -> dict[str, Any]:
    """Return `head_type` and `head_config` of the model, from those of the depth model and the requested ones."""
    asked = head_config or {}
    if head_type in (None, "native"):
        return {"head_type": "native", "head_config": source.head_config | asked}
    own_type, own_options = canonical_head(source.head_type, source.head_config)
    if head_type == own_type:
        return {"head_type": head_type, "head_config": own_options | asked}
    return {"head_type": head_type, "head_config": head_config}


def load_depth_network(
    name: Any, family: DepthFamily, config: PreTrainedConfig, dtype: Any, hub_arguments: dict[str, Any]
) -> PreTrainedModel:
    """Load a depth model with transformers' own class, which supports all versions of its files.

    Raises:
        ValueError: If the checkpoint is not of a depth class, or is incomplete.
    """
    written_by = (config.architectures or family.classes)[0]
    if written_by not in family.classes:
        raise ValueError(
            f"{name} was saved by {written_by}, which does not predict depth; from_depth_pretrained requires "
            f"{' or '.join(family.classes)}."
        )
    with one_report():
        network, info = AutoModelForDepthEstimation.from_pretrained(
            name, config=config, dtype=dtype, ignore_mismatched_sizes=True, output_loading_info=True, **hub_arguments
        )
    refuse_incomplete(name, info)
    return network


def refuse_incomplete(name: Any, info: dict[str, Any]) -> None:
    """Raise if tensors of a model are missing in its checkpoint."""
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]}
    broken = sorted({*info["missing_keys"], *mismatched})
    if broken:
        raise ValueError(
            f"{name}: {len(broken)} tensors are missing or differ in shape from its configuration, for example "
            f"{broken[0]}. The checkpoint is damaged, and nothing was transferred; download it again."
        )


@torch.no_grad()
def take_parts(
    model: PreTrainedModel, network: PreTrainedModel, family: DepthFamily, plan: dict[str, tuple[bool, str]]
) -> list[PartTransfer]:
    """Copy the parts of the plan from a depth model, and list its unsupported parts.

    Raises:
        ValueError: If the tensors of a part differ between the depth model and its depthseg version.
    """
    names = family.names(network.config)
    theirs = {rename(name, names): tensor for name, tensor in network.state_dict().items()}
    ours = model.state_dict()
    taken: dict[str, Tensor] = {}
    for part in (part for part, (is_taken, _) in plan.items() if is_taken):
        wanted = {name: tensor.shape for name, tensor in ours.items() if name.startswith(f"{part}.")}
        found = {name: tensor.shape for name, tensor in theirs.items() if name.startswith(f"{part}.")}
        different = sorted(dict(wanted.items() ^ found.items()))
        if different:
            raise ValueError(
                f"{len(different)} tensors of {part!r} differ between {type(network).__name__} and its depthseg "
                f"version, for example {different[0]}; only a complete part can be transferred. Please report this "
                "with the name of the checkpoint and the version of transformers."
            )
        taken |= {name: theirs[name] for name in wanted}
    model.load_state_dict(taken, strict=False)
    left_over = []
    for prefix, why in family.left_over.items():
        rest = nn.ParameterDict({str(i): t for i, (n, t) in enumerate(theirs.items()) if n.startswith(prefix)})
        if len(rest):
            left_over.append(PartTransfer(prefix.rstrip("."), "left over", why, *count_tensors(rest)))
    return left_over
