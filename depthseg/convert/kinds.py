"""The table of published layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .converted import Converted, ConvertOptions
from .kinds_vit import convert_dinov2, recognises_dinov2
from .reading import Source


@dataclass(frozen=True)
class Kind:
    """One row of [`KINDS`], read by the command, the tests and the table of the README.

    Args:
        summary (`str`): Which checkpoints it reads.
        paper (`str`): Link of the paper.
        licence (`str`): As published, with what it depends on.
        recognises (`Callable`): From the source to whether it has this layout, by names and shapes of tensors.
        convert (`Callable`): From the source, and the options that a file does not say, to the converted model.
    """

    summary: str
    paper: str
    licence: str
    recognises: Callable[[Source], bool]
    convert: Callable[[Source, ConvertOptions], Converted]


KINDS: dict[str, Kind] = {
    "dinov2": Kind(
        "DINOv2 ViT-S/B/L/g, with and without registers: a bare encoder.",
        "https://huggingface.co/papers/2304.07193",
        "Apache-2.0",
        recognises_dinov2,
        convert_dinov2,
    ),
}
"""Name of a layout -> its row."""


def find_kind(source: Source, asked: str | None = None) -> str:
    """Return the key of the layout of a source.

    Args:
        source: The files.
        asked: The key that the user gave.

    Raises:
        ValueError: If the key is unknown, or not exactly one layout is recognised.
    """
    if asked is not None:
        if asked not in KINDS:
            raise ValueError(f"--from is {asked!r}; allowed are {', '.join(KINDS)}.")
        return asked
    found = [name for name, kind in KINDS.items() if kind.recognises(source)]
    if len(found) == 1:
        return found[0]
    files = ", ".join(source.sha256)
    if found:
        raise ValueError(f"{files}: the file fits {' and '.join(found)} and does not say which; give it as --from.")
    names = [name for tensors in source.files.values() for name in tensors]
    raise ValueError(
        f"{files}: {len(names)} tensors ({', '.join(names[:3])}, ...) of a layout that is not known. Known are "
        f"{', '.join(KINDS)}."
    )
