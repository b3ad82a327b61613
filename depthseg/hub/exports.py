"""An exported file as it is published: its record is what the file says about itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.tasks import TASKS
from ..engine.wrapping import WRAPPED
from ..export.check import random_input
from ..export.formats import FORMATS, Format, check_packages, first_line
from .forms import Form
from .record import Lineage, published_lineage, refuse_faults

SUFFIXES = {kind.suffix: name for name, kind in FORMATS.items()}

UNNAMED_MODEL = "model"
"""The exported model, if it was a folder: the file does not say which."""


def exported_file(path: Path) -> Path | None:
    """The exported file that a path is, or that a folder contains which is no checkpoint; None if there is none.

    Raises:
        ValueError: A folder contains several.
    """
    if path.is_file():
        return path if path.suffix in SUFFIXES else None
    if not path.is_dir() or any((path / name).exists() for name in ("config.json", "config.yaml")):
        return None
    found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES)
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ValueError(f"{path} contains several exported files ({names}); give one of them.")
    return found[0] if found else None


def read_export(path: Path) -> Form:
    """Read a file that `depthseg export` wrote.

    Raises:
        ValueError: Another file, a damaged one, or one of an earlier release, which does not say where it comes from;
            weights that were trained with known faults.
        FileNotFoundError: A checkpoint that it comes from does not exist.
        ImportError: A package that reads it is missing.
    """
    name = SUFFIXES[path.suffix]
    check_packages(name)
    kind = FORMATS[name]
    about = _metadata(path, kind)
    refuse_faults(about.get(WRAPPED, ()), path)

    def write(folder: Path) -> int:
        _check_runs(path, kind, about)
        shutil.copyfile(path, folder / path.name)
        return 0

    return Form(
        name="export",
        what="an exported file",
        task=TASKS["depth" if about["returns"] == ["depth"] else "segmentation"],
        lineage=_lineage(about),
        write=write,
        library=kind.library,
        summary=f"A network as one file that runs with {kind.runtime}, exported with depthseg.",
        base_model=about["made_from"],
        values={"about": about, "file": path.name, "runtime": kind.runtime},
    )


def _metadata(path: Path, kind: Format) -> dict[str, Any]:
    try:
        about = kind.describe(path)
    except Exception as error:  # each runtime has its own types
        raise ValueError(f"{path} cannot be read by {kind.runtime}: {first_line(error)}") from error
    missing = [name for name in ("made_by", "made_from", "input", "returns", "smallest_side") if name not in about]
    if missing:
        raise ValueError(
            f"{path} does not say what it is: it has no {', '.join(missing)}. Only files of depthseg export are "
            "published; export the model again with this release."
        )
    return about


def _lineage(about: dict[str, Any]) -> Lineage:
    """The lineage of the exported model and of the checkpoints of the Hub that initialised it."""
    if about["made_from"]:
        return published_lineage(about["made_from"], about.get("revision"))
    stages, ancestors = [], [(UNNAMED_MODEL, None)]
    for transfer in about["weight_lineage"] or []:
        if transfer["revision"] is not None:  # a folder has none
            before = published_lineage(transfer["source"], transfer["revision"])
            stages += before.stages
            ancestors += before.ancestors
    return Lineage(tuple(dict.fromkeys(stages)), tuple(dict.fromkeys(ancestors)))


def _check_runs(path: Path, kind: Format, about: dict[str, Any]) -> None:
    """Run a file once on a small input.

    Raises:
        ValueError: It does not run, or its outputs are not those that it names.
    """
    side = about["smallest_side"]
    only = about.get("image_size")
    height, width = (only["height"], only["width"]) if only else (side, side + 1)
    takes = "images" if about["input_dtype"] == "uint8" else "pixel_values"
    try:
        outputs = kind.load(path)(random_input(takes, 1, height, width))
    except Exception as error:  # as for the metadata
        raise ValueError(f"{path} does not run with {kind.runtime}: {first_line(error)}") from error
    shapes = [output.shape[-2:] for output in outputs]
    is_finite = all(np.isfinite(output).all() for output in outputs)
    if not is_finite or shapes != [(height, width)] * len(about["returns"]):
        raise ValueError(f"{path} does not return finite {', '.join(about['returns'])} at the size of the image.")
