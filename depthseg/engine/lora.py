"""Low-rank adapters of an encoder: added before training, then merged into its weights or saved beside their base.

A folder of adapters is one of PEFT: `adapter_config.json`, which names the base, and `adapter_model.safetensors` with
the adapters, the parts that were trained as a whole, and the statistics of all norms; its header has the hash of the
weights of the base that they were trained on. `config.json` and the image processor are those of the whole model.

Source: Hu et al. 2022, https://huggingface.co/papers/2106.09685.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..models import DEPTH_FAMILIES, ENCODERS, DepthSegConfig
from ..models.encoders_layers_depthseg import attention_blocks, is_inside
from .download import check_available
from .fingerprint import hash_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedModel

    from .options import LoraOptions, ModelOptions

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
ADAPTER, ADAPTER_WEIGHT = "default", ".lora_"
PEFT_PREFIX = "base_model.model."
ADAPTABLE = (nn.Linear, nn.Conv2d)
BASE_HASH = "base_encoder_sha256"
"""Of the weights that were not trained, in the header of the adapters: PEFT warns of entries of its own file that it
does not know."""


def is_adapter(path: str | os.PathLike | None) -> bool:
    """Whether a checkpoint folder holds adapters and no whole model."""
    return path is not None and Path(path, CONFIG_FILE).is_file()


def holds_adapters(name: str | os.PathLike, revision: str | None = None) -> bool:
    """Whether a checkpoint that is available, a folder or a Hub id, holds adapters and no whole model."""
    if os.path.isdir(name):
        return is_adapter(name)
    try:
        hf_hub_download(str(name), CONFIG_FILE, revision=revision)
    except EntryNotFoundError:
        return False
    return True


def add_adapters(model: PreTrainedModel, options: LoraOptions) -> None:
    """Put adapters into the encoder of a model, in place, and fix its weights; at first they change no output.

    Raises:
        ValueError: Nothing is to be adapted.
        ImportError: peft is not installed.
    """
    alpha = 2 * options.rank if options.alpha is None else options.alpha
    names = target_names(model.encoder, options.targets)
    _inject(model.encoder, rank=options.rank, alpha=alpha, dropout=options.dropout, names=names)


def target_names(encoder: nn.Module, ends: list[str] | None) -> list[str]:
    """Names of the layers to adapt: linear ones of attention blocks, or those whose names end as given.

    Layers that no output depends on are left out.

    Args:
        encoder: An encoder without adapters.
        ends: Whole words from the end of the names, such as `query` or `attention.query`; None = the default.

    Raises:
        ValueError: There is none.
    """
    # PyTorch's own attention reads the weight of its last layer without calling it.
    read = nn.modules.linear.NonDynamicallyQuantizableLinear
    layers = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, ADAPTABLE) and not isinstance(module, read) and module.weight.requires_grad
    }
    if ends is None:
        blocks = attention_blocks(encoder)
        inside = [name for name in layers if any(is_inside(name, block) for block in blocks)]
        found = [name for name in inside if isinstance(layers[name], nn.Linear)]
        hint = "It has no attention: name the layers to adapt in model.lora.targets"
    else:
        found = [name for name in layers if any(f".{name}".endswith(f".{end}") for end in ends)]
        hint = f"No layer has a name that ends with one of model.lora.targets={ends}"
    if not found:
        known = sorted({name.rpartition(".")[2] for name in layers})
        raise ValueError(
            f"The encoder {encoder.backbone.config.model_type} has nothing to adapt. {hint}; its linear and "
            f"convolutional layers are called {', '.join(known[:20])}{', ...' if len(known) > 20 else ''}."
        )
    return found


def _inject(encoder: nn.Module, *, rank: int, alpha: float, dropout: float, names: list[str]) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError('Adapters need peft: pip install "depthseg[lora]", or set model.lora.rank=0.') from error
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    inject_adapter_in_model(config, encoder, ADAPTER)


def adapted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a model that have adapters, by name."""
    return {name: module for name, module in model.named_modules() if ADAPTER in getattr(module, "lora_A", ())}


@torch.no_grad()
def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model in which adapters are added to what they adapt, named as without adapters.

    The model stays as it is.
    """
    layers = adapted_layers(model)
    merged = {}
    for name, tensor in model.state_dict().items():
        owner, _, weight = name.partition(".base_layer.")
        if weight == "weight" and owner in layers:
            tensor = tensor + layers[owner].get_delta_weight(ADAPTER).to(tensor.dtype)
        if ADAPTER_WEIGHT not in name:
            merged[name.replace(".base_layer.", ".") if owner in layers else name] = tensor
    return merged


def save_weights(model: PreTrainedModel, folder: Path, options: ModelOptions) -> None:
    """Save a model of a run: whole, its adapters merged, or its adapters alone, as the `model` section says."""
    if not adapted_layers(model):
        model.save_pretrained(folder)
    elif options.lora.merge:
        model.save_pretrained(folder, state_dict=merged_weights(model))
    else:
        _save_adapters(model, folder, options)


def _save_adapters(model: PreTrainedModel, folder: Path, options: ModelOptions) -> None:
    from peft import LoraConfig

    layers = adapted_layers(model)
    first = next(iter(layers.values()))
    config = LoraConfig(
        base_model_name_or_path=options.pretrained,
        revision=options.revision,
        inference_mode=True,
        r=first.r[ADAPTER],
        lora_alpha=first.lora_alpha[ADAPTER],
        lora_dropout=options.lora.dropout,
        target_modules=list(layers),
        modules_to_save=[name for name in model.parts_of(model.config) if name != "encoder"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tensors = model.state_dict()
    kept = {key: tensors[name].detach().cpu().contiguous() for key, name in _stored_names(model).items()}
    save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt", BASE_HASH: _hash_of_base(model)})


def load_adapted(
    model_class: type[PreTrainedModel], path: str | os.PathLike, revision: str | None = None
) -> PreTrainedModel:
    """Load adapters with their base, and merge both.

    Args:
        model_class: Class of the model.
        path: What `save_weights` wrote: a folder, or a Hub id.
        revision: Revision of a Hub id.

    Returns:
        A model without adapters, in evaluation mode and float32.

    Raises:
        ValueError: The weights are not those of the configuration, or the base is not the one that was adapted.
        FileNotFoundError: The base is neither a folder nor on the Hub.
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError(f'{path} holds adapters, which need peft: pip install "depthseg[lora]".') from error
    folder = path
    if not os.path.isdir(path):
        folder = snapshot_download(str(path), revision=revision, allow_patterns=["*.json", WEIGHTS_FILE])
    about = LoraConfig.from_pretrained(str(folder))
    check_available(about.base_model_name_or_path, about.revision)
    config = DepthSegConfig.from_pretrained(folder)
    model = model_class(config)
    model.encoder.load_state_dict(_base_encoder(model_class, about, config))
    names = [name.removeprefix("encoder.") for name in sorted(about.target_modules)]
    _inject(model.encoder, rank=about.r, alpha=about.lora_alpha, dropout=0.0, names=names)
    _check_base(model, Path(folder, WEIGHTS_FILE), about)
    stored = load_file(Path(folder, WEIGHTS_FILE))
    names_of = _stored_names(model)
    if wrong := sorted(names_of.keys() ^ stored.keys()):
        raise ValueError(
            f"{path} does not fit its config.json: {len(wrong)} tensors are missing or unknown, for example "
            f"{wrong[0]}. The files are of different runs, or damaged."
        )
    model.load_state_dict({names_of[name]: tensor for name, tensor in stored.items()}, strict=False)
    plain = model_class(config)
    plain.load_state_dict(merged_weights(model))
    return plain.eval()


def _base_encoder(model_class: type[PreTrainedModel], about: Any, config: DepthSegConfig) -> dict[str, Tensor]:
    """The weights of the encoder that adapters belong to; nothing else of the base is read."""
    base, arguments = about.base_model_name_or_path, {"revision": about.revision, "dtype": torch.float32}
    arguments |= {"head_type": config.head_type, "head_config": config.head_config}
    method, more = loader_of_base(base, about.revision, config.encoder_config.to_dict())
    return getattr(model_class, method)(base, **arguments, **more).encoder.state_dict()


def loader_of_base(base: str, revision: str | None, encoder_config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """How the base of adapters is loaded: of a bare encoder with the layers that are read, or of a depth network.

    Args:
        base: Folder or Hub id.
        revision: Of a Hub id.
        encoder_config: The encoder's entry in the `config.json` of the adapters.

    Returns:
        Name of the class method, and arguments of its own.
    """
    values, _ = DepthSegConfig.get_config_dict(base, revision=revision)
    if values.get("model_type") not in ENCODERS.keys() - DEPTH_FAMILIES.keys():
        return "from_depth_pretrained", {"head_init": "random"}
    layers = encoder_config.get("out_indices")
    return "from_encoder_pretrained", {} if layers is None else {"encoder_options": {"out_indices": list(layers)}}


def _fixed_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights of the encoder that stay those of the base; statistics of norms do not."""
    found = model.encoder.named_parameters(prefix="encoder")
    return {name: tensor for name, tensor in found if ADAPTER_WEIGHT not in name}


def _stored_names(model: PreTrainedModel) -> dict[str, str]:
    """Names in the file of adapters -> names in the model, of all that is in the file."""
    fixed = _fixed_weights(model)
    names = [name for name in model.state_dict() if name not in fixed]
    return {PEFT_PREFIX + name.replace(f".{ADAPTER}.", "."): name for name in names}


def _hash_of_base(model: PreTrainedModel) -> str:
    return hash_tensors(sorted(_fixed_weights(model).items(), key=lambda item: item[0]))


def _check_base(model: PreTrainedModel, weights: Path, about: Any) -> None:
    """Refuse a base whose weights differ from those that were adapted; files of earlier versions do not name them."""
    with safe_open(weights, framework="pt") as file:
        expected = (file.metadata() or {}).get(BASE_HASH)
    found = _hash_of_base(model)
    if expected not in (None, found):
        at = f" at revision {about.revision}" if about.revision else ""
        raise ValueError(
            f"The adapters in {weights.parent} were trained on other weights than those of "
            f"{about.base_model_name_or_path}{at} (the SHA-256 of the encoder is {found[:12]}..., and was "
            f"{expected[:12]}...), and would give another network. Bring back the base as it was then, or set "
            f"`revision` in {CONFIG_FILE} to the commit of that time."
        )
