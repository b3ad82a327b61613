"""Reading weights without running code: safetensors, and files of `torch.save` that hold tensors and plain values."""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .pickled import PLAIN_GLOBALS

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".bin")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "teacher", "student", "net", "network")
"""Names under which training code stores the weights among other things; the first one found is opened."""

PREFIXES = ("module.", "core.core.", "_orig_mod.", "model.")
"""What wrappers (data parallel, ZoeDepth around its relative network, compilation, Lightning) write before names."""

MAX_PROTOCOL = 3
"""Newest version of pickles that PyTorch's reader of plain values supports."""


class NoWeightsError(ValueError):
    """A file without weights."""


@dataclass(frozen=True)
class Source:
    """Weights as read from files.

    Args:
        paths (`tuple[Path, ...]`): The files.
        files (`dict[str, dict[str, Tensor]]`): Name of a file without suffix -> name, without the prefixes of wrappers
            -> tensor.
        original (`dict[str, dict[str, str]]`): The same two names -> name of the tensor in the file.
        extras (`dict[str, dict[str, Any]]`): Name of a file without suffix -> numbers and words beside its weights,
            also of groups (scores, options), each a `dict`.
        sha256 (`dict[str, str]`): Name of a file -> hash of its bytes.
    """

    paths: tuple[Path, ...]
    files: dict[str, dict[str, Tensor]]
    original: dict[str, dict[str, str]]
    extras: dict[str, dict[str, Any]]
    sha256: dict[str, str]

    @property
    def is_single(self) -> bool:
        """Whether there is one file."""
        return len(self.files) == 1

    @property
    def stem(self) -> str:
        """Name of the first file without suffix."""
        return next(iter(self.files))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the first file; kinds of several files read `files`."""
        return self.files[self.stem]

    def label(self, stem: str, name: str) -> str:
        """Return the name of a tensor for the report: as in its file, with the file's name if there are several."""
        original = self.original[stem][name]
        return original if self.is_single else f"{stem}: {original}"


def read_source(paths: Sequence[str | Path]) -> Source:
    """Read the weights of files, or of a folder of them.

    Args:
        paths: Files with a suffix of `SUFFIXES`, or folders that contain such files.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder contains no such file.
        ValueError: If a file is damaged or needs more than tensors and plain values; if a named file, or every file of
            a folder, contains no tensors.
    """
    found = [file for path in paths for file in list_files(Path(path))]
    files: dict[str, dict[str, Tensor]] = {}
    original: dict[str, dict[str, str]] = {}
    extras: dict[str, dict[str, Any]] = {}
    for file in found:
        if file.stem in files:
            raise ValueError(f"Two of the files are called {file.stem}; give each network its own name.")
        try:
            weights, extras[file.stem] = unwrap(read_file(file), file)
        except NoWeightsError:
            # Training folders also hold the state of optimisers, which is of use only to the training.
            if len(found) == 1 or file in map(Path, paths):
                raise
            continue
        prefix = common_prefix(weights)
        files[file.stem] = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
        original[file.stem] = {name.removeprefix(prefix): name for name in weights}
    read = tuple(file for file in found if file.stem in files)
    if not read:
        raise NoWeightsError(f"None of the files contains weights: {', '.join(file.name for file in found)}.")
    return Source(read, files, original, extras, {file.name: hash_file(file) for file in read})


def list_files(path: Path) -> list[Path]:
    """Return a file, or the files with weights of a folder in the order of their names."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise FileNotFoundError(f"{path} contains no file of weights ({', '.join(SUFFIXES)}).")
        return files
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; give files of weights, or a folder that contains them.")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} has the suffix {path.suffix!r}; weights are read from {', '.join(SUFFIXES)}.")
    return [path]


def read_file(path: Path) -> Any:
    """Return the content of a file of weights.

    Raises:
        ValueError: If the file is damaged, or needs more than tensors and plain values.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or incomplete: {error}. Download it again.") from error
    if first_bytes(path, "/constants.pkl"):
        raise ValueError(
            f"{path} is a TorchScript archive, which contains code, so it was not loaded. If you trust its author, "
            "save its tensors alone: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')."
        )
    try:
        with torch.serialization.safe_globals(PLAIN_GLOBALS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))
        protocol = pickle_protocol(path)
        if protocol > MAX_PROTOCOL:
            raise ValueError(
                f"{path} is a pickle of protocol {protocol}, which cannot be read without running code of the file, "
                "so it was not loaded. If you trust its author, save it again with torch's own protocol: "
                "torch.save(torch.load(FILE, weights_only=False), 'weights.pth')."
            ) from error
        if needed is None:
            raise damaged(path) from error
        raise ValueError(
            f"{path} needs {needed[1]}, not only tensors and plain values. Loading it would run code of the file, so "
            "it was not loaded. If you trust its author, save its tensors alone in an environment of theirs: "
            "torch.save(model.state_dict(), FILE)."
        ) from error
    except PermissionError:
        raise
    except (EOFError, OSError, RuntimeError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise damaged(path) from error


def first_bytes(path: Path, member: str) -> bytes:
    """Return the first two bytes of a member of a zip archive, by the end of its name; empty if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(member):
                    with archive.open(name) as stream:
                        return stream.read(2)
    except (zipfile.BadZipFile, OSError, EOFError):
        pass
    return b""


def pickle_protocol(path: Path) -> int:
    """Return the protocol of the pickle in a file of `torch.save` or `pickle`; 0 if it states none."""
    head = first_bytes(path, "/data.pkl")
    if not head:
        with path.open("rb") as stream:
            head = stream.read(2)
    return head[1] if len(head) == 2 and head[:1] == b"\x80" else 0


def damaged(path: Path) -> ValueError:
    """Return the error about a file that cannot be read to its end."""
    size = path.stat().st_size
    return ValueError(f"{path} ({size:,} bytes) is damaged, incomplete or no file of torch.save; download it again.")


def unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights in the content of a file, and the plain numbers beside them.

    Raises:
        NoWeightsError: If there are no tensors.
    """
    extras: dict[str, Any] = {}
    while isinstance(content, Mapping):
        extras |= plain_values(content)
        groups = {name: plain_values(group) for name, value in content.items() if (group := as_group(value))}
        extras |= {name: values for name, values in groups.items() if values}
        inner = [content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)]
        if not inner:
            break
        content = inner[0]
    weights = {}
    if isinstance(content, Mapping):
        weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        weights = weights or join_networks(content)
    if not weights:
        held = f"the names {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else "no names"
        raise NoWeightsError(
            f"{path} contains no tensors where weights are expected, but {held}; a state dict is needed, plain or "
            f"under one of {', '.join(WRAPPERS)}."
        )
    return weights, extras


def as_group(value: Any) -> Mapping[Any, Any]:
    """Return a mapping, or the options of a parser of arguments, as a mapping; empty for everything else."""
    if isinstance(value, argparse.Namespace):
        return vars(value)
    return value if isinstance(value, Mapping) else {}


def plain_values(group: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the numbers and words of a group."""
    return {str(name): value for name, value in group.items() if isinstance(value, Number | str)}


def join_networks(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors of several networks that are side by side in a file, each after the name of its network."""
    return {
        f"{network}.{name}": tensor
        for network, weights in content.items()
        if isinstance(weights, Mapping)
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor)
    }


def common_prefix(weights: Mapping[str, Tensor]) -> str:
    """Return the prefix that wrappers wrote before all names.

    ZoeDepth's `core.core.` stands before the names of its relative network only, and is not stripped from others.
    """
    prefix = ""
    while True:
        longer = [prefix + more for more in PREFIXES if all(name.startswith(prefix + more) for name in weights)]
        if not longer:
            return prefix
        prefix = longer[0]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
