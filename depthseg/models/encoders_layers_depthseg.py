"""The layer of each parameter of a backbone, from the structure of the backbone and one forward pass.

The layers of a transformer are its blocks: the innermost repeated modules with attention, in all stages. The layers of
a network without attention are its stages: the outermost repeated modules. No family is handled by name.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel


def number_layers(backbone: nn.Module, run: Callable[[], object]) -> tuple[dict[str, int], int]:
    """Number the modules of a backbone by layer, as BEiT and MAE do for layer-wise learning rates.

    Layer 0 contains the modules before the first block (stem, embeddings), 1 to N are the N blocks, and N + 1 contains
    the modules after the last one. Modules between two blocks (downsampling) belong to the one before. Parallel
    networks, such as the two of DepthPro, are numbered independently.

    Args:
        backbone (`nn.Module`): The backbone; it can be on the meta device.
        run (`Callable`): Runs the backbone once.

    Returns:
        `tuple[dict[str, int], int]`: name of every module (`""` is the backbone itself) -> layer, and N + 1, of the
        longest network if there are several.

    Source: Bao et al. 2022, https://huggingface.co/papers/2106.08254; He et al. 2022,
    https://huggingface.co/papers/2111.06377, appendix A.
    """
    networks = find_networks(backbone)
    blocks = {network: find_blocks(backbone.get_submodule(network), network) for network in networks}
    top = 1 + max(len(names) for names in blocks.values())
    numbers = {name: number for names in blocks.values() for number, name in enumerate(names, start=1)}
    reached: dict[str | None, int] = {network: 0 for network in networks}
    layers: dict[str, int] = {}

    def enter(name: str) -> None:
        network = next((network for network in networks if is_inside(name, network)), None)
        if (block := enclosing(name, numbers)) is not None:
            reached[network] = layers[name] = block
        elif network is not None:
            layers.setdefault(name, after(reached[network], len(blocks[network])))
        else:  # around several networks: it joins what they give, or makes what they get
            layers.setdefault(name, top if all(reached.values()) else 0)

    def after(block: int, count: int) -> int:
        return top if block == count else block

    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: enter(name))
        for name, module in backbone.named_modules()
    ]
    run()
    for hook in hooks:
        hook.remove()
    for name, _ in backbone.named_modules():
        if name not in layers:  # never called: in a skipped block, inside a called module, or unused
            block = enclosing(name, numbers)
            around = next((layers[parent] for parent in parents(name)[:-1] if parent in layers), top)
            layers[name] = around if block is None else block
    return layers, top


def find_networks(backbone: nn.Module) -> list[str]:
    """Return the names of the parallel models in a backbone; `[""]` if it is one network."""
    models = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, PreTrainedModel) and attention_blocks(module)
    ]
    innermost = [name for name in models if not any(other != name and is_inside(other, name) for other in models)]
    if len(innermost) < 2:
        return [""]
    alone = [name for name in models if sum(is_inside(other, name) for other in innermost) == 1]
    return [name for name in alone if not any(other != name and is_inside(name, other) for other in alone)]


def find_blocks(network: nn.Module, prefix: str) -> list[str]:
    """Return the names, under `prefix`, of a network's attention blocks or, without attention, of its stages."""
    blocks = attention_blocks(network) or stages(network)
    return [f"{prefix}.{name}" if prefix else name for name in blocks]


def attention_blocks(network: nn.Module) -> list[str]:
    """Return the names of the elements of the innermost module lists whose elements all contain attention."""
    elements = [
        f"{name}.{index}".lstrip(".")
        for name, module in network.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        if all(holds_attention(element) for element in module)
        for index in range(len(module))
    ]
    return [name for name in elements if not any(other != name and is_inside(other, name) for other in elements)]


def stages(network: nn.Module) -> list[str]:
    """Return the names of the stages: the elements of the outermost module list, or of parallel outermost lists.

    If there are several such lists, for example a convolutional stem, the parent with the most weights is used.
    """
    places: dict[str, list[str]] = {}
    for name, module in network.named_modules():
        repeats = isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
        if repeats and not any(is_inside(name, outer) for outer in sum(places.values(), [])):
            places.setdefault(name.rpartition(".")[0], []).append(name)

    def weight(lists: list[str]) -> int:
        return sum(tensor.numel() for name in lists for tensor in network.get_submodule(name).parameters())

    lists = max(places.values(), key=weight)
    return (
        lists
        if len(lists) > 1
        else [f"{lists[0]}.{i}" for i in range(len(list(network.get_submodule(lists[0]).children())))]
    )


def holds_attention(module: nn.Module) -> bool:
    """Whether a module contains attention, from the class names of transformers."""
    return any("Attention" in type(child).__name__ for child in module.modules())


def enclosing(name: str, numbers: dict[str, int]) -> int | None:
    """Return the number of a module, or of the innermost numbered one around it."""
    return next((numbers[parent] for parent in parents(name) if parent in numbers), None)


def parents(name: str) -> list[str]:
    """Return a dotted name and those of the modules around it, innermost first, down to `""`."""
    pieces = name.split(".") if name else []
    return [".".join(pieces[:count]) for count in range(len(pieces), -1, -1)]


def is_inside(name: str, outer: str) -> bool:
    """Whether a dotted name equals another one, or is inside it."""
    return not outer or name == outer or name.startswith(f"{outer}.")
