"""The formats of exported files: how each is written, and how it is run to be checked."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_structure

from .network import ExportedNetwork
from .windows import traceable_windows

Run = Callable[[np.ndarray], list[np.ndarray]]
Write = Callable[[Path, list[str]], None]
"""Writes a network to a path with the first of its outputs, which are named; what was left out does not come back."""

# What a file of ONNX can hold, the limit of its container; graph and metadata need some of it.
LARGEST_ONNX = 2_000_000_000
METADATA_FILE = "depthseg.json"


@dataclass(frozen=True)
class Format:
    """One row of [`FORMATS`].

    Attributes:
        packages: Packages to be imported for it, beyond those of depthseg.
        convert: Turns a traced program and its metadata, in which `returns` names all its outputs, into [`Write`].
        load: Loads a file as a function from input to outputs.
        describe: Reads the metadata of a file.
        runtime: What runs the file.
        suffix: Of its files.
        library: Library of the Hub for its files; None = the Hub has none.
    """

    packages: tuple[str, ...]
    convert: Callable[[torch.export.ExportedProgram, dict[str, Any]], Write]
    load: Callable[[Path], Run]
    describe: Callable[[Path], dict[str, Any]]
    runtime: str
    suffix: str
    library: str | None


def trace(network: ExportedNetwork, image: Tensor, layout: list[str | int]) -> torch.export.ExportedProgram:
    """Trace a network at an image, with the axes left open that have a name in the layout of the input.

    Raises:
        ValueError: Something in the network depends on the size in a way that cannot be traced.
    """
    dynamic = {index: torch.export.Dim.AUTO for index, axis in enumerate(layout) if isinstance(axis, str)}
    try:
        with torch.no_grad(), quiet(), traceable_windows(network):
            program = torch.export.export(network, (image,), dynamic_shapes=(dynamic,), strict=False)
    except Exception as error:  # the tracer raises many types, all of which mean that it cannot
        raise ValueError(f"{described(network)} cannot be traced at open sizes: {first_line(error)}") from error
    (name,) = program.graph_signature.user_inputs
    (given,) = (node for node in program.graph.nodes if node.name == name)
    shape = given.meta["val"].shape
    fixed = [shape[axis] for axis in dynamic if isinstance(shape[axis], int)]
    if fixed:
        raise ValueError(
            f"{described(network)} cannot be exported: something in it computes with the image size {fixed} that it "
            "was traced at, so the file would work at that size alone."
        )
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of tracer and translator from the user, and leave all settings as they were."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def described(network: ExportedNetwork) -> str:
    """Name a network by its encoder and head."""
    config = network.model.config
    return f"The encoder {config.encoder_config.model_type} with the head {config.head_type}"


def first_line(error: Exception) -> str:
    """The first line of a message that says something, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def convert_onnx(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> Write:
    """Turn a program into one ONNX file, its metadata as `metadata_props`; values that are not texts become JSON.

    Raises:
        ValueError: The weights are too large for one file, or an operation has no counterpart in ONNX.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    if size > LARGEST_ONNX:
        raise ValueError(
            f"The weights take {size / 1e9:.1f} GB, but a file of ONNX holds at most 2 GB; export with --format "
            "torch-export."
        )
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                input_names=[metadata["input"]],
                output_names=metadata["returns"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # as for the tracer
        raise ValueError(f"The network cannot be written as ONNX: {first_line(error)}") from error
    graph = exported.model.graph
    name_axes(graph, metadata["input_layout"])

    def write(path: Path, returns: list[str]) -> None:
        from onnx_ir.passes.common import RemoveUnusedNodesPass

        del graph.outputs[len(returns) :]
        RemoveUnusedNodesPass()(exported.model)
        about = metadata | {"returns": returns}
        exported.model.metadata_props.update(
            {name: value if isinstance(value, str) else json.dumps(value) for name, value in about.items()}
        )
        exported.save(path, external_data=False)

    return write


def name_axes(graph: Any, layout: list[str | int]) -> None:
    """Call the open axes by what they are, `height` in place of the tracer's `s34`, wherever they are mentioned."""
    from onnx_ir import Shape

    axes = zip(graph.inputs[0].shape, layout, strict=True)
    names = {axis.value: name for axis, name in axes if not isinstance(axis, int)}
    values = [*graph.inputs, *graph.outputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is not None:
            value.shape = Shape(
                axis
                if isinstance(axis, int) or axis.value is None
                else re.sub(r"\w+", lambda found: names.get(found[0], found[0]), axis.value)
                for axis in value.shape
            )


def load_onnx(path: Path) -> Run:
    """Load a file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda images: session.run(None, {given.name: images})


def describe_onnx(path: Path) -> dict[str, Any]:
    """Read the metadata of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return {name: _value(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # a plain text
        return text


def convert_torch_export(program: torch.export.ExportedProgram, metadata: dict[str, Any]) -> Write:
    """Write a program as a file of `torch.export`, its metadata as the extra file `depthseg.json`."""

    def write(path: Path, returns: list[str]) -> None:
        count = len(returns)
        (result,) = (node for node in program.graph.nodes if node.op == "output")
        if count < len(result.args[0]):
            result.args = (tuple(result.args[0][:count]),)
            del program.graph_signature.output_specs[count:]
            signature = program.module_call_graph[0].signature
            del signature.outputs[count:]
            signature.out_spec = tree_structure(tuple(range(count)))
            program.graph.eliminate_dead_code()
            program.graph_module.recompile()
        about = metadata | {"returns": returns}
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(about)})

    return write


def load_torch_export(path: Path) -> Run:
    """Load a program, without guards: they refuse sizes that take a shortcut in the network, such as native ones."""
    network = torch.export.load(path).module(check_guards=False)

    @torch.no_grad()
    def run(images: np.ndarray) -> list[np.ndarray]:
        return [output.numpy() for output in network(torch.from_numpy(images))]

    return run


def describe_torch_export(path: Path) -> dict[str, Any]:
    """Read the metadata of a program; empty if it has none."""
    extra = {METADATA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra[METADATA_FILE] or "{}")


FORMATS: dict[str, Format] = {
    "onnx": Format(
        ("onnx", "onnxscript", "onnxruntime"), convert_onnx, load_onnx, describe_onnx, "onnxruntime", ".onnx", "onnx"
    ),
    "torch-export": Format(
        (), convert_torch_export, load_torch_export, describe_torch_export, "torch.export", ".pt2", None
    ),
}
"""Name on the command line -> how files of the format are written and run."""


def check_packages(name: str) -> None:
    """Raise a sentence with the line to type if a package of a format is missing.

    Raises:
        ImportError: A package is missing.
    """
    missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(
            f"Exporting as {name} needs {', '.join(missing)}; install with `pip install 'depthseg[export]'` or `pip "
            f"install {' '.join(missing)}`."
        )
