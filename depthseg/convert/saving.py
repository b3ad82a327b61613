"""Building the converted model, checking it tensor by tensor, and saving it with its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..engine.atomic import atomic_folder
from ..models import DepthSegImageProcessor, check_input_scaling
from ..models.configuration_depthseg import DepthSegConfig, build_encoder_config
from ..models.encoders_depthseg import encoder_entry
from ..models.loading_depthseg import count_tensors, task_class
from ..models.transfer_depthseg import PartTransfer, TransferReport
from .converted import ENCODER, Converted, ConvertOptions, count_in_words
from .kinds import KINDS, find_kind
from .reading import Source, read_source

DEPTH_MEANINGS = {
    "relative_inverse": "inverse depth up to scale and shift",
    "relative": "depth up to scale and shift",
    "metric": "metres, {max_depth:g} at most",
    "disparity": "metres from {min_depth:g} to {max_depth:g}, up to scale if the network was trained without one",
}
"""Meaning of a depth in the report, with values of the configuration."""

REPORT_FILE = "conversion.json"
"""In the folder of a converted model: where each tensor came from."""


def convert(
    paths: list[Path], output_dir: Path, kind: str | None = None, options: ConvertOptions | None = None
) -> str:
    """Convert published weights into a folder of depthseg.

    Args:
        paths: Files of weights, or a folder of them.
        output_dir: The folder to write; it must not exist.
        kind: A key of `KINDS`; found out from the names of the tensors if left out.
        options: What the files do not say.

    Returns:
        The report as a short table.

    Raises:
        ValueError: If the files are damaged, of no known kind, or do not contain the whole network.
        FileExistsError: If the folder exists.
    """
    if output_dir.exists():
        raise FileExistsError(f"{output_dir} exists; give another --output-dir, or remove it first.")
    source = read_source(paths)
    kind = find_kind(source, kind)
    if not source.is_single and not KINDS[kind].several:
        raise ValueError(
            f"{', '.join(source.sha256)}: a network of kind {kind} is in one file, and these are {len(source.files)}; "
            "give one of them."
        )
    options = options or ConvertOptions()
    converted = KINDS[kind].convert(source, options)
    if options.max_depth is not None and converted.config.get("max_depth") != options.max_depth:
        raise ValueError(
            f"--max-depth is the range of a metric depth network, and these weights ({kind}) are none; leave it out."
        )
    module, config = build(converted)
    load_exactly(module, converted)
    processor = DepthSegImageProcessor(**converted.processor)
    report = make_report(kind, source, converted)
    if config is not None:
        check_input_scaling(config, processor)
        config.weight_lineage = [lineage(kind, source, converted, module)]
    with atomic_folder(output_dir) as partial:
        module.save_pretrained(partial)
        processor.save_pretrained(partial)
        (partial / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")
    return describe(report, module, output_dir)


def build(converted: Converted) -> tuple[nn.Module, DepthSegConfig | None]:
    """Return the new model and its configuration; a bare encoder has none of ours."""
    if converted.model_class == ENCODER:
        encoder_config = build_encoder_config(converted.config)
        return encoder_entry(encoder_config.model_type).cls(encoder_config).backbone.eval(), None
    config = DepthSegConfig(**converted.config)
    return task_class(converted.model_class)(config).eval(), config


@torch.no_grad()
def load_exactly(module: nn.Module, converted: Converted) -> None:
    """Load the tensors; every one of the model must be there with its shape, and none may be left.

    Raises:
        ValueError: Which names the tensors that are missing, not known or of another shape.
    """
    wanted = module.state_dict()
    found: dict[str, Tensor] = {name: tensor for name, (_, tensor) in converted.tensors.items()}
    found |= {name: torch.zeros_like(wanted[name]) for name in converted.filled if name in wanted}
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{converted.tensors[name][0]} ({name}) has no place" for name in found if name not in wanted]
    faults += [
        f"{converted.tensors[name][0]} has the shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    if faults:
        raise ValueError(
            f"The weights do not fit the network in {count_in_words(faults)}: {'; '.join(faults[:5])}"
            f"{'; ...' if len(faults) > 5 else ''}. Nothing was written: the file is incomplete or of another network."
        )
    broken = [name for name, tensor in found.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ValueError(
            f"NaN or infinity is in {count_in_words(broken)}, for example {converted.tensors[broken[0]][0]}; the "
            "weights are damaged, or their training failed. Nothing was written."
        )
    module.load_state_dict(found)


def make_report(kind: str, source: Source, converted: Converted) -> dict[str, Any]:
    """Return the content of `conversion.json`."""
    row = KINDS[kind]
    depth_type = converted.config.get("depth_type")
    meaning = DEPTH_MEANINGS[depth_type].format(**converted.config) if depth_type else None
    return {
        "kind": kind,
        "summary": row.summary,
        "paper": row.paper,
        "licence": row.licence,
        "depthseg": __version__,
        "files": source.sha256,
        "model_class": converted.model_class,
        "depth_type": depth_type,
        "depth": "; ".join((meaning, converted.assumed)) if converted.assumed else meaning,
        "tensors": [
            {"from": label, "to": name, "shape": list(tensor.shape)}
            for name, (label, tensor) in converted.tensors.items()
        ],
        "left_out": converted.left_out,
        "filled_with_zero": converted.filled,
    }


def lineage(kind: str, source: Source, converted: Converted, model: nn.Module) -> dict[str, Any]:
    """Return the entry of `weight_lineage`: that of a transfer, with kind, licence and paper."""
    parts = tuple(
        PartTransfer(name, "taken", f"converted from {kind}", *count_tensors(part))
        for name, part in model.named_children()
    )
    report = TransferReport(", ".join(source.sha256), None, kind, converted.model_class, parts)
    row = KINDS[kind]
    return report.to_dict() | {"licence": row.licence, "paper": row.paper, "sha256": source.sha256}


def describe(report: dict[str, Any], module: nn.Module, output_dir: Path) -> str:
    """Return a short table of a conversion."""
    elements = sum(tensor.numel() for tensor in module.state_dict().values())
    rows = [
        ("kind", f"{report['kind']}: {report['summary']}"),
        ("files", ", ".join(report["files"])),
        ("licence", report["licence"]),
        ("saved", f"{output_dir} ({report['model_class']}, {elements:,} elements)"),
        ("converted", count_in_words(report["tensors"])),
    ]
    if report["depth"]:
        rows.insert(3, ("depth", report["depth"]))
    for title, names in (("left out", report["left_out"]), ("set to 0", report["filled_with_zero"])):
        reasons: dict[str, list[str]] = {}
        for name, reason in names.items():
            reasons.setdefault(reason, []).append(name)
        rows += [(title, f"{count_in_words(group)}, such as {group[0]}: {why}") for why, group in reasons.items()]
    rows.append(("details", str(output_dir / REPORT_FILE)))
    return "\n".join(f"{title:<10} {text}" for title, text in rows)
