"""The web page as a folder that runs as a Hugging Face Space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

from .atomic import atomic_folder
from .download import check_available
from .prediction_inputs import unique_names

# What a checkpoint is loaded from; the code beside it is that of the package.
_OF_A_MODEL = ("*.json", "*.safetensors")
_README = """---
title: depthseg
emoji: 🛣️
colorFrom: indigo
colorTo: gray
sdk: gradio
sdk_version: {sdk_version}
python_version: "3.11"
app_file: app.py
{models}---

Classes and depth of an image or a short film, by {names}. Written by `depthseg demo --space`.
"""
_APP = """import os
from pathlib import Path

from depthseg.engine.demo import load_checkpoints
from depthseg.engine.demo_page import build_page, launch

os.chdir(Path(__file__).parent)  # where models/ is
page = build_page(load_checkpoints({models}))

if __name__ == "__main__":
    launch(page)
"""


def write_space(folder: Path, models: Sequence[str]) -> str:
    """Write the folder.

    Args:
        folder: A new folder.
        models: Directories, which are copied in, or Hub ids, which are named; one or two.

    Returns:
        A sentence on what was written and how it is uploaded.

    Raises:
        FileExistsError: There is something of this name.
        FileNotFoundError: A directory holds no checkpoint, or there is no such Hub id.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; give --space the name of a new folder.")
    for name in models:
        check_available(name)
    folders = [Path(name) for name in models if os.path.isdir(name)]
    places = dict(zip(folders, unique_names([_named(path) for path in folders]), strict=True))
    named = [f"models/{places[Path(name)]}" if os.path.isdir(name) else name for name in models]
    hub = [name for name in models if not os.path.isdir(name)]
    listed = "models:\n" + "".join(f"- {name}\n" for name in hub) if hub else ""
    with atomic_folder(folder) as partial:
        # The package itself comes along: a Space installs the same version whatever the index has.
        shutil.copytree(Path(__file__).parents[1], partial / "depthseg", ignore=shutil.ignore_patterns("__pycache__"))
        for path, name in places.items():
            (partial / "models" / name).mkdir(parents=True)
            for file in (file for pattern in _OF_A_MODEL for file in path.glob(pattern)):
                shutil.copy(file, partial / "models" / name)
        names = " and ".join(f"`{name.removeprefix('models/')}`" for name in named)
        readme = _README.format(sdk_version=version("gradio"), models=listed, names=names)
        (partial / "README.md").write_text(readme, encoding="utf-8")
        (partial / "app.py").write_text(_APP.format(models=named), encoding="utf-8")
        (partial / "requirements.txt").write_text("\n".join(space_requirements()) + "\n", encoding="utf-8")
    return f"{folder} is a Space; upload it with: hf upload ME/NAME {folder} --repo-type space"


def space_requirements() -> list[str]:
    """What the package and the page need, without gradio, whose version a Space takes from its README."""
    wanted = [Requirement(text) for text in requires("depthseg") or ()]
    kept = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": "demo"})]
    return [f"{each.name}{each.specifier}" for each in kept if each.name != "gradio"]


def _named(path: Path) -> Path:
    """Runs keep their checkpoint in a folder `model`, which says less than the name of the run."""
    path = path.resolve()
    return path.parent if path.name == "model" else path
